"""The house as ARCHITECTURE draws it: imports run downward, nothing unsafe, nothing heavy."""

from __future__ import annotations

import ast
import configparser
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Upper levels may import lower ones; members of one level do not import each other.
LEVELS = [
    {"cli"},
    {"experiments"},
    {"evaluation"},
    {"training"},
    {"models", "downstream", "metrics", "data", "synthesis"},
    {"learning"},
    {"losses"},
    {"networks"},
    {"layers", "augment"},
    {"ops"},
    {"config"},
    {"discovery"},
    {"errors", "batches", "files", "configs", "__init__"},
]
LEVEL_OF = {part: level for level, parts in enumerate(LEVELS) for part in parts}

# What the command line may import before it knows which command runs.
LIGHT = {"typer", "tfgan_med", "tfgan_med.errors", "tfgan_med.discovery", "tfgan_med.files"}


def module_name(path: Path) -> str:
    """Dotted name of a file as it is imported: `cli` and `configs` live in `tfgan_med`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    dotted = parts if parts[0] == "tfgan_med" else ("tfgan_med", *parts)
    return ".".join(dotted[:-1] if dotted[-1] == "__init__" else dotted)


def sources() -> list[Path]:
    folders = (ROOT / "tfgan_med", ROOT / "cli", ROOT / "configs")
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


SOURCES = sources()
MODULES = {module_name(path) for path in SOURCES}


def imports(path: Path, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a piece of a file imports, modules spelled out."""
    package = module_name(path) if path.stem == "__init__" else module_name(path).rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            named = [node.module] if node.module else []
            above = package.split(".")[: package.count(".") + 2 - node.level]
            origin = ".".join([*above, *named] if node.level else named)
            for alias in node.names:
                whole = f"{origin}.{alias.name}"
                yield node.lineno, whole if whole in MODULES else origin


def part_of(module: str) -> str:
    """The folder or file directly below `tfgan_med`."""
    return [*module.split("."), "__init__"][1]


def backward_arrows(path: Path, tree: ast.AST) -> Iterator[str]:
    ours = part_of(module_name(path))
    for line, name in imports(path, tree):
        theirs = part_of(name)
        if name.partition(".")[0] != "tfgan_med" or ours == theirs:
            continue
        if LEVEL_OF[theirs] <= LEVEL_OF[ours]:
            yield f"{path.relative_to(ROOT)}:{line}: {ours} must not import {theirs}"


def test_imports_run_downward_only() -> None:
    assert len(SOURCES) > 20
    found = [arrow for path in SOURCES for arrow in backward_arrows(path, parsed(path))]
    assert found == []


@pytest.mark.parametrize(
    ("file", "text", "allowed"),
    [
        ("tfgan_med/ops/images.py", "from tfgan_med.losses import adversarial", False),
        ("tfgan_med/losses/adversarial.py", "from tfgan_med.ops import images", True),
        ("tfgan_med/models/pix2pix.py", "def f():\n import tfgan_med.data.records", False),
        ("tfgan_med/metrics/fid.py", "from tfgan_med.models.base import GenerativeModel", False),
        ("tfgan_med/data/readers/folder.py", "from tfgan_med.data import records", True),
        ("tfgan_med/data/readers/folder.py", "from ... import training", False),
        ("tfgan_med/errors.py", "from tfgan_med import config", False),
        ("cli/train.py", "from . import common", True),
        ("cli/train.py", "from tfgan_med.training import fit", True),
        ("tfgan_med/training/fit.py", "from tfgan_med import cli", False),
        ("tfgan_med/models/base.py", "import tfgan_med\nfrom keras import losses, models", True),
    ],
)
def test_this_test_sees_an_arrow_that_runs_back(file: str, text: str, allowed: bool) -> None:
    assert (not list(backward_arrows(ROOT / file, ast.parse(text)))) == allowed


def test_every_part_of_the_package_has_a_level() -> None:
    assert {part_of(module) for module in MODULES} - set(LEVEL_OF) == set()


def test_the_packages_in_setup_cfg_are_the_folders() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = setup["options"]["packages"].split()
    assert listed == sorted(listed)
    assert set(listed) == {module_name(p) for p in SOURCES if p.stem == "__init__"}
    holding_code = {module_name(path).rpartition(".")[0] for path in SOURCES if path.stem[0] != "_"}
    assert holding_code <= set(listed)


def test_a_packages_init_holds_a_docstring_and_nothing_else() -> None:
    for path in (p for p in SOURCES if p.stem == "__init__"):
        docstring, *rest = parsed(path).body
        assert isinstance(docstring, ast.Expr), path
        if module_name(path) == "tfgan_med":  # and the version
            assert [ast.unparse(node).partition(" ")[0] for node in rest] == ["__version__"]
        else:
            assert rest == [], path


def test_every_file_says_what_it_is() -> None:
    assert [str(path) for path in SOURCES if not ast.get_docstring(parsed(path))] == []


def test_the_command_line_imports_nothing_heavy_at_the_top() -> None:
    for path in SOURCES:
        if not module_name(path).startswith("tfgan_med.cli"):
            continue
        for line, name in imports(path, at_the_top(parsed(path))):
            light = name in LIGHT or name.startswith("tfgan_med.cli")
            standard = name.partition(".")[0] in sys.stdlib_module_names
            assert light or standard, f"{path}:{line}: {name} belongs into the command"


def at_the_top(tree: ast.Module) -> ast.Module:
    """The statements that importing the file runs."""
    later = (ast.FunctionDef, ast.AsyncFunctionDef)
    body = [node for node in tree.body if not isinstance(node, later)]
    typing_only = [n for n in body if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    return ast.Module([node for node in body if node not in typing_only], [])


UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "shelve", "marshal", "joblib"}
UNSAFE_NAMES = {"eval", "exec", "__import__"}
UNSAFE_CALLS = {
    "yaml.load",
    "yaml.load_all",
    "yaml.full_load",
    "yaml.unsafe_load",
    "os.system",
    "os.popen",
    "torch.load",
    "shutil.unpack_archive",
}


def unsafe(path: Path, tree: ast.AST) -> Iterator[str]:
    for line, name in imports(path, tree):
        if name.partition(".")[0] in UNSAFE_MODULES:
            yield f"{path}:{line}: {name}"
    for node in ast.walk(tree):
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Name) and node.id in UNSAFE_NAMES:
            yield f"{where}: {node.id}"
        elif isinstance(node, ast.Attribute) and node.attr in ("extractall", "unsafe_load"):
            yield f"{where}: {node.attr}"
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in UNSAFE_CALLS:
            yield f"{where}: {ast.unparse(node)}"
        elif isinstance(node, ast.keyword) and is_unsafe_option(node):
            yield f"{where}: {node.arg}"


def is_unsafe_option(keyword: ast.keyword) -> bool:
    risky = {"allow_pickle": False, "shell": False, "safe_mode": True}
    if keyword.arg not in risky:
        return False
    value = keyword.value
    return not (isinstance(value, ast.Constant) and value.value is risky[keyword.arg])


def test_nothing_runs_code_that_it_reads() -> None:
    assert [finding for path in SOURCES for finding in unsafe(path, parsed(path))] == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "def f():\n from pickle import loads",
        "eval('1')",
        "run = exec",
        "yaml.load(x, Loader=L)",
        "archive.extractall(folder)",
        "np.load(x, allow_pickle=True)",
        "np.load(x, allow_pickle=wanted)",
        "subprocess.run(x, shell=True)",
        "keras.models.load_model(x, safe_mode=False)",
        "os.system('ls')",
    ],
)
def test_this_test_sees_what_runs_code(text: str) -> None:
    assert list(unsafe(ROOT / "cli" / "x.py", ast.parse(text)))


def test_harmless_neighbours_of_unsafe_names_pass() -> None:
    text = "np.load(x, allow_pickle=False)\nmodel.eval()\nmodel.compile()\nyaml.parse(x)"
    assert not list(unsafe(ROOT / "cli" / "x.py", ast.parse(text)))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))
