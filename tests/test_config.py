"""Settings: what a file may hold, who wins, what a mistake is answered with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field, model_validator

from tfgan_med.config import (
    Config,
    Location,
    as_yaml,
    differences,
    load_yaml,
    parse_yaml,
    read_layer,
    resolve,
)
from tfgan_med.errors import UserError


class Networks(Config):
    """Networks and losses."""

    lambda_l1: float = Field(100.0, ge=0.0)
    """Weight of the mean absolute difference."""
    norm: Literal["instance", "batch"] = "instance"
    """Normalization of both networks."""
    layers: tuple[str, ...] = ("conv1", "conv2")
    """Names of the layers that are compared; a long comment has to be wrapped, so this sentence
    goes on for more than the hundred columns of a line."""
    weights: Path | None = None
    """File of weights."""


class Run(Config):
    """How long a run takes."""

    batch_size: int = Field(1, ge=1, le=64)
    """Pictures of a step."""
    xla: bool = False
    """Compile."""


class Settings(Config):
    """All of them."""

    name: str = ""
    """Name of the run."""
    path: Location = "builtin:histology"
    """Where the pictures are."""
    columns: dict[str, str] = {}
    """Our column to theirs."""
    window: tuple[float, float] | None = None
    """Black and white."""
    model: Networks = Networks()
    train: Run = Run()


def faults(*changes: str, **values: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        resolve(Settings, [("my.yaml", values)], changes, name="pix2pix")
    return str(caught.value).split("\n")


def written(tmp_path: Path, text: str | bytes, name: str = "my.yaml") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# Reading


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("2E5", 2e5),
        (".5", 0.5),
        ("-12", -12),
        ("010", 10),  # not octal
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        # what YAML 1.1 took for switches, base 60, dates and numbers is the text it looks like
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("12:30", "12:30"),
        ("2024-01-31", "2024-01-31"),
        ("1_000", "1_000"),
        ("'1'", "1"),
        ("[1, a]", [1, "a"]),
        ("{a: no}", {"a": "no"}),
    ],
)
def test_plain_values_follow_yaml_1_2(text: str, value: object) -> None:
    read = parse_yaml(text, "here")
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "my.yaml:3: the key a occurs twice"),
        ("m:\n  a: 1\n  a: 1\n", "my.yaml:3: the key a occurs twice"),
        ("a: !!python/object/apply:os.system ['touch marker']", "my.yaml:1: the tag"),
        ("a: !!str 1", "my.yaml:1: the tag"),
        ("a: !mine 1", "my.yaml:1: the tag !mine"),
        ("- 1\n- 2\n", "my.yaml: holds [1, 2]"),
        ("just text", 'my.yaml: holds "just text"'),
        ("a: [1", "my.yaml:1: expected ',' or ']'"),
        ("a: 1\n---\nb: 2\n", "my.yaml:2: expected a single document"),
        ("a: *b", "my.yaml:1: found undefined alias"),
        ("[1]: 2", "my.yaml:1: a key must be a word or a number"),
        ("a: " + "9" * 5000, "my.yaml:1: a number with too many digits"),
        ("a: \x07", "my.yaml: unacceptable character #x0007"),
        ("a: " + "[" * 20_000 + "]" * 20_000, "my.yaml: nested too deeply"),
        (b"a: \xe9\n", "my.yaml: byte 3 is not UTF-8"),
        (b"a: " + b"x" * 1_000_000, "my.yaml: over 1 MB"),
        ("a: &a 1\nb: [" + "*a, " * 65 + "]", "my.yaml: 65 aliases"),
    ],
)
def test_a_file_that_is_no_settings_is_refused_at_its_line(
    tmp_path: Path, text: str | bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_yaml(Path("my.yaml"))
    assert str(caught.value).startswith(message)
    assert [path.name for path in tmp_path.iterdir()] == ["my.yaml"]  # no marker: nothing ran


def test_few_aliases_that_stand_for_billions_of_values_are_refused(tmp_path: Path) -> None:
    levels = [f"a{n}: &a{n} {{x: *a{n - 1}, y: *a{n - 1}}}" for n in range(1, 32)]
    bomb = "\n".join(["a0: &a0 {x: 1}", *levels])  # 62 aliases, 2^31 values
    with pytest.raises(UserError, match="more than 100000 values"):
        load_yaml(written(tmp_path, bomb))
    with pytest.raises(UserError, match="more than 100000 values"):
        load_yaml(written(tmp_path, "a: &a [*a]"))


def test_anchors_in_moderation_a_byte_order_mark_and_an_empty_file_are_fine(
    tmp_path: Path,
) -> None:
    assert load_yaml(written(tmp_path, "\ufeffa: &x [1]\nb: *x\n")) == {"a": [1], "b": [1]}
    assert load_yaml(written(tmp_path, "# all lines are comments\n")) == {}


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: No such file"):
        load_yaml(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="Is a directory"):
        load_yaml(tmp_path)


# Resolving


def test_set_beats_file_beats_default_key_by_key() -> None:
    first = {"model": {"lambda_l1": 10, "norm": "batch"}}
    second = {"model": {"lambda_l1": 20}, "train": {"batch_size": 2}}
    settings = resolve(
        Settings,
        [("first", first), ("second", second)],
        ["train.batch_size=3", "train.batch_size=4"],
    )
    assert settings.model == Networks(lambda_l1=20.0, norm="batch")
    assert settings.train == Run(batch_size=4)
    assert first == {"model": {"lambda_l1": 10, "norm": "batch"}}  # layers are left as they were


def test_values_of_set_are_yaml() -> None:
    changes = ["model.lambda_l1=1e-4", "train.xla=no", "window=[0, 10]", "columns={file: a}"]
    settings = resolve(Settings, [], [*changes, "name=a=b"])
    assert settings.model.lambda_l1 == 1e-4
    assert settings.train.xla is False
    assert settings.window == (0.0, 10.0)
    assert settings.columns == {"file": "a"}
    assert settings.name == "a=b"


@pytest.mark.parametrize("change", ["train.batch_size", "=3", ".a=1", "train..xla=1", ""])
def test_a_set_without_key_and_value_is_refused(change: str) -> None:
    with pytest.raises(UserError, match="expected KEY=VALUE"):
        resolve(Settings, [], [change])


def test_a_block_of_comments_only_changes_nothing() -> None:
    assert resolve(Settings, [("f", {"model": None, "train": {}})]) == Settings()


def test_relative_paths_are_relative_to_the_file_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study").mkdir()
    text = "path: images\nmodel:\n  weights: ../vgg.h5\n"
    file = written(tmp_path, text, "study/my.yaml")
    monkeypatch.chdir(tmp_path)
    settings = resolve(Settings, [read_layer(Settings, Path("study/my.yaml"))])
    assert settings.path == str(tmp_path / "study" / "images")
    assert settings.model.weights == tmp_path / "vgg.h5"

    changed = resolve(Settings, [read_layer(Settings, file)], ["path=builtin:smear?size=64"])
    assert changed.path == "builtin:smear?size=64"  # no path, stays as it is
    assert resolve(Settings, [], ["path=here"]).path == str(tmp_path / "here")


# Faults


def test_an_unknown_key_is_answered_with_the_nearest() -> None:
    assert faults(model={"lambda_L1": 3}) == [
        "model.lambda_L1: unknown setting. Did you mean model.lambda_l1? "
        "All settings: tfgan-med describe pix2pix."
    ]
    assert faults("lambda_l1=3")[0].startswith(
        "lambda_l1: unknown setting. Did you mean model.lambda_l1?"
    )
    assert faults("qqqq=3")[0].startswith("qqqq: unknown setting. All")


def test_all_faults_come_in_one_message_with_value_and_origin() -> None:
    values = {
        "modle": {},
        "window": [1],
        "model": {"norm": "bach", "lambda_l1": "much", "layers": 3},
    }
    assert faults("train.batch_size=0", **values) == [
        "window[1]: not given. The list needs more values.",
        'model.lambda_l1: received "much" (from my.yaml), expected a number.',
        "model.norm: received \"bach\" (from my.yaml), expected 'instance' or 'batch'.",
        "model.layers: received 3 (from my.yaml), expected a list, `[a, b]`.",
        "train.batch_size: received 0 (from --set train.batch_size), "
        "expected a value of at least 1.",
        "modle: unknown setting. Did you mean model?",
        "All settings: tfgan-med describe pix2pix.",
    ]


@pytest.mark.parametrize(("given", "shown"), [("007", "7"), ("true", "true"), ("1e3", "1000.0")])
def test_a_number_where_text_belongs_is_refused_with_the_hint_to_quote(
    given: str, shown: str
) -> None:
    message = faults(f"name={given}")[0]
    assert message.startswith(f"name: received {shown} (from --set name), expected text")
    assert f'write it in quotes: "{shown}"' in message
    assert resolve(Settings, [], [f"name='{given}'"]).name == given


def test_a_value_where_a_block_belongs_and_infinity_are_refused() -> None:
    assert "expected a block of settings" in faults(model=3)[0]
    assert "expected a finite number" in faults("model.lambda_l1=.inf")[0]
    assert "expected a finite number" in faults("model.lambda_l1=.nan")[0]


def test_rules_between_settings_speak_for_themselves() -> None:
    class Sizes(Config):
        image_size: int = 256

        @model_validator(mode="after")
        def _power_of_two(self) -> Sizes:
            if self.image_size & (self.image_size - 1):
                raise ValueError(f"image_size is {self.image_size}, but needs a power of two.")
            return self

    with pytest.raises(UserError) as caught:
        resolve(Sizes, [], ["image_size=250"])
    assert str(caught.value) == "image_size is 250, but needs a power of two."


def test_settings_cannot_be_changed_later() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().name = "other"  # type: ignore[misc]


# Printing and comparing


@pytest.mark.parametrize("commented", [True, False])
@pytest.mark.parametrize(
    "name",
    ["", "no", "12:30", "1e-4", "007", "null", "~", "a: b", "# x", "é 𝛼", "a\nb", "'", '"', " x "],
)
def test_what_is_printed_is_read_back(tmp_path: Path, name: str, commented: bool) -> None:
    settings = Settings(
        name=name,
        columns={"yes": "0x1F", "1": "*a"},
        window=(0.1, 1e-7),
        model=Networks(lambda_l1=1e22, weights=tmp_path / "a b.h5", layers=()),
    )
    file = written(tmp_path, as_yaml(settings, commented))
    assert resolve(Settings, [read_layer(Settings, file)]) == settings


def test_comments_give_meaning_choices_and_range_within_a_line() -> None:
    text = as_yaml(Settings(), commented=True)
    assert "  # Weight of the mean absolute difference.\n  # Range: at least 0.0.\n" in text
    assert "  # One of: instance, batch.\n  norm: instance\n" in text
    assert "# Networks and losses.\nmodel:\n" in text
    assert max(map(len, text.splitlines())) <= 96
    bare = [line for line in text.splitlines() if line and not re.match(r"\s*#", line)]
    assert bare == [line for line in as_yaml(Settings()).splitlines() if line]


def test_a_folder_can_hold_its_settings_without_absolute_paths(tmp_path: Path) -> None:
    settings = Settings(path=str(tmp_path / "data"), model=Networks(weights=tmp_path / "vgg.h5"))
    run = tmp_path / "runs" / "0001"
    run.mkdir(parents=True)
    text = as_yaml(settings, relative_to=run)
    assert "path: ../../data\n" in text
    assert str(tmp_path) not in text
    assert resolve(Settings, [read_layer(Settings, written(run, text))]) == settings


def test_differences_are_dotted_keys_in_the_order_of_the_fields() -> None:
    old = Settings(columns={"a": "b"})
    new = Settings(name="x", train=Run(xla=True), model=Networks(layers=("conv1",)))
    assert differences(old, new) == ["name", "columns", "model.layers", "train.xla"]
    assert differences(old, old) == []
