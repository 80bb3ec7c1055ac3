"""Scores outside any budget in a study's store."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence

import numpy as np

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt
from rlprompt.search.evaluation import Finding
from rlprompt.store.database import Database
from rlprompt.store.record import SCORING, content_key, texts
from rlprompt.tasks.base import Measured, Task


class StoredScores:
    """Scores in a study's store (`unmetered.Scores`), found by content.

    Args:
        database: The study's.
        lm: The model that gives them.
        task: The task that they are on.
        apart: What keeps them from those of other purposes, which are not found; "" for the study.
    """

    def __init__(self, database: Database, lm: FrozenLM, task: Task, apart: str = "") -> None:
        self._database = database
        self._scope = (
            f"{SCORING} {lm.fingerprint.digest} {task.fingerprint} {task.splits.digest}{apart}"
        )

    def find(
        self, prompts: Sequence[Prompt], split: str, which: Sequence[int] | None = None
    ) -> Finding | None:
        """See `Scores.find`."""
        rows = self._database.read(
            "SELECT at, seconds, rewards, metrics, answers FROM scores WHERE key = ?",
            self._key(prompts, split, which),
        )
        if not rows:
            return None
        at, seconds, rewards, metrics, answers = rows[0]
        rewards, metrics = (
            np.frombuffer(content, dtype="<f8").reshape(len(prompts), -1).copy()
            for content in (rewards, metrics)
        )
        written = None if answers is None else texts(answers)
        return Finding(Measured(rewards, metrics, written), at, seconds)

    def keep(
        self,
        prompts: Sequence[Prompt],
        split: str,
        finding: Finding,
        which: Sequence[int] | None = None,
    ) -> None:
        """See `Scores.keep`."""
        rewards, metrics, answers = finding.measured
        values = (
            self._key(prompts, split, which),
            split,
            finding.at,
            finding.seconds,
            *(part.astype("<f8").tobytes() for part in (rewards, metrics)),
            None if answers is None else zlib.compress(json.dumps(answers).encode()),
        )
        self._database.write(
            lambda connection: connection.execute(
                "INSERT INTO scores VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
                values,
            )
        )

    def _key(self, prompts: Sequence[Prompt], split: str, which: Sequence[int] | None) -> bytes:
        some = "" if which is None else f" {list(which)}"
        return content_key(f"{self._scope} {split}{some}", prompts)
