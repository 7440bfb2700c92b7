"""Image sets that need no download: written once as ordinary folders into the cache.

`builtin:<name>[?option=value&...]` names one; the folder is laid out like a user's own, with
`splits.csv`, and everything that reads folders reads it.
"""

from __future__ import annotations

import contextlib
import csv
import difflib
import importlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from tfgan_med import files
from tfgan_med.errors import UserError

VERSION = 1  # part of a folder's name; raise it when the pictures change

SETS: dict[str, str] = {
    "histology": "real tissue, antibody stain: crops of one micrograph with stain and nuclei maps",
    "malaria": "rendered red cells, healthy or with a parasite: two classes, and masks; seeded",
    "smear": "rendered blood smears with exact instance masks: any count and size, seeded",
}
"""What `tfgan-med list data` says of each set."""


@dataclass(frozen=True)
class Option:
    """A whole number that a set takes, its default and its bounds."""

    default: int
    low: int
    high: int


OPTIONS: dict[str, dict[str, Option]] = {
    "histology": {"size": Option(128, 32, 160)},
    "malaria": {
        "size": Option(64, 32, 256),
        "count": Option(400, 80, 100_000),
        "seed": Option(0, 0, 2**31 - 1),
        "infected": Option(30, 5, 95),
    },
    "smear": {
        "size": Option(128, 32, 1024),
        "count": Option(200, 6, 100_000),
        "seed": Option(0, 0, 2**31 - 1),
    },
}


@dataclass(frozen=True)
class Sample:
    """One item to write: pictures by folder, and its row in `splits.csv`."""

    stem: str
    pictures: Mapping[str, Any]  # folder: uint8 or uint16 (height, width[, 3])
    row: Mapping[str, Any]


def available() -> list[str]:
    """Names of the built-in sets, sorted."""
    return sorted(SETS)


def materialize(path: str) -> Path:
    """The folder of a built-in set, written now if it is not there yet.

    Args:
        path: `builtin:<name>`, with options as in `builtin:smear?size=64&count=50&seed=1`.
    Raises:
        UserError: for an unknown name or option, or a value out of bounds.
    """
    name, options = parse(path)
    given = "-".join(f"{key}{value}" for key, value in options.items())
    folder = files.cache_dir() / "builtin" / f"{name}-{given}-v{VERSION}"
    if not folder.is_dir():
        with contextlib.suppress(FileExistsError), files.new_folder(folder) as temporary:
            _write(temporary, _samples(name, options))  # another process may be faster: the same
    return folder


def parse(path: str) -> tuple[str, dict[str, int]]:
    """Name and complete options of `builtin:<name>[?option=value&...]`."""
    name, _, query = path.removeprefix("builtin:").partition("?")
    if name not in SETS:
        raise UserError(
            f"builtin:{name}: there is no such built-in set.{_nearest(name, SETS)} Choose one of "
            f"{', '.join(available())}, or give a folder."
        )
    known = OPTIONS[name]
    options = {key: option.default for key, option in known.items()}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in known:
            raise UserError(
                f"{path}: '{key}' is no option of builtin:{name}.{_nearest(key, known)} It takes "
                f"{', '.join(known)}, as in builtin:{name}?size={known['size'].default}."
            )
        options[key] = _number(path, key, value, known[key])
    return name, options


def _number(path: str, key: str, value: str, option: Option) -> int:
    if value.isascii() and value.isdigit() and option.low <= int(value) <= option.high:
        return int(value)
    raise UserError(
        f"{path}: {key} is '{value}', but must be a whole number from {option.low} to "
        f"{option.high}. The default is {option.default}."
    )


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]}?" if close else ""


def _samples(name: str, options: Mapping[str, int]) -> Iterator[Sample]:
    module = importlib.import_module(f"tfgan_med.data.builtin_{name}")
    samples: Iterator[Sample] = module.samples(**options)
    return samples


def _write(folder: Path, samples: Iterator[Sample]) -> None:
    """Write `<role>/<stem>.png` and `splits.csv`."""
    from PIL import Image

    rows = []
    for sample in samples:
        for role, picture in sample.pictures.items():
            target = folder / role / f"{sample.stem}.png"
            target.parent.mkdir(exist_ok=True)
            Image.fromarray(picture).save(target, compress_level=1)
        rows.append({"file": f"images/{sample.stem}.png", **sample.row})
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    (folder / "splits.csv").write_text(table.getvalue(), encoding="utf-8")
