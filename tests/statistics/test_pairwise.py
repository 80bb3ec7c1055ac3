"""Every search against every other: which pairs there are, one family of tests, and who leads."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from rlprompt.statistics.paired import compare_runs, holm
from rlprompt.statistics.pairwise import compare_all, highest, pairs_of
from rlprompt.types import Floats

NAN = float("nan")
LOW = np.array([[0.50], [0.52], [0.49], [0.51], [0.50]])
SCORES: dict[str, Floats] = {
    "low": LOW,
    "level": LOW + np.array([[0.01], [-0.01], [0.02], [-0.02], [0.005]]),
    "high": LOW + np.array([[0.30], [0.31], [0.29], [0.30], [0.32]]),
}


def every(scores: dict[str, Floats]) -> list[tuple[str, str, Floats, Floats]]:
    return [(a, b, scores[a], scores[b]) for a, b in combinations(scores, 2)]


def test_p_values_are_corrected_as_one_family() -> None:
    pairs = compare_all(every(SCORES))
    raw = [compare_runs(x, y).p for _, _, x, y in every(SCORES)]
    assert [pair.adjusted_p for pair in pairs] == holm([p for p in raw if p is not None])
    assert [pair.settled for pair in pairs] == [False, True, True]


def test_only_what_is_open_is_told_how_many_seeds_it_needs() -> None:
    open_pair, *settled = compare_all(every(SCORES))
    assert open_pair.seeds_needed is not None
    assert open_pair.seeds_needed > 5
    assert [pair.seeds_needed for pair in settled] == [None, None]


def test_pairs_that_share_no_run_are_left_out() -> None:
    first, second = np.array([[0.5], [NAN]]), np.array([[NAN], [0.5]])
    assert compare_all([("a", "b", first, second)]) == ()


def test_a_pair_may_be_seen_from_either_side() -> None:
    pairs = compare_all(every(SCORES))
    own = pairs_of(pairs, "high")
    assert [(pair.first, pair.second) for pair in own] == [("high", "low"), ("high", "level")]
    assert own[0].difference.mean == pytest.approx(0.304)
    assert own[0].flipped() == pairs[1]
    assert pairs_of(pairs, None) == ()


def test_the_highest_is_above_every_other_where_both_ran() -> None:
    assert highest(SCORES, compare_all(every(SCORES))) == "high"
    assert highest({"alone": LOW}, ()) == "alone"
    assert highest({}, ()) is None
    # Its mean is the highest because it lacks the harder task; where both ran, it is lower.
    gaps = {"whole": np.array([[0.9, 0.1], [0.9, 0.1]]), "gap": np.array([[0.8, NAN], [0.8, NAN]])}
    assert highest(gaps, compare_all(every(gaps))) == "whole"
