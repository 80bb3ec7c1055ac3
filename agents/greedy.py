"""Greedy coordinate search over tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import ClassVar

import numpy as np

from rlprompt.agents.shared.ranges import check_ranges
from rlprompt.prompt import TokenPrompt
from rlprompt.search.optimiser import AskTell, Proposals
from rlprompt.search.space import TokenSpace
from rlprompt.types import PromptKind


@dataclass(frozen=True)
class Greedy(AskTell[TokenSpace]):
    """Change one token at a time, from the best of a random pool and of the starts.

    A round draws replacements for one token of the best prompt so far, scores them together and
    goes on from whatever is best then. Positions take turns from the last to the first: the last
    token is nearest the answer, and prompts that differ late share most of their computation.

    The discrete descent of AutoPrompt (Shin et al. 2020, arXiv 2010.15980) and GCG (Zou et al.
    2023, arXiv 2307.15043) without their gradient: replacements are drawn uniformly. With it that
    is `GCG`; and to score rivals on a part of the examples first is `Grow`, where this is to stay
    the plain method that they are held against, with a full reward of everything it saw. No prompt
    is scored twice. When every replacement in a prompt is known, the search goes on from the next
    best prompt.

    In a space of several lengths a round may also insert a token, before or after any other, or
    leave one out: first all prompts with a token less, then from the last position to the first a
    token inserted after it and a token in its place, and at last one inserted before all.

    >>> from rlprompt import Evaluation
    >>> space = TokenSpace(length=3, allowed=np.arange(50))
    >>> proposals = Greedy(batch=4).ask(space, 30, np.random.default_rng(0))
    >>> pool = next(proposals)
    >>> rewards = np.arange(len(pool))[:, None]  # the last one is best
    >>> neighbours = proposals.send(Evaluation(tuple(pool), rewards))
    >>> len(pool), len(neighbours), {prompt.ids[:2] for prompt in neighbours} == {pool[-1].ids[:2]}
    (10, 4, True)

    Args:
        pool: Share of the budget spent on the random pool, above 0 and at most 1. Starts count, and
            all are scored even where they are more. Ours: a prototype on 16-shot SST-2 did well
            with 600 random prompts and 480 replacements; a small budget is better spent on
            replacements.
        batch: Replacements in a round. RLPrompt's 16 prompts a step (Deng et al. 2022).

    Raises:
        ValueError: A setting is out of range.
    """

    searches: ClassVar[PromptKind] = "tokens"

    pool: float = 1 / 3
    batch: int = 16

    def __post_init__(self) -> None:
        """Check the settings."""
        if not 0 < self.pool <= 1:
            raise ValueError(f"pool is a share of the budget in (0, 1], got {self.pool}")
        check_ranges(self, {"batch": 1})

    def ask(self, space: TokenSpace, n_prompts: int, rng: np.random.Generator) -> Proposals:
        """See `AskTell.ask`."""
        n_pool = max(1, round(self.pool * n_prompts), len(space.starts))
        prompts = list(dict.fromkeys(islice(space.draws(rng), n_pool)))
        rewards: dict[TokenPrompt, float] = {}
        exhausted: set[TokenPrompt] = set()
        turn = 0
        while True:
            evaluation = yield prompts
            rewards |= zip(prompts, evaluation.rewards.tolist(), strict=True)
            prompts = []
            while not prompts:
                live = [prompt for prompt in rewards if prompt not in exhausted]
                if not live:
                    return  # the whole space is scored
                best = max(live, key=rewards.__getitem__)
                moves = _moves(best, space, rng)
                for _ in moves:
                    unseen = (p for p in moves[turn % len(moves)] if p not in rewards)
                    turn += 1
                    prompts = list(islice(unseen, self.batch))
                    if prompts:
                        break
                else:
                    exhausted.add(best)


def _moves(
    prompt: TokenPrompt, space: TokenSpace, rng: np.random.Generator
) -> list[Iterator[TokenPrompt]]:
    """The neighbours of a prompt, those of a round together, in the order of rounds."""
    places = range(len(prompt) - 1, -1, -1)
    edits = [partial(prompt.replaced, i) for i in places]
    if len(prompt) < space.length:  # one more after each, and before all
        longer = [partial(prompt.inserted, i + 1) for i in places]
        edits = [*chain.from_iterable(zip(longer, edits, strict=True)), partial(prompt.inserted, 0)]
    written = [_written(edit, space, rng) for edit in edits]
    shorter = iter(dict.fromkeys(map(prompt.without, places)))  # each outcome once
    return [shorter, *written] if len(prompt) > space.shortest else written


def _written(
    edit: Callable[[int], TokenPrompt], space: TokenSpace, rng: np.random.Generator
) -> Iterator[TokenPrompt]:
    """What an edit makes with every allowed token, in random order, drawn when it begins."""
    yield from map(edit, rng.permutation(space.allowed))
