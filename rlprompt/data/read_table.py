"""Rows of files of any kind, each with where it stands: tables as text, JSON, Parquet.

Files are read in pieces, but for `.json`. Empty lines are no rows.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlprompt.data.delimited import check_names, delimited_table
from rlprompt.data.opening import DataFile
from rlprompt.data.row_table import RowTable, TableRow

BATCH = 1024  # rows of a columnar file that are held at a time


def read_table(
    path: Path, columns: Collection[str] = (), optional: Collection[str] = ()
) -> RowTable:
    """The rows of a file.

    Args:
        path: The file.
        columns: Those of a `.parquet` file to read; all of them where one of these is missing.
        optional: Others to read where they are there.

    Raises:
        ValueError: The file has another ending, is no text, has a column twice, or cannot be cut
            into rows; partly while its rows are read.
    """
    file = DataFile(path)
    if file.suffix == ".parquet":
        return _parquet_table(file, columns, optional)
    file.encoding  # noqa: B018  # which is looked at before anything is read
    if file.suffix == ".jsonl":
        return RowTable(file.name, _json_lines(file), uniform=False)
    if file.suffix == ".json":
        return RowTable(file.name, _json_rows(file), uniform=False)
    return delimited_table(file, columns)


def chosen_columns(
    names: Sequence[str], columns: Collection[str], optional: Collection[str]
) -> list[str]:
    """Those to read: the ones asked for, or all where one of them is missing."""
    if not columns or not set(columns) <= set(names):
        return list(names)
    return [*columns, *(name for name in optional if name in names and name not in columns)]


class _RepeatedKeyError(ValueError):
    """A JSON object has a key twice, of which a plain `dict` would keep the last."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(next(key for key in keys if keys.count(key) > 1))
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _json_lines(file: DataFile) -> Iterator[tuple[str, TableRow]]:
    # Only "\n" ends a line: JSON strings may hold other separators of lines as they are.
    with file.text(newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{file.name}:{number}", _json_row(line.removesuffix("\n"))


def _json_row(line: str) -> TableRow:
    value, fault = _decoded(line)
    return fault or _row(value)


def _row(value: Any) -> TableRow:
    return value if isinstance(value, dict) else "is no JSON object"


def _decoded(text: str) -> tuple[Any, str]:
    """The value of JSON, and what is wrong with it."""
    try:
        return _DECODER.decode(text), ""
    except json.JSONDecodeError as error:
        return None, f"is no JSON: {error.msg}"
    except _RepeatedKeyError as error:
        return None, f"has the key {str(error)!r} twice"
    except (ValueError, RecursionError):  # a number of too many digits, or [[[[...
        return None, "is JSON that cannot be read: a number or a nesting without end"


def _json_rows(file: DataFile) -> Iterator[tuple[str, TableRow]]:
    """A list of objects, counted from 1; columns, as pandas writes them; or a line an object."""
    with file.text() as text:
        content = text.read()
    value, fault = _decoded(content)
    rows = None if fault else _listed(value, file.name)
    if rows is None:
        lines = [line for line in content.split("\n") if line.strip()]
        if len(lines) > 1 and isinstance(_decoded(lines[0])[0], dict):
            yield from _json_lines(file)
            return
        raise ValueError(
            f"{file.name} {fault or 'is no list of rows'}; give a list of objects, or an object "
            "a line"
        )
    for number, row in enumerate(rows, 1):
        yield f"{file.name}:{number}", row


def _listed(value: Any, name: str) -> list[TableRow] | None:
    """The rows that a whole file of JSON holds; None where it holds no table.

    Raises:
        ValueError: It has a column twice, or columns of objects, as pandas writes them, which name
            other rows.
    """
    if isinstance(value, list):
        return list(map(_row, value))
    if not isinstance(value, dict) or not value:
        return None
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        header = list(map(str, value["columns"]))
        check_names(header, name)
        return [_beside(header, row) for row in value["data"]]
    lists = [part for part in value.values() if isinstance(part, list)]
    if len(lists) == 1 and lists[0] and isinstance(lists[0][0], dict):
        return list(map(_row, lists[0]))  # such as {"data": [{...}, ...]}
    if all(isinstance(part, dict) for part in value.values()):
        return _joined(value, name)
    sizes = {len(part) if isinstance(part, list) else None for part in value.values()}
    if len(sizes) != 1 or None in sizes:
        # One object in a file is one row.
        return None if any(isinstance(part, dict | list) for part in value.values()) else [value]
    return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]


def _beside(header: Sequence[str], value: Any) -> TableRow:
    """A row of a file that names its columns once; one may be an object all the same."""
    if not isinstance(value, list):
        return _row(value)
    if len(value) != len(header):
        return f"has {len(value)} columns, the header has {len(header)}"
    return dict(zip(header, value, strict=True))


def _joined(columns: Mapping[str, Mapping[str, Any]], name: str) -> list[TableRow]:
    """Rows of columns that have their values by the name of the row, in the order of the first.

    Raises:
        ValueError: A row is not in all of them.
    """
    (first, rows), *others = columns.items()
    for other, own in others:
        if unlike := sorted(rows.keys() ^ own.keys()):
            raise ValueError(
                f"{name} has the row {unlike[0]!r} in one of the columns {first!r} and {other!r} "
                "alone; give each row a value in all columns, or a list of objects"
            )
    return [{column: own[row] for column, own in columns.items()} for row in rows]


def _parquet_table(file: DataFile, columns: Collection[str], optional: Collection[str]) -> RowTable:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError(
            f"{file.name} needs pyarrow to be read: pip install 'rlprompt[parquet]'"
        ) from None

    def failed(error: Exception) -> ValueError:
        return ValueError(f"{file.name} cannot be read as Parquet: {str(error).splitlines()[0]}")

    try:
        with file.bytes() as content, pq.ParquetFile(content) as table:
            schema = table.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise failed(error) from None
    check_names(schema.names, file.name)
    chosen = chosen_columns(schema.names, columns, optional)

    def rows() -> Iterator[tuple[str, TableRow]]:
        number = 1  # there are no lines
        try:
            with file.bytes() as content, pq.ParquetFile(content) as table:
                for batch in table.iter_batches(BATCH, columns=chosen):
                    for values in batch.to_pylist():
                        yield f"{file.name}:{number}", values
                        number += 1
        except (pa.ArrowException, OSError) as error:
            raise failed(error) from None

    return RowTable(file.name, rows(), uniform=True, names=_class_names(schema.metadata))


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """The names that `datasets` wrote for the numbers in a column."""
    written = (metadata or {}).get(b"huggingface")
    info = (_decoded(written.decode())[0] or {}) if written else {}
    features = info.get("info", {}).get("features", {})
    return {
        column: feature["names"]
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }
