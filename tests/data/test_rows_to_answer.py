"""Labels of rows that are answered: which are classes, which are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlprompt.data.examples import Columns
from rlprompt.data.rows_to_answer import RowReader, Rows

WANTED = Columns({"text": "text"}, "label", {"NA": "missing"})
CLASSES = ("None", "Favor", "nan", "missing")


def class_of(
    label: Any, classes: tuple[str, ...] = CLASSES, wanted: Columns = WANTED
) -> str | None:
    rows = Rows.of_memory([{"text": "it", "label": label}])
    reader, table = RowReader(rows, wanted, classes), rows.table()
    ((_, row),) = table.rows
    assert isinstance(row, dict)
    return reader.class_of(row, table)


def test_a_class_may_be_called_as_what_is_missing() -> None:
    labels = ("None", " nan", "Favor", "NA")
    assert [class_of(label) for label in labels] == ["None", "nan", "Favor", "missing"]


@pytest.mark.parametrize("label", ["NaN", "<NA>", "NaT", "", " ", None, float("nan")])
def test_else_it_is_no_label(label: Any) -> None:
    assert class_of(label) is None
    with pytest.raises(ValueError, match="the unknown label 'none'"):
        class_of("none")


def test_a_column_that_the_first_row_lacks_is_there(tmp_path: Path) -> None:
    lines = ['{"text": "a"}', '{"text": "b", "label": "Favor"}', "[]", '{"id": 3, "text": "c"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    rows = Rows.of_file(tmp_path / "a.jsonl")
    assert rows.columns == ("text", "label", "id")
    reader, table = RowReader(rows, WANTED, CLASSES), rows.table()
    read = [row for _, row in table.rows if isinstance(row, dict)]
    assert reader.label == "label"
    assert [reader.class_of(row, table) for row in read] == [None, "Favor", None]
