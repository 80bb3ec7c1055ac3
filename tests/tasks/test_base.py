"""An object of a user's own class is a task wherever tasks come in."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from fakes import fake_splits
from tiny import tiny_lm

from rlprompt import Budget, search
from rlprompt.agents.random_search import RandomSearch
from rlprompt.check.task import check_task
from rlprompt.config.registry import checked_task
from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.search.evaluation import Evaluator, evaluate
from rlprompt.search.objective import Objective
from rlprompt.studies.experiment import Experiment
from rlprompt.tasks.base import Measured, Task, prompt_rows
from rlprompt.tasks.completed import as_task
from rlprompt.tasks.compression import CompressionTask
from rlprompt.types import Floats, Outputs


class Plain:
    """What a task needs, and nothing else."""

    name = "plain"
    fingerprint = "plain 1"

    def __init__(self) -> None:
        self.splits: Splits = fake_splits()

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        return np.array([[float(len(prompt))] * len(examples) for prompt in prompts])


class Rich(Plain):
    """All that a task may have besides."""

    metric = "length"
    hand_prompt = "It was"
    extra_rows = 2
    template = "no template"

    def measure(self, *asked: Any) -> tuple[Floats, Floats]:
        rewards = self.rewards(*asked)
        return rewards, 10 * rewards

    def written(self, lm: FrozenLM, text: str) -> TokenPrompt:
        return TokenPrompt(lm.encode(text.upper()))

    def tokens(self, lm: FrozenLM) -> Sequence[int]:
        return range(40, 60)

    def shortened(self, lm: FrozenLM, prompt: Prompt) -> Prompt:
        assert isinstance(prompt, TokenPrompt)
        return TokenPrompt(prompt.ids[:1])

    def lengths(self, lm: FrozenLM, examples: Sequence[Example]) -> list[tuple[int, int]]:
        return [(3, 1)] * len(examples)

    def rewards_with_grad(
        self, lm: FrozenLM, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, np.ndarray[Any, np.dtype[np.float32]]]:
        return self.rewards(lm, prompts, examples), np.array([0 * p.vectors for p in prompts])


class Writes(Plain):
    """Says what the model wrote."""

    def rewards_with_outputs(self, *asked: Any) -> tuple[Floats, Outputs]:
        _, prompts, examples = asked
        return self.rewards(*asked), (("so",) * len(examples),) * len(prompts)


class Halves(Plain):
    """A metric without `measure` and a hand prompt without `written`: neither counts."""

    metric = "length"
    hand_prompt = "It was"


PROMPTS = [TokenPrompt((41, 42))]


def some(task: Any) -> Task:
    return as_task(task)


def test_a_task_is_left_as_it_is_and_completing_twice_changes_nothing() -> None:
    class Own(Plain, Task):
        pass

    own, completed = Own(), as_task(Plain())
    assert as_task(own) is own
    assert as_task(completed) is completed


def test_what_is_lacking_has_the_defaults() -> None:
    lm, task = tiny_lm(), some(Plain())
    assert isinstance(task, Task)
    assert (task.name, task.fingerprint, task.metric) == ("plain", "plain 1", "reward")
    assert (task.hand_prompt, task.extra_rows, task.tokens_only) == ("", 0, False)
    assert (task.tokens(lm), task.lengths(lm, task.splits.dev)) == (None, None)
    assert (task.calibrated(), task.demonstrations(), task.usage()) == (None, None, None)
    assert task.shortened(lm, PROMPTS[0]) is PROMPTS[0]
    assert task.measure(lm, PROMPTS, task.splits.dev).metrics.tolist() == [[2.0] * 4]
    for hook in ("written", "measure", "rewards_with_grad", "rewards_with_outputs"):
        assert not task.has(hook)


def test_what_is_there_is_its_own() -> None:
    lm, task = tiny_lm(), some(Rich())
    assert (task.metric, task.hand_prompt, prompt_rows(task)) == ("length", "It was", 5)
    assert task.written(lm, "a") == TokenPrompt(lm.encode("A"))
    assert task.tokens(lm) == range(40, 60)
    assert getattr(task, "template", "") == "no template"
    assert Measured(*task.measure(lm, PROMPTS, task.splits.dev)).metrics.tolist() == [[20.0] * 4]
    for hook in ("written", "measure", "rewards_with_grad", "tokens", "lengths", "shortened"):
        assert task.has(hook)
    assert not task.has("rewards_with_outputs")


def test_what_the_model_wrote_comes_with_a_measurement() -> None:
    task = some(Writes())
    measured = task.measure(tiny_lm(), PROMPTS, task.splits.dev)
    assert measured.answers == (("so",) * 4,)


def test_half_a_pair_does_not_count() -> None:
    task = some(Halves())
    assert (task.metric, task.hand_prompt) == ("reward", "")


def test_it_is_of_the_persons_class_and_can_be_sent_to_another_process() -> None:
    task = some(Rich())
    again = pickle.loads(pickle.dumps(task))
    assert isinstance(again, Task)
    assert isinstance(task, Rich)
    assert isinstance(again, Rich)
    assert again.metric == "length"


@pytest.mark.parametrize("made", [Plain, Rich, Writes, Halves])
def test_every_door_takes_it(made: Any) -> None:
    lm, task = tiny_lm(), made()
    result = search(task, lm, RandomSearch(), Budget(60), length=2)
    assert (result.status, result.task) == ("finished", "plain")
    assert result.best.train is not None
    assert Objective(task, lm, Budget(60)).evaluate(PROMPTS).rewards.tolist() == [2.0]
    factor = 10 if made is Rich else 1
    assert evaluate(task, lm, PROMPTS[0], "dev").metric == 2.0 * factor
    assert Evaluator(task, lm).scores(PROMPTS, "test")[0].metric == 2.0 * factor
    plans = Experiment(
        "own", task, lm, {"random": RandomSearch()}, Budget(60), length=2
    ).control_plans
    assert ("hand-written" in {plan.name for plan in plans}) == (made is Rich)
    assert checked_task(task, "here").metric == ("length" if made is Rich else "reward")
    found = {one.name: one.status for one in check_task(task, lm, length=2).findings}
    assert (found["protocol"], "metric" in found) == ("pass", made is Rich)


def test_a_prompt_can_be_compressed_for_it_if_it_says_how_one_is_written() -> None:
    assert CompressionTask(some(Rich()), "It was", 0.1).metric == "length"
    with pytest.raises(ValueError, match="cannot place a written prompt in its template"):
        CompressionTask(some(Halves()), "It was", 0.1)
