"""Tables as text: what separates the cells of a file, and what its quotes mean, by looking.

Cells are separated by what the header shows. In `.csv` files quotes group a cell. In files with
tabs, and in `.txt`, there are two habits: the usual few-shot files have quotes as text, and pandas,
R and spreadsheets write cells with a tab, a line break or a quote in quotes. They are told apart by
writing all cells as such a program would: where that gives the file again, quotes group.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rlprompt._utils.text import counted
from rlprompt.data.opening import DataFile
from rlprompt.data.row_table import RowTable, TableRow

# Characters that one cell may have. The limit ends the search for a closing quote that is not
# there.
MAX_CELL = 1 << 24
# Values of a column that lines in a quoted cell are held against.
MOST_KNOWN = 1000
SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
USUAL = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
# Cells that a program puts in quotes: those with one of these, the separator or a quote. Excel
# does it for commas as well whatever the separator, or for semicolons, by where it was sold.
WRITTEN = ("\r\n", "\r\n,", "\r\n;", "\r\n,;")


@dataclass(frozen=True)
class Layout:
    """How a file is cut into cells.

    Attributes:
        separator: Between cells.
        quotes: `none` where they are text; `doubled` or `escaped` by how they stand inside a cell
            that is in quotes; `escaped alike` where backslashes are as well.
        remarks: What of it is no matter of course.
    """

    separator: str
    quotes: str
    remarks: tuple[str, ...] = ()

    def rows(self, lines: Iterable[str]) -> Any:
        """A `csv.reader` over lines."""
        csv.field_size_limit(MAX_CELL)
        if self.quotes == "escaped":
            lines = (line.replace('\\"', '""') for line in lines)
        if self.quotes == "escaped alike":
            lines = (re.sub(r'\\(["\\])', _unescaped, line) for line in lines)
        if self.quotes == "none":
            return csv.reader(lines, delimiter=self.separator, quoting=csv.QUOTE_NONE, strict=True)
        return csv.reader(lines, delimiter=self.separator, strict=True)


def delimited_table(file: DataFile, columns: Collection[str]) -> RowTable:
    """The rows of a `.csv`, `.tsv` or `.txt` file.

    Args:
        file: The file.
        columns: Some that its header may have.

    Raises:
        ValueError: It has a column twice, or cannot be cut into rows; partly while rows are read.
    """
    layout = _layout(file, columns)
    remarks = (*layout.remarks, *_swallowed(file, layout))
    return RowTable(file.name, _rows(file, layout), uniform=True, remarks=remarks)


def check_names(names: Sequence[str], where: str) -> None:
    """Refuse a column that is there twice, unless it has no name, as an index has none.

    Raises:
        ValueError: There is one.
    """
    if twice := [name for i, name in enumerate(names) if name and name in names[:i]]:
        raise ValueError(f"{where} has two columns {twice[0]!r}")


def _rows(file: DataFile, layout: Layout) -> Iterator[tuple[str, TableRow]]:
    with file.text() as lines:
        skipped = _skip_excel(lines)
        reader = layout.rows(lines)
        number = 1 + skipped  # of the line that a row starts on; a quoted text may have breaks
        try:
            header: list[str] = next(filter(None, reader), [])
            check_names(header, file.name)
            number = reader.line_num + 1 + skipped
            first = True
            for cells in reader:
                where = f"{file.name}:{number}"
                # R's `write.table` numbers the rows and gives these numbers no name.
                if first and len(cells) == len(header) + 1 and cells[0] == "1":
                    header = ["", *header]
                first = first and not cells
                if len(cells) == len(header):
                    yield where, dict(zip(header, cells, strict=True))
                elif cells:
                    yield where, f"has {len(cells)} columns, the header has {len(header)}"
                number = reader.line_num + 1 + skipped
        except csv.Error as error:
            raise ValueError(f"{file.name}:{number} cannot be read: {error}") from None


def _swallowed(file: DataFile, layout: Layout) -> Iterator[str]:
    """A remark on rows that a quote without an end took in, as far as the next one, if any did.

    Their lines are told from those of a text: each, cut by itself, has as many cells as the row
    has, and in some column all have values that rows of one line have there, as labels are.
    """
    with file.text() as lines:  # a cell of several lines begins with an odd number of quotes
        if layout.quotes == "none" or not any(line.count('"') % 2 for line in lines):
            return
    known: dict[int, set[str]] = {}
    several: list[tuple[int, list[list[str]]]] = []
    raw: list[str] = []
    with file.text() as lines:
        number = 1 + _skip_excel(lines)
        try:
            for cells in layout.rows(_recorded(lines, raw)):
                if len(raw) == 1:
                    for i, cell in enumerate(cells):
                        if len(own := known.setdefault(i, set())) < MOST_KNOWN:
                            own.add(cell.strip())
                else:
                    cut = [[c.strip(' "\r\n') for c in one.split(layout.separator)] for one in raw]
                    if len(cells) > 1 and {*map(len, cut)} == {len(cells)}:
                        several.append((number, cut))
                number += len(raw)
                raw.clear()
        except csv.Error:  # which is told where the rows are read
            return
    places = [
        (where, len(cut))
        for where, cut in several
        if any(
            all(one) and known.get(i, set()) >= {*one}
            for i, one in enumerate(zip(*cut, strict=True))
        )
    ]
    if places:
        where, n_lines = places[0]
        n_more = len(places) - 1
        more = f", and so {'is' if n_more == 1 else 'are'} {counted(n_more, 'other row')}"
        yield (
            f"{file.name}:{where} is one row of {n_lines} lines that each look like a row"
            f"{more if n_more else ''}: if a quote lacks its end there, mend the file"
        )


def _layout(file: DataFile, columns: Collection[str]) -> Layout:
    """How the file is cut, by looking at it."""
    usual = USUAL[file.suffix]
    with file.text() as lines:
        given = _excel_separator(lines.readline())
        if not given:
            lines.seek(0)
        header = next((line for line in lines if line.strip()), "")
    separator = given or _separator(header, usual, columns)
    remarks = []
    if separator != usual:
        remarks.append(f"{file.name} is separated by {SEPARATORS.get(separator, repr(separator))}")
    if file.suffix == ".csv" and separator != "\t":
        return Layout(separator, _csv_quotes(file, separator), tuple(remarks))
    quotes, remark = _quotes(file, separator)
    return Layout(separator, quotes, (*remarks, *([remark] if remark else [])))


def _separator(header: str, usual: str, columns: Collection[str]) -> str:
    """That by which the header has most of the columns, or else most cells."""

    def merit(separator: str) -> tuple[int, bool, int]:
        try:
            cells = next(csv.reader([header], delimiter=separator), [])
        except csv.Error:
            cells = []
        known = len(set(columns) & set(cells))
        return known, separator == usual and len(cells) > 1, len(cells)

    return max((usual, *(one for one in SEPARATORS if one != usual)), key=merit)


def _quotes(file: DataFile, separator: str) -> tuple[str, str]:
    """What quotes mean, and a sentence where there are some."""
    with file.text() as lines:
        if not any('"' in line for line in lines):
            return "none", ""
    for quotes in ("doubled", "escaped"):
        broken = _not_as_written(file, Layout(separator, quotes))
        if broken is None:
            return quotes, f"quotes in {file.name} group a cell, as a program wrote them"
        if not _begins_quoted(file, separator):
            return "none", f"quotes in {file.name} are text, such as on line {broken}"
    return "none", f"quotes in {file.name} are text, such as on line {broken}"


def _not_as_written(file: DataFile, layout: Layout) -> int | None:
    """The first line that no program would have written so; None where all could be.

    A header in quotes is enough: programs put all texts in quotes, or those that need it.
    """
    all_texts = _begins_quoted(file, layout.separator)
    alive = [layout.separator + also for also in WRITTEN]
    raw: list[str] = []
    with file.text() as lines:
        skipped = _skip_excel(lines)
        reader = layout.rows(_recorded(lines, raw))
        number = 1 + skipped
        try:
            for cells in reader:
                text = "".join(raw).rstrip("\r\n")
                raw.clear()
                alive = [special for special in alive if text == _as_written(cells, special)]
                if not alive and not all_texts:
                    return number
                number = reader.line_num + 1 + skipped
        except csv.Error:
            return number
    return None


def _as_written(cells: Sequence[str], special: str) -> str:
    """Cells as a program writes them that quotes those with a special character or a quote."""
    needs = re.compile(f'["{re.escape(special)}]')
    quoted = (f'"{c.replace(chr(34), chr(34) * 2)}"' if needs.search(c) else c for c in cells)
    return special[0].join(quoted)


def _begins_quoted(file: DataFile, separator: str) -> bool:
    """Whether all names of the header stand in quotes."""
    with file.text() as lines:
        _skip_excel(lines)
        header = next((line for line in lines if line.strip()), "").rstrip("\r\n")
    return all(re.fullmatch(r'"[^"]*"', cell) for cell in header.split(separator))


def _csv_quotes(file: DataFile, separator: str) -> str:
    r"""How a `.csv` that has \" in it escapes it, where it can be read in that way alone."""
    with file.text() as lines:
        if not any('\\"' in line for line in lines):
            return "doubled"
    with file.text() as lines:  # R escapes quotes alone; Python and MySQL backslashes too
        alike = all(re.fullmatch(r'[^\\]*(\\["\\][^\\]*)*', line) for line in lines)
    for quotes in ("doubled", *(["escaped alike"] if alike else []), "escaped"):
        try:
            with file.text() as lines:
                _skip_excel(lines)
                sizes = {len(cells) for cells in Layout(separator, quotes).rows(lines) if cells}
        except csv.Error:
            continue
        if len(sizes) == 1:
            return quotes
    return "doubled"


def _unescaped(found: re.Match[str]) -> str:
    return '""' if found[1] == '"' else found[1]


def _recorded(lines: Iterable[str], raw: list[str]) -> Iterator[str]:
    for line in lines:
        raw.append(line)
        yield line


def _skip_excel(lines: TextIO) -> int:
    """Pass over the line `sep=;` of Excel; the number of lines passed."""
    if _excel_separator(lines.readline()):
        return 1
    lines.seek(0)
    return 0


def _excel_separator(line: str) -> str:
    """The separator that a first line such as `sep=;` names, or ""."""
    found = re.fullmatch(r"sep=(.)\s*", line.removeprefix("\ufeff"), re.IGNORECASE)
    return found[1] if found else ""
