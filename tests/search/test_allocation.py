"""Halving and racing on common blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from fakes import FakeTask, fake_splits
from tiny import tiny_lm

from rlprompt.agents.random_search import RandomSearch
from rlprompt.check.toy import Call, ToyTask
from rlprompt.data.examples import Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, TextPrompt, TokenPrompt
from rlprompt.search.allocation import halve, halving_cost, race, race_winners
from rlprompt.search.budget import Budget
from rlprompt.search.objective import BudgetExhausted, Evaluation, Objective
from rlprompt.search.run import search
from rlprompt.search.space import TokenSpace
from rlprompt.types import Floats

E = 16


@dataclass
class Noisy(FakeTask):
    """The planted prompt earns 1 more, under noise of 1 that is each prompt's and example's own."""

    splits: Splits = field(default_factory=lambda: fake_splits(n_train=E))
    planted: int = 17
    scored_together: bool = False

    def rewards(self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Any]) -> Floats:
        self.calls.append((tuple(prompts), tuple(examples)))
        rows = []
        for prompt in prompts:
            assert isinstance(prompt, TokenPrompt)
            worth = float(prompt.ids[0] == self.planted)
            noise = np.random.default_rng(prompt.ids[0]).normal(size=E)
            numbers = [int(example.fields["text"].split()[1]) for example in examples]
            rows.append(worth * 2 + noise[numbers] - noise.mean())
        rewards = np.array(rows)
        return rewards + len(examples) if self.scored_together else rewards


def pool(n: int = 30) -> list[TokenPrompt]:
    return [TokenPrompt((i,)) for i in range(n)]


def objective(task: FakeTask, rows: int = 10**6) -> Objective:
    return Objective(task, tiny_lm(), Budget(rows))


@pytest.mark.parametrize("planted", [0, 17, 29])
@pytest.mark.parametrize("add_up", [True, False])
def test_a_planted_best_is_picked_for_fewer_rows(planted: int, add_up: bool) -> None:
    target = objective(Noisy(planted=planted, scored_together=not add_up))
    best = halve(target, pool())
    assert best.prompts[0] == TokenPrompt((planted,))
    assert target.ledger.used == halving_cost(target, 30) < 30 * E / 2
    # 30 on 4, 10 on 4 more, 4 on the other 8 or on all.
    assert target.ledger.used == 120 + 40 + (32 if add_up else 64)
    # The survivors stand in the ledger, with what a call on all examples gives, and no other does.
    assert {one.prompt for one in target.ledger.best(64)} == set(best.prompts)
    again = objective(Noisy(planted=planted, scored_together=not add_up)).evaluate(best.prompts)
    np.testing.assert_array_equal(best.per_example, again.per_example)
    assert best.rewards.tolist() == sorted(again.rewards, reverse=True)
    assert [one.reward for one in target.ledger.best(64)] == best.rewards.tolist()
    assert (target.ledger.n_prompts, target.ledger.n_partial) == (4, 26)


def test_all_rivals_of_a_stage_see_the_same_balanced_examples() -> None:
    task = Noisy()
    target = objective(task)
    halve(target, pool())
    blocks = [[example.label for example in examples] for _, examples in task.calls]
    assert [(labels.count("a"), labels.count("b")) for labels in blocks] == [(2, 2), (2, 2), (4, 4)]


def test_a_small_pool_is_scored_on_all_examples_at_once() -> None:
    task = Noisy()
    target = objective(task)
    best = halve(target, [*pool(3), *pool(3)])
    assert sorted(best.prompts, key=lambda prompt: prompt.digest) == sorted(
        pool(3), key=lambda prompt: prompt.digest
    )
    assert len(task.calls) == 1
    assert target.ledger.n_partial == 0
    assert halve(target, []).prompts == ()


def test_challengers_that_are_clearly_worse_drop_out_early() -> None:
    target = objective(Noisy(planted=3))
    incumbent = target.evaluate([TokenPrompt((3,))])
    stayed = race(target, incumbent, pool()[4:])
    assert len(stayed.prompts) < 26
    assert target.ledger.used - E < 26 * E
    assert stayed.examples is None
    assert stayed.per_example.shape == (len(stayed.prompts), E)


@pytest.mark.parametrize("add_up", [True, False])
def test_a_better_challenger_stays(add_up: bool) -> None:
    target = objective(Noisy(planted=17, scored_together=not add_up))
    incumbent = target.evaluate([TokenPrompt((3,))])
    stayed = race(target, incumbent, pool()[4:])
    assert stayed.prompts[0] == TokenPrompt((17,))
    assert target.ledger.best(1)[0].prompt == TokenPrompt((17,))


@pytest.mark.parametrize("stages", [(0.5,), (0.5, 0.25, 1), ()])
def test_stages_that_do_not_rise_to_all_examples_are_refused(stages: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="stages are shares"):
        halve(objective(Noisy()), pool(), stages=stages)


@pytest.mark.parametrize("add_up", [True, False])
def test_a_criterion_is_given_all_that_are_compared_in_one_call(add_up: bool) -> None:
    """The incumbent comes first, with what it earned on the same examples."""
    target = objective(Noisy(scored_together=not add_up))
    seen = list[tuple[Sequence[Prompt], tuple[int, ...], int]]()

    def criterion(prompts: Sequence[Prompt], rewards: Floats, places: Sequence[int]) -> Floats:
        assert rewards.shape == (len(prompts), len(places))
        seen.append((prompts, tuple(places), len(prompts)))
        return -rewards

    worst = halve(target, pool(), criterion=criterion)
    assert [n for _, _, n in seen] == [30, 10, 4]
    assert worst.rewards.tolist() == sorted(worst.rewards)  # what they earned, the least first
    seen.clear()
    rivals = [TokenPrompt((i,)) for i in range(30, 34)]
    race(target, worst, rivals, criterion=criterion)
    *looks, _ = seen  # the last puts those that stayed in order
    assert [places for _, places, _ in looks] == [target.order[: E // 4], target.order[: E // 2]]
    assert all(prompts[0] == worst.prompts[0] for prompts, _, _ in looks)
    assert set(looks[0][0][1:]) == set(rivals)


def test_an_incumbent_is_known_on_all_examples() -> None:
    target = objective(Noisy())
    with pytest.raises(ValueError, match="scored on all examples"):
        race(target, target.evaluate(pool(1), [0, 1]), pool())


def test_a_budget_that_ends_within_a_pool_ends_it() -> None:
    target = objective(Noisy(), 130)
    with pytest.raises(BudgetExhausted) as stop:
        halve(target, pool())
    assert stop.value.evaluation.examples is not None
    assert len(stop.value.evaluation.examples) == 4
    assert target.ledger.used <= 130
    assert target.ledger.best(1) == []


@pytest.mark.parametrize("rows", [16, 50, 1000, 1601])
def test_random_search_halves_and_spends_what_there_is(rows: int) -> None:
    task = Noisy()
    optimiser = RandomSearch(halving=0.25)
    result = search(task, tiny_lm(), optimiser, rows, seed=1, length=2)
    assert rows - E < result.rows <= rows
    assert result.status == "finished"
    seen = {prompt for prompts, examples in task.calls for prompt in prompts}
    if rows == 1601:  # and 100 where each is scored on all examples
        assert len(seen) > 220
    assert search(Noisy(), tiny_lm(), optimiser, rows, seed=1, length=2).points == result.points


@pytest.mark.parametrize(("together", "n_prompts"), [(False, 250), (True, 214)])
def test_how_many_prompts_halving_sees(together: bool, n_prompts: int) -> None:
    """Fewer where examples are scored together, as survivors are then scored anew."""
    calls = list[Call]()
    task = ToyTask(32, scored_together=together, asked=calls.append)
    objective = Objective(task, tiny_lm(), Budget(3200))
    space = TokenSpace(length=5, allowed=np.arange(50))
    with contextlib.suppress(BudgetExhausted):
        RandomSearch(halving=0.25).run(objective, space, np.random.default_rng(0))
    first = task.splits.train[objective.order[0]]
    seen = [len(prompts) for prompts, examples, _ in calls if first in examples[:8] == examples]
    assert sum(seen) == n_prompts


def test_a_share_of_the_examples_is_a_share() -> None:
    with pytest.raises(ValueError, match=r"halving is a share .* got 1\.5"):
        RandomSearch(halving=1.5)


class TestWinners:
    def test_an_equal_stays_and_nobody_beats_none(self) -> None:
        one = Evaluation((TextPrompt("a"),), np.array([[1.0, 2.0]]))
        other = Evaluation((TextPrompt("b"),), np.array([[2.0, 1.0]]))
        assert race_winners(one, other) is one
        assert race_winners(one, Evaluation((), np.zeros((0, 2)))) is one
