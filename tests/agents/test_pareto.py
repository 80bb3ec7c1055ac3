"""Which prompts are parents, and how often."""

from __future__ import annotations

import numpy as np
import pytest

from rlprompt.agents.shared.pareto import front


@pytest.mark.parametrize(
    ("rewards", "counts"),
    [
        ([[1, 2, 3]], [3]),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], [1, 1, 1]),
        # None is alone at the top anywhere: of the worst the last is left out.
        ([[1, 1, 0], [1, 0, 1], [0, 1, 1]], [2, 2, 0]),
        ([[0.4, 0.4, 0.4], [1, 0, 0], [0, 0, 0.5]], [1, 1, 1]),
        ([[1, 1], [1, 1], [0, 1]], [2, 0, 0]),  # of those that are alike the first
    ],
)
def test_counts(rewards: list[list[float]], counts: list[int]) -> None:
    assert front(np.array(rewards, dtype=float)).tolist() == counts


@pytest.mark.parametrize("seed", range(20))
def test_every_example_has_one_of_its_best_and_no_member_can_be_spared(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_prompts, n_examples = rng.integers(1, 7), rng.integers(1, 6)
    rewards = rng.integers(0, 3, (n_prompts, n_examples)).astype(float)
    staying = front(rewards) > 0
    best = rewards == rewards.max(axis=0)
    assert best[staying].any(axis=0).all()
    for member in np.flatnonzero(staying):
        others = staying.copy()
        others[member] = False
        assert not best[others].any(axis=0).all()
