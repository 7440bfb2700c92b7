"""`MODEL_CARD.md` of a run: what it is, what it was trained on, how good, what not to do."""

from __future__ import annotations

from typing import Any

import jinja2

from tfgan_med import files
from tfgan_med.training.run_folder import RunFolder
from tfgan_med.training.settings import RunConfig

TEMPLATE = """\
# {{ run }}

{{ system }}, trained by tfgan_med {{ environment.tfgan_med }} (TensorFlow \
{{ environment.tensorflow }}, Keras {{ environment.keras }}) on \
{{ environment.devices | join(", ") }}.

| | |
|---|---|
| data | `{{ data.name }}`: {{ counts }} |
| translates | {{ shapes.source.role }} ({{ shapes.source.channels }} channels) to \
{{ shapes.target.role }} ({{ shapes.target.channels }} channels), \
{{ shapes.image_size }} px, `fit: {{ shapes.fit }}` |
| training | {{ result.steps }} steps of {{ train.batch_size }}, seed {{ train.seed }}, \
{{ train.precision }} |
| data fingerprint | `{{ data.sha256 }}` |

## Scores on {{ result.pairs }} pairs of the {{ result.split }} split

| | this model | mean training picture |
|---|---|---|
{% for name, value in result.scores.items() -%}
| {{ names[name] }} | {{ "%.4g" | format(value) }} | {{ "%.4g" | format(result.baseline[name]) }} |
{% endfor %}
These compare pixel by pixel with one true picture per condition. They do not say whether the \
pictures look real (`tfgan-med evaluate all`) nor whether they help a downstream model.
{% if result.warnings %}
## Warnings of the run
{% for text in result.warnings %}
- {{ text }}
{%- endfor %}
{% endif %}
## Use

`tfgan-med translate {{ number }} --input FOLDER` makes pictures for new conditions. They are \
synthetic and marked as such. Not for diagnosis. A generator trained on few pictures can repeat \
them: do not take its pictures for anonymous without a check. Do not test a downstream model on \
pictures this generator was trained on (`data.json` lists them).
"""

NAMES = {
    "l1": "mean absolute difference, grey levels of 255 (lower is better)",
    "psnr": "PSNR, dB (higher is better)",
    "ssim": "SSIM (higher is better)",
}


def write(folder: RunFolder, settings: RunConfig, task: Any, result: Any) -> None:
    """Write the card from the run's own files and its result."""
    environment = files.read_json(folder.path / "environment.json")
    data = files.read_json(folder.path / "data.json")
    text = jinja2.Template(TEMPLATE, keep_trailing_newline=True).render(
        run=folder.path.name,
        number=int(folder.path.name.split("-")[0]),
        system=settings.system,
        environment=environment,
        data={"name": settings.data.path.rpartition("/")[2], "sha256": data["sha256"]},
        counts=", ".join(f"{count} {split}" for split, count in task.data.counts.items()),
        shapes=task.shapes,
        train=settings.train,
        result=result,
        names=NAMES,
    )
    files.write_text(folder.path / "MODEL_CARD.md", text)
