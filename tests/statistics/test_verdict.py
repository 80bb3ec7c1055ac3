"""A verdict names a winner only where chance does not: planted winners, null studies, bad input."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprompt.statistics.pairwise import pairs_of
from rlprompt.statistics.verdict import Verdict, judge
from rlprompt.types import Floats

NAN = float("nan")


def verdict(
    searches: Mapping[str, Floats],
    controls: Mapping[str, Floats] | None = None,
    baseline: str | None = None,
) -> Verdict:
    budgets = dict.fromkeys(searches, 6400)
    return judge(searches, controls or {}, budgets, baseline=baseline, metric="accuracy")


def study(
    effects: Mapping[str, float], generator: np.random.Generator, n_seeds: int = 5, n_tasks: int = 3
) -> dict[str, Floats]:
    """Accuracies on 200 examples; seeds vary by 0.02 around each task's level and the effect."""
    levels = generator.uniform(0.6, 0.8, n_tasks)
    noise = {name: generator.normal(scale=0.02, size=(n_seeds, n_tasks)) for name in effects}
    return {
        name: np.round((levels + effect + noise[name]) * 200) / 200
        for name, effect in effects.items()
    }


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_clear_winner_is_named_with_its_interval() -> None:
    found = verdict(study({"random": 0, "greedy": 0.05, "ppo": 0.15}, rng()), baseline="random")
    assert found.leader == found.winner == "ppo"
    assert found.sentence.startswith("ppo wins at 6,400 rows a search: its mean accuracy of 0.")
    assert "over 3 tasks and 5 seeds" in found.sentence
    assert "(closest: greedy, a difference of 0." in found.sentence
    assert ", 95 % interval 0." in found.sentence
    assert found.notes[0] == "greedy and ppo are shown to beat random."
    closest = min(pairs_of(found.pairs, "ppo"), key=lambda pair: pair.difference.mean)
    assert (closest.first, closest.second, closest.settled) == ("ppo", "greedy", True)
    assert closest.seeds_needed is None


def test_the_best_of_equals_is_not_a_winner() -> None:
    effects = {"random": -0.2, "greedy": 0.05, "ppo": 0.05}
    found = verdict(study(effects, rng()), baseline="random")
    assert found.winner is None
    assert found.leader in ("greedy", "ppo")
    assert found.sentence.startswith(f"No winner at 6,400 rows a search: {found.leader} comes out")
    assert "cannot be told apart at this budget from" in found.sentence
    assert "That it is above random is settled." in found.sentence
    (unsettled,) = [pair for pair in pairs_of(found.pairs, found.leader or "") if not pair.settled]
    assert unsettled.seeds_needed is not None
    assert unsettled.seeds_needed > 5
    assert f"About {unsettled.seeds_needed:,} seeds a task instead of 5" in found.sentence


def test_one_seed_has_no_winner_however_large_the_gap() -> None:
    for n_tasks in (1, 5):
        high, low = np.full((1, n_tasks), 0.99), np.full((1, n_tasks), 0.5)
        controls = {"the empty prompt": np.full(n_tasks, 0.4)}
        found = verdict({"lucky": high, "random": low}, controls, baseline="random")
        assert (found.leader, found.winner) == ("lucky", None)
        assert found.sentence == (
            "With one seed nothing can be ranked: every difference between methods may be luck, so "
            "no winner is named."
        )
        assert found.notes == (
            "No other search is shown to beat random.",
            "No search is shown to beat the empty prompt.",
        )
        assert not any(pair.settled for pair in found.pairs + found.against_controls)


def test_one_split_has_no_winner_whatever_its_seeds() -> None:
    high, low = (np.full((2, 6, 1), [[[value]], [[np.nan]]]) for value in (0.99, 0.5))
    found = verdict({"lucky": high, "random": low})
    assert found.winner is None
    assert found.sentence.startswith("With one split nothing can be ranked: ")
    assert "may be the luck of its examples" in found.sentence


def test_two_seeds_that_agree_by_chance_are_no_proof() -> None:
    """Accuracies are counts, so two differences are often equal, and t would be infinite."""
    found = verdict({"a": np.array([[0.75], [0.8]]), "b": np.array([[0.7], [0.75]])})
    assert found.winner is None
    assert "b (a difference of 0.050, the same with every seed)." in found.sentence


def test_a_difference_that_every_one_of_six_seeds_repeats_is_settled() -> None:
    found = verdict({"a": np.full((6, 1), 0.8), "b": np.full((6, 1), 0.7)})
    assert found.winner == "a"
    assert found.sentence == (
        "a wins at 6,400 rows a search: its mean accuracy of 0.800 over 1 task and 6 seeds is "
        "above that of every other search (closest: b, a difference of 0.100, the same with every "
        "seed; p at most 0.032 after Holm's correction)."  # 2 of 64
    )
    assert verdict({"a": np.full((5, 1), 0.8), "b": np.full((5, 1), 0.7)}).winner is None


def test_searches_that_are_level_have_no_winner() -> None:
    found = verdict(dict.fromkeys(["a", "b", "c"], np.full((5, 2), 0.7)))
    assert found.winner is None
    assert "cannot be told apart at this budget from b and c (closest: b, a diff" in found.sentence
    assert "seeds a task" not in found.sentence
    many = verdict(dict.fromkeys("abcdefgh", np.full((5, 2), 0.7)))
    assert "at this budget from any other search (closest: b, a diff" in many.sentence


def test_searches_are_held_against_prompts_that_nobody_searched() -> None:
    searches = study({"random": 0, "ppo": 0.2}, rng())
    middle = searches["random"].mean(axis=0) + 0.1
    controls = {"the empty prompt": middle - 0.3, "the hand": middle, "the best word": middle + 0.3}
    found = verdict(searches, controls)
    assert found.notes[:3] == (
        "random and ppo are shown to beat the empty prompt.",
        "ppo is shown to beat the hand; random is shown to be below it.",
        "No search is shown to beat the best word; random and ppo are shown to be below it.",
    )
    same = verdict(searches, {"the hand": searches["random"].mean(axis=0)})
    assert same.notes[0] == "ppo is shown to beat the hand; random is not."


def test_failed_runs_are_left_out_in_pairs_and_said() -> None:
    searches = study({"random": 0, "ppo": 0.1, "greedy": 0}, rng())
    whole = verdict(searches)
    # ppo fails where it would have done badly.
    searches["ppo"][0, 1] = NAN
    found = verdict(searches)
    assert found.winner == whole.winner == "ppo"
    (pair,) = [pair for pair in pairs_of(found.pairs, "ppo") if pair.second == "random"]
    assert pair.difference.n_pairs == 14
    both = searches["ppo"] - searches["random"]
    assert pair.difference.mean == pytest.approx(np.nanmean(both, axis=0).mean())
    assert found.notes[0].startswith("Without a score: 1 of 45 runs (ppo 1). Two searches are comp")
    assert "Runs are missing: the mean is over all scores of ppo, and each" in found.sentence
    assert "Runs are missing" not in whole.sentence


def test_tasks_that_share_their_luck_prove_no_more_than_one() -> None:
    generator = rng()
    searches = {name: generator.normal(0.6, 0.02, (5, 1)) for name in ("a", "b")}
    twice = {name: np.hstack([one, one]) for name, one in searches.items()}
    budgets = dict.fromkeys(searches, 6400)
    alone, both = judge(searches, {}, budgets), judge(twice, {}, budgets, draws=["films"] * 2)
    assert both.pairs[0].adjusted_p == pytest.approx(alone.pairs[0].adjusted_p)
    said = "share the luck of a seed, which counts once for all of them."
    assert both.notes[-1].endswith(said)
    assert not alone.notes[-1].endswith(said)


def test_gaps_do_not_make_a_leader() -> None:
    """Run on the easy task alone, a search has the highest mean of its own, and leads nobody."""
    searches = {
        "whole": np.array([[0.5, 0.9], [0.52, 0.92], [0.51, 0.94]]),
        "easy": np.array([[NAN, 0.88], [NAN, 0.91], [NAN, 0.92]]),
    }
    assert verdict(searches).leader == "whole"


def test_a_search_without_a_score_is_named_and_not_judged() -> None:
    searches = study({"random": 0, "ppo": 0.1}, rng())
    found = verdict({**searches, "broken": np.full((5, 3), NAN)}, baseline="broken")
    assert found.winner == "ppo"
    assert "is above that of every other search with a score (closest: random" in found.sentence
    assert "Not compared, because no run has a score: broken." in found.notes
    assert not pairs_of(found.pairs, "broken")


@pytest.mark.parametrize(
    ("searches", "sentence"),
    [
        ({}, "No search has a score: nothing can be concluded."),
        ({"a": np.full((2, 1), NAN)}, "No search has a score: nothing can be concluded."),
        (
            {"a": np.array([[0.5], [0.6]])},
            "Only a has a score, a mean accuracy of 0.550 at 6,400 rows a search: there is no "
            "other search to compare it with.",
        ),
        (
            {"a": np.array([[0.5], [NAN]]), "b": np.array([[NAN], [0.6]])},
            "No two searches have a score on the same task and seed: nothing can be ranked.",
        ),
    ],
    ids=["no search", "no score", "one search", "nothing shared"],
)
def test_what_cannot_be_ranked_is_said(searches: dict[str, Floats], sentence: str) -> None:
    found = verdict(searches, baseline="a" if searches else None)
    assert (found.winner, found.sentence) == (None, sentence)


def test_searches_of_different_budgets_are_refused() -> None:
    scores = np.full((2, 1), 0.5)
    with pytest.raises(ValueError, match=r"a had 3,200 rows and b had 6,400 rows; judge each"):
        judge({"a": scores, "b": scores}, {}, {"a": 3200, "b": 6400})
    with pytest.raises(ValueError, match="no budget is given for b"):
        judge({"a": scores, "b": scores}, {}, {"a": 3200})


def test_scores_that_do_not_fit_together_are_refused() -> None:
    scores = np.full((2, 3), 0.5)
    with pytest.raises(ValueError, match="the same for all searches"):
        verdict({"a": scores, "b": scores[:1]})
    with pytest.raises(ValueError, match="the hand has the shape"):
        verdict({"a": scores}, {"the hand": np.zeros(2)})
    with pytest.raises(ValueError, match="baseline 'b' is not among the searches; give one of a"):
        verdict({"a": scores}, baseline="b")


@pytest.mark.parametrize(("n_seeds", "n_tasks"), [(5, 1), (3, 2), (5, 3)])
def test_of_two_equal_searches_a_winner_is_named_once_in_twenty(n_seeds: int, n_tasks: int) -> None:
    """400 studies each: 5 % has a standard deviation of 1.1 %, the bound is 4 of them above."""
    generator = rng()
    winners = [
        verdict(study({"a": 0, "b": 0}, generator, n_seeds, n_tasks)).winner for _ in range(400)
    ]
    assert sum(winner is not None for winner in winners) / 400 < 0.05 + 0.044
    # It can fail: a test that never names anybody would pass the line above.
    assert any(winners)


def test_of_many_equal_searches_none_is_settled_above_another() -> None:
    """400 studies of 4 searches: any false claim among the 6 pairs, the leader picked by sight."""
    generator = rng()
    effects = dict.fromkeys(["a", "b", "c", "d"], 0.0)
    found = [verdict(study(effects, generator, n_seeds=4, n_tasks=2)) for _ in range(400)]
    assert sum(one.winner is not None for one in found) <= 2
    claims = sum(any(pair.settled for pair in one.pairs) for one in found)
    assert claims / 400 < 0.05 + 0.044


def test_a_real_effect_is_found() -> None:
    """Two and a half standard deviations, 3 tasks x 5 seeds: in nine studies of ten at least."""
    generator = rng()
    effects = {"random": 0.0, "greedy": 0.0, "ppo": 0.05}
    found = [verdict(study(effects, generator)).winner for _ in range(50)]
    assert found.count("ppo") >= 45
    assert not {"random", "greedy"} & set(found)


def test_p_values_are_corrected_for_all_pairs_and_controls_apart() -> None:
    searches = study({"a": 0, "b": 0.01, "c": 0.02, "d": 0.03}, rng())
    found = verdict(searches, {"the hand": np.full(3, 0.7)})
    for family, n_pairs in ((found.pairs, 6), (found.against_controls, 4)):
        assert len(family) == n_pairs
        smallest = min(family, key=lambda pair: pair.difference.p or 0)
        assert smallest.adjusted_p == pytest.approx(n_pairs * (smallest.difference.p or 0))


@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 10**6))
def test_what_is_settled_excludes_no_difference(n_seeds: int, n_tasks: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    searches: dict[str, Floats] = {
        name: generator.integers(0, 9, (n_seeds, n_tasks)) / 8 + effect
        for name, effect in {"a": 0, "b": 0.5, "c": 2}.items()
    }
    gaps = generator.random((n_seeds, n_tasks)) < 0.2
    searches["b"] = np.where(gaps, NAN, searches["b"])
    found = verdict(searches, {"the hand": np.full(n_tasks, 0.5)})
    for pair in found.pairs + found.against_controls:
        low, high = pair.difference.low, pair.difference.high
        if pair.settled and low is not None and high is not None:
            assert low > 0 or high < 0
    if found.winner:
        assert found.winner == found.leader
        assert all(
            pair.settled and pair.difference.mean > 0
            for pair in pairs_of(found.pairs, found.winner)
        )


def test_the_order_of_searches_and_seeds_is_nothing() -> None:
    searches = study({"random": 0, "greedy": 0.02, "ppo": 0.05}, rng())
    turned = {name: searches[name][::-1, ::-1] for name in reversed(searches)}
    one, other = verdict(searches), verdict(turned)
    assert (one.leader, one.winner) == (other.leader, other.winner)
    for pair in pairs_of(one.pairs, "ppo"):
        (same,) = [two for two in pairs_of(other.pairs, "ppo") if two.second == pair.second]
        assert same.adjusted_p == pytest.approx(pair.adjusted_p)
        assert same.difference.low == pytest.approx(pair.difference.low)
