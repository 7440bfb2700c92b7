"""`list` and `describe`: names as users type them, settings as users can give them back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from typer.testing import CliRunner

from tfgan_med import config
from tfgan_med.cli import describe
from tfgan_med.cli.app import app

if TYPE_CHECKING:
    from tests.conftest import Cli


def test_list_names_every_kind_with_what_it_is(cli: Cli) -> None:
    done = cli("list")
    assert done.returncode == 0
    titles = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert titles == ["models:", "downstream:", "data:", "layouts:", "metrics:", "weights:"]
    told = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert any(line.startswith("pix2pix Pix2Pix: paired image-to-image") for line in told)
    assert any(line.startswith("builtin:histology ") for line in told)
    assert done.stderr.startswith("Next: ")


def test_one_kind_as_json_is_one_object_per_line(cli: Cli) -> None:
    named = []
    for kind in ("models", "downstream"):
        lines = cli("list", kind, "--json", "--quiet").stdout.splitlines()
        entries = [json.loads(line) for line in lines]
        named += [entry["name"] for entry in entries]
        assert {entry["kind"] for entry in entries} == {kind}
        assert all(entry["about"] for entry in entries)
    assert sorted(named) == describe.model_names()


def test_quiet_says_nothing_on_stderr(cli: Cli) -> None:
    assert cli("list", "data", "--quiet").stderr == ""


def test_what_describe_prints_is_a_complete_settings_file(tmp_path: Path) -> None:
    from tfgan_med.training import settings

    done = CliRunner().invoke(app, ["describe", "pix2pix"])
    assert done.exit_code == 0
    file = tmp_path / "my.yaml"
    file.write_text(done.stdout, encoding="utf-8")
    cls = settings.settings_class("pix2pix")
    assert config.resolve(cls, [config.read_layer(cls, file)]) == cls()
    assert "  # Weight of the mean absolute difference to the target.\n" in done.stdout
    assert "  lambda_l1: 100.0\n" in done.stdout


def test_every_setting_of_every_model_has_a_comment() -> None:
    for model in describe.model_names():
        lines = CliRunner().invoke(app, ["describe", model]).stdout.splitlines()
        keys = [
            n for n, line in enumerate(lines) if line.strip() and not line.strip().startswith("#")
        ]
        assert len(keys) > 30
        assert [lines[n] for n in keys if not lines[n - 1].strip().startswith("#")] == []


def test_json_gives_values_and_a_schema_that_forbids_unknown_keys() -> None:
    done = CliRunner().invoke(app, ["describe", "pix2pix", "--json"])
    described = json.loads(done.stdout)
    assert described["values"]["model"]["lambda_l1"] == 100.0
    assert described["schema"]["additionalProperties"] is False
    assert set(described["schema"]["properties"]) == set(described["values"])


def test_describe_config_tells_who_wins(cli: Cli) -> None:
    text = cli("describe", "config").stdout
    assert text.index("--set") < text.index("--config") < text.index("the defaults")
