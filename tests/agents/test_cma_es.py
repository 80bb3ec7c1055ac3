"""CMA-ES in subspaces of several kinds, and what it takes from its budget."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from synthetic import N_EXAMPLES, HiddenVectors
from tiny import tiny_lm

from rlprompt.agents.cma_es import CMAES
from rlprompt.check.optimiser import check_optimiser
from rlprompt.prompt import SoftPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.objective import BudgetExhausted, Objective
from rlprompt.search.space import SoftSpace
from rlprompt.search.vocabulary import typable_tokens

RNG = np.random.default_rng
SPACE = SoftSpace(np.zeros((5, 16), dtype=np.float32), 1.0)


@pytest.mark.parametrize(
    ("n_prompts", "dimension", "population"),
    [
        (1, 2, 6),  # 4 + 3 ln 2 = 6.08
        (100, 20, 12),  # 4 + 3 ln 20 = 12.99
        (2500, 500, 22),  # 4 + 3 ln 500 = 22.6
        (10**6, 500, 22),
    ],
)
def test_dimension_and_population_come_from_the_budget(
    n_prompts: int, dimension: int, population: int
) -> None:
    proposals = CMAES(dimension=None, population=None).ask(SPACE, n_prompts, RNG(0))
    batch = next(proposals)
    assert len(batch) == population
    prompts = [prompt.vectors.ravel() for prompt in batch if isinstance(prompt, SoftPrompt)]
    assert np.linalg.matrix_rank(np.array(prompts)) == min(dimension, population)


def test_what_is_given_is_not_taken_from_the_budget() -> None:
    batch = next(CMAES(dimension=3, population=None).ask(SPACE, 10**4, RNG(0)))
    prompts = [prompt.vectors.ravel() for prompt in batch if isinstance(prompt, SoftPrompt)]
    assert np.linalg.matrix_rank(np.array(prompts)) == 3
    assert len(batch) == 7  # 4 + 3 ln 3 = 7.3
    assert len(next(CMAES(dimension=None).ask(SPACE, 100, RNG(0)))) == 20


def test_directions_of_tokens_are_prompts_of_tokens_at_the_usual_scale() -> None:
    lm = tiny_lm()
    space = SoftSpace.from_lm(lm, 5, RNG(0))
    table = lm.embeddings()[sorted(typable_tokens(lm))]
    found = space.superposed(20, table, RNG(1), alpha=0.5)
    assert found.basis is not None
    assert found.basis.dtype == np.float32
    assert found.basis.shape == (space.start.size, 20)
    # z of standard deviation 1 moves a prompt by half the spread of the embeddings.
    moved = found.basis @ RNG(2).standard_normal((20, 200))
    assert moved.std() == pytest.approx(0.5 * space.scale, rel=0.1)
    centred = table - table.mean(axis=0)
    for vector in found.basis.T.reshape(-1, space.start.shape[1]):
        cosines = centred @ vector / np.linalg.norm(centred, axis=1) / np.linalg.norm(vector)
        assert cosines.max() == pytest.approx(1, abs=1e-5)


def climbed(settings: CMAES, n_prompts: int = 400) -> list[float]:
    """Rewards of one prompt after another."""
    objective = Objective(HiddenVectors(), tiny_lm(), Budget(n_prompts * N_EXAMPLES))
    with contextlib.suppress(BudgetExhausted):
        settings.run(objective, SoftSpace.from_lm(tiny_lm(), 5, RNG(0)), RNG(1))
    return [reward for _, reward in objective.ledger.points]


@pytest.mark.parametrize("basis", [None, "gaussian", "tokens"])
def test_it_climbs_in_any_basis(basis: Any) -> None:
    rewards = climbed(CMAES(dimension=4, basis=basis))
    # A subspace of 4 misses most of the target; what it holds is found.
    assert np.mean(rewards[-20:]) > np.mean(rewards[:20]) + 0.2


def test_none_is_gaussian() -> None:
    assert climbed(CMAES(dimension=4), 60) == climbed(CMAES(dimension=4, basis="gaussian"), 60)


def test_by_budget_it_passes_the_check_that_others_can_run() -> None:
    settings = CMAES(dimension=None, population=None, basis="tokens")
    assert not check_optimiser(settings, tiny_lm(), n_prompts=70, length=3).problems


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dimension": 1}, "dimension is 2 or more, got 1"),
        ({"dimension": 0}, "dimension is 2 or more, got 0"),
        ({"population": 3}, "population is 4 or more, got 3"),
        ({"alpha": 0}, "above 0"),
        ({"basis": "words"}, "basis is 'words'; give gaussian or tokens"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CMAES(**settings)


def test_a_subspace_of_tokens_has_a_dimension() -> None:
    with pytest.raises(ValueError, match="one dimension or more, got 0"):
        SPACE.superposed(0, np.eye(16, dtype=np.float32), RNG(0))
