"""Rows of a `.csv`, `.tsv` or `.jsonl` file, each with its line.

Quotes in a `.tsv` file are text, as in the usual few-shot files. Empty lines are no rows.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = (".csv", ".tsv", ".jsonl")

Row = dict[str, str] | str
"""The columns of a row, or what is wrong with it, such as `is no JSON object`."""


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """The line that each row starts on, and the row.

    Raises:
        ValueError: The file has another suffix, is not UTF-8, has a column twice, or cannot be
            cut into rows.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} does not end in {', '.join(SUFFIXES)}")
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path.name}:{number} is not UTF-8 ({error.reason}); convert it"
        ) from None
    return _json_rows(content) if path.suffix == ".jsonl" else _table_rows(content, path)


def _json_rows(content: str) -> Iterator[tuple[int, Row]]:
    # Not splitlines: JSON strings may hold other separators of lines as they are.
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            yield number, f"is no JSON: {error.msg}"
            continue
        if isinstance(row, dict):
            yield number, {name: _json_text(value) for name, value in row.items()}
        else:
            yield number, "is no JSON object"


def _json_text(value: object) -> str:
    """A string as it is, nothing for null, anything else as JSON spells it."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _table_rows(content: str, path: Path) -> Iterator[tuple[int, Row]]:
    tabs = path.suffix == ".tsv"  # where quotes are text, as in the 16-shot files
    reader = csv.reader(
        io.StringIO(content, newline=""),
        delimiter="\t" if tabs else ",",
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
        strict=True,
    )
    csv.field_size_limit(1 << 24)
    number = 1  # of the line that a row starts on; a quoted text may have line breaks
    try:
        header = next(reader, [])
        if twice := [name for i, name in enumerate(header) if name in header[:i]]:
            raise ValueError(f"{path.name} has two columns {twice[0]!r}")
        number = reader.line_num + 1
        for cells in reader:
            if len(cells) == len(header):
                yield number, dict(zip(header, cells, strict=True))
            elif cells:
                yield number, f"has {len(cells)} columns, the header has {len(header)}"
            number = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path.name}:{number} cannot be read: {error}") from None
