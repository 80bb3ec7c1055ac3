"""Prefix prompts by gradient and by evolution: they learn, go on where they stopped, and say no."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic import N_EXAMPLES, HiddenVectors
from tiny import tiny_lm

from rlprompt.agents.bbt_v2 import BBTv2
from rlprompt.agents.prefix import PrefixTuning
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import PrefixPrompt, Prompt
from rlprompt.search.budget import Budget
from rlprompt.search.make_space import make_space
from rlprompt.search.objective import BudgetExhausted, Evaluation, Objective
from rlprompt.search.optimiser import Optimiser
from rlprompt.search.space import PrefixSpace
from rlprompt.types import Floats

LAYERS = 4


@lru_cache
def around(lm: FrozenLM, length: int) -> PrefixSpace:
    """The space of the searches here: its first start is the same every time."""
    space = make_space("prefix", lm, length, (), np.random.default_rng(0))
    assert isinstance(space, PrefixSpace)
    return space


@dataclass(frozen=True)
class HiddenLayers(HiddenVectors):
    """Minus half the mean square of what a prompt is away from where one layer should be.

    Args:
        layer: The only one that counts; None for all.
    """

    layer: int | None = None
    fingerprint: str = "layers"

    def offset(self, lm: FrozenLM, prompt: Prompt) -> NDArray[np.float64]:
        """From the prompt to the hidden one, in spreads of each layer's keys or values."""
        assert isinstance(prompt, PrefixPrompt)
        space = around(lm, len(prompt))
        # One direction for the positions, so that a subspace has a part of it.
        wanted = 2 * np.random.default_rng(1).standard_normal(prompt.vectors.shape[1:])
        offset: NDArray[np.float64] = wanted - (prompt.vectors - space.start) / space.scale
        if self.layer is not None:
            offset[:, [i for i in range(offset.shape[1]) if i != self.layer]] = 0
        return offset

    def unit(self, lm: FrozenLM) -> float:
        return 1.0


def deep() -> FrozenLM:
    return tiny_lm(num_hidden_layers=LAYERS)


def searched(method: Optimiser[Any], n_prompts: int, **task: Any) -> Objective:
    """The objective after a search."""
    objective = Objective(HiddenLayers(**task), deep(), Budget(n_prompts * N_EXAMPLES))
    with contextlib.suppress(BudgetExhausted):
        method.run(objective, around(deep(), 3), np.random.default_rng(1))
    return objective


def moved(objective: Objective) -> Floats:
    """How far the best prompt is from the start at each layer, (layers,)."""
    space = around(deep(), 3)
    best = objective.ledger.best(1)[0].prompt
    assert isinstance(best, PrefixPrompt)
    offset = (best.vectors - space.start) / space.scale
    spreads: Floats = np.square(offset, dtype=np.float64).mean((0, 2, 3, 4)) ** 0.5
    return spreads


def drawn(n_prompts: int) -> list[float]:
    """Rewards of prompts around the start."""
    rng, space = np.random.default_rng(5), around(deep(), 3)
    prompts = (space.prompt(rng.standard_normal(space.start.size)) for _ in range(n_prompts))
    return [HiddenLayers().worth(deep(), prompt) for prompt in prompts]


class TestPrefixTuning:
    def test_all_layers_go_the_same_way_in_a_step(self) -> None:
        """Adam's first step is the learning rate in every number, whatever a layer's spread is."""
        one = PrefixTuning(learning_rate=0.25, batch=None, average=None, weight_decay=0.0)
        objective = searched(one, 6, layer=None)  # two gradients: at the start and after a step
        assert moved(objective) == pytest.approx(np.full(LAYERS, 0.25), rel=1e-3)

    def test_it_climbs(self) -> None:
        """The start is worth -0.5 * 2^2 = -2; 33 steps of 0.1 can go 3.3 spreads."""
        objective = searched(PrefixTuning(batch=None, average=None), 100)
        start = objective.ledger.points[0][1]
        assert start == pytest.approx(-2.0, abs=0.4)
        assert objective.ledger.best_reward is not None
        assert objective.ledger.best_reward > 0.2 * start

    def test_it_beats_prompts_drawn_around_the_start(self) -> None:
        """At equal rows, though a step costs three prompts."""
        found = searched(PrefixTuning(), 200).ledger.best_reward
        assert found is not None
        assert found > max(drawn(200)) + 0.1

    def test_further_ways_up_begin_elsewhere(self) -> None:
        two = PrefixTuning(restarts=2, batch=None, average=None, loss=None, weight_decay=0.0)
        objective = searched(two, 6)
        first, second = (one.prompt for one in objective.ledger.best(2))
        assert isinstance(first, PrefixPrompt)
        assert isinstance(second, PrefixPrompt)
        assert np.abs(first.vectors - second.vectors).max() > 0.1

    @pytest.mark.parametrize("settings", [{"learning_rate": 0}, {"average": 1}, {"batch": 0}])
    def test_wrong_settings_are_refused(self, settings: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(settings))):
            PrefixTuning(**settings)


class TestBBTv2:
    def asked(self, method: BBTv2, n_prompts: int, rounds: int) -> list[set[int]]:
        """The layers in which each generation differs from the best prompt of those before."""
        start = np.zeros((2, LAYERS, 2, 1, 4), np.float32)
        space = PrefixSpace(start, np.ones((LAYERS, 2, 1, 1), np.float32))
        proposals = method.ask(space, n_prompts, np.random.default_rng(0))
        prompts, best, found = list(next(proposals)), start, []
        for number in range(rounds):
            # The last one is the best, and better than all before.
            rewards = np.arange(len(prompts), dtype=np.float64) + 100 * number
            best = prompts[-1].vectors  # type: ignore[union-attr]
            prompts = list(proposals.send(Evaluation(tuple(prompts), rewards[:, None])))
            changes = [p.vectors != best for p in prompts]  # type: ignore[union-attr]
            found.append(set(np.flatnonzero(np.any(changes, axis=(0, 1, 3, 4, 5))).tolist()))
        return found

    def test_layers_take_turns_from_the_lowest_to_the_highest(self) -> None:
        assert self.asked(BBTv2(), 24 * LAYERS, 6) == [{0}, {1}, {2}, {3}, {0}, {1}]

    def test_neighbours_share_a_strategy_where_the_budget_is_small(self) -> None:
        assert self.asked(BBTv2(), 60, 3) == [{0, 1}, {2, 3}, {0, 1}]
        assert self.asked(BBTv2(), 30, 2) == [{0, 1, 2, 3}] * 2
        assert self.asked(BBTv2(blocks=4), 30, 2) == [{0}, {1}]
        assert self.asked(BBTv2(blocks=9), 30, 2) == [{0}, {1}]

    def test_the_first_generation_spreads_by_alpha(self) -> None:
        start = np.zeros((50, 2, 2, 1, 64), np.float32)
        scale = np.array([1, 2, 3, 4], np.float32).reshape(2, 2, 1, 1)
        method = BBTv2(blocks=1, dimension=20, population=200, alpha=0.5)
        proposals = method.ask(PrefixSpace(start, scale), 100, np.random.default_rng(0))
        first = tuple(next(proposals))
        vectors = np.stack(
            [p.vectors for p in proposals.send(Evaluation(first, np.zeros((1, 1))))]  # type: ignore[union-attr]
        )
        spread = vectors.std(axis=(0, 1, 4, 5))
        assert spread == pytest.approx(0.5 * scale[..., 0, 0], rel=0.1)

    def test_it_finds_the_layer_that_counts(self) -> None:
        """Where others are moved nothing is gained, so they stay where they were."""
        objective = searched(BBTv2(alpha=0.3), 400, layer=2)
        first, *others = objective.ledger.points
        assert max(reward for _, reward in others) > first[1]
        spreads = moved(objective)
        assert spreads[2] > 0.3
        assert spreads[[0, 1, 3]].tolist() == [0, 0, 0]

    def test_it_beats_prompts_drawn_around_the_start(self) -> None:
        """On a reward of all layers, at equal rows."""
        found = searched(BBTv2(), 200).ledger.best_reward
        assert found is not None
        assert found > max(drawn(200)) + 0.1

    @pytest.mark.parametrize(
        "settings", [{"blocks": 0}, {"dimension": 1}, {"population": 3}, {"alpha": 0}]
    )
    def test_wrong_settings_are_refused(self, settings: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(settings))):
            BBTv2(**settings)
