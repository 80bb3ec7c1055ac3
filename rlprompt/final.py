"""Scores outside any budget, kept: of controls, and of the best prompts of a search.

A search that was killed while it chose on dev does not choose again, and opens test once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from rlprompt.database import Database
from rlprompt.lm import FrozenLM
from rlprompt.prompt import Prompt
from rlprompt.record import SCORING, content_key
from rlprompt.result import Score
from rlprompt.task import Task


class StoredScores:
    """Final scores in a study's store (`search.Scores`), found by content.

    Args:
        database: The study's.
        lm: The model that gives them.
        task: The task that they are on.
    """

    def __init__(self, database: Database, lm: FrozenLM, task: Task) -> None:
        self._database = database
        self._scope = f"{SCORING} {lm.fingerprint.digest} {task.fingerprint} {task.splits.digest}"

    def find(self, prompts: Sequence[Prompt], split: str) -> list[Score] | None:
        """See `Scores.find`."""
        rows = self._database.read(
            "SELECT scores FROM scores WHERE key = ?", self._key(prompts, split)
        )
        return [Score(*pair) for pair in json.loads(rows[0][0])] if rows else None

    def keep(self, prompts: Sequence[Prompt], split: str, scores: Sequence[Score]) -> None:
        """See `Scores.keep`."""
        pairs = json.dumps([(score.reward, score.metric) for score in scores], allow_nan=False)
        values = (self._key(prompts, split), split, pairs)
        self._database.write(
            lambda connection: connection.execute(
                "INSERT INTO scores VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING", values
            )
        )

    def _key(self, prompts: Sequence[Prompt], split: str) -> bytes:
        return content_key(f"{self._scope} {split}", prompts)
