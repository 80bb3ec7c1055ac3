"""Tables that say the same as HTML, Markdown, CSV and LaTeX: every figure is formatted once.

>>> table = Table("scores", "Test scores", ("method", "mean"), (("random", number(0.7)),))
>>> print(markdown(table))
| method |  mean |
| ------ | ----: |
| random | 0.700 |
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass

from rlprompt._utils.csv_rows import csv_writer
from rlprompt._utils.text import fence, visible

# What stands for a figure that there is not.
NONE = "-"
_NUMBER = re.compile(r"[-+]?[\d,]+(\.\d+)?(e[-+]?\d+)?")
# Spreadsheets run a cell that begins so (https://owasp.org/www-community/attacks/CSV_Injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    **{mark: f"\\{mark}" for mark in "&%$#_"},
}


@dataclass(frozen=True)
class Table:
    """A table with a header; its first column names the rows.

    Attributes:
        name: What it is called among the others, the stem of its files.
        caption: What it shows, in a sentence or less.
        header: A title each column.
        rows: A text each column; figures as `number` and `count` write them, `NONE` for none.
        text: Columns that hold words. The others hold figures, which line up on the right.
        code: Columns that hold prompts, the text as it is, or "" where there is no prompt.
        notes: What is needed to read it, a sentence or two each.
    """

    name: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text: tuple[int, ...] = (0,)
    code: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def shown(self, column: int, cell: str) -> str:
        """A cell in plain text: a prompt as a Python string, so that its spaces show."""
        if column in self.code:
            return repr(cell) if cell else NONE
        return visible(cell)

    def is_figure(self, column: int) -> bool:
        """Whether a column holds figures."""
        return column not in self.text and column not in self.code


def number(value: float | None, digits: int = 3) -> str:
    """A figure with so many decimals, never a negative zero."""
    if value is None:
        return NONE
    if abs(value) >= 1e16:  # beyond it, digits mean nothing
        return f"{value:.{digits}e}"
    text = f"{value:,.{digits}f}"
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text


def count(value: float | None) -> str:
    """A whole number with its thousands apart."""
    return NONE if value is None else f"{value:,.0f}"


def markdown(table: Table) -> str:
    """The table alone, without its caption and notes, for GitHub's Markdown."""
    rows = [
        [_markdown_cell(table, i, cell) for i, cell in enumerate(row)]
        for row in (table.header, *table.rows)
    ]
    rows[0] = [markdown_text(title) for title in table.header]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    figures = [table.is_figure(i) for i in range(len(widths))]

    def line(cells: Iterable[str]) -> str:
        padded = (
            cell.rjust(width) if figure else cell.ljust(width)
            for cell, width, figure in zip(cells, widths, figures, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = ("-" * (w - 1) + ":" if f else "-" * w for w, f in zip(widths, figures, strict=True))
    return "\n".join([line(rows[0]), line(rule), *map(line, rows[1:])])


def as_csv(table: Table) -> str:
    """The table as CSV: no thousands separators, nothing where there is no figure."""
    sink = io.StringIO()
    write = csv_writer(sink)
    write(map(_csv_text, table.header))
    for row in table.rows:
        write(_csv_cell(table, i, cell) for i, cell in enumerate(row))
    return sink.getvalue()


def latex(table: Table) -> str:
    """The table as LaTeX with booktabs; LuaLaTeX or XeLaTeX where it holds other scripts."""
    figures = [table.is_figure(i) for i in range(len(table.header))]
    lines = [[_latex_cell(table, i, cell) for i, cell in enumerate(row)] for row in table.rows]
    return "\n".join(
        [
            r"% \usepackage[T1]{fontenc}, \usepackage{textcomp}, \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(' '.join([table.caption + '.', *table.notes]))}}}",
            rf"\label{{tab:{table.name}}}",
            rf"\begin{{tabular}}{{{''.join('r' if figure else 'l' for figure in figures)}}}",
            r"\toprule",
            " & ".join(map(latex_text, table.header)) + r" \\",
            r"\midrule",
            *(" & ".join(cells) + r" \\" for cells in lines),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def latex_text(text: str) -> str:
    """Text with what LaTeX would act on made harmless."""
    return "".join(_LATEX.get(character, character) for character in visible(text))


def _markdown_cell(table: Table, column: int, cell: str) -> str:
    shown = table.shown(column, cell)
    if column in table.code and cell:
        return _markdown_code(shown)
    return shown if table.is_figure(column) else markdown_text(shown)


def markdown_text(text: str) -> str:
    """Text that no Markdown is made of."""
    text = re.sub(r"([\\`*_\[\]|~#])", r"\\\1", visible(text))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _markdown_code(text: str) -> str:
    """Text as code; GFM splits at a bare |."""
    text = text.replace("|", "\\|")
    ticks = fence(text)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def _csv_cell(table: Table, column: int, cell: str) -> str:
    shown = table.shown(column, cell)
    if shown == NONE:
        return ""
    if table.is_figure(column) and _NUMBER.fullmatch(shown):
        return shown.replace(",", "")
    return _csv_text(shown)


def _csv_text(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _latex_cell(table: Table, column: int, cell: str) -> str:
    shown = table.shown(column, cell)
    if column in table.code and cell:
        return rf"\texttt{{{latex_text(shown)}}}"
    if table.is_figure(column) and shown.startswith("-") and _NUMBER.fullmatch(shown):
        return f"$-${shown[1:]}"
    return "--" if shown == NONE else latex_text(shown)
