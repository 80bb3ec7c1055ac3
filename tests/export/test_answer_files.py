"""Files of answers, read back by what people read them with."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlprompt.export.answer_files import AnswerFile, Row


def write(out: Path, *batches: list[Row]) -> None:
    file = AnswerFile(out)
    for batch in batches:
        file.look(batch)
    with file.writing({}) as write_rows:
        for batch in batches:
            write_rows(batch)


@pytest.mark.parametrize("broken", ["one\rtwo", "one\ntwo", "one\r\ntwo", 'a "b"\r', "\r"])
def test_csv_has_a_row_a_row_whatever_breaks_the_lines_of_a_cell(
    tmp_path: Path, broken: str
) -> None:
    pandas = pytest.importorskip("pandas")
    write(tmp_path / "x.csv", [{"id": "1", "text": broken}, {"id": "2", "text": "plain"}])
    found = pandas.read_csv(tmp_path / "x.csv", dtype=str)
    assert found["id"].tolist() == ["1", "2"]
    assert found["text"].tolist() == [broken, "plain"]
    assert (tmp_path / "x.csv").read_bytes().endswith(b"\n2,plain\n")


@pytest.mark.parametrize("beside", [0.5, 2**70])
def test_parquet_keeps_long_ids_whatever_is_beside_them(tmp_path: Path, beside: float) -> None:
    pyarrow = pytest.importorskip("pyarrow.parquet")
    batches: list[list[Row]]
    batches = [[{"id": 2**53 + 1, "n": 1}], [{"id": beside, "n": 0.5}], [{"id": None, "n": None}]]
    for i, order in enumerate((batches, batches[::-1])):
        write(tmp_path / f"{i}.parquet", *order)
        found = pyarrow.read_table(tmp_path / f"{i}.parquet").to_pylist()
        assert sorted(found, key=str) == sorted(
            [
                {"id": "9007199254740993", "n": 1.0},
                {"id": str(beside), "n": 0.5},
                {"id": None, "n": None},
            ],
            key=str,
        )
