"""`MODEL_CARD.md` of a run: what it is, what it was trained on, how good, what not to do."""

from __future__ import annotations

from typing import Any

import jinja2

from tfgan_med import files
from tfgan_med.training.run_folder import RunFolder
from tfgan_med.training.settings import RunConfig, system_class
from tfgan_med.training.task import MEANINGS, Task

TEMPLATE = """\
# {{ run }}

{{ system }}, trained by tfgan_med {{ environment.tfgan_med }} (TensorFlow \
{{ environment.tensorflow }}, Keras {{ environment.keras }}) on \
{{ environment.devices | join(", ") }}.

| | |
|---|---|
| data | `{{ data.name }}`: {{ counts }} |
| {{ verb }} | {{ contents }}, \
{{ size.image_size }} px, `fit: {{ size.fit }}` |
| training | {{ result.steps }} steps of {{ train.batch_size }}, seed {{ train.seed }}, \
{{ train.precision }} |
| data fingerprint | `{{ data.sha256 }}` |

## Scores on {{ ending.basis }}

| | this model |{% for name in ending.references %} {{ name }} |{% endfor %}
|---|---|{% for name in ending.references %}---|{% endfor %}
{% for name, value in ending.scores.items() -%}
| {{ names[name] }} | {{ "%.4g" | format(value) }} |\
{% for other in ending.references.values() %} \
{{ "%.4g" | format(other[name]) if name in other else "" }} |{% endfor %}
{% endfor %}
{{ caution }}
{% if result.warnings %}
## Warnings of the run
{% for text in result.warnings %}
- {{ text }}
{%- endfor %}
{% endif %}
## Use

{{ use }} {{ warning }}
"""

_GENERATED = (
    "They are synthetic and marked as such. Not for diagnosis. A generator trained on few pictures "
    "can repeat them: do not take its pictures for anonymous without a check. Do not test a "
    "downstream model on pictures this generator was trained on (`data.json` lists them)."
)
_DECIDED = (
    "Not for diagnosis. Do not test it on pictures it was trained on (`data.json` lists them)."
)

_HELD_OUT = (
    "The weights were chosen on the validation split; the test split was looked at once. With few "
    "test pictures these numbers are uncertain: `tfgan-med experiment run` gives intervals."
)
VERBS = {"images": "makes", "source": "makes", "pairs": "translates", "domains": "translates"}
CAUTIONS = {
    "labels": _HELD_OUT,
    "masks": _HELD_OUT,
    "ids": _HELD_OUT,
    "pairs": "These compare pixel by pixel with one true picture per condition. They do not say "
    "whether the pictures look real (`tfgan-med evaluate all`) nor whether they help a downstream "
    "model.",
    "images": "These compare local patches. They do not say whether whole pictures look real "
    "(`tfgan-med evaluate all`), whether they are copies (`tfgan-med evaluate memorization`), nor "
    "whether they help a downstream model.",
    "source": "L1, PSNR and SSIM are of training pictures that the generator has rebuilt, each "
    "from a latent vector of its own: they say what it can show, not how good new pictures are, "
    "and a perfect score is a set learned by heart. Look at interpolation.png, and for copies at "
    "`tfgan-med evaluate memorization`.",
    "domains": "A low distance with little change says that the pictures were left as they are. "
    "The scores do not say whether the translated pictures look real (`tfgan-med evaluate all`) "
    "nor whether they help a downstream model. Unpaired translation adds and removes findings to "
    "match the target class: never keep the label of the source.",
}
_PREDICT = "`tfgan-med predict {number} --input FOLDER` applies it to pictures."
USES = {
    "labels": _PREDICT,
    "masks": _PREDICT,
    "ids": _PREDICT,
    "pairs": "`tfgan-med translate {number} --input FOLDER` makes pictures for new conditions.",
    "images": "`tfgan-med generate {number} --count N --out FOLDER` makes new pictures.",
    "source": "`tfgan-med generate {number} --count N --out FOLDER` makes new pictures.",
    "domains": "`tfgan-med translate {number} --direction a2b --input FOLDER` translates pictures.",
}


def write(folder: RunFolder, settings: RunConfig, task: Task, result: Any) -> None:
    """Write the card from the run's own files and its result."""
    environment = files.read_json(folder.path / "environment.json")
    data = files.read_json(folder.path / "data.json")
    needs: str = system_class(settings.system).needs
    number = folder.path.name.split("-")[0].lstrip("0") or folder.path.name
    text = jinja2.Template(TEMPLATE, keep_trailing_newline=True).render(
        run=folder.path.name,
        system=settings.system,
        environment=environment,
        data={"name": settings.data.path.rpartition("/")[2], "sha256": data["sha256"]},
        counts=", ".join(f"{count} {split}" for split, count in task.data.counts.items()),
        verb=VERBS.get(needs, "learns from"),
        warning=_GENERATED if needs in VERBS else _DECIDED,
        contents=task.contents(),
        size=settings.data,
        train=settings.train,
        result=result,
        ending=result.ending,
        names=MEANINGS,
        caution=CAUTIONS[needs],
        use=USES[needs].format(number=number),
    )
    files.write_text(folder.path / "MODEL_CARD.md", text)
