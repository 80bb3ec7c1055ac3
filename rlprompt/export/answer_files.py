"""Rows with their answers as CSV, JSON lines or Parquet, written as they come.

A file has its name when it is whole. Columns of a row are strings, numbers, lists, whatever its
data had: in CSV all of them are texts.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rlprompt._utils.csv_rows import csv_writer
from rlprompt._utils.files import written_beside
from rlprompt.data.values import EXACT, plain, text_of

ENDINGS = (".csv", ".jsonl", ".parquet")

Row = Mapping[str, Any]
Write = Callable[[Sequence[Row]], None]


class AnswerFile:
    """A file for rows, or standard output, which gets CSV.

    Args:
        out: Where to; its ending says what is written. None for standard output.
        force: Whether a file that is there is replaced.

    Raises:
        ValueError: It has another ending, cannot be made, is there, or needs a package.
    """

    def __init__(self, out: Path | None, force: bool = False) -> None:
        self.out = out
        self.suffix = ".csv" if out is None else out.suffix.lower()
        # Column to a type of pyarrow, or None where its values have none in common.
        self._types: dict[str, Any] = {}
        # Columns of whole numbers that no float is.
        self._wide: set[str] = set()
        if out is None:
            return
        if self.suffix not in ENDINGS:
            raise ValueError(f"{out} does not end in {', '.join(ENDINGS)}; which is to be written?")
        if out.is_dir() or not out.parent.is_dir():
            raise ValueError(f"{out} cannot be written: give a file in a folder that is there")
        if out.exists() and not force:
            raise ValueError(f"{out} exists; give another name, or --force to replace it")
        if self.suffix == ".parquet":
            _check_pyarrow(out)

    def look(self, rows: Sequence[Row]) -> None:
        """See what the columns hold before anything is written: all rows, so many at a time."""
        names = dict.fromkeys(name for row in rows for name in row)
        if self.suffix != ".parquet":
            self._types |= names
            return
        for name in names:
            values = [plain(row.get(name)) for row in rows]
            if any(isinstance(value, int) and abs(value) > EXACT for value in values):
                self._wide.add(name)
            found = _common(values)
            united = _united(self._types.get(name, found), found)
            # A float is not each whole number that is as long as many an id.
            self._types[name] = None if name in self._wide and united == "double" else united

    @property
    def columns(self) -> list[str]:
        """Those of the rows that were looked at."""
        return list(self._types)

    @contextmanager
    def writing(self, added: Mapping[str, type]) -> Iterator[Write]:
        """What writes rows that have columns of ours after those that were looked at.

        Args:
            added: Columns of ours, with the type of what is in them, `str` or `float`.
        """
        if self.out is None:
            yield self._csv(sys.stdout, [*self.columns, *added])
            return
        with written_beside(self.out) as part, self._opened(part, added) as write:
            yield write

    @contextmanager
    def _opened(self, part: Path, added: Mapping[str, type]) -> Iterator[Write]:
        if self.suffix == ".parquet":
            with self._parquet(part, added) as write:
                yield write
            return
        # Half a surrogate pair is no UTF-8; as an escape it is good JSON.
        with part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            if self.suffix == ".csv":
                yield self._csv(file, [*self.columns, *added])
            else:
                yield lambda rows: file.writelines(map(_json_line, rows))

    def _csv(self, file: TextIO, columns: Sequence[str]) -> Write:
        write_row = csv_writer(file)
        write_row(columns)

        def write(rows: Sequence[Row]) -> None:
            for row in rows:
                write_row(_text(row.get(name)) for name in columns)
            file.flush()

        return write

    @contextmanager
    def _parquet(self, part: Path, added: Mapping[str, type]) -> Iterator[Write]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = dict(self._types)
        types |= {name: pa.float64() if kind is float else None for name, kind in added.items()}
        schema = pa.schema([(name, kind or pa.string()) for name, kind in types.items()])

        def shown(row: Row, name: str) -> Any:
            value = plain(row.get(name))
            return value if types[name] is not None or value is None else _text(value)

        with pq.ParquetWriter(part, schema) as writer:

            def write(rows: Sequence[Row]) -> None:
                values = {name: [shown(row, name) for row in rows] for name in types}
                writer.write_table(pa.table(values, schema=schema))

            yield write


def _check_pyarrow(out: Path) -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise ValueError(f"{out.name} needs pyarrow to be written: pip install 'rlprompt[parquet]'")


def _common(values: Sequence[Any]) -> Any:
    """The type that values have in common, of pyarrow; None where there is none."""
    import pyarrow as pa

    try:
        return pa.array(values).type
    except (pa.ArrowException, OverflowError):
        return None


def _united(first: Any, second: Any) -> Any:
    """The type that holds what both do; None where there is none."""
    import pyarrow as pa

    if first is None or second is None or first == second:
        return first if first == second else None
    try:
        both = [pa.schema([("x", one)]) for one in (first, second)]
        return pa.unify_schemas(both, promote_options="permissive").field("x").type
    except pa.ArrowException:
        return None


def _json_line(row: Row) -> str:
    values = {name: plain(value) for name, value in row.items()}
    return json.dumps(values, ensure_ascii=False, default=str) + "\n"


def _text(value: Any) -> str:
    """A value as the text of a cell, a float as one."""
    value = plain(value)
    if isinstance(value, float):
        return json.dumps(value)
    return str(value) if isinstance(value, bytes) else text_of(value)
