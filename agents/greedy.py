"""Greedy coordinate search over tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import ClassVar

import numpy as np

from rlprompt.agents.shared.ranges import check_ranges, check_share
from rlprompt.prompt import TokenPrompt
from rlprompt.search.allocation import doubling, halve, halving_size, mean_rewards
from rlprompt.search.objective import Objective
from rlprompt.search.optimiser import LATER, AskTell, Proposals
from rlprompt.search.space import TokenSpace
from rlprompt.types import PromptKind


@dataclass(frozen=True)
class Greedy(AskTell[TokenSpace]):
    """Change one token at a time, from the best of a random pool and of the starts.

    A round draws replacements for one token of the best prompt so far, scores them together and
    goes on from whatever is best then. Positions take turns from the last to the first: the last
    token is nearest the answer, and prompts that differ late share most of their computation.

    The discrete descent of AutoPrompt (Shin et al. 2020, arXiv 2010.15980, section 2.2) and GCG
    (Zou et al. 2023, arXiv 2307.15043, algorithm 1) without their gradient: replacements are drawn
    uniformly. With it that is `GCG`. Everything has a full reward, as is fit for the plain method
    that others are held against; with `halving` the rivals of a round begin on a part of the
    examples, as in `Grow`, and only those that come through are gone on from. No prompt is scored
    twice. When every replacement in a prompt is known, the search goes on from the next best
    prompt.

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
        batch: Replacements in a round, 1 or more. RLPrompt's 16 prompts a step (Deng et al. 2022).
        halving: Share of the train examples that all prompts of a round are scored on, and those of
            the pool, starts among them; the best third goes on to twice as many, and so on, as in
            `RandomSearch`. None scores every prompt on all examples.

    Raises:
        ValueError: A setting is out of range.
    """

    searches: ClassVar[PromptKind] = "tokens"

    pool: float = 1 / 3
    batch: int = 16
    halving: float | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        """Check the settings."""
        check_ranges(self, {"batch": 1})
        check_share(self, "pool")
        check_share(self, "halving", one=False)

    def ask(self, space: TokenSpace, n_prompts: int, rng: np.random.Generator) -> Proposals:
        """See `AskTell.ask`; an answer may be to some of the prompts, those that came through."""
        n_pool = max(1, round(self.pool * n_prompts), len(space.unscored))
        rewards = dict(space.known)
        tried, exhausted = set(rewards), set[TokenPrompt]()
        drawn = dict.fromkeys(islice(space.draws(rng), n_pool))
        prompts = [prompt for prompt in drawn if prompt not in tried]
        turn = 0
        while True:
            tried.update(prompts)
            rewards |= mean_rewards((yield prompts), TokenPrompt)
            prompts = []
            while not prompts:
                live = [prompt for prompt in rewards if prompt not in exhausted]
                if not live:
                    return  # the whole space is scored
                best = max(live, key=rewards.__getitem__)
                moves = _moves(best, space, rng)
                for _ in moves:
                    unseen = (p for p in moves[turn % len(moves)] if p not in tried)
                    turn += 1
                    prompts = list(islice(unseen, self.batch))
                    if prompts:
                        break
                else:
                    exhausted.add(best)

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        """See `Optimiser.run`."""
        if self.halving is None:
            super().run(objective, space, rng)
            return
        stages = doubling(self.halving)
        covered = halving_size(objective, objective.remaining, stages=stages)
        rounds = self.ask(space, covered, rng)
        prompts = next(rounds)
        while True:
            # The last round is as large as the rest of the budget sees through to its end.
            size = halving_size(objective, objective.remaining, stages=stages)
            found = halve(objective, prompts[:size], stages=stages)
            try:
                prompts = rounds.send(found)
            except StopIteration:
                return


def _moves(
    prompt: TokenPrompt, space: TokenSpace, rng: np.random.Generator
) -> list[Iterator[TokenPrompt]]:
    """The neighbours of a prompt, those of a round together, in the order of rounds."""
    places = range(len(prompt) - 1, -1, -1)
    edits = [partial(prompt.replaced, i) for i in places]
    if len(prompt) < space.length:  # one more after each, and before all
        longer = [partial(prompt.inserted, i + 1) for i in places]
        edits = [*chain.from_iterable(zip(longer, edits, strict=True)), partial(prompt.inserted, 0)]
    varied = [_with_each_token(edit, space, rng) for edit in edits]
    shorter = iter(dict.fromkeys(map(prompt.without, places)))  # each outcome once
    return [shorter, *varied] if len(prompt) > space.shortest else varied


def _with_each_token(
    edit: Callable[[int], TokenPrompt], space: TokenSpace, rng: np.random.Generator
) -> Iterator[TokenPrompt]:
    """What an edit makes with every allowed token, in random order, drawn when it begins."""
    yield from map(edit, rng.permutation(space.allowed))
