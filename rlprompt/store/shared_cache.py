"""Answers that several studies share, in a file of their own.

A study never depends on it: what it finds here goes into its own store, and a cache that cannot be
used is left with a warning while the search goes on. Remove the file to empty it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rlprompt.search.memo import Memo, Question, Scope, TrainQuestion, V
from rlprompt.store.database import Database, Schema, StoreError
from rlprompt.store.record import insert

if TYPE_CHECKING:
    from rlprompt.models.lm import FrozenLM
    from rlprompt.tasks.base import Task

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds that a locked cache or a full disk is waited for; a search has better things to do.
PATIENCE = 5.0

# Formats 1 and 2 came before the first release.
SHARED = Schema(
    format=3,
    script="""
    CREATE TABLE shared (
        id INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,
        rewards BLOB NOT NULL,
        gradients BLOB,
        outputs BLOB,
        judge_tokens INTEGER NOT NULL,
        seconds REAL NOT NULL,
        checksum BLOB NOT NULL
    )
    """,
    advice="remove it, or name another file",
)


class Cache:
    """A file of answers by content; a context that holds it.

    Args:
        path: The file, made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database: Database | None = None
        self._database = self._attempt(lambda: Database(path, SHARED, patience=PATIENCE))

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def get(self, key: bytes, question: Question[V]) -> V | None:
        """The answer to a question, or None."""
        database = self._database
        if database is None:
            return None
        sql = f"SELECT checksum, {', '.join(question.columns)} FROM shared WHERE key = ?"
        rows = self._attempt(lambda: database.read(sql, key))
        if not rows:
            return None
        checksum, *row = rows[0]
        if checksum != _checksum(key, row):
            self._leave(f"{self.path} is damaged; remove it")
            return None
        return question.decoded(row)

    def put(self, key: bytes, question: Question[V], answer: V) -> None:
        """Add an answer, if there is none yet."""
        database, encoded = self._database, question.encoded(answer)
        if database is None:
            return
        values = {column: encoded[column] for column in question.columns}
        row = {"key": key, **values, "checksum": _checksum(key, values.values())}
        self._attempt(lambda: database.write(lambda connection: insert(connection, "shared", row)))

    def _attempt(self, action: Callable[[], T]) -> T | None:
        try:
            return action()
        except StoreError as error:
            self._leave(str(error))
            return None

    def _leave(self, why: str) -> None:
        logger.warning("going on without the cache: %s", why)
        self._close()

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
        self._database = None


class SharedMemo:
    """The answers of a run with a cache behind them (`Memo`).

    Only rewards are shared: what else is asked is quick to compute and large, or opens test.

    Args:
        own: The run's record, which all that is found in the cache is put into.
        cache: The cache.
        lm: The model that answers.
        task: The task that it is asked for.
    """

    def __init__(self, own: Memo, cache: Cache, lm: FrozenLM, task: Task) -> None:
        self._own = own
        self._cache = cache
        # More than the scope of a record: a study holds the same examples from its first day to
        # its last, and two tasks of its own making may go by one fingerprint elsewhere. No module:
        # where a class is kept decides nothing.
        scope = Scope.of(lm, task)
        kind = f"{task.__class__.__qualname__} {task.name!r}"
        self._scope = scope._replace(task=f"{kind} {scope.task} {scope.examples}")

    def get(self, question: Question[V]) -> V | None:
        """See `Memo.get`."""
        found = self._own.get(question)
        if found is None and question.table == TrainQuestion.table:
            shared = self._cache.get(question.key(self._scope), question)
            found = None if shared is None else self._own.put(question, shared)
        return found

    def put(self, question: Question[V], answer: V) -> V:
        """See `Memo.put`."""
        kept = self._own.put(question, answer)
        if question.table == TrainQuestion.table:
            self._cache.put(question.key(self._scope), question, kept)
        return kept


def _checksum(key: bytes, row: Iterable[Any]) -> bytes:
    """A hash of a row's content: damage that SQLite does not see must not become an answer."""
    digest = hashlib.blake2b(key, digest_size=16)
    for value in row:
        digest.update(value if isinstance(value, bytes) else repr(value).encode())
    return digest.digest()
