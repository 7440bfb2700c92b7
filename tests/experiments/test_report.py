"""Reports: one page that needs nothing else, all verdicts in it, tables that give the numbers back.

All numbers here are invented. To look at a report by eye, with real pictures:
`python tests/experiments/test_report.py FOLDER SHARED`.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from tfgan_med import files
from tfgan_med.errors import UserError
from tfgan_med.evaluation import sheets
from tfgan_med.experiments import figures, pages, report, tables, typesetting, values, wording

Json = dict[str, Any]

ARMS = ["real", "real+classic", "synthetic:fastgan", "real+fastgan", "real+cyclegan22", "weighted"]
METRICS = ["balanced_accuracy", "auc", "f1", "recall", "specificity", "mcc", "brier", "fp", "fn"]
SEEDS = [0, 1, 2]


# An invented experiment ---------------------------------------------------------------------------


def sample_summary() -> Json:
    """Everything a summary can hold, with invented numbers of a plausible size."""
    return {
        "format": 1,
        "name": "pneumonia-small",
        "question": "Do FastGAN and CycleGAN X-rays make the VGG16 classifier better?",
        "scale": "small",
        "created": "2026-02-03 09:12",
        "finished": "2026-02-03 09:49",
        "command": "tfgan-med experiment run configs/chest_skin/pneumonia.yaml --scale small",
        "version": "0.5.0",
        "environment": {
            "python": "3.11.7",
            "packages": {"tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.4.2"},
            "devices": ["CPU"],
        },
        "data": {
            "path": "data/cxr-nih",
            "counts": {
                "train": {"normal": 138, "pneumonia": 138},
                "val": {"normal": 30, "pneumonia": 30},
                "test": {"normal": 32, "pneumonia": 32},
            },
            "image_size": 128,
            "channels": 1,
            "sha256": "9f2c" * 16,
            "grouped": True,
            "source": "Invented example. Pictures: NIH ChestX-ray14, Wang et al. 2017.",
            "sheet": "figures/data.png",
        },
        "generators": [
            sample_generator("fastgan", 61.3, copies=3),
            sample_generator("cyclegan22", 38.9),
        ],
        "arms": [sample_arm(name) for name in ARMS],
        "studies": [sample_study("vgg16")],
        "guards": [
            guard("splits share no group", "passed", "No patient is on two sides."),
            guard("test pictures unseen", "passed", "No generator saw a test picture."),
            guard(
                "near-duplicates",
                "allowed",
                "4 pairs of train and test pictures are nearly equal; allowed by the settings.",
                [f"normal/0000{i}.jpg ~ normal/0010{i}.jpg" for i in range(4)],
            ),
            guard("threshold", "skipped", "The threshold is fixed."),
        ],
        "cost": sample_cost(),
        "provenance": [
            {"what": "settings", "path": "experiment.yaml", "sha256": "ab" * 32},
            {"what": "FastGAN, normal", "path": "cells/gan-fastgan-1f2e", "sha256": "cd" * 32},
        ],
        "methods": "VGG16 with frozen convolutions was trained for 400 steps in each of six arms "
        "with three seeds. Intervals are bootstrap intervals over patients.",
        "bibtex": "@article{liu2021fastgan,\n  title = {Towards Faster and Stabilized GAN "
        "Training},\n  author = {Liu, Bingchen and others},\n  year = {2021}\n}",
    }


def light_summary() -> Json:
    """Two arms and few figures, for tests of texts."""
    summary = sample_summary()
    study = summary["studies"][0]
    for key in ("results", "comparisons"):
        study[key] = [e for e in study[key] if e["arm"] in ("real", "real+fastgan")]
    study.update(confusion=[], curves=[], sweep=[], grid=[])
    return summary


def sample_generator(name: str, distance: float, copies: int | None = None) -> Json:
    message = f"{copies} of 200 pictures are closer to a training picture than real pictures are"
    return {
        "name": name,
        "origin": "trained",
        "system": name.rstrip("0123456789"),
        "run": f"cells/gan-{name}-1f2e3d4c",
        "folder": f"cells/generate-{name}-5b6a7988",
        "steps": 3000,
        "minutes": 9.4,
        "counts": {"normal": 138, "pneumonia": 138},
        "metrics": [
            {"metric": "fid", "value": distance, "low": distance - 2.1, "high": distance + 2.4,
             "about": "276 made, 276 real; lower is better"},
            {"metric": "kid", "value": 0.0312, "low": 0.0281, "high": 0.0344, "about": None},
        ],
        "sheet": f"figures/samples-{name}.png",
        "neighbors": f"figures/neighbors-{name}.png",
        "copies": None
        if copies is None
        else {"flagged": copies, "of": 200, "message": message},
    }  # fmt: skip


def sample_arm(name: str) -> Json:
    made = [word for word in ("fastgan", "cyclegan22") if word in name]
    synthetic = {"normal": 138, "pneumonia": 138} if made else {}
    real = {} if name.startswith("synthetic") else {"normal": 138, "pneumonia": 138}
    return {
        "name": name,
        "real": bool(real),
        "synthetic": made,
        "classic": "thesis" if "classic" in name else None,
        "sampling": "weighted" if name == "weighted" else "uniform",
        "ratio": 1.0 if made else None,
        "counts": {"real": real, "synthetic": synthetic},
    }


def sample_study(name: str) -> Json:
    rng = np.random.default_rng(7)
    return {
        "downstream": name,
        "system": "vgg16",
        "kind": "classification",
        "classes": ["normal", "pneumonia"],
        "positive": "pneumonia",
        "threshold": {"value": 0.5, "source": "fixed"},
        "reference": "real",
        "steps": 400,
        "batch_size": 16,
        "weights": "imagenet (vgg16_notop.npz)",
        "parameters": {"trainable": 1537, "all": 14716225},
        "seeds": SEEDS,
        "main": "balanced_accuracy",
        "metrics": METRICS,
        "results": [sample_result(arm, metric, rng) for arm in ARMS for metric in METRICS],
        "comparisons": [
            comparison("real+classic", 0.021, 0.031, 0.42, "cannot tell"),
            comparison("synthetic:fastgan", -0.148, 0.062, 0.0004, "hurts"),
            comparison("real+fastgan", 0.071, 0.044, 0.006, "helps"),
            comparison("real+cyclegan22", 0.033, 0.052, 0.31, "cannot tell"),
            comparison("weighted", -0.004, 0.028, 1.0, "cannot tell"),
            *(minor_comparison(arm) for arm in ARMS[1:]),
        ],
        "confusion": [
            {"arm": arm, "classes": ["normal", "pneumonia"], "matrix": [[80 + i, 16 - i], [21, 75]]}
            for i, arm in enumerate(ARMS)
        ],
        "curves": [sample_curve(arm, seed, rng) for arm in ARMS for seed in SEEDS],
        "examples": [
            {"arm": arm, "picture": f"figures/examples-{i}.png", "caption": "errors in color"}
            for i, arm in enumerate(["real", "real+fastgan"])
        ],
        "sweep": [
            {"generator": generator, "arm": f"real+{generator}", "ratio": ratio,
             "metric": "balanced_accuracy", "mean": base + gain, "low": base + gain - 0.05,
             "high": base + gain + 0.05}
            for generator, base in (("fastgan", 0.80), ("cyclegan22", 0.78))
            for ratio, gain in ((0.25, 0.01), (0.5, 0.03), (1.0, 0.05), (2.0, 0.02))
        ],
        "grid": [
            {"settings": {"model.learning_rate": rate, "model.dropout": dropout},
             "metric": "balanced_accuracy", "value": 0.8 + 100 * rate - dropout / 10,
             "chosen": (rate, dropout) == (3e-4, 0.3)}
            for rate in (1e-4, 2e-4, 3e-4) for dropout in (0.3, 0.4, 0.5)
        ],
    }  # fmt: skip


def sample_result(arm: str, metric: str, rng: np.random.Generator) -> Json:
    base = {"fp": 7.0, "fn": 6.0, "brier": 0.14, "mcc": 0.55}.get(metric, 0.78)
    lift = {"synthetic:fastgan": -0.15, "real+fastgan": 0.07}.get(arm, 0.02)
    found = (base * (1 + lift) + base * 0.02 * rng.standard_normal(3)).tolist()
    mean = float(np.mean(found))
    half = 0.12 * base
    return {"arm": arm, "metric": metric, "mean": mean, "sd": float(np.std(found, ddof=1)),
            "low": mean - half, "high": mean + half, "values": found}  # fmt: skip


def comparison(arm: str, difference: float, half: float, p: float, verdict: str) -> Json:
    words = wording.difference("balanced_accuracy", difference)
    told = "p < 0.05" if verdict != "cannot tell" else "64 pictures could have shown 6.2 points"
    return {
        "arm": arm, "metric": "balanced_accuracy", "difference": difference,
        "low": difference - half, "high": difference + half, "p": p, "p_adjusted": min(1.0, 5 * p),
        "test": f"paired bootstrap over 51 patients; exact McNemar: p = {p}",
        "field_test": "exact McNemar", "field_p": p / 2, "verdict": verdict, "detectable": 0.062,
        "sentence": f"{verdict}: {words} in balanced accuracy; {told}",
    }  # fmt: skip


def minor_comparison(arm: str) -> Json:
    """Of a metric that does not decide."""
    return {**comparison(arm, 0.0123, 0.04, 0.5, "helps"), "metric": "auc", "verdict": None}


def sample_curve(arm: str, seed: int, rng: np.random.Generator) -> Json:
    steps = list(range(25, 401, 25))
    rise = 0.5 + 0.3 * (1 - np.exp(-np.array(steps) / 120)) + 0.015 * rng.standard_normal(16)
    return {"arm": arm, "seed": seed, "metric": "balanced_accuracy", "steps": steps,
            "values": rise.tolist()}  # fmt: skip


def sample_cost() -> list[Json]:
    def cell(name: str, kind: str, minutes: float, share: float | None, reused: bool) -> Json:
        return {"cell": f"{kind}-{name}-1f2e3d4c", "kind": kind, "minutes": minutes,
                "peak_memory_mb": 1240.0 if kind == "gan" else 880.0, "training_share": share,
                "reused": reused}  # fmt: skip

    return [
        cell("fastgan", "gan", 9.4, 0.97, False),
        cell("cyclegan22", "gan", 8.1, 0.96, True),
        cell("fastgan", "generate", 0.3, None, False),
        *(cell(f"{arm}-{seed}", "arm", 0.8, 0.93, False) for arm in ARMS for seed in SEEDS),
    ]


def guard(name: str, status: str, message: str, items: Sequence[str] = ()) -> Json:
    return {"name": name, "status": status, "message": message, "items": list(items)}


def write_experiment(folder: Path, summary: Json, shared: Path | None = None) -> Path:
    """An experiment folder with its summary and all pictures that the summary names."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    files.write_json(folder / "summary.json", summary)
    pictures = [_stripes(i) for i in range(12)] if shared is None else _radiographs(shared)
    rows = [pictures[:6], pictures[6:12]]
    sheets.sheet(rows, folder / "figures" / "data.png", title="normal, pneumonia")
    for name in ("fastgan", "cyclegan22"):
        sheets.sheet(rows, folder / "figures" / f"samples-{name}.png")
        near = [[pictures[i + 1], pictures[i + 2]] for i in range(3)]
        path = folder / "figures" / f"neighbors-{name}.png"
        sheets.neighbors(pictures[:3], near, [[0.2, 0.3]] * 3, path)
    for i in range(2):
        frame = Image.fromarray(pictures[i]).resize((256, 256))
        ImageDraw.Draw(frame).rectangle((2, 2, 253, 253), outline="#d55e00", width=4)
        frame.save(folder / "figures" / f"examples-{i}.png")
    return folder


def _stripes(seed: int) -> npt.NDArray[np.uint8]:
    ramp = np.add.outer(np.arange(32), np.arange(32) * (seed + 1)) * 4
    return np.repeat((ramp % 256).astype(np.uint8)[..., None], 3, axis=-1)


def _radiographs(shared: Path) -> list[npt.NDArray[np.uint8]]:
    root = shared / "data" / "cxr-nih"
    paths = [p for kind in ("normal", "pneumonia") for p in sorted((root / kind).iterdir())[:6]]
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    """Whatever matplotlib warns of would reach the user's terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a complete report."""
    folder = write_experiment(tmp_path_factory.mktemp("experiment"), sample_summary())
    assert report.write_report(folder) == folder / "report.html"
    return folder


class Page(HTMLParser):
    """Texts, tags and attributes of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []  # tag, name, value
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in ("meta", "img", "link", "br", "input", "hr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag  # nothing crosses, nothing stays open

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data.strip())

    def values(self, name: str) -> list[str]:
        return [value for _, key, value in self.attributes if key == name]

    @property
    def text(self) -> str:
        return " ".join(" ".join(text.split()) for text in self.texts if text)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        report.write_report(folder)
    return str(caught.value)


# The page -----------------------------------------------------------------------------------------


def test_the_page_needs_nothing_from_elsewhere(written: Path) -> None:
    page = Page(written / "report.html")
    assert page.open == []
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert page.values("src") and all(v.startswith("data:image/") for v in page.values("src"))
    assert page.values("href") and all(v.startswith("#") for v in page.values("href"))
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    text = (written / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r"@import|url\((?!#)", text)
    assert "://" not in re.sub(r"data:[^\"]*", "", text)


def test_links_inside_the_page_lead_somewhere_and_identifiers_are_unique(written: Path) -> None:
    page = Page(written / "report.html")
    names = page.values("id")
    assert len(names) == len(set(names))
    text = (written / "report.html").read_text(encoding="utf-8")
    wanted = {*(href[1:] for href in page.values("href")), *re.findall(r"url\(#([^)]*)\)", text)}
    assert wanted <= set(names)


def test_every_arm_has_its_verdict_and_the_smallest_visible_effect(written: Path) -> None:
    for text in (
        Page(written / "report.html").text,
        plain(written / "report.md"),
    ):
        for arm, verdict in tables.verdicts(sample_study("vgg16")).items():
            assert re.search(rf"{re.escape(arm)}:? {verdict}", text), (arm, verdict)
        assert "real+fastgan helps. synthetic:fastgan hurts. For 3 arms, this test cannot" in text
        assert "+7.1 points (+2.7 to +11.5)" in text
        assert len(re.findall(r"could have shown (is )?6\.2 points\.", text)) == 5


def test_a_card_says_each_thing_once() -> None:
    cards = {card.arm: card for card in report._verdicts(sample_study("vgg16"))}
    assert list(cards) == ARMS[1:]
    assert cards["real+fastgan"].difference == ""  # the sentence has the number
    assert cards["real+fastgan"].sentence == (
        "+7.1 points in balanced accuracy; p < 0.05. The smallest effect this test set could have "
        "shown is 6.2 points."
    )
    assert cards["weighted"].sentence == (
        "−0.4 points in balanced accuracy; 64 pictures could have shown 6.2 points."
    )
    study = sample_study("vgg16")
    for entry in study["comparisons"]:
        entry["sentence"] = None
    card = report._verdicts(study)[0]
    assert card.difference == "balanced accuracy +2.1 points (−1.0 to +5.2)"
    assert card.sentence == "The smallest effect this test set could have shown is 6.2 points."


def test_only_the_main_metric_decides() -> None:
    study = sample_study("vgg16")
    compared, others = tables.comparisons(study), tables.differences(study)
    assert compared is not None and others is not None
    assert [row[0] for row in compared.rows] == ARMS[1:]
    assert compared.columns[3:6] == ("p", "p (Holm)", "p (field test)")
    assert compared.rows[2] == (
        "real+fastgan", "helps", "+7.1 points (+2.7 to +11.5)", "0.006", "0.030", "0.003",
        "6.2 points",
    )  # fmt: skip
    assert "p by paired bootstrap over 51 patients; field test: exact McNemar" in compared.caption
    assert others.columns == ("arm", "ROC-AUC ↑")
    assert others.rows[0] == ("real+classic", "+1.2 points (−2.8 to +5.2)")
    study["comparisons"] = [entry for entry in study["comparisons"] if entry["metric"] == "auc"]
    assert report.headline(report._verdicts(study), "real") == ("No arm was compared.",)


def plain(path: Path) -> str:
    """Markdown without its marks."""
    return " ".join(
        re.sub(r"\\(.)", r"\1", path.read_text(encoding="utf-8")).replace("*", "").split()
    )


def test_all_parts_are_shown(written: Path) -> None:
    summary = sample_summary()
    page, text = Page(written / "report.html").text, plain(written / "report.md")
    for shown in (page, text):
        assert summary["question"] in shown
        assert summary["command"] in shown
        assert summary["methods"] in shown
        assert summary["data"]["source"] in shown
        assert "61.30 (59.20 to 63.70)" in shown
        assert "Copies of training pictures: 3 of 200 pictures" in shown
        assert "9f2c" * 16 in shown and "cd" * 32 in shown
        assert "1 537 of 14 716 225" in shown.replace("\N{NO-BREAK SPACE}", " ")
        for entry in summary["guards"]:
            assert entry["name"] in shown and entry["message"] in shown
    assert "@article{liu2021fastgan," in page


def test_pictures_are_described_and_small_enough(written: Path, tmp_path: Path) -> None:
    page = Page(written / "report.html")
    assert page.tags.count("img") == 7  # data, 2 x (samples, neighbors), 2 examples
    assert all(page.values("alt")) and len(page.values("alt")) == 7
    noise = np.random.default_rng(0).integers(0, 256, (900, 4000, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    shown = pages.embedded(tmp_path, "large.png")
    assert shown is not None and (shown.width, shown.height) == (1600, 360)
    data = base64.b64decode(shown.source.partition(",")[2])
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.size == (1600, 360) and opened.format == "JPEG"


def test_figures_are_files_and_part_of_the_page(written: Path) -> None:
    names = ["differences", "seeds", "confusion", "sweep", "grid"]
    stems = [f"{name}-vgg16" for name in names] + ["curves-vgg16-balanced-accuracy"]
    for stem in stems:
        with Image.open(written / "figures" / f"{stem}.png") as image:
            assert min(image.size) > 200
        assert f"figures/{stem}.png" in (written / "report.md").read_text(encoding="utf-8")
        assert f'id="{stem}-' in (written / "report.html").read_text(encoding="utf-8")
    assert Page(written / "report.html").tags.count("svg") == len(stems)


def test_links_of_the_markdown_text_exist(written: Path) -> None:
    links = re.findall(r"!\[[^\n]*\]\(<([^>]*)>\)", (written / "report.md").read_text("utf-8"))
    assert len(links) == 7 + 6
    assert all((written / link).is_file() for link in links)


def test_an_allowed_guard_stands_above_the_verdict(written: Path) -> None:
    text = Page(written / "report.html").text
    message = "4 pairs of train and test pictures are nearly equal"
    assert text.index(message) < text.index("real+fastgan helps.") < text.rindex(message)


def test_a_small_scale_is_said(tmp_path: Path) -> None:
    summary = sample_summary()
    folder = write_experiment(tmp_path, {**summary, "studies": []})
    warning = "The numbers say what happens at this scale"
    report.write_report(folder)
    assert warning in Page(folder / "report.html").text
    files.write_json(folder / "summary.json", {**summary, "studies": [], "scale": "full"})
    report.write_report(folder)
    assert warning not in Page(folder / "report.html").text


def test_only_arms_that_help_are_emphasised(written: Path) -> None:
    table = tables.results(sample_study("vgg16"))
    assert table is not None
    assert [table.rows[i][0] for i in table.strong] == ["real+fastgan"]
    study = sample_study("vgg16")
    for entry in study["comparisons"]:
        entry["verdict"] = "cannot tell"
    table = tables.results(study)
    assert table is not None and not table.strong
    assert "differs from real" in report.headline(report._verdicts(study), "real")[0]


def test_texts_of_users_stay_texts(tmp_path: Path) -> None:
    summary = light_summary()
    evil = '<script>alert("x")</script><img src=x onerror=alert(1)> & | `_*'
    text = json.dumps(summary).replace("real+fastgan", json.dumps(evil)[1:-1])
    summary = {**json.loads(text), "question": evil, "command": f"run ``` {evil}", "name": evil}
    summary["data"]["source"] = evil
    summary["studies"][0]["downstream"] = evil
    summary["studies"][0]["examples"][0]["caption"] = evil
    summary["guards"][0]["items"] = [evil]
    report.write_report(write_experiment(tmp_path, summary))
    page = Page(tmp_path / "report.html")
    assert "script" not in page.tags and page.tags.count("img") == 7
    assert not page.values("onerror")
    assert page.text.count('<script>alert("x")</script>') > 5
    lines = (tmp_path / "report.md").read_text(encoding="utf-8")
    outside = lines.replace(f"````\nrun ``` {evil}\n````", "")
    assert outside != lines and not re.search(r"(?<!\\)<(?!figures/)", outside)


def test_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    summary = sample_summary()
    for key, value in summary.items():
        if isinstance(value, list):
            summary[key] = []
        elif key not in ("format", "name"):
            summary[key] = None
    files.write_json(tmp_path / "summary.json", summary)
    report.write_report(tmp_path)
    page = Page(tmp_path / "report.html")
    assert "No downstream model was measured." in page.text
    assert "None" not in page.text and "None" not in plain(tmp_path / "report.md")
    for heading in ("Cost", "Guards", "Data", "Provenance", "BibTeX", "Generated pictures"):
        assert heading not in page.text
    assert not list((tmp_path / "tables").glob("*")) and page.tags.count("table") == 0


@pytest.mark.parametrize(
    "key", ["results", "comparisons", "confusion", "curves", "examples", "sweep", "grid"]
)
def test_a_study_may_lack_any_part(key: str, tmp_path: Path) -> None:
    study = light_summary()["studies"][0]
    full = sample_study("vgg16")
    study.update({name: full[name][:4] for name in ("confusion", "curves", "sweep", "grid")})
    missing: Any = None if key == "grid" else []
    summary = {**sample_summary(), "studies": [{**study, key: missing}]}
    report.write_report(write_experiment(tmp_path, summary))
    page = Page(tmp_path / "report.html")
    part = {
        "results": "Results: not measured.",
        "comparisons": "No arm was compared.",
        "confusion": "Confusion matrices",
        "curves": "Learning curves",
        "examples": "Examples and errors",
        "sweep": "How many synthetic pictures",
        "grid": "Search of settings",
    }
    said = {name for name, text in part.items() if text in page.text}
    told = {"results", "comparisons"}
    assert said == ({key} if key in told else set()) | (set(part) - told - {key})
    assert not (tmp_path / "tables" / f"{key}.csv").exists()


UNDEFINED = {
    "mean", "low", "high", "sd", "difference", "p", "p_adjusted", "value", "field_p", "verdict",
    "detectable", "sentence",
}  # fmt: skip


def test_values_that_are_undefined_are_said_so(tmp_path: Path) -> None:
    summary = sample_summary()
    study = summary["studies"][0]
    for entry in (*study["results"], *study["comparisons"], *study["sweep"], *study["grid"]):
        for key in UNDEFINED & set(entry):
            entry[key] = None
        if "values" in entry:
            entry["values"] = [None, None, None]
    for entry in study["curves"]:
        entry["values"] = [None] * len(entry["steps"])
    report.write_report(write_experiment(tmp_path, summary))
    text = Page(tmp_path / "report.html").text
    assert text.count("not measured") > 40 and "None" not in text and "nan" not in text.split()


def test_a_missing_or_foreign_picture_is_named_and_nothing_else_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"not yours")
    summary = light_summary()
    summary["data"]["sheet"] = "../secret.png"
    folder = write_experiment(tmp_path / "one", summary)
    (folder / "figures" / "samples-fastgan.png").unlink()
    (folder / "figures" / "examples-0.png").write_bytes(b"no picture")
    report.write_report(folder)
    page = Page(folder / "report.html")
    for path in ("../secret.png", "figures/samples-fastgan.png", "figures/examples-0.png"):
        assert f"Picture {path} is missing." in page.text
    assert page.tags.count("img") == 4
    assert "Picture figures/samples-fastgan.png is missing." in plain(folder / "report.md")


def test_a_report_repeats_to_the_byte(written: Path, tmp_path: Path) -> None:
    report.write_report(write_experiment(tmp_path, sample_summary()))
    ours = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert ours == sorted(p.relative_to(written) for p in written.rglob("*") if p.is_file())
    for path in ours:
        assert (tmp_path / path).read_bytes() == (written / path).read_bytes(), path


def test_drawing_a_segmentation_study_with_many_classes_and_long_names(tmp_path: Path) -> None:
    study = sample_study("U-Net 128 (wide)")
    classes = [f"a very long name of class {i}" for i in range(7)]
    study["confusion"] = [{"arm": "real", "classes": classes, "matrix": np.eye(7).tolist()}]
    study["comparisons"] = [
        {**entry, "arm": f"{entry['arm']} with a name that is too long for any figure"}
        for entry in study["comparisons"]
    ]
    drawn = figures.of(study, tmp_path)
    assert drawn["confusion"][0].name == "confusion-u-net-128-wide"
    for entry in (one for found in drawn.values() for one in found):
        with Image.open(tmp_path / f"{entry.name}.png") as image:
            assert max(image.size) < 2400


# Refusals -----------------------------------------------------------------------------------------


def test_a_folder_without_summary_is_told_what_to_run(tmp_path: Path) -> None:
    message = refused(tmp_path)
    assert str(tmp_path / "summary.json") in message and "tfgan-med experiment run" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [0, 2, "1", None])
def test_a_summary_of_another_format_is_refused(number: Any, tmp_path: Path) -> None:
    folder = write_experiment(tmp_path, {**sample_summary(), "format": number})
    message = refused(folder)
    assert str(folder / "summary.json") in message and f"format {number!r}" in message
    assert "0.5.0" in message and "tfgan-med experiment run" in message
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("text", ["{", "[1]", '{"format": 1}', '{"format": 1, "name": "\udcff"}'])
def test_a_damaged_summary_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    message = refused(tmp_path)
    assert str(tmp_path / "summary.json") in message and "damaged" in message


def test_the_place_of_a_missing_key_is_named(tmp_path: Path) -> None:
    summary = sample_summary()
    del summary["studies"][0]["results"][2]["low"]
    assert "studies[0].results[2].low missing" in refused(write_experiment(tmp_path, summary))


def test_a_failing_report_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_experiment(tmp_path, light_summary())
    report.write_report(folder)
    before = (folder / "report.html").read_bytes()

    def full(_: Any, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError):
        report.write_report(folder)
    assert (folder / "report.html").read_bytes() == before
    assert not [path for path in folder.rglob("*") if path.suffix == ".tmp"]


# Tables -------------------------------------------------------------------------------------------


def test_results_read_back_are_the_same_numbers(written: Path) -> None:
    stored = sample_study("vgg16")["results"]
    rows = rows_of(written / "tables" / "results.csv")
    assert [(row["study"], row["arm"], row["metric"]) for row in rows] == [
        ("vgg16", entry["arm"], entry["metric"]) for entry in stored
    ]
    for row, entry in zip(rows, stored, strict=True):
        assert [float(number) for number in row["values"].split(";")] == entry["values"]
        for key in ("mean", "sd", "low", "high"):
            assert float(row[key]) == entry[key]


def test_comparisons_guards_and_cost_read_back(written: Path) -> None:
    summary = sample_summary()
    folder = written / "tables"
    for row, entry in zip(
        rows_of(folder / "comparisons.csv"), summary["studies"][0]["comparisons"], strict=True
    ):
        assert (row["verdict"], row["test"]) == (entry["verdict"] or "", entry["test"])
        assert row["reference"] == "real" and float(row["p_adjusted"]) == entry["p_adjusted"]
    for row, entry in zip(rows_of(folder / "guards.csv"), summary["guards"], strict=True):
        assert row["status"] == entry["status"]
        assert row["items"] == ";".join(entry["items"])
    for row, entry in zip(rows_of(folder / "cost.csv"), summary["cost"], strict=True):
        assert float(row["minutes"]) == entry["minutes"]
        assert row["reused"] == str(entry["reused"]).lower()
        assert row["training_share"] == ("" if entry["training_share"] is None else
                                         repr(entry["training_share"]))  # fmt: skip


def test_other_values_read_back(written: Path) -> None:
    study = sample_study("vgg16")
    folder = written / "tables"
    assert [float(row["mean"]) for row in rows_of(folder / "sweep.csv")] == [
        entry["mean"] for entry in study["sweep"]
    ]
    cells = rows_of(folder / "confusion.csv")
    assert len(cells) == len(ARMS) * 4
    assert [(c["truth"], c["predicted"], c["count"]) for c in cells[:2]] == [
        ("normal", "normal", "80"), ("normal", "pneumonia", "16"),
    ]  # fmt: skip
    points = rows_of(folder / "curves.csv")
    assert [float(p["value"]) for p in points[:16]] == study["curves"][0]["values"]
    chosen = [row["settings"] for row in rows_of(folder / "grid.csv") if row["chosen"] == "true"]
    assert chosen == ["model.learning_rate=0.0003;model.dropout=0.3"]
    fid = rows_of(folder / "generators.csv")[0]
    assert (fid["generator"], fid["metric"], float(fid["value"])) == ("fastgan", "fid", 61.3)


def test_a_value_that_was_not_measured_is_an_empty_cell() -> None:
    entry = {"arm": "a", "metric": "auc", "mean": None, "sd": None, "values": [0.5, None, 1.0]}
    text = values.csv_files({"studies": [{"downstream": "d", "results": [entry]}]})["results.csv"]
    assert text.splitlines()[1] == "d,a,auc,,,,,0.5;;1.0"


def test_latex_tables_are_of_booktabs_and_hold_the_numbers(written: Path) -> None:
    text = (written / "tables" / "results-vgg16.tex").read_text(encoding="utf-8")
    for command in (
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
        r"\label{tab:pneumonia-small-results-vgg16}",
    ):
        assert text.count(command) == 1
    assert text.count(r"\begin{") == text.count(r"\end{") == 3
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == len(ARMS) and {line.count(" & ") for line in body} == {len(METRICS) + 1}
    mean, low, high = (
        100 * sample_study("vgg16")["results"][0][key] for key in ("mean", "low", "high")
    )
    assert f"real & {mean:.1f} \\% ({low:.1f} to {high:.1f}) &" in body[0].strip()
    assert [line.strip().startswith(r"\textbf{") for line in body] == [
        arm == "real+fastgan" for arm in ARMS
    ]
    assert not re.search(r"(?<!\\)[%#_]", body[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50 % of a_b & c#d", r"50 \% of a\_b \& c\#d"),
        (r"C:\new", r"C:\textbackslash{}new"),
        ("{x}~y^2$", r"\{x\}\textasciitilde{}y\textasciicircum{}2\$"),
        ("−1.1 < p", r"$-$1.1 \textless{} p"),
        ("line\nbreak", "line break"),
    ],
)
def test_latex_characters_are_escaped(text: str, expected: str) -> None:
    assert typesetting.escape_latex(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("real_fake*2|x", r"real\_fake\*2\|x"),
        ("<b> & [link](x)", r"\<b\> &amp; \[link\](x)"),
        ("1. not a list", r"1\. not a list"),
        ("- nor this", r"\- nor this"),
        ("−1.5 points", "−1.5 points"),
        ("a\nb", "a b"),
    ],
)
def test_markdown_characters_are_escaped(text: str, expected: str) -> None:
    assert typesetting.escape_markdown(text) == expected


def test_a_table_in_markdown_reads_back() -> None:
    table = tables.Table("t", "c", ("a", "b"), (("x|y", "1"), ("z", "2")), "lr", frozenset({1}))
    assert typesetting.markdown(table).splitlines() == [
        "| a | b |", "| :--- | ---: |", r"| x\|y | 1 |", "| **z** | **2** |",
    ]  # fmt: skip


def test_a_table_of_unequal_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        tables.Table("t", "c", ("a", "b"), (("x",),), "lr")


def test_costs_are_added_up_for_each_kind_of_work() -> None:
    table = tables.cost(sample_summary())
    assert table is not None
    assert table.rows == (
        ("training of generators", "2", "1", "17.5 min", "1.2 GB"),
        ("making pictures", "1", "0", "18 s", "880 MB"),
        ("downstream models", "18", "0", "14.4 min", "880 MB"),
        ("together", "21", "1", "32.2 min", "1.2 GB"),
    )


def test_violated_guards_come_first() -> None:
    found = [guard(status, status, "") for status in ("passed", "skipped", "allowed", "violated")]
    assert [entry["name"] for entry in tables.ordered(found)] == [
        "violated", "allowed", "skipped", "passed",
    ]  # fmt: skip


# Words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (wording.estimate("auc", 0.811, 0.76, 0.859), "81.1 % (76.0 to 85.9)"),
        (wording.estimate("mcc", 0.5, -0.0831, 0.9), "0.500 (−0.083 to 0.900)"),
        (wording.estimate("fp_pixels", 307.04, 290.0, 330.0), "307.0 (290.0 to 330.0)"),
        (wording.estimate("auc", 0.811, None, None), "81.1 %"),
        (wording.estimate("auc", None, None, None), "not measured"),
        (wording.difference("iou", 0.023, -0.011, 0.058), "+2.3 points (−1.1 to +5.8)"),
        (wording.difference("iou", -0.0004), "0.0 points"),
        (wording.difference("fp", -1.5, -3.0, 0.0), "−1.5 (−3.0 to 0.0)"),
        (wording.p_value(0.0004), "< 0.001"),
        (wording.p_value(0.0312), "0.031"),
        (wording.significant(861.41), "861.4"),
        (wording.significant(1827.49), "1827"),
        (wording.significant(-0.00312), "−0.003120"),
        (wording.minutes(0.3), "18 s"),
        (wording.minutes(59.96), "1 h 0 min"),
        (wording.minutes(72.4), "1 h 12 min"),
        (wording.counts({"all": 1200}), "1\N{NO-BREAK SPACE}200"),
        (wording.counts({"a": 1, "b": 2}), "1 a, 2 b"),
        (wording.counts(None), "none"),
        (wording.counts({"a": 0, "b": 0}), "none"),
        (wording.setting([1e-4, True, None]), "0.0001, yes, none"),
        (wording.slug("U-Net 128 (wide)"), "u-net-128-wide"),
    ],
)
def test_numbers_are_written_as_people_read_them(text: str, expected: str) -> None:
    assert text == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["helps"], ("a helps.",)),
        (["helps", "helps"], ("a and b help.",)),
        (["hurts", "cannot tell"], ("a hurts.", "For one arm, this test cannot tell.")),
        (["not measured"], ("No arm was compared.",)),
    ],
)
def test_the_headline_names_the_arms(given: list[str], expected: tuple[str, ...]) -> None:
    found = [
        report.Verdict(arm, verdict, "", "") for arm, verdict in zip("abc", given, strict=False)
    ]
    assert report.headline(found, "real") == expected


if __name__ == "__main__":
    where = write_experiment(Path(sys.argv[1]), sample_summary(), Path(sys.argv[2]))
    print(report.write_report(where))
