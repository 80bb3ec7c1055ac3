"""What columns hold, and what they are taken for: every kind of file, and every way to be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rlprompt.data.roles import Roles, guess_roles
from rlprompt.data.survey import survey

TEXT = "I was charged twice for order"


def table(rows: Sequence[Sequence[object]], header: str, separator: str = ",") -> str:
    lines = [separator.join(map(str, row)) for row in rows]
    return "\n".join([header.replace(",", separator), *lines, ""])


def rows(n: int, labels: Sequence[object] = ("bad", "good")) -> list[list[object]]:
    return [[i, f"{TEXT} {i}", labels[i % len(labels)]] for i in range(n)]


def written(folder: Path, content: str, name: str = "mails.csv", encoding: str = "utf-8") -> str:
    (folder / name).write_text(content, encoding)
    return str(folder / name)


def roles(path: str, **given: Any) -> Roles:
    return guess_roles(survey(path), **given)


def refused(path: str, **given: Any) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011  # what it says is looked at
        roles(path, **given)
    return str(error.value)


def read(found: Roles) -> list[str]:
    return [column.name for column in found.text]


class TestKinds:
    def test_each_column_is_what_its_values_are(self, tmp_path: Path) -> None:
        values: dict[str, Callable[[int], object]] = {
            "key": lambda i: f"T-{i:04}",
            "url": lambda i: f"https://a.example/{i}",
            "when": lambda i: f"2026-01-{i + 1:02}",
            "price": lambda i: i / 4,
            "body": lambda i: f"{TEXT} {i}",
            "city": lambda i: f"City{'abcdefghijklmnopqrst'[i]}",
            "same": lambda _: "ok",
            "queue": lambda i: ["a", "b"][i % 2],
            "spare": lambda _: "",
            "tags": lambda i: ["x", str(i)],
            "more": lambda i: {"x": i},
            "gap": lambda i: None if i < 5 else "yes" if i % 2 else "no",
        }
        made = [{name: make(i) for name, make in values.items()} for i in range(20)]
        path = written(tmp_path, "\n".join(map(json.dumps, made)), "a.jsonl")
        found = survey(path)
        kinds = {column.name: column.kind for column in found.columns}
        assert kinds == {
            **{"key": "id", "url": "id", "when": "date", "price": "number", "body": "text"},
            **{"city": "words", "same": "words", "queue": "classes", "spare": "empty"},
            **{"tags": "list", "more": "nested", "gap": "classes"},
        }
        gap = found.column("gap")
        assert gap is not None
        assert (gap.n_rows, gap.n_missing, dict(gap.counts)) == (15, 5, {"yes": 8, "no": 7})
        assert found.n_rows == 20

    @pytest.mark.parametrize("mark", ["None", "NA", "NULL", "null", "N/A"])
    def test_a_mark_of_a_missing_value_is_a_class_where_it_comes_as_often(
        self, tmp_path: Path, mark: str
    ) -> None:
        def stance(n: int, mark: str = mark, labels: str = "Favor Against") -> Roles:
            lines = [*rows(80, labels.split()), *rows(n, [mark])]
            return roles(written(tmp_path, table(lines, "id,text,stance")))

        assert stance(40).classes == {"Favor": 40, "Against": 40, mark: 40}
        assert (stance(40).label.n_rows, stance(40).label.n_missing) == (120, 0)
        assert mark in stance(20).classes
        assert mark in stance(80).classes
        for n in (19, 81):
            assert stance(n).classes == {"Favor": 40, "Against": 40}
            assert stance(n).label.n_missing == n
        # What programs alone write, and a gap among numbers.
        assert len(stance(40, mark="NaN").classes) == 2
        assert stance(40, labels="1 2").classes == {"1": 40, "2": 40}

    def test_text_without_spaces_has_words_all_the_same(self, tmp_path: Path) -> None:
        lines = [[f"这部电影非常好看我很喜欢{i}", i % 2] for i in range(8)]
        found = survey(written(tmp_path, table(lines, "text,label")))
        assert [column.kind for column in found.columns] == ["text", "classes"]


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "separator", "encoding"),
        [
            ("a.csv", ",", "utf-8"),
            ("a.csv", ";", "utf-8"),
            ("a.tsv", "\t", "utf-8-sig"),
            ("a.txt", "|", "utf-16"),
        ],
    )
    def test_tables(self, tmp_path: Path, name: str, separator: str, encoding: str) -> None:
        content = table(rows(12), "id,body,queue", separator)
        found = roles(written(tmp_path, content, name, encoding))
        assert read(found) == ["body"]
        assert (found.name, dict(found.classes)) == ("queue", {"bad": 6, "good": 6})

    def test_parquet_with_numbers_for_classes(self, tmp_path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {"text": [f"{TEXT} {i}" for i in range(9)], "label": [i % 3 for i in range(9)]}
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")
        found = roles(str(tmp_path / "a.parquet"))
        assert dict(found.classes) == {"0": 3, "1": 3, "2": 3}

    def test_of_a_folder_train_is_looked_at(self, tmp_path: Path) -> None:
        written(tmp_path, table(rows(8), "id,text,label"), "train.csv")
        found = survey(str(tmp_path))
        assert (found.name, found.n_rows, found.apart) == ("train.csv", 8, True)
        (tmp_path / "train.csv").rename(tmp_path / "training.csv")
        assert "has no train file; give a folder with" in refused(str(tmp_path))

    def test_rows_that_cannot_be_read_are_counted(self, tmp_path: Path) -> None:
        path = written(tmp_path, table(rows(8), "id,text,label") + "9,so\n")
        assert survey(path).faults.startswith("1 rows cannot be read, such as mails.csv:10 has 2")

    @pytest.mark.parametrize(
        ("content", "name", "told"),
        [
            ("", "a.csv", "has no rows; give a table with a line of column names"),
            ("text,label\n", "a.csv", "has no rows; give a table"),
            ("[]", "a.json", "has no rows"),
            ("not json\n", "a.jsonl", "has no rows: a.jsonl:1 is no JSON"),
            ("x", "a.docx", "does not end in .csv, .tsv"),
            ("a,a\n1,2\n", "a.csv", "has two columns 'a'"),
        ],
    )
    def test_no_table(self, tmp_path: Path, content: str, name: str, told: str) -> None:
        assert told in refused(written(tmp_path, content, name))

    def test_a_file_that_is_no_text_or_not_there(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(b"text,label\nna\xefve,a\n")
        assert "a.csv:2 is not UTF-8" in refused(str(tmp_path / "a.csv"))
        assert "did you mean a.csv?" in refused(str(tmp_path / "b.csv"))
        assert "has a task of its own" in refused("movie-reviews")

    def test_a_first_line_that_is_a_row(self, tmp_path: Path) -> None:
        content = table([row[1:] for row in rows(8)], f"{TEXT} as always,good")
        assert "looks like a row and not like names of columns" in refused(
            written(tmp_path, content)
        )


class TestRoles:
    def test_names_win_over_places(self, tmp_path: Path) -> None:
        lines = [["de", f"{TEXT} {i}", "ab"[i % 2], "no yes"[i % 2 * 3 :][:3]] for i in range(12)]
        found = roles(written(tmp_path, table(lines, "source,note,label,flag")))
        assert (found.name, found.why_label) == ("label", "by its name")
        assert (read(found), found.why_text) == (["note"], "the text there is")

    def test_the_last_of_several_columns_of_classes(self, tmp_path: Path) -> None:
        lines = [[f"{TEXT} {i}", "ab"[i % 2], "xyz"[i % 3]] for i in range(12)]
        found = roles(written(tmp_path, table(lines, "note,one,two")))
        assert found.name == "two"
        assert found.why_label == "its values come again and again; 'one' may be as well"
        given = roles(written(tmp_path, table(lines, "note,one,two")), label="one", text=["two"])
        assert (given.name, read(given)) == ("one", ["two"])

    def test_names_beside_numbers_are_the_classes(self, tmp_path: Path) -> None:
        lines = [[f"{TEXT} {i}", i % 2, ["neg", "pos"][i % 2]] for i in range(8)]
        found = roles(written(tmp_path, table(lines, "text,label,label_text")))
        assert found.why_label == "it names the numbers of 'label'"
        assert dict(found.classes) == {"neg": 4, "pos": 4}

    def test_a_header_that_names_the_numbers(self, tmp_path: Path) -> None:
        lines = [[f"{TEXT} {i}", i % 2] for i in range(8)]
        path = written(tmp_path, table(lines, "text,label (0 = bad; 1 = good)", "\t"), "a.tsv")
        found = roles(path)
        assert (found.name, dict(found.classes)) == ("label", {"bad": 4, "good": 4})

    def test_spellings_and_classes_that_are_rare(self, tmp_path: Path) -> None:
        labels = ["billing"] * 9 + ["Billing"] * 2 + ["fraud"] * 4 + ["spam"] * 2 + ["other"]
        lines = [[f"{TEXT} {i}", label] for i, label in enumerate(labels)]
        found = roles(written(tmp_path, table(lines, "text,label")))
        assert dict(found.classes) == {"billing": 11, "fraud": 4}
        assert dict(found.aliases) == {"Billing": "billing"}
        assert dict(found.rare) == {"spam": 2, "other": 1}

    def test_two_texts(self, tmp_path: Path) -> None:
        lines = [[f"{TEXT} {i // 2}", f"So it was {i}, they say", "ab"[i % 2]] for i in range(12)]
        found = roles(written(tmp_path, table(lines, "premise,hypothesis,label", ";")))
        assert read(found) == ["premise", "hypothesis"]

    def test_of_many_texts_the_longest(self, tmp_path: Path) -> None:
        lines = [[f"{TEXT} {i}", f"{TEXT} {i} {TEXT}", f"so they say {i}", i % 2] for i in range(9)]
        found = roles(written(tmp_path, table(lines, "a,b,c,label")))
        assert (read(found), found.why_text) == (
            ["b"],
            "the longest text; 'a' and 'c' are text too",
        )


class TestAnswers:
    def test_values_that_hardly_come_again(self, tmp_path: Path) -> None:
        lines = [[f"{TEXT} {i}", f"City{'abcdefghijkl'[i]}"] for i in range(12)]
        found = roles(written(tmp_path, table(lines, "text,city")))
        assert not found.classes
        assert found.why_label == (
            "the last column of text; 12 different values in 12 rows, too many to be classes, so "
            "they are written answers"
        )

    def test_lists_and_what_is_asked_for(self, tmp_path: Path) -> None:
        made = [{"question": f"{TEXT} {i}?", "answers": ["a", f"b{i}"]} for i in range(6)]
        found = roles(written(tmp_path, json.dumps(made), "a.json"))
        assert (found.name, dict(found.classes)) == ("answers", {})
        assert "it holds lists" in found.why_label
        found = roles(written(tmp_path, table(rows(8), "id,text,label")), answers=True)
        assert (found.name, dict(found.classes)) == ("label", {})
        assert found.why_label == "by its name; to be written, as was asked for"


class TestRefused:
    @pytest.mark.parametrize(
        ("lines", "header", "told"),
        [
            (
                [[i, i % 2] for i in range(8)],
                "id,label",
                "has no column of text for the model to read beside the label 'label': 'id' is "
                "another in every row, as an id is",
            ),
            ([[i, f"T-{i}"] for i in range(8)], "id,key", "has no column of classes or answers"),
            ([[i, f"{TEXT} {i}"] for i in range(8)], "id,text", "no column of classes or answers"),
            (
                [[f"{TEXT} {i}", "ok"] for i in range(8)],
                "text,label",
                "has one class, 'ok', in all 8 rows: there is nothing to tell apart",
            ),
            (
                [[f"{TEXT} {i}", f"c{i % 500}"] for i in range(1000)],
                "text,label",
                "has 500 classes, about 2 rows each: more than the 100 that",
            ),
            (
                [[f"{TEXT} {i}", i % 500] for i in range(1000)],
                "text,label",
                "has 500 classes, about 2 rows each",
            ),
            (
                [[f"{TEXT} {i}", i / 7] for i in range(20)],
                "text,label",
                "holds 20 different numbers in 20 rows, and a class comes again and again",
            ),
            (
                [[f"{TEXT} {i}", ""] for i in range(8)],
                "text,label",
                "'label' of mails.csv is empty",
            ),
            (
                [[f"{TEXT} {i}", "a" if i else "b"] for i in range(8)],
                "text,label",
                "has 1 classes with 3 rows or more ('a' 7, 'b' 1)",
            ),
        ],
    )
    def test_a_sentence_says_what_is_wrong(
        self, tmp_path: Path, lines: list[list[object]], header: str, told: str
    ) -> None:
        assert told in refused(written(tmp_path, table(lines, header)))

    def test_a_column_that_is_not_there(self, tmp_path: Path) -> None:
        path = written(tmp_path, table(rows(8), "id,body,queue"))
        assert "has no column 'que'; it has 'id', 'body', 'queue' (did you" in refused(
            path, label="que"
        )
        assert "no column 'bdy'" in refused(path, text=["bdy"])
