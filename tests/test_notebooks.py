"""Notebooks call the package and define nothing; outputs are not kept in git."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def code(notebook: Path) -> list[str]:
    cells: list[dict[str, Any]] = json.loads(notebook.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_outputs_are_stripped(notebook: Path) -> None:
    for cell in json.loads(notebook.read_text())["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


def test_nothing_is_defined(notebook: Path) -> None:
    for source in code(notebook):
        if source.startswith("%%"):
            continue
        plain = re.sub(r"^(\s*)[!%].*$", r"\1pass", source, flags=re.MULTILINE)
        for node in ast.walk(ast.parse(plain)):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda)


def test_the_experiment_is_that_of_the_quick_start() -> None:
    from tfgan_med.experiments import protocol

    notebook = ROOT / "notebooks" / "does_it_help.ipynb"
    written = next(c for c in code(notebook) if c.startswith("%%writefile")).partition("\n")[2]
    from tfgan_med import config

    there = protocol.parse(config.parse_yaml(written, "notebook"))
    quick = protocol.read(ROOT / "configs" / "quickstart" / "experiment.yaml")
    assert there.model_copy(update={"source": quick.source}) == quick


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(notebook: Path, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason='needs pip install -e ".[notebook]"')
    nbclient = pytest.importorskip("nbclient", reason='needs pip install -e ".[notebook]"')
    shutil.copy(notebook, tmp_path)
    # The commands of this environment come first, as for someone who activated it.
    here = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([here, os.environ["PATH"]])
    book = nbformat.read(tmp_path / notebook.name, as_version=4)
    client = nbclient.NotebookClient(
        book, timeout=3600, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    printed = json.dumps(book["cells"])
    assert "Error" not in printed, "a command failed, which does not stop a notebook"
    assert re.search(r"helps|hurts|cannot tell", printed)
    assert (tmp_path / "experiments" / "does_it_help" / "report.html").is_file()
