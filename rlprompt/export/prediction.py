"""Prompts at work on many rows: what is asked of which, checked before anything is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from rlprompt.data.examples import Columns, OnBadRows
from rlprompt.data.row_table import RowTable, TableRow
from rlprompt.data.row_to_example import no_column
from rlprompt.data.rows_to_answer import RowReader, Rows
from rlprompt.export.facts import Usage
from rlprompt.export.server import Answer, Classified, PromptServer
from rlprompt.tasks.class_metrics import NO_ANSWER

# Rows that are answered, and held, at a time.
BATCH = 256


class BadRowsError(ValueError):
    """Rows cannot be answered. The message counts them and names the first."""


@dataclass(frozen=True)
class Answered:
    """A row with the answer of each prompt.

    Attributes:
        row: Its columns as they were; none where it could not be read.
        answers: By the prompt's name; None where the row is one that cannot be answered.
    """

    row: Mapping[str, Any]
    answers: Mapping[str, Answer | None]


@dataclass
class Tally:
    """How many of the rows with a label a prompt is right about.

    Attributes:
        right: Rows whose label the prompt answers.
        known: Rows with a label that is one of its classes, and an answer.
        unknown: Rows with another label.
        first: What is wrong with the first of these.
    """

    right: int = 0
    known: int = 0
    unknown: int = 0
    first: str = ""


@dataclass
class Prediction:
    """Prompts on rows: first `survey` and `check`, then `answers`.

    Args:
        rows: The rows.
        usages: How each prompt is put to work, by its name.
        text: Column of the text, where a template has one field and its column is another one now.
        label: Column of the class, where it is another one now.
        on_bad_rows: Whether a row that cannot be answered is an error, or stays without an answer.

    Attributes:
        bad: Rows that cannot be answered, of those looked at last.
        first_bad: What is wrong with the first of them.
        tallies: Of each prompt with classes, where there is a label.
        ties: By the prompt's name, rows answered so far in which no class beats every other.

    Raises:
        ValueError: A column is not there.
    """

    rows: Rows
    usages: Mapping[str, Usage]
    text: str | None = None
    label: str | None = None
    on_bad_rows: OnBadRows = "error"
    bad: int = field(default=0, init=False)
    first_bad: str = field(default="", init=False)
    tallies: dict[str, Tally] = field(default_factory=dict, init=False)
    ties: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        """Find the columns."""
        self._readers = {name: self._reader(usage) for name, usage in self.usages.items()}
        for name, reader in self._readers.items():
            if reader.label is not None:
                self.tallies[name] = Tally()

    def survey(self, look: Callable[[Sequence[Mapping[str, Any]]], None] | None = None) -> int:
        """Read all rows once, without a model.

        Args:
            look: Is shown the columns of all rows, so many at a time.

        Returns:
            How many rows there are.

        Raises:
            BadRowsError: Some cannot be answered, and that is an error.
        """
        return self._pass(None, look)

    def check(self, server: PromptServer) -> None:
        """Read all rows once more, for what the model cannot be given.

        Raises:
            BadRowsError: Some cannot be answered, and that is an error.
        """
        self._pass(server, None)

    def answers(self, server: PromptServer) -> Iterator[list[Answered]]:
        """All rows in their order with their answers, `BATCH` at a time; the rest is not in memory.

        Raises:
            BadRowsError: Some cannot be answered, and that is an error.
        """
        self._forget()
        for table, batch in self._batches():
            asked = [self._asked(where, row, table, server) for where, row in batch]
            requests = [
                (name, fields)
                for one in asked
                for name, fields in one.items()
                if fields is not None
            ]
            found = iter(server.answer(requests))
            done = []
            for (where, row), one in zip(batch, asked, strict=True):
                answers = {name: None if f is None else next(found) for name, f in one.items()}
                values = {} if isinstance(row, str) else row
                self._count(where, values, table, answers)
                done.append(Answered(values, answers))
            yield done

    def _reader(self, usage: Usage) -> RowReader:
        template = usage.made
        known = {name: usage.columns.get(name, name) for name in template.fields}
        if self.text is not None:
            if len(template.fields) != 1:
                raise ValueError(
                    f"the template has the fields {', '.join(template.fields) or '(none)'}, so "
                    f"one column of text, {self.text!r}, does not do; rename the columns to these"
                )
            known = dict.fromkeys(template.fields, self.text)
        for given in (self.text, self.label):
            if given is not None and given not in self.rows.columns:
                raise ValueError(f"{self.rows.name} has {no_column(given, self.rows.columns)}")
        label = self.label or usage.label or "label"
        wanted = Columns(known, label, usage.labels, usage.numbered)
        return RowReader(self.rows, wanted, list(usage.label_words or ()))

    def _batches(self) -> Iterator[tuple[RowTable, list[tuple[str, TableRow]]]]:
        table = self.rows.table()
        rows = iter(table.rows)
        while batch := list(islice(rows, BATCH)):
            yield table, batch

    def _pass(
        self,
        server: PromptServer | None,
        look: Callable[[Sequence[Mapping[str, Any]]], None] | None,
    ) -> int:
        self._forget()
        n_rows = 0
        for table, batch in self._batches():
            for where, row in batch:
                self._asked(where, row, table, server)
            if look is not None:
                look([{} if isinstance(row, str) else row for _, row in batch])
            n_rows += len(batch)
        if self.bad and self.on_bad_rows == "error":
            others = f", and {self.bad - 1} more rows cannot be answered" if self.bad > 1 else ""
            raise BadRowsError(f"{self.first_bad}{others}; mend the data")
        return n_rows

    def _asked(
        self, where: str, row: TableRow, table: RowTable, server: PromptServer | None
    ) -> dict[str, Mapping[str, str] | None]:
        """What each prompt is asked of a row; None where it cannot be."""
        asked: dict[str, Mapping[str, str] | None] = dict.fromkeys(self._readers)
        problem = ""
        for name, reader in self._readers.items():
            try:
                fields = reader.fields(row, table, where)
            except ValueError as error:
                problem = problem or str(error)
                continue
            try:
                asked[name] = server.fitted(name, fields) if server else fields
            except ValueError as error:
                problem = problem or f"{where}: {error}"
        if problem:
            self.bad += 1
            self.first_bad = self.first_bad or problem
        return asked

    def _forget(self) -> None:
        self.bad, self.first_bad = 0, ""
        self.ties.clear()
        self.tallies = {name: Tally() for name in self.tallies}

    def _count(
        self,
        where: str,
        row: Mapping[str, Any],
        table: RowTable,
        answers: Mapping[str, Answer | None],
    ) -> None:
        """Count ties, and what the labels say of the answers."""
        for name, answer in answers.items():
            if isinstance(answer, Classified) and answer.label == NO_ANSWER:
                self.ties[name] += 1
        for name, tally in self.tallies.items():
            answer = answers[name]
            if not isinstance(answer, Classified):
                continue
            try:
                label = self._readers[name].class_of(row, table)
            except ValueError as error:
                tally.unknown += 1
                tally.first = tally.first or f"{where} has {error}"
                continue
            if label is not None:
                tally.known += 1
                tally.right += label == answer.label


def memory_rows(usage: Usage, data: Any) -> Rows:
    """Texts, mappings or a frame as rows.

    Raises:
        ValueError: They are something else, or texts alone do not do.
    """
    if isinstance(data, str):
        raise ValueError(f"one text, {data[:60]!r}, is given; give a list of texts")
    if not isinstance(data, Sequence) or not all(isinstance(one, str) for one in data):
        return Rows.of_memory(data)
    fields = usage.made.fields
    if len(fields) != 1:
        raise ValueError(
            f"the template has the fields {', '.join(fields) or '(none)'}, so texts alone do not "
            "do; give a list of mappings with each of them"
        )
    return Rows.of_memory([{usage.columns.get(fields[0], fields[0]): text} for text in data])
