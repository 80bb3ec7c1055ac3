"""Rows of one file, list, data frame or split, each with where it stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TableRow = dict[str, Any] | str
"""The columns of a row, or what is wrong with it, such as `is no JSON object`."""


@dataclass(frozen=True)
class RowTable:
    """Rows of one file, list or split.

    Attributes:
        name: What messages call it.
        rows: Where each row stands, such as `train.csv:7`, and the row; read once.
        uniform: Whether all rows have the same columns.
        names: Column to the names of the numbers 0, 1, ... in it, where the data have some.
        remarks: How it was read, a sentence each, where that is not a matter of course.
    """

    name: str
    rows: Iterable[tuple[str, TableRow]]
    uniform: bool
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
