"""The answers that one run was given, so that it can be given them again."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.search.memo import Answer
from rlprompt.search.objective import GRADIENT_ROWS
from rlprompt.search.result import prompt_state
from rlprompt.store.database import Database, StoreError
from rlprompt.types import Ids, Outputs

logger = logging.getLogger(__name__)

# Part of every key. Raise it when a change to scoring changes scores by more than rounding.
SCORING = 1

_SELECT = "SELECT id, rewards, gradients, seconds, outputs FROM answers WHERE key = ?"
_SELECT_HIDDEN = "SELECT vectors FROM hidden WHERE key = ?"


class Record:
    """The answers of one run (`objective.Answers`): found in the store, or put there.

    What a search is told is always what the store holds, so a replay is told the same. The seconds
    of an answer are those of the day it was computed: a run that was resumed reports what one
    without a break would, and an answer that another run paid for counts in full.

    Args:
        database: The study's.
        run: Row of the run.
        name: Its name, for messages.
        model: The model's fingerprint.
        task: The task's. Model, task and prompts decide an answer.
        extra_rows: What each prompt costs beyond its examples (`PricedTask`).
        worker: Who has the run.
    """

    def __init__(
        self,
        database: Database,
        run: int,
        name: str,
        model: str,
        task: str,
        extra_rows: int,
        worker: str,
    ) -> None:
        self._database = database
        self._run = run
        self._name = name
        self._model = f"{SCORING} {model}"
        self._scope = f"{self._model} {task}"
        self._worker = worker
        self._progress = _Progress(extra_rows)

    def find(self, prompts: Sequence[Prompt], *, gradient: bool) -> Answer | None:
        """See `Answers.find`."""
        rows = self._database.read(_SELECT, self._key(prompts, gradient))
        if not rows:
            return None
        identity, *row = rows[0]
        answer = decoded(row, prompts)
        progress = self._progress.after(answer)
        recorded = self._recorded()
        if recorded != identity:
            self._database.write(lambda c: self._enter(c, progress, recorded, identity))
        self._progress = progress
        return answer

    def keep(self, prompts: Sequence[Prompt], answer: Answer) -> Answer:
        """See `Answers.keep`."""
        values = (
            self._key(prompts, answer.gradients is not None),
            json.dumps(_states(prompts, answer)),
            bytes.fromhex("".join(prompt.digest for prompt in prompts)),
            *encoded(answer),
        )
        recorded = self._recorded()

        def steps(connection: sqlite3.Connection) -> tuple[Answer, _Progress]:
            # Another worker may have asked the same meanwhile: then its answer stays.
            connection.execute(
                "INSERT INTO answers (key, prompts, digests, rewards, gradients, seconds, outputs)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
                values,
            )
            identity, *row = connection.execute(_SELECT, values[:1]).fetchone()
            kept = decoded(row, prompts)
            progress = self._progress.after(kept)
            self._enter(connection, progress, recorded, identity)
            return kept, progress

        kept, self._progress = self._database.write(steps)
        return kept

    def find_hidden(self, texts: Sequence[Ids]) -> NDArray[np.float32] | None:
        """See `Answers.find_hidden`."""
        rows = self._database.read(_SELECT_HIDDEN, self._hidden_key(texts))
        return _hidden(rows[0][0], texts) if rows else None

    def keep_hidden(self, texts: Sequence[Ids], hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Answers.keep_hidden`."""
        values = self._hidden_key(texts), hidden.astype("<f4").tobytes()

        def steps(connection: sqlite3.Connection) -> NDArray[np.float32]:
            connection.execute(
                "INSERT INTO hidden VALUES (?, ?) ON CONFLICT (key) DO NOTHING", values
            )
            (kept,) = connection.execute(_SELECT_HIDDEN, values[:1]).fetchone()
            return _hidden(kept, texts)

        return self._database.write(steps)

    def _hidden_key(self, texts: Sequence[Ids]) -> bytes:
        # No task: what the model makes of a text is the same in all.
        content = f"{self._model} hidden {list(texts)}".encode()
        return hashlib.blake2b(content, digest_size=16).digest()

    def _key(self, prompts: Sequence[Prompt], gradient: bool) -> bytes:
        return content_key(f"{self._scope} {gradient}", prompts)

    def _recorded(self) -> int | None:
        """The answer that the run got here before, or None where it had not come so far."""
        rows = self._database.read(
            "SELECT answer FROM evaluations WHERE run = ? AND position = ?",
            self._run,
            self._progress.position,
        )
        return int(rows[0][0]) if rows else None

    def _enter(
        self,
        connection: sqlite3.Connection,
        progress: _Progress,
        recorded: int | None,
        answer: int,
    ) -> None:
        """Enter an answer here, in place of what a strayed run had from here on."""
        position = self._progress.position
        if recorded is not None:
            logger.warning(
                "%s does not repeat itself: batch %d asks for something else than before (another "
                "machine's arithmetic, or another version of a library). It goes on from there "
                "with new answers, and is marked",
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
                None if recorded is None else position,
                *(self._run, self._worker),
            ),
        )
        check_owner(updated, self._name)
        connection.execute(
            "INSERT INTO evaluations VALUES (?, ?, ?)", (self._run, position, answer)
        )


def content_key(scope: str, prompts: Sequence[Prompt]) -> bytes:
    """What a stored answer is found by: a hash of all that decides it."""
    digest = hashlib.blake2b(scope.encode(), digest_size=16)
    for prompt in prompts:
        digest.update(prompt.digest.encode())
    return digest.digest()


@dataclass(frozen=True)
class _Progress:
    """How far a run has come; `extra_rows` are those of a prompt beyond its examples."""

    extra_rows: int
    position: int = 0
    used: int = 0
    n_prompts: int = 0
    best: float = -math.inf
    seconds: float = 0.0

    def after(self, answer: Answer) -> _Progress:
        """How far it has come with one more answer."""
        n_prompts, n_examples = answer.per_example.shape
        rows = n_prompts * (n_examples + self.extra_rows)
        return _Progress(
            self.extra_rows,
            self.position + 1,
            self.used + rows * (1 if answer.gradients is None else GRADIENT_ROWS),
            self.n_prompts + n_prompts,
            max(self.best, float(answer.per_example.mean(axis=1).max())),
            self.seconds + answer.seconds,
        )


def check_owner(updated: sqlite3.Cursor, name: str) -> None:
    """Refuse what a worker writes about a run that it has no more.

    Raises:
        StoreError: Nothing was updated, because another worker has the run.
    """
    if not updated.rowcount:
        raise StoreError(
            f"{name} was taken over by another worker, which goes on with it; this one was silent "
            "for too long (a suspended machine?) and leaves it"
        )


def encoded(answer: Answer) -> tuple[bytes, bytes | None, float, bytes | None]:
    """An answer as a row of rewards, gradients, seconds and texts."""
    gradients, outputs = answer.gradients, answer.outputs
    return (
        answer.per_example.astype("<f8").tobytes(),
        None if gradients is None else np.asarray(gradients, dtype="<f4").tobytes(),
        answer.seconds,
        # What a model wrote repeats itself: it shrinks to a third.
        None if outputs is None else zlib.compress(json.dumps(outputs).encode()),
    )


def texts(content: bytes) -> Outputs:
    """The texts in a row."""
    return tuple(map(tuple, json.loads(zlib.decompress(content))))


def _hidden(content: bytes, asked: Sequence[Ids]) -> NDArray[np.float32]:
    return np.frombuffer(content, dtype="<f4").reshape(len(asked), -1).astype(np.float32)


def decoded(row: Sequence[Any], prompts: Sequence[Prompt]) -> Answer:
    """The answer in a row of rewards, gradients, seconds and texts."""
    rewards, gradients, seconds, outputs = row
    # Copies: what is read from the file cannot be written to, and PyTorch refuses that.
    per_example = np.frombuffer(rewards, dtype="<f8").reshape(len(prompts), -1).copy()
    written = None if outputs is None else texts(outputs)
    return Answer(per_example, _gradients(gradients, prompts), seconds, written)


def _gradients(content: bytes | None, prompts: Sequence[Prompt]) -> NDArray[np.float32] | None:
    if content is None:
        return None
    soft = [prompt.vectors for prompt in prompts if isinstance(prompt, SoftPrompt)]
    flat = np.frombuffer(content, dtype="<f4")
    return flat.reshape(len(soft), *soft[0].shape).astype(np.float32)


def _states(prompts: Sequence[Prompt], answer: Answer) -> list[dict[str, Any] | None]:
    """The prompts as JSON values; of soft prompts, which are large, the best alone."""
    best = int(answer.per_example.mean(axis=1).argmax())
    return [
        prompt_state(prompt) if isinstance(prompt, TokenPrompt) or i == best else None
        for i, prompt in enumerate(prompts)
    ]
