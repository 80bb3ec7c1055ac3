"""The check of an optimiser finds every planted fault, and nothing wrong with good optimisers."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import torch

from rlprompt._utils.seeding import random_states
from rlprompt.agents.random_search import RandomSearch
from rlprompt.agents.soft_prompt import SoftPromptTuning
from rlprompt.check.optimiser import check_optimiser
from rlprompt.prompt import SoftPrompt, TokenPrompt
from rlprompt.search.objective import BudgetExhausted, Objective
from rlprompt.search.space import SoftSpace, TokenSpace
from rlprompt.types import PromptKind


@dataclass(frozen=True)
class Simple:
    """Random search, the base of those that break a promise."""

    searches: ClassVar[PromptKind] = "tokens"

    def run(self, objective: Objective, space: Any, rng: np.random.Generator) -> None:
        while True:
            objective.evaluate([space.sample(rng) for _ in range(8)])


class AsksTheTask(Simple):
    """Looks at some more prompts without paying."""

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        train = objective.task.splits.train
        objective.task.rewards(objective.lm, [space.sample(rng)] * 80, train)
        super().run(objective, space, rng)


class LooksAtDev(Simple):
    """Stops early on dev."""

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        objective.task.rewards(objective.lm, [space.sample(rng)], objective.task.splits.dev)
        super().run(objective, space, rng)


class NeverEnds(Simple):
    """Takes the end of the budget for a hiccup."""

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        while True:
            try:
                objective.evaluate([space.sample(rng)])
            except (BudgetExhausted, ValueError):
                continue


class AsksForNothing(Simple):
    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        while True:
            objective.evaluate([])


class GivesUp(Simple):
    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        objective.evaluate([space.sample(rng) for _ in range(8)])


class DrawsFromGlobal(Simple):
    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        super().run(objective, space, np.random.default_rng(random.getrandbits(32)))


class SeedsGlobal(Simple):
    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        torch.manual_seed(int(rng.integers(100)))
        super().run(objective, space, rng)


class KeepsState(Simple):
    """Draws on from where the last search ended."""

    rng = np.random.default_rng(0)

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        super().run(objective, space, self.rng)


class OneSeed(Simple):
    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        super().run(objective, space, np.random.default_rng(0))


class OnBlocks(Simple):
    """Scores prompts on one example, and those of one batch on all in the end."""

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        objective.evaluate([space.sample(np.random.default_rng(0)) for _ in range(8)])
        while True:
            objective.evaluate([space.sample(rng) for _ in range(8)], examples=[0])


class DrawsFromSystemOnBlocks(OnBlocks):
    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        system = np.random.default_rng(int.from_bytes(os.urandom(8)))
        super().run(objective, space, system)


class OneSeedOnBlocks(OnBlocks):
    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        super().run(objective, space, np.random.default_rng(0))


class NeverScoresWhole(Simple):
    """Scores prompts half by half, which makes a whole only where parts add up."""

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        while True:
            prompts = [space.sample(rng) for _ in range(8)]
            for half in ([0, 1], [2, 3]):
                objective.evaluate(prompts, half)


class LeavesTheSpace(Simple):
    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        objective.evaluate([TokenPrompt((5,))])
        super().run(objective, space, rng)


class Normalises(Simple):
    """Divides by the spread of the rewards."""

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        rewards = objective.evaluate([space.sample(rng) for _ in range(8)]).rewards
        if not rewards.std():
            raise ZeroDivisionError("no spread")
        super().run(objective, space, rng)


class StopsWhenFlat(Simple):
    """Ends where rewards have not changed."""

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        if objective.evaluate([space.sample(rng) for _ in range(8)]).rewards.std():
            super().run(objective, space, rng)


class NeedsTwo(Simple):
    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        if objective.affordable() < 2:
            raise IndexError("a generation has two prompts")
        super().run(objective, space, rng)


class Trains(Simple):
    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        objective.lm.model.train()
        super().run(objective, space, rng)


@dataclass(frozen=True)
class Unrecorded(Simple):
    temperature: float = float("inf")


class NoDataclass:
    searches: ClassVar[PromptKind] = "soft"

    def run(self, objective: Objective, space: SoftSpace, rng: np.random.Generator) -> None:
        while True:
            objective.evaluate([SoftPrompt(space.start + rng.standard_normal(space.start.shape))])


class NoKind:
    def run(self, objective: Objective, space: Any, rng: np.random.Generator) -> None:
        raise NotImplementedError


class Fault(NamedTuple):
    optimiser: Any
    finding: str
    words: str


FAULTS = [
    Fault(NoKind(), "protocol", "say 'tokens' or 'soft'"),
    Fault(Simple, "protocol", "this is a class"),
    Fault(AsksTheTask(), "objective-only", "were charged"),
    Fault(AsksTheTask(), "budget", "with a budget of"),
    Fault(LooksAtDev(), "train-only", "1 calls scored other examples"),
    Fault(NeverEnds(), "ends", "let `BudgetExhausted` through"),
    Fault(AsksForNothing(), "ends", "let `BudgetExhausted` through"),
    Fault(GivesUp(), "spends", "rows unspent"),
    Fault(DrawsFromGlobal(), "deterministic", "from prompt 1 on"),
    Fault(DrawsFromGlobal(), "random-state", "random"),
    Fault(SeedsGlobal(), "random-state", "torch"),
    Fault(KeepsState(), "deterministic", "draw from `rng` alone"),
    Fault(OneSeed(), "seeds", "two seeds searched alike"),
    Fault(DrawsFromSystemOnBlocks(), "deterministic", "from prompt 9 on"),
    Fault(OneSeedOnBlocks(), "seeds", "two seeds searched alike"),
    Fault(NeverScoresWhole(), "picks", "score the best on all of them (where examples"),
    Fault(LeavesTheSpace(), "in-space", "1 prompts lie outside"),
    Fault(Normalises(), "raises", "ZeroDivisionError: no spread"),
    Fault(StopsWhenFlat(), "flat", "a coarse reward is no reason to stop"),
    Fault(NeedsTwo(), "raises", "budget of 7 rows"),
    Fault(Trains(), "model-unchanged", "training mode"),
    Fault(Unrecorded(), "settings", "temperature"),
    Fault(NoDataclass(), "settings", "frozen"),
]


def title(fault: Fault) -> str:
    given = fault.optimiser
    made = given if isinstance(given, type) else type(given)
    return f"{made.__name__}: {fault.finding}"


@pytest.mark.parametrize("fault", FAULTS, ids=title)
def test_a_planted_fault_is_named(fault: Fault) -> None:
    before = random_states()
    report = check_optimiser(fault.optimiser)
    found = {finding.name: finding.text for finding in report.problems}
    assert fault.words in found[fault.finding]
    if fault.finding != "random-state":
        assert len(found) <= 4
        assert fault.optimiser == DrawsFromGlobal() or random_states() == before


@pytest.mark.parametrize(
    "optimiser", [Simple(), OnBlocks(), RandomSearch(halving=0.25), SoftPromptTuning()]
)
def test_a_good_optimiser_passes(optimiser: Any) -> None:
    before = random_states()
    report = check_optimiser(optimiser)
    assert not report.problems
    assert random_states() == before


def test_the_traceback_is_kept() -> None:
    (raised,) = check_optimiser(Normalises()).failed
    assert 'raise ZeroDivisionError("no spread")' in raised.detail
