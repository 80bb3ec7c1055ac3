from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlprompt.data.delimited import MAX_CELL
from rlprompt.data.read_table import read_table
from rlprompt.data.row_table import TableRow


def rows(path: Path, *columns: str) -> list[tuple[str, TableRow]]:
    return list(read_table(path, columns).rows)


class TestEncoding:
    @pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
    @pytest.mark.parametrize("line", [1, 2, 5000])
    def test_bytes_of_another_encoding_are_named_by_line(
        self, tmp_path: Path, suffix: str, line: int
    ) -> None:
        lines = [b"fine \xc3\xa9"] * 5000
        lines[line - 1] = b"caf\xe9 au lait"
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(b"\n".join(lines))
        with pytest.raises(ValueError, match=rf"a.{suffix}:{line} is not UTF-8 \(.*\); convert it"):
            read_table(path)

    @pytest.mark.parametrize("suffix", ["csv", "jsonl"])
    def test_utf_16_is_read_where_its_mark_says_so(self, tmp_path: Path, suffix: str) -> None:
        text = {"csv": "text,label\r\né,good\r\n", "jsonl": '{"text": "é", "label": "good"}\n'}
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(text[suffix].encode("utf-16"))
        ((_, row),) = rows(path)
        assert row == {"text": "é", "label": "good"}

    @pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
    def test_utf_16_without_its_mark_is_named(self, tmp_path: Path, encoding: str) -> None:
        path = tmp_path / "a.csv"
        path.write_bytes("text,label\nx,good\n".encode(encoding))
        with pytest.raises(ValueError, match=r"a.csv:1 .*UTF-16"):
            read_table(path)

    def test_half_of_a_utf_16_character_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_bytes("text\nx\n".encode("utf-16") + b"\0")
        with pytest.raises(ValueError, match=r"a.csv is no UTF-16 .*; convert it"):
            read_table(path)

    def test_a_file_that_cannot_be_opened_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"gone.csv cannot be read: No such file"):
            read_table(tmp_path / "gone.csv")


class TestJson:
    @pytest.mark.parametrize(
        ("line", "what"),
        [
            ("[" * 100_000, "is JSON that cannot be read"),
            ('{"text": ' + "1" * 5000 + "}", "is JSON that cannot be read"),
            ('{"text": "a\0b"}', "is no JSON: Invalid control character at"),
            ('{"text": "a", "label": "x", "text": "b"}', "has the key 'text' twice"),
            ('{"text": {"a": 1, "a": 2}}', "has the key 'a' twice"),
            ("3", "is no JSON object"),
        ],
    )
    def test_a_line_that_is_no_row_is_described(self, tmp_path: Path, line: str, what: str) -> None:
        path = tmp_path / "a.jsonl"
        path.write_text('{"text": "a"}\n' + line + "\n")
        first, (where, row) = rows(path)
        assert first == ("a.jsonl:1", {"text": "a"})
        assert where == "a.jsonl:2"
        assert isinstance(row, str)
        assert row.startswith(what)

    def test_columns_of_named_rows_are_joined_by_the_name(self, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        columns = {"text": {"7": "a", "2": "b"}, "label": {"2": "x", "7": "y"}}
        path.write_text(json.dumps(columns))
        assert [row for _, row in rows(path)] == [
            {"text": "a", "label": "y"},
            {"text": "b", "label": "x"},
        ]
        for other in ({"2": "x", "8": "y"}, {"2": "x"}, {"2": "x", "7": "y", "8": "z"}):
            path.write_text(json.dumps({**columns, "label": other}))
            problem = r"a.json has the row '[78]' in one of the columns 'text' and 'label' alone; g"
            with pytest.raises(ValueError, match=problem):
                rows(path)

    def test_rows_beside_their_columns_are_lists_or_objects(self, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        data = [["a", "x"], {"text": "b", "label": "y"}, ["c"], ["d", "x", "y"], 7, "ef"]
        path.write_text(json.dumps({"columns": ["text", "label"], "data": data}))
        bad = "has {} columns, the header has 2"
        assert rows(path) == [
            ("a.json:1", {"text": "a", "label": "x"}),
            ("a.json:2", {"text": "b", "label": "y"}),
            ("a.json:3", bad.format(1)),
            ("a.json:4", bad.format(3)),
            ("a.json:5", "is no JSON object"),
            ("a.json:6", "is no JSON object"),
        ]
        path.write_text(json.dumps({"columns": ["text", "text"], "data": [["a", "b"]]}))
        with pytest.raises(ValueError, match=r"a.json has two columns 'text'"):
            rows(path)

    def test_columns_by_name_and_by_place_are_no_table(self, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        path.write_text('{"text": {"0": "a", "1": "b"}, "label": ["x", "y"]}')
        with pytest.raises(ValueError, match=r"a.json is no list of rows"):
            rows(path)


class TestLongLines:
    @pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
    def test_two_megabytes_are_read(self, tmp_path: Path, suffix: str) -> None:
        text, path = "word " * 400_000, tmp_path / f"a.{suffix}"
        if suffix == "parquet":
            pq.write_table(pa.table({"text": [text]}), path)
        elif suffix == "jsonl":
            path.write_text(json.dumps({"text": text}))
        else:
            path.write_text(f"text\n{text}\n")
        ((_, row),) = rows(path)
        assert row == {"text": text}

    def test_a_quote_that_is_never_closed_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_text('text\nfine\n"open\n' + "x" * MAX_CELL + "\n")
        with pytest.raises(ValueError, match=r"a.csv:3 cannot be read: field larger than"):
            rows(path)


class TestParquet:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        n = 3000  # more than one batch
        texts = [f"text {i}" for i in range(n)]
        table = pa.table({"text": texts, "label": range(n), "vector": [[0.5]] * n})
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=700)
        return tmp_path / "a.parquet"

    def test_rows_are_counted_from_1_and_only_the_columns_asked_for_are_read(
        self, path: Path
    ) -> None:
        found = rows(path, "text", "label")
        assert found == [
            (f"a.parquet:{i + 1}", {"text": f"text {i}", "label": i}) for i in range(3000)
        ]

    def test_all_columns_are_read_where_one_is_missing(self, path: Path) -> None:
        assert rows(path, "sentence")[0] == (
            "a.parquet:1",
            {"text": "text 0", "label": 0, "vector": [0.5]},
        )

    def test_a_column_that_is_there_twice_is_refused(self, tmp_path: Path) -> None:
        table = pa.Table.from_arrays([pa.array(["a"])] * 2, ["text", "text"])
        pq.write_table(table, tmp_path / "a.parquet")
        with pytest.raises(ValueError, match=r"a.parquet has two columns 'text'"):
            rows(tmp_path / "a.parquet")

    @pytest.mark.parametrize("content", [b"", b"PAR1 not really PAR1", b"text,label\nx,good\n"])
    def test_a_damaged_file_is_named(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(ValueError, match=r"a.parquet cannot be read as Parquet: "):
            rows(tmp_path / "a.parquet")


@settings(max_examples=40, deadline=None)
@given(
    cells=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\r\0")), min_size=1, max_size=5
    )
)
def test_texts_survive_every_format(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    with (folder / "a.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "text"], *([i, cell] for i, cell in enumerate(cells))])
    (folder / "a.jsonl").write_text(
        "".join(json.dumps({"id": i, "text": c}) + "\n" for i, c in enumerate(cells))
    )
    pq.write_table(pa.table({"id": range(len(cells)), "text": cells}), folder / "a.parquet")
    expected = list(enumerate(cells))
    for suffix in ("csv", "jsonl", "parquet"):
        found = [row for _, row in rows(folder / f"a.{suffix}") if isinstance(row, dict)]
        assert [(int(row["id"]), row["text"]) for row in found] == expected
