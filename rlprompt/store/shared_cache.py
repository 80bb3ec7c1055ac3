"""Answers that several studies share, in a file of their own.

A study never depends on it: what it finds here goes into its own store, and a cache that cannot be
used is left with a warning while the search goes on. Remove the file to empty it.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt
from rlprompt.search.memo import Answer, Answers
from rlprompt.store.database import Database, StoreError
from rlprompt.store.record import SCORING, content_key, decoded, encoded
from rlprompt.tasks.base import Task
from rlprompt.types import Ids

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds that a locked cache or a full disk is waited for; a search has better things to do.
PATIENCE = 5.0

# As for `store.MIGRATIONS`.
MIGRATIONS = (
    """
    CREATE TABLE shared (
        id INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,
        rewards BLOB NOT NULL,
        gradients BLOB,
        seconds REAL NOT NULL,
        outputs BLOB,
        checksum BLOB NOT NULL
    )
    """,
)


class Cache:
    """A file of answers by content; a context that holds it.

    Args:
        path: The file, made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database: Database | None = None
        self._database = self._attempt(lambda: Database(path, MIGRATIONS, patience=PATIENCE))

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def find(self, key: bytes, prompts: Sequence[Prompt]) -> Answer | None:
        """The answer to a batch of prompts, or None."""
        database = self._database
        if database is None:
            return None
        sql = "SELECT rewards, gradients, seconds, outputs, checksum FROM shared WHERE key = ?"
        rows = self._attempt(lambda: database.read(sql, key))
        if not rows:
            return None
        *row, checksum = rows[0]
        if checksum != _checksum(key, row):
            self._leave(f"{self.path} is damaged; remove it")
            return None
        return decoded(row, prompts)

    def keep(self, key: bytes, answer: Answer) -> None:
        """Add an answer, if there is none yet."""
        database, row = self._database, encoded(answer)
        if database is None:
            return
        sql = (
            "INSERT INTO shared (key, rewards, gradients, seconds, outputs, checksum)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING"
        )

        def steps(connection: sqlite3.Connection) -> None:
            connection.execute(sql, (key, *row, _checksum(key, row)))

        self._attempt(lambda: database.write(steps))

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


class Cached:
    """The answers of a run with a cache behind them (`objective.Answers`).

    Args:
        own: The run's record, which all that is found in the cache is put into.
        cache: The cache.
        lm: The model that answers.
        task: The task that it is asked for.
    """

    def __init__(self, own: Answers, cache: Cache, lm: FrozenLM, task: Task) -> None:
        self._own = own
        self._cache = cache
        # More than the scope of a record: a study holds the same examples from its first day to
        # its last, and two tasks of its own making may go by one fingerprint elsewhere.
        kind = f"{task.__class__.__module__}.{task.__class__.__qualname__} {task.name!r}"
        content = f"{task.fingerprint} {task.splits.digest}"
        self._scope = f"{SCORING} {lm.fingerprint.digest} {kind} {content}"

    def find(self, prompts: Sequence[Prompt], *, gradient: bool) -> Answer | None:
        """See `Answers.find`."""
        answer = self._own.find(prompts, gradient=gradient)
        if answer is None:
            shared = self._cache.find(self._key(prompts, gradient), prompts)
            answer = self._own.keep(prompts, shared) if shared else None
        return answer

    def keep(self, prompts: Sequence[Prompt], answer: Answer) -> Answer:
        """See `Answers.keep`."""
        kept = self._own.keep(prompts, answer)
        self._cache.keep(self._key(prompts, kept.gradients is not None), kept)
        return kept

    def find_hidden(self, texts: Sequence[Ids]) -> NDArray[np.float32] | None:
        """See `Answers.find_hidden`; not shared, for it is quick to compute and large."""
        return self._own.find_hidden(texts)

    def keep_hidden(self, texts: Sequence[Ids], hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Answers.keep_hidden`."""
        return self._own.keep_hidden(texts, hidden)

    def _key(self, prompts: Sequence[Prompt], gradient: bool) -> bytes:
        return content_key(f"{self._scope} {gradient}", prompts)


def _checksum(key: bytes, row: Sequence[Any]) -> bytes:
    """A hash of a row's content: damage that SQLite does not see must not become an answer."""
    digest = hashlib.blake2b(key, digest_size=16)
    for value in row:
        digest.update(value if isinstance(value, bytes) else repr(value).encode())
    return digest.digest()
