"""Pages and Markdown texts of reports: templates filled, pictures made small enough to embed."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from tfgan_med.experiments import drawings, typesetting

_LARGEST_SIDE = 1600  # pixels of a picture in the page
_LARGEST_PNG = 300_000  # bytes; beyond, a JPEG is as good to look at
_PACKAGE = "tfgan_med.experiments"


def html(template: str, folder: Path, variables: Mapping[str, Any]) -> str:
    """A page that needs no other file.

    Args:
        template: name of a `.html.jinja` beside this file; `picture(path, side)` and
            `drawing(name)` give what is in the folder.
        folder: of the experiment.
        variables: of the template; every text is escaped.
    """
    environment = _environment(autoescape=True)
    return environment.get_template(template).render(
        **variables,
        picture=lambda path, side: embedded(folder, path, side),
        drawing=lambda name: drawings.inline_svg(folder / "figures" / f"{name}.svg"),
    )


class _Markdown(str):
    """Text that is Markdown already."""


def markdown(template: str, folder: Path, variables: Mapping[str, Any]) -> str:
    """Markdown with links to pictures; every text goes through the escape but those made here.

    Args:
        template: name of a `.md.jinja` beside this file; `table`, `code`, `picture(path, words)`
            and `drawing(one)` give Markdown.
        folder: of the experiment.
        variables: of the template.
    """
    environment = _environment(
        autoescape=False,
        finalize=lambda text: (
            text if isinstance(text, _Markdown) else typesetting.escape_markdown(str(text))
        ),
    )
    return environment.get_template(template).render(
        **variables,
        table=lambda table: _Markdown(typesetting.markdown(table)),
        code=lambda text: _Markdown(typesetting.fenced(text)),
        picture=lambda path, words: _Markdown(_linked(folder, path, words)),
        drawing=lambda one: _Markdown(_linked(folder, f"figures/{one.name}.png", one.caption)),
    )


def _environment(**options: Any) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )


def _template(name: str) -> str:
    return resources.files(_PACKAGE).joinpath(name).read_text(encoding="utf-8")


def _linked(folder: Path, path: str | None, words: str) -> str:
    """A relative link to a picture with its caption, or what is missing."""
    text = typesetting.escape_markdown(words)
    if not path:
        return ""
    if _inside(folder, path) is None:
        return f"*Picture {typesetting.escape_markdown(path)} is missing.*"
    return f"![{text}](<{path}>)\n\n*{text}*"


# Pictures in the page -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Embedded:
    """A picture as a data URI, with its size in pixels; `source` is empty if it is missing."""

    source: str
    width: int = 0
    height: int = 0
    path: str = ""


def embedded(folder: Path, path: str | None, side: int = _LARGEST_SIDE) -> Embedded | None:
    """A picture of the experiment made small enough for a page; None where there is none to show.

    Args:
        folder: of the experiment.
        path: relative to it; one that leads out of it counts as missing.
        side: width that it has at most, in pixels.
    """
    if not path:
        return None
    where = _inside(folder, path)
    if where is None:
        return Embedded("", path=path)
    try:
        with Image.open(where) as opened:
            picture = _flattened(opened)
    except (OSError, Image.DecompressionBombError):
        return Embedded("", path=path)
    picture.thumbnail((side, side * 4), Image.Resampling.LANCZOS)
    kind, data = _packed(picture)
    text = base64.b64encode(data).decode("ascii")
    return Embedded(f"data:image/{kind};base64,{text}", picture.width, picture.height, path)


def _inside(folder: Path, path: str) -> Path | None:
    """The file, if it is one of the experiment's."""
    where = (folder / path).resolve()
    return where if where.is_relative_to(folder.resolve()) and where.is_file() else None


def _flattened(picture: Image.Image) -> Image.Image:
    """Grey or RGB, transparent parts white."""
    if picture.mode == "L":
        return picture.copy()
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")


def _packed(picture: Image.Image) -> tuple[str, bytes]:
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    if stream.tell() <= _LARGEST_PNG:
        return "png", stream.getvalue()
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=88, optimize=True)
    return "jpeg", stream.getvalue()
