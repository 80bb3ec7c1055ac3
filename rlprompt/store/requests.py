"""Answers of servers in a study's store, one a request: what was paid for is never asked again.

A search is told what its batches were told before (`Record`), and needs none of this. But a batch
that was cut off by an error or a kill has no answer there yet, and its requests have: those that
had been answered are found here, and the others alone are sent. The same requests make the bill.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rlprompt.models.served.bill import Bill, InMemory, Usage
from rlprompt.store.database import Database
from rlprompt.store.record import insert

_SUMS = (
    "SELECT count(*), coalesce(sum(tokens_in), 0), coalesce(sum(tokens_out), 0),"
    " coalesce(sum(tokens_in IS NULL OR tokens_out IS NULL), 0) FROM requests WHERE model = ?"
)


class StoredRequests:
    """Answers of servers that a study keeps (`Answers`).

    Args:
        database: The study's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, key: bytes) -> Mapping[str, Any] | None:
        """See `Answers.get`."""
        rows = self._database.read("SELECT answer FROM requests WHERE key = ?", key)
        found: Mapping[str, Any] | None = json.loads(rows[0][0]) if rows else None
        return found

    def put(self, key: bytes, model: str, answer: Mapping[str, Any], usage: Usage) -> None:
        """See `Answers.put`."""
        row = {"key": key, "model": model, "answer": json.dumps(answer), **usage._asdict()}
        self._database.write(lambda connection: insert(connection, "requests", row))

    def looked_up(self) -> LookedUp:
        """The same for whoever adds nothing to the study."""
        return LookedUp(self._database)

    @property
    def any(self) -> bool:
        """Whether there is an answer, beside those to what a server can do."""
        return bool(self._database.read("SELECT 1 FROM requests WHERE answer <> '{}' LIMIT 1"))

    def bill(self, model: str) -> Bill:
        """See `Answers.bill`."""
        (sums,) = self._database.read(_SUMS, model)
        return Bill(*sums)


class LookedUp(StoredRequests):
    """Answers of a study for what comes after it: new ones stay in memory, and are all of the bill.

    Args:
        database: The study's, which may be read-only.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._new = InMemory()

    def get(self, key: bytes) -> Mapping[str, Any] | None:
        """See `Answers.get`."""
        return super().get(key) or self._new.get(key)

    def put(self, key: bytes, model: str, answer: Mapping[str, Any], usage: Usage) -> None:
        """See `Answers.put`."""
        self._new.put(key, model, answer, usage)

    def bill(self, model: str) -> Bill:
        """What the new answers come to."""
        return self._new.bill(model)
