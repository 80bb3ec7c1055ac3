"""From rows to examples: every defect is named by its place, and refused or left out."""

from __future__ import annotations

import difflib
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rlprompt.data.examples import Columns, Example, OnBadRows, OnLeak, copied, named, repeats
from rlprompt.data.labels import (
    SHOWN,
    LabelReader,
    UnknownLabelsError,
    listed_name,
    name_columns,
    names_in_header,
)
from rlprompt.data.options import Options, Places, lettered
from rlprompt.data.row_table import RowTable
from rlprompt.data.values import is_marker, text_of, texts_of

logger = logging.getLogger(__name__)

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
# What the 16-shot files call their one column of text.
TEXT_COLUMNS = ("text", "sentence")


class MissingColumnError(ValueError):
    """No row has a column that is needed.

    Args:
        message: What is wrong.
        column: Its name.
        row: A row that has others.
    """

    def __init__(self, message: str, column: str, row: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.column, self.row = column, row


@dataclass
class ExampleReader:
    """Reads tables of one layout and keeps account of what it leaves out.

    Args:
        text: Field of a template to the column that holds it.
        label: Column of the label; None for data without one.
        labels: Reads the classes; None where a label is any text, or several.
        on_bad_rows: Whether a defect is an error or leaves the row out.
        on_leak: Whether an example that two splits share is a defect.
        options: Column of the options of multiple choice, one of which the label names; a field
            that is read from it has them with letters, a line each.
        places: From where answers count the options.
    """

    text: Mapping[str, str]
    label: str | None
    labels: LabelReader | None
    on_bad_rows: OnBadRows
    on_leak: OnLeak
    options: str | None = None
    places: Places = field(default_factory=Places)
    skipped: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    # Column to the first of its texts that is a number and where it stands; "" once one of them
    # does not end in .0.
    _floats: dict[str, str] = field(default_factory=dict)
    # Rows of a table without a column: their number, the column, and the first of them.
    _lacking: tuple[int, str, Mapping[str, Any]] = (0, "", {})

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it needs."""
        more = (self.label, self.options)
        return tuple(dict.fromkeys((*self.text.values(), *filter(None, more))))

    @property
    def read_from(self) -> Columns:
        """What it reads from, so that more can be read alike."""
        if self.labels is None:
            return Columns(dict(self.text), self.label)
        spellings, numbered = dict(self.labels.spellings), tuple(self.labels.numbered)
        return Columns(dict(self.text), self.label, spellings, numbered)

    @property
    def optional(self) -> tuple[str, ...]:
        """Columns that it looks at where there are such."""
        return () if self.label is None or self.labels is None else name_columns(self.label)

    def read(self, table: RowTable) -> list[Example]:
        """The examples of one table.

        Raises:
            ValueError: It has none, or a defect that is not to be skipped: `UnknownLabelsError`
                where all are labels of no class, `MissingColumnError` where no row has a column.
        """
        before, known = len(self.skipped), self._unknown()
        self._lacking = (0, "", {})
        examples = list(self._examples(table))
        self.remarks += [remark for remark in table.remarks if remark not in self.remarks]
        if problem := self.places.problem():  # not to be skipped: other rows may be read wrongly
            raise ValueError(problem)
        defects = self.skipped[before:]
        if defects and self.on_bad_rows == "error":
            problem = f"{defects[0]}; {_mend(len(defects), self._enough(examples))}"
            unknown = self._unknown() - known
            if all(unknown) and unknown.total() == len(defects):
                raise UnknownLabelsError(problem, [*dict.fromkeys(one[:SHOWN] for one in unknown)])
            n_lacking, column, row = self._lacking
            if not examples and n_lacking == len(defects):
                raise MissingColumnError(problem, column, row)
            raise ValueError(problem)
        if not examples:
            raise ValueError(
                f"{table.name} has no examples; {'; '.join(self.notes()) or 'add some'}"
            )
        return examples

    def notes(self) -> tuple[str, ...]:
        """What was left out, and what else a reader of results should know."""
        meanings = () if self.labels is None else self.labels.notes()
        floats = (
            f"all numbers in {column!r} end in .0, such as {first}, as pandas writes whole numbers "
            "where a cell is empty: they are taken as they are written"
            for column, first in self._floats.items()
            if first
        )
        meanings = (*meanings, *filter(None, [self.places.remark()]), *floats)
        if not self.skipped:
            return (*self.remarks, *meanings)
        left_out = named(self.skipped, "row was left out", "rows were left out")
        return (left_out, *self.remarks, *meanings)

    def without_repeats(
        self, parts: Mapping[str, Sequence[Example]]
    ) -> dict[str, tuple[Example, ...]]:
        """Drop what repeats an earlier split, and texts that are there with two classes.

        Raises:
            ValueError: There are such, and they are not to be skipped, or nothing else.
        """
        dropped: set[int] = set()
        defects: list[str] = []
        leaked: Counter[str] = Counter()
        n_repeats = dict.fromkeys(parts, 0)
        found = list(repeats(parts))
        torn = {
            id(first)
            for (name, example), (first_name, first) in found
            if name == first_name and example.label != first.label and self.labels is not None
        }
        for (name, example), (first_name, first) in found:
            what = f"{example.where(name)} repeats {first.where(first_name)}"
            if name != first_name:
                if self.on_leak == "error":
                    leaked[name] += 1
                    defects.append(what)
                    dropped.add(id(example))
            elif id(first) in torn:
                other = example.label != first.label
                defects.append(f"{what} with another label" if other else f"{what}, of two labels")
                if id(first) not in dropped:
                    defects.append(f"{first.where(name)} is that text with another label")
                dropped |= {id(example), id(first)}
            else:
                n_repeats[name] += 1
        kept = {
            name: tuple(example for example in examples if id(example) not in dropped)
            for name, examples in parts.items()
        }
        if leaked and (problem := copied(parts)):
            raise ValueError(problem)
        if defects and self.on_bad_rows == "error":
            leak = ", or on_leak: allow to keep it" if leaked else ""
            enough = all(map(self._enough, kept.values()))
            raise ValueError(f"{defects[0]}; {_mend(len(defects), enough)}{leak}")
        for what in defects:
            self._defect(what)
        if len(parts) > 1:  # from a single file, `few_shot` uses them once
            self.remarks += [
                f"{name} repeats {n} of its texts" for name, n in n_repeats.items() if n
            ]
        for name, examples in kept.items():
            if not examples:
                raise ValueError(f"{name} has no examples; {'; '.join(self.notes())}")
        return kept

    def _unknown(self) -> Counter[str]:
        """How often labels so far were no class."""
        return Counter() if self.labels is None else Counter(self.labels.unknown)

    def _enough(self, examples: Sequence[Example]) -> bool:
        """Whether examples of every class are there."""
        classes = set() if self.labels is None else set(self.labels.classes)
        return bool(examples) and classes <= {example.label for example in examples}

    def _defect(self, what: str) -> None:
        if self.on_bad_rows == "skip":
            logger.info("left out: %s", what)
        self.skipped.append(what)

    def _examples(self, table: RowTable) -> Iterator[Example]:
        columns = self.columns
        for where, row in table.rows:
            if isinstance(row, str):
                self._defect(f"{where} {row}")
                continue
            self._rename(row, table.name)
            table = self._with_header(row, table)
            if missing := [name for name in columns if name not in row]:
                what = no_column(missing[0], row)
                if table.uniform:  # so in every row
                    raise MissingColumnError(f"{table.name} has {what}", missing[0], row)
                self._defect(f"{where} has {what}")
                n, column, first = self._lacking
                if not n or column == missing[0]:
                    self._lacking = (n + 1, missing[0], first if n else row)
                continue
            try:
                yield self.example(row, table, where)
            except ValueError as error:
                self._defect(f"{where} has {error}")

    def example(self, row: Mapping[str, Any], table: RowTable, where: str) -> Example:
        """The example in a row that has all columns.

        Raises:
            ValueError: Something is wrong with it.
        """
        options = None
        if self.options is not None:
            options = Options.of(row[self.options], self.options)
            row = {**row, self.options: lettered(options.texts)}
        fields = {name: self._text(row, column, table) for name, column in self.text.items()}
        written = self.label if self.labels is None and options is None else None
        for column in filter(None, dict.fromkeys((*self.text.values(), written))):
            self._see_number(row[column], column, where)
        if self.label is None:
            return Example(fields, "", where)
        if options is not None:
            self.places.see(options, row[self.label], where)
            right = options.right(row[self.label], self.places.first or 0)
            return Example(fields, right, where, options=options.texts)
        try:
            if self.labels is None:
                label, *others = self._answers(row, self.label, table)
                return Example(fields, label, where, tuple(others))
            found, code = self.labels.read(row, self.label, table)
        except TypeError as error:
            raise ValueError(f"{error} in {self.label!r}") from None
        if code:
            self.labels.remember(code, found, next(iter(fields.values()), ""), where)
        return Example(fields, found, where)

    def _text(self, row: Mapping[str, Any], column: str, table: RowTable) -> str:
        """A cell as text.

        Raises:
            ValueError: There is none, or one that no model can read.
        """
        try:
            text = listed_name(row[column], table.names.get(column, ())) or text_of(row[column])
        except TypeError as error:
            raise ValueError(f"{error} in {column!r}") from None
        return _sound(text, column)

    def _see_number(self, value: Any, column: str, where: str) -> None:
        """Look whether all texts of a column that are numbers end in .0."""
        if isinstance(value, str) and (found := _NUMBER.fullmatch(value.strip())):
            told = f"{found[0]!r} ({where})" if found[0].endswith(".0") else ""
            self._floats[column] = told and self._floats.get(column, told)

    def _answers(self, row: Mapping[str, Any], column: str, table: RowTable) -> tuple[str, ...]:
        """The answers that are right, one or more."""
        if table.names.get(column):
            return (self._text(row, column, table),)
        return tuple(_sound(text, column) for text in texts_of(row[column]) or ("",))

    def _rename(self, row: dict[str, Any], table: str) -> None:
        """Take `sentence` for `text` and the other way round: the 16-shot files mix the two."""
        (wanted, *others) = self.text.values()
        if others or wanted not in TEXT_COLUMNS or wanted in row:
            return
        (other,) = set(TEXT_COLUMNS) - {wanted}
        if other in row:
            row[wanted] = row.pop(other)
            remark = f"{table} has {other!r} for {wanted!r}"
            if remark not in self.remarks:
                self.remarks.append(remark)

    def _with_header(self, row: dict[str, Any], table: RowTable) -> RowTable:
        """Take a column such as `label (0 = bad, 1 = good)` for the label's, with these names."""
        label = self.label
        if label is None or label in row or (found := names_in_header(row, label)) is None:
            return table
        column, names = found
        row[label] = row.pop(column)
        return table if label in table.names else replace(table, names={label: names})


def no_column(name: str, there: Iterable[str]) -> str:
    """What to say of a column that is missing, and of those that are there.

    >>> no_column("text", ["txt", "id"])
    "no column 'text'; it has 'txt', 'id' (did you mean 'txt'?)"
    """
    there = list(there)
    what = f"no column {name!r}; it has {', '.join(repr(one[:SHOWN]) for one in there)}"
    near = difflib.get_close_matches(name, there, 1)
    return what + (f" (did you mean {near[0]!r}?)" if near else "")


def _mend(n: int, enough: bool) -> str:
    """What to do about defects, of which the first was told."""
    if not enough:
        return (
            f"mend the file: without its {n} bad rows too little is left"
            if n > 1
            else ("mend the file: without this row too little is left")
        )
    one = n == 1
    return f"mend the file, or set on_bad_rows: skip to leave {'it' if one else f'{n} rows'} out"


def _sound(text: str, column: str) -> str:
    """A text without white space around it.

    Raises:
        ValueError: Nothing can be seen of it, it stands for a missing value, or it cannot be
            encoded.
    """
    if is_marker(text):
        raise ValueError(f"no {column}: {text.strip()!r} stands for a value that is missing")
    if "\0" in text:
        raise ValueError(f"a NUL character in {column}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"half a surrogate pair in {column}") from None
    # White space, and what takes no room, such as a zero-width space.
    if not any(c.isprintable() and not c.isspace() for c in text):
        raise ValueError(f"an empty {column}")
    return text.strip()
