"""Which train examples stand in the prompt, and in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rlprompt.agents.shared.ranges import check_ranges, check_share
from rlprompt.prompt import Prompt, TextPrompt
from rlprompt.search.allocation import PaidOnce, halve, halving_size, race, race_winners
from rlprompt.search.objective import Evaluation, Objective
from rlprompt.search.shown import usable_examples
from rlprompt.search.space import TextSpace
from rlprompt.types import Floats, PromptKind

Shown = tuple[str, tuple[int, ...]]
"""What a prompt begins with, such as an instruction, and the train examples that follow."""

# Draws in a row that bring no new prompt, after which no other is looked for.
VAIN = 50


@dataclass(frozen=True)
class Demonstrations:
    """Choose a few train examples, and their order, to stand in the prompt with their answers.

    Both matter: orders of the same examples are anything from chance to near the best (Lu et al.
    2022, arXiv 2104.08786, who rank them without labels, by the entropy of answers: section 3), and
    so are choices (Zhang et al. 2022, arXiv 2211.04486, who learn to choose one after another:
    `FewShotEnvironment` of their code). Here, subsets in random orders are scored on a few train
    examples, the same for all, the better third of them on more, and what is left on all
    (sequential halving, Karnin et al. 2013). Then neighbours of the best (two places swapped, an
    example moved, replaced, added or left out) race it, each once, and what beats it takes its
    place. Where
    the space has starts, such as a hand-written instruction, each prompt begins with one of them;
    they are rivals by themselves, too.

    An example would be told its own answer by a prompt that shows it. So what a prompt earns on
    examples that it shows decides nothing here: in its place counts what it earns on the others of
    the block, and how much easier the example is for prompts that do not show it; and two that race
    are told apart by examples alone that neither shows. The train reward that reports give is of
    all examples, and flatters by these; dev and test are shown nowhere.

    >>> from rlprompt import search
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> result = search(ToyTask(8), toy_lm(), Demonstrations(at_most=2), budget=160)
    >>> 1 <= result.best.text.count(".") <= 2
    True

    Args:
        at_most: Examples in a prompt, 1 or more. 4 is as many as Lu et al. order.
        first: Share of the budget for random subsets, above 0 and at most 1; ours.
        batch: Neighbours that race together, 1 or more; ours.

    Raises:
        ValueError: A setting is out of range.
    """

    searches: ClassVar[PromptKind] = "text"
    needs_demonstrations: ClassVar[bool] = True

    at_most: int = 4
    first: float = 0.5
    batch: int = 8

    def __post_init__(self) -> None:
        """Check the settings."""
        check_ranges(self, {"at_most": 1, "batch": 1})
        check_share(self, "first")

    def run(self, objective: Objective, space: TextSpace, rng: np.random.Generator) -> None:
        """See `Optimiser.run`.

        Raises:
            ValueError: Not one example fits into a prompt of the space.
        """
        shelf = _Shelf(objective, space, rng, self.at_most)
        count = halving_size(shelf, self.first * objective.remaining)
        starts = space.starts[:count]
        pool = [*starts, *shelf.propose(shelf.drawn, count - len(starts))]
        best = halve(shelf, pool, criterion=shelf.criterion)
        while objective.affordable():
            places = partial(shelf.neighbour, *shelf.shows[best.prompts[0]])
            # Where all neighbours are known, the search goes on anywhere.
            rivals = shelf.propose(places, self.batch) or shelf.propose(shelf.drawn, 1)
            if not rivals:  # there is nothing new: who dropped out early is heard to the end
                shelf.evaluate([one for one in shelf.shows if shelf.seen[one] < shelf.n_examples])
                return
            rows = objective.remaining
            stayed = race(shelf, best, rivals, rows=rows, criterion=shelf.criterion)
            best = race_winners(best, stayed, criterion=shelf.criterion)


class _Shelf:
    """Prompts that show examples, an objective, and a criterion by what a prompt does not show."""

    def __init__(
        self, objective: Objective, space: TextSpace, rng: np.random.Generator, at_most: int
    ) -> None:
        self.paid_once = PaidOnce(objective)
        self.space, self.rng, self.at_most = space, rng, at_most
        self.task, self.n_examples = objective.task, objective.n_examples
        self.order, self.cost = objective.order, objective.cost
        self.starts = [start.text for start in space.starts] or [""]
        self.shows: dict[Prompt, Shown] = {one: (one.text, ()) for one in space.starts}
        self.seen = Counter[Prompt]()  # on how many examples
        self.usable = usable_examples(objective.lm, self.task, space)

    def drawn(self) -> Shown:
        """A start with some examples, the number of which is drawn first."""
        count = int(self.rng.integers(1, min(self.at_most, len(self.usable)) + 1))
        places = self.rng.permutation(self.usable)[:count].tolist()
        return self.starts[self.rng.integers(len(self.starts))], tuple(places)

    def neighbour(self, before: str, places: tuple[int, ...]) -> Shown:
        """What differs from a prompt by one change."""
        shown, others = list(places), [i for i in self.usable if i not in places]
        moves = ["begin"] * (len(self.starts) > 1) + ["swap", "move", "leave"] * (len(shown) > 1)
        moves += ["replace"] * bool(shown and others)
        moves += ["add"] * bool(others and len(shown) < self.at_most)
        match moves[self.rng.integers(len(moves))] if moves else "":
            case "begin":
                before = self.starts[self.rng.integers(len(self.starts))]
            case "swap":
                i, j = self.rng.permutation(len(shown))[:2]
                shown[i], shown[j] = shown[j], shown[i]
            case "move":
                moved = shown.pop(int(self.rng.integers(len(shown))))
                shown.insert(int(self.rng.integers(len(shown) + 1)), moved)
            case "leave":
                shown.pop(int(self.rng.integers(len(shown))))
            case "replace":
                shown[int(self.rng.integers(len(shown)))] = int(self.rng.choice(others))
            case "add":
                shown.insert(int(self.rng.integers(len(shown) + 1)), int(self.rng.choice(others)))
        return before, tuple(shown)

    def propose(self, draw: Callable[[], Shown], count: int) -> list[TextPrompt]:
        """So many prompts that are not known yet and lie in the space; fewer where few are left."""
        found, vain = list[TextPrompt](), 0
        while len(found) < count and vain < VAIN:
            before, places = draw()
            prompt = TextPrompt(self.task.shown(places, before))
            vain += 1
            if prompt not in self.shows and self.space.contains(prompt):
                self.shows[prompt], vain = (before, places), 0
                found.append(prompt)
        return found

    def evaluate(
        self, prompts: Sequence[Prompt], examples: Sequence[int] | None = None
    ) -> Evaluation:
        """See `Objective.evaluate`; how much of train each has seen is noted."""
        found = self.paid_once.evaluate(prompts, examples)
        self.seen.update(dict.fromkeys(found.prompts, found.per_example.shape[1]))
        return found

    def criterion(
        self, prompts: Sequence[Prompt], rewards: Floats, places: Sequence[int]
    ) -> Floats:
        """See `Criterion`: `judged`, of all that are compared together."""
        shown = [np.isin(places, self.shows[one][1]) for one in prompts]
        return judged(rewards, np.array(shown).reshape(rewards.shape))


def judged(rewards: Floats, shown: NDArray[np.bool_]) -> Floats:
    """Rewards (P, E) with those on examples that a prompt shows (P, E) made up from the others.

    A reward is made up of how easy the example is, the mean over prompts that do not show it, and
    of how much better than that the prompt is on the examples that it does not show. It is masked:
    it has no noise of its own, and as an observation would have a test of differences too sure.

    >>> rewards = np.array([[9.0, 2.0], [1.0, 4.0]])  # the first shows the first
    >>> found = judged(rewards, np.array([[True, False], [False, False]]))
    >>> found.data.tolist(), found.tolist()
    ([[0.0, 2.0], [1.0, 4.0]], [[None, 2.0], [1.0, 4.0]])
    """
    if shown.all():  # a block that all show whole says nothing of anyone
        return np.ma.masked_array(rewards, shown)
    seen = np.ma.masked_array(rewards, shown)
    easy = seen.mean(axis=0).filled(seen.mean())
    better = (seen - easy).mean(axis=1).filled(0.0)
    return np.ma.masked_array(np.where(shown, easy + better[:, None], rewards), shown)
