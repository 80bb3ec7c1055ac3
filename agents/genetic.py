"""A genetic algorithm over tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import ClassVar, Literal, get_args

import numpy as np

from rlprompt.agents.shared.continuation import continued
from rlprompt.agents.shared.ranges import check_ranges
from rlprompt.prompt import TokenPrompt
from rlprompt.search.allocation import score_new
from rlprompt.search.objective import Objective
from rlprompt.search.space import TokenSpace
from rlprompt.types import PromptKind

# Draws for a prompt that is not known yet, after which any unknown one is taken.
TRIES = 20

Edit = Literal["delete", "swap", "add"]


@dataclass(frozen=True)
class Genetic:
    """Cross the best prompts so far and change a token here and there, generation by generation.

    The genetic algorithm of EvoPrompt (Guo et al. 2024, arXiv 2309.08532; `GAEvoluter` of its code)
    with operators on tokens in the place of a language model that rewrites texts. Two parents, each
    the winner of a tournament, are cut in two, and the beginning of one goes on with the end of the
    other; then tokens are drawn anew, some of them from what the frozen model would write there,
    which costs no rows. The best of all prompts so far are the next parents, and no prompt is
    scored twice.

    The first generation has the starts, in half of what they leave of it edits of theirs, and
    random prompts. The edits are those of GrIPS (Prasad et al. 2023, arXiv 2203.07281) on spans,
    where no parser is needed: delete one, swap two, add one at another place. Departures: what is
    added is a copy and not what was deleted before, there are no paraphrases, and edits that leave
    the space, as all but swaps do where prompts have one length, are not taken. `start: hand`
    begins with the task's hand prompt.

    GrIPS rewards label frequencies of high entropy as well. The reward here is the task's own, so
    that is left out: `calibration` and balanced metrics are the means against one class for all.
    EvoPrompt's differential evolution is left out too: without a model that tells how two prompts
    differ, it is one more way to cross them; over vectors it is `DifferentialEvolution`.

    >>> from rlprompt import search
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> found = search(ToyTask(), toy_lm(), Genetic(), budget=400, length=3)
    >>> found.n_prompts, found.n_distinct
    (100, 100)

    Args:
        population: Prompts of the first generation, and those that may be parents later; starts
            beyond that are scored all the same. EvoPrompt: 10. Ours, for random beginnings.
        children: Prompts of each later generation. EvoPrompt: as many as parents. Ours: half, so
            that what is learnt is used sooner.
        tournament: Parents drawn, of which the best is taken. EvoPrompt draws them by their
            rewards, which rewards below zero forbid; its code's other way, `tour`, draws 2.
        mutation: Tokens of a child drawn anew on average, above 0; of a short one, all at most.
            Ours.
        guided: Share of these that come from what the model would write after those before, where
            it tells that; the others are drawn uniformly. 0 to 1. Ours.

    Raises:
        ValueError: A setting is out of range.
    """

    searches: ClassVar[PromptKind] = "tokens"

    population: int = 16
    children: int = 8
    tournament: int = 2
    mutation: float = 1.0
    guided: float = 0.5

    def __post_init__(self) -> None:
        """Check the settings."""
        check_ranges(self, {"population": 2, "children": 1, "tournament": 1}, ("mutation",))
        if not 0 <= self.guided <= 1:
            raise ValueError(f"guided is a share, 0 to 1, got {self.guided}")

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        """See `Optimiser.run`."""
        rewards: dict[TokenPrompt, float] = {}
        others = (prompt for prompt in space.everything() if prompt not in rewards)
        generation = founders(space, self.population, rng)
        while generation:
            score_new(objective, generation, rewards)
            parents = sorted(rewards, key=lambda prompt: -rewards[prompt])[: self.population]
            born: dict[TokenPrompt, None] = {}
            for _ in range(TRIES * self.children):
                if len(born) == self.children:
                    break
                child = self._child(objective, space, parents, rng)
                if child not in rewards:
                    born[child] = None
            # Where all that the parents give is known, whatever is left of the space.
            generation = list(born) or list(islice(others, self.children))

    def _child(
        self,
        objective: Objective,
        space: TokenSpace,
        parents: Sequence[TokenPrompt],
        rng: np.random.Generator,
    ) -> TokenPrompt:
        first, second = (parents[winner(len(parents), self.tournament, rng)] for _ in range(2))
        ids = list(crossed(first, second, space, rng).ids)
        for place in np.flatnonzero(rng.random(len(ids)) < self.mutation / len(ids)).tolist():
            chances = None
            if rng.random() < self.guided:
                likely = continued(objective, [tuple(ids[:place])], space.allowed)[0]
                chances = likely.double().cpu().numpy()
                chances /= chances.sum()
            ids[place] = int(rng.choice(space.allowed, p=chances))
        return TokenPrompt(ids)


def winner(n_parents: int, tournament: int, rng: np.random.Generator) -> int:
    """The place of a parent among them, the best of so many that are drawn, the best first."""
    return int(rng.integers(n_parents, size=tournament).min())


def crossed(
    first: TokenPrompt, second: TokenPrompt, space: TokenSpace, rng: np.random.Generator
) -> TokenPrompt:
    """The beginning of one prompt and the end of another, which make a prompt of the space.

    Where prompts have one length, both are cut at the same place. Either part may be empty.
    """
    cut = int(rng.integers(len(first) + 1))
    least = max(0, cut + len(second) - space.length)
    most = min(len(second), cut + len(second) - space.shortest)
    return TokenPrompt(first.ids[:cut] + second.ids[int(rng.integers(least, most + 1)) :])


def founders(space: TokenSpace, count: int, rng: np.random.Generator) -> list[TokenPrompt]:
    """The first generation: the starts, edits of theirs, and random prompts, each once."""
    found = dict.fromkeys(space.starts)
    edits = (edited(start, rng) for _ in range(TRIES * count) for start in space.starts)
    draws = (space.sample(rng) for _ in range(TRIES * count))
    n_edited = len(found) + (count - len(found)) // 2
    for source, most in ((edits, n_edited), (draws, count)):
        for prompt in source:
            if len(found) >= most:
                break
            if space.contains(prompt):
                found[prompt] = None
    return list(found)


def edited(prompt: TokenPrompt, rng: np.random.Generator) -> TokenPrompt:
    """The prompt in two to four spans, of which one is deleted or doubled, or two change places."""
    n_spans = min(int(rng.integers(2, 5)), len(prompt))
    spans = [span.tolist() for span in np.array_split(prompt.ids, n_spans)]
    one, other = rng.choice(n_spans, 2, replace=n_spans < 2).tolist()
    edit: Edit = rng.choice(get_args(Edit))
    if edit == "delete":
        del spans[one]
    elif edit == "swap":
        spans[one], spans[other] = spans[other], spans[one]
    else:
        spans.insert(int(rng.integers(n_spans + 1)), spans[one])
    return TokenPrompt(list(chain.from_iterable(spans)))
