from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from fakes import FakePricedTask, FakeTask, Remembered, fake_splits
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_lm

from rlprompt.data.examples import Example
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.search.budget import Ledger, Scored
from rlprompt.search.evaluation import Evaluator
from rlprompt.search.selection import (
    FIRST_ROUND,
    Raced,
    Selection,
    entrants,
    race_on_dev,
    rounds,
    still_close,
)
from rlprompt.tasks.base import Measured
from rlprompt.tasks.class_metrics import macro_f1
from rlprompt.types import Floats


@dataclass
class Known(FakeTask):
    """Rewards by prompt and example, given by the test."""

    reward: Callable[[int, int], float] = field(default=lambda prompt, example: 0.0)

    def worth(self, prompt: Prompt, example: Example) -> float:
        assert isinstance(prompt, TokenPrompt)
        return self.reward(prompt.ids[0], int(example.fields["text"].split()[1]))


def known(reward: Callable[[int, int], float], n_dev: int = 32) -> Evaluator:
    return Evaluator(Known(splits=fake_splits(3, n_dev, 5), reward=reward), tiny_lm())


def field_of(*ids: int) -> list[Scored]:
    """Candidates, the best on train first."""
    return [Scored(TokenPrompt([i]), -float(place), 0) for place, i in enumerate(ids)]


def ids(raced: list[Raced]) -> list[int]:
    return [one.scored.prompt.ids[0] for one in raced if isinstance(one.scored.prompt, TokenPrompt)]


class TestRace:
    def test_clear_losers_drop_out_and_close_ones_see_all_of_dev(self) -> None:
        # 1 and 2 differ by the example; 3 is always far behind.
        evaluator = known(lambda p, e: {1: e % 3, 2: (e + 1) % 3, 3: -50.0 - e % 2}[p])
        raced = race_on_dev(evaluator, field_of(3, 1, 2))
        seen = {one.scored.prompt.ids[0]: len(one.rewards) for one in raced}  # type: ignore[union-attr]
        assert seen == {1: 32, 2: 32, 3: FIRST_ROUND}
        assert evaluator.rows == 2 * 32 + FIRST_ROUND

    def test_the_best_mean_on_dev_wins(self) -> None:
        raced = race_on_dev(known(lambda p, e: p + (e * 7 % 5)), field_of(1, 2, 3))
        assert ids(raced)[0] == 3
        assert raced[0].dev.reward == pytest.approx(3 + np.mean([e * 7 % 5 for e in range(32)]))

    def test_the_winner_has_seen_all_of_dev_even_alone(self) -> None:
        raced = race_on_dev(known(lambda p, e: 100.0 * p + e % 2), field_of(1, 2))
        assert [len(one.rewards) for one in raced] == [32, FIRST_ROUND]

    def test_equals_go_by_train(self) -> None:
        assert ids(race_on_dev(known(lambda p, e: 1.0), field_of(5, 3, 4))) == [5, 3, 4]

    def test_one_candidate_and_one_example_are_enough(self) -> None:
        assert ids(race_on_dev(known(lambda p, e: 1.0, n_dev=1), field_of(5))) == [5]
        assert ids(race_on_dev(known(lambda p, e: float(p), n_dev=1), field_of(5, 6))) == [6, 5]

    def test_a_task_that_costs_more_than_its_examples_is_counted_so(self) -> None:
        evaluator = Evaluator(FakePricedTask(splits=fake_splits(3, 20, 5)), tiny_lm())
        raced = race_on_dev(evaluator, field_of(1))
        assert len(raced[0].rewards) == 20
        assert evaluator.rows == 20 + 3 * 2  # three rounds, two rows more in each

    def test_what_was_raced_before_is_not_scored_again(self) -> None:
        def reward(prompt: int, example: int) -> float:
            return prompt * (example % 4)

        first = known(reward)
        first.memo = remembered = Remembered()
        raced = race_on_dev(first, field_of(1, 2, 3))
        again = known(lambda p, e: pytest.fail("scored again"))
        again.memo = remembered
        assert race_on_dev(again, field_of(1, 2, 3)) == raced
        assert again.rows == first.rows


def ledger(*prompts: Prompt, rewards: Sequence[float]) -> Ledger:
    """What a search that scored these one after the other, for a row each, has in its ledger."""
    made = Ledger(used=len(prompts))
    for i, (prompt, reward) in enumerate(zip(prompts, rewards, strict=True)):
        made.record(Scored(prompt, reward, i + 1), len(prompt))
    return made


def chain(*texts: str) -> list[TokenPrompt]:
    return [TokenPrompt(list(map(ord, text))) for text in texts]


def spelt(found: Sequence[Scored]) -> list[str]:
    prompts = [one.prompt for one in found]
    return ["".join(map(chr, one.ids)) for one in prompts if isinstance(one, TokenPrompt)]


class TestEntrants:
    def test_near_copies_of_a_better_one_come_last(self) -> None:
        prompts = chain("zzz", "abc", "abd", "abe", "xyz", "wvz")
        found = ledger(*prompts, rewards=[1, 5, 9, 8, 2, 3])
        # At two and four of six rows abc and abd led. abe has one token that abd has not; wvz and
        # xyz differ in two.
        assert spelt(entrants(found, Selection(4))) == ["abd", "abc", "wvz", "xyz"]
        assert spelt(entrants(found, Selection(5))) == ["abd", "abc", "wvz", "xyz", "zzz"]
        assert spelt(entrants(found, Selection(4, along_path=False))) == [
            "abd",
            "abe",
            "abc",
            "wvz",
        ]

    def test_the_field_is_never_starved(self) -> None:
        prompts = chain(*(f"ab{last}" for last in "cdefghij"))
        found = ledger(*prompts, rewards=range(8))
        for count in (1, 2, 5, 8, 16):
            entered = entrants(found, Selection(count))
            assert len({one.prompt for one in entered}) == min(count, 8)
            assert entered[0].reward == 7
            assert [one.reward for one in entered] == sorted(
                (o.reward for o in entered), reverse=True
            )

    def test_who_led_early_enters_however_many_are_better(self) -> None:
        prompts = [TokenPrompt([i, i]) for i in range(200)]
        found = ledger(*prompts, rewards=range(200))
        entered = [one.reward for one in entrants(found, Selection(8))]
        # Four marks inside 200 rows; the four best.
        assert entered == [199, 198, 197, 196, 159, 119, 79, 39]

    def test_one_that_led_twice_enters_once(self) -> None:
        # Scored again, a prompt may earn a little more by rounding.
        prompts = [TokenPrompt([i % 100, i % 100]) for i in range(200)]
        found = ledger(*prompts, rewards=[9.0, *([0.0] * 99), 9.000001, *([0.0] * 99)])
        entered = entrants(found, Selection(8))
        assert len({one.prompt.digest for one in entered}) == len(entered) == 8

    def test_consecutive_soft_prompts_are_spread_and_ends_of_restarts_are_not(self) -> None:
        def at(*place: float) -> SoftPrompt:
            return SoftPrompt(np.array([place]))

        path = [at(i, 0) for i in range(9)]
        found = ledger(*path, rewards=range(9))
        # Half of the greatest distance, 4, is near: 8 is best and 3 is the next that is not. The
        # two marks inside nine rows are 2 and 5.
        assert [o.reward for o in entrants(found, Selection(4))] == [8, 5, 3, 2]
        # 0 is 2 away from all others and 6 and 7 are 1 away.
        assert [o.reward for o in entrants(found, Selection(5))] == [8, 5, 3, 2, 0]
        restarts = [at(i, 0) for i in range(3)] + [at(i, 100) for i in range(3)]
        both = ledger(*restarts, rewards=[0, 1, 9, 3, 4, 8])
        assert [o.reward for o in entrants(both, Selection(3))] == [9, 8, 3]

    def test_prompts_of_both_kinds_and_of_several_lengths_are_far_apart(self) -> None:
        soft = [SoftPrompt(np.ones((length, 2))) for length in (1, 2)]
        prompts: list[Prompt] = [TokenPrompt(), TokenPrompt([7]), *soft]
        assert len(entrants(ledger(*prompts, rewards=range(4)), Selection(4))) == 4
        assert entrants(Ledger(), Selection()) == []

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ({"candidates": 0}, "1 to 64 candidates race on dev, got 0"),
            ({"candidates": 65}, "1 to 64 candidates race on dev, got 65"),
            ({"dev_patience": 0}, "dev_patience is one mark or more, or left out for none, got 0"),
        ],
    )
    def test_bad_settings_are_named(self, setting: dict[str, int], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Selection(**setting)  # type: ignore[arg-type]


@dataclass
class Answering(Known):
    """A task of two classes, one rare, that is picked by a metric of all its examples."""

    select_by: str = "metric"

    def measure(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Measured:
        rewards = self.rewards(lm, prompts, examples)
        answers = [
            ["rare" if self.right_of(prompt, example) else "ok" for example in examples]
            for prompt in prompts
        ]
        return Measured(rewards, rewards * 0, tuple(map(tuple, answers)))

    @staticmethod
    def right_of(prompt: Prompt, example: Example) -> bool:
        """Prompt 2 finds the rare ones, which the other does not."""
        assert isinstance(prompt, TokenPrompt)
        return prompt.ids[0] == 2 and int(example.fields["text"].split()[1]) % 8 == 0

    def set_metric(self, measured: Measured, examples: Sequence[Example]) -> Floats:
        labels = [
            "ok" if int(example.fields["text"].split()[1]) % 8 else "rare" for example in examples
        ]
        return np.array([macro_f1(labels, row) for row in measured.answers or ()])


class TestMetricOfASet:
    def test_it_picks_where_that_is_asked_and_all_see_all_of_dev(self) -> None:
        """By reward 1 is far ahead."""
        task = Answering(splits=fake_splits(3, 32, 5), reward=lambda p, e: 100.0 * (p == 1))
        raced = race_on_dev(Evaluator(task, tiny_lm()), field_of(1, 2))
        assert ids(raced) == [2, 1]
        assert [len(one.rewards) for one in raced] == [32, 32]
        assert [one.dev.metric for one in raced] == [1.0, pytest.approx((28 * 2 / 60 + 0) / 2)]
        by_reward = Evaluator(replace(task, select_by="reward"), tiny_lm())
        raced = race_on_dev(by_reward, field_of(1, 2))
        assert ids(raced) == [1, 2]
        assert raced[0].dev.metric == pytest.approx((28 * 2 / 60 + 0) / 2)


class TestRounds:
    @given(st.lists(st.sampled_from("abc"), min_size=1, max_size=70))
    def test_every_example_comes_once(self, labels: list[str]) -> None:
        examples = [Example({"text": str(i)}, label) for i, label in enumerate(labels)]
        found = list(rounds(examples))
        assert sorted(place for one in found for place in one) == list(range(len(labels)))
        assert len(found[0]) == min(FIRST_ROUND, len(labels))

    def test_each_round_has_all_classes_of_a_sorted_file(self) -> None:
        examples = [Example({"text": str(i)}, "ab"[i // 16]) for i in range(32)]
        sizes = [
            [sum(examples[i].label == label for i in one) for label in "ab"]
            for one in rounds(examples)
        ]
        assert sizes == [[4, 4], [4, 4], [8, 8]]


class TestStillClose:
    def test_the_limit_is_a_paired_t_test(self) -> None:
        # Differences 1, 2, 3, 4: mean 2.5, error 0.6455, so t = 3.873; one-sided p = 0.0152, and a
        # test of two ordered pairs has 0.025.
        leader, other = [1.0, 2.0, 3.0, 4.0], [0.0] * 4
        assert still_close(np.array([leader, other])) == [True, False]
        # Of six pairs each has 0.0083, and it is close.
        assert still_close(np.array([leader, other, leader])) == [True] * 3

    def test_a_constant_difference_is_sure_and_none_is_none(self) -> None:
        assert still_close(np.array([[1.0, 1.0], [0.5, 0.5], [1.0, 1.0]])) == [True, False, True]

    @pytest.mark.parametrize(("n_candidates", "n"), [(2, 8), (16, 8), (16, 32)])
    def test_equals_are_seldom_dropped(self, n_candidates: int, n: int) -> None:
        rng = np.random.default_rng(0)
        rewards = rng.standard_normal((1000, n_candidates, n))
        dropped = sum(not all(still_close(one)) for one in rewards)
        assert dropped <= 71  # 5 % of 1,000, and three standard deviations
