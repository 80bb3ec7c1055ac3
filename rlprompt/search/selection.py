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
    """

    scored: Scored
    rewards: list[float] = field(default_factory=list)
    metrics: list[float] = field(default_factory=list)

    @property
    def dev(self) -> Score:
        """Means over the examples seen."""
        return Score(float(np.mean(self.rewards)), float(np.mean(self.metrics)))


def race(evaluator: Evaluator, candidates: Sequence[Scored]) -> list[Raced]:
    """The candidates, the one picked first, then by how far they came and how good they were.

    The picked one has seen all of dev.

    Args:
        evaluator: Scores them.
        candidates: Best on train first; among equals on dev the earlier one wins.
    """
    raced = [Raced(scored) for scored in candidates]
    alive = raced
    for which in rounds(evaluator.task.splits.dev):
        measured = evaluator.measure([one.scored.prompt for one in alive], "dev", which)
        for one, rewards, metrics in zip(alive, *measured[:2], strict=True):
            one.rewards.extend(rewards.tolist())
            one.metrics.extend(metrics.tolist())
        keep = still_close(np.array([one.rewards for one in alive]))
        alive = [one for one, close in zip(alive, keep, strict=True) if close]
    # Stable: among equals the better on train stays first.
    return sorted(raced, key=lambda one: (-len(one.rewards), -one.dev.reward))


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
