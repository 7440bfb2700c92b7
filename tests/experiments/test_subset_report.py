"""Reports of subset studies: what is certain is marked, what is missing is said.

All numbers but those of the published table are invented.
"""

from __future__ import annotations

import copy
import csv
import itertools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tfgan_med import files
from tfgan_med.errors import UserError
from tfgan_med.experiments import subset_answer, subset_figures, subset_report, subset_tables

Json = dict[str, Any]

SEEDS = [0, 1, 2]
SUBSETS = {"random": None, "center": None, "kss1": 1, "kss2": 2, "kss10": 10}
SETS = ["faces", "cells"]
GENERATORS = ["bsa", "fastgan"]
METRICS = {"is": "higher", "fid": "lower", "c": "higher", "d": "higher", "cid": "higher"}
MEASURES = {"pairwise_distance": "higher", "coverage_radius": "lower"}
FEI = {  # table 1 of source paper 000
    "random": {"is": 2.09, "fid": 47.51, "d": 2.12},
    "center": {"is": 1.61, "fid": 64.25, "d": 0.00},
    "kss1": {"is": 1.98, "fid": 70.06, "d": 3.62},
    "kss2": {"is": 1.86, "fid": 96.18, "d": 4.11},
    "kss10": {"is": 1.96, "fid": 82.21, "d": 3.41},
    "kss100": {"is": 2.06, "fid": 52.76, "d": 2.67},
}


# An invented study --------------------------------------------------------------------------------


def sample_summary(generators: Sequence[str] = GENERATORS, seeds: Sequence[int] = SEEDS) -> Json:
    """Everything that a summary can hold."""
    cells = list(itertools.product(SETS, SUBSETS, generators))
    return {
        "format": 1,
        "kind": "subsets",
        "name": "spread-small",
        "question": "Do spread subsets give <diverse> pictures & good ones?",
        "scale": "small",
        "created": "2026-02-03 09:12",
        "finished": "2026-02-03 10:02",
        "command": "tfgan-med experiment run spread.yaml --scale small",
        "version": "0.9.0",
        "environment": {"python": "3.12.3", "devices": ["CPU"]},
        "size": 50,
        "count": 250,
        "truncation": 0.3,
        "seeds": list(seeds),
        "selection": {"variance": 0.9, "covariance": "ledoit_wolf"},
        "reference": "random",
        "facts": [
            {"what": "generated pictures", "value": "250 of each repeat", "paper": "not stated"},
            {"what": "alike in C and D", "value": "LPIPS of at most 0.2", "paper": "not stated"},
        ],
        "metrics": [
            {"metric": metric, "label": metric.upper(), "better": better,
             "against": "set" if metric == "fid" else "subset",
             "protocol": "foreign" if metric in ("is", "fid") else "lpips",
             "extractor": "mobilenet" if metric in ("is", "fid") else "lpips squeeze",
             "counts": "300 real, 250 generated", "about": f"{metric} explained"}
            for metric, better in METRICS.items()
        ],
        "measures": [
            {"measure": measure, "label": measure.replace("_", " "), "better": better}
            for measure, better in MEASURES.items()
        ],
        "sets": [
            {"name": name, "path": f"data/{name}", "source": f"licence of {name}",
             "image_size": 64, "mode": "rgb", "counts": {"train": 300, "val": 0, "test": 0},
             "labels": [], "sha256": "ab" * 32, "sheet": f"figures/data-{name}.png"}
            for name in SETS
        ],
        "subsets": [
            {"name": name, "label": f"KSS, G = {clusters}" if clusters else name.capitalize(),
             "method": "kss" if clusters else name, "clusters": clusters, "sets": SETS}
            for name, clusters in SUBSETS.items()
        ],
        "sources": [
            {"name": "facades", "origin": "train", "system": "sngan", "path": "cells/source-x",
             "steps": 1000, "minutes": 12.0, "sha256": "cd" * 32}
        ],
        "generators": [
            {"name": name, "system": name, "from": "facades" if name == "bsa" else None,
             "steps": 300, "trained": 30, "settings": {"train": {"steps": 300}}}
            for name in generators
        ],
        "selections": [
            {"set": name, "subset": subset, "seed": seed, "components": 34, "explained": 0.9012,
             "spread": dict.fromkeys(MEASURES, 1.5), "notices": [],
             "scatter": None if seed else f"figures/scatter-{name}-{subset}.png",
             "sheet": None if seed else f"figures/chosen-{name}-{subset}.png"}
            for name, subset, seed in itertools.product(SETS, SUBSETS, seeds)
        ],
        "spread": [
            {"set": name, "subset": subset, "measure": measure, "mean": 1.0 + 0.25 * place,
             "sd": 0.0123 if len(seeds) > 1 else None, "values": [1.0 + 0.25 * place] * len(seeds)}
            for name in SETS
            for place, subset in enumerate(SUBSETS)
            for measure in MEASURES
        ],
        "results": [
            _result(name, subset, generator, metric, seeds)
            for (name, subset, generator), metric in itertools.product(cells, METRICS)
        ],
        "comparisons": [
            {"set": name, "subset": subset, "generator": generator, "metric": metric,
             "difference": -0.6, "low": -0.9 if len(seeds) > 1 else None,
             "high": -0.3 if len(seeds) > 1 else None, "p": 0.01, "p_adjusted": 0.04,
             "verdict": "lower" if subset == "center" and len(seeds) > 1 else "cannot tell",
             "seeds": len(seeds), "sentence": "lower: -0.6"}
            for (name, subset, generator), metric in itertools.product(cells, METRICS)
            if subset != "random"
        ],
        "judgments": _judgments(generators, seeds),
        "conclusions": [
            {"claim": "center_best_fid", "title": "Center gives the best FID",
             "ours": "Supported in 0 of 4 cases.",
             "published": "The paper's own numbers have this order in 0 of 1 cases."},
            {"claim": "diversity_grows_with_g", "title": "More clusters, more diverse",
             "ours": "Cannot tell in 4 of 4 cases.",
             "published": "The paper's own numbers have this order in 0 of 1 cases, not in FEI."},
            {"claim": "diversity_grows_with_spread", "title": "More spread, more diverse",
             "ours": "Supported in 4 of 8 cases.", "published": None},
        ],
        "published": [
            {"set": "FEI", "subset": subset, "metric": metric, "value": value,
             "sd": 0.02 if metric == "is" else None}
            for subset, values in FEI.items() for metric, value in values.items()
        ],
        "samples": [
            {"set": name, "subset": subset, "generator": generator, "seed": 0,
             "picture": f"figures/samples-{name}-{subset}-{generator}.png"}
            for name, subset, generator in cells
        ],
        "reconstructions": _drawn("reconstructions"),
        "interpolations": _drawn("interpolations"),
        "scatters": [
            {"set": name, "picture": f"figures/choices-{name}.png"} for name in SETS
        ],
        "missing": [],
        "notices": ["is: classes of mobilenet take the place of Inception's"],
        "cost": [
            {"cell": f"bsa-{i}", "kind": "gan", "minutes": 1.5, "peak_memory_mb": 900.0,
             "reused": False}
            for i in range(4)
        ],
        "provenance": [{"what": "settings", "path": "experiment.yaml", "sha256": "01" * 32}],
        "bibtex": "@inproceedings{x}\n",
    }  # fmt: skip


def _result(name: str, subset: str, generator: str, metric: str, seeds: Sequence[int]) -> Json:
    """Center is apart from the rest in D; the intervals of all else lie on each other."""
    place = list(SUBSETS).index(subset)
    mean = 0.5 if (subset, metric) == ("center", "d") else 3.0 + 0.1 * place
    values = [mean + 0.05 * (i - 1) for i in range(len(seeds))]
    sure = len(seeds) > 1
    return {"set": name, "subset": subset, "generator": generator, "metric": metric,
            "mean": mean, "sd": 0.05 if sure else None, "low": mean - 1 if sure else None,
            "high": mean + 1 if sure else None, "values": values, "seeds": list(seeds)}  # fmt: skip


def _judgments(generators: Sequence[str], seeds: Sequence[int]) -> list[Json]:
    kss = [name for name in SUBSETS if name.startswith("kss")]
    base = {"seeds": len(seeds), "agreeing": 2, "holds": True, "values": [], "sentence": "said",
            "metric": "d", "measure": None, "smallest_p": None, "p": None, "p_adjusted": None,
            "low": None, "high": None}  # fmt: skip
    found: list[Json] = []
    for generator in generators:
        for measure, (scope, subsets) in itertools.product(
            MEASURES, (("all", list(SUBSETS)), ("kss", kss))
        ):
            verdict = "supported" if scope == "all" and len(seeds) > 1 else "cannot tell"
            found += [
                {**base, "claim": "diversity_grows_with_spread", "source": "ours", "set": name,
                 "generator": generator, "measure": measure, "scope": scope, "subsets": subsets,
                 "verdict": verdict, "statistic": 0.62, "low": 0.2, "high": 0.9, "p": 0.01,
                 "p_adjusted": 0.034, "smallest_p": 0.333 if scope == "kss" else 0.0167}
                for name in (*SETS, None)
            ]  # fmt: skip
        found += [
            {**base, "claim": "diversity_grows_with_g", "source": "ours", "set": name,
             "generator": generator, "scope": "kss", "subsets": kss, "verdict": "cannot tell",
             "statistic": -0.33, "p": 0.9, "p_adjusted": 1.0, "smallest_p": 0.333}
            for name in SETS
        ]  # fmt: skip
        found += [
            {**base, "claim": "center_best_fid", "source": "ours", "set": name, "metric": "fid",
             "generator": generator, "scope": "all", "subsets": list(SUBSETS),
             "verdict": "cannot tell", "statistic": 1.25, "low": -1.0, "high": 3.5}
            for name in SETS
        ]  # fmt: skip
    found += [
        {**base, "claim": "center_best_fid", "source": "published", "set": "FEI", "metric": "fid",
         "generator": None, "scope": "all", "subsets": list(FEI), "verdict": "disagrees",
         "statistic": 16.74, "agreeing": None, "seeds": 1},
        {**base, "claim": "diversity_grows_with_g", "source": "published", "set": "FEI",
         "generator": None, "scope": "kss", "subsets": [s for s in FEI if s.startswith("kss")],
         "verdict": "disagrees", "statistic": -0.67, "agreeing": None, "seeds": 1},
    ]  # fmt: skip
    return found


def _drawn(what: str) -> list[Json]:
    return [
        {"set": name, "subset": subset, "generator": "bsa", "seed": 0,
         "picture": f"figures/{what}-{name}-{subset}-bsa.png", "caption": f"{what} of one run"}
        for name, subset in itertools.product(SETS, SUBSETS)
    ]  # fmt: skip


def write_study(folder: Path, summary: Json, without: str = "nothing") -> Path:
    """A folder with its summary and the pictures it names, but for those of one kind."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    files.write_json(folder / "summary.json", summary)
    entries = [
        *summary["sets"], *summary["selections"], *summary["samples"],
        *summary["reconstructions"], *summary["interpolations"], *summary["scatters"],
    ]  # fmt: skip
    named = [entry.get(key) for entry in entries for key in ("sheet", "scatter", "picture")]
    for place, name in enumerate(filter(None, named)):
        if without not in name:
            Image.new("RGB", (24, 16), (place % 256, 120, 60)).save(folder / name)
    return folder


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    """Whatever matplotlib warns of would reach the user's terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a complete report."""
    folder = write_study(tmp_path_factory.mktemp("study"), sample_summary())
    assert subset_report.write_report(folder) == folder / "report.html"
    return folder


class Page(HTMLParser):
    """Texts, tags and attributes of a page whose tags are closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in ("meta", "img", "link", "br", "input", "hr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    def values(self, name: str) -> list[str]:
        return [value for _, key, value in self.attributes if key == name]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def markdown_of(folder: Path) -> str:
    """Markdown without its marks."""
    text = (folder / "report.md").read_text(encoding="utf-8")
    return " ".join(re.sub(r"\\(.)", r"\1", text).replace("*", "").split())


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def changed(change: Callable[[Json], None]) -> Json:
    summary = copy.deepcopy(sample_summary())
    change(summary)
    return summary


def reported(folder: Path, summary: Json, without: str = "nothing") -> tuple[str, str]:
    """Texts of the page and of the Markdown file."""
    write_study(folder, summary, without)
    return Page(subset_report.write_report(folder)).text, markdown_of(folder)


# The page -----------------------------------------------------------------------------------------


def test_the_page_needs_nothing_from_elsewhere(written: Path) -> None:
    page = Page(written / "report.html")
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert page.values("src") and all(v.startswith("data:image/") for v in page.values("src"))
    assert page.values("href") and all(v.startswith("#") for v in page.values("href"))
    text = (written / "report.html").read_text(encoding="utf-8")
    assert "://" not in re.sub(r"data:[^\"]*", "", text)
    assert text.count("<svg") == 1 + 2 * len(SETS)  # order; spread and metrics of each set


def test_links_inside_the_page_lead_somewhere_and_identifiers_are_unique(written: Path) -> None:
    page = Page(written / "report.html")
    names = page.values("id")
    assert len(names) == len(set(names))
    text = (written / "report.html").read_text(encoding="utf-8")
    wanted = {*(href[1:] for href in page.values("href")), *re.findall(r"url\(#([^)]*)\)", text)}
    assert wanted <= set(names)


def test_texts_of_the_study_are_shown_and_not_obeyed(written: Path) -> None:
    raw = (written / "report.html").read_text(encoding="utf-8")
    assert "<diverse>" not in raw and "&lt;diverse&gt; pictures &amp; good ones" in raw
    assert "<diverse>" in Page(written / "report.html").text
    assert r"\<diverse\>" in (written / "report.md").read_text(encoding="utf-8")


def test_nothing_is_called_missing_when_all_is_there(written: Path) -> None:
    for text in (Page(written / "report.html").text, markdown_of(written)):
        assert "missing" not in text and "not measured" not in text


def test_both_texts_have_the_parts_of_the_paper(written: Path) -> None:
    for text in (Page(written / "report.html").text, markdown_of(written)):
        assert "faces, bsa: subsets of 50 pictures; mean over seeds and 95 % interval" in text
        assert "Random 2.09 ± 0.02 47.51 2.12" in text or "Random | 2.09 ± 0.02 | 47.51" in text
        assert "licence of cells" in text
        assert "tfgan-med experiment run spread.yaml --scale small" in text
        assert "LPIPS of at most 0.2" in text
        assert "3.000 (2.000 to 4.000)" in text  # random in IS
        assert "−0.6000 (−0.9000 to −0.3000)" in text
        assert "interpolations of one run" in text and "reconstructions of one run" in text


def test_a_figure_of_all_choices_takes_the_place_of_single_ones(tmp_path: Path) -> None:
    raw = write_study(tmp_path, changed(lambda summary: summary.update(scatters=[])))
    subset_report.write_report(raw)
    assert "figures/scatter-faces-kss10.png" in (raw / "report.md").read_text(encoding="utf-8")


def test_with_all_choices_in_one_figure_the_single_ones_are_left_out(written: Path) -> None:
    text = (written / "report.md").read_text(encoding="utf-8")
    assert "figures/choices-faces.png" in text and "figures/scatter-" not in text


# The answer ---------------------------------------------------------------------------------------


def judged(everything: Sequence[str], kss: Sequence[str] = ()) -> Json:
    entries = [
        {"claim": "diversity_grows_with_spread", "source": "ours", "metric": "d", "set": None,
         "generator": "bsa", "measure": f"m{i}", "scope": scope, "verdict": verdict,
         "statistic": {"supported": 0.8, "contradicted": -0.8}.get(verdict, 0.1)}
        for scope, verdicts in (("all", everything), ("kss", kss))
        for i, verdict in enumerate(verdicts)
    ]  # fmt: skip
    return {"results": [{"metric": "d"}], "judgments": entries, "seeds": SEEDS}


@pytest.mark.parametrize(
    ("everything", "kss", "beginning"),
    [
        ([], [], "Nothing says yet"),
        (["supported"], ["supported"], "Yes: "),
        (["contradicted", "contradicted"], [], "No: "),
        (["cannot tell"], ["cannot tell"], "This study cannot tell"),
        (["supported", "cannot tell"], [], "In part: "),
        (["contradicted", "cannot tell"], [], "Rather not: "),
        (["supported", "contradicted"], [], "It depends: "),
    ],
)
def test_the_headline_says_no_more_than_the_judgments(
    everything: list[str], kss: list[str], beginning: str
) -> None:
    said = subset_answer.headline(judged(everything, kss))
    assert said.startswith(beginning)
    assert "KSS" not in said


def test_a_yes_that_center_alone_carries_is_qualified() -> None:
    said = subset_answer.headline(judged(["supported"], ["cannot tell"]))
    assert said.startswith("Yes") and said.endswith(
        "Among the KSS subsets alone this study cannot tell."
    )


def test_pooled_judgments_decide_where_there_are_some() -> None:
    summary = judged(["cannot tell"])
    summary["judgments"] += [{**summary["judgments"][0], "set": "faces", "verdict": "supported"}]
    assert subset_answer.headline(summary).startswith("This study cannot tell")


def test_the_answer_counts_its_cases_and_names_the_direction() -> None:
    told = " ".join(subset_answer.paragraph(sample_summary()))
    assert "Over all subsets, D rises with the spread" in told
    assert "rank correlation +0.62 by the measures of spread; supported in 4 of 4 cases" in told
    assert "Among the KSS subsets alone, D rises" in told and "open in 4 of 4 cases" in told
    assert "Against Random (of 4 cases of set and generator): Center is less diverse in 4;" in told
    printed = subset_answer.of_paper(sample_summary())
    assert printed[-1] == (
        '"More clusters, more diverse": the paper\'s own numbers have this order in 0 of 1 cases, '
        "not in FEI."
    )
    assert "3 repeats" in told


def test_directions_follow_the_signs_of_all_correlations() -> None:
    assert [subset_answer._direction(one) for one in ([0.1, 0.8], [-0.1, -0.8], [-0.1, 0.3])] == [
        "rises with", "falls with", "has no one direction with"
    ]  # fmt: skip


def test_limits_name_foreign_networks_the_cut_and_orders_that_show_nothing() -> None:
    told = " ".join(subset_answer.limits(sample_summary()))
    assert "IS, FID are those of another network (mobilenet)" in told
    assert "cut at 0.3" in told
    assert "the least p is 0.333" in told
    assert "ledoit_wolf" in told
    summary = changed(lambda s: s.update(truncation=None, published=[], judgments=[], metrics=[]))
    told = " ".join(subset_answer.limits(summary))
    assert "cut at" not in told and "Inception" not in told and "paper's table" not in told


# Tables -------------------------------------------------------------------------------------------


def test_only_what_is_apart_from_all_others_is_marked() -> None:
    table = subset_tables.results(sample_summary(), "faces", "bsa")
    assert table is not None
    d = table.columns.index("D\N{NO-BREAK SPACE}↑")
    center = [row[0] for row in table.rows].index("Center")
    assert table.marks == {(center, d): "worst"}
    assert table.rows[center][d] == "0.5000\n(−0.5000 to 1.500)"


def test_low_is_best_where_low_is_better() -> None:
    spans = [(1.0, 2.0), (3.0, 4.0), (3.5, 5.0)]
    entries = [{"mean": 0.0, "low": low, "high": high} for low, high in spans]
    assert list(subset_tables._certain(entries, lower=True)) == [(0, "best")]
    assert list(subset_tables._certain(entries, lower=False)) == [(0, "worst")]
    touching = [{"mean": 0.0, "low": 1.0, "high": 2.0}, {"mean": 0.0, "low": 2.0, "high": 3.0}]
    assert list(subset_tables._certain(touching, lower=True)) == []


def test_without_all_intervals_nothing_is_certain() -> None:
    entries: list[Json | None]
    entries = [{"mean": 1.0, "low": 0.9, "high": 1.1}, {"mean": 9.0, "low": None, "high": None},
               {"mean": 5.0, "low": 4.9, "high": 5.1}]  # fmt: skip
    assert list(subset_tables._certain(entries, lower=True)) == []
    assert list(subset_tables._certain(entries[:1], lower=True)) == []


def test_marks_reach_html_markdown_and_latex(written: Path) -> None:
    shown = "0.5000\n(−0.5000 to 1.500)"
    assert f"<em>{shown}</em>" in (written / "report.html").read_text(encoding="utf-8")
    assert "*0.5000 (−0.5000 to 1.500)*" in (written / "report.md").read_text(encoding="utf-8")
    latex = (written / "tables" / "results-faces-bsa.tex").read_text(encoding="utf-8")
    assert r"\textit{0.5000 ($-$0.5000 to 1.500)}" in latex
    assert "Generated pictures: 250 of each repeat." in latex  # the caption stands by itself


def test_the_caption_names_networks_and_numbers_of_pictures() -> None:
    table = subset_tables.results(sample_summary(), "faces", "bsa")
    assert table is not None
    assert "FID: fid explained; mobilenet; 300 real, 250 generated." in table.about
    assert "Alike in C and D: LPIPS of at most 0.2." in table.about


def test_published_numbers_stand_beside_the_claim_they_decide() -> None:
    table = subset_tables.published_judgments(sample_summary(), "center_best_fid")
    assert table is not None
    assert table.rows == (
        ("FEI", "FID", "disagrees", "+16.74", "Random 47.51, Center 64.25, KSS1 70.06, KSS2 96.18, "
         "KSS10 82.21, KSS100 52.76"),
    )  # fmt: skip
    table = subset_tables.published_judgments(sample_summary(), "diversity_grows_with_g")
    assert table is not None
    assert table.rows[0][-1] == "KSS1 3.62, KSS2 4.11, KSS10 3.41, KSS100 2.67"


def test_tables_give_the_numbers_back(written: Path) -> None:
    summary = sample_summary()
    found = rows_of(written / "tables" / "results.csv")
    assert len(found) == len(summary["results"])
    assert [float(row["mean"]) for row in found] == [e["mean"] for e in summary["results"]]
    assert found[0]["values"] == ";".join(map(repr, summary["results"][0]["values"]))
    chosen = rows_of(written / "tables" / "selections.csv")
    assert len(chosen) == len(summary["selections"]) * len(MEASURES)
    printed = rows_of(written / "tables" / "published.csv")
    assert {(row["subset"], row["metric"]): float(row["value"]) for row in printed} == {
        (subset, metric): value for subset, of in FEI.items() for metric, value in of.items()
    }
    assert not (written / "tables" / "missing.csv").exists()


# Less than everything -----------------------------------------------------------------------------


def test_pictures_that_are_gone_are_named(tmp_path: Path) -> None:
    page, text = reported(tmp_path, sample_summary(), without="interpolations")
    for told in (page, text):
        assert "Picture figures/interpolations-faces-kss1-bsa.png is missing." in told
        assert "Picture figures/samples" not in told


def test_lists_that_came_later_may_be_absent(tmp_path: Path) -> None:
    summary = sample_summary()
    folder = write_study(tmp_path, summary)
    for key in ("interpolations", "scatters", "reconstructions", "notices", "published", "facts"):
        del summary[key]
    files.write_json(folder / "summary.json", summary)
    text = Page(subset_report.write_report(folder)).text
    assert "Between training pictures" not in text and "The paper's table says nothing" in text


def test_missing_repeats_are_counted_and_named(tmp_path: Path) -> None:
    def change(summary: Json) -> None:
        gone = {"set": "cells", "subset": "kss10", "generator": "bsa"}
        summary["results"] = [
            entry for entry in summary["results"] if not gone.items() <= entry.items()
        ]
        summary["missing"] = [{**gone, "seed": 2, "reason": "failed: see x.log"}]

    for told in reported(tmp_path, changed(change)):
        assert "1 of 60 repeats are missing" in told
        assert "failed: see x.log" in told
    table = subset_tables.results(changed(change), "cells", "bsa")
    assert table is not None
    assert [row[0] for row in table.rows] == ["Random", "Center", "KSS, G = 1", "KSS, G = 2"]


def test_a_metric_without_its_value_is_not_measured(tmp_path: Path) -> None:
    def change(summary: Json) -> None:
        first = summary["results"][0]
        summary["results"] = [entry for entry in summary["results"] if entry is not first]

    assert "not measured" in reported(tmp_path, changed(change))[0]


def test_one_generator_and_one_seed_promise_nothing(tmp_path: Path) -> None:
    summary = sample_summary(generators=["bsa"], seeds=[0])
    page, text = reported(tmp_path, summary)
    for told in (page, text):
        assert "This study cannot tell whether more spread subsets" in told
        assert "With one seed nothing is certain" in told
        assert "one seed, no interval" in told
        assert "fastgan" not in told
    table = subset_tables.results(summary, "faces", "bsa")
    assert table is not None and not table.marks
    assert table.rows[0][1] == "3.000"


def test_a_study_with_nothing_finished_has_a_report(tmp_path: Path) -> None:
    def change(summary: Json) -> None:
        for key in ("results", "comparisons", "judgments", "conclusions", "samples", "spread",
                    "selections", "reconstructions", "interpolations", "scatters",
                    "published"):  # fmt: skip
            summary[key] = []

    for told in reported(tmp_path, changed(change)):
        assert "Nothing says yet whether" in told
        assert "Results: not measured." in told


def test_a_summary_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"summary\.json: of kind 'arms', expected 'subsets'"):
        reported(tmp_path, changed(lambda summary: summary.update(kind="arms")))


def test_a_damaged_summary_names_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"damaged \(results\[0\]\.mean missing\)"):
        reported(tmp_path, changed(lambda summary: summary["results"][0].pop("mean")))


# Figures ------------------------------------------------------------------------------------------


def test_axes_turn_where_less_is_more_spread() -> None:
    summary = sample_summary()
    assert subset_figures._smaller_is_more(summary, "coverage_radius")
    assert not subset_figures._smaller_is_more(summary, "pairwise_distance")


def test_subsets_of_the_paper_are_known_by_name() -> None:
    summary = sample_summary()
    order = sorted(
        ["kss100", "random", "kss10", "kss2", "center", "kss1"],
        key=lambda name: subset_figures._rank(summary, name),
    )
    assert order == ["center", "random", "kss1", "kss2", "kss10", "kss100"]
    assert subset_figures._tick(summary, "kss100") == "KSS100"


def test_diversity_falls_back_on_what_was_measured() -> None:
    assert subset_figures.diversity({"results": [{"metric": "is"}, {"metric": "cid"}]}) == "cid"
    assert subset_figures.diversity({"results": []}) is None


def test_figures_are_written_as_png_and_svg(written: Path) -> None:
    names = {path.name for path in (written / "figures").iterdir()}
    for stem in ("order", "spread-faces", "spread-cells", "metrics-faces", "metrics-cells"):
        assert {f"{stem}.png", f"{stem}.svg"} <= names
