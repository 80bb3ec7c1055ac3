r"""What the columns of some data hold, found by looking at every row: texts, classes, ids, numbers.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     path = Path(folder, "films.csv")
...     rows = [f"{i},A film that {'bores' if i % 2 else 'glows'} {i},{i % 2}" for i in range(8)]
...     _ = path.write_text("\n".join(["id,text,stars", *rows]))
...     found = survey(str(path))
>>> [(column.name, column.kind) for column in found.columns], found.n_rows
([('id', 'id'), ('text', 'text'), ('stars', 'classes')], 8)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rlprompt._utils.scripts import is_unspaced
from rlprompt.data.hub import HUB, DataSets, HubName, is_saved, load_hub, load_saved, split_table
from rlprompt.data.labels import listed_name
from rlprompt.data.load import MOVIE_REVIEWS, absent
from rlprompt.data.opening import ENDINGS, find_file
from rlprompt.data.read_table import read_table
from rlprompt.data.row_table import RowTable
from rlprompt.data.values import canonical, is_code, is_marker, plain, text_of

ColumnKind = Literal["text", "words", "classes", "list", "number", "date", "id", "nested", "empty"]
"""`text` has several words a value, `words` few; `classes` are few values that come again and
again; `list` and `nested` are values of JSON; `id` is another in every row."""

# Classes that label words may be found for: dbpedia has 14, banking77 has 77.
MOST_CLASSES = 100
# Of a value that may be the name of a class.
CLASS_CHARACTERS, CLASS_WORDS = 60, 5
# Words a value, on average, from which a column is text.
TEXT_WORDS = 3.0
# Values of a column that are counted one by one, and of which an unspaced script is told.
COUNTED, LOOKED_AT = 5000, 50
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_DATE = re.compile(r"\d{4}[-/.]\d\d?[-/.]\d\d?([T ].*)?|\d\d?[-/.]\d\d?[-/.]\d{4}")
# Marks of a missing value that may be the name of a class; others are written by programs alone.
_NAMES = frozenset({"None", "NA", "NULL", "null", "N/A"})
_ID = re.compile(r"\S*\d\S*|https?://\S+|www\.\S+|\S+@\S+\.\S+")


@dataclass(frozen=True)
class Column:
    """A column of some data.

    Attributes:
        name: What it is called.
        kind: What its values are; see `ColumnKind`.
        n_rows: Values that are there.
        n_missing: Rows without one.
        n_distinct: Different values.
        n_words: Words a value, on average; of a script that writes no spaces half the characters.
        counts: Value to rows with it, the most frequent first; empty where there are more than
            `COUNTED`, or long ones. Of classes `None`, `NA` and the like are values where they come
            about as often.
    """

    name: str
    kind: ColumnKind
    n_rows: int
    n_missing: int
    n_distinct: int
    n_words: float
    counts: Mapping[str, int]

    def __str__(self) -> str:
        """What it is, in a few words."""
        name, n = repr(self.name), self.n_distinct
        match self.kind:
            case "empty":
                return f"{name} is empty"
            case "text":
                return f"{name} is text, {self.n_words:.0f} words a row"
            case "words":
                return f"{name} has {n} different short values"
            case "classes":
                return f"{name} has {n} values that come again and again"
            case "list" | "nested":
                return f"{name} holds {'lists' if self.kind == 'list' else 'objects'}"
            case "id":
                return f"{name} is another in every row, as an id is"
        return f"{name} has one value in all rows" if n == 1 else f"{name} holds {self.kind}s"


@dataclass(frozen=True)
class Survey:
    """What was found in some data.

    Attributes:
        name: What messages call the table that was looked at; of data in parts it is train.
        columns: In their order.
        n_rows: Rows that can be read.
        faults: Rows that cannot be, and the first of them; "" for none.
        remarks: How it was read, where that is no matter of course.
        apart: Whether the data have parts of their own, of which this is one.
    """

    name: str
    columns: tuple[Column, ...]
    n_rows: int
    faults: str
    remarks: tuple[str, ...]
    apart: bool

    def column(self, name: str) -> Column | None:
        """The column of that name."""
        return next((one for one in self.columns if one.name == name), None)


def survey(source: str) -> Survey:
    """Look at every row of a file; of a folder or data set with parts, of its train part.

    Args:
        source: A file, a folder with train, dev and test files or what `datasets` saved, or
            `hub:NAME`, as for `load_splits`.

    Raises:
        ValueError: It does not exist, cannot be read, has no rows, or no names of columns.
    """
    table, apart = _table(source)
    tallies: dict[str, _Tally] = {}
    n_rows, n_faults, fault = 0, 0, ""
    for where, row in table.rows:
        if isinstance(row, str):
            n_faults, fault = n_faults + 1, fault or f"{where} {row}"
            continue
        for name, value in row.items():
            tallies.setdefault(name, _Tally()).add(value, table.names.get(name, ()))
        n_rows += 1
    if not n_rows:
        raise ValueError(
            f"{table.name} has no rows{f': {fault}' if fault else ''}; give a table with a line of "
            "column names and a row for each example"
        )
    columns = tuple(tally.column(name, n_rows) for name, tally in tallies.items())
    _check_header(table.name, columns)
    faults = f"{n_faults} rows cannot be read, such as {fault}" if fault else ""
    return Survey(table.name, columns, n_rows, faults, table.remarks, apart)


def _table(source: str) -> tuple[RowTable, bool]:
    """The rows to look at, and whether the data have other parts."""
    if source == MOVIE_REVIEWS:
        raise ValueError(
            f"{MOVIE_REVIEWS} has a task of its own: write `task: {MOVIE_REVIEWS}` in an "
            "experiment file"
        )
    if source.startswith(HUB):
        return _part(load_hub(HubName.parse(source))[0])
    path = Path(source).expanduser()
    if path.is_dir() and is_saved(path):
        return _part(load_saved(path))
    if path.is_dir():
        file = find_file(path, "train")
        if file is None:
            raise ValueError(
                f"folder {path} has no train file; give a folder with the files train and test, "
                f"and dev where there is one, that end in {ENDINGS}; or one such file"
            )
        return read_table(file), True
    if not path.is_file():
        raise ValueError(absent(path))
    return read_table(path), False


def _part(parts: DataSets) -> tuple[RowTable, bool]:
    """The train part of data sets, or the only one."""
    name = "train" if "train" in parts else next(iter(parts))
    return split_table(name, parts[name], ()), len(parts) > 1


@dataclass
class _Tally:
    """What is known of a column so far."""

    n_rows: int = 0
    words: int = 0
    characters: int = 0
    unspaced: int = 0
    longest: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    distinct: set[int] = field(default_factory=set)
    lists: int = 0
    nested: int = 0
    matches: Counter[str] = field(default_factory=Counter)
    markers: Counter[str] = field(default_factory=Counter)

    def add(self, value: Any, names: Any) -> None:
        """Look at a value."""
        value = plain(value)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        text = (listed_name(value, names) or text_of(value)).strip()
        if not text or is_marker(text) or value == []:
            if text in _NAMES:
                self.markers[text] += 1
            return
        self.n_rows += 1
        self.lists += isinstance(value, list)
        self.nested += isinstance(value, dict)
        if self.n_rows <= LOOKED_AT:
            self.unspaced += sum(map(is_unspaced, text[:200]))
        self.words += len(text.split())
        self.characters += len(text)
        self.longest = max(self.longest, len(text))
        self.distinct.add(hash(text))
        if len(text) > CLASS_CHARACTERS:
            return
        if len(self.counts) <= COUNTED:
            self.counts[canonical(text)] += 1
        for kind, pattern in (("number", _NUMBER), ("date", _DATE), ("id", _ID)):
            self.matches[kind] += pattern.fullmatch(text) is not None

    def column(self, name: str, n_rows: int) -> Column:
        """What came of it."""
        n = self.n_rows
        if not n:
            return Column(name, "empty", 0, n_rows, 0, 0.0, {})
        # A script without spaces: the looked-at texts have few words and many such characters.
        unspaced = self.unspaced > 2 * min(n, LOOKED_AT)
        n_words = (self.characters / 2 if unspaced else self.words) / n
        whole = self.longest <= CLASS_CHARACTERS and len(self.counts) <= COUNTED
        counts = dict(self.counts.most_common()) if whole else {}
        kind = self._kind(counts, n_words)
        if kind == "classes" and (named := self._named(counts)):
            counts, n = dict((self.counts + named).most_common()), n + named.total()
        n_distinct = len(counts) or len(self.distinct)
        return Column(name, kind, n, n_rows - n, n_distinct, n_words, counts)

    def _named(self, counts: Mapping[str, int]) -> Counter[str]:
        """Marks of a missing value that come about as often as a class, so that they may be one.

        Of numbers they are what statistics programs write for a gap.
        """
        if all(map(is_code, counts)):
            return Counter()
        least, most = min(counts.values()) / 2, max(counts.values()) * 2
        return Counter({text: n for text, n in self.markers.items() if least <= n <= most})

    def _kind(self, counts: Mapping[str, int], n_words: float) -> ColumnKind:
        if self.lists or self.nested:
            return "list" if self.lists >= self.nested else "nested"
        n = self.n_rows
        share = {kind: found / n for kind, found in self.matches.items()}
        fractions = any(_NUMBER.fullmatch(value) and "." in value for value in counts)
        again = 2 <= len(counts) <= MOST_CLASSES and 2 * len(counts) <= n
        if again and n_words <= CLASS_WORDS and not fractions and share.get("date") != 1:
            return "classes"
        distinct = len(self.distinct)
        if share.get("date") == 1:
            return "date"
        if share.get("number") == 1:
            return "id" if distinct == n > 1 and not fractions else "number"
        if n_words >= TEXT_WORDS:
            return "text"
        return "id" if distinct == n > 1 and share.get("id") == 1 else "words"


def _check_header(name: str, columns: tuple[Column, ...]) -> None:
    """Refuse a first line that is a row."""
    for column in columns:
        of_values = column.counts.get(canonical(column.name.strip()), 0)
        if of_values > 1 or len(column.name.split()) > 2 * CLASS_WORDS:
            raise ValueError(
                f"the first line of {name} looks like a row and not like names of columns "
                f"({column.name[:CLASS_CHARACTERS]!r}); put a line such as text,label before it"
            )
