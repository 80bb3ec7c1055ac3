"""Tables in memory: lists of rows or examples, and frames of pandas, polars, arrow and datasets.

Frames are known by what they can do, so that none of these libraries is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from rlprompt.data.delimited import check_names
from rlprompt.data.examples import Example
from rlprompt.data.hub import split_table
from rlprompt.data.row_table import RowTable, TableRow

Item = Example | Mapping[str, Any]


@runtime_checkable
class ColumnFrame(Protocol):
    """A frame of pandas or polars."""

    @property
    def columns(self) -> Any:
        """Its columns."""


@runtime_checkable
class NamedColumnFrame(Protocol):
    """A split of `datasets`, or a table of pyarrow."""

    @property
    def column_names(self) -> Any:
        """Names of its columns."""


Frame = ColumnFrame | NamedColumnFrame


def is_split(table: object) -> bool:
    """Whether this is a `datasets.Dataset`, or a stream of such rows."""
    return hasattr(table, "features") and hasattr(table, "select_columns")


def memory_table(
    name: str,
    table: Any,
    columns: tuple[str, ...],
    optional: tuple[str, ...],
    label: str | None,
    options: str | None = None,
) -> RowTable | None:
    """The rows of a list or frame, each named by its index; None for anything else.

    Args:
        name: What messages call it.
        table: The list or frame.
        columns: Those that are needed.
        optional: Others that are looked at where they are there.
        label: Column that the label of an `Example` goes by.
        options: Column that its options go by.

    Raises:
        ValueError: A frame has a column twice.
    """
    if is_split(table):
        return split_table(name, table, columns, optional)
    if isinstance(table, Sequence) and not isinstance(table, str | bytes):
        return RowTable(name, _listed(name, table, label, options), uniform=False)
    rows = _frame_rows(name, table)
    if rows is None:
        return None
    return RowTable(name, ((f"{name}[{i}]", row) for i, row in enumerate(rows)), uniform=True)


def _listed(
    name: str, items: Sequence[Item], label: str | None, options: str | None
) -> Iterator[tuple[str, TableRow]]:
    for i, item in enumerate(items):
        if isinstance(item, Example):
            right = [*item.references] if item.others else item.label
            more = {label: right, options: list(item.options)}
            row = {**item.fields, **{column: v for column, v in more.items() if column}}
            yield item.source or f"{name}[{i}]", row
        elif isinstance(item, Mapping):
            yield f"{name}[{i}]", {str(key): value for key, value in item.items()}
        else:
            yield f"{name}[{i}]", f"is a {type(item).__name__}, no mapping or Example"


def _frame_rows(name: str, table: Any) -> Iterator[dict[str, Any]] | None:
    """The rows of a frame; None where it is none."""
    rows: Iterable[dict[str, Any]]
    if hasattr(table, "to_pylist") and hasattr(table, "column_names"):  # pyarrow
        rows = table.to_pylist()
        return iter(rows)
    if hasattr(table, "iter_rows") and hasattr(table, "columns"):  # polars
        rows = table.iter_rows(named=True)
        return iter(rows)
    if hasattr(table, "itertuples") and hasattr(table, "columns"):  # pandas
        names = [str(column) for column in table.columns]
        check_names(names, name)
        values = table.itertuples(index=False, name=None)
        return (dict(zip(names, row, strict=True)) for row in values)
    return None
