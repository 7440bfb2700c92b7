"""The wheel: nothing but `tfgan_med`, and all that a run needs."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("tfgan_med", "cli", "configs", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built offline from a copy of the tree, so that the checkout stays clean."""
    copy = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    (copy / "tests").mkdir()
    (copy / "tests" / "test_nothing.py").write_text("")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"]
    done = subprocess.run(build, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (copy / "dist").glob("*.whl")
    return zipfile.ZipFile(built)


def test_it_installs_nothing_but_our_package(wheel: zipfile.ZipFile) -> None:
    top = {name.partition("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"tfgan_med"}


def test_it_holds_every_module_and_config_of_the_checkout(wheel: zipfile.ZipFile) -> None:
    expected = {
        str(Path(*prefix, path.relative_to(ROOT / folder)).as_posix())
        for folder, prefix in (
            ("tfgan_med", ("tfgan_med",)),
            ("cli", ("tfgan_med", "cli")),
            ("configs", ("tfgan_med", "configs")),
        )
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".yaml", ".typed", ".jinja") and "__pycache__" not in path.parts
    }
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert "tfgan_med/configs/quickstart/pix2pix.yaml" in expected
    assert held == expected


def test_the_command_the_licence_and_the_python_versions_are_declared(
    wheel: zipfile.ZipFile,
) -> None:
    texts = {name.rpartition("/")[2]: wheel.read(name).decode() for name in wheel.namelist()}
    assert "tfgan-med = tfgan_med.cli.app:main" in texts["entry_points.txt"]
    assert "Apache License" in texts["LICENSE"]
    assert "Requires-Python: <3.14,>=3.11" in texts["METADATA"]
    assert re.search("^License(-Expression)?: Apache-2.0$", texts["METADATA"], re.MULTILINE)


def test_every_field_of_setup_cfg_is_declared_dynamic() -> None:
    """Otherwise setuptools leaves it out without a word."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    fields = {
        "version": "version" in setup["metadata"],
        "description": "description" in setup["metadata"],
        "readme": "long_description" in setup["metadata"],
        "license": "license" in setup["metadata"],
        "dependencies": "install_requires" in setup["options"],
        "optional-dependencies": "options.extras_require" in setup,
        "scripts": "options.entry_points" in setup,
    }
    assert all(fields.values())
    assert set(project["dynamic"]) == set(fields)
