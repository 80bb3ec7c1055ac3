"""Scores of runs that are nested: search seeds within draws of the data.

Scores come as (seeds, tasks), or as (splits, seeds, tasks) where the examples were drawn several
times, once a split seed. Runs on one draw share its luck, so that 3 draws with 2 seeds each are
not 6 independent runs: counted as such, an interval is too narrow by up to the square root of the
seeds in a draw (the unit of analysis error; Galbraith, Daciuk and Vissel 2010, A study of
clustered data and approaches to its analysis, https://doi.org/10.1523/JNEUROSCI.0362-10.2010).

Means and tests are of the means of splits (cluster-level summaries; Donner and Klar 2000, Design
and Analysis of Cluster Randomization Trials): in a balanced design the variance of their mean is
right whatever the seeds add to it, with one degree of freedom less than there are splits, for
each split has seeds of its own, whatever their numbers (`_utils.seeding.of_data`). What is
no mean is resampled in two stages, splits first and seeds within (Davison and Hinkley 1997,
Bootstrap Methods and their Application, section 3.8). With one split, seeds are what varies, and
an interval is about other seeds on these examples.

Searches on tasks with the same train and dev examples draw the same with one seed, and share its
luck across these tasks as well. Counted as independent, of equal methods on two such tasks that
share four fifths of it 14 % are found to differ at 5 %, on four 29 % (with five seeds). `draws`
says which tasks share them: what varies independently is then their sum, unit by unit (`blocks`).

>>> scores = np.array([[[0.6], [0.8]], [[0.5], [0.5]]])  # 2 splits, 2 seeds, 1 task
>>> over_splits(scores).round(3).tolist()
[[0.7], [0.5]]
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from scipy import special, stats

from rlprompt.types import Floats

# Two-sided; every interval is of 1 - LEVEL.
LEVEL = 0.05
# 1,000 are a rough minimum for 95 % intervals (Efron and Tibshirani 1993, section 19.3).
RESAMPLES = 2000


def over_splits(scores: Floats) -> Floats:
    """What varies independently: means of splits, or the seeds where there is one split.

    Args:
        scores: (seeds, tasks) or (splits, seeds, tasks); NaN where a run is missing.

    Returns:
        (units, tasks); NaN where a unit has no run.

    Raises:
        ValueError: It is neither.
    """
    if scores.ndim == 2:
        return scores
    if scores.ndim != 3:
        raise ValueError(
            f"scores have the shape {scores.shape}; give (seeds, tasks) or (splits, seeds, tasks)"
        )
    if len(scores) == 1:
        return np.asarray(scores[0])
    there = ~np.isnan(scores)
    counts = there.sum(axis=1)
    sums = np.where(there, scores, 0.0).sum(axis=1)
    means: Floats = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    # Rounded: means of the same seeds may differ in their last digits, which is no variation.
    return means.round(12)


def is_nested(scores: Floats) -> bool:
    """Whether there are several splits.

    >>> is_nested(np.zeros((2, 5, 1))), is_nested(np.zeros((1, 5, 1))), is_nested(np.zeros((5, 1)))
    (True, False, False)
    """
    return scores.ndim == 3 and len(scores) > 1


def present(scores: Floats) -> list[Floats]:
    """What varies independently, of each task that has any, without NaN.

    Args:
        scores: (seeds, tasks) or (splits, seeds, tasks).

    Raises:
        ValueError: It is neither, there is no score at all, or an infinite one.

    >>> present(np.array([[0.5, np.nan], [0.7, np.nan]]))
    [array([0.5, 0.7])]
    """
    units = over_splits(scores)
    if np.isinf(units).any():
        raise ValueError("a score is infinite; give finite scores, and NaN where a run is missing")
    columns = [column[~np.isnan(column)] for column in units.T]
    if not any(map(len, columns)):
        raise ValueError("every score is NaN, a missing run; give one score or more")
    return [column for column in columns if len(column)]


def known_tasks(
    scores: Floats, draws: Sequence[Hashable] | None = None
) -> tuple[Floats, Sequence[Hashable]]:
    """The tasks that have a score, and the draws of each.

    Args:
        scores: (..., tasks).
        draws: (tasks,) names, the same for tasks that share their draws; None where none do.

    >>> known_tasks(np.array([[0.5, np.nan, 0.7]]), ["a", "b", "a"])
    (array([[0.5, 0.7]]), ['a', 'a'])
    """
    there = np.asarray(~np.isnan(scores).all(axis=tuple(range(scores.ndim - 1))))
    names = range(len(there)) if draws is None else draws
    return scores[..., there], [one for one, known in zip(names, there, strict=True) if known]


def blocks(units: Floats, draws: Sequence[Hashable]) -> list[Floats]:
    """The columns of tasks that share their draws, together: (units, tasks) of each draw.

    >>> [block.tolist() for block in blocks(np.array([[0.1, 0.2, 0.3]]), ["a", "b", "a"])]
    [[[0.1, 0.3]], [[0.2]]]
    """
    return [units[:, [one == name for one in draws]] for name in dict.fromkeys(draws)]


def drawn_alike(
    draws: Sequence[Hashable], rng: np.random.Generator
) -> Iterator[np.random.Generator]:
    """A generator for each task, to be used before the next: the same for those that share draws.

    >>> first, other, same = (g.random() for g in drawn_alike("aba", np.random.default_rng(0)))
    >>> first == same, first == other
    (True, False)
    """
    began: dict[Hashable, np.random.Generator] = {}
    for name in draws:
        if name in began:
            yield copy.deepcopy(began[name])
        else:
            began[name] = copy.deepcopy(rng)
            yield rng


def runs_of(scores: Floats) -> list[Floats]:
    """All runs of each task that has any, whatever split they are of, without NaN.

    >>> runs_of(np.array([[[0.6], [0.8]], [[0.5], [np.nan]]]))
    [array([0.6, 0.8, 0.5])]
    """
    return present(scores.reshape(-1, scores.shape[-1]) if scores.ndim == 3 else scores)


def variance(values: Floats) -> float:
    """That of a sample, exactly 0 for equal values, whatever the last digits of their mean."""
    return float(values.var(ddof=1)) if np.ptp(values) else 0.0


def sums_of(block: Floats) -> Floats:
    """What each unit brings to the sum of the means of tasks that share their draws.

    Args:
        block: (units, tasks); NaN where a task lacks a unit.

    Returns:
        (units that have any,), of which the variance over their number is that of the sum. Of one
        task its values; of several without gaps their sums, less a constant.

    >>> sums_of(np.array([[0.1, 0.3], [0.3, 0.7]])).round(3).tolist()
    [-0.3, 0.3]
    """
    there = ~np.isnan(block)
    if block.shape[1] == 1:
        return np.asarray(block[there])
    counts = there.sum(axis=0)
    means = np.where(there, block, 0.0).sum(axis=0) / counts
    sums = np.where(there, block - means, 0.0) @ (1 / counts)
    known: Floats = sums[there.any(axis=1)]
    # Rounded: what cancels may differ in the last digits, which is no variation.
    return (known * len(known)).round(12)


def welch(tasks: Sequence[Floats]) -> tuple[float, float]:
    """Standard error of the mean of the means of tasks, and its degrees of freedom.

    For T tasks with n_t values and variances s_t^2, error^2 = sum_t s_t^2 / n_t / T^2, with the
    degrees of freedom of Welch and Satterthwaite (Welch 1947,
    https://doi.org/10.1093/biomet/34.1-2.28), so tasks may differ in their noise. Tasks that share
    their draws are one term, of their sums.

    Args:
        tasks: (units, tasks) of those that share their draws, for each draw; two units or more of
            each task.

    Returns:
        Error and degrees of freedom; 0 and 0 where nothing varies.

    >>> task = np.array([[0.1], [0.2], [0.3]])
    >>> [round(one, 4) for one in welch([task])]
    [0.0577, 2.0]
    >>> [round(one, 4) for one in welch([np.hstack([task, task])])]  # the same luck twice
    [0.0577, 2.0]
    """
    sums = [sums_of(task) for task in tasks]
    errors = np.array([variance(one) / len(one) for one in sums])
    if not errors.any():
        return 0.0, 0.0
    freedom = errors.sum() ** 2 / sum(errors**2 / [len(one) - 1 for one in sums])
    return float(np.sqrt(errors.sum()) / sum(task.shape[1] for task in tasks)), float(freedom)


def are_shares(values: Floats, scale: tuple[float, float] | None) -> bool:
    """Whether values, NaN left out, are shares: all from 0 to 1, of a metric with that range.

    A few correlations may all be above 0, and percent go by the name of a share.

    Args:
        values: Of any shape.
        scale: What the metric lies between; None where nobody says.
    """
    if scale != (0.0, 1.0):
        return False
    known = values[~np.isnan(values)]
    return bool(((known >= 0) & (known <= 1)).all())


def t_interval(
    mean: float, error: float, freedom: float, *, shares: bool = False
) -> tuple[float, float]:
    """Ends of Student's interval.

    Args:
        mean: The estimate.
        error: Its standard error, above 0.
        freedom: Degrees of freedom of that.
        shares: It is a mean of shares, 0 to 1: the interval is taken on the logit scale, as surveys
            do for proportions (Dean and Pagano 2015, https://doi.org/10.1093/jssam/smv024), so
            that with few values it ends inside 0 and 1.

    >>> [round(end, 3) for end in t_interval(0.5, 0.1, 2)]
    [0.07, 0.93]
    >>> [round(end, 3) for end in t_interval(0.5, 0.1, 2, shares=True)]
    [0.152, 0.848]
    """
    half = stats.t.isf(LEVEL / 2, freedom) * error
    if not shares:
        return float(mean - half), float(mean + half)
    # The derivative of the logit is 1 / (mean (1 - mean)).
    centre, half = special.logit(mean), half / (mean * (1 - mean))
    return float(special.expit(centre - half)), float(special.expit(centre + half))


def resampled(tasks: Sequence[Floats], rng: np.random.Generator) -> list[Floats] | None:
    """Splits drawn with replacement, and of each drawn one its seeds with replacement.

    As many seeds are drawn of a split that lacks some, so that every split weighs the same.

    Args:
        tasks: (splits, seeds) of one task for each of several methods, which are drawn the same
            splits; NaN where a run is missing.
        rng: Of the resamples.

    Returns:
        (resamples, splits, seeds) of each; None where fewer than two splits have runs of all.

    >>> (drawn,) = resampled([np.array([[0.1, 0.1], [0.9, 0.9]])], np.random.default_rng(0))
    >>> drawn.shape, sorted(set(drawn.mean(axis=(1, 2)).round(1).tolist()))
    ((2000, 2, 2), [0.1, 0.5, 0.9])
    """
    shared = np.all([(~np.isnan(task)).any(axis=1) for task in tasks], axis=0)
    n = int(shared.sum())
    if n < 2:
        return None
    which = rng.integers(n, size=(RESAMPLES, n))
    found = []
    for task in (task[shared] for task in tasks):
        # NaN is sorted to the end.
        known, counts = np.sort(task, axis=1), (~np.isnan(task)).sum(axis=1)
        share = rng.random((*which.shape, task.shape[1]))
        place = (share * counts[which][..., None]).astype(int)
        found.append(known[which[..., None], place])
    return found
