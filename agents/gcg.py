"""Swaps of tokens that a gradient finds promising."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, filterfalse, islice
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rlprompt.agents.shared.continuation import continued
from rlprompt.agents.shared.ranges import check_ranges
from rlprompt.agents.shared.shortlist import shortlist
from rlprompt.prompt import TokenPrompt
from rlprompt.search.allocation import halve, halving_size, mean_rewards
from rlprompt.search.objective import Objective
from rlprompt.search.pools import first_words
from rlprompt.search.space import TokenSpace
from rlprompt.types import Loss, PromptKind

# Of the first prompts: common words that half of them are drawn of, as in `Grow`; the share of the
# budget that they may cost; and draws for each, of which those are taken that can be typed.
WORDS, POOL, TRIES = 200, 1 / 5, 5


@dataclass(frozen=True)
class GCG:
    """Change a token of the best prompt to one that the gradient says would help.

    AutoPrompt (Shin et al. 2020, arXiv 2010.15980, section 2.2; `hotflip_attack` of its code) and
    GCG (Zou et al. 2023, arXiv 2307.15043, algorithm 1; `sample_ids_from_grad` of nanoGCG): at the
    best prompt so far the gradient with respect to its embeddings is taken, and a token's product
    with it is a guess at what the token would bring in the place of another. Of the most promising
    at every position some are drawn, and their prompts are scored.

    Departures, for budgets of about a hundred prompts, where a step of these papers costs hundreds.
    The search begins with the starts, prompts of common words and random ones. A gradient, which
    costs as much as three prompts, is taken once for a prompt, and the best of all so far is gone
    on from, where GCG goes on from the best of a step, be it worse, and AutoPrompt changes one
    position where that is better on other batches than the gradient's. Candidates are scored on a
    few examples first, the better ones on all (`halve`). The gradient is that of the right answers'
    log-probability among the possible ones (in AutoPrompt's eq. 1 it is among all tokens) where the
    task has it, uncalibrated also where rewards are calibrated, else of the reward. What the model
    would write after the tokens before has a say, where GReaTer (Das et al. 2025, arXiv 2412.09722;
    `morph_control` of its code) has the gradient choose among what the model would write there
    after several examples. Prompts that typed in the task's template would be other tokens are
    passed over, as GCG does by the text alone; of one that is such itself they come last. In a
    space of several lengths a candidate may also have a promising token more, or a token less. No
    prompt is a candidate twice.

    nanoGCG has `candidates=512, top_k=256, likelihood=0`, and AutoPrompt 10 candidates of one
    position a step; with these settings the search still begins, halves and goes on as ours does.

    >>> from rlprompt import search
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> found = search(ToyTask(), toy_lm(), GCG(), budget=400, length=3)
    >>> found.rows, found.n_partial > found.n_distinct
    (398, True)

    Args:
        candidates: Swaps scored in a step, 1 or more. Ours: RLPrompt's 16 prompts a step (Deng et
            al. 2022).
        top_k: Tokens on the shortlist of a position, 1 or more. GCG: 256, of which 16 swaps a step
            would try a few. 32 is ours, untried against others.
        likelihood: Weight of the model's log-probability of a token after those before it, against
            the gradient's guess, both in standard deviations over the allowed tokens, 0 or more.
            0 is the gradient alone, as in the papers; 0.3 is ours, untried against others.

    Raises:
        ValueError: A setting is out of range.
    """

    searches: ClassVar[PromptKind] = "tokens"
    needs_gradient: ClassVar[bool] = True

    candidates: int = 16
    top_k: int = 32
    likelihood: float = 0.3

    def __post_init__(self) -> None:
        """Check the settings."""
        check_ranges(self, {"candidates": 1, "top_k": 1})
        if not 0 <= self.likelihood < math.inf:
            raise ValueError(f"likelihood is a weight of 0 or more, got {self.likelihood}")

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        """See `Optimiser.run`."""
        rewards = dict(space.known)
        tried = set(rewards)
        swaps = (p for p in self._swaps(objective, space, rewards, rng) if p not in tried)
        rivals = self._first(objective, space, rng) or list(islice(swaps, 1))
        while rivals:
            tried.update(rivals)
            rewards |= mean_rewards(halve(objective, rivals), TokenPrompt)
            rivals = list(islice(swaps, 1))  # which may cost a gradient
            size = min(self.candidates, halving_size(objective, objective.remaining))
            rivals += islice(swaps, size - 1)

    def _swaps(
        self,
        objective: Objective,
        space: TokenSpace,
        rewards: Mapping[TokenPrompt, float],
        rng: np.random.Generator,
    ) -> Iterator[TokenPrompt]:
        """Neighbours of whichever prompt is best by now, and where all are known, any prompt."""
        table = objective.lm.embeddings(space.allowed.tolist())
        moves = dict[TokenPrompt, Iterator[TokenPrompt]]()
        spent = set[TokenPrompt]()
        while live := [prompt for prompt in rewards if prompt not in spent]:
            best = max(live, key=rewards.__getitem__)
            if best not in moves:
                near = self._near(objective, space, best, table, rng)
                moves[best] = self._typed(objective, _moves(best, space, near, rng), best)
            move = next(moves[best], None)
            if move is None:
                spent.add(best)
            else:
                yield move
        yield from chain(self._first(objective, space, rng), space.everything())

    def _first(
        self, objective: Objective, space: TokenSpace, rng: np.random.Generator
    ) -> list[TokenPrompt]:
        """What the search begins with: the starts, and prompts of words and of any tokens."""
        count = max(len(space.unscored), halving_size(objective, POOL * objective.remaining))
        words = first_words(objective.lm, space, WORDS, rng)
        spaces = (space.over(words), space)
        drawn = [spaces[i % 2].sample(rng) for i in range(TRIES * count)]
        found = dict.fromkeys(chain(space.starts, self._typed(objective, drawn)))
        return list(islice((prompt for prompt in found if prompt not in space.known), count))

    def _near(
        self,
        objective: Objective,
        space: TokenSpace,
        prompt: TokenPrompt,
        table: NDArray[np.float32],
        rng: np.random.Generator,
    ) -> NDArray[np.int64]:
        """Promising tokens at each position, (L, K) places in what is allowed."""
        smooth = objective.task.has("cross_entropy_with_grad")
        loss: Loss = "cross_entropy" if smooth else "reward"
        if objective.remaining < objective.cost(loss=loss) + objective.cost():
            return rng.integers(len(table), size=(len(prompt), self.top_k))  # the last swaps: any
        (gradient,) = objective.evaluate_with_grad([prompt], loss=loss).gradients
        begun = [prompt.ids[:place] for place in range(len(prompt))]
        written = continued(objective, begun, space.allowed).clamp(min=1e-30).log()
        return shortlist(gradient @ table.T, written.cpu().numpy(), self.likelihood, self.top_k)

    def _typed(
        self,
        objective: Objective,
        prompts: Sequence[TokenPrompt],
        parent: TokenPrompt | None = None,
    ) -> Iterator[TokenPrompt]:
        """The prompts that can be typed; the others behind them, unless the parent can be."""

        def typed(prompt: TokenPrompt) -> bool:
            return objective.task.described(objective.lm, prompt)[1]

        others = () if parent and typed(parent) else filterfalse(typed, prompts)
        return chain(filter(typed, prompts), others)


def _moves(
    prompt: TokenPrompt, space: TokenSpace, near: NDArray[np.int64], rng: np.random.Generator
) -> list[TokenPrompt]:
    """Prompts with a token of the shortlist in its place, or beside it, or with none there."""
    found = dict[TokenPrompt, None]()
    pairs = [(place, int(token)) for place, row in enumerate(near) for token in space.allowed[row]]
    for i in rng.permutation(len(pairs)):
        place, token = pairs[i]
        edits = [prompt.replaced(place, token)]
        if len(prompt) < space.length:
            edits.append(prompt.inserted(place + int(rng.integers(2)), token))
        if len(prompt) > space.shortest:
            edits.append(prompt.without(place))
        found[edits[rng.integers(len(edits))]] = None
    return list(found)
