from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from drawing import Draw, DrawVectors
from exports import class_task
from fakes import FakeGradientTask, FakeTask, Remembered, fake_splits, number, timeless
from tiny import tiny_lm

from rlprompt.data.examples import Example
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length, Prompt, SoftPrompt, TokenPrompt
from rlprompt.search.budget import Budget, Ledger
from rlprompt.search.objective import CHUNK, BudgetExhausted, Evaluation, Objective
from rlprompt.search.optimiser import AskTell, Optimiser, Proposals
from rlprompt.search.result import Result
from rlprompt.search.run import search
from rlprompt.search.selection import Selection
from rlprompt.search.space import SoftSpace, TokenSpace
from rlprompt.tasks.base import Measured
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.template import Template
from rlprompt.types import Floats, PromptKind

N = len(fake_splits().train)


@dataclass(frozen=True)
class Do:
    """Whatever a test wants done."""

    work: Callable[[Objective, TokenSpace, np.random.Generator], None]
    searches: ClassVar[PromptKind] = "tokens"

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        self.work(objective, space, rng)


@dataclass
class TrainAndDevDisagree(FakeTask):
    """On dev and test, other prompts are good than on train."""

    def worth(self, prompt: Prompt, example: Example) -> float:
        return number(prompt.digest + example.fields["text"].split()[0])


def same(first: Result, second: Result) -> bool:
    return timeless(first) == timeless(second)


class TestSelection:
    def test_dev_picks_and_test_is_opened_once_for_what_was_picked(self) -> None:
        task = TrainAndDevDisagree()
        result = search(task, tiny_lm(), Draw(), 40 * N)
        assert len(result.candidates) == 16
        dev = [task.mean_reward(candidate.prompt, "dev") for candidate in result.candidates]
        assert [c.dev.reward for c in result.candidates if c.dev] == pytest.approx(dev)
        assert dev == sorted(dev, reverse=True)
        assert result.best.train_reward < max(c.train_reward for c in result.candidates)
        opened = [
            asked
            for (asked, _), split in zip(task.calls, task.splits_seen(), strict=True)
            if split == "test"
        ]
        assert opened == [(result.best.prompt,)]
        assert task.splits_seen()[-1] == "test"  # nothing could be changed after it
        assert result.best.test is not None
        assert result.best.test.reward == pytest.approx(
            task.mean_reward(result.best.prompt, "test")
        )
        assert all(c.test is None and c.train is None for c in result.candidates[1:])

    def test_the_candidates_are_the_best_on_train_where_the_path_is_left_out(self) -> None:
        task = TrainAndDevDisagree()
        old = Selection(along_path=False)
        result = search(task, tiny_lm(), Draw(), 40 * N, selection=old)
        asked = {prompt for call, _ in task.calls[:10] for prompt in call}
        best = sorted((task.mean_reward(prompt) for prompt in asked), reverse=True)[:16]
        found = sorted((c.train_reward for c in result.candidates), reverse=True)
        assert found == pytest.approx(best)
        for candidate in result.candidates:
            assert (candidate.found_at_rows, candidate.train_reward) in result.points

    def test_equals_on_dev_go_by_train(self) -> None:
        task = FakeTask(change=lambda r: r if r.shape[1] == N else np.zeros_like(r))
        result = search(task, tiny_lm(), Draw(), 40 * N)
        assert result.best.train_reward == max(reward for _, reward in result.points)

    def test_an_optimiser_is_scored_on_train_only(self) -> None:
        task = FakeTask()
        search(task, tiny_lm(), Draw(), 40 * N)
        seen = task.splits_seen()
        assert set(seen[: seen.index("dev")]) == {"train"}
        # The race, the prompts that led, the picked one in parts; then how it ends.
        assert seen[seen.index("dev") :] == ["dev"] * 3 + ["train", "test"]

    def test_a_task_may_report_another_metric_than_its_reward(self, lm: FrozenLM) -> None:
        task = ClassificationTask(
            "film", fake_splits(), Template("{text} {prompt}"), {"a": "bad", "b": "good"}
        )
        best = search(task, lm, Draw(), 10 * N).best
        assert best.train
        assert best.dev
        assert best.test
        assert best.train.reward == pytest.approx(best.train_reward, abs=1e-2)
        for score, size in ((best.train, N), (best.dev, 4), (best.test, 5)):
            assert score.metric * size == pytest.approx(round(score.metric * size))
            assert 0 <= score.metric <= 1

    @pytest.mark.parametrize("split", ["dev", "test"])
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_broken_reward_in_the_selection_is_an_error(self, split: str, value: float) -> None:
        size = len(fake_splits().parts()[split])

        def change(rewards: Floats) -> Floats:
            return rewards * value if rewards.shape[1] == size else rewards

        with pytest.raises(ValueError, match=f"'fake' .*no finite number .* examples of {split}"):
            search(FakeTask(change=change), tiny_lm(), Draw(), 10 * N)

    def test_a_wrong_shape_in_the_selection_is_an_error(self) -> None:
        task = FakeTask(change=lambda r: r if r.shape[1] == N else r.T)
        with pytest.raises(ValueError, match=r"shape \(4, 16\) .* 16 prompts on 4 examples of dev"):
            search(task, tiny_lm(), Draw(), 40 * N)


class TestPrior:
    @pytest.mark.parametrize("calibration", ["batch", "contextual"])
    def test_candidates_keep_what_is_taken_out_of_their_scores(self, calibration: Any) -> None:
        task, lm = class_task(calibration=calibration), tiny_lm()
        memo = Remembered()
        found = search(task, lm, Draw(size=4), 60 * len(task.splits.train), memo=memo)
        assert len({tuple((one.prior or {}).values()) for one in found.candidates}) > 1
        for one in found.candidates:
            nats = task.class_prior(lm, one.prompt)
            assert nats is not None
            assert one.prior == {name: np.exp(value) for name, value in nats.items()}
            assert sum(one.prior.values()) == pytest.approx(1)
        assert Result.from_json(found.to_json()) == found
        again = search(task, lm, Draw(size=4), 60 * len(task.splits.train), memo=memo)
        assert again.candidates == found.candidates

    def test_where_nothing_is_taken_out_there_is_none(self) -> None:
        task = class_task(calibration="none")
        found = search(task, tiny_lm(), Draw(size=4), 60 * len(task.splits.train))
        assert [one.prior for one in found.candidates] == [None] * len(found.candidates)


class TestReport:
    def test_it_comes_from_the_ledger(self) -> None:
        task = FakeTask()
        result = search(task, tiny_lm(), Draw(size=3), 10 * N + 2, seed=5, length=2)
        scored = [prompt for asked, _ in task.calls[:4] for prompt in asked]
        assert result.rows == 10 * N
        assert result.budget_rows == 10 * N + 2
        assert result.n_prompts == len(scored) == 10
        assert [rows for rows, _ in result.points] == [N * (i + 1) for i in range(10)]
        assert [r for _, r in result.points] == pytest.approx(list(map(task.mean_reward, scored)))
        assert result.status == "finished"
        assert (result.seed, result.length) == (5, 2)
        assert (result.optimiser, result.settings) == ("Draw", {"size": 3, "batches": 10**6})
        assert (result.task, result.task_fingerprint) == ("fake", "fake")
        assert result.fingerprint == dataclasses.asdict(tiny_lm().fingerprint)
        assert 0 <= result.lm_seconds <= result.total_seconds

    def test_a_range_of_lengths_is_kept_and_its_rows_cost_what_was_scored(self) -> None:
        task = FakeTask()
        result = search(task, tiny_lm(), Draw(size=8), 40 * N, length=Length(4, at_least=2))
        assert result.length == Length(4, at_least=2)
        assert {len(p) for asked, _ in task.calls[:5] for p in asked} == {2, 3, 4}
        assert Result.from_json(result.to_json()) == result
        exact = search(task, tiny_lm(), Draw(size=8), 40 * N, length=Length(3, at_least=3))
        assert exact.length == 3
        assert '"length": 3' in exact.to_json()

    def test_an_optimiser_cannot_claim_what_it_did_not_pay_for(self) -> None:
        @dataclass(frozen=True)
        class Boaster:
            searches: ClassVar[PromptKind] = "tokens"
            best: TokenPrompt = field(default_factory=lambda: TokenPrompt((5, 5)))
            reward: float = 10**6

            def run(self, objective: Objective, space: Any, rng: np.random.Generator) -> None:
                objective.evaluate([TokenPrompt((7,))])

        result = search(FakeTask(), tiny_lm(), Boaster(), 10 * N)
        assert [candidate.prompt for candidate in result.candidates] == [TokenPrompt((7,))]
        assert result.rows == N

    def test_prompts_read_as_text(self) -> None:
        lm = tiny_lm()
        result = search(FakeTask(), lm, Draw(), 10 * N)
        for candidate in result.candidates:
            assert isinstance(candidate.prompt, TokenPrompt)
            assert candidate.text == lm.decode(candidate.prompt.ids)
            assert candidate.retypable == (lm.encode(candidate.text) == candidate.prompt.ids)

    def test_soft_prompts_read_as_their_nearest_tokens_and_say_so(self) -> None:
        result = search(FakeGradientTask(), tiny_lm(), DrawVectors(), 10 * 3 * N)
        assert result.n_prompts == 10
        assert isinstance(result.best.prompt, SoftPrompt)
        assert result.best.text.startswith("<soft> near:")
        assert not result.best.retypable

    def test_settings_that_json_has_not_are_named(self) -> None:
        @dataclass(frozen=True)
        class Odd(Draw):
            limit: float = math.inf
            steps: Any = field(default_factory=lambda: np.int64(3))
            rates: tuple[float, ...] = (0.5, 0.1)
            function: Any = max
            nested: Any = field(default_factory=lambda: {"a": (1, {2: None})})
            own: Any = field(default_factory=object)
            path: Any = Path("x")
            functions: Any = field(default_factory=lambda: {"f": fake_splits})
            part: Any = field(default_factory=lambda: partial(fake_splits, 3))

        result = search(FakeTask(), tiny_lm(), Odd(), 10 * N)
        assert result.settings == {
            "size": 4,
            "batches": 10**6,
            "limit": "inf",
            "steps": 3,
            "rates": [0.5, 0.1],
            "function": "max",
            "nested": {"a": [1, {"2": None}]},
            "own": "builtins:object",
            "path": "x",
            "functions": {"f": f"{fake_splits.__module__}:fake_splits"},
            "part": {
                "partial": f"{fake_splits.__module__}:fake_splits",
                "args": [3],
                "keywords": {},
            },
        }
        assert Result.from_json(result.to_json()) == result

    def test_numbers_of_numpy_are_numbers(self) -> None:
        rows: Any = np.int64(10 * N)
        seed: Any = np.int64(7)
        result = search(FakeTask(), tiny_lm(), Draw(), rows, seed=seed, length=rows // rows)
        assert json.loads(result.to_json())["budget_rows"] == 10 * N
        assert Result.from_json(result.to_json()) == result

    def test_the_space_is_what_was_asked_for(self) -> None:
        spaces = []

        def work(objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
            spaces.append(space)

        lm = tiny_lm()
        search(FakeTask(), lm, Do(work), N, length=7, banned=["good", 100])
        words = [lm.decode([i]).strip() for i in spaces[0].allowed.tolist()]
        assert spaces[0].length == 7
        assert "good" not in words
        assert "bad" in words
        assert 100 not in spaces[0].allowed

    def test_progress_is_told(self) -> None:
        seen: list[int] = []
        search(
            FakeTask(),
            tiny_lm(),
            Draw(),
            10 * N,
            on_progress=lambda ledger: seen.append(ledger.used),
        )
        assert seen == [4 * N, 8 * N, 10 * N]


STEPS = 100


@dataclass(frozen=True)
class Straight:
    """Goes from zero one step at a time, one step a prompt, as a gradient might."""

    searches: ClassVar[PromptKind] = "soft"

    def run(self, objective: Objective, space: SoftSpace, rng: np.random.Generator) -> None:
        for step in range(1, STEPS + 1):
            objective.evaluate([SoftPrompt(np.full_like(space.start, float(step)))])


@dataclass
class Overfitted(FakeTask):
    """Train wants ever more steps, dev and test 40 of them."""

    best: int = 40

    def worth(self, prompt: Prompt, example: Example) -> float:
        if not isinstance(prompt, SoftPrompt):  # the nearest tokens of what was picked
            return -1e3
        step, held_out = float(prompt.vectors[0, 0]), "train" not in example.fields["text"]
        return -abs(step - self.best) if held_out else step


class TestPath:
    def run(self, **selection: Any) -> Result:
        made = Selection(**selection)
        return search(Overfitted(), tiny_lm(), Straight(), STEPS * N, selection=made)

    def test_dev_finds_the_middle_of_a_path_whose_end_is_overfitted(self) -> None:
        end, along = (self.run(along_path=path) for path in (False, True))
        # The best 16 on train are the last steps. Leaders at 8 marks are 11 steps apart, and the
        # six places that are left lie between them.
        assert (end.best.train_reward, along.best.train_reward) == (85, 39)
        assert [one.test.reward for one in (end.best, along.best) if one.test] == [-45, -1]
        assert len(along.candidates) == len(end.candidates) == 16
        steps = sorted(one.train_reward for one in along.candidates)
        assert set(steps) >= {11, 22, 33, 44, 55, 66, 77, 88, 100}

    def test_early_stopping_ends_some_marks_after_the_best_on_dev(self) -> None:
        whole, stopped = self.run(), self.run(dev_patience=2)
        # Marks at 10, 20, 30 and 40 steps are better each time, those at 50 and 60 are not.
        assert stopped.rows == 60 * N < whole.rows == STEPS * N
        assert stopped.status == "finished"
        assert stopped.outside_rows["early stopping"] == 6 * 4
        assert next(iter(stopped.outside_rows)) == "early stopping"
        assert "early stopping" not in whole.outside_rows
        assert stopped.best.test is not None

    def test_early_stopping_goes_by_what_prompts_are_picked_by(self) -> None:
        @dataclass
        class Picky(Overfitted):
            """Its reward on dev falls all along, and its metric has the middle for its best."""

            select_by: str = "metric"

            def measure(
                self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
            ) -> Measured:
                metrics = self.rewards(lm, prompts, examples)
                first = self.splits.train[0]
                rewards = [[-self.worth(prompt, first)] * len(examples) for prompt in prompts]
                return Measured(np.array(rewards), metrics)

        made = Selection(dev_patience=2)
        found = search(Picky(), tiny_lm(), Straight(), STEPS * N, selection=made)
        assert found.rows == 60 * N

    def test_a_leader_that_stays_is_scored_once_and_is_no_better(self) -> None:
        task = FakeTask(change=lambda rewards: rewards * 0)
        made = Selection(dev_patience=3)
        found = search(task, tiny_lm(), Draw(size=1), 100 * N, selection=made)
        assert found.rows == 40 * N  # the first mark's is the best, and then three
        assert found.outside_rows["early stopping"] == 4

    def test_a_search_that_was_stopped_early_is_found_again(self) -> None:
        task, memo, made = Overfitted(), Remembered(), Selection(dev_patience=2)
        first = search(task, tiny_lm(), Straight(), STEPS * N, selection=made, memo=memo)
        n_calls = len(task.calls)
        again = search(task, tiny_lm(), Straight(), STEPS * N, selection=made, memo=memo)
        assert same(first, again)
        assert len(task.calls) == n_calls


class TestEnd:
    def test_an_optimiser_may_return_early(self) -> None:
        result = search(FakeTask(), tiny_lm(), Draw(batches=2), 100 * N)
        assert result.status == "finished"
        assert result.rows == 8 * N
        assert result.best.test is not None

    def test_prompts_scored_as_the_budget_ends_count(self) -> None:
        task = FakeTask()
        result = search(task, tiny_lm(), Draw(size=50), 10 * N)
        assert result.n_prompts == 10
        assert result.best.train_reward in [reward for _, reward in result.points]

    @pytest.mark.parametrize("batches", [0, 1])
    def test_nothing_scored_is_no_error(self, batches: int) -> None:
        task = FakeTask()
        result = search(task, tiny_lm(), Draw(size=0, batches=batches), 10 * N)
        assert result.candidates == ()
        assert result.status == "finished"
        assert task.calls == []  # dev and test stay closed
        assert math.isnan(result.mean_reward)
        with pytest.raises(ValueError, match="nothing was scored"):
            _ = result.best
        assert Result.from_json(result.to_json()) == result

    def test_an_error_of_the_optimiser_is_an_error(self) -> None:
        def work(objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
            objective.evaluate([space.sample(rng)])
            raise ZeroDivisionError("a bug")

        failed: list[Result] = []
        with pytest.raises(ZeroDivisionError, match="a bug"):
            search(FakeTask(), tiny_lm(), Do(work), 10 * N, on_failure=failed.append)
        assert [(result.status, result.n_prompts) for result in failed] == [("failed", 1)]
        assert failed[0].best.test is None

    def test_a_task_that_runs_out_of_something_does_not_end_a_search_in_silence(self) -> None:
        answers: Iterator[Floats] = iter([np.zeros((4, N))] * 2)
        task = FakeTask(change=lambda rewards: next(answers))
        with pytest.raises(StopIteration):
            search(task, tiny_lm(), Draw(), 100 * N)

    def test_a_broken_reward_is_an_error(self) -> None:
        task = FakeTask(change=lambda rewards: rewards * math.nan)
        with pytest.raises(ValueError, match="must be a finite number"):
            search(task, tiny_lm(), Draw(), 10 * N)

    def test_a_budget_below_one_prompt_is_refused_before_anything(self) -> None:
        task = FakeTask()
        with pytest.raises(ValueError, match="does not cover one prompt"):
            search(task, tiny_lm(), Draw(), Budget(N - 1))
        assert task.calls == []

    @pytest.mark.parametrize("length", [0, -1])
    def test_a_prompt_has_a_token_at_least(self, length: int) -> None:
        with pytest.raises(ValueError, match=f"one token or more, got length {length}"):
            search(FakeTask(), tiny_lm(), Draw(), 10 * N, length=length)

    def test_an_optimiser_may_catch_the_end_of_the_budget(self) -> None:
        caught: list[Evaluation] = []

        def work(objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
            try:
                objective.evaluate([space.sample(rng) for _ in range(5)])
            except BudgetExhausted as stop:
                caught.append(stop.evaluation)

        result = search(FakeTask(), tiny_lm(), Do(work), 4 * N)
        assert result.n_prompts == len(caught[0].prompts) == 4


class TestInterrupt:
    def interrupt_at(self, call: int) -> FakeTask:
        def before(number: int) -> None:
            if number == call:
                raise KeyboardInterrupt

        return FakeTask(before=before)

    def test_what_was_found_is_handed_over_without_dev_and_test(self) -> None:
        task = self.interrupt_at(3)
        result = search(task, tiny_lm(), Draw(), 100 * N)
        assert result.status == "interrupted"
        assert result.n_prompts == 8
        assert result.rows == 12 * N  # the third batch was charged
        assert result.best.train_reward == max(reward for _, reward in result.points)
        assert (result.best.train, result.best.dev, result.best.test) == (None, None, None)
        assert set(task.splits_seen()) == {"train"}
        assert Result.from_json(result.to_json()) == result

    def test_within_a_batch_the_chunks_before_are_kept(self) -> None:
        result = search(self.interrupt_at(2), tiny_lm(), Draw(size=3 * CHUNK), 1000 * N)
        assert result.n_prompts == CHUNK

    def test_before_the_first_reward_there_is_nothing(self) -> None:
        result = search(self.interrupt_at(1), tiny_lm(), Draw(), 100 * N)
        assert (result.status, result.candidates) == ("interrupted", ())

    @pytest.mark.parametrize("call", [4, 5, 6, 7, 8])  # after three of the search
    def test_the_selection_may_be_interrupted_too(self, call: int) -> None:
        task = self.interrupt_at(call)
        result = search(task, tiny_lm(), Draw(), 12 * N)
        assert task.splits_seen()[-1] == ["dev", "dev", "dev", "train", "test"][call - 4]
        assert result.status == "interrupted"
        assert result.n_prompts == 12
        assert (result.best.dev, result.best.test) == (None, None)

    def test_a_callback_may_interrupt(self) -> None:
        def stop(ledger: Ledger) -> None:
            if ledger.n_prompts == 8:
                raise KeyboardInterrupt

        result = search(FakeTask(), tiny_lm(), Draw(), 100 * N, on_progress=stop)
        assert (result.status, result.n_prompts) == ("interrupted", 8)


class TestSeed:
    @pytest.mark.parametrize(
        ("task", "optimiser"), [(FakeTask, Draw()), (FakeGradientTask, DrawVectors())]
    )
    def test_the_same_seed_gives_the_same_result(
        self, task: Callable[[], FakeTask], optimiser: Optimiser[Any]
    ) -> None:
        first, again, other = (
            search(task(), tiny_lm(), optimiser, 30 * N, seed=seed) for seed in (3, 3, 4)
        )
        assert same(first, again)
        assert not same(first, other)

    def test_on_other_examples_the_same_seed_is_another_draw(self) -> None:
        """Scores of several draws are taken as independent, their searches' luck included."""
        starts = []

        @dataclass(frozen=True)
        class Look:
            searches: ClassVar[PromptKind] = "soft"

            def run(self, objective: Objective, space: SoftSpace, rng: np.random.Generator) -> None:
                starts.append((space.start.tolist(), rng.random()))

        task = FakeTask()
        fewer = replace(task.splits, train=task.splits.train[:-1])
        unseen = replace(task.splits, test=task.splits.test[:-1])
        for splits in (task.splits, unseen, fewer):
            task.splits = splits
            search(task, tiny_lm(), Look(), 9 * N)
        assert starts[0] == starts[1]
        assert starts[0][0] != starts[2][0]
        assert starts[0][1] != starts[2][1]

    def test_global_random_states_neither_matter_nor_change(self) -> None:
        np.random.seed(1)
        first = search(FakeTask(), tiny_lm(), Draw(), 30 * N)
        np.random.seed(2)
        state = np.random.get_state(legacy=False)["state"]["key"].copy()
        assert same(search(FakeTask(), tiny_lm(), Draw(), 30 * N), first)
        assert np.array_equal(state, np.random.get_state(legacy=False)["state"]["key"])

    def test_an_optimiser_that_draws_more_gets_the_same_space(self) -> None:
        starts = []

        @dataclass(frozen=True)
        class Look:
            draws: int
            searches: ClassVar[PromptKind] = "soft"

            def run(self, objective: Objective, space: SoftSpace, rng: np.random.Generator) -> None:
                rng.standard_normal(self.draws)
                starts.append(space.start)

        for draws in (0, 100):
            search(FakeTask(), tiny_lm(), Look(draws), N)
        assert np.array_equal(starts[0], starts[1])


def test_the_weights_are_the_same_before_and_after() -> None:
    lm = tiny_lm("llama", seed=11)
    before = lm.hash_weights()
    splits = fake_splits()
    words = {"a": "bad", "b": "good"}
    task = ClassificationTask("film", splits, Template("{text} {prompt}"), words)
    search(task, lm, Draw(), 20 * N)
    search(task, lm, DrawVectors(), 20 * N)
    assert lm.hash_weights() == before
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())
    assert all(parameter.grad is None for parameter in lm.model.parameters())


def test_an_ask_tell_optimiser_is_told_the_answer_to_what_it_asked() -> None:
    told: list[Evaluation] = []
    asked: list[Sequence[Prompt]] = []
    affordable = []

    @dataclass(frozen=True)
    class Listen(AskTell[TokenSpace]):
        searches: ClassVar[PromptKind] = "tokens"

        def ask(self, space: TokenSpace, n_prompts: int, rng: np.random.Generator) -> Proposals:
            affordable.append(n_prompts)
            for size in (1, 3, 2):
                asked.append([space.sample(rng) for _ in range(size)])
                told.append((yield asked[-1]))

    task = FakeTask()
    search(task, tiny_lm(), Listen(), 20 * N + 1)
    assert affordable == [20]
    assert [list(evaluation.prompts) for evaluation in told] == asked
    for evaluation in told:
        assert evaluation.rewards == pytest.approx(
            [task.mean_reward(p) for p in evaluation.prompts]
        )
