"""Rank correlations against scipy's, and what a curve may promise on curves whose way is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rlprompt.statistics.trends import outlook, rank_correlation
from rlprompt.types import Floats

COSTS = np.arange(1.0, 11.0) * 320


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


class TestRankCorrelation:
    def test_it_is_scipys_with_ties_too(self) -> None:
        points = np.round(rng().normal(size=(40, 2)), 1)
        known = stats.spearmanr(points[:, 0], points[:, 1]).statistic
        found = rank_correlation([[points[:15], points[15:]]])
        assert found.value == pytest.approx(float(known))
        assert found.n == 40
        assert found.low is None

    def test_ranks_are_of_each_split_by_itself(self) -> None:
        rising = np.arange(4.0)
        splits = [[np.stack([rising, rising + shift], axis=1)] for shift in (0, -100)]
        assert rank_correlation(splits).value == pytest.approx(1)

    def test_the_interval_is_of_runs_and_not_of_their_prompts(self) -> None:
        # Each run is one point over and over: its prompts tell nothing more.
        runs = [
            np.tile(point, (30, 1)) + rng().normal(scale=1e-6, size=(30, 2))
            for point in rng().normal(size=(6, 2))
        ]
        wide = rank_correlation([runs], rng())
        narrow = rank_correlation([[point[None] for run in runs for point in run]], rng())
        widths = [(one.high or 0) - (one.low or 0) for one in (wide, narrow)]
        assert widths[0] > 3 * widths[1] > 0

    @pytest.mark.parametrize(
        "splits", [[], [[]], [[np.zeros((0, 2))]], [[np.ones((5, 2))]], [[np.eye(2)]]]
    )
    def test_nothing_is_said_of_too_little(self, splits: list[list[Floats]]) -> None:
        found = rank_correlation(splits, rng())
        assert (found.value, found.low, found.high) == (None, None, None)


class TestOutlook:
    def curves(self, slope: float, noise: float, runs: int = 5) -> Floats:
        """0.5 at the first cost, and a slope for each doubling."""
        luck = rng().normal(scale=noise, size=(runs, 1))
        return np.asarray(0.5 + slope * np.log2(COSTS / COSTS[0]) + luck)

    def test_a_curve_that_goes_on_is_shown_to_twice_its_cost(self) -> None:
        found = outlook(COSTS, self.curves(0.05, 0.01))
        assert found.problem == ""
        assert found.gain is not None
        assert found.gain.mean == pytest.approx(0.05)
        assert (found.band.at[0], found.band.at[-1]) == (3200, 6400)
        end = self.curves(0.05, 0.01)[:, -1].mean() + 0.05
        assert found.band.value[-1] == pytest.approx(end)
        assert found.band.low[-1] < end < found.band.high[-1]

    def test_it_is_cut_where_the_band_is_wider_than_all_that_was_gained(self) -> None:
        slopes = np.array([0.02, 0.05, 0.08, 0.065, 0.035])[:, None]
        curves = 0.5 + slopes * np.log2(COSTS / COSTS[-1])
        found = outlook(COSTS, curves * 1.0)
        assert len(found.band.at) > 1
        widths = found.band.high - found.band.low
        assert widths.max() <= np.ptp(curves.mean(axis=0))
        hidden = outlook(COSTS, self.curves(0.01, 0.2))
        assert hidden.gain is None
        assert len(hidden.band.at) == 0
        assert hidden.problem == "the interval is wider than all that the curve has gained"

    def test_a_curve_that_has_levelled_off_promises_nothing(self) -> None:
        level = np.minimum(self.curves(0.1, 0.0), 0.65) + rng().normal(scale=0.002, size=(5, 10))
        found = outlook(COSTS, level)
        assert found.gain is None
        assert found.problem.startswith("its first half predicts 0.0")
        assert found.problem.endswith("more than its second half gave")

    def test_splits_are_what_the_band_is_over(self) -> None:
        curves = self.curves(0.05, 0.01, runs=6)
        found = outlook(COSTS, curves, [13, 13, 21, 21, 42, 42])
        pairs = outlook(COSTS, curves.reshape(3, 2, -1).mean(axis=1))
        assert found.band.low == pytest.approx(pairs.band.low)
        assert found.band.value == pytest.approx(pairs.band.value)

    @pytest.mark.parametrize(
        ("costs", "curves", "problem"),
        [
            (COSTS, np.ones((1, 10)), "one run does not show how much runs differ"),
            (COSTS[:3], np.ones((5, 3)), "the curve has 3 points, too few to fit"),
            (COSTS, np.ones((5, 10)), "the curve has not moved"),
        ],
    )
    def test_too_little_is_said_so(self, costs: Floats, curves: Floats, problem: str) -> None:
        assert outlook(costs, curves).problem == problem
