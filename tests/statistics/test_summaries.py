"""Statistics against published figures, numbers worked out by hand, and what must always hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rlprompt.statistics.nested import present
from rlprompt.statistics.summaries import (
    Estimate,
    curve_band,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    share_interval,
    summarise,
    task_mean,
)
from rlprompt.types import Floats

NAN = float("nan")
# Few distinct values, so that there are ties.
LEVELS = st.integers(0, 8).map(lambda eighths: eighths / 8)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def matrices(n_tasks: int) -> st.SearchStrategy[Floats]:
    """Scores of 2 to 6 seeds."""
    shapes = st.integers(2, 6).map(lambda n_seeds: (n_seeds, n_tasks))
    return shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=LEVELS))


def test_the_t_interval_of_students_own_data() -> None:
    # Extra hours of sleep, Student 1908; R's t.test gives 0.7001142 to 2.4598858.
    extra = np.array([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])
    found = summarise(extra)
    assert found.mean == pytest.approx(1.58)
    assert found.deviation == pytest.approx(1.229995, abs=1e-6)
    assert found.low == pytest.approx(0.7001142, abs=1e-6)
    assert found.high == pytest.approx(2.4598858, abs=1e-6)
    assert found.n == 10


@given(arrays(np.float64, st.integers(2, 6), elements=LEVELS))
def test_an_interval_of_shares_has_the_mean_in_it_and_ends_within_0_and_1(values: Floats) -> None:
    found = summarise(values, shares=True)
    if found.low is not None and found.high is not None:
        assert 0 <= found.low <= found.mean <= found.high <= 1


def test_an_interval_of_shares_worked_out_by_hand() -> None:
    # Student's was -1.09 to 2.09: 0.5 and 12.7062 standard errors of 0.125.
    found = summarise(np.array([0.375, 0.625]), shares=True)
    assert found.low is not None
    assert found.high is not None
    # The logit of 0.5 is 0 and its derivative 4: 4 * 12.7062 * 0.125 = 6.3531.
    assert found.high == pytest.approx(1 / (1 + np.exp(-6.3531)), abs=1e-5)
    assert found.low == pytest.approx(1 - found.high, abs=1e-9)


def test_one_value_has_no_spread_and_equal_values_have_none_to_show() -> None:
    one = summarise(np.array([0.7, NAN]))
    assert (one.mean, one.deviation, one.low, one.high, one.n) == (0.7, None, None, None, 1)
    equal = summarise(np.full(3, 0.5))
    assert (equal.mean, equal.deviation, equal.low, equal.high) == (0.5, 0.0, None, None)


@pytest.mark.parametrize("summary", [summarise, lambda one: interquartile_mean(one[None], rng())])
def test_what_has_no_score_is_refused(summary: Callable[[Floats], object]) -> None:
    with pytest.raises(ValueError, match="every score is NaN"):
        summary(np.array([NAN, NAN]))
    with pytest.raises(ValueError, match="infinite"):
        summary(np.array([1.0, float("inf")]))


def test_scores_that_are_no_matrix_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\); give \(seeds, tasks\)"):
        present(np.zeros(3))


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_as_published(successes: int, n: int, low: float, high: float) -> None:
    # Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3.
    assert share_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_impossible_shares_are_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="give 1 trial or more"):
        share_interval(successes, n)


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end() -> None:
    # Of 1 to 8, with a failure and a lucky run at the ends: 3, 4, 5, 6.
    scores = np.array([[-100.0, 5.0], [2.0, 6.0], [3.0, 7.0], [4.0, 800.0]])
    assert interquartile_mean(scores, rng()).value == 4.5


def test_a_mean_over_tasks_weighs_tasks_alike() -> None:
    scores = np.array([[0.0, 0.5], [0.3, 0.7], [0.6, NAN]])
    found = task_mean(scores, rng())
    assert found.value == pytest.approx((0.3 + 0.6) / 2)
    assert found.n_tasks == 2


def test_a_stratified_bootstrap_draws_within_tasks() -> None:
    """Tasks far apart, seeds close: drawn over all runs the interval would be tens wide."""
    scores = np.array([[0.0, 100.0], [0.1, 100.1], [0.2, 100.2]])
    found = task_mean(scores, rng())
    assert found.low is not None
    assert found.high is not None
    # Least and most that two draws of three within each task can give.
    assert 50.0 <= found.low < found.value < found.high <= 50.2


def test_a_bootstrap_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Of 300 studies of 3 tasks x 20 seeds; 95 % but for what percentile intervals lack (a few %).

    A share of 0.93 has a standard deviation of 0.015; the bounds are 4 of them away.
    """
    generator = rng()
    truth = np.array([0.2, 0.5, 0.8])
    held = 0
    for _ in range(300):
        scores = truth + generator.normal(scale=0.1, size=(20, 3))
        found = task_mean(scores, generator)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.5 <= found.high
    assert 0.87 <= held / 300 <= 0.99


def test_the_probability_of_improvement_by_counting() -> None:
    # First task: of 1, 2, 3 against 2, 2 two pairs are won, two level, two lost: 3 of 6. Second:
    # 5 is above 1 and 4.
    x = np.array([[1.0, 5.0], [2.0, NAN], [3.0, NAN]])
    y = np.array([[2.0, 1.0], [2.0, 4.0]])
    assert probability_of_improvement(x, y, rng()) == Estimate(0.75, None, None, 2)
    first = probability_of_improvement(x[:, :1], y[:, :1], rng())
    assert first.value == 0.5
    assert first.low is not None
    assert first.high is not None
    assert 0 <= first.low <= 0.5 <= first.high <= 1


def test_the_probability_of_improvement_takes_the_tasks_that_both_have() -> None:
    x, y = np.array([[0.5, NAN, 0.9]]), np.array([[NAN, 0.5, 0.1]])
    assert probability_of_improvement(x, y, rng()) == Estimate(1.0, None, None, 1)
    with pytest.raises(ValueError, match="no task has a score of both"):
        probability_of_improvement(x[:, :2], y[:, :2], rng())
    with pytest.raises(ValueError, match="give both on the same tasks"):
        probability_of_improvement(x, y[:, :2], rng())


@given(matrices(2), matrices(2))
def test_what_one_gains_the_other_loses(x: Floats, y: Floats) -> None:
    one = probability_of_improvement(x[:, :1], y[:, :1], rng()).value
    other = probability_of_improvement(y[:, :1], x[:, :1], rng()).value
    assert one + other == pytest.approx(1)


def test_a_profile_worked_out_by_hand() -> None:
    scores = np.array([[0.1, 0.5], [0.3, 0.9]])
    found = performance_profile(scores, np.array([0.2, 0.5, 0.9]), rng())
    # Above 0.2: half and all; above 0.5: none and half; above 0.9: none.
    assert found.value.tolist() == [0.75, 0.25, 0.0]
    assert (found.low <= found.value).all()
    assert (found.value <= found.high).all()


def test_a_task_of_one_run_leaves_no_interval() -> None:
    scores = np.array([[0.1, 0.5], [0.3, NAN]])
    assert interquartile_mean(scores, rng()).low is None
    assert np.isnan(performance_profile(scores, np.array([0.2]), rng()).low).all()


@given(matrices(2))
def test_profiles_fall_and_their_bands_are_around_them(scores: Floats) -> None:
    found = performance_profile(scores, np.linspace(-0.1, 1.1, 7), rng())
    assert found.value[0] == 1
    assert found.value[-1] == 0
    assert (np.diff(found.value) <= 0).all()
    assert (found.low <= found.high).all()
    assert ((found.low >= 0) & (found.high <= 1)).all()


@given(matrices(3))
def test_the_order_of_seeds_and_tasks_is_nothing(scores: Floats) -> None:
    mixed = rng().permutation(rng().permuted(scores, axis=0), axis=1)
    one, other = interquartile_mean(scores, rng()), interquartile_mean(mixed, rng())
    assert one.value == pytest.approx(other.value)
    assert scores.min() <= one.value <= scores.max()
    # None where every resample gives the same.
    if one.low is not None and one.high is not None:
        assert scores.min() <= one.low < one.high <= scores.max()


def test_the_same_generator_gives_the_same_interval() -> None:
    scores = rng().random((5, 3))
    assert interquartile_mean(scores, rng()) == interquartile_mean(scores, rng())
    other = interquartile_mean(scores, np.random.default_rng(1))
    assert other.value == interquartile_mean(scores, rng()).value


def test_a_band_worked_out_by_hand() -> None:
    curves = [[(10.0, 0.5), (20.0, 0.7)], [(15.0, 0.6)]]
    found = curve_band(curves, np.array([5.0, 10.0, 15.0, 20.0, 99.0]))
    # The mean begins where both have a value; the last values hold to the end.
    assert found.value.tolist() == pytest.approx([NAN, NAN, 0.55, 0.65, 0.65], nan_ok=True)
    # Half the distance of the two is their standard error; the t quantile is 12.7062.
    assert found.high[2] - found.value[2] == pytest.approx(12.7062 * 0.05, abs=1e-4)
    assert found.value[2] - found.low[2] == pytest.approx(12.7062 * 0.05, abs=1e-4)


def test_the_latest_value_at_a_cost_counts() -> None:
    found = curve_band([[(10.0, 0.5), (10.0, 0.6)]], np.array([10.0]))
    assert found.value.tolist() == [0.6]
    assert np.isnan(found.low).all()
    assert np.isnan(found.high).all()


def test_curves_without_points_or_order_are_refused() -> None:
    grid = np.array([1.0])
    for none in ([], [[(1.0, 0.5)], []]):
        with pytest.raises(ValueError, match="a curve has no point"):
            curve_band(none, grid)
    with pytest.raises(ValueError, match="costs of a curve go down"):
        curve_band([[(2.0, 0.5), (1.0, 0.6)]], grid)
