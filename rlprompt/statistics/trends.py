"""Whether one score foretells another, and where a curve is going, as far as that can be said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlprompt.statistics.nested import LEVEL
from rlprompt.statistics.summaries import Band, MeanInterval, summarise
from rlprompt.types import Floats

# A rank correlation costs more than a mean; 1,000 are enough for its 95 % interval.
RESAMPLES = 1000
# A curve is taken no further than so many times its cost, and is fitted to so many points or more.
FURTHEST, LEAST_POINTS = 2.0, 4
# Places beyond the end at which it is read.
PLACES = 50


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation.

    Attributes:
        value: Mean over splits; None where one of the two does not vary, or two points are all.
        low: Lower end of its 95 % interval; None with one run.
        high: The upper end.
        n: Points.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int


def rank_correlation(
    splits: Sequence[Sequence[Floats]], rng: np.random.Generator | None = None
) -> Correlation:
    """How well the ranks of one score are those of another, within each split.

    Prompts of one run resemble each other, so the interval is of the runs: a percentile bootstrap
    that draws runs within each split, of several splits the splits first (Davison and Hinkley 1997,
    section 3.8). It says what other runs would give, which score prompts as these did.

    Args:
        splits: Of each split its runs, each (n, 2) scores of its prompts.
        rng: Of the resamples; None for no interval.

    >>> runs = [np.array([[0.1, 1.0], [0.2, 2.0]]), np.array([[0.3, 3.0], [0.4, 5.0]])]
    >>> rank_correlation([runs]).value
    1.0
    """
    kept = [[run for run in runs if len(run)] for runs in splits]
    kept = [runs for runs in kept if runs]
    n = sum(len(run) for runs in kept for run in runs)
    value = _mean_of([_rho(runs, np.ones((len(runs), 1))) for runs in kept])[0]
    if np.isnan(value):
        return Correlation(None, None, None, n)
    if rng is None or max(map(len, kept)) < 2:
        return Correlation(float(value), None, None, n)
    # How often each run is drawn; a split that is drawn twice weighs twice, by the same runs.
    times = [rng.multinomial(len(runs), [1 / len(runs)] * len(runs), RESAMPLES).T for runs in kept]
    found = [_rho(runs, own.astype(np.float64)) for runs, own in zip(kept, times, strict=True)]
    drawn = rng.multinomial(len(kept), [1 / len(kept)] * len(kept), RESAMPLES).T
    means = _mean_of(found, drawn.astype(np.float64))
    low, high = np.nanquantile(means, [LEVEL / 2, 1 - LEVEL / 2]).tolist()
    return Correlation(float(value), low, high, n)


def _rho(runs: Sequence[Floats], times: Floats) -> Floats:
    """Rank correlation (resamples,) of runs that count so many times, (runs, resamples).

    NaN where a score does not vary.
    """
    points, which = np.concatenate(runs), np.repeat(np.arange(len(runs)), list(map(len, runs)))
    weights = times[which]
    members = (which[:, None] == np.arange(len(runs))).astype(np.float64)
    centred = []
    for scores in points.T:
        # Ranks up to a constant: what is below counts 1, what is level a half.
        below = (scores < scores[:, None]) + 0.5 * (scores == scores[:, None])
        ranks = below @ members @ times
        centred.append(ranks - (weights * ranks).sum(axis=0) / weights.sum(axis=0))
    x, y = centred
    size = np.sqrt((weights * x * x).sum(axis=0) * (weights * y * y).sum(axis=0))
    enough = (size > 1e-9) & (len(points) > 2)
    product = (weights * x * y).sum(axis=0)
    return np.where(enough, product / np.where(enough, size, 1.0), np.nan)


def _mean_of(splits: Sequence[Floats], times: Floats | None = None) -> Floats:
    """Mean over splits, each so many times, without NaN."""
    if not splits:
        return np.full(1, np.nan)
    values = np.array(splits)
    weights = np.where(np.isnan(values), 0.0, 1.0 if times is None else times)
    total = weights.sum(axis=0)
    sums = (weights * np.nan_to_num(values)).sum(axis=0)
    return np.where(total > 0, sums / np.maximum(total, 1e-12), np.nan)


@dataclass(frozen=True)
class Outlook:
    """Where a curve is going.

    Attributes:
        gain: What twice the cost would add, over runs or splits; None where nothing can be said.
        band: The fitted curve beyond its end, as far as may be shown; empty where not at all.
        problem: Why nothing, or no more, can be said, in a sentence; "" where there is no reason.
    """

    gain: MeanInterval | None
    band: Band
    problem: str


def outlook(costs: Floats, heights: Floats, splits: Sequence[object] | None = None) -> Outlook:
    """What a curve promises beyond its end, if it goes on as it came.

    Each run's curve is fitted by a + b log(cost), by least squares: learning curves over data and
    computation are near a power law (Hestness et al. 2017, arXiv 1712.00409), whose third
    parameter ten points cannot give; over a doubling the two differ little. What is promised is the
    mean of the runs' fits, with Student's interval over runs, or over the means of splits.

    It is shown to twice the cost at most, and only as far as its interval is narrower than all
    that the curve has gained so far. Fitted to its first half, it must not miss its end: if the
    mean miss is told apart from 0, the curve does not follow the fit, and nothing is said.

    Args:
        costs: (points,), above 0, ascending.
        heights: (runs, points).
        splits: The split of each run, where there are several.

    >>> costs = np.arange(1.0, 11.0)
    >>> noise = np.array([[0.0], [0.01], [-0.01]])
    >>> found = outlook(costs, 0.5 + 0.1 * np.log2(costs) + noise)
    >>> round(found.gain.mean, 3), round(float(found.band.at[-1]), 1)
    (0.1, 20.0)
    """
    grid = np.linspace(costs[-1], FURTHEST * costs[-1], PLACES) if len(costs) else np.zeros(0)
    names = list(splits) if splits is not None else list(range(len(heights)))
    alone = len(set(names)) == 1
    groups = [[i] for i in range(len(heights))] if alone else _groups(names)
    if len(groups) < 2:
        return Outlook(None, _nowhere(), "one run does not show how much runs differ")
    if len(costs) < LEAST_POINTS:
        return Outlook(None, _nowhere(), f"the curve has {len(costs)} points, too few to fit")

    def units(values: Floats) -> Floats:
        return np.array([values[group].mean(axis=0) for group in groups])

    mean = units(heights).mean(axis=0)
    gained = float(np.ptp(mean))
    if gained == 0:
        return Outlook(None, _nowhere(), "the curve has not moved")
    half = int((costs <= costs[-1] / FURTHEST).sum())
    if half > 2:
        miss = units(_fitted(costs[:half], heights[:, :half], costs[-1:]) - heights[:, -1:])
        # Rounded: the last digits are no miss.
        tested = summarise(miss[:, 0].round(12))
        if (
            tested.low is not None
            and tested.high is not None
            and not tested.low <= 0 <= tested.high
        ):
            way = "more" if tested.mean > 0 else "less"
            return Outlook(
                None,
                _nowhere(),
                f"its first half predicts {abs(tested.mean):.3g} {way} than its second half gave",
            )
    ahead = units(_fitted(costs, heights, grid))
    gain = summarise(ahead[:, -1] - ahead[:, 0])
    intervals = [summarise(column) for column in ahead.T]
    low, high = (
        np.array([np.nan if end is None else end for end in ends])
        for ends in zip(*((one.low, one.high) for one in intervals), strict=True)
    )
    # NaN, no interval, is no narrow one.
    narrow = high - low <= gained
    reach = len(grid) if narrow.all() else int(narrow.argmin())
    value = np.array([one.mean for one in intervals])
    band = Band(grid[:reach], value[:reach], low[:reach], high[:reach])
    problem = ""
    if reach < len(grid):
        problem = "the interval is wider than all that the curve has gained"
        if reach:
            problem += f" beyond {grid[reach - 1]:,.0f}"
    return Outlook(gain if reach else None, band if reach > 1 else _nowhere(), problem)


def _groups(names: Sequence[object]) -> list[list[int]]:
    return [[i for i, one in enumerate(names) if one == name] for name in dict.fromkeys(names)]


def _fitted(costs: Floats, heights: Floats, at: Floats) -> Floats:
    """Heights (runs, places) of each run's fit."""
    design = np.column_stack([np.ones_like(costs), np.log(costs)])
    weights = np.linalg.lstsq(design, heights.T, rcond=None)[0]
    return np.asarray((np.column_stack([np.ones_like(at), np.log(at)]) @ weights).T)


def _nowhere() -> Band:
    return Band(*(np.zeros(0) for _ in range(4)))
