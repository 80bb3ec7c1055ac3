"""Seeds nested in splits: numbers by hand, one split as before, and intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rlprompt.statistics.nested import over_splits, resampled
from rlprompt.statistics.paired import compare_runs, seeds_needed
from rlprompt.statistics.summaries import (
    curve_band,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    summarise,
    task_mean,
)
from rlprompt.statistics.verdict import judge
from rlprompt.types import Floats

NAN = float("nan")
# 3 splits of 2 seeds; the means of splits are 0.6, 0.7 and 0.5.
SCORES = np.array([[0.55, 0.65], [0.7, 0.7], [0.45, 0.55]])


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def drawn(
    n: int, splits: int, seeds: int, between: float, within: float, generator: np.random.Generator
) -> Floats:
    """Studies of one task whose true mean is 0: (n, splits, seeds)."""
    luck = generator.normal(scale=between, size=(n, splits, 1))
    return np.asarray(luck + generator.normal(scale=within, size=(n, splits, seeds)))


class TestMeans:
    def test_splits_count_once_by_the_mean_of_their_seeds(self) -> None:
        found = summarise(SCORES)
        assert found.mean == pytest.approx(0.6)
        assert found.deviation == pytest.approx(0.1)
        # t with 2 degrees of freedom is 4.3027, and the error 0.1 / sqrt(3).
        assert found.low == pytest.approx(0.6 - 4.302653 * 0.1 / 3**0.5, abs=1e-6)
        assert found.high == pytest.approx(0.6 + 4.302653 * 0.1 / 3**0.5, abs=1e-6)
        assert found.n == 3

    def test_a_missing_run_leaves_its_split_in(self) -> None:
        gap = np.where(SCORES == 0.65, NAN, SCORES)
        # Means of splits are 0.55, 0.7 and 0.5; a mean over runs would be 0.59.
        assert summarise(gap).mean == pytest.approx(1.75 / 3)
        assert np.isnan(over_splits(np.array([[[NAN]], [[0.5]]]))).tolist() == [[True], [False]]

    def test_splits_of_the_same_values_in_another_order_are_equal(self) -> None:
        # In floating point (0.1 + 0.2 + 0.3) / 3 is not (0.3 + 0.2 + 0.1) / 3.
        scores = np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]])
        found = summarise(scores)
        assert (found.mean, found.deviation) == (0.2, 0.0)
        assert (found.low, found.high, found.n) == (None, None, 2)
        over_tasks = task_mean(scores[..., None], rng())
        assert (over_tasks.value, over_tasks.low, over_tasks.high) == (0.2, None, None)

    def test_the_mean_over_tasks_has_welchs_interval(self) -> None:
        tasks = np.stack([SCORES, SCORES[::-1] * 2], axis=-1)
        found = task_mean(tasks, rng())
        assert found.value == pytest.approx(0.9)
        # Variances of the means of splits are 0.01 and 0.04: error^2 = (0.01 + 0.04) / 3 / 4,
        # degrees of freedom 0.05^2 * 2 / (0.01^2 + 0.04^2).
        half = stats.t.isf(0.025, 0.05**2 * 2 / (0.01**2 + 0.04**2)) * (0.05 / 12) ** 0.5
        assert (found.low, found.high) == pytest.approx((0.9 - half, 0.9 + half))

    def test_curves_are_means_of_splits(self) -> None:
        curves = [[(1, value)] for value in SCORES.ravel()]
        band = curve_band(curves, np.array([1.0]), [split for split in "abc" for _ in range(2)])
        known = summarise(SCORES)
        found = (band.value[0], band.low[0], band.high[0])
        assert found == pytest.approx((known.mean, known.low, known.high))


class TestPairs:
    def test_each_split_is_one_pair_of_means(self) -> None:
        x = SCORES[..., None] + np.array([0.1, 0.2, 0.3])[:, None, None]
        found = compare_runs(x, SCORES[..., None])
        assert found.mean == pytest.approx(0.2)
        assert found.n_pairs == 3
        known = stats.ttest_1samp([0.1, 0.2, 0.3], 0)
        assert found.p == pytest.approx(known.pvalue)
        assert (found.low, found.high) == pytest.approx(tuple(known.confidence_interval(0.95)))

    def test_a_control_has_one_score_a_split(self) -> None:
        control = np.array([0.5, 0.5, 0.4])[:, None, None]
        known = stats.ttest_1samp([0.1, 0.2, 0.1], 0)
        found = compare_runs(SCORES[..., None], control)
        assert (found.mean, found.p) == pytest.approx((0.4 / 3, known.pvalue))

    def test_splits_are_what_is_needed_more_of(self) -> None:
        differences = np.array([[0.05, 0.15], [0.2, 0.2], [0.35, 0.25]])[..., None]
        assert seeds_needed(differences) == seeds_needed(np.array([0.1, 0.2, 0.3])) == 5

    def test_only_runs_on_the_same_split_are_held_against_each_other(self) -> None:
        # Between splits all is luck; within each, every run of x is above every one of y.
        y = np.array([[0.1, 0.2], [0.5, 0.6], [0.8, 0.85]])[..., None]
        assert probability_of_improvement(y + 0.11, y, rng()).value == 1.0
        with pytest.raises(ValueError, match="no split of a task has a score of both"):
            probability_of_improvement(
                np.array([[[0.5]], [[NAN]]]), np.array([[[NAN]], [[0.5]]]), rng()
            )


def test_resampling_draws_splits_and_then_seeds_within() -> None:
    task = np.array([[0.0, 1.0, NAN], [10.0, 11.0, 12.0]])
    (found,) = resampled([task], rng()) or [task]
    assert found.shape == (2000, 2, 3)
    # All three draws of a split are of that split, and every seed that there is comes up.
    assert ((found < 5).all(axis=2) | (found > 5).all(axis=2)).all()
    assert sorted(set(found.ravel().tolist())) == [0.0, 1.0, 10.0, 11.0, 12.0]
    assert (found < 5).mean() == pytest.approx(0.5, abs=0.02)
    first, second = resampled([task, -task], rng()) or [task, task]
    assert ((first > 5).all(axis=2) == (second < -5).all(axis=2)).all()  # the same splits
    assert resampled([task[:1]], rng()) is None


@pytest.mark.parametrize("seed", [0, 1])
def test_with_one_split_all_is_as_without(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x, y = generator.random((2, 5, 3))
    places = np.array([0.3, 0.6])
    assert compare_runs(x[None], y[None]) == compare_runs(x, y)
    assert compare_runs(x[None], y[None, :1]) == compare_runs(x, y[:1])
    assert seeds_needed((x - y)[None]) == seeds_needed(x - y)
    assert summarise(x[None, :, 0]) == summarise(x[:, 0])
    for figure in (task_mean, interquartile_mean):
        assert figure(x[None], rng()) == figure(x, rng())
    assert probability_of_improvement(x[None], y[None], rng()) == probability_of_improvement(
        x, y, rng()
    )
    one, other = (performance_profile(s, places, rng()) for s in (x[None], x))
    assert (one.low == other.low).all()
    assert (one.value == other.value).all()
    budgets = {"a": 8, "b": 8}
    controls = {"the empty prompt": np.array([0.1, 0.2, 0.3])}
    nested = judge({"a": x[None], "b": y[None]}, {k: v[None] for k, v in controls.items()}, budgets)
    assert nested == judge({"a": x, "b": y}, controls, budgets)


@pytest.mark.parametrize(
    "scores", [SCORES.reshape(1, 6)[:, :4], np.hstack([SCORES, SCORES + 0.02])]
)
def test_tasks_of_the_same_luck_are_as_sure_as_one(scores: Floats) -> None:
    """4 seeds, and 3 splits of 4: the same runs on a second task add nothing."""
    scores = scores[..., None]
    twice, at = np.concatenate([scores, scores], axis=-1), np.array([0.6])
    for estimate in (
        lambda one, **draws: task_mean(one, rng(), **draws),
        lambda one, **draws: interquartile_mean(one, rng(), **draws),
        lambda one, **draws: probability_of_improvement(one, one[..., ::-1, :], rng(), **draws),
        lambda one, **draws: performance_profile(one, at, rng(), **draws),
    ):
        alone, both, apart = (
            estimate(one, **draws)
            for one, draws in ((scores, {}), (twice, {"draws": "aa"}), (twice, {}))
        )
        ends = [np.ravel([one.low, one.high]).astype(float) for one in (alone, both, apart)]
        assert ends[1] == pytest.approx(ends[0])
        assert np.ptp(ends[2]) < np.ptp(ends[0])


class TestCoverage:
    """Studies whose true figure is known: how often the interval of 95 % holds it."""

    def test_where_splits_differ_the_nested_interval_covers_and_the_naive_one_does_not(
        self,
    ) -> None:
        studies = drawn(600, splits=3, seeds=4, between=1.0, within=0.2, generator=rng())

        def coverage(shape: tuple[int, ...]) -> float:
            found = [summarise(one.reshape(shape)) for one in studies]
            return float(np.mean([(one.low or 0) < 0 < (one.high or 0) for one in found]))

        assert coverage((3, 4)) == pytest.approx(0.95, abs=0.025)
        assert coverage((12,)) < 0.8

    def test_equal_methods_are_told_apart_one_time_in_twenty(self) -> None:
        # A method suits some draws and not others: the differences of a split hang together.
        studies = drawn(600, splits=3, seeds=4, between=1.0, within=0.5, generator=rng())

        def claims(*shape: int) -> float:
            zero = np.zeros((*shape, 1))
            found = [compare_runs(one.reshape(*shape, 1), zero).p for one in studies]
            return float(np.mean([p is not None and p < 0.05 for p in found]))

        assert claims(3, 4) == pytest.approx(0.05, abs=0.025)
        assert claims(12) > 0.2

    def test_the_two_stage_bootstrap_is_wider_than_one_that_takes_runs_for_independent(
        self,
    ) -> None:
        studies = drawn(60, splits=6, seeds=4, between=1.0, within=0.2, generator=rng())[..., None]
        for figure in (interquartile_mean, task_mean):
            nested = [figure(one, rng()) for one in studies]
            naive = [figure(one.reshape(24, 1), rng()) for one in studies]
            widths = [[(e.high or 0) - (e.low or 0) for e in way] for way in (nested, naive)]
            assert np.median(widths[0]) > 1.4 * np.median(widths[1])


def test_a_verdict_says_what_varies() -> None:
    luck = np.array([0.0, 0.05, -0.05])[:, None, None]
    seeds = np.array([0.0, 0.01])[None, :, None]
    shift = np.array([[0.0, 0.001], [0.001, 0.0], [0.002, 0.0]])[..., None]
    low = 0.5 + luck + seeds + np.zeros((1, 1, 2))
    found = judge({"a": low + 0.2 + shift, "b": low}, {}, {"a": 64, "b": 64}, metric="accuracy")
    assert found.winner == "a"
    assert "over 2 tasks and 3 splits of 2 seeds is above" in found.sentence
    assert found.notes[-1].startswith(
        "Intervals (95 %) are over 3 splits of 2 seeds on these 2 tasks: a split counts once"
    )
    flat = low + np.array([0.02, -0.02, 0.01])[:, None, None]
    close = judge({"a": flat, "b": low}, {}, {"a": 64, "b": 64})
    assert close.winner is None
    assert "splits a task instead of 3 would settle it" in close.sentence
    with pytest.raises(ValueError, match="give a value for each task"):
        judge({"a": low}, {"the empty prompt": np.zeros(2)}, {"a": 64})
