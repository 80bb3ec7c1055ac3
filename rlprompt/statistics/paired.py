"""Differences between two methods: how large, how sure, and how to be surer.

Two methods are compared over runs, paired by (task, seed): a pairing at random, which loses a
little power and is as valid. Where the data are drawn several times, runs are paired by (task,
split, seed), and what counts is the mean difference of each split (`nested`): a pair shares the
examples, and the pairing takes their luck out.

The interval and p come from Student's t of the paired differences, within tasks. A test by flipping
signs needs no distribution, but n pairs reach no p below 2^(1 - n) in two-sided tests: five seeds
of one task could never settle anything (0.0625). That the t test holds its level with few runs:
Colas et al. 2019, A Hitchhiker's Guide to Statistical Comparisons of Reinforcement Learning
Algorithms (https://arxiv.org/abs/1904.06979).
"""

from __future__ import annotations

import bisect
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from rlprompt.statistics.nested import (
    LEVEL,
    blocks,
    known_tasks,
    over_splits,
    present,
    sums_of,
    t_interval,
    variance,
    welch,
)
from rlprompt.types import Floats

# Where the search for a number of seeds ends.
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Difference:
    """First minus second.

    Attributes:
        mean: Of the paired differences.
        low: Lower end of its interval; None without repetition, or where no difference varies.
        high: The upper end.
        p: Two-sided, of no difference; None without repetition.
        n_pairs: Pairs that it is made of.
        n_tasks: Tasks that they are of.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    n_pairs: int
    n_tasks: int

    def flipped(self) -> Difference:
        """Second minus first."""
        low = None if self.high is None else -self.high
        high = None if self.low is None else -self.low
        return Difference(-self.mean, low, high, self.p, self.n_pairs, self.n_tasks)


def compare_runs(x: Floats, y: Floats, *, draws: Sequence[Hashable] | None = None) -> Difference:
    """How two methods differ over seeds, on these tasks and these test examples.

    Says what other seeds would give, and nothing of other tasks: each task counts alike, and error
    is the spread between seeds within tasks, or between splits where there are several, with the
    degrees of freedom of Welch and Satterthwaite (`nested.welch`). With one task it is the paired t
    test. Where differences do not vary at all, t is not defined; there is no interval then, and p
    is that of the sign test.

    Args:
        x: (seeds, tasks), a row a seed; or (splits, seeds, tasks).
        y: The same seeds, tasks and splits; or one row, (1, tasks) or (splits, 1, tasks), for a
            control without seeds.
        draws: (tasks,) names, the same for tasks whose searches share what a seed draws: their
            luck then counts once. None where none do.

    Returns:
        Of the tasks in which two pairs or more have both scores, a pair of means for each split
        where there are several; if there are none, the mean of those with one pair and nothing
        else.

    Raises:
        ValueError: No pair has both scores, or shapes do not fit.

    >>> x, y = np.array([[0.7], [0.8], [0.9]]), np.array([[0.6], [0.6], [0.6]])
    >>> found = compare_runs(x, y)
    >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3), round(found.p, 3)
    (0.2, -0.048, 0.448, 0.074)
    """
    if x.ndim not in (2, 3) or y.shape not in (x.shape, (*x.shape[:-2], 1, x.shape[-1])):
        raise ValueError(
            f"scores have the shapes {x.shape} and {y.shape}; give both on the same seeds and tasks"
        )
    differences = _differences(x - y)
    repeated = _repeated(differences, draws)
    used = present(np.hstack(repeated) if repeated else differences)
    mean = float(np.mean([task.mean() for task in used]))
    n_pairs = sum(map(len, used))
    if not repeated:
        return Difference(mean, None, None, None, n_pairs, len(used))
    error, freedom = welch(repeated)
    if not error:
        return Difference(mean, None, None, _sign_p(repeated), n_pairs, len(used))
    low, high = t_interval(mean, error, freedom)
    p = float(2 * stats.t.sf(abs(mean) / error, freedom))
    return Difference(mean, low, high, p, n_pairs, len(used))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values, in the order given.

    Those below a level may be claimed together, with that chance of any false claim among them
    (Holm 1979, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of
    Statistics 6, 65-70).

    Args:
        p_values: (K,) of all claims that are made together, each in [0, 1].

    Raises:
        ValueError: One is not in [0, 1].

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    values = np.array(p_values, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p values are from 0 to 1, got {list(p_values)}")
    order = values.argsort(kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return [float(p) for p in adjusted]


def seeds_needed(
    differences: Floats,
    power: float = 0.8,
    alpha: float = LEVEL,
    *,
    draws: Sequence[Hashable] | None = None,
) -> int | None:
    """Seeds a task, or splits, with which `compare_runs` would find the difference, with its sign.

    From the noncentral t distribution (Cohen 1988, Statistical Power Analysis, chapter 2), with the
    mean and the spreads that were seen: an estimate from an estimate, good for its order of
    magnitude. It plans a study; to add seeds to one until it is settled finds what is not there
    more often than `alpha`.

    Args:
        differences: (seeds, tasks) paired differences, (seeds,) of one task, or (splits, seeds,
            tasks), of which splits are counted; NaN if missing.
        power: Chance to find it, below 1.
        alpha: Two-sided level.
        draws: As for `compare_runs`.

    Returns:
        None where nothing can be said: no task has two seeds, the mean is 0 or nothing varies; or
        where more than `MOST_SEEDS` were needed.

    >>> seeds_needed(np.array([0.1, 0.2, 0.3]))
    5
    """
    columns = differences[:, None] if differences.ndim == 1 else differences
    repeated = _repeated(_differences(columns), draws)
    variances = np.array([variance(sums_of(block)) for block in repeated])
    if not variances.any():
        return None
    tasks = present(np.hstack(repeated))
    effect = abs(np.mean([task.mean() for task in tasks]))
    spread = np.sqrt(variances.sum()) / len(tasks)
    # Welch and Satterthwaite's degrees of freedom for equal numbers: this many times n - 1.
    noisy = variances.sum() ** 2 / np.square(variances).sum()

    def reached(n: int) -> bool:
        freedom, shift = noisy * (n - 1), effect / spread * np.sqrt(n)
        critical = -special.stdtrit(freedom, alpha / 2)
        missed = special.nctdtr(freedom, shift, critical)
        # SciPy gives NaN where it is nothing, at shifts of 37 and more.
        return bool(np.isnan(missed) or missed <= 1 - power)

    counts = range(2, MOST_SEEDS + 1)
    place = bisect.bisect_left(counts, True, key=reached)
    return counts[place] if place < len(counts) else None


def _differences(differences: Floats) -> Floats:
    """(units, tasks) of what varies independently.

    Rounded: means of the same counts may differ in their last digits, which is no variation.

    Raises:
        ValueError: There is none, or an infinite one.
    """
    units = over_splits(differences).round(12)
    present(units)
    return units


def _repeated(units: Floats, draws: Sequence[Hashable] | None) -> list[Floats]:
    """The tasks with two differences or more, together where they share their draws."""
    often = (~np.isnan(units)).sum(axis=0) > 1
    return blocks(*known_tasks(np.where(often, units, np.nan), draws))


def _sign_p(repeated: Sequence[Floats]) -> float:
    """Two-sided exact sign test, a sign a unit; differences of 0 say nothing."""
    known = (block[~np.isnan(block).all(axis=1)] for block in repeated)
    differences = np.concatenate([np.nanmean(block, axis=1).round(12) for block in known])
    higher, lower = int((differences > 0).sum()), int((differences < 0).sum())
    return float(stats.binomtest(higher, higher + lower).pvalue) if higher + lower else 1.0
