"""Tables and texts in LaTeX and Markdown, escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tfgan_med.experiments import wording
from tfgan_med.experiments.tables import Table

_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "\N{NO-BREAK SPACE}": "~",
    "−": "$-$", "×": r"$\times$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "≥": r"$\geq$",
    "≤": r"$\leq$", "±": r"$\pm$", "–": "--", "…": r"\dots{}", "²": r"\textsuperscript{2}",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """Text that LaTeX sets as it is; line breaks become spaces."""
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split("\n")))


def latex(table: Table, name: str) -> str:
    r"""A `table` environment in the style of booktabs.

    Args:
        table: what to set.
        name: of the experiment, for `\label{tab:NAME-TABLE}`.
    """
    columns = table.align.replace("p", r"p{0.5\textwidth}")
    lines = [
        r"% needs \usepackage{booktabs} and \usepackage{adjustbox}",
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{escape_latex(f'{table.caption}. {table.about}'.strip())}}}",
        f"  \\label{{tab:{wording.slug(name)}-{table.name}}}",
        r"  \begin{adjustbox}{max width=\textwidth}",
        f"  \\begin{{tabular}}{{{columns}}}",
        r"    \toprule",
        f"    {_latex_line(map(escape_latex, table.columns))}",
        r"    \midrule",
        *(f"    {_latex_row(row, table, i)}" for i, row in enumerate(table.rows)),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"  \end{adjustbox}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_row(cells: Sequence[str], table: Table, row: int) -> str:
    return _latex_line(
        _emphasised(escape_latex(cell), table, (row, column), r"\textbf{%s}", r"\textit{%s}")
        for column, cell in enumerate(cells)
    )


def _latex_line(texts: Iterable[str]) -> str:
    return " & ".join(texts) + r" \\"


def _emphasised(text: str, table: Table, place: tuple[int, int], bold: str, italic: str) -> str:
    """A cell in a strong row or with a mark of its own."""
    mark = "best" if place[0] in table.strong else table.marks.get(place)
    return {"best": bold, "worst": italic}.get(mark or "", "%s") % text if text else text


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    line = " ".join(text.split())
    line = re.sub(r"([\\`*_\[\]<>|#~$])", r"\\\1", line.replace("&", "&amp;"))
    return re.sub(r"^([-+=]|\d+[.)])(?=\s|$|[-=])", _first_escaped, line)


def _first_escaped(match: re.Match[str]) -> str:
    """A line that begins like a list or a rule."""
    start = match[0]
    return f"{start[:-1]}\\{start[-1]}"


def markdown(table: Table) -> str:
    """A table of GitHub's Markdown."""
    rules = ["---:" if letter == "r" else ":---" for letter in table.align]
    rows = [
        [
            _emphasised(escape_markdown(cell), table, (row, column), "**%s**", "*%s*")
            for column, cell in enumerate(cells)
        ]
        for row, cells in enumerate(table.rows)
    ]
    lines = [list(map(escape_markdown, table.columns)), rules, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fenced(text: str) -> str:
    """A block of code that nothing inside it can end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}"
