"""A genetic algorithm over tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar

import numpy as np

from rlprompt.agents.shared.breeding import TRIES, crossed, founders, winner
from rlprompt.agents.shared.continuation import continued
from rlprompt.agents.shared.ranges import check_ranges, check_share
from rlprompt.prompt import TokenPrompt
from rlprompt.search.allocation import score_new
from rlprompt.search.objective import Objective
from rlprompt.search.optimiser import LATER
from rlprompt.search.space import TokenSpace
from rlprompt.types import PromptKind


@dataclass(frozen=True)
class Genetic:
    """Cross the best prompts so far and change a token here and there, generation by generation.

    The genetic algorithm of EvoPrompt (Guo et al. 2024, arXiv 2309.08532, figure 1; `GAEvoluter` of
    its code) with operators on tokens in the place of a language model that rewrites texts. Two
    parents, each the winner of a tournament, are cut in two, and the beginning of one goes on with
    the end of the other; then tokens are drawn anew, some of them from what the frozen model would
    write there, which costs no rows. The best of all prompts so far are the next parents, and no
    prompt is scored twice.

    The first generation has the starts, in half of what they leave of it edits of theirs, and
    random prompts. The edits are those of GrIPS (Prasad et al. 2023, arXiv 2203.07281;
    `perform_edit` of its `run_search.py`) on spans, where no parser is needed: delete one, swap
    two, add one at another place. Departures: what is added is a copy and not what was deleted
    before, there are no paraphrases, and edits that leave the space, as all but swaps do where
    prompts have one length, are not taken. `start: hand` begins with the task's hand prompt.

    GrIPS rewards answers of many classes as well: `score` there is 100 times the balanced accuracy
    and 10 times the entropy of the label frequencies. So may this, with `entropy`, where parents
    are chosen; what is reported, and what prompt is picked, goes by the task's own reward, and so
    does everything by default: `calibration` and balanced metrics are other means against one class
    for all. EvoPrompt's differential evolution is left out: without a model that tells how two
    prompts differ, it is one more way to cross them; over vectors it is `DifferentialEvolution`.

    >>> from rlprompt import search
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> found = search(ToyTask(), toy_lm(), Genetic(), budget=400, length=3)
    >>> found.n_prompts, found.n_distinct
    (100, 100)

    Args:
        population: Prompts of the first generation, and those that may be parents later, 2 or more;
            starts beyond that are scored all the same. EvoPrompt: 10. Ours, for random beginnings.
        children: Prompts of each later generation, 1 or more. EvoPrompt: as many as parents. Ours:
            half, so that what is learnt is used sooner.
        tournament: Parents drawn, 1 or more, of which the best is taken. EvoPrompt draws them by
            their rewards, which rewards below zero forbid; its code's other way, `tour`, draws 2.
        mutation: Tokens of a child drawn anew on average, above 0; of a short one, all at most.
            Ours.
        guided: Share of these that come from what the model would write after those before, where
            it tells that; the others are drawn uniformly. 0 to 1. Ours.
        entropy: What a nat of entropy, of how often a prompt's train answers are of each class, is
            worth in rewards where parents are chosen, above 0; the task must tell what the model
            answers. GrIPS: 10 beside accuracies of 0 to 100, so 0.1 for `reward: accuracy`. None
            for nothing.

    Raises:
        ValueError: A setting is out of range; or, from `run`, the task tells no answers.
    """

    searches: ClassVar[PromptKind] = "tokens"

    population: int = 16
    children: int = 8
    tournament: int = 2
    mutation: float = 1.0
    guided: float = 0.5
    entropy: float | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        """Check the settings."""
        counts = {"population": 2, "children": 1, "tournament": 1}
        check_ranges(self, counts, ("mutation", "entropy"))
        check_share(self, "guided", zero=True)

    @property
    def needs_answers(self) -> bool:
        """Whether a task must tell what the model answers; see `Optimiser`."""
        return self.entropy is not None

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        """See `Optimiser.run`."""
        worth = dict(space.known) if self.entropy is None else {}  # which knows no answers
        others = space.everything(worth)
        generation = founders(space, self.population, rng)
        while generation:
            self._score(objective, generation, worth)
            parents = sorted(worth, key=lambda prompt: -worth[prompt])[: self.population]
            born: dict[TokenPrompt, None] = {}
            for _ in range(TRIES * self.children):
                if len(born) == self.children:
                    break
                child = self._child(objective, space, parents, rng)
                if child not in worth:
                    born[child] = None
            # Where all that the parents give is known, whatever is left of the space.
            generation = list(born) or list(islice(others, self.children))

    def _score(
        self,
        objective: Objective,
        generation: Sequence[TokenPrompt],
        worth: dict[TokenPrompt, float],
    ) -> None:
        """Have new prompts scored, and note what each is worth as a parent."""
        if self.entropy is None:
            score_new(objective, generation, worth)
            return
        found = objective.evaluate(generation, told=True)
        if found.outputs is None:
            raise ValueError(
                f"task {objective.task.name!r} tells no answers whose entropy could count; leave "
                "`entropy` out"
            )
        bonus = [self.entropy * entropy_of(answers) for answers in found.outputs]
        worth |= zip(generation, (found.rewards + bonus).tolist(), strict=True)

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


def entropy_of(answers: Sequence[str]) -> float:
    """Of the shares of the answers that were given, in nats; "", no answer, is none.

    >>> [round(entropy_of(answers), 3) for answers in (["good"] * 4, ["good", "bad", "", "bad"])]
    [0.0, 0.637]
    """
    counts = np.array(list(Counter(filter(None, answers)).values()), dtype=np.float64)
    shares = counts / counts.sum()
    return abs(float((shares * np.log(shares)).sum()))
