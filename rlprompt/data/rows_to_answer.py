"""Rows that are to be answered: any file or table, read again and again, with labels or without."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlprompt.data.examples import Columns
from rlprompt.data.frames import memory_table
from rlprompt.data.labels import LabelReader, names_in_header
from rlprompt.data.opening import ENDINGS, DataFile, near_file
from rlprompt.data.read_table import read_table
from rlprompt.data.row_table import RowTable, TableRow
from rlprompt.data.row_to_example import TEXT_COLUMNS, ExampleReader, no_column
from rlprompt.data.values import is_marker, text_of


@dataclass(frozen=True)
class Rows:
    """Rows that can be read more than once; none is kept.

    Attributes:
        name: What messages call them.
        columns: Those that any row has, in the order in which they first come.
        table: Begins to read them.
    """

    name: str
    columns: tuple[str, ...]
    table: Callable[[], RowTable]

    @classmethod
    def of_file(cls, path: Path, wanted: Collection[str] = ()) -> Rows:
        """The rows of a file.

        Args:
            path: The file, of any kind that examples are read from.
            wanted: Columns that it may have, by which the separator of a table is told.

        Raises:
            ValueError: It does not exist, is no data, or has no rows.
        """
        # Of Parquet naming some would leave the others out.
        looked_for = () if data_file(path).suffix == ".parquet" else tuple(wanted)
        return cls._of(lambda: read_table(path, looked_for))

    @classmethod
    def of_memory(cls, source: Any) -> Rows:
        """The rows of a list of mappings, or of a frame.

        Raises:
            ValueError: It is neither, or has no rows.
        """

        def table() -> RowTable:
            found = memory_table("rows", source, (), (), None)
            if found is None:
                raise ValueError(
                    f"rows are a {type(source).__name__}; give a list of texts or of mappings, or "
                    "a frame of pandas, polars, pyarrow or datasets"
                )
            return found

        return cls._of(table)

    @classmethod
    def _of(cls, table: Callable[[], RowTable]) -> Rows:
        opened, problem = table(), ""
        columns: dict[str, None] = {}
        for where, row in opened.rows:
            if isinstance(row, str):
                problem = problem or f"{where} {row}"
                continue
            columns |= dict.fromkeys(row)
            if opened.uniform:
                break
        if not columns:
            raise ValueError(problem or f"{opened.name} has no rows; give some to answer")
        return cls(opened.name, tuple(columns), table)


class RowReader:
    """Reads a template's texts, and the class where there is a label, out of rows.

    Args:
        rows: The rows.
        wanted: The columns that such texts were once read from; a column that is not there may go
            by the name of its field.
        classes: The classes there are; none where answers are written.

    Attributes:
        text: Field to column, of these rows.
        label: Column of the label, or None.

    Raises:
        ValueError: There is no column for a field.
    """

    def __init__(self, rows: Rows, wanted: Columns, classes: Sequence[str] = ()) -> None:
        self.text = _text_columns(rows, wanted.text)
        self._texts = ExampleReader(self.text, None, None, "error", "error")
        self._labels = LabelReader(list(classes), wanted.aliases, wanted.numbered)
        self._names: Mapping[str, Sequence[str]] = {}
        self.label = wanted.label if classes and wanted.label in rows.columns else None
        if classes and wanted.label and self.label is None:
            self.label, names = names_in_header(rows.columns, wanted.label) or (None, [])
            self._names = {self.label: names} if self.label else {}

    def fields(self, row: TableRow, table: RowTable, where: str) -> Mapping[str, str]:
        """The texts of a row.

        Raises:
            ValueError: It has none, by its place.
        """
        if isinstance(row, str):
            raise ValueError(f"{where} {row}")
        if missing := [column for column in self.text.values() if column not in row]:
            raise ValueError(f"{where} has {no_column(missing[0], row)}")
        try:
            return self._texts.example(row, table, where).fields
        except ValueError as error:
            raise ValueError(f"{where} has {error}") from None

    def class_of(self, row: Mapping[str, Any], table: RowTable) -> str | None:
        """The class of a row; None where it has no label.

        A mark of a missing value, such as `NA`, is a label where a class goes by it.

        Raises:
            ValueError: Its label is none of the classes.
        """
        if self.label is None:
            return None
        try:
            shown = text_of(row.get(self.label))
            if not shown.strip():
                return None
            named = replace(table, rows=(), names={**table.names, **self._names})
            try:
                return self._labels.read(row, self.label, named)[0]
            except ValueError:
                if is_marker(shown):
                    return None
                raise
        except TypeError as error:
            raise ValueError(f"{error} in {self.label!r}") from None


def _text_columns(rows: Rows, wanted: Mapping[str, str]) -> dict[str, str]:
    """The column of each field: that of the same name as once, or of the field's."""
    found = {}
    for field, column in wanted.items():
        alike = TEXT_COLUMNS if len(wanted) == 1 and column in TEXT_COLUMNS else ()
        there = [name for name in (column, field, *alike) if name in rows.columns]
        if not there:
            raise ValueError(f"{rows.name} has {no_column(column, rows.columns)}")
        found[field] = there[0]
    return found


def data_file(path: Path) -> DataFile:
    """A file of rows.

    Raises:
        ValueError: It does not exist, or is no data.
    """
    if path.is_file():
        return DataFile(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a file that ends in {ENDINGS}")
    raise ValueError(f"{path} does not exist{near_file(path)}; give a file that ends in {ENDINGS}")
