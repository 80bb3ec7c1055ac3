"""Answers in a study's store: those that its runs share, and which of them a run was given."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlprompt._utils.text import counted
from rlprompt.search.blocks import PartialRewards
from rlprompt.search.memo import Answer, Question, Scope, TrainQuestion, V
from rlprompt.store.database import Database, StoreError
from rlprompt.tasks.base import Task, prompt_rows
from rlprompt.tasks.completed import as_task

if TYPE_CHECKING:
    from rlprompt.models.lm import FrozenLM

logger = logging.getLogger(__name__)

# The answer that a run was given at a position, where it had come so far.
_GIVEN = (
    "SELECT cost FROM evaluations JOIN answers ON answers.id = answer"
    " WHERE run = ? AND position = ?"
)


class StoredMemo:
    """Answers in a study's store (`Memo`), found by content.

    What is told is always what the store holds, so a replay is told the same. The seconds of an
    answer are those of the day it was computed: a run that was resumed reports what one without a
    break would, and an answer that another run paid for counts in full.

    Args:
        database: The study's.
        lm: The model that answers.
        task: The task that it is asked for.
        apart: What keeps scores from those of other purposes, which are not found; "" for the
            study's own.
    """

    def __init__(self, database: Database, lm: FrozenLM, task: Task, apart: str = "") -> None:
        self._database = database
        self._scope = Scope.of(lm, task, apart)

    def get(self, question: Question[V]) -> V | None:
        """See `Memo.get`."""
        rows = self._database.read(_select(question), question.key(self._scope))
        return question.decoded(rows[0]) if rows else None

    def put(self, question: Question[V], answer: V) -> V:
        """See `Memo.put`."""
        key = question.key(self._scope)
        row = {"key": key, **question.encoded(answer)}

        def steps(connection: sqlite3.Connection) -> V:
            insert(connection, question.table, row)
            kept = question.decoded(connection.execute(_select(question), (key,)).fetchone())
            if isinstance(question, TrainQuestion) and isinstance(kept, Answer):
                self._enter(connection, key, question, kept)
            return kept

        return self._database.write(steps)

    def _enter(
        self, connection: sqlite3.Connection, key: bytes, question: TrainQuestion, answer: Answer
    ) -> None:
        """Note, as part of writing an answer, who was given it."""


class Record(StoredMemo):
    """The answers of one run: what it is given is noted, so that it can be given it again.

    Args:
        database: The study's.
        lm: The model that answers.
        task: The task that it is asked for.
        name: The run's name.
        worker: Who has the run.
    """

    def __init__(
        self, database: Database, lm: FrozenLM, task: Task, name: str, worker: str
    ) -> None:
        super().__init__(database, lm, task)
        ((self._run,),) = database.read("SELECT id FROM runs WHERE name = ?", name)
        self._name = name
        self._worker = worker
        self._task = as_task(task)
        partial = PartialRewards(len(task.splits.train), not self._task.scored_together)
        self._progress = _Progress(self._task, partial)

    def get(self, question: Question[V]) -> V | None:
        """See `Memo.get`."""
        found = super().get(question)
        if isinstance(question, TrainQuestion) and isinstance(found, Answer):
            key, asked, answer = question.key(self._scope), question, found
            place = self._run, self._progress.position
            given = self._database.read(f"{_GIVEN} AND key = ?", *place, key)
            if given:
                self._check_bill(given[0][0], asked, answer)
            else:
                self._database.write(lambda connection: self._enter(connection, key, asked, answer))
            self._progress = self._progress.after(asked, answer)
        return found

    def _check_bill(self, then: int, asked: TrainQuestion, answer: Answer) -> None:
        """Refuse to go on with a run that was charged otherwise than it would be today."""
        n_examples, gradient = answer.per_example.shape[1], asked.gradient
        now = prompt_rows(self._task, n_examples, loss=asked.climbed)
        if then != now:
            raise StoreError(
                f"{self._name} was charged {then} rows for a {'gradient' if gradient else 'prompt'}"
                f" on {counted(n_examples, 'example')}, which costs {now} now, so it cannot be "
                "resumed; start the study again in a new folder with --restart"
            )

    def put(self, question: Question[V], answer: V) -> V:
        """See `Memo.put`."""
        kept = super().put(question, answer)
        if isinstance(question, TrainQuestion) and isinstance(kept, Answer):
            self._progress = self._progress.after(question, kept)
        return kept

    def _enter(
        self, connection: sqlite3.Connection, key: bytes, question: TrainQuestion, answer: Answer
    ) -> None:
        """Enter an answer here, in place of what a strayed run had from here on."""
        progress, position = self._progress.after(question, answer), self._progress.position
        strayed = connection.execute(_GIVEN, (self._run, position)).fetchone() is not None
        if strayed:
            logger.warning(
                "%s does not repeat itself: batch %d asks for other prompts than before (was it "
                "another machine, or another version of a library?). It goes on from there with "
                "new scores, and `rlprompt show` marks it as strayed",
                self._name,
                position,
            )
            connection.execute(
                "DELETE FROM evaluations WHERE run = ? AND position >= ?", (self._run, position)
            )
        updated = connection.execute(
            "UPDATE runs SET used = ?, n_prompts = ?, best_reward = ?, seconds = ?,"
            " strayed = coalesce(strayed, ?) WHERE id = ? AND owner = ?",
            (
                *(progress.used, progress.n_prompts, progress.best, progress.seconds),
                position if strayed else None,
                *(self._run, self._worker),
            ),
        )
        check_owner(updated, self._name)
        connection.execute(
            "INSERT INTO evaluations (run, position, answer, completed, cost)"
            " SELECT ?, ?, id, ?, ? FROM answers WHERE key = ?",
            (self._run, position, progress.completed, progress.cost, key),
        )


def insert(connection: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> None:
    """Add a row, unless its key is there: another worker may have asked the same meanwhile."""
    places = ", ".join("?" * len(row))
    connection.execute(
        f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places}) ON CONFLICT (key) DO NOTHING",
        tuple(row.values()),
    )


def _select(question: Question[V]) -> str:
    return f"SELECT {', '.join(question.columns)} FROM {question.table} WHERE key = ?"


@dataclass(frozen=True)
class _Progress:
    """How far a run has come.

    Attributes:
        task: Says what a prompt costs.
        partial: Rewards of prompts that were not scored on all examples yet.
        completed: Of the last answer, see `schema`.
        cost: Of the last answer, see `schema`.
    """

    task: Task
    partial: PartialRewards
    position: int = 0
    used: int = 0
    n_prompts: int = 0
    best: float | None = None
    seconds: float = 0.0
    completed: bytes | None = None
    cost: int = 0

    def after(self, question: TrainQuestion, answer: Answer) -> _Progress:
        """How far it has come with one more answer."""
        n_prompts, n_examples = answer.per_example.shape
        cost = prompt_rows(self.task, n_examples, loss=question.climbed)
        partial, completed = self.partial, None
        if question.examples is None:
            means = answer.per_example.mean(axis=1)
        else:
            partial = partial.copy()  # what is written may have to be written again
            added = [
                partial.add(prompt.digest, question.examples, rewards)
                for prompt, rewards in zip(question.prompts, answer.per_example, strict=True)
            ]
            means = np.array([np.nan if mean is None else mean for mean in added])
            completed = means.astype("<f8").tobytes()
            means = means[~np.isnan(means)]
        known = () if self.best is None else (self.best,)
        return _Progress(
            self.task,
            partial,
            self.position + 1,
            self.used + n_prompts * cost,
            self.n_prompts + len(means),
            max((*known, *means.tolist()), default=None),
            self.seconds + answer.seconds,
            completed,
            cost,
        )


def check_owner(updated: sqlite3.Cursor, name: str) -> None:
    """Refuse what a worker writes about a run that it has no more.

    Raises:
        StoreError: Nothing was updated, because another worker has the run.
    """
    if not updated.rowcount:
        raise StoreError(
            f"{name} was taken over by another worker, which finishes it; this worker showed no "
            "sign of life for too long (was the machine suspended?) and leaves it"
        )
