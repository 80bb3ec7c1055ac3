"""Growing a prompt from common words, scored on a few examples at first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np

from rlprompt.agents.shared.ranges import check_ranges, check_share
from rlprompt.prompt import TokenPrompt
from rlprompt.search.allocation import halve, halving_size, mean_rewards
from rlprompt.search.objective import Objective
from rlprompt.search.pools import first_words
from rlprompt.search.space import TokenSpace
from rlprompt.types import PromptKind


@dataclass(frozen=True)
class Grow:
    """Put one more common word into the best prompts so far, again and again.

    Ours. A few natural words generalise where as many random tokens fit the train examples by
    heart, so the search begins with single words, and with the starts if there are any. In each
    round a beam of the best prompts gets one of the best words at one of its places; where that
    improves nothing, a word is replaced or left out instead. The rivals of a round are scored on a
    few train examples, the same for all, the better third of them on more, and what is left on all
    (sequential halving, Karnin et al. 2013), and no prompt is one twice. A beam search with edits,
    as GrIPS (Prasad et al. 2023, arXiv 2203.07281; `perform_edit` of its code) does on the phrases
    of an instruction, without an instruction to begin with.

    >>> from rlprompt import Length, search
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> result = search(ToyTask(), toy_lm(), Grow(words=20), budget=200, length=Length(3))
    >>> 1 <= len(result.best.prompt) <= 3
    True

    Args:
        words: Words in the pool, 2 or more: the first of the space's own order
            (`TokenSpace.ranked`), or else the most common of those that are allowed
            (`first_words`).
        beam: Prompts that grow in a round, 1 or more.
        first: Share of the budget that starts and single words may cost, above 0 and below 1.
        share: Share of what is left that a round may cost, above 0 and at most 1. All four numbers
            are ours, not tuned.

    Raises:
        ValueError: A setting is out of range.
    """

    searches: ClassVar[PromptKind] = "tokens"

    words: int = 200
    beam: int = 4
    first: float = 0.4
    share: float = 0.5

    def __post_init__(self) -> None:
        """Check the settings."""
        check_ranges(self, {"words": 2, "beam": 1})
        check_share(self, "first", one=False)
        check_share(self, "share")

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        """See `Optimiser.run`."""
        # In an order of the seed's own: where the budget does not cover all, seeds begin elsewhere.
        words = first_words(objective.lm, space, self.words, rng)
        # Where one token is too short for the space, the word stands as often as it takes.
        singles = [TokenPrompt((word,) * space.shortest) for word in words]
        known = dict(space.known)
        pool = [one for one in dict.fromkeys([*space.starts, *singles]) if one not in known]
        first = pool[: halving_size(objective, self.first * objective.remaining)]
        # Those that dropped out too: what lost on a block is not paid for there again.
        tried = {*known, *first}
        scored = known | mean_rewards(halve(objective, first), TokenPrompt)
        # What came far as a word comes first; those that no budget was left for come last.
        ranked = list(dict.fromkeys([*(i for p in _best(scored) for i in p.ids), *words]))
        edits = [insertions, replacements]
        while True:
            leaders = _best(scored)[: self.beam]
            neighbours = dict.fromkeys(
                prompt
                for edit in edits
                for prompt in edit(leaders, ranked)
                if prompt not in tried and space.shortest <= len(prompt) <= space.length
            )
            many = max(2, halving_size(objective, self.share * objective.remaining))
            rivals = list(islice(neighbours, many))
            if not rivals:
                return  # every neighbour of every leader is known
            tried.update(rivals)
            before = max(scored.values())
            scored |= mean_rewards(halve(objective, rivals), TokenPrompt)
            improved = max(scored.values()) > before
            edits = [insertions, replacements] if improved else [replacements, insertions]


def _best(scored: dict[TokenPrompt, float]) -> list[TokenPrompt]:
    return sorted(scored, key=lambda prompt: -scored[prompt])


def insertions(leaders: Sequence[TokenPrompt], words: Sequence[int]) -> Iterator[TokenPrompt]:
    """One word more in one of the leaders: good words in all places of all leaders first."""
    for word in words:
        for leader in leaders:
            for place in range(len(leader) + 1):
                yield leader.inserted(place, word)


def replacements(leaders: Sequence[TokenPrompt], words: Sequence[int]) -> Iterator[TokenPrompt]:
    """One word of a leader left out, or another in its place."""
    for leader in leaders:
        yield from map(leader.without, range(len(leader)))
    for word in words:
        for leader in leaders:
            for place in range(len(leader)):
                yield leader.replaced(place, word)
