"""Models that scale the positions of a long text otherwise than those of a short one (LongRoPE).

transformers takes one scaling for a whole pass, by its longest row, so that a short text would be
scored otherwise beside a long one. Here a text is what it is alone: passes hold texts of one side
of a limit, and what is packed, keys and values that are kept included, is of short texts alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rlprompt.models.decoding import AnswerEnd, Draws, Generated
from rlprompt.models.packed.generation import PackedGenerator
from rlprompt.models.packed.scoring import PackedScorer
from rlprompt.models.plain import PlainScorer
from rlprompt.models.plain_generation import PlainGenerator
from rlprompt.models.scorer import Consume, Generator, Over, Scorer
from rlprompt.template import Query
from rlprompt.types import Ids


@dataclass(frozen=True)
class LongRopeScorer:
    """Scores queries packed whose texts are all short, and others plain.

    Args:
        packed: Scores those with short texts.
        plain: Scores the others.
        rope_limit: Tokens of the longest short text.
    """

    packed: PackedScorer
    plain: PlainScorer
    rope_limit: int

    def score(
        self,
        prompts: Sequence[Ids],
        vectors: Tensor | None,
        queries: Sequence[Query],
        over: Over,
        consume: Consume,
    ) -> None:
        """See `Scorer.score`."""
        lengths = [max(map(len, query.candidates)) - 1 for query in queries]
        short, long = _sides(prompts, queries, lengths, self.rope_limit)
        scorers: tuple[tuple[Scorer, list[int]], ...] = (self.packed, short), (self.plain, long)
        for scorer, own in scorers:

            def hand_on(index: NDArray[np.int64], loglik: Tensor, own: Any = own) -> Tensor | None:
                p, q = np.divmod(index, len(own))
                return consume(p * len(queries) + np.array(own)[q], loglik)

            if own:
                scorer.score(prompts, vectors, [queries[q] for q in own], over, hand_on)


@dataclass(frozen=True)
class LongRopeGenerator:
    """Writes packed where the text and the longest answer are short, and else plain.

    Args:
        packed: Writes where text and longest answer are short.
        plain: Writes elsewhere.
        rope_limit: Tokens of the longest short text.
    """

    packed: PackedGenerator
    plain: PlainGenerator
    rope_limit: int

    def generate(
        self,
        prompts: Sequence[Ids],
        vectors: Tensor | None,
        queries: Sequence[Query],
        draws: Draws,
        end: AnswerEnd,
    ) -> list[Generated]:
        """See `Generator.generate`."""
        n = len(queries)
        lengths = [end.decoding.max_new_tokens - 1] * n
        short, long = _sides(prompts, queries, lengths, self.rope_limit)
        answers: dict[int, Generated] = {}
        generators: tuple[tuple[Generator, list[int]], ...] = (
            (self.packed, short),
            (self.plain, long),
        )
        for generator, own in generators:
            if own:
                pairs = [p * n + q for p in range(len(prompts)) for q in own]
                asked = [queries[q] for q in own]
                found = generator.generate(prompts, vectors, asked, draws[pairs], end)
                answers |= zip(pairs, found, strict=True)
        return [answers[pair] for pair in range(len(prompts) * n)]


def _sides(
    prompts: Sequence[Ids], queries: Sequence[Query], lengths: Sequence[int], rope_limit: int
) -> tuple[list[int], list[int]]:
    """Places of the queries whose texts are short under all prompts, and of the others.

    Args:
        prompts: Virtual ids, (P,) of them.
        queries: (Q,) of them.
        lengths: Tokens that the model is fed after each, at the most.
        rope_limit: Tokens of the longest short text.
    """
    longest = max(map(len, prompts))
    sides: tuple[list[int], list[int]] = ([], [])
    for q, (query, length) in enumerate(zip(queries, lengths, strict=True)):
        sides[query.n_text + longest + length > rope_limit].append(q)
    return sides
