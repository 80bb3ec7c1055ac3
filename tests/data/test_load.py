from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlprompt.data.examples import Example, Splits
from rlprompt.data.load import load_splits

LABELS = ("bad", "good")
NUMBERS = {"0": "bad", "1": "good"}
ROWS = [{"text": f"text {i}", "label": i % 2} for i in range(8)]

Write = Callable[[str, str | bytes], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a file and returns its path."""

    def to(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return to


def table(n: int = 8, separator: str = ",", start: int = 0) -> str:
    """A header and `n` rows of either class in turn, on lines 2, 3, ..."""
    rows = [f"text {i}{separator}{LABELS[i % 2]}" for i in range(start, start + n)]
    return "\n".join([f"text{separator}label", *rows]) + "\n"


def load(source: str, **options: Any) -> Splits:
    return load_splits(source, LABELS, **{"shots": 1, **options})


def everything(splits: Splits) -> list[Example]:
    return sorted(sum(splits.parts().values(), ()), key=lambda e: int(e.source.split(":")[1]))


def drawn(splits: Splits) -> list[str]:
    """Texts of all splits as they come."""
    return [e.fields["text"] for part in splits.parts().values() for e in part]


def texts(splits: Splits) -> list[str]:
    """Texts of all splits in the order of their lines."""
    return [example.fields["text"] for example in everything(splits)]


def lines(splits: Splits) -> list[int]:
    return [int(example.source.split(":")[1]) for example in everything(splits)]


class TestOneFile:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.csv", table()),
            ("a.tsv", table(separator="\t")),
            ("crlf.csv", table().replace("\n", "\r\n")),
            ("bom.csv", b"\xef\xbb\xbf" + table().encode()),
            ("no-end.csv", table().rstrip("\n")),
            ("blank.csv", table() + "\n\n"),
            ("cr.csv", table().replace("\n", "\r")),
            (
                "a.jsonl",
                "\n".join(
                    [
                        "",
                        *(
                            json.dumps({"text": f"text {i}", "label": LABELS[i % 2]})
                            for i in range(8)
                        ),
                    ]
                ),
            ),
        ],
    )
    def test_every_format_is_read(self, write: Write, name: str, content: str | bytes) -> None:
        splits = load(write(name, content))
        assert texts(splits) == [f"text {i}" for i in range(8)]
        assert lines(splits) == list(range(2, 10))
        assert all(e.source.startswith(name) for e in everything(splits))
        assert [len(part) for part in splits.parts().values()] == [2, 2, 4]
        assert splits.notes == ()

    def test_quotes_in_csv_group_and_lines_are_those_a_row_starts_on(self, write: Write) -> None:
        content = 'text,label\n"a, ""b""\nc",good\n\nd,bad\n"e\n\nf",good\ng,bad\nh,good\ni,bad\n'
        splits = load(write("a.csv", content))
        assert texts(splits) == ['a, "b"\nc', "d", "e\n\nf", "g", "h", "i"]
        assert lines(splits) == [2, 5, 6, 9, 10, 11]

    def test_empty_lines_may_come_first(self, write: Write) -> None:
        splits = load(write("a.csv", "\n\n" + table()))
        assert lines(splits) == list(range(4, 12))

    def test_bare_quotes_in_tsv_are_text(self, write: Write) -> None:
        content = table(separator="\t") + '"a" said she\tgood\nsaid "he\tbad\n'
        assert texts(load(write("a.tsv", content)))[-2:] == ['"a" said she', 'said "he']

    def test_other_separators_of_lines_are_text(self, write: Write) -> None:
        rows = [
            json.dumps({"text": f"a\u2028b\x85c {i}", "label": LABELS[i % 2]}, ensure_ascii=False)
            for i in range(8)
        ]
        splits = load(write("a.jsonl", "\r\n".join(rows)))
        assert texts(splits)[0] == "a\u2028b\x85c 0"
        assert lines(splits) == list(range(1, 9))

    def test_columns_may_have_other_names_and_neighbours(self, write: Write) -> None:
        content = "id,review,stars\n" + "".join(f"{i},text {i},{i % 2}\n" for i in range(8))
        source = write("a.csv", content)
        splits = load_splits(source, ["0", "1"], text=("review",), label="stars", shots=1)
        assert {tuple(e.fields) for e in everything(splits)} == {("review",)}
        assert {e.label for e in everything(splits)} == {"0", "1"}

    def test_two_columns_of_text(self, write: Write) -> None:
        content = "premise,hypothesis,label\n" + "".join(
            f"same,text {i},{LABELS[i % 2]}\n" for i in range(8)
        )
        splits = load(write("a.csv", content), text=("premise", "hypothesis"))
        assert everything(splits)[3].fields == {"premise": "same", "hypothesis": "text 3"}

    @pytest.mark.parametrize(("label", "name"), [(1, "1"), (True, "true"), ("1", "1")])
    def test_a_label_of_json_is_what_the_file_shows(
        self, write: Write, label: Any, name: str
    ) -> None:
        rows = [json.dumps({"text": f"t{i}", "label": label}) for i in range(3)]
        splits = load_splits(write("a.jsonl", "\n".join(rows)), [name], shots=1)
        assert {e.label for e in everything(splits)} == {name}

    def test_fields_may_be_called_otherwise_than_columns(self, write: Write) -> None:
        content = "body,head,label\n" + "".join(f"b{i},h,{LABELS[i % 2]}\n" for i in range(8))
        splits = load(write("a.csv", content), text={"text": "body", "title": "head"})
        assert everything(splits)[3].fields == {"text": "b3", "title": "h"}

    def test_labels_may_be_spelt_otherwise(self, write: Write) -> None:
        content = "text,label\n" + "".join(f"t{i},{i % 2}\n" for i in range(6)) + "t6,good\n"
        splits = load(write("a.csv", content), aliases={"0": "bad", "1": "good"})
        assert [e.label for e in everything(splits)] == ["bad", "good"] * 3 + ["good"]

    def test_a_label_may_be_any_text(self, write: Write) -> None:
        content = "text,answer\n" + "".join(f"t{i},answer {i}\n" for i in range(8))
        splits = load_splits(write("a.csv", content), None, label="answer", shots=2)
        assert [len(part) for part in splits.parts().values()] == [2, 2, 4]
        assert [e.label for e in everything(splits)] == [f"answer {i}" for i in range(8)]
        with pytest.raises(ValueError, match=r"a.csv:10 has an empty answer"):
            load_splits(write("a.csv", content + "t8,\n"), None, label="answer", shots=2)

    def test_there_may_be_no_labels(self, write: Write) -> None:
        content = "text\n" + "".join(f"t{i}\n" for i in range(8))
        splits = load_splits(write("a.csv", content), None, label=None, shots=2)
        assert {e.label for e in everything(splits)} == {""}

    def test_aliases_without_classes_are_refused(self, write: Write) -> None:
        with pytest.raises(ValueError, match="aliases are of classes"):
            load_splits(write("a.csv", table()), None, aliases={"0": "bad"})

    def test_parquet_draws_what_csv_draws(self, write: Write, tmp_path: Path) -> None:
        texts = [f"text {i}" for i in range(30)]
        rows = pa.table({"text": texts, "label": [LABELS[i % 2] for i in range(30)]})
        pq.write_table(rows, tmp_path / "a.parquet")
        splits = load(str(tmp_path / "a.parquet"), shots=4)
        assert splits == load(write("a.csv", table(30)), shots=4)
        assert splits.test[0].source.startswith("a.parquet:")

    def test_sentence_stands_in_for_text_and_the_other_way_round(self, write: Write) -> None:
        splits = load(write("a.csv", table().replace("text,", "sentence,")))
        assert texts(splits)[0] == "text 0"
        assert splits.notes == ("a.csv has 'sentence' for 'text'",)
        splits = load(write("b.csv", table()), text=("sentence",))
        assert splits.notes == ("b.csv has 'text' for 'sentence'",)


class TestDefects:
    """Each is refused by name, file and line, or left out and counted."""

    @pytest.mark.parametrize(
        ("name", "row", "what"),
        [
            ("a.csv", "  ,good", "a.csv:10 has an empty text"),
            (
                "a.csv",
                "fine,excellent",
                r"a.csv:10 has the unknown label 'excellent' \(known: bad, good\)",
            ),
            ("a.csv", "fine,", "a.csv:10 has the unknown label ''"),
            ("a.csv", "fine", "a.csv:10 has 1 columns, the header has 2"),
            ("a.csv", "fine, or not,good", "a.csv:10 has 3 columns, the header has 2"),
            ("a.csv", "text 2,good", "a.csv:10 repeats a.csv:4 with another label"),
            ("a.csv", "nul\0,good", "a.csv:10 has a NUL character in text"),
            ("a.csv", "fine," + "x" * 99, f"a.csv:10 has the unknown label '{'x' * 60}' "),
            ("a.tsv", "fine\tor not\tgood", "a.tsv:10 has 3 columns"),
            (
                "a.jsonl",
                r'{"text": "\ud83d", "label": "good"}',
                "a.jsonl:10 has half a surrogate pair in text",
            ),
            (
                "a.jsonl",
                '{"Text": "x", "label": "good"}',
                r"a.jsonl:10 has no column 'text'; it has 'Text', 'label' \(did you mean 'Text",
            ),
            ("a.jsonl", '{"text": "fine", "label": "goo', "a.jsonl:10 is no JSON: Unterminated"),
            ("a.jsonl", '["fine", "good"]', "a.jsonl:10 is no JSON object"),
            ("a.jsonl", '{"text": null, "label": "good"}', "a.jsonl:10 has an empty text"),
            (
                "a.jsonl",
                '{"words": "x", "label": "good"}',
                "a.jsonl:10 has no column 'text'; it has 'words', 'label'",
            ),
        ],
    )
    def test_a_row_is_refused_or_skipped(
        self, write: Write, caplog: pytest.LogCaptureFixture, name: str, row: str, what: str
    ) -> None:
        if name.endswith(".jsonl"):
            rows = [json.dumps({"text": f"text {i}", "label": LABELS[i % 2]}) for i in range(8)]
            content = "\n".join(["", *rows, row, ""])
        else:
            content = table(separator="\t" if name.endswith(".tsv") else ",") + row + "\n"
        source = write(name, content)
        with pytest.raises(ValueError, match=f"{what}.*; mend the file, or set on_bad_rows: skip"):
            load(source)
        with caplog.at_level(logging.INFO, logger="rlprompt"):
            splits = load(source, on_bad_rows="skip")
        conflict = "another label" in what
        kept = [f"text {i}" for i in range(8) if not (conflict and i == 2)]
        assert texts(splits) == kept
        assert len(splits.notes) == 1
        count = "2 rows were left out, the first: " if conflict else "1 row was left out: "
        assert splits.notes[0].startswith(count)
        assert what.split(";")[0].replace("\\", "") in splits.notes[0]
        assert "left out: " in caplog.text

    def test_many_are_counted_and_the_first_named(self, write: Write) -> None:
        splits = load(write("a.csv", table() + ",good\n" * 7), on_bad_rows="skip")
        assert splits.notes[0].startswith(
            "7 rows were left out, the first: a.csv:10 has an empty text; a.csv:11"
        )
        assert splits.notes[0].endswith("; ...")
        assert splits.notes[0].count("a.csv:") == 5

    @pytest.mark.parametrize("on_bad_rows", ["error", "skip"])
    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.csv", "", "a.csv has no examples; add some"),
            ("a.csv", "text,label\n", "a.csv has no examples"),
            ("a.csv", "\n\n\n", "a.csv has no examples"),
            ("a.jsonl", "\n\n", "a.jsonl has no examples"),
            (
                "a.csv",
                "words,label\nx,good\n",
                "a.csv has no column 'text'; it has 'words', 'label'",
            ),
            (
                "a.csv",
                "text,stars\nx,5\n",
                "a.csv has no column 'label'; it has 'text', 'stars'",
            ),
            ("a.csv", "text,label,text\nx,good,y\n", "a.csv has two columns 'text'"),
            (
                "a.csv",
                'text,label\nx,good\n"y,bad\nz,bad\n',
                "a.csv:3 cannot be read: unexpected end",
            ),
            ("a.csv", b"text,label\nx,good\ncaf\xe9,bad\n", "a.csv:3 is not UTF-8"),
            ("a.xls", table(), r"a.xls does not end in .csv, .tsv, .txt, .jsonl"),
            ("a.xlsx", b"PK\x03\x04\xff\xff", "a.xlsx does not end in"),
            ("a.csv", table().replace("good", "bad"), "a.csv has no example of the class 'good'"),
            ("a.csv", table(3), "class 'good' has 1 example; 1 shots need 2"),
        ],
    )
    def test_a_file_that_cannot_be_used_is_refused(
        self, write: Write, on_bad_rows: str, name: str, content: str | bytes, message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            load(write(name, content), on_bad_rows=on_bad_rows)

    def test_nothing_but_defects_says_so(self, write: Write) -> None:
        with pytest.raises(
            ValueError, match=r"a.csv has no examples; 1 row was left out: a.csv:2 has"
        ):
            load(write("a.csv", "text,label\n,good\n"), on_bad_rows="skip")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"on_bad_rows": "ignore"}, "on_bad_rows is 'ignore'; give error or skip"),
            ({"shots": 0}, "shots is 0; give 1 or more"),
            ({"n_test": -1}, "n_test is -1; give 1 or more"),
            ({"text": ()}, "no column of text is named"),
            ({"text": "text"}, r"text is 'text'; give a list of columns, such as \['text'\]"),
            ({"on_leak": "warn"}, "on_leak is 'warn'; give error or allow"),
            ({"label": None}, "labels are named but no column of theirs"),
            ({"aliases": {"0": "bat"}}, r"unknown class 'bat' \(known: bad, good\)"),
            ({"aliases": {"bad": "good"}}, "'bad' is a class and an alias of another"),
        ],
    )
    def test_a_wrong_option_is_refused(
        self, write: Write, options: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            load(write("a.csv", table()), **options)

    def test_a_misspelt_file_is_named_with_its_neighbour(self, write: Write) -> None:
        source = write("tickets.csv", table())
        with pytest.raises(
            ValueError, match=r"does not exist \(did you mean tickets.csv\?\); give"
        ):
            load(source.replace("tickets", "ticket"))
        with pytest.raises(ValueError, match=r"does not exist \(did you mean movie-reviews\?\)"):
            load("movie-review")

    def test_an_unknown_source_is_named_with_what_there_could_be(self) -> None:
        with pytest.raises(
            ValueError, match=r"data 'nowhere.csv' does not exist; give movie-reviews"
        ):
            load("nowhere.csv")


ABOVE = "test is test.tsv of the folder above"


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path: Path, write: Write) -> Path:
        """The 16-shot layout: test lies one level up."""
        write("set/16-13/train.tsv", table(4, "\t"))
        write("set/16-13/dev.tsv", table(4, "\t", start=10))
        write("set/test.tsv", table(20, "\t", start=20))
        return tmp_path / "set" / "16-13"

    def test_the_files_are_taken_as_they_are(self, folder: Path) -> None:
        splits = load(str(folder), shots=99)  # nothing is drawn
        assert [e.fields["text"] for e in splits.train] == [f"text {i}" for i in range(4)]
        assert [e.fields["text"] for e in splits.test] == [f"text {i}" for i in range(20, 40)]
        assert splits.dev[0].source == "dev.tsv:2"
        assert splits.notes == (ABOVE,)

    def test_a_test_file_in_the_folder_comes_first(self, folder: Path, write: Write) -> None:
        write("set/16-13/test.csv", table(6, start=50))
        splits = load(str(folder))
        assert (len(splits.test), splits.notes) == (6, ())

    def test_n_test_draws_by_seed_and_keeps_the_order(self, folder: Path) -> None:
        splits = [load(str(folder), n_test=8, seed=seed) for seed in (0, 0, 1)]
        assert splits[0] == splits[1]
        assert splits[0] != splits[2]
        numbers = [int(e.source.split(":")[1]) for e in splits[0].test]
        assert len(set(numbers)) == 8
        assert numbers == sorted(numbers)
        assert splits[0].notes == (ABOVE,)

    def test_fewer_to_test_on_than_asked_for_is_noted(self, folder: Path) -> None:
        splits = load(str(folder), n_test=999)
        assert len(splits.test) == 20
        assert splits.notes == (ABOVE, "test has 20 examples, 999 were asked for")

    @pytest.mark.parametrize("missing", ["train", "dev", "test"])
    def test_a_missing_file_is_named(self, folder: Path, missing: str) -> None:
        (folder.parent / "test.tsv" if missing == "test" else folder / f"{missing}.tsv").unlink()
        with pytest.raises(
            ValueError, match=f"has no {missing} file; it needs train, dev and test"
        ):
            load(str(folder))

    @pytest.mark.parametrize("n_test", [None, 1])
    def test_a_leak_is_refused_or_dropped_from_the_later_split(
        self, folder: Path, write: Write, n_test: int | None
    ) -> None:
        write("set/test.tsv", table(20, "\t", start=20) + "TEXT  12\tgood\ntext 3\tbad\n")
        # Whether the leak is among the rows drawn must not decide.
        with pytest.raises(ValueError, match=r"test.tsv:22 repeats dev.tsv:4; mend the file"):
            load(str(folder), n_test=n_test)
        splits = load(str(folder), on_bad_rows="skip")
        assert [len(part) for part in splits.parts().values()] == [4, 4, 20]
        assert splits.notes == (
            "2 rows were left out, the first: test.tsv:22 repeats dev.tsv:4; "
            "test.tsv:23 repeats train.tsv:5",
            ABOVE,
        )

    def test_a_leak_may_be_allowed(self, folder: Path, write: Write) -> None:
        write("set/16-13/dev.tsv", table(4, "\t"))
        for on_bad_rows in ("error", "skip"):
            with pytest.raises(ValueError, match=r"^dev is a copy of train: 4 of 4 texts") as told:
                load(str(folder), on_bad_rows=on_bad_rows)
            assert "on_bad_rows" not in str(told.value)  # which would leave nothing
            assert all(way in str(told.value) for way in ("on_leak: allow", "dev_from: train"))
        splits = load(str(folder), on_leak="allow")
        assert splits.dev == splits.train
        assert splits.notes == (
            ABOVE,
            "4 leaks between splits, the first: dev.tsv:2 repeats train.tsv:2; dev.tsv:3 repeats "
            "train.tsv:3; dev.tsv:4 repeats train.tsv:4; dev.tsv:5 repeats train.tsv:5",
        )

    def test_repeats_within_a_split_stay_and_are_noted(self, folder: Path, write: Write) -> None:
        write("set/test.tsv", table(20, "\t", start=20) + "text 20\tbad\n")
        splits = load(str(folder))
        assert len(splits.test) == 21
        assert splits.notes == (ABOVE, "test repeats 1 of its texts")

    def test_a_text_with_two_labels_goes_altogether(self, folder: Path, write: Write) -> None:
        write("set/test.tsv", table(20, "\t", start=20) + "text 20\tgood\n")
        with pytest.raises(ValueError, match=r"test.tsv:22 repeats test.tsv:2 with another label"):
            load(str(folder))
        splits = load(str(folder), on_bad_rows="skip")
        assert [e.fields["text"] for e in splits.test] == [f"text {i}" for i in range(21, 40)]

    @pytest.mark.parametrize("labels", [["bad", "good", "bad"], ["bad", "bad", "good"]])
    def test_so_do_all_its_copies(self, folder: Path, write: Write, labels: list[str]) -> None:
        more = "".join(f"twice\t{label}\n" for label in labels)
        write("set/test.tsv", table(20, "\t", start=20) + more)
        splits = load(str(folder), on_bad_rows="skip")
        assert [e.fields["text"] for e in splits.test] == [f"text {i}" for i in range(20, 40)]
        with pytest.raises(ValueError, match="skip to leave 3 rows out"):
            load(str(folder))

    def test_files_may_call_their_one_text_differently(self, folder: Path, write: Write) -> None:
        write("set/test.tsv", table(20, "\t", start=20).replace("text\t", "sentence\t"))
        splits = load(str(folder))
        assert splits.test[0].fields == {"text": "text 20"}
        assert splits.notes == (ABOVE, "test.tsv has 'sentence' for 'text'")


class TestMemory:
    """Lists in the place of files."""

    def test_rows_are_drawn_from_a_list(self, write: Write) -> None:
        splits = load_splits(ROWS, LABELS, aliases=NUMBERS, shots=1)
        assert splits == load(write("a.csv", table()))
        assert sorted(e.source for part in splits.parts().values() for e in part) == [
            f"examples[{i}]" for i in range(8)
        ]

    def test_examples_keep_their_source(self) -> None:
        examples = [
            Example({"text": f"t{i}"}, LABELS[i % 2], f"mine:{i}" * (i > 0)) for i in range(6)
        ]
        splits = load_splits(examples, LABELS, shots=1, label="whatever")
        sources = {e.source for part in splits.parts().values() for e in part}
        assert sources == {"examples[0]", *(f"mine:{i}" for i in range(1, 6))}

    def test_splits_may_be_given(self) -> None:
        parts = {"train": ROWS[:2], "dev": ROWS[2:4], "test": ROWS[4:]}
        splits = load_splits(parts, LABELS, aliases=NUMBERS)
        assert drawn(splits) == [f"text {i}" for i in range(8)]
        assert splits.dev[0].source == "dev[0]"
        asked = load_splits(parts, LABELS, aliases=NUMBERS, n_test=5)
        assert asked.notes[-1] == "test has 4 examples, 5 were asked for"
        with pytest.raises(ValueError, match="has the splits train, test; give train, dev, test"):
            load_splits({"train": [], "test": []}, LABELS)

    @pytest.mark.parametrize(
        ("item", "what"),
        [
            ({"text": " ", "label": 1}, r"examples\[8\] has an empty text"),
            ({"text": "x", "label": 2}, r"examples\[8\] has the unknown label '2'"),
            ({"label": 1}, r"examples\[8\] has no column 'text'; it has 'label'"),
            ("text", r"examples\[8\] is a str, no mapping or Example"),
            ({"text": b"x", "label": 1}, r"examples\[8\] has bytes, not text, in 'text'"),
            (Example({"text": "x"}, "fine"), r"examples\[8\] has the unknown label 'fine'"),
        ],
    )
    def test_a_defect_is_named_by_its_index(self, item: Any, what: str) -> None:
        rows = [*ROWS, item]
        with pytest.raises(ValueError, match=what):
            load_splits(rows, LABELS, aliases=NUMBERS, shots=1)
        splits = load_splits(rows, LABELS, aliases=NUMBERS, shots=1, on_bad_rows="skip")
        assert len(drawn(splits)) == 8

    def test_anything_else_is_refused(self) -> None:
        with pytest.raises(ValueError, match="data is a generator; give a name, a path, a list"):
            load_splits(cast(Any, (row for row in ROWS)), LABELS)


class TestMovieReviews:
    def splits(self, **options: Any) -> Splits:
        return load_splits("movie-reviews", ["negative", "positive"], **options)

    def test_it_is_large_clear_and_balanced(self) -> None:
        splits = self.splits()
        assert [len(part) for part in splits.parts().values()] == [32, 32, 9107]
        counts = Counter(e.label for e in splits.test)
        assert 0.49 < counts["positive"] / len(splits.test) < 0.51
        assert splits.notes == ("2 repeats of examples were left out",)

    def test_seed_0_is_the_same_everywhere(self) -> None:
        splits = self.splits(n_test=400)
        assert [len(part) for part in splits.parts().values()] == [32, 32, 400]
        assert splits.digest == "9c2eb7244bc09a3d3f875f59abd9e0f1"
        assert splits.digest != self.splits(n_test=400, seed=1).digest

    @pytest.mark.parametrize(
        ("labels", "text"), [(["bad", "good"], ("text",)), (["negative", "positive"], ("review",))]
    )
    def test_its_names_are_told(self, labels: list[str], text: tuple[str, ...]) -> None:
        with pytest.raises(
            ValueError, match="has the field text and the labels negative and positive"
        ):
            load_splits("movie-reviews", labels, text=text)
