"""What all drawings of reports share: colors, files for print and page, and SVG inside a page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from tfgan_med import files

INK, SOFT, LINE, FAINT, REFERENCE = "#000000", "#404040", "#808080", "#e4e4e4", "#4d4d4d"
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito
MARKERS = "os^DvP"

_PRINT_DPI = 200

# What a page may change when it is dark: colors of the drawing to variables of its style sheet.
PAGE_COLORS = {
    INK: "--ink",
    "#ffffff": "--page",
    SOFT: "--soft",
    LINE: "--line",
    FAINT: "--faint",
    REFERENCE: "--reference",
    "#0072b2": "--blue",
    "#d55e00": "--orange",
    "#009e73": "--green",
}


@dataclass(frozen=True)
class Drawing:
    """A figure on disk.

    Attributes:
        name: stem of `figures/<name>.png` and `.svg`.
        caption: what it shows, also for those who cannot see it.
        wide: takes the whole width of a page.
    """

    name: str
    caption: str
    wide: bool = False


def save(figure: Figure, folder: Path, name: str, caption: str, wide: bool = False) -> Drawing:
    """Write `<name>.png` for print and `<name>.svg`, whose texts stay texts."""
    folder.mkdir(parents=True, exist_ok=True)
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": name})  # of this figure alone
    with files.replacing(folder / f"{name}.png") as temporary:
        figure.savefig(temporary, format="png", dpi=_PRINT_DPI, facecolor="white")
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with files.replacing(folder / f"{name}.svg") as temporary:
        figure.savefig(temporary, format="svg", transparent=True, metadata=nothing)
    return Drawing(name, caption, wide)


def inline_svg(path: Path) -> str:
    """The drawing of an SVG of ours as a piece of HTML.

    No prolog, no namespaces; identifiers are its own; colors follow the page (`PAGE_COLORS`).
    """
    text = path.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # it would reach the whole page
    text = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'\sid="([^"]*)"', rf' id="{path.stem}-\1"', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{path.stem}-", text)
    text = re.sub(r'style="[^"]*"', _with_page_colors, text)
    return re.sub(r'<svg[^>]*?viewBox="([^"]*)"[^>]*>', _opening, text, count=1)


def _with_page_colors(style: re.Match[str]) -> str:
    text = style[0]
    for color, variable in PAGE_COLORS.items():
        text = text.replace(color, f"var({variable}, {color})")
    return text


def _opening(match: re.Match[str]) -> str:
    width, height = match[1].split()[2:]
    natural = f"--natural: {float(width):.0f}pt"
    return (
        f'<svg viewBox="{match[1]}" width="{width}" height="{height}" style="{natural}" '
        'aria-hidden="true" focusable="false">'
    )
