"""A value that is not there is missing in every kind of data, and never a text."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlprompt.data.examples import Example
from rlprompt.data.load import load_splits

CLASSES = ("bad", "good")
ROWS: list[dict[str, Any]] = [{"text": f"t {i}", "label": CLASSES[i % 2]} for i in range(12)]
MARKERS = ("NaN", "nan", "NA", "<NA>", "NaT", "None", "NULL", "null", "N/A", "#N/A")


MISSING = (None, float("nan"), np.float32("nan"), np.datetime64("NaT"), *MARKERS)


@pytest.mark.parametrize("value", MISSING, ids=repr)
class TestMemory:
    def test_a_text_is_refused_or_left_out(self, value: Any) -> None:
        table = [*ROWS, {"text": value, "label": "good"}]
        with pytest.raises(ValueError, match=r"examples\[12\] has (an empty|no) text"):
            load_splits(table, CLASSES, shots=1)
        splits = load_splits(table, CLASSES, shots=1, on_bad_rows="skip")
        assert sum(map(len, splits.parts().values())) == 12

    def test_an_answer_is_refused(self, value: Any) -> None:
        table = [{"text": f"t {i}", "answer": "yes"} for i in range(6)]
        rows: list[dict[str, Any]] = [*table, {"text": "x", "answer": value}]
        with pytest.raises(ValueError, match=r"examples\[6\] has (an empty|no) answer"):
            load_splits(rows, None, label="answer", shots=1)

    def test_a_class_is_refused(self, value: Any) -> None:
        with pytest.raises(ValueError, match=r"examples\[12\] has the unknown label"):
            load_splits([*ROWS, {"text": "x", "label": value}], CLASSES, shots=1)


@pytest.mark.parametrize("marker", MARKERS)
def test_what_other_programs_write_into_files_is_missing(tmp_path: Path, marker: str) -> None:
    lines = [f"{row['text']},{row['label']}" for row in ROWS]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["text,label", *lines, f"{marker},good"]))
    with pytest.raises(ValueError, match=rf"a.csv:14 has no text: '{marker}' stands for a value"):
        load_splits(str(path), CLASSES, shots=1)


def test_a_class_may_be_called_so() -> None:
    for names in (("None", "NA"), ("null", "N/A")):
        rows = [{"text": f"t {i}", "label": names[i % 2]} for i in range(6)]
        assert len(load_splits(rows, names, shots=1).test) == 2


def test_a_text_that_cannot_be_seen_is_empty() -> None:
    with pytest.raises(ValueError, match=r"examples\[0\] has an empty text"):
        load_splits([{"text": " \u200b\ufeff", "label": "bad"}, *ROWS], CLASSES, shots=1)


def test_nan_in_json_and_parquet(tmp_path: Path) -> None:
    rows = [*ROWS, {"text": float("nan"), "label": "good"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pq.write_table(
        pa.table({"text": [*(row["text"] for row in ROWS), None], "label": ["bad"] * 13}),
        tmp_path / "a.parquet",
    )
    for name in ("a.jsonl", "a.parquet"):
        with pytest.raises(ValueError, match=rf"{name}:13 has an empty text"):
            load_splits(str(tmp_path / name), CLASSES, shots=1)


class TestFrames:
    def test_pandas(self) -> None:
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(ROWS, index=range(100, 112))
        assert load_splits(frame, CLASSES, shots=2) == load_splits(ROWS, CLASSES, shots=2)
        for value in (pandas.NA, pandas.NaT, None, float("nan")):
            holes = pandas.DataFrame([{"text": value, "label": "good"}, *ROWS])
            with pytest.raises(ValueError, match=r"examples\[0\] has an empty text"):
                load_splits(holes, CLASSES, shots=2)
        parts = {"train": frame[:4], "dev": frame[4:8], "test": frame[8:]}
        splits = load_splits(parts, CLASSES)
        assert [len(part) for part in splits.parts().values()] == [4, 4, 4]
        assert splits.dev[0].source == "dev[0]"

    @pytest.mark.parametrize("kind", ["int", "float", "boolean", "Int64", "category", "string"])
    def test_labels_of_pandas(self, kind: str) -> None:
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame({"text": [f"t {i}" for i in range(12)], "label": [0, 1] * 6})
        frame["label"] = frame["label"].astype(kind)
        splits = load_splits(frame, [0, 1], shots=2)
        numbers = {(int(e.fields["text"][2:]) % 2, e.label) for e in splits.train}
        assert numbers == {(0, "0"), (1, "1")}

    def test_anything_with_the_methods_of_polars(self) -> None:
        class Frame:
            """A stand-in, as polars is not installed."""

            columns = ("text", "label")

            def iter_rows(self, *, named: bool) -> Iterator[dict[str, Any]]:
                assert named
                return iter(ROWS)

        assert load_splits(Frame(), CLASSES, shots=2) == load_splits(ROWS, CLASSES, shots=2)

    def test_arrow(self) -> None:
        table = pa.Table.from_pylist(ROWS)
        assert load_splits(table, CLASSES, shots=2) == load_splits(ROWS, CLASSES, shots=2)

    def test_datasets(self) -> None:
        datasets = pytest.importorskip("datasets")
        part = datasets.Dataset.from_list(ROWS)
        assert load_splits(part, CLASSES, shots=2) == load_splits(ROWS, CLASSES, shots=2)
        more = datasets.Dataset.from_list([{"text": "new", "label": "bad"}])
        both = load_splits(datasets.DatasetDict(train=part, test=more), CLASSES, shots=2)
        assert [len(p) for p in both.parts().values()] == [4, 4, 1]

    def test_streams_of_datasets_that_name_their_columns(self) -> None:
        datasets = pytest.importorskip("datasets")
        stream = datasets.Dataset.from_list(ROWS).to_iterable_dataset()
        assert load_splits(stream, CLASSES, shots=2) == load_splits(ROWS, CLASSES, shots=2)
        new = [{"text": "new", "label": "bad"}]
        more = datasets.Dataset.from_list(new).to_iterable_dataset()
        given = datasets.IterableDatasetDict(train=stream, test=more)
        wanted = datasets.DatasetDict(
            train=datasets.Dataset.from_list(ROWS), test=datasets.Dataset.from_list(new)
        )
        assert load_splits(given, CLASSES, shots=2) == load_splits(wanted, CLASSES, shots=2)

    @pytest.mark.parametrize("split", [True, False])
    def test_one_that_does_not_is_refused(self, split: bool) -> None:
        datasets = pytest.importorskip("datasets")
        stream = datasets.IterableDataset.from_generator(lambda: iter(ROWS))
        data = datasets.IterableDatasetDict(train=stream, test=stream) if split else stream
        with pytest.raises(
            ValueError, match=r"is a stream that does not name its columns .*; read it first, with"
        ):
            load_splits(data, CLASSES)

    @pytest.mark.parametrize("data", [3, datetime.date(2024, 1, 1), b"text"])
    def test_anything_else_is_refused(self, data: Any) -> None:
        with pytest.raises(ValueError, match=r"data is a \w+; give a name, a path, a list"):
            load_splits(data, CLASSES)


class TestSeveralAnswers:
    @pytest.mark.parametrize("kind", ["list", "jsonl", "json", "parquet"])
    def test_they_are_kept_from_every_kind_of_data(self, tmp_path: Path, kind: str) -> None:
        rows = [{"text": f"capital {i}", "label": ["Paris", "paris"]} for i in range(6)]
        path = tmp_path / f"a.{kind}"
        if kind == "jsonl":
            path.write_text("\n".join(map(json.dumps, rows)))
        elif kind == "json":
            path.write_text(json.dumps(rows))
        elif kind == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        splits = load_splits(rows if kind == "list" else str(path), None, shots=1)
        assert {e.references for e in splits.test} == {("Paris", "paris")}
        assert {e.label for e in splits.test} == {"Paris"}

    def test_they_are_part_of_what_is_hashed(self) -> None:
        def digest(answers: Any) -> str:
            rows = [{"text": f"t {i}", "label": answers} for i in range(6)]
            return load_splits(rows, None, shots=1).digest

        assert digest(["Paris"]) == digest("Paris")
        assert len({digest(one) for one in ("Paris", ["Paris", "x"], ["Paris", "y"])}) == 3

    def test_a_list_of_nothing_is_no_answer(self) -> None:
        rows: list[dict[str, Any]] = [{"text": "x", "label": ["", None]}]
        with pytest.raises(ValueError, match=r"examples\[0\] has an empty label"):
            load_splits(rows, None, shots=1)


class TestWholeNumbersBesideAGap:
    """Of which pandas makes floats."""

    COLUMNS: ClassVar[dict[str, Any]] = {"text": ["text", "year"], "label": "answer"}
    ROWS: ClassVar[list[dict[str, Any]]] = [
        {"text": f"t {n}", "year": float(1990 + n), "answer": float(n)} for n in range(40, 49)
    ]

    def read(self, data: Any) -> list[Example]:
        parts = load_splits(data, None, **self.COLUMNS, shots=1, on_bad_rows="skip").parts()
        return [one for part in parts.values() for one in part]

    def check(self, data: Any) -> None:
        found = self.read(data)
        assert len(found) == 9
        for one in found:
            n = int(one.fields["text"][2:])
            assert (one.fields["year"], one.references) == (str(1990 + n), (str(n),))

    def test_they_stay_whole_numbers(self, tmp_path: Path) -> None:
        rows = [*self.ROWS, {"text": "t", "year": 1990.0, "answer": None}]
        self.check(rows)
        (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
        self.check(str(tmp_path / "a.jsonl"))
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
        self.check(str(tmp_path / "a.parquet"))
        self.check([{**row, "answer": [row["answer"]]} for row in rows[:9]])

    def test_of_a_frame(self) -> None:
        pandas = pytest.importorskip("pandas")
        self.check(pandas.DataFrame([*self.ROWS, {"text": "t", "year": 1990, "answer": None}]))

    def test_texts_stay_as_they_are_written_and_a_note_says_so(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        lines = [f"{row['text']},{row['year']},{row['answer']}" for row in self.ROWS]
        path.write_text("\n".join(["text,year,answer", *lines, "t,1990.5,"]))
        found = {one.references for one in self.read(str(path))}
        assert found == {(f"{n}.0",) for n in range(40, 49)}
        read = load_splits(str(path), None, **self.COLUMNS, shots=1, on_bad_rows="skip")
        assert [note for note in read.notes if ".0" in note] == [
            "all numbers in 'answer' end in .0, such as '40.0' (a.csv:2), as pandas writes whole "
            "numbers where a cell is empty: they are taken as they are written"
        ]
