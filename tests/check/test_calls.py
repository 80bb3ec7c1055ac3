"""What a task answers is taken, or refused with the reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from broken_tasks import SPLITS, ChangesExamples, GoodTask, RaisesOnOne, SortsPrompts
from tiny import tiny_lm

from rlprompt.check.calls import CheckedTask, as_rewards, wrong_type
from rlprompt.check.report import Stop
from rlprompt.prompt import TokenPrompt

PROMPTS = [TokenPrompt((i,)) for i in (3, 2, 1)]


def test_numbers_of_any_kind_become_float64() -> None:
    for answer in ([[1, 2]], np.array([[1, 2]], np.float32), torch.tensor([[1.0, 2.0]]).bfloat16()):
        found = as_rewards(answer, PROMPTS[:1], SPLITS.train[:2])
        assert found.dtype == np.float64
        assert found.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("answer", "name", "words"),
    [
        (np.zeros((2, 3)), "shape", "expected (3, 2), a row a prompt. These are transposed"),
        (np.zeros(3), "shape", "rewards of shape (3,)"),
        (np.array([[0, 1], [2, np.nan], [3, 4.0]]), "finite", "1 of 6 rewards are no finite"),
        (np.zeros((3, 2), np.float16), "dtype", "prompts tie that differ"),
        ([["a"]], "dtype", "expected real numbers"),
    ],
)
def test_what_is_no_rewards_stops_the_check(answer: Any, name: str, words: str) -> None:
    with pytest.raises(Stop) as stop:
        as_rewards(answer, PROMPTS, SPLITS.train[:2])
    assert stop.value.finding.name == name
    assert words in stop.value.finding.text


def test_a_tensor_with_a_gradient_is_no_answer() -> None:
    assert "carries a gradient" in wrong_type(torch.zeros(2, requires_grad=True))
    assert wrong_type(np.zeros(2)) == ""


def test_an_error_is_told_with_its_row_and_traceback() -> None:
    task = CheckedTask(RaisesOnOne(), tiny_lm())
    with pytest.raises(Stop) as stop:
        task(PROMPTS, SPLITS.test)
    finding = stop.value.finding
    assert "KeyError" in finding.text
    assert "test.csv:5" in finding.text
    assert 'raise KeyError("answer")' in finding.detail


def test_what_a_task_does_to_its_inputs_is_noted() -> None:
    good, sorts = CheckedTask(GoodTask(), tiny_lm()), CheckedTask(SortsPrompts(), tiny_lm())
    for task in (good, sorts):
        task(PROMPTS, SPLITS.dev)
    assert (good.changed, sorts.changed) == (set(), {"prompts"})
    cleans = CheckedTask(ChangesExamples(), tiny_lm())
    cleans(PROMPTS, ChangesExamples.splits.dev)
    assert cleans.changed == {"examples"}


def test_rounding_grows_with_the_rewards() -> None:
    task = CheckedTask(GoodTask(), tiny_lm())
    rewards = np.array([[1.0, 2.0], [3.0, 5.0]])
    assert 0 < task.rounding(rewards) < task.tolerance(rewards)
    assert task.tolerance(1000 * rewards) == pytest.approx(1000 * task.tolerance(rewards))
