"""Labels mean what the person meant, whatever their type, spelling or file."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlprompt.data.examples import Example, Splits
from rlprompt.data.load import load_splits
from rlprompt.tasks.classification import ClassificationTask

NAMES = {0: "bad", 1: "good"}


def rows(of: Callable[[int], Any] = lambda number: number, n: int = 12) -> list[dict[str, Any]]:
    """Rows of the classes 0 and 1 in turn; the text ends in the number of its class."""
    return [{"text": f"t {i} {i % 2}", "label": of(i % 2)} for i in range(n)]


def write_csv(path: Path, table: list[dict[str, Any]]) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    return str(path)


def found(splits: Splits) -> set[tuple[str, str]]:
    """The number that a text ends in, with the class that was read."""
    return {
        (example.fields["text"][-1], example.label)
        for part in splits.parts().values()
        for example in part
    }


def task(data: Any, words: dict[Any, str], **settings: Any) -> ClassificationTask:
    settings = {"template": "{text} {prompt}", "shots": 2, **settings}
    return ClassificationTask.from_file(data, label_words=words, **settings)


TYPES: dict[str, Callable[[int], Any]] = {
    "int": int,
    "numpy int": np.int64,
    "text": str,
    "float": float,
    "numpy float": np.float32,
    "text of a float": lambda number: f"{number}.0",
    "list of one": lambda number: [number],
}
BOOLS: dict[str, Callable[[int], Any]] = {
    "bool": bool,
    "numpy bool": np.bool_,
    "text of pandas": lambda number: str(bool(number)),
    "text of JSON": lambda number: json.dumps(bool(number)),
    "text of R": lambda number: str(bool(number)).upper(),
}


class TestTypes:
    @pytest.mark.parametrize("label", TYPES)
    @pytest.mark.parametrize("key", ["int", "numpy int", "text", "float"])
    def test_numbers_are_the_same_class_in_memory(self, label: str, key: str) -> None:
        words = {TYPES[key](0): "terrible", TYPES[key](1): "great"}
        made = task(rows(TYPES[label]), words)
        assert found(made.splits) == {("0", "0"), ("1", "1")}
        assert made.label_words == {"0": "terrible", "1": "great"}
        assert made.name == "data"

    @pytest.mark.parametrize("label", BOOLS)
    @pytest.mark.parametrize("key", ["bool", "numpy bool", "text of JSON"])
    def test_truth_values_are_the_same_class_in_memory(self, label: str, key: str) -> None:
        words = {BOOLS[key](0): "terrible", BOOLS[key](1): "great"}
        assert found(task(rows(BOOLS[label]), words).splits) == {("0", "false"), ("1", "true")}

    @pytest.mark.parametrize("label", [name for name in (*TYPES, *BOOLS) if "list" not in name])
    def test_they_are_in_files(self, tmp_path: Path, label: str) -> None:
        of = {**TYPES, **BOOLS}[label]
        data = write_csv(tmp_path / "a.csv", rows(of))
        classes = {True: "great", False: "terrible"} if label in BOOLS else {0: "a", 1: "b"}
        expected = {("0", "false"), ("1", "true")} if label in BOOLS else {("0", "0"), ("1", "1")}
        assert found(task(data, classes).splits) == expected

    def test_a_truth_value_is_one_or_nothing(self) -> None:
        assert found(task(rows(bool), {0: "a", 1: "b"}).splits) == {("0", "0"), ("1", "1")}
        assert found(task(rows(), {True: "a", False: "b"}).splits) == {
            ("0", "false"),
            ("1", "true"),
        }

    def test_a_column_that_a_gap_made_float(self, tmp_path: Path) -> None:
        table = [*rows(lambda number: f"{number}.0"), {"text": "gap", "label": ""}]
        data = write_csv(tmp_path / "a.csv", table)
        made = task(data, NAMES, on_bad_rows="skip")
        assert found(made.splits) == {("0", "0"), ("1", "1")}
        assert made.splits.notes[0].startswith("1 row was left out: a.csv:14 has the unknown label")

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ({1: "a", "1": "b"}, "label_words has the class '1' twice"),
            ({True: "a", "true": "b"}, "label_words has the class 'true' twice"),
            ({float("nan"): "a", 1: "b"}, "has the class nan; give it a name"),
            ({" ": "a", 1: "b"}, "has the class ' '; give it a name"),
        ],
    )
    def test_classes_that_are_the_same_or_none_are_refused(
        self, words: dict[Any, str], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            task(rows(), words)

    def test_an_example_takes_a_label_of_any_type(self) -> None:
        made = [Example({"text": "x"}, label) for label in (1, True, np.int64(1))]  # type: ignore[arg-type]
        assert [example.label for example in made] == ["1", "true", "1"]
        with pytest.raises(ValueError, match="the field 'text' of an example is nan; give a text"):
            Example({"text": float("nan")}, "x")  # type: ignore[dict-item]


class TestNotes:
    def test_numbers_are_told_with_an_example_of_each(self) -> None:
        splits = task(rows(n=6), NAMES, shots=1).splits
        assert splits.notes == (
            "labels are numbers: 0, such as 't 0 0' (examples[0]); 1, such as 't 1 1' "
            "(examples[1])",
        )

    def test_what_a_mapping_makes_of_them_is_told(self) -> None:
        made = task(rows(), {"bad": "terrible", "good": "great"}, labels={1: "bad", 0: "good"})
        assert found(made.splits) == {("0", "good"), ("1", "bad")}
        assert made.splits.notes[0].startswith("labels are numbers: 0 is read as good, such as ")

    def test_names_are_not(self) -> None:
        assert task(rows(NAMES.get), {"bad": "a", "good": "b"}).splits.notes == ()

    def test_long_texts_are_cut(self) -> None:
        table = [{"text": f"{i}\n{'x' * 99}", "label": i % 2} for i in range(6)]
        (note,) = task(table, NAMES, shots=1).splits.notes
        assert f"'0 {'x' * 55}...'" in note


class TestNamesOfTheData:
    def test_names_beside_numbers_are_read_where_classes_have_names(self) -> None:
        table = [{**row, "label_text": NAMES[row["label"]]} for row in rows()]
        words = {"bad": "terrible", "good": "great"}
        assert found(task(table, words).splits) == {("0", "bad"), ("1", "good")}
        assert found(task(table, NAMES).splits) == {("0", "0"), ("1", "1")}
        swapped = task(table, words, labels={0: "good", 1: "bad"})  # which settles it
        assert found(swapped.splits) == {("0", "good"), ("1", "bad")}

    def test_those_that_datasets_wrote_into_a_parquet_file_are_read(self, tmp_path: Path) -> None:
        table = pa.table({"text": [row["text"] for row in rows()], "label": [0, 1] * 6})
        feature = {"names": ["bad", "good"], "_type": "ClassLabel"}
        info = json.dumps({"info": {"features": {"label": feature}}})
        pq.write_table(table.replace_schema_metadata({"huggingface": info}), tmp_path / "a.parquet")
        data = str(tmp_path / "a.parquet")
        words = {"bad": "terrible", "good": "great"}
        assert found(task(data, words).splits) == {("0", "bad"), ("1", "good")}
        assert found(task(data, {0: "a", 1: "b"}).splits) == {("0", "0"), ("1", "1")}
        assert found(task(data, words, labels={0: "good", 1: "bad"}).splits) == {
            ("0", "good"),
            ("1", "bad"),
        }

    def test_those_in_the_header_are_read(self, tmp_path: Path) -> None:
        header = "label (0 = bad, 1: good)"
        table = [{"text": row["text"], header: row["label"]} for row in rows()]
        words = {"good": "great", "bad": "terrible"}
        for data in (table, write_csv(tmp_path / "a.csv", table)):
            splits = task(data, words).splits
            assert found(splits) == {("0", "bad"), ("1", "good")}
            assert splits.notes == ()


class TestHints:
    @pytest.mark.parametrize(
        ("label", "known", "how"),
        [
            ("positive", "Positive", "case"),
            ("cafe\u0301", "caf\u00e9", "Unicode form"),
            ("very  good", "very good", "white space"),
            ("very\u00a0good", "very good", "white space"),
            ("good\u200b", "good", "white space"),
            ("Very  Good", "very good", "white space and case"),
        ],
    )
    def test_a_label_that_looks_the_same_is_named(self, label: str, known: str, how: str) -> None:
        table = [*rows(lambda number: (known, "other")[number]), {"text": "x", "label": label}]
        with pytest.raises(ValueError, match=f"only in {how}: set labels") as told:
            load_splits(table, [known, "other"], shots=1)
        assert f"it differs from {known!r} only in" in str(told.value)
        splits = load_splits(table, [known, "other"], aliases={label: known}, shots=1)
        assert len([e for part in splits.parts().values() for e in part]) == 13

    def test_a_label_that_is_misspelt_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"'positve' .*; did you mean 'positive'"):
            load_splits([{"text": "x", "label": "positve"}], ["negative", "positive"])

    def test_several_labels_of_one_text_are_refused(self) -> None:
        with pytest.raises(ValueError, match="has the labels 'a', 'b', and a task of classes"):
            load_splits([{"text": "x", "label": ["a", "b"]}], ["a", "b"])
