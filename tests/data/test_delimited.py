"""Tables as other programs write them: the same content gives the same examples."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlprompt.data.examples import Splits
from rlprompt.data.load import load_splits
from rlprompt.data.read_table import read_table

CLASSES = ("bad", "good")
TEXTS = [
    'He said "no", twice',
    "semi; colon",
    "tab\tinside",
    "two\nlines",
    "plain",
    "comma, and more",
    '"quoted"',
    "café ☕",
    'a 5" disc',
    "it's",
    "end \\ of it",
    "last one",
]
ROWS = [(text, CLASSES[i % 2]) for i, text in enumerate(TEXTS)]


def written(rows: Sequence[Sequence[str]], **how: Any) -> str:
    """What `csv.writer` makes of a header and rows."""
    file = io.StringIO()
    csv.writer(file, **{"lineterminator": "\n", **how}).writerows(rows)
    return file.getvalue()


def with_header(rows: Sequence[Sequence[str]] = ROWS) -> list[Sequence[str]]:
    return [("text", "label"), *rows]


def with_index(rows: Sequence[Sequence[str]] = ROWS, start: int = 0, name: str = "") -> list[Any]:
    numbered = [(str(i), *row) for i, row in enumerate(rows, start)]
    return [(name, "text", "label"), *numbered]


def of_pandas(separator: str) -> bytes:
    return written(with_index(), delimiter=separator).encode()


def of_excel() -> bytes:
    text = written(with_header(), delimiter=";", lineterminator="\r\n")
    return b"\xef\xbb\xbf" + text.encode()


def excel_text() -> bytes:
    """`Unicode text`: UTF-16 and tabs, in quotes what has a comma as well."""

    def cell(text: str) -> str:
        return f'"{text.replace(chr(34), 2 * chr(34))}"' if set('",\t\n') & set(text) else text

    lines = ("\t".join(map(cell, row)) for row in with_header())
    return "".join(f"{line}\r\n" for line in lines).encode("utf-16")


def of_r(separator: str, *, escaped: bool = False) -> bytes:
    """`write.table`: texts in quotes, numbered rows whose column has no name, not even an empty."""

    def cell(text: str) -> str:
        return f'"{text.replace(chr(34), chr(92) + chr(34) if escaped else 2 * chr(34))}"'

    lines = [separator.join(map(cell, ("text", "label")))]
    lines += [separator.join(map(cell, (str(i), *row))) for i, row in enumerate(ROWS, 1)]
    return "\n".join([*lines, ""]).encode()


def of_r_csv() -> bytes:
    return written(with_index(start=1), quoting=csv.QUOTE_ALL).encode()


WRITERS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "pandas .csv": ("a.csv", lambda: of_pandas(",")),
    "pandas .tsv": ("a.tsv", lambda: of_pandas("\t")),
    "pandas .tsv without an index": (
        "a.tsv",
        lambda: written(with_header(), delimiter="\t").encode(),
    ),
    "pandas index read and written": (
        "a.csv",
        lambda: written(
            [
                ("", "Unnamed: 0", *r[1:]) if i == 0 else (str(i), *r)
                for i, r in enumerate(with_index())
            ]
        ).encode(),
    ),
    "Excel .csv": ("a.csv", of_excel),
    "Excel .csv with sep=": ("A.CSV", lambda: b"sep=;\r\n" + of_excel()[3:]),
    "Excel Unicode text": ("a.txt", excel_text),
    "tabs in a .csv": ("a.csv", lambda: written(with_header(), delimiter="\t").encode()),
    "R write.csv": ("a.csv", of_r_csv),
    "R write.csv2": ("a.csv", lambda: of_r(";")),
    "R write.table": ("a.tsv", lambda: of_r("\t", escaped=True)),
    "R write.table, doubled": ("a.txt", lambda: of_r("\t")),
    "gzip": ("a.csv.gz", lambda: gzip.compress(of_pandas(","))),
    "upper case": ("a.TSV", lambda: of_pandas("\t")),
}


def write(folder: Path, name: str, content: bytes | str) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def load(source: str, **options: Any) -> Splits:
    return load_splits(source, CLASSES, **{"shots": 2, **options})


EXPECTED = load_splits([{"text": text, "label": label} for text, label in ROWS], CLASSES, shots=2)


class TestWriters:
    @pytest.mark.parametrize("writer", WRITERS)
    def test_the_same_content_gives_the_same_splits(self, tmp_path: Path, writer: str) -> None:
        name, content = WRITERS[writer]
        splits = load(write(tmp_path, name, content()))
        assert splits == EXPECTED
        assert splits.digest == EXPECTED.digest

    def test_json_of_pandas_and_others_gives_the_same(self, tmp_path: Path) -> None:
        rows = [{"text": text, "label": label} for text, label in ROWS]
        columns = {name: {str(i): row[name] for i, row in enumerate(rows)} for name in rows[0]}
        split = {"columns": ["text", "label"], "index": [], "data": ROWS}
        lists = {name: [row[name] for row in rows] for name in rows[0]}
        lines = "\n".join(map(json.dumps, rows))
        for content in (rows, columns, split, lists, {"version": 1, "data": rows}):
            assert load(write(tmp_path, "a.json", json.dumps(content))) == EXPECTED
        assert load(write(tmp_path, "a.json", lines)) == EXPECTED
        assert load(write(tmp_path, "a.jsonl.gz", gzip.compress(lines.encode()))) == EXPECTED

    @pytest.mark.parametrize("content", ["", "3", "{", '{"a": 1, "b": [2]}', '{"text": "one'])
    def test_json_that_is_no_table_is_named(self, tmp_path: Path, content: str) -> None:
        with pytest.raises(ValueError, match=r"a.json .*; give a list of objects, or an object"):
            load(write(tmp_path, "a.json", content))

    @settings(max_examples=60, deadline=None)
    @given(
        texts=st.lists(
            st.text(st.sampled_from('ab"\t\n,; ')).map(lambda text: f"x{text}"), min_size=1
        ),
        lead=st.sampled_from(["", '"']),
    )
    def test_a_tsv_that_pandas_wrote_is_its_csv(
        self, tmp_path_factory: pytest.TempPathFactory, texts: list[str], lead: str
    ) -> None:
        folder = tmp_path_factory.mktemp("tables")
        rows = [(lead + text, "good") for text in texts]
        found = []
        for name, separator in (("a.csv", ","), ("a.tsv", "\t")):
            path = write(folder, name, written(with_header(rows), delimiter=separator))
            found.append(_texts(path))
        assert found[0] == found[1] == [text for text, _ in rows]


def _texts(path: str) -> list[str]:
    rows = read_table(Path(path), ("text", "label")).rows
    return [row["text"] for _, row in rows if isinstance(row, dict)]


class TestQuotes:
    """What they mean in files with tabs is found by looking, and said."""

    @pytest.mark.parametrize(
        "line",
        [
            'all the " cool " features',
            '"a" said she',
            'said "he"',
            '"never closed',
            '"all of it in quotes"',
            '"',
            'two "" of them',
        ],
    )
    def test_bare_ones_are_text(self, tmp_path: Path, line: str) -> None:
        content = f"text\tlabel\nplain\tbad\n{line}\tgood\nlast\tbad\n"
        path = write(tmp_path, "a.tsv", content)
        assert _texts(path) == ["plain", line, "last"]
        splits = load_splits(
            write(
                tmp_path, "a.tsv", content + "".join(f"t{i}\tgood\nu{i}\tbad\n" for i in range(3))
            ),
            CLASSES,
            shots=1,
        )
        assert splits.notes == ("quotes in a.tsv are text, such as on line 3",)

    def test_those_that_a_program_wrote_are_not(self, tmp_path: Path) -> None:
        splits = load(write(tmp_path, "a.tsv", of_pandas("\t")))
        assert splits.notes == ("quotes in a.tsv group a cell, as a program wrote them",)

    def test_one_cell_that_no_program_wrote_decides(self, tmp_path: Path) -> None:
        content = 'text\tlabel\n"a ""b"""\tgood\nsaid "he\tbad\n'
        assert _texts(write(tmp_path, "a.tsv", content)) == ['"a ""b"""', 'said "he']

    def test_a_broken_quote_in_a_csv_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"a.csv:3 cannot be read"):
            load(write(tmp_path, "a.csv", 'text,label\na,good\n"b" c,bad\n'))


class TestSeparators:
    @pytest.mark.parametrize(
        ("name", "separator", "said"),
        [
            ("a.csv", ";", "semicolons"),
            ("a.csv", "\t", "tabs"),
            ("a.csv", "|", "bars"),
            ("a.tsv", ",", "commas"),
            ("a.txt", ",", "commas"),
        ],
    )
    def test_another_than_usual_is_said(
        self, tmp_path: Path, name: str, separator: str, said: str
    ) -> None:
        rows = [(f"t, {i}; or so", CLASSES[i % 2]) for i in range(12)]
        splits = load(write(tmp_path, name, written(with_header(rows), delimiter=separator)))
        assert splits.notes[0] == f"{name} is separated by {said}"
        assert {e.fields["text"] for e in splits.train} <= {text for text, _ in rows}

    def test_the_usual_one_wins_where_others_stand_in_names(self, tmp_path: Path) -> None:
        rows = [("id; or so|x", "text", "label"), *((str(i), *row) for i, row in enumerate(ROWS))]
        assert load(write(tmp_path, "a.csv", written(rows))) == EXPECTED

    def test_a_header_without_the_columns_is_shown_in_cells(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="has no column 'text'; it has 'Text', 'Label'"):
            load(write(tmp_path, "a.csv", "Text;Label\nx;good\n"))

    def test_a_row_of_one_cell_more_is_no_row_name(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"a.csv:2 has 3 columns, the header has 2"):
            load(write(tmp_path, "a.csv", "text,label\nfine, or not,good\n"))


class TestPacked:
    def test_a_zip_of_one_file_is_that_file(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("folder/", "")
            archive.writestr("folder/B.TSV", of_pandas("\t"))
            archive.writestr("__MACOSX/._B.TSV", b"\0")
        splits = load(str(tmp_path / "a.zip"))
        assert splits == EXPECTED
        assert splits.train[0].source.startswith("a.zip:")

    def test_others_are_named(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("a.csv", b"")
            archive.writestr("b.csv", b"")
        with pytest.raises(ValueError, match=r"a.zip holds a.csv, b.csv; give an archive of one"):
            load(str(tmp_path / "a.zip"))
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("a.doc", b"")
        with pytest.raises(ValueError, match=r"a.zip does not end in .*, and holds a.doc"):
            load(str(tmp_path / "a.zip"))
        for name in ("a.zip", "a.csv.gz"):
            with pytest.raises(ValueError, match=f"{name} cannot be unpacked"):
                load(write(tmp_path, name, b"PK no archive"))
        whole = gzip.compress(of_pandas(","))
        with pytest.raises(ValueError, match=r"a.csv.gz cannot be unpacked"):
            load(write(tmp_path, "a.csv.gz", whole[: len(whole) // 2]))

    def test_a_folder_may_hold_any_of_them(self, tmp_path: Path) -> None:
        def part(start: int) -> str:
            return written(
                with_header([(f"t{i}", CLASSES[i % 2]) for i in range(start, start + 4)])
            )

        write(tmp_path, "TRAIN.CSV", part(0))
        write(tmp_path, "dev.csv.gz", gzip.compress(part(4).encode()))
        with zipfile.ZipFile(tmp_path / "test.zip", "w") as archive:
            archive.writestr("x.csv", part(8))
        splits = load(str(tmp_path))
        assert [e.fields["text"] for e in splits.test] == ["t8", "t9", "t10", "t11"]


@pytest.mark.parametrize("texts", [['a\\b "x"', "C:\\", '\\"'], ["two \\\\", '"it"', "ends \\"]])
def test_backslashes_that_are_escaped_as_quotes_are_come_back(
    tmp_path: Path, texts: list[str]
) -> None:
    rows = list(zip(texts, ("bad", "good", "bad"), strict=True))
    how: dict[str, Any] = {"doublequote": False, "escapechar": "\\", "quoting": csv.QUOTE_ALL}
    (tmp_path / "a.csv").write_text(written(with_header(rows), **how))
    found = [row for _, row in read_table(tmp_path / "a.csv").rows]
    assert [(row["text"], row["label"]) for row in found if isinstance(row, dict)] == rows


class TestAQuoteWithoutItsEnd:
    """It takes in all rows as far as the next quote; a text of several lines does not look so."""

    LINES = ('"Awful film', *(f"Film number {i}" for i in range(2, 10)), 'On screen 5"')

    @pytest.mark.parametrize("ending", ["\n", "\r\n"])
    @pytest.mark.parametrize("first", ["text", "label", "id"])
    def test_the_rows_that_it_took_in_are_told(
        self, tmp_path: Path, first: str, ending: str
    ) -> None:
        texts = [*self.LINES, *(f"A film of {i}" for i in range(8))]
        orders = {"text": "{0},{1}", "label": "{1},{0}", "id": "{2},{0},{1}"}
        cells = [(text, ("good", "bad")[i % 2], str(i)) for i, text in enumerate(texts)]
        lines = [orders[first].format(*row) for row in (("text", "label", "id"), *cells)]
        (tmp_path / "a.csv").write_bytes(ending.join([*lines, ""]).encode())
        found = read_table(tmp_path / "a.csv")
        assert len(list(found.rows)) == 9
        assert found.remarks == (
            "a.csv:2 is one row of 10 lines that each look like a row: if a quote lacks its end "
            "there, mend the file",
        )

    def test_several_such_rows_are_counted(self, tmp_path: Path) -> None:
        bad = '"Awful,good\nIt was,bad\nscreen 5",good\n'
        (tmp_path / "a.csv").write_text(f"text,label\n{bad}plain,bad\nplain too,good\n{bad}")
        (said,) = read_table(tmp_path / "a.csv").remarks
        assert "a.csv:2 is one row of 3 lines that each look like a row, and so is 1 other" in said

    @pytest.mark.parametrize(
        "text",
        [
            "Dear Sir,\nI write, because of it\nyours, Ann",  # each line has two cells
            "It is good,bad\nand more of it\nand this, too",  # not every one has
            "It is\ngood",
            "one, good\n\ntwo, bad",
            ",\n,\n,",
        ],
    )
    def test_texts_of_several_lines_are_no_such_rows(self, tmp_path: Path, text: str) -> None:
        rows = [(text, "good"), ("plain", "bad"), (text, "bad"), ("plain too", "good")]
        (tmp_path / "a.csv").write_text(written(with_header(rows)))
        found = read_table(tmp_path / "a.csv")
        texts = [row["text"] for _, row in found.rows if isinstance(row, dict)]
        assert (texts, found.remarks) == ([row[0] for row in rows], ())
