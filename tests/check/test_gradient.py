"""Gradients against finite differences of the reward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from broken_tasks import SPLITS, GoodTask, OtherRewards, TransposedGradient, WrongGradient
from tiny import tiny_lm

from rlprompt.check.calls import CheckedTask
from rlprompt.check.gradient import check_gradient
from rlprompt.check.report import Finding
from rlprompt.models.memory import RowTooLargeError
from rlprompt.prompt import SoftPrompt


class GivesNone(GoodTask):
    """Has a reward without a slope."""

    def rewards_with_grad(self, *_: Any) -> Any:
        raise ValueError("an accuracy has no slope")


class TakesTooMuch(GoodTask):
    """No memory holds a pass of it."""

    def rewards_with_grad(self, *_: Any) -> Any:
        raise RowTooLargeError("there is not enough memory")


def gradient(task: GoodTask) -> Finding:
    lm, rng = tiny_lm(), np.random.default_rng(0)
    prompts = [SoftPrompt(0.1 * rng.standard_normal((3, lm.hidden_size))) for _ in range(2)]
    (found,) = check_gradient(task, CheckedTask(task, lm), prompts, SPLITS.train[:3], rng)
    return found


@pytest.mark.parametrize(
    ("task", "status", "words"),
    [
        (GoodTask(), "pass", "agrees with finite differences"),
        (WrongGradient(factor=2.0), "fail", "differs from finite differences by"),
        (WrongGradient(factor=-1.0), "fail", "differs from finite differences by"),
        (WrongGradient(kept=2), "fail", "differs from finite differences by"),
        (TransposedGradient(), "fail", "expected finite numbers of shape (2, 3, "),
        (OtherRewards(), "fail", "`cross_entropy_with_grad` gives other rewards"),
        (GivesNone(), "warn", "it gives none: an accuracy has no slope"),
    ],
)
def test_a_gradient_is_that_of_the_mean_reward(task: GoodTask, status: str, words: str) -> None:
    found = gradient(task)
    assert (found.name, found.status) == ("gradient", status)
    assert words in found.text


def test_memory_that_runs_out_says_nothing_of_the_gradient() -> None:
    with pytest.raises(RowTooLargeError):
        gradient(TakesTooMuch())
