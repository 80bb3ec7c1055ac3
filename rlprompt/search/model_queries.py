"""What a method may ask models beside rewards: no row is charged, tokens are counted.

Answers are remembered like those that were paid for, so that a replay is told the same and nobody
is asked twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rlprompt.prompt import SoftPrompt
from rlprompt.search.budget import Ledger
from rlprompt.search.memo import (
    HiddenQuestion,
    KeysQuestion,
    Memo,
    Reading,
    ReadingQuestion,
    Writing,
    WritingQuestion,
    remembered,
)
from rlprompt.types import Ids, Written

if TYPE_CHECKING:
    from rlprompt.models.decoding import Decoding
    from rlprompt.models.lm import FrozenLM
    from rlprompt.models.writing import Writer


class ModelQueries:
    """The part of an `Objective` that costs no rows."""

    lm: FrozenLM
    ledger: Ledger
    waited: float
    _memo: Memo | None

    def hidden(
        self, texts: Sequence[Ids], after: Sequence[Sequence[Ids]] = ()
    ) -> NDArray[np.float32]:
        """What the frozen model makes of texts, for a method that builds on what it would write.

        No reward comes of it, so no row is charged; it is found again in a replay like an answer.
        The tokens are counted (`Ledger.own_tokens`): of a text that goes on with one of `after`,
        those that are new.

        Args:
            texts: (B,) token ids, as for `FrozenLM.last_hidden`.
            after: What was asked before, as for `FrozenLM.last_hidden`; the same in a replay.

        Returns:
            (B, W) float32, what the model's output head is given at the end of each.

        Raises:
            ValueError: As for `FrozenLM.last_hidden`.
        """
        question = HiddenQuestion(tuple(texts), tuple(map(tuple, after)))
        known = set(chain.from_iterable(question.after))
        self.ledger.own_tokens += sum(_unread(text, known) for text in set(question.texts))
        return self._read(question, lambda: self.lm.last_hidden(texts, after))

    def keys_and_values(self, prompts: Sequence[SoftPrompt]) -> NDArray[np.float32]:
        """What the model's layers make of soft prompts; charged, counted and found as `hidden` is.

        Args:
            prompts: (P,), as for `FrozenLM.keys_and_values`; errors and shape as there.
        """
        question = KeysQuestion(tuple(prompts), self.lm.limits.position_shape)
        self.ledger.own_tokens += sum(map(len, set(prompts)))
        return self._read(question, lambda: self.lm.keys_and_values(prompts))

    def _read(
        self, question: ReadingQuestion, compute: Callable[[], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """What the model makes of what it is to read; its seconds are those of the first time."""

        def ask() -> Reading:
            asked = time.perf_counter()
            return Reading(compute(), time.perf_counter() - asked)

        began = time.perf_counter()
        reading = remembered(self._memo, question, ask)
        self.ledger.reading_seconds += reading.seconds
        self.waited += time.perf_counter() - began
        return reading.vectors

    def written(
        self, writer: Writer, requests: Sequence[str], decoding: Decoding
    ) -> tuple[Written, ...]:
        """What a writer answers to requests, for a method that has prompts proposed to it.

        The tokens, read and written, are a meter of their own (`Ledger.proposer_read`), for the
        writer may be another model than the one that is searched for. An answer is kept before it
        is used: where a writer answers otherwise every time, a replay is told the same all the
        same.

        Args:
            writer: Who is asked.
            requests: (R,) texts.
            decoding: How it is to write; its seed tells one asking from another.

        Returns:
            (R,) answers.

        Raises:
            ValueError: As for `Writer.write`, or it gave too few answers, or too many.
        """
        began = time.perf_counter()
        question = WritingQuestion(writer.digest, tuple(requests), decoding)

        def ask() -> Writing:
            answers = tuple(Written(*one) for one in writer.write(requests, decoding))
            if len(answers) != len(requests):
                raise ValueError(
                    f"{writer.name} gave {len(answers)} answers to {len(requests)} requests; a "
                    "writer gives one to each"
                )
            return Writing(answers, time.perf_counter() - began)

        writing = remembered(self._memo, question, ask)
        self.ledger.proposer_read += sum(one.n_read for one in writing.answers)
        self.ledger.proposer_written += sum(one.n_written for one in writing.answers)
        self.ledger.proposer_seconds += writing.seconds
        self.waited += time.perf_counter() - began
        return writing.answers


def _unread(text: Ids, known: Collection[Ids]) -> int:
    """Tokens of a text behind the longest beginning of it that is known."""
    return min((n for n in range(len(text)) if text[: len(text) - n] in known), default=len(text))
