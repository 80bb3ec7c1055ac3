"""What several runs say about one method: means, intervals, and two methods side by side.

Scores are matrices (seeds, tasks) of one method at one budget, NaN where a run is missing or
failed. The unit that varies is the seed: an interval says what other seeds would give on the same
tasks and the same test examples, and nothing of other tasks. With one seed there is no interval.
Where the data were drawn several times, scores are (splits, seeds, tasks), and the unit is the
split (`nested`). Tests of differences are in `paired`, words in `verdict`.

>>> over_seeds = summarise(np.array([0.5, 0.6, 0.7]))
>>> f"{over_seeds.mean:.2f}, 95 % interval {over_seeds.low:.2f} to {over_seeds.high:.2f}"
'0.60, 95 % interval 0.35 to 0.85'

Interquartile mean, probability of improvement, profiles and the stratified bootstrap follow
Agarwal et al. 2021, Deep Reinforcement Learning at the Edge of the Statistical Precipice
(https://arxiv.org/abs/2108.13264), whose package is rliable.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from rlprompt.statistics.nested import (
    LEVEL,
    RESAMPLES,
    blocks,
    drawn_alike,
    is_nested,
    known_tasks,
    over_splits,
    present,
    resampled,
    runs_of,
    t_interval,
    welch,
)
from rlprompt.types import Floats


@dataclass(frozen=True)
class MeanInterval:
    """Values of independent runs, or the means of splits.

    Attributes:
        mean: Their mean.
        deviation: Their standard deviation (n - 1 in the denominator); None for one value.
        low: Lower end of the interval of the mean; None for one value, or where all are the same:
            that a few runs agree is no precision.
        high: The upper end.
        n: How many there are.
    """

    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Estimate:
    """A figure over tasks.

    Attributes:
        value: The figure.
        low: Lower end of its interval; None where a task has one run, whose luck is unknown, or
            where every resample gives the same, which is no precision.
        high: The upper end.
        n_tasks: Tasks that it is made of: those with a run.
    """

    value: float
    low: float | None
    high: float | None
    n_tasks: int


@dataclass(frozen=True)
class Band:
    """A curve with its interval at each point by itself, not for the curve as a whole.

    Attributes:
        at: (G,) places on the horizontal axis.
        value: (G,) heights; NaN where there is none.
        low: (G,) lower ends; NaN where there is none.
        high: (G,) upper ends.
    """

    at: Floats
    value: Floats
    low: Floats
    high: Floats


def summarise(values: Floats, *, shares: bool = False) -> MeanInterval:
    """Mean, spread, and Student's t interval of the mean.

    Over the seeds of a task, `summarise(scores[:, task])`, the interval is of what other seeds
    give. Over tasks, `summarise(np.nanmean(scores, axis=0))`, it is of what other tasks like these
    give; few comparisons have tasks enough, or tasks drawn at random, to claim that.

    Args:
        values: (n,), or (splits, seeds), of which the means of splits count; NaN is left out.
        shares: They are shares, 0 to 1, and so is the interval (`nested.t_interval`).

    Raises:
        ValueError: There is no value, or an infinite one.

    >>> found = summarise(np.array([0.5, 0.6, 0.7]))
    >>> round(found.mean, 3), round(found.deviation, 3), round(found.low, 3), round(found.high, 3)
    (0.6, 0.1, 0.352, 0.848)
    >>> summarise(np.array([[0.4, 0.6], [0.6, 0.6], [0.7, 0.7]])) == found
    True
    """
    (values,) = present(values[..., None])
    n = len(values)
    mean = float(values.mean())
    if n < 2:
        return MeanInterval(mean, None, None, None, n)
    deviation = float(values.std(ddof=1))
    if values.min() == values.max():
        return MeanInterval(mean, 0.0, None, None, n)
    low, high = t_interval(mean, deviation / float(np.sqrt(n)), n - 1, shares=shares)
    return MeanInterval(mean, deviation, low, high, n)


def share_interval(successes: int, n: int) -> tuple[float, float]:
    """Wilson's interval of a share, such as one prompt's accuracy on n test examples.

    It is about other examples, not about other seeds (Wilson 1927,
    https://doi.org/10.1080/01621459.1927.10502953).

    Args:
        successes: Examples that came out right, 0 to n.
        n: Examples, 1 or more.

    Raises:
        ValueError: There are no examples, or more successes than examples.

    >>> [round(end, 3) for end in share_interval(8, 10)]
    [0.49, 0.943]
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(
            f"got {successes} successes in {n} trials; give 1 trial or more, and 0 to that many "
            "successes"
        )
    interval = stats.binomtest(successes, n).proportion_ci(1 - LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def interquartile_mean(
    scores: Floats, rng: np.random.Generator, *, draws: Sequence[Hashable] | None = None
) -> Estimate:
    """Mean of the middle half of all runs of all tasks, with a stratified bootstrap interval.

    A quarter of the runs, rounded down, is cut off at each end, so fewer than four have their plain
    mean. It minds neither one lucky run nor one failure, and is more efficient than the median.
    Tasks should share a scale; a task with more runs weighs more, as in rliable. Of several splits
    the runs are resampled in two stages (`nested.resampled`), which is too narrow with few splits.

    Args:
        scores: (seeds, tasks) or (splits, seeds, tasks).
        rng: Of the resamples.
        draws: (tasks,) names, the same for tasks whose searches share what a seed draws, which are
            then resampled together, as far as they have the same runs. None where none do.

    >>> scores = np.array([[0.1], [0.5], [0.6], [0.9]])
    >>> found = interquartile_mean(scores, np.random.default_rng(0))
    >>> round(found.value, 3), found.low < 0.55 < found.high, found.n_tasks
    (0.55, True, 1)
    """

    def middle(*tasks: Floats, axis: int) -> Any:
        return stats.trim_mean(np.concatenate(tasks, axis), 0.25, axis)

    scores, names = known_tasks(scores, draws)
    tasks = runs_of(scores)
    value = float(middle(*tasks, axis=-1))
    if is_nested(scores):
        drawn = _drawn(scores, rng, names)
        means = None if drawn is None else middle(*drawn, axis=-1)
        return _estimate(value, _percentiles(means), len(tasks))
    return _estimate(value, _bootstrap(tasks, middle, rng, names), len(tasks))


def task_mean(
    scores: Floats,
    rng: np.random.Generator,
    *,
    draws: Sequence[Hashable] | None = None,
    shares: bool = False,
) -> Estimate:
    """Mean over tasks of their means over seeds, with a stratified bootstrap interval.

    Of several splits it is the mean over tasks of means over splits of means over seeds, with a t
    interval of the means of splits: three splits are too few to resample.

    Args:
        scores: (seeds, tasks) or (splits, seeds, tasks).
        rng: Of the resamples.
        draws: As for `interquartile_mean`.
        shares: As for `summarise`; of one split the interval has no need of it.

    >>> scores = np.array([[0.2, 0.8], [0.4, np.nan]])
    >>> found = task_mean(scores, np.random.default_rng(0))
    >>> round(found.value, 3), found.low  # one task has one run, so there is no interval
    (0.55, None)
    """
    scores, names = known_tasks(scores, draws)
    tasks = present(scores)
    value = float(_mean_of_means(*tasks))
    if not is_nested(scores):
        return _estimate(value, _bootstrap(tasks, _mean_of_means, rng, names), len(tasks))
    error, freedom = 0.0, 0.0
    if min(map(len, tasks)) > 1:
        error, freedom = welch(blocks(over_splits(scores), names))
    interval = t_interval(value, error, freedom, shares=shares) if error else None
    return _estimate(value, interval, len(tasks))


def probability_of_improvement(
    x: Floats,
    y: Floats,
    rng: np.random.Generator,
    *,
    draws: Sequence[Hashable] | None = None,
) -> Estimate:
    """Chance that a run of x scores higher than one of y, a mean over tasks.

    Of all pairs of runs of a task, the share in which x is higher, half counted where they are
    level (Mann and Whitney's U over the number of pairs; Agarwal et al. 2021, section 4.3). It says
    how often, not by how much. Of several splits, runs are held against those on the same split,
    and shares are means over splits, which are resampled in two stages (`nested.resampled`).

    Args:
        x: (seeds, tasks) or (splits, seeds, tasks).
        y: The same, on the same splits and tasks; the numbers of seeds may differ.
        rng: Of the resamples.
        draws: As for `interquartile_mean`.

    Raises:
        ValueError: They share no task, or no split of one, on which both have a score.

    >>> x, y = np.array([[0.6], [0.8]]), np.array([[0.5], [0.7]])
    >>> probability_of_improvement(x, y, np.random.default_rng(0)).value
    0.75
    """
    if x.ndim != y.ndim or x.shape[-1] != y.shape[-1] or x.shape[:-2] != y.shape[:-2]:
        raise ValueError(
            f"scores have the shapes {x.shape} and {y.shape}; give both on the same tasks"
        )
    names = tuple(range(x.shape[-1]) if draws is None else draws)
    if is_nested(x):
        return _nested_improvement(x, y, rng, names)
    x, y = over_splits(x), over_splits(y)
    shared = np.asarray(~np.isnan(x).all(axis=0) & ~np.isnan(y).all(axis=0))
    if not shared.any():
        raise ValueError("no task has a score of both; give methods that share a task")
    tasks = [*present(x[:, shared]), *present(y[:, shared])]
    # Runs of two methods are paired by nothing.
    kept = [(which, name) for which in "xy" for name, one in zip(names, shared, strict=True) if one]
    n_tasks = len(tasks) // 2
    value = float(_improvement(*tasks))
    return _estimate(value, _bootstrap(tasks, _improvement, rng, kept), n_tasks)


def performance_profile(
    scores: Floats,
    thresholds: Floats,
    rng: np.random.Generator,
    *,
    draws: Sequence[Hashable] | None = None,
) -> Band:
    """Share of runs that score above each threshold, a mean over tasks, with its bands.

    One profile above another everywhere is better at every level (Agarwal et al. 2021, section 4.2,
    run-score distributions; bands by the stratified bootstrap, of several splits in two stages). No
    band where a task has one run, or one split of several.

    Args:
        scores: (seeds, tasks) or (splits, seeds, tasks).
        thresholds: (G,).
        rng: Of the resamples.
        draws: As for `interquartile_mean`.

    >>> scores, thresholds = np.array([[0.4], [0.6], [0.8]]), np.array([0.5, 0.7])
    >>> performance_profile(scores, thresholds, np.random.default_rng(0)).value.round(3).tolist()
    [0.667, 0.333]
    """

    def shares(*tasks: Floats, axis: int = -1) -> Floats:
        # Runs first, since to sum over a long axis of few is slow; thresholds first in the end.
        runs_first = [np.moveaxis(task, axis, 0)[..., None] for task in tasks]
        above = _over_tasks([(task > thresholds).mean(axis=0) for task in runs_first])
        return np.moveaxis(above, -1, 0)

    scores, names = known_tasks(scores, draws)
    tasks = runs_of(scores)
    value = shares(*tasks)
    if is_nested(scores):
        drawn = _drawn(scores, rng, names)
        interval = _percentiles(None if drawn is None else shares(*drawn))
    else:
        interval = _bootstrap(tasks, shares, rng, names)
    low, high = (np.full_like(value, np.nan),) * 2 if interval is None else interval
    return Band(thresholds, value, low, high)


def curve_band(
    curves: Sequence[Sequence[tuple[float, float]]],
    grid: Floats,
    splits: Sequence[object] | None = None,
) -> Band:
    """Mean and t interval over seeds of curves of the best so far.

    Args:
        curves: One a seed: (cost, best so far), cost ascending. A value holds until the next, and
            the last one to the end.
        grid: (G,) costs at which to read them.
        splits: The split of each curve. Of several, mean and interval are of the means of splits.

    Returns:
        NaN before the first value of the slowest seed: a mean over some seeds would jump as others
        join. No interval with one curve.

    Raises:
        ValueError: There are no curves, or one is empty or not in the order of cost.

    >>> curves = [[(1, 0.2), (3, 0.6)], [(2, 0.4)]]
    >>> curve_band(curves, np.array([1.0, 2.0, 3.0])).value.round(3).tolist()
    [nan, 0.3, 0.5]
    """
    if not curves or not all(map(len, curves)):
        raise ValueError("a curve has no point; leave out runs that scored nothing")
    values = np.array([_held(np.array(curve, dtype=np.float64), grid) for curve in curves])
    if splits is not None and len(set(splits)) > 1:
        groups = [[one == name for one in splits] for name in dict.fromkeys(splits)]
        values = np.array([values[group].mean(axis=0) for group in groups])
    mean, n = values.mean(axis=0), len(values)
    if n < 2:
        return Band(grid, mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan))
    half = stats.t.isf(LEVEL / 2, n - 1) * values.std(axis=0, ddof=1) / np.sqrt(n)
    return Band(grid, mean, mean - half, mean + half)


def _held(curve: Floats, grid: Floats) -> Floats:
    """A step curve (points, 2) read on a grid, NaN before its first point."""
    costs, values = curve.T
    if (np.diff(costs) < 0).any():
        raise ValueError("the costs of a curve go down; give its points in ascending order of cost")
    last = np.searchsorted(costs, grid, side="right") - 1
    return np.where(last < 0, np.nan, values[last])


def _mean_of_means(*tasks: Floats, axis: int = -1) -> Floats:
    return _over_tasks([task.mean(axis=axis) for task in tasks])


def _improvement(*tasks: Floats, axis: int = -1) -> Floats:
    """Of x's tasks followed by y's, runs along the last axis."""
    half = len(tasks) // 2
    shares = []
    for x, y in zip(tasks[:half], tasks[half:], strict=True):
        x, y = x[..., :, None], y[..., None, :]
        # Level ones are in one of the two: counted half.
        shares.append(((x > y).mean(axis=(-2, -1)) + (x >= y).mean(axis=(-2, -1))) / 2)
    return _over_tasks(shares)


def _over_tasks(figures: list[Any]) -> Floats:
    """Mean of arrays of the same shape, one a task."""
    return np.asarray(np.mean(figures, axis=0))


def _nested_improvement(
    x: Floats, y: Floats, rng: np.random.Generator, names: Sequence[Hashable]
) -> Estimate:
    """Means over tasks of means over splits of the share of pairs in which x is higher."""
    values, draws = [], []
    for task, alike in enumerate(drawn_alike(names, rng)):
        pair = [np.asarray(one[..., task]) for one in (x, y)]
        rows = [[row[~np.isnan(row)] for row in one] for one in pair]
        shares = [_improvement(a, b) for a, b in zip(*rows, strict=True) if len(a) and len(b)]
        if shares:
            values.append(float(np.mean(shares)))
            draws.append(resampled(pair, alike))
    if not values:
        raise ValueError(
            "no split of a task has a score of both; give methods that share a split of a task"
        )
    means = None
    if all(draw is not None for draw in draws):
        drawn = [_improvement(*draw).mean(axis=-1) for draw in draws if draw is not None]
        means = _over_tasks(drawn)
    return _estimate(float(np.mean(values)), _percentiles(means), len(values))


def _drawn(
    scores: Floats, rng: np.random.Generator, names: Sequence[Hashable]
) -> list[Floats] | None:
    """Runs of each task, resampled in two stages: (resamples, runs)."""
    drawn = []
    for task, alike in zip(np.moveaxis(scores, -1, 0), drawn_alike(names, rng), strict=True):
        found = resampled([task], alike)
        if found is None:
            return None
        drawn.append(found[0].reshape(len(found[0]), -1))
    return drawn


def _percentiles(values: Floats | None) -> tuple[Floats, Floats] | None:
    """Of resamples, the last axis."""
    if values is None:
        return None
    low, high = np.quantile(values, [LEVEL / 2, 1 - LEVEL / 2], axis=-1)
    return np.asarray(low), np.asarray(high)


def _estimate(
    value: float, interval: tuple[Floats | float, Floats | float] | None, n_tasks: int
) -> Estimate:
    if interval is None:
        return Estimate(value, None, None, n_tasks)
    low, high = map(float, interval)
    if low == high:
        return Estimate(value, None, None, n_tasks)
    return Estimate(value, low, high, n_tasks)


def _bootstrap(
    tasks: Sequence[Floats],
    statistic: Callable[..., Any],
    rng: np.random.Generator,
    names: Sequence[Hashable],
) -> tuple[Floats, Floats] | None:
    """Percentile interval, runs drawn with replacement within each task (stratified).

    Tasks of one name draw alike.

    None where a task has one run: to draw it again and again would say that it has no luck.
    """
    if min(map(len, tasks)) < 2:
        return None
    drawn = [
        task[alike.integers(len(task), size=(RESAMPLES, len(task)))]
        for task, alike in zip(tasks, drawn_alike(names, rng), strict=True)
    ]
    return _percentiles(statistic(*drawn, axis=-1))
