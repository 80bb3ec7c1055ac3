"""Variance components against numbers worked out by hand, and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprompt.check.signal import Components, check_signal, decompose


def test_components_of_a_table_worked_out_by_hand() -> None:
    # Means of prompts 2 and 5, of examples 3, 3 and 4.5, mean 3.5. Sums of squares: prompts
    # 3 (1.5^2 + 1.5^2) = 13.5 (1 degree of freedom), examples 2 (0.25 + 0.25 + 1) = 3 (2), rest
    # of cells [[0.5, -0.5, 0], [-0.5, 0.5, 0]] = 1 (2).
    found = decompose(np.array([[2.0, 1.0, 3.0], [4.0, 5.0, 6.0]]))
    assert found.rest == pytest.approx(0.5)
    assert found.prompts == pytest.approx((13.5 - 0.5) / 3)
    assert found.examples == pytest.approx((1.5 - 0.5) / 2)


def test_reliability_and_sizes_worked_out_by_hand() -> None:
    components = Components(prompts=1.0, examples=5.0, rest=4.0)
    assert components.reliability(4) == pytest.approx(0.5)
    assert components.reliability(16) == pytest.approx(0.8)
    # 2 * 4 * (1.959964 + 0.841621)^2 / 1
    assert components.examples_needed() == pytest.approx(62.79, abs=0.01)
    assert Components(0.0, 1.0, 1.0).examples_needed() == math.inf
    assert Components(1.0, 1.0, 0.0).prompts_needed(8) == 2


def test_the_number_of_prompts_has_the_power_that_it_claims() -> None:
    """2,000 simulated experiments: the share that finds a difference is 0.8 within 4 sd (0.036)."""
    components, n_examples = Components(0.3, 1.0, 1.0), 8
    n_prompts = int(components.prompts_needed(n_examples))
    rng = np.random.default_rng(0)
    from scipy.stats import f

    found = 0
    for _ in range(2000):
        rewards = (
            rng.normal(0, math.sqrt(0.3), (n_prompts, 1))
            + rng.normal(size=(1, n_examples))
            + rng.normal(size=(n_prompts, n_examples))
        )
        rest = decompose(rewards).rest
        ratio = n_examples * rewards.mean(1).var(ddof=1) / rest
        found += f.sf(ratio, n_prompts - 1, (n_prompts - 1) * (n_examples - 1)) < 0.05
    # The smallest number with the power: that power is 0.8 or a little more.
    assert 0.8 - 0.036 < found / 2000 < 0.8 + 0.1


@given(st.integers(2, 8), st.integers(2, 8), st.integers(0, 10**6))
def test_components_do_not_hang_on_order_or_level(p: int, e: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rewards = rng.normal(size=(p, e))
    found = decompose(rewards)
    moved = decompose(rewards[rng.permutation(p)][:, rng.permutation(e)] + 7.0)
    for name in ("prompts", "examples", "rest"):
        assert getattr(moved, name) == pytest.approx(getattr(found, name), abs=1e-9)
        assert getattr(found, name) >= 0


def verdicts(rewards: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> dict[str, str]:
    return {finding.name: finding.status for finding in check_signal(rewards, rewards.shape[1])}


def test_what_cannot_be_searched_is_said_plainly() -> None:
    (constant,) = check_signal(np.ones((16, 1)) * np.arange(4.0), 4)
    assert constant.text.startswith(
        "Every prompt earns the same: 16 random prompts do, and a search has nothing to go by. "
    )
    assert constant.status == "fail"


def test_clear_rewards_are_worth_a_search() -> None:
    rewards = np.arange(16.0)[:, None] + np.random.default_rng(0).normal(size=(16, 8))
    assert set(verdicts(rewards).values()) == {"pass"}


def test_one_example_says_nothing_about_others() -> None:
    assert verdicts(np.arange(16.0)[:, None])["signal"] == "warn"
