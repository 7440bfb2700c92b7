"""What every command owes: quick help, one message for a typo, completion, a closed pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer.main

from tfgan_med.cli.app import app

if TYPE_CHECKING:
    from tests.conftest import Cli

HEAVY = {"tensorflow", "keras", "numpy", "scipy", "h5py", "yaml", "PIL", "pandas", "sklearn"}


def commands(
    group: Any = None, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it."""
    whole: Any = group or typer.main.get_command(app)
    for name, command in whole.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        elif not command.hidden:  # a second name of a command that is visited
            yield (*path, name), command


COMMANDS = dict(commands())
NAMES = [" ".join(words) for words in COMMANDS]


def processor_seconds() -> float:
    """What finished child processes have computed; unlike wall time it bears a busy machine."""
    times = os.times()
    return times.children_user + times.children_system


@pytest.mark.parametrize("name", NAMES)
def test_help_is_quick_and_loads_nothing_heavy(name: str) -> None:
    program = (
        "import sys, atexit; from tfgan_med.cli.app import main\n"
        f"atexit.register(lambda: print({HEAVY} & set(sys.modules), file=sys.stderr))\n"
        f"sys.argv = ['tfgan-med', *{name.split()}, '--help']; main()"
    )
    # the second start finds compiled files, as with users; uv installs none
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    spent = []
    for _ in range(3):
        before = processor_seconds()
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=environment
        )
        spent.append(processor_seconds() - before)
        assert (done.returncode, done.stderr) == (0, "set()\n")
    assert min(spent) < 0.5  # processor time: 0.2 s here, equal to wall time on an idle machine


@pytest.mark.parametrize("name", NAMES)
def test_help_gives_purpose_and_two_worked_examples(name: str) -> None:
    text = COMMANDS[tuple(name.split())].help
    assert text.count(f"tfgan-med {name}") >= 2, text


@pytest.mark.parametrize("name", NAMES)
def test_every_command_speaks_json_and_can_be_quiet_and_debugged(name: str) -> None:
    options = {word for p in COMMANDS[tuple(name.split())].params for word in p.opts}
    assert {"--json", "--quiet", "--debug"} <= options


def test_the_names_of_the_version_and_of_all_commands_are_printed(cli: Cli) -> None:
    version = cli("--version")
    assert version.returncode == 0
    assert version.stdout.startswith("tfgan-med 0.")
    help_text = cli("--help").stdout
    assert all(words[0] in help_text for words in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["lst"], "Did you mean 'list'?"),
        (["list", "model"], "Did you mean models?"),
        (["list", "models", "--josn"], "--json"),
        (["describe", "pix2pixx"], "Did you mean pix2pix?"),
        (["train", "pix2pixx"], "Did you mean pix2pix?"),
        (["describe"], "Missing argument"),
    ],
)
def test_a_typo_is_one_message_and_exit_code_2(cli: Cli, arguments: list[str], hint: str) -> None:
    done = cli(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert hint in done.stderr
    assert done.stderr.count("Error") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tfgan-med des", {"describe"}),
        ("tfgan-med describe p", {"pix2pix"}),
        ("tfgan-med describe c", {"config"}),
        ("tfgan-med list m", {"models", "metrics"}),
        ("tfgan-med train p", {"pix2pix"}),
    ],
)
def test_the_shell_completes_names(cli: Cli, words: str, expected: set[str]) -> None:
    before = processor_seconds()
    done = cli(
        env={
            "_TFGAN_MED_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
    )
    assert processor_seconds() - before < 0.5
    assert done.returncode == 0
    offered = set(done.stdout.split())
    assert expected <= offered
    assert all(name.startswith(words.split()[-1]) for name in offered)


@pytest.mark.parametrize("arguments", [["describe", "config"], ["list", "--json"], ["--help"]])
def test_a_reader_that_leaves_a_pipe_is_no_error(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)  # as `head` does, before a word is written
    script = "from tfgan_med.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert done.returncode == 0
    assert "Error" not in done.stderr and "Traceback" not in done.stderr


WITHOUT_TENSORFLOW = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "keras"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from tfgan_med.cli.app import main
main()
"""


def without_tensorflow(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command on a machine where TensorFlow and Keras are not installed."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, *arguments], capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["list"], ["describe", "config"], ["train", "--help"]]
)
def test_light_commands_work_without_tensorflow(arguments: list[str]) -> None:
    done = without_tensorflow(*arguments)
    assert (done.returncode, done.stderr.count("Error")) == (0, 0), done.stderr
    assert done.stdout


def test_a_command_that_needs_tensorflow_says_so_in_one_message() -> None:
    done = without_tensorflow("describe", "pix2pix")
    assert (done.returncode, done.stdout) == (1, "")
    assert "needs the package tensorflow, which is not installed" in done.stderr.replace(
        "keras", "tensorflow"
    )
    assert "tfgan-med doctor" in done.stderr
    assert "Traceback" not in done.stderr


def test_tensorflow_starts_without_chatter(cli: Cli, tmp_path: Path) -> None:
    done = cli("describe", "pix2pix", cwd=tmp_path)
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if not line.startswith("Next: ")] == []
    assert list(tmp_path.iterdir()) == []
