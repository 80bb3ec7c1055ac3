"""Which of the best prompts on train is picked: the one that wins a race on dev.

All candidates are scored on a few dev examples; those that are clearly worse than the leader drop
out, the others get more examples, and so on. So close candidates are told apart by all of dev, and
hopeless ones cost little. Racing: Maron and Moore 1997 (https://doi.org/10.1023/A:1006556606079);
with paired t tests, as here: Birattari et al. 2002 (F-Race).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from rlprompt.data.examples import Example, balanced
from rlprompt.search.budget import Scored
from rlprompt.search.evaluation import Evaluator
from rlprompt.search.result import Score
from rlprompt.tasks.base import Measured, Task
from rlprompt.types import Floats

# The best prompts on train that enter. More finds a better one now and then, for more dev rows.
CANDIDATES = 16
# Dev examples of the first round; each round after doubles what was seen.
FIRST_ROUND = 8
# Chance, at most, that one of several equally good candidates is dropped in a round.
FALSE_DROP = 0.05


@dataclass
class Raced:
    """A candidate with what is known of it on dev.

    Attributes:
        scored: It and its train reward.
        rewards: On the dev examples seen so far.
        metrics: The same.
        answers: The same, where the task says what was answered.
        over_all: The metric over all of these, where it is no mean (`Task.set_metric`).
    """

    scored: Scored
    rewards: list[float] = field(default_factory=list)
    metrics: list[float] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    over_all: float | None = None

    @property
    def dev(self) -> Score:
        """Means over the examples seen, or the metric over all of them."""
        metric = float(np.mean(self.metrics)) if self.over_all is None else self.over_all
        return Score(float(np.mean(self.rewards)), metric)

    def see(self, task: Task, measured: Measured, place: int, examples: Sequence[Example]) -> None:
        """Take in what was measured of it, at a place among others.

        Args:
            task: What it is measured by.
            measured: (P, E) of the last round.
            place: Its own, of the P.
            examples: All that it has seen, the last round's included.
        """
        self.rewards.extend(measured.rewards[place].tolist())
        self.metrics.extend(measured.metrics[place].tolist())
        self.answers.extend(() if measured.answers is None else measured.answers[place])
        own = np.array([self.rewards]), np.array([self.metrics])
        answers = None if measured.answers is None else (tuple(self.answers),)
        found = task.set_metric(Measured(*own, answers), examples)
        self.over_all = None if found is None else float(found[0])


def race(evaluator: Evaluator, candidates: Sequence[Scored]) -> list[Raced]:
    """The candidates, the one picked first, then by how far they came and how good they were.

    The picked one has seen all of dev.

    Args:
        evaluator: Scores them.
        candidates: Best on train first; among equals on dev the earlier one wins.
    """
    task, dev = evaluator.task, evaluator.task.splits.parts()["dev"]
    by_metric = task.select_by == "metric"
    raced = [Raced(scored) for scored in candidates]
    alive = raced
    seen: list[Example] = []
    for which in rounds(dev):
        measured = evaluator.measure([one.scored.prompt for one in alive], "dev", which)
        seen += [dev[i] for i in which]
        for place, one in enumerate(alive):
            one.see(task, measured, place, seen)
        # A metric of all examples together has no value on each that a test could go by.
        if not by_metric:
            keep = still_close(np.array([one.rewards for one in alive]))
            alive = [one for one, close in zip(alive, keep, strict=True) if close]

    def worth(one: Raced) -> tuple[float, float]:
        return (one.dev.metric, one.dev.reward) if by_metric else (one.dev.reward, 0.0)

    # Stable: among equals the better on train stays first.
    return sorted(raced, key=lambda one: (len(one.rewards), *worth(one)), reverse=True)


def rounds(examples: Sequence[Example]) -> Iterator[list[int]]:
    """Places of the dev examples of each round: all classes in each, drawn by a fixed seed."""
    order = balanced(examples, np.random.default_rng(0).permutation(len(examples)).tolist())
    seen = 0
    while seen < len(order):
        end = min(max(FIRST_ROUND, 2 * seen), len(order))
        yield order[seen:end]
        seen = end


def still_close(rewards: Floats) -> list[bool]:
    """Which candidates may yet be as good as the leader, by paired one-sided t tests.

    Args:
        rewards: (P, n) on the same n examples. The leader has the highest mean.

    Returns:
        (P,) values. A candidate is not close where its mean difference to the leader is
        significant at `FALSE_DROP`, divided by the number of ordered pairs: chance decides who
        leads, so every pair counts as compared (Bonferroni).
    """
    n_candidates, n = rewards.shape
    if n < 2 or n_candidates < 2:
        return [True] * n_candidates
    behind = rewards[rewards.mean(axis=1).argmax()] - rewards
    return within_chance(behind, FALSE_DROP / (n_candidates * (n_candidates - 1)))


def within_chance(behind: Floats, level: float) -> list[bool]:
    """Which rivals may be as good as another, by paired one-sided t tests.

    Args:
        behind: (P, n) rewards of the other less those of each rival, on the same n examples.
        level: Of significance.

    Returns:
        (P,) values: whether the mean difference is not significant. One example tells nothing.
    """
    n = behind.shape[1]
    if n < 2:
        return [True] * len(behind)
    error = behind.std(axis=1, ddof=1) / np.sqrt(n)
    limit = stats.t.isf(level, n - 1) * error
    return [bool(close) for close in behind.mean(axis=1) <= limit]
