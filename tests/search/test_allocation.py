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
from rlprompt.search.allocation import (
    PaidOnce,
    doubling,
    halve,
    halving_cost,
    halving_size,
    race,
    race_winners,
)
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
    class_words: Any = field(default_factory=dict)

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


def sizes(task: FakeTask) -> list[int]:
    return [len(examples) for _, examples in task.calls]


class TestBlocksOfTextsThatCalibrateEachOther:
    """The prior of one text is what it says itself: calibrated by it, all prompts are alike."""

    def together(self, n_train: int, classes: int = 0) -> Noisy:
        words = {str(i): [str(i)] for i in range(classes)}
        splits = fake_splits(n_train=n_train)
        return Noisy(splits=splits, scored_together=True, class_words=words)

    @pytest.mark.parametrize(
        ("n_train", "classes", "halved", "raced"),
        [
            (4, 2, [2, 4], [2, 4]),  # and not 1, 1, 4
            (4, 0, [2, 4], [2, 4]),  # classes that are not told
            (8, 4, [4, 8], [4, 8]),
            (16, 2, [4, 4, 16], [4, 4, 16]),
            (3, 4, [3], [3]),
        ],
    )
    def test_a_block_has_as_many_examples_as_there_are_classes(
        self, n_train: int, classes: int, halved: list[int], raced: list[int]
    ) -> None:
        task = self.together(n_train, classes)
        target = objective(task)
        best = halve(target, pool())
        assert sizes(task) == halved
        assert target.ledger.used == halving_cost(target, 30)
        task.calls.clear()
        race(PaidOnce(target), best, [TokenPrompt((i,)) for i in range(30, 34)])
        asked = [len(e) for p, e in task.calls if best.prompts[0] not in p]
        assert asked == raced[: len(asked)]

    def test_a_small_share_begins_with_two(self) -> None:
        task = self.together(16)
        halve(objective(task), pool(), stages=doubling(0.03))
        assert sizes(task)[:2] == [2, 2]
        plain = Noisy()
        halve(objective(plain), pool(), stages=doubling(0.03))
        assert sizes(plain)[0] == 1


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("stages", [(1 / 4, 1 / 2, 1.0), (0.03, 1.0), (1.0,)])
def test_as_many_begin_as_the_rows_see_through(together: bool, stages: tuple[float, ...]) -> None:
    target = objective(Noisy(scored_together=together))
    for rows in (0, 15, 16, 63, 64, 65, 100, 408, 1601):
        fits = [n for n in range(1, 2000) if halving_cost(target, n, stages=stages) <= rows]
        assert halving_size(target, rows, stages=stages) == max(fits, default=1)


def test_the_size_of_a_large_halving_is_found_at_once() -> None:
    """A row for each, and 15 for a third of them: six a prompt."""
    asked = list[int]()

    class Counting(Objective):
        def cost(self, **settings: Any) -> int:
            asked.append(1)
            return super().cost(**settings)

    target = Counting(Noisy(), tiny_lm(), Budget(6 * 10**6))
    assert halving_size(target, target.remaining, stages=(1 / 16, 1.0)) == 999_999
    assert len(asked) < 100


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


@pytest.mark.parametrize("together", [False, True])
def test_a_race_pays_once_for_a_prompt_on_a_block(together: bool) -> None:
    task = Noisy(planted=3, scored_together=together)
    target = objective(task)
    view = PaidOnce(target)
    best = view.evaluate([TokenPrompt((3,))])
    for first in (4, 8, 12):
        stayed = race(view, best, [TokenPrompt((i,)) for i in range(first, first + 4)])
        best = race_winners(best, stayed)
    asked = [(p, e) for prompts, e in task.calls for p in prompts]
    assert len(asked) == len({(p, tuple(one.key for one in e)) for p, e in asked})
    assert target.ledger.used == sum(len(e) for _, e in asked)


def test_what_was_paid_is_told_again_in_the_order_asked() -> None:
    task = Noisy()
    view, prompts = PaidOnce(objective(task)), pool(3)
    first = view.evaluate(prompts[:2], [0, 1])
    again = view.evaluate([prompts[2], prompts[0], prompts[2]], [0, 1])
    assert [p for p, _ in task.calls] == [tuple(prompts[:2]), (prompts[2],)]
    assert again.prompts == (prompts[2], prompts[0], prompts[2])
    assert again.examples == (0, 1)
    np.testing.assert_array_equal(again.per_example[1], first.per_example[0])
    np.testing.assert_array_equal(again.per_example[0], again.per_example[2])
    view.evaluate(prompts[:1], [0, 2])  # another block
    assert len(task.calls) == 3


@pytest.mark.parametrize(
    ("together", "rows", "raced"),
    [
        (False, 16 * 3 + 5, 3),
        (False, 16 * 9, 4),
        (False, 15, 0),
        (True, 8 + 24 * 2, 2),  # of 4, 4 and 16 rows each, beside the incumbent's 8
        (True, 31, 1),  # no race, but one on all examples
    ],
)
def test_a_race_begins_with_what_the_rows_see_through(
    together: bool, rows: int, raced: int
) -> None:
    task = Noisy(scored_together=together)
    target = objective(task, 16 + rows)
    incumbent = target.evaluate([TokenPrompt((3,))])
    task.calls.clear()
    # Alike to the incumbent, so that nobody drops out.
    rivals = [TokenPrompt((3, i)) for i in range(4)]
    stayed = race(target, incumbent, rivals, rows=target.remaining)
    assert set(stayed.prompts) == set(rivals[:raced])
    assert {p for prompts, _ in task.calls for p in prompts} - set(rivals[:raced]) <= {
        TokenPrompt((3,))
    }


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
