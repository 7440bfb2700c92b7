"""Names come from files, and a wrong name is answered with the right one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tfgan_med import discovery
from tfgan_med.errors import UserError


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package with a base, a helper, a good file and a bad one."""
    folder = tmp_path / "zoo_of_tests"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""Animals."""\n')
    (folder / "base.py").write_text("class Animal:\n    pass\n")
    (folder / "_food.py").write_text("")
    (folder / "great_ape2.py").write_text(
        '"""Great apes.\n\nMore about them.\n"""\n'
        "from zoo_of_tests.base import Animal\n"
        "class GreatAPE2(Animal):\n    pass\n"
        "class GreatAPE2Config:\n    pass\n"
    )
    (folder / "stone.py").write_text("greeting = 'I am no class'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder.name
    for module in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[module]


def test_names_are_the_files_without_base_and_helpers(zoo: str) -> None:
    assert discovery.available(zoo) == ["great_ape2", "stone"]


def test_a_package_that_does_not_exist_offers_nothing() -> None:
    assert discovery.available("tfgan_med_there_is_no_such_package") == []


def test_the_class_is_spelled_like_the_file_in_the_papers_capitals(zoo: str) -> None:
    assert discovery.load_class(zoo, "great_ape2", object).__name__ == "GreatAPE2"
    config = discovery.load_class(zoo, "great_ape2", object, suffix="Config")
    assert config.__name__ == "GreatAPE2Config"


def test_an_unknown_name_is_answered_with_the_nearest_and_all(zoo: str) -> None:
    with pytest.raises(UserError) as caught:
        discovery.load_class(zoo, "greatape2", object)
    assert str(caught.value) == (
        "greatape2: unknown zoo_of_test. Did you mean great_ape2? Known: great_ape2, stone."
    )


def test_the_base_and_names_with_dots_are_no_models(zoo: str) -> None:
    for name in ("base", "_food", "os.path", ""):
        with pytest.raises(UserError):
            discovery.load_class(zoo, name, object)


def test_a_file_without_its_class_is_a_mistake_of_its_author(zoo: str) -> None:
    with pytest.raises(TypeError, match="stone"):
        discovery.load_class(zoo, "stone", object)
    with pytest.raises(TypeError, match="int"):  # the class is there, but of another kind
        discovery.load_class(zoo, "great_ape2", int)


def test_the_summary_is_the_first_line_and_runs_nothing(zoo: str) -> None:
    assert discovery.summary(zoo, "great_ape2") == "Great apes."
    assert discovery.summary(zoo, "stone") == ""
    assert f"{zoo}.great_ape2" not in sys.modules


def test_listing_the_models_imports_nothing_heavy() -> None:
    program = (
        "import sys; from tfgan_med import discovery\n"
        "names = discovery.available('tfgan_med.models')\n"
        "assert discovery.summary('tfgan_med.models', 'pix2pix')\n"
        "assert not {'tensorflow', 'keras', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "print(*names)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "pix2pix" in done.stdout.split()
