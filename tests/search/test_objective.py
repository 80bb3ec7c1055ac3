from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from fakes import (
    FakeGradientTask,
    FakePricedTask,
    FakeTask,
    FakeTwoGradientsTask,
    Remembered,
    fake_splits,
)
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_lm

from rlprompt.data.examples import Example
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.search.blocks import Block
from rlprompt.search.budget import KEPT, Budget, Ledger
from rlprompt.search.memo import Question, V
from rlprompt.search.objective import (
    CHUNK,
    BudgetExhausted,
    Evaluation,
    GradientEvaluation,
    Objective,
)
from rlprompt.search.optimiser import AskTell, Proposals
from rlprompt.tasks.base import GRADIENT_ROWS, Task
from rlprompt.types import Floats, Ids, Loss, Outputs

N = len(fake_splits().train)


def objective(task: Task, rows: int, **options: Any) -> Objective:
    return Objective(task, tiny_lm(), Budget(rows), **options)


def tokens(count: int, start: int = 0) -> list[TokenPrompt]:
    return [TokenPrompt((i,)) for i in range(start, start + count)]


def vectors(count: int, start: int = 0) -> list[SoftPrompt]:
    return [SoftPrompt(np.full((2, 3), float(i))) for i in range(start, start + count)]


def raise_at(call: int, error: BaseException) -> Callable[[int], None]:
    def before(number: int) -> None:
        if number == call:
            raise error

    return before


class Written(Remembered):
    """A memo that writes answers down as rows, as a store does."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Mapping[str, Any]] = []

    def put(self, question: Question[V], answer: V) -> V:
        self.rows.append(question.encoded(answer))
        return super().put(question, answer)


class WritingTask(FakeTask):
    """Writes a text less for the last prompt."""

    def rewards_with_outputs(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> tuple[Floats, Outputs]:
        texts = tuple(example.fields["text"] for example in examples)
        return self.rewards(lm, prompts, examples), (*[texts] * (len(prompts) - 1), texts[1:])


class TableTask(FakeTask):
    """The reward of a prompt of one token, looked up."""

    def __init__(self, table: dict[int, float]) -> None:
        super().__init__()
        self.table = table

    def worth(self, prompt: Prompt, example: Example) -> float:
        assert isinstance(prompt, TokenPrompt)
        return self.table[prompt.ids[0]]


REWARD: Loss = "reward"

# Calls of an optimiser: whether with a gradient, and which prompts.
calls = st.lists(
    st.tuples(st.booleans(), st.lists(st.integers(0, 20), max_size=12)), min_size=1, max_size=12
)


class TestBudget:
    @given(calls, st.integers(N, 60))
    def test_it_is_never_exceeded_and_nothing_paid_is_lost(
        self, batches: list[tuple[bool, list[int]]], rows: int
    ) -> None:
        task = FakeGradientTask()
        target = objective(task, rows)
        used = 0
        asked = []
        for gradient, numbers in batches:
            prompts = [SoftPrompt(np.full((1, 2), float(i))) for i in numbers]
            cost, loss = (N * GRADIENT_ROWS, REWARD) if gradient else (N, None)
            covered = min(len(prompts), (rows - used) // cost)
            assert target.affordable(loss=loss) == (rows - used) // cost
            evaluate = target.evaluate_with_grad if gradient else target.evaluate
            evaluation: Evaluation
            if covered < len(prompts):
                with pytest.raises(BudgetExhausted) as stop:
                    evaluate(prompts)
                evaluation = stop.value.evaluation
            else:
                evaluation = evaluate(prompts)
            used += covered * cost
            asked += prompts[:covered]
            assert evaluation.prompts == tuple(prompts[:covered])
            assert evaluation.per_example.shape == (covered, N)
            assert evaluation.rewards.tolist() == pytest.approx(
                [task.mean_reward(prompt) for prompt in prompts[:covered]]
            )
            if isinstance(evaluation, GradientEvaluation):
                assert gradient
                assert evaluation.gradients.shape[0] == covered
            assert target.ledger.used == used <= rows
            assert target.remaining == rows - used
            recorded = [reward for _, reward in target.ledger.points]
            assert recorded == pytest.approx([task.mean_reward(prompt) for prompt in asked])
            assert target.ledger.n_prompts == len(asked)
            if recorded:
                assert target.ledger.points[-1][0] == used
                assert target.ledger.best_reward == max(recorded)

    @given(calls)
    def test_the_ledger_is_in_order(self, batches: list[tuple[bool, list[int]]]) -> None:
        target = objective(FakeGradientTask(), 10**6)
        costs = []
        for gradient, numbers in batches:
            evaluate = target.evaluate_with_grad if gradient else target.evaluate
            evaluate([SoftPrompt(np.full((1, 2), float(i))) for i in numbers])
            costs += [N * (GRADIENT_ROWS if gradient else 1)] * len(numbers)
        assert [rows for rows, _ in target.ledger.points] == np.cumsum(costs).tolist()
        running = np.maximum.accumulate([reward for _, reward in target.ledger.points] or [0.0])
        improvements = [
            point
            for i, point in enumerate(target.ledger.points)
            if i == 0 or point[1] > running[i - 1]
        ]
        assert target.ledger.trace == improvements

    def test_repeats_are_charged_and_counted_again(self) -> None:
        target = objective(FakeTask(), 100)
        target.evaluate([TokenPrompt((1,))] * 2)
        target.evaluate([TokenPrompt((1,))])
        assert target.ledger.used == 3 * N
        assert target.ledger.n_prompts == 3
        assert len(target.ledger.trace) == 1

    def test_a_gradient_costs_three_rows_a_row(self) -> None:
        target = objective(FakeGradientTask(), 100)
        target.evaluate_with_grad(vectors(2))
        assert target.ledger.used == 2 * 3 * N
        assert target.ledger.points[0][0] == 3 * N

    def test_the_prompts_that_still_fit_are_scored(self) -> None:
        target = objective(FakeTask(), 5 * N + 1)
        target.evaluate(tokens(3))
        with pytest.raises(BudgetExhausted, match="2 prompts were still scored") as stop:
            target.evaluate(tokens(4, start=3))
        assert stop.value.evaluation.prompts == tuple(tokens(2, start=3))
        assert target.ledger.used == 5 * N
        assert target.ledger.n_prompts == 5
        with pytest.raises(BudgetExhausted) as stop:
            target.evaluate(tokens(1))
        assert stop.value.evaluation.prompts == ()
        assert stop.value.evaluation.rewards.shape == (0,)
        assert target.ledger.used == 5 * N

    def test_a_gradient_that_does_not_fit_leaves_room_for_plain_rows(self) -> None:
        target = objective(FakeGradientTask(), 2 * N)
        with pytest.raises(BudgetExhausted) as stop:
            target.evaluate_with_grad(vectors(1))
        assert isinstance(stop.value.evaluation, GradientEvaluation)
        assert stop.value.evaluation.gradients.shape == (0, 2, 3)
        assert target.ledger.used == 0
        assert target.evaluate(vectors(2)).rewards.shape == (2,)

    @given(st.integers(0, 5), st.integers(0, 40), st.lists(st.integers(0, 9), max_size=6))
    def test_what_a_task_needs_beyond_its_examples_is_paid_for(
        self, extra: int, spare: int, sizes: list[int]
    ) -> None:
        cost = N + extra
        target = objective(FakePricedTask(extra_rows=extra), cost + spare)
        for size in sizes:
            covered = min(size, target.affordable())
            assert target.affordable() == target.remaining // cost
            before = target.ledger.used
            with nullcontext() if covered == size else pytest.raises(BudgetExhausted):
                target.evaluate(tokens(size))
            assert target.ledger.used == before + covered * cost <= cost + spare
        assert [rows for rows, _ in target.ledger.points] == [
            (i + 1) * cost for i in range(target.ledger.n_prompts)
        ]

    def test_a_gradient_costs_three_times_that_as_well(self) -> None:
        class Priced(FakeGradientTask):
            extra_rows = 2

        target = objective(Priced(), 100)
        target.evaluate_with_grad(vectors(2))
        assert target.ledger.used == 2 * 3 * (N + 2)

    @pytest.mark.parametrize("extra", [-1, 1.5, None])
    def test_a_wrong_number_of_extra_rows_is_named(self, extra: Any) -> None:
        with pytest.raises(ValueError, match=f"'fake' has extra_rows {extra}; give a whole"):
            objective(FakePricedTask(extra_rows=extra), 100)

    def test_the_last_row_can_be_spent(self) -> None:
        target = objective(FakeTask(), 4 * N)
        assert len(target.evaluate(tokens(4)).prompts) == 4
        assert target.remaining == 0

    def test_asking_nothing_costs_nothing(self) -> None:
        task = FakeGradientTask()
        target = objective(task, 2 * N)
        assert target.evaluate([]).rewards.shape == (0,)
        assert target.evaluate_with_grad([]).rewards.shape == (0,)
        assert target.ledger.used == 0
        assert task.calls == []

    @pytest.mark.parametrize("rows", [0, -1])
    def test_it_has_a_row_at_least(self, rows: int) -> None:
        with pytest.raises(ValueError, match=f"one row or more, got {rows}"):
            Budget(rows)

    def test_it_covers_a_prompt_at_least(self) -> None:
        with pytest.raises(ValueError, match=r"2 rows does not cover one prompt.*3 train examples"):
            objective(FakeTask(), N - 1)
        objective(FakeTask(), N)
        with pytest.raises(
            ValueError, match=r"3 train examples and scores each prompt on 2 more .*give 5 rows"
        ):
            objective(FakePricedTask(), N + 1)
        objective(FakePricedTask(), N + 2)


# Calls on a part of the examples or all: with a gradient or not, which prompts, which places.
mixtures = st.lists(
    st.tuples(
        st.booleans(),
        st.lists(st.integers(0, 5), max_size=6),
        st.none() | st.lists(st.integers(0, N - 1), min_size=1, unique=True),
    ),
    max_size=12,
)


class TestParts:
    @given(mixtures, st.integers(N, 80))
    def test_the_budget_holds_and_no_part_stands_beside_the_whole(
        self, batches: list[tuple[bool, list[int], list[int] | None]], rows: int
    ) -> None:
        task = FakeGradientTask()
        target = objective(task, rows)
        used = 0
        in_part: set[int] = set()
        known: dict[int, set[int]] = {}
        whole = []
        for gradient, numbers, places in batches:
            prompts = [SoftPrompt(np.full((1, 2), float(i))) for i in numbers]
            size = N if places is None else len(places)
            cost, loss = (size * GRADIENT_ROWS, REWARD) if gradient else (size, None)
            covered = min(len(prompts), (rows - used) // cost)
            assert target.remaining == rows - used
            assert target.cost(loss=loss, examples=size) == cost
            evaluate = target.evaluate_with_grad if gradient else target.evaluate
            evaluation: Evaluation
            try:
                evaluation = evaluate(prompts, places)
                assert covered == len(prompts)
            except BudgetExhausted as stop:
                evaluation = stop.evaluation
                assert covered < len(prompts)
            used += covered * cost
            asked = list(range(N)) if places is None else places
            train = task.splits.train
            assert evaluation.per_example.tolist() == [
                [task.worth(prompt, train[i]) for i in asked] for prompt in prompts[:covered]
            ]
            assert evaluation.examples == (None if asked == list(range(N)) else tuple(asked))
            assert target.ledger.used == used <= rows
            for number in numbers[:covered]:
                if size == N:
                    whole.append(number)
                    continue
                in_part.add(number)
                known.setdefault(number, set()).update(asked)
                if len(known[number]) == N:
                    whole.append(number)
                    del known[number]
        means = [task.mean_reward(SoftPrompt(np.full((1, 2), float(i)))) for i in whole]
        assert [reward for _, reward in target.ledger.points] == means
        assert (target.ledger.n_prompts, target.ledger.n_partial) == (
            len(whole),
            len(in_part - set(whole)),
        )
        assert target.ledger.best_reward == max(means, default=-math.inf)
        assert len(target.ledger.best(64)) == len(set(whole))

    def test_rows_are_those_of_the_part(self) -> None:
        target = objective(FakePricedTask(extra_rows=2), 20)
        target.evaluate(tokens(2), [2, 0])
        assert target.ledger.used == 2 * (2 + 2)
        target.evaluate(tokens(1), [1])
        assert target.ledger.used == 8 + 3
        assert target.ledger.points == [(11, FakeTask().mean_reward(TokenPrompt((0,))))]
        assert (target.affordable(), target.remaining, target.cost(examples=1)) == (1, 9, 3)
        with pytest.raises(ValueError, match="1 to 3 examples here, got 4"):
            target.cost(examples=4)

    def test_all_examples_in_order_are_the_call_of_ever(self) -> None:
        task = FakeTask()
        target = objective(task, 100, memo=Remembered())
        target.evaluate(tokens(2))
        assert target.evaluate(tokens(2), range(N)).examples is None
        turned = target.evaluate(tokens(2), [2, 0, 1])
        assert turned.examples == (2, 0, 1)
        assert len(task.calls) == 1
        assert target.ledger.n_prompts == 6
        assert target.ledger.used == 6 * N

    def test_a_task_may_say_that_its_parts_do_not_add_up(self) -> None:
        class Batched(FakeTask):
            scored_together = True

        target = objective(Batched(), 100)
        target.evaluate(tokens(1), [0, 1])
        target.evaluate(tokens(1), [2])
        assert target.ledger.points == []
        assert target.ledger.n_partial == 1

    def test_patience_counts_rows_and_a_target_whole_means(self) -> None:
        target = Objective(FakeTask(), tiny_lm(), Budget(100, target=0.0, patience=7))
        target.evaluate(tokens(3), [0, 1])
        target.evaluate(tokens(1), [0])
        with pytest.raises(BudgetExhausted):
            target.evaluate(tokens(1))

    @pytest.mark.parametrize(
        ("places", "message"),
        [
            ([], "one example or more, got none"),
            ([0, 3], r"no train example at \[3\]; 3 examples have the places 0 to 2"),
            ([-1], r"no train example at \[-1\]"),
            ([1, 0, 1], r"\[1\] are given more than once in \[1, 0, 1\]"),
        ],
    )
    def test_wrong_places_are_named_before_they_cost(self, places: list[int], message: str) -> None:
        target = objective(FakeGradientTask(), 100)
        for evaluate in (target.evaluate, target.evaluate_with_grad):
            with pytest.raises(ValueError, match=message):
                evaluate(vectors(1), places)
        assert target.ledger.used == 0

    def test_a_search_may_ask_for_blocks(self) -> None:
        class Asks(AskTell[Any]):
            searches = "tokens"

            def ask(self, space: Any, n_prompts: int, rng: np.random.Generator) -> Proposals:
                evaluation = yield Block(tokens(2), (1, 0))
                assert evaluation.examples == (1, 0)

        target = objective(FakeTask(), 100)
        Asks().run(target, None, np.random.default_rng(0))
        assert target.ledger.used == 4


class TestPayingFirst:
    @pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")])
    def test_what_was_scored_before_an_error_is_kept(self, error: BaseException) -> None:
        task = FakeTask(before=raise_at(2, error))
        target = objective(task, 1000)
        prompts = tokens(2 * CHUNK + 5)
        with pytest.raises(type(error)):
            target.evaluate(prompts)
        assert target.ledger.used == len(prompts) * N  # charged before it was computed
        assert target.ledger.n_prompts == CHUNK
        assert target.ledger.points[-1][0] == CHUNK * N
        assert target.ledger.best(1)[0].reward == max(map(task.mean_reward, prompts[:CHUNK]))
        target.evaluate(tokens(1, start=500))
        assert target.ledger.points[-1][0] == target.ledger.used

    def test_a_gradient_is_charged_before_it_is_computed(self) -> None:
        task = FakeGradientTask(before=raise_at(1, KeyboardInterrupt()))
        target = objective(task, 1000)
        with pytest.raises(KeyboardInterrupt):
            target.evaluate_with_grad(vectors(2))
        assert target.ledger.used == 2 * 3 * N
        assert target.ledger.n_prompts == 0

    def test_only_train_is_asked_about(self) -> None:
        task = FakeGradientTask()
        target = objective(task, 10**4)
        target.evaluate(vectors(2 * CHUNK))
        target.evaluate_with_grad(vectors(2))
        assert set(task.splits_seen()) == {"train"}

    def test_a_batch_reaches_the_task_in_order_and_once(self) -> None:
        task = FakeTask()
        prompts = tokens(2 * CHUNK + 5)
        objective(task, 10**4).evaluate(prompts)
        assert [prompt for asked, _ in task.calls for prompt in asked] == prompts
        assert max(len(asked) for asked, _ in task.calls) <= CHUNK


class TestBest:
    @given(st.integers(0, 2**32), st.sampled_from([2, 5, 1000]), st.integers(1, KEPT))
    def test_they_are_those_of_a_full_sort(self, seed: int, n_values: int, count: int) -> None:
        """More prompts than are kept, repeats, ties; a prompt's reward never changes."""
        rng = np.random.default_rng(seed)
        worth = rng.integers(0, n_values, 120).tolist()
        scores = [(prompt, worth[prompt]) for prompt in rng.integers(0, 120, 250).tolist()]
        rewards: dict[int, float] = {}
        firsts: dict[int, int] = {}
        for step, (prompt, reward) in enumerate(scores):
            rewards.setdefault(prompt, float(reward))
            firsts.setdefault(prompt, step)
        target = objective(TableTask(rewards), 10**6)
        target.evaluate([TokenPrompt((prompt,)) for prompt, _ in scores])
        expected = sorted(rewards, key=lambda prompt: (-rewards[prompt], firsts[prompt]))[:count]
        best = target.ledger.best(count)
        assert [scored.prompt for scored in best] == [TokenPrompt((p,)) for p in expected]
        assert [scored.reward for scored in best] == [rewards[p] for p in expected]
        assert [scored.rows for scored in best] == [(firsts[p] + 1) * N for p in expected]

    def test_before_the_first_there_is_none(self) -> None:
        ledger = Ledger()
        assert ledger.best(8) == []
        assert ledger.best_reward == -math.inf

    def test_many_prompts_need_little_memory(self) -> None:
        target = objective(FakeTask(), 10**6)
        target.evaluate(tokens(10 * KEPT))
        assert len(target.ledger.best(10**6)) == KEPT


class TestWrongAnswers:
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_reward_that_is_no_number_names_prompt_example_and_task(self, value: float) -> None:
        def change(rewards: Any) -> Any:
            rewards[1, 2] = value
            return rewards

        task = FakeTask(change=change)
        target = objective(task, 100)
        with pytest.raises(
            ValueError, match=r"'fake' gave the reward .*\(7,\).*example 2 .*train.csv:4"
        ):
            target.evaluate([TokenPrompt((5,)), TokenPrompt((7,)), TokenPrompt((9,))])
        # The others were paid for and are kept, the broken one can never be the best.
        kept = {scored.prompt for scored in target.ledger.best(8)}
        assert kept == {TokenPrompt((5,)), TokenPrompt((9,))}
        assert target.ledger.used == 3 * N

    @pytest.mark.parametrize(
        "change", [lambda r: r[:, :-1], lambda r: r.mean(axis=1), lambda r: r.T, lambda r: 0.5]
    )
    def test_a_wrong_shape_is_named(self, change: Callable[[Any], Any]) -> None:
        target = objective(FakeTask(change=change), 100)
        with pytest.raises(ValueError, match=r"'fake' gave rewards of shape .*expected \(2, 3\)"):
            target.evaluate(tokens(2))

    def test_a_text_is_wanted_for_each_example(self) -> None:
        with pytest.raises(ValueError, match=r"'fake' gave \[3, 2\] texts for 2 prompts on 3 ex"):
            objective(WritingTask(), 100).evaluate(tokens(2))

    @pytest.mark.parametrize(
        "change", [lambda g: g[:1], lambda g: g.sum(axis=0), lambda g: g.reshape(2, -1)]
    )
    def test_a_gradient_of_a_wrong_shape_is_named(self, change: Callable[[Any], Any]) -> None:
        target = objective(FakeGradientTask(change_gradient=change), 100)
        with pytest.raises(ValueError, match=r"gradient of shape .* expected \(2, 2, 3\)"):
            target.evaluate_with_grad(vectors(2))

    def test_a_gradient_that_is_no_number_is_named(self) -> None:
        target = objective(FakeGradientTask(change_gradient=lambda g: g * math.nan), 100)
        with pytest.raises(ValueError, match="'fake' gave a gradient with NaN or infinity"):
            target.evaluate_with_grad(vectors(2))
        assert target.ledger.n_prompts == 2

    def test_a_task_without_a_gradient_says_so_before_it_costs(self) -> None:
        target = objective(FakeTask(), 100)
        with pytest.raises(ValueError, match="task 'fake' has no gradient"):
            target.evaluate_with_grad(vectors(2))
        assert target.ledger.used == 0
        assert not FakeTask().has("rewards_with_grad")


class TestAnswers:
    def test_a_gradient_is_that_of_the_mean_reward(self) -> None:
        target = objective(FakeGradientTask(), 10**4)
        prompt = SoftPrompt([[0.3, -0.2]])
        evaluation = target.evaluate_with_grad([prompt])
        for i, step in enumerate(np.eye(2) * 1e-3):
            up, down = (SoftPrompt(prompt.vectors + sign * step) for sign in (1, -1))
            difference = np.diff(target.evaluate([down, up]).rewards)[0] / 2e-3
            assert evaluation.gradients[0, 0, i] == pytest.approx(difference, abs=1e-3)

    def test_the_gradient_of_another_loss_comes_with_the_reward_at_the_same_cost(self) -> None:
        target, task = objective(FakeTwoGradientsTask(), 10**4), FakeTwoGradientsTask()
        other = objective(task, 10**4, memo=Remembered())
        own = target.evaluate_with_grad(vectors(2), [0, 2])
        for again in range(2):  # the second time from memory
            loss = other.evaluate_with_grad(vectors(2), [0, 2], loss="cross_entropy")
            assert loss.per_example.tolist() == own.per_example.tolist()
            assert loss.gradients.tolist() == np.ones((2, 2, 3)).tolist()
            assert other.ledger.used == (again + 1) * target.ledger.used
        kept = other.evaluate_with_grad(vectors(2), [0, 2])
        assert kept.gradients.tolist() == own.gradients.tolist()
        assert len(task.calls) == 2, "one for each loss"

    def test_a_token_prompt_has_the_gradient_at_its_embeddings_and_stands_in_the_ledger(
        self,
    ) -> None:
        task = FakeTwoGradientsTask()
        target = objective(task, 10**4, memo=Remembered())
        prompts = [TokenPrompt((5, 6)), TokenPrompt((7, 5))]
        table = tiny_lm().embeddings()
        as_vectors = [SoftPrompt(table[list(prompt.ids)]) for prompt in prompts]
        for again in range(2):  # the second time from memory
            found = target.evaluate_with_grad(prompts, [0, 2])
            expected = objective(FakeTwoGradientsTask(), 10**4).evaluate_with_grad(
                as_vectors, [0, 2]
            )
            assert found.prompts == tuple(prompts)
            assert found.per_example.tolist() == expected.per_example.tolist()
            assert found.gradients.tolist() == expected.gradients.tolist()
            assert target.ledger.used == (again + 1) * 2 * 2 * GRADIENT_ROWS
        assert [asked for asked, _ in task.calls] == [tuple(as_vectors)]
        whole = target.evaluate_with_grad(prompts, loss="cross_entropy")
        kept = {one.prompt: one.reward for one in target.ledger.best(2)}
        assert kept == dict(zip(prompts, whole.rewards.tolist(), strict=True))
        with pytest.raises(BudgetExhausted) as stop:
            objective(task, N).evaluate_with_grad(prompts)
        assert isinstance(stop.value.evaluation, GradientEvaluation)
        assert stop.value.evaluation.gradients.shape == (0, 2, tiny_lm().hidden_size)

    def test_prompts_are_decoded_only_for_answers_that_are_put_away(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read, lm = list[Ids](), tiny_lm()
        decode = lm.decode

        def counted(ids: Ids) -> str:
            read.append(tuple(ids))
            return decode(ids)

        monkeypatch.setattr(lm, "decode", counted)
        memo, asked = Written(), [*tokens(2, 10), *tokens(1, 20)]
        for _ in range(2):  # the second time from memory, as in a replay
            Objective(FakeTask(), lm, Budget(100), memo=memo).evaluate(asked)
        assert read == [(10,), (11,), (20,)]
        (row,) = memo.rows
        assert json.loads(row["texts"]) == [decode(ids) for ids in read]
        Objective(FakeTask(), lm, Budget(100)).evaluate(asked)
        assert len(read) == 3, "nobody keeps these"
        # A worker sends its questions to another machine, which has no model to read them with.
        ((question, answer),) = memo.answers.items()
        sent = pickle.dumps(question)
        assert len(sent) < 2000
        assert pickle.loads(sent).encoded(answer) == row

    @pytest.mark.parametrize(("lengths", "shown"), [((1, 2), r"\[1, 2\]"), ((0,), r"\[0\]")])
    def test_prompts_of_several_lengths_or_none_have_no_gradient(
        self, lengths: tuple[int, ...], shown: str
    ) -> None:
        target = objective(FakeGradientTask(), 100)
        with pytest.raises(ValueError, match=f"of one length, 1 or more, got {shown}; ask for"):
            target.evaluate_with_grad([TokenPrompt([5] * length) for length in lengths])
        assert target.ledger.used == 0

    def test_a_loss_that_a_task_does_not_offer_is_refused(self) -> None:
        target = objective(FakeGradientTask(), 100)
        with pytest.raises(ValueError, match=r"no method cross_entropy_with_grad.*`reward`"):
            target.evaluate_with_grad(vectors(1), loss="cross_entropy")
        assert target.ledger.used == 0

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
    def test_means_are_taken_in_float64(self, dtype: Any) -> None:
        target = objective(FakeTask(change=lambda r: (10 * r).astype(dtype)), 100)
        evaluation = target.evaluate(tokens(2))
        assert evaluation.per_example.dtype == np.float64
        assert evaluation.rewards.dtype == np.float64

    def test_ledger_and_answer_agree_to_the_last_bit(self) -> None:
        """The order in memory decides how a mean is summed, so the task's must not count."""
        task = FakeTask(fake_splits(n_train=33), change=lambda r: np.asfortranarray(r))
        target = objective(task, 10**5)
        evaluation = target.evaluate(tokens(100))
        assert [reward for _, reward in target.ledger.points] == evaluation.rewards.tolist()

    def test_a_task_may_use_its_array_again(self) -> None:
        buffer = np.zeros((2, N))

        def change(rewards: Any) -> Any:
            buffer[:] = rewards
            return buffer

        target = objective(FakeTask(change=change), 100)
        first = target.evaluate(tokens(2))
        before = first.per_example.copy()
        target.evaluate(tokens(2, start=2))
        assert np.array_equal(first.per_example, before)


class TestTheClockAndTheCallback:
    def test_time_in_the_task_is_counted_and_no_other(self) -> None:
        task = FakeTask(before=lambda n: time.sleep(0.02))
        target = objective(task, 10**4, on_progress=lambda ledger: time.sleep(0.05))
        began = time.perf_counter()
        target.evaluate(tokens(2))
        target.evaluate(tokens(2))
        elapsed = time.perf_counter() - began
        assert 0.04 <= target.ledger.lm_seconds <= elapsed - 0.1

    def test_progress_is_told_after_every_chunk(self) -> None:
        seen: list[tuple[int, int]] = []
        target = objective(
            FakeTask(),
            10**4,
            on_progress=lambda ledger: seen.append((ledger.n_prompts, ledger.used)),
        )
        target.evaluate(tokens(CHUNK + 3))
        target.evaluate(tokens(1))
        used = (CHUNK + 3) * N
        assert seen == [(CHUNK, used), (CHUNK + 3, used), (CHUNK + 4, used + N)]


def test_prompts_may_come_as_any_sequence() -> None:
    prompts: Sequence[TokenPrompt] = tuple(tokens(3))
    assert objective(FakeTask(), 100).evaluate(prompts).prompts == prompts


class TestOwnTokens:
    def test_what_the_model_reads_for_a_method_is_counted_once_and_costs_no_row(self) -> None:
        target = objective(FakeTask(), 100)
        begun = [(1, 2), (1, 3), (1, 2)]
        target.hidden(begun)
        assert target.ledger.own_tokens == 4  # of two different texts
        target.hidden([(1, 2, 5), (1, 3, 6)], [begun])
        assert target.ledger.own_tokens == 6  # what stands before was read
        target.hidden([(4, 5, 6)], [begun])
        assert (target.ledger.own_tokens, target.ledger.used) == (9, 0)


class CommentingTask(FakeTask):
    """Writes what an example says, and comments on that."""

    def rewards_with_outputs(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> tuple[Floats, Outputs]:
        texts = tuple(example.fields["text"] for example in examples)
        return self.rewards(lm, prompts, examples), (texts,) * len(prompts)

    def feedback(
        self,
        lm: FrozenLM,
        prompts: Sequence[Prompt],
        examples: Sequence[Example],
        outputs: Outputs | None,
    ) -> Outputs | None:
        assert outputs is not None
        return tuple(
            tuple(
                f"{text} of {example.source}" for text, example in zip(row, examples, strict=True)
            )
            for row in outputs
        )


class TestWords:
    def test_what_was_written_and_what_is_said_of_it_keep_the_order_asked(self) -> None:
        target = objective(CommentingTask(), 100)
        found = target.evaluate(tokens(2), examples=[2, 0])
        assert found.outputs == (("train 2", "train 0"),) * 2
        used = target.ledger.used
        said = target.feedback(found)
        assert said == (("train 2 of train.csv:4", "train 0 of train.csv:2"),) * 2
        assert target.ledger.used == used == 4

    def test_of_all_prompts_of_several_chunks(self) -> None:
        found = objective(CommentingTask(), 1000).evaluate(tokens(CHUNK + 2))
        assert found.outputs is not None
        assert len(found.outputs) == CHUNK + 2

    def test_of_prompts_that_a_budget_still_covered(self) -> None:
        with pytest.raises(BudgetExhausted) as spent:
            objective(CommentingTask(), N).evaluate(tokens(2))
        assert spent.value.evaluation.outputs == (("train 0", "train 1", "train 2"),)

    def test_a_task_without_words_says_nothing(self) -> None:
        target = objective(FakeTask(), 100)
        found = target.evaluate(tokens(1))
        assert (found.outputs, target.feedback(found)) == (None, None)
