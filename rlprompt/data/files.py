"""Rows of `.csv`, `.tsv`, `.jsonl` and `.parquet` files, each with where it stands.

Files are read in pieces, never whole. Quotes in a `.tsv` file are text, as in the usual few-shot
files. Empty lines are no rows.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
# Characters that one cell of a `.csv` or `.tsv` file may have. The limit ends the search for a
# closing quote that is not there.
MAX_CELL = 1 << 24
BATCH = 1024  # rows of a columnar file that are held at a time

TextRow = dict[str, str] | str
"""The columns of a row, or what is wrong with it, such as `is no JSON object`."""


@dataclass(frozen=True)
class RowTable:
    """Rows of one file, list or split.

    Attributes:
        name: What messages call it.
        rows: Where each row stands, such as `train.csv:7`, and the row; read once.
        uniform: Whether all rows have the same columns.
    """

    name: str
    rows: Iterable[tuple[str, TextRow]]
    uniform: bool


def read_table(path: Path, columns: Collection[str] = ()) -> RowTable:
    """The rows of a file.

    Args:
        path: The file.
        columns: Those of a `.parquet` file to read; all of them where one of these is missing.

    Raises:
        ValueError: The file has another suffix, is not UTF-8, has a column twice, or cannot be
            cut into rows; partly while its rows are read.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} does not end in {', '.join(SUFFIXES)}")
    if path.suffix == ".parquet":
        return RowTable(path.name, _parquet_rows(path, columns), uniform=True)
    _check_encoding(path)
    if path.suffix == ".jsonl":
        return RowTable(path.name, _json_rows(path), uniform=False)
    return RowTable(path.name, _table_rows(path), uniform=True)


def text_row(values: Mapping[str, Any]) -> TextRow:
    """Values of any type as texts: nothing for None, JSON for what is not text.

    >>> text_row({"text": "a", "label": 1, "note": None, "words": ["b"]})
    {'text': 'a', 'label': '1', 'note': '', 'words': '["b"]'}
    """
    row = {}
    for name, value in values.items():
        if isinstance(value, str):
            row[name] = value
        elif isinstance(value, bytes):
            return f"has bytes, not text, in {name!r}"
        elif isinstance(value, bool | int | float | list | tuple | dict):
            row[name] = json.dumps(value, default=str)
        else:
            row[name] = "" if value is None else str(value)
    return row


def _check_encoding(path: Path) -> None:
    """Refuse text that is not UTF-8, by its line."""
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                line.decode("utf-8")
                if number == 1 and b"\0" in line:
                    raise ValueError(
                        f"{path.name}:1 has NUL bytes, as UTF-16 has; convert it to UTF-8"
                    )
    except UnicodeDecodeError as error:
        utf_16 = number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        reason = "it is UTF-16" if utf_16 else error.reason
        raise ValueError(f"{path.name}:{number} is not UTF-8 ({reason}); convert it") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def _json_rows(path: Path) -> Iterator[tuple[str, TextRow]]:
    # Only "\n" ends a line: JSON strings may hold other separators of lines as they are.
    with path.open(encoding="utf-8-sig", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{path.name}:{number}", _json_row(line.removesuffix("\n"))


class _RepeatedKeyError(ValueError):
    """A JSON object has a key twice, of which a plain `dict` would keep the last."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(next(key for key in keys if keys.count(key) > 1))
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _json_row(line: str) -> TextRow:
    try:
        row = _DECODER.decode(line)
    except json.JSONDecodeError as error:
        return f"is no JSON: {error.msg}"
    except _RepeatedKeyError as error:
        return f"has the key {str(error)!r} twice"
    except (ValueError, RecursionError):  # a number of too many digits, or [[[[...
        return "is JSON that cannot be read: a number or a nesting without end"
    return text_row(row) if isinstance(row, dict) else "is no JSON object"


def _table_rows(path: Path) -> Iterator[tuple[str, TextRow]]:
    tabs = path.suffix == ".tsv"  # where quotes are text, as in the 16-shot files
    csv.field_size_limit(MAX_CELL)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(
            file,
            delimiter="\t" if tabs else ",",
            quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
            strict=True,
        )
        number = 1  # of the line that a row starts on; a quoted text may have line breaks
        try:
            header = next(filter(None, reader), [])
            _check_names(header, path)
            number = reader.line_num + 1
            for cells in reader:
                where = f"{path.name}:{number}"
                if len(cells) == len(header):
                    yield where, dict(zip(header, cells, strict=True))
                elif cells:
                    yield where, f"has {len(cells)} columns, the header has {len(header)}"
                number = reader.line_num + 1
        except csv.Error as error:
            raise ValueError(f"{path.name}:{number} cannot be read: {error}") from None


def _check_names(names: Sequence[str], path: Path) -> None:
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ValueError(f"{path.name} has two columns {twice[0]!r}")


def _parquet_rows(path: Path, columns: Collection[str]) -> Iterator[tuple[str, TextRow]]:
    """Rows are counted from 1: there are no lines."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError(
            f"{path.name} needs pyarrow to be read: pip install 'rlprompt[parquet]'"
        ) from None
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_names(names, path)
            chosen = list(columns) if set(columns) <= set(names) else names
            number = 1
            for batch in file.iter_batches(BATCH, columns=chosen or names):
                for values in batch.to_pylist():
                    yield f"{path.name}:{number}", text_row(values)
                    number += 1
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path.name} cannot be read as Parquet: {reason}") from None
