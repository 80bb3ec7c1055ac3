r"""Rows as CSV that every reader cuts into the same rows: lines end with \n."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from typing import Any, TextIO


def csv_writer(file: TextIO) -> Callable[[Iterable[Any]], None]:
    r"""What writes a row of cells to a file that was opened with `newline=""`.

    >>> import io
    >>> sink = io.StringIO()
    >>> csv_writer(sink)(["one line", "two\rlines"])
    >>> sink.getvalue()
    '"one line","two\rlines"\n'
    """
    minimal = csv.writer(file, lineterminator="\n")
    # Python 3.12 and earlier leave a lone \r bare, at which other readers end the row.
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(cells: Iterable[Any]) -> None:
        row = list(cells)
        broken = any(isinstance(cell, str) and "\r" in cell for cell in row)
        (quoted if broken else minimal).writerow(row)

    return write
