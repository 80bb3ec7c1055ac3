"""Paired comparisons against published figures, other implementations and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rlprompt.statistics.paired import (
    Difference,
    compare_runs,
    holm,
    seeds_needed,
)
from rlprompt.types import Floats

NAN = float("nan")
# Extra hours of sleep with each of two drugs, Student 1908, Biometrika 6, 1-25.
SLEEP = (
    np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])[:, None],
    np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])[:, None],
)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_one_task_is_the_paired_t_test() -> None:
    # R's t.test of the same data: t = 4.0621, p = 0.002833, 0.7001142 to 2.4598858.
    found = compare_runs(SLEEP[1], SLEEP[0])
    assert found.mean == pytest.approx(1.58)
    assert (found.low, found.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)
    assert found.p == pytest.approx(0.002833, abs=1e-6)
    assert (found.n_pairs, found.n_tasks) == (10, 1)


@given(st.integers(2, 6), st.integers(0, 3), st.integers(0, 10**6))
def test_two_tasks_are_welchs_test(n_seeds: int, n_missing: int, seed: int) -> None:
    """The sum of two tasks' means is a difference of means once the sign of one is turned."""
    generator = np.random.default_rng(seed)
    differences = generator.normal(size=(n_seeds, 2)) * [1, 5]
    differences[: max(0, min(n_missing, n_seeds - 2)), 0] = NAN
    found = compare_runs(differences, np.zeros((1, 2)))
    one, other = (column[~np.isnan(column)] for column in differences.T)
    welch = stats.ttest_ind(one, -other, equal_var=False)
    interval = welch.confidence_interval()
    assert found.p == pytest.approx(welch.pvalue)
    assert found.low == pytest.approx(interval.low / 2)
    assert found.high == pytest.approx(interval.high / 2)


def test_tasks_that_differ_in_level_do_not_blur_the_difference() -> None:
    differences = np.array([[0.1, 0.5], [0.12, 0.52], [0.11, 0.48]])
    within = compare_runs(differences, np.zeros((1, 2)))
    over_all = compare_runs(differences.reshape(-1, 1), np.zeros((1, 1)))
    assert within.mean == pytest.approx(over_all.mean)
    assert within.p is not None
    assert over_all.p is not None
    assert within.p < 0.001 < over_all.p


def test_only_pairs_with_both_scores_count() -> None:
    x = np.array([[0.5, 0.9], [0.7, NAN], [NAN, NAN], [0.9, NAN]])
    y = np.array([[0.4, 0.1], [0.5, 0.2], [0.9, 0.3], [0.6, NAN]])
    found = compare_runs(x, y)
    # The second task has one pair, whose luck nobody knows.
    assert (found.n_pairs, found.n_tasks) == (3, 1)
    assert found.mean == pytest.approx(0.2)
    with pytest.raises(ValueError, match="every score is NaN"):
        compare_runs(x[:1], np.full((1, 2), NAN))
    with pytest.raises(ValueError, match="give both on the same seeds and tasks"):
        compare_runs(x[:, :1], y[:1])


class TestSharedDraws:
    """Tasks whose searches draw the same with one seed."""

    @pytest.mark.parametrize("n_tasks", [2, 4])
    def test_false_alarms_are_those_of_one_task(self, n_tasks: int) -> None:
        """Of 400 studies of equal methods, four fifths of whose luck the tasks share.

        A share of 0.05 has a standard deviation of 0.011; the bound is 4 of them away.
        """
        generator, zeros = rng(), np.zeros((5, n_tasks))
        found = {"shared": 0, "as if independent": 0}
        for _ in range(400):
            shared = generator.normal(scale=0.8**0.5, size=(5, 1))
            own = generator.normal(scale=0.2**0.5, size=(5, n_tasks))
            for name, draws in (("shared", ["films"] * n_tasks), ("as if independent", None)):
                p = compare_runs(shared + own, zeros, draws=draws).p
                assert p is not None
                found[name] += p < 0.05
        assert found["shared"] / 400 < 0.095
        assert found["as if independent"] / 400 > 0.1

    def test_the_same_luck_twice_is_one_task(self) -> None:
        one = SLEEP[1] - SLEEP[0]
        twice, zeros = np.hstack([one, one + 1.0]), np.zeros((10, 2))
        alone, both = compare_runs(one, zeros[:, :1]), compare_runs(twice, zeros, draws="aa")
        assert (both.n_pairs, both.n_tasks) == (20, 2)
        assert both.mean == pytest.approx(alone.mean + 0.5)
        for found, expected in ((both.low, alone.low), (both.high, alone.high)):
            assert expected is not None
            assert found == pytest.approx(expected + 0.5)
        same = np.hstack([one, one])
        assert compare_runs(same, zeros, draws="aa").p == pytest.approx(alone.p)
        assert seeds_needed(same, draws="aa") == seeds_needed(one)

    def test_the_order_of_tasks_is_nothing(self) -> None:
        x = np.hstack([SLEEP[0], SLEEP[1], rng().normal(size=(10, 1))])
        zeros = np.zeros_like(x)
        found = compare_runs(x[:, [0, 2, 1]], zeros, draws="aba")
        assert found.p == pytest.approx(compare_runs(x, zeros, draws="aab").p)

    def test_gaps_leave_what_is_there(self) -> None:
        """The error of the sum of means by its definition: the variance of what each seed adds."""
        x = np.array([[0.1, 0.4], [0.3, NAN], [NAN, 0.5], [0.6, 0.9]])
        found = compare_runs(x, np.zeros_like(x), draws="aa")
        means = np.array([1 / 3, 0.6])
        adds = np.nansum((x - means) / 3, axis=1) / 2
        error = (4 / 3 * (adds**2).sum()) ** 0.5
        assert found.mean == pytest.approx(means.mean())
        half = stats.t.isf(0.025, 3) * error
        assert (found.low, found.high) == pytest.approx((means.mean() - half, means.mean() + half))

    def test_equal_differences_are_a_sign_a_seed(self) -> None:
        x = np.full((5, 3), 0.1)
        assert compare_runs(x, x - 0.1, draws="aaa").p == pytest.approx(2 * 0.5**5)
        assert compare_runs(x, x - 0.1).p == pytest.approx(2 * 0.5**15)


def test_one_seed_says_how_large_and_not_how_sure() -> None:
    found = compare_runs(np.array([[0.99, 0.7]]), np.array([[0.5, 0.6]]))
    assert found.mean == pytest.approx(0.295)
    assert (found.low, found.high, found.p) == (None, None, None)


def test_differences_that_do_not_vary_have_the_sign_tests_p() -> None:
    # 0.8 - 0.7 and 0.4 - 0.3 differ in their last digits, which is not for t to know.
    x, y = np.array([[0.8], [0.4], [0.8]]), np.array([[0.7], [0.3], [0.7]])
    found = compare_runs(x, y)
    assert (found.low, found.high) == (None, None)
    assert found.p == 0.25  # of 8 patterns of signs, two are as one-sided
    assert compare_runs(x, x).p == 1


@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 10**6))
def test_the_other_way_round_is_the_other_sign(n_seeds: int, n_tasks: int, seed: int) -> None:
    x, y = np.random.default_rng(seed).integers(0, 5, (2, n_seeds, n_tasks)) / 4
    assert compare_runs(y, x) == compare_runs(x, y).flipped()


def test_holm_as_published() -> None:
    # The example of Wikipedia's "Holm-Bonferroni method": H1 and H4 are rejected at 0.05.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # That of R's p.adjust at metricgate.com/docs/holm-bonferroni-correction.
    raw = [0.01, 0.04, 0.20, 0.03, 0.005, 0.07]
    assert holm(raw) == pytest.approx([0.05, 0.12, 0.20, 0.12, 0.03, 0.14])
    assert holm([]) == []


@pytest.mark.parametrize("wrong", [1.1, -0.1, NAN])
def test_what_is_no_p_value_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="p values are from 0 to 1"):
        holm([0.5, wrong])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_raises_p_values_and_keeps_their_order(raw: list[float]) -> None:
    adjusted = holm(raw)
    assert all(a >= p for a, p in zip(adjusted, raw, strict=True))
    assert all(a <= min(1, len(raw) * p) + 1e-12 for a, p in zip(adjusted, raw, strict=True))
    order = np.argsort(raw, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()
    assert holm(raw[::-1]) == adjusted[::-1]


def effect(size: float) -> Floats:
    """Two differences of that mean and a standard deviation of 1."""
    return np.array([size + np.sqrt(0.5), size - np.sqrt(0.5)])


@pytest.mark.parametrize(("size", "n"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_seeds_as_gpower_counts_pairs(size: float, n: int) -> None:
    # G*Power 3.1, difference of two dependent means, two-sided, alpha 0.05, power 0.8.
    assert seeds_needed(effect(size)) == n
    assert seeds_needed(-effect(size)) == n


def test_the_number_of_seeds_keeps_its_sense_at_the_ends_of_the_noncentral_t() -> None:
    # SciPy has no lower tail of it here (NaN): power is 0.44 with two seeds, not 1.
    assert seeds_needed(effect(7.5 / np.sqrt(2))) == 3
    # Nor the upper one here, where power is 1.
    assert seeds_needed(effect(1e6)) == 2


def test_the_number_of_seeds_has_the_power_that_it_claims() -> None:
    """2,000 studies of two tasks: the share that finds it is 0.8 within 4 sd (0.036), or more."""
    two = np.column_stack([0.5 + effect(0) * 0.5, 0.3 + effect(0)])
    n = seeds_needed(two)
    assert n is not None
    generator = rng()
    studies = [0.5, 0.3] + generator.normal(size=(2000, n, 2)) * [0.5, 1]
    found = [compare_runs(study, np.zeros((1, 2))).p for study in studies]
    share = float(np.mean([p is not None and p < 0.05 for p in found]))
    assert 0.8 - 0.036 < share < 0.8 + 0.1


@pytest.mark.parametrize(
    "differences",
    [
        np.array([0.3]),
        np.array([0.1, -0.1]),
        np.array([0.1, 0.1]),
        np.array([NAN, 1.0]),
        effect(1e-3),
    ],
    ids=["one seed", "no effect", "no spread", "one seed left", "too many"],
)
def test_where_no_number_of_seeds_can_be_said(differences: Floats) -> None:
    assert seeds_needed(differences) is None


def test_a_difference_is_a_value() -> None:
    assert Difference(0.1, -0.1, 0.3, 0.2, 5, 1).flipped() == Difference(-0.1, -0.3, 0.1, 0.2, 5, 1)
