"""Differential evolution: its first generation, what it climbs, and how it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from synthetic import N_EXAMPLES, HiddenVectors
from tiny import tiny_lm

from rlprompt.agents.differential_evolution import DifferentialEvolution
from rlprompt.agents.random_soft import RandomSoft
from rlprompt.check.optimiser import check_optimiser
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.objective import BudgetExhausted, Evaluation, Objective
from rlprompt.search.run import search
from rlprompt.search.space import SoftSpace
from rlprompt.types import Floats

RNG = np.random.default_rng


class Noting(Objective):
    """Notes the vectors of each call."""

    calls: list[np.ndarray]

    def evaluate(
        self, prompts: Sequence[Prompt], examples: Sequence[int] | None = None, **options: Any
    ) -> Evaluation:
        self.calls.append(np.array([p.vectors for p in prompts if isinstance(p, SoftPrompt)]))
        return super().evaluate(prompts, examples, **options)


def generations(settings: DifferentialEvolution, space: SoftSpace, n_prompts: int) -> list[Any]:
    objective = Noting(HiddenVectors(), tiny_lm(), Budget(n_prompts * N_EXAMPLES))
    objective.calls = []
    with contextlib.suppress(BudgetExhausted):
        settings.run(objective, space, RNG(1))
    return objective.calls


def test_generations_are_scored_together_and_the_first_spreads_by_alpha() -> None:
    space = SoftSpace.from_lm(tiny_lm(), 5, RNG(0))
    calls = generations(DifferentialEvolution(20, dimension=200, alpha=0.5), space, 50)
    assert [len(call) for call in calls] == [20, 20, 20]
    moved = calls[0] - space.start
    assert moved.std() == pytest.approx(0.5 * space.scale, rel=0.1)


def test_the_dimension_comes_from_the_budget() -> None:
    space = SoftSpace.from_lm(tiny_lm(), 5, RNG(0))
    calls = generations(DifferentialEvolution(population=20), space, 35)
    assert np.linalg.matrix_rank(calls[0].reshape(20, -1) - space.start.ravel()) == 7  # a fifth


@pytest.mark.parametrize("seed", range(2))
def test_it_climbs(seed: int) -> None:
    rows = 300 * N_EXAMPLES
    found = search(HiddenVectors(seed=seed), tiny_lm(), DifferentialEvolution(), rows, seed=seed)
    rewards = [reward for _, reward in found.points]
    # Prompts that are drawn alike differ by 0.16, so these means by 0.05.
    assert np.mean(rewards[-75:]) > np.mean(rewards[:10]) + 0.3


@pytest.mark.parametrize("seed", range(2))
def test_it_finds_better_prompts_than_random_vectors_at_the_same_cost(seed: int) -> None:
    rows, task = 300 * N_EXAMPLES, HiddenVectors(seed=seed)
    evolved, drawn = (
        search(task, tiny_lm(), one, rows, seed=seed)
        for one in (DifferentialEvolution(), RandomSoft())
    )
    assert evolved.rows == drawn.rows == rows
    assert evolved.mean_reward > drawn.mean_reward + 0.1
    assert evolved.trace[-1][1] > drawn.trace[-1][1] + 0.05


def test_the_same_rewards_are_no_reason_to_end() -> None:
    found = search(HiddenVectors(flat=True), tiny_lm(), DifferentialEvolution(), 95 * N_EXAMPLES)
    assert found.n_prompts == 95


def test_it_passes_the_check_that_others_can_run() -> None:
    settings = DifferentialEvolution(5, dimension=1)
    assert not check_optimiser(settings, tiny_lm(), n_prompts=33, length=3).problems


def test_an_error_of_the_task_is_told_as_it_is() -> None:
    class Broken(HiddenVectors):
        def rewards(self, lm: FrozenLM, prompts: Any, examples: Any) -> Floats:
            return super().rewards(lm, prompts, examples) * np.nan

    with pytest.raises(ValueError, match="gave the reward nan"):
        search(Broken(), tiny_lm(), DifferentialEvolution(), 100 * N_EXAMPLES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 4}, "population is 5 or more, got 4"),
        ({"dimension": 0}, "dimension is 1 or more, got 0"),
        ({"alpha": float("nan")}, "alpha is above 0, got nan"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DifferentialEvolution(**settings)
