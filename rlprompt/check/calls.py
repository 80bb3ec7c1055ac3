"""Asks a task, and says of a wrong answer what is wrong with it."""

from __future__ import annotations

import itertools
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from rlprompt.check.report import Finding, Stop
from rlprompt.data.examples import Example
from rlprompt.models.lm import FrozenLM
from rlprompt.models.noise import NotFiniteError
from rlprompt.prompt import Prompt, SoftPrompt
from rlprompt.tasks.base import LARGEST, Task, unusable
from rlprompt.tasks.reward_function import RewardError
from rlprompt.types import Floats

T = TypeVar("T")
Error = Exception | None

# Times the usual rounding that a reward may differ by when it is computed in another way. Tiny
# models of every kind, with every reward of a classification, came to 1.7 (float32, 6 seeds).
ALLOWANCE = 10.0
# What float32 loses to rounding whatever the model, relative to the largest reward.
ROUNDING = 1e-7


def where(prompt: Prompt, example: Example) -> str:
    """A prompt and an example in words, short."""
    title = (
        f"{prompt.kind} prompt {prompt.digest[:8]}"
        if isinstance(prompt, SoftPrompt)
        else repr(prompt)
    )
    return f"{title} on {example.source or str(dict(example.fields))[:60]}"


class CheckedTask:
    """Asks a task for rewards and stops the check where they are none.

    Args:
        task: What is asked.
        lm: The model it is asked with.

    Attributes:
        changed: What was not, after a call, what was given to it.
        rows: That the rewards so far have cost.
        seconds: That they took.
    """

    def __init__(self, task: Task, lm: FrozenLM) -> None:
        self.task, self.lm = task, lm
        self.changed: set[str] = set()
        self._noise = lm.own_noise
        self.rows, self.seconds, self._beside = 0, 0.0, 0.0
        self._train = {example.key for example in task.splits.train}

    def rounding(self, rewards: Floats) -> float:
        """What rewards (P, E) usually differ by when they are computed in another way.

        The model's own rounding, as a share of the usual difference between two prompts, times the
        usual difference between these.
        """
        share = self._noise.largest / self._noise.spread if self._noise.spread else 0.0
        first, second = np.triu_indices(len(rewards), 1)
        distances = np.abs(rewards[first] - rewards[second])
        usual = float(distances.mean()) if distances.size else 0.0
        return share * usual + ROUNDING * float(np.abs(rewards).max(initial=0))

    def tolerance(self, rewards: Floats) -> float:
        """What rewards (P, E) may differ by when they are computed in another way."""
        return ALLOWANCE * self.rounding(rewards)

    def __call__(self, prompts: Sequence[Prompt], examples: Sequence[Example]) -> Floats:
        """Rewards (P, E) float64.

        Raises:
            Stop: The task raised an error, or gave something else.
        """
        return as_rewards(self.raw(prompts, examples), prompts, examples)

    def cost(self, examples: Sequence[Example]) -> int:
        """Rows of one prompt on these examples, which are of one split."""
        split = "train" if examples[0].key in self._train else "dev"
        return self.task.split_rows(split, len(examples))

    @property
    def row_seconds(self) -> float:
        """What a row takes: of rewards on average, of other methods of the task the most so far."""
        return max(self.seconds / max(1, self.rows), self._beside)

    def raw(self, prompts: Sequence[Prompt], examples: Sequence[Example]) -> object:
        """Whatever the task says.

        Raises:
            Stop: It raised an error.
        """
        given = list(prompts), list(examples)
        before = [(dict(example.fields), example.label) for example in examples]
        digests = [_content(prompt) for prompt in prompts]
        began = time.perf_counter()
        answer, error = self._try(*given)
        n_rows = len(prompts) * self.cost(examples)
        if error is None:
            self.rows, self.seconds = self.rows + n_rows, self.seconds + time.perf_counter() - began
        if error is not None:
            raise Stop(self._raised(error, prompts, examples))
        if given[0] != list(prompts) or digests != [_content(prompt) for prompt in prompts]:
            self.changed.add("prompts")
        after = [(dict(example.fields), example.label) for example in examples]
        if after != before or [id(e) for e in given[1]] != [id(e) for e in examples]:
            self.changed.add("examples")
        return answer

    def guarded(self, n_rows: int, call: Callable[[Any], T]) -> T:
        """What another method of the task says, which takes so many rows.

        Raises:
            Stop: It raised an error.
        """
        began = time.perf_counter()
        try:
            answer = call(self.task)
        # Any error, as for `_try`.
        except Exception as error:
            raise Stop(raised(error)) from error
        self._beside = max(self._beside, (time.perf_counter() - began) / n_rows)
        return answer

    def _try(self, prompts: list[Prompt], examples: list[Example]) -> tuple[object, Error]:
        """What the task says, and the error that it raised instead."""
        try:
            return self.task.rewards(self.lm, prompts, examples), None
        # Any error: a task may come from anyone. It is reported with its traceback.
        except Exception as error:
            return None, error

    def _raised(
        self, error: Exception, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Finding:
        """Which row an error comes from."""
        row = f"{len(prompts)} prompts and {len(examples)} examples together, for none alone"
        for prompt, example in itertools.product(prompts, examples):
            _, alone = self._try([prompt], [example])
            if alone is not None:
                # The row alone says more than the batch.
                error, row = alone, where(prompt, example)
                break
        return raised(error, f" (for {row})")


def raised(error: Exception, row: str = "") -> Finding:
    """A finding about an error, with the part of its traceback that is not ours."""
    if isinstance(error, NotFiniteError):
        return Finding("finite", "fail", f"{error}{row}")
    if isinstance(error, RewardError):
        # Its message says which row; what a person's function raised is the cause.
        cause = error.__cause__
        if cause is None:
            return Finding("raises", "fail", str(error))
        frames = cause.__traceback__.tb_next if cause.__traceback__ else None
        detail = "".join(traceback.format_exception(type(cause), cause, frames))
        return Finding("raises", "fail", str(error), detail)
    frames = error.__traceback__.tb_next if error.__traceback__ else None
    detail = "".join(traceback.format_exception(type(error), error, frames))
    text = f"it raised {type(error).__name__}: {error}{row}"
    return Finding("raises", "fail", text, detail)


def as_rewards(answer: object, prompts: Sequence[Prompt], examples: Sequence[Example]) -> Floats:
    """An answer as the ledger would keep it.

    Raises:
        Stop: It is no rewards, and why.
    """
    problem = wrong_type(answer)
    if problem:
        raise Stop(Finding("dtype", "fail", problem))
    if isinstance(answer, torch.Tensor):  # numpy has no bfloat16
        answer = answer.double().numpy()
    rewards = np.array(answer, dtype=np.float64)
    shape = (len(prompts), len(examples))
    if rewards.shape != shape:
        text = f"rewards of shape {rewards.shape} for {shape[0]} prompts and {shape[1]} examples; "
        text += f"expected {shape}, a row a prompt"
        if rewards.shape == shape[::-1]:
            text += ". These are transposed"
        raise Stop(Finding("shape", "fail", text))
    broken = np.argwhere(unusable(rewards))
    if len(broken):
        p, e = broken[0]
        text = f"{len(broken)} of {rewards.size} rewards are no finite number of {LARGEST:g} at "
        text += "most, such as "
        text += f"{rewards[p, e]} for {where(prompts[p], examples[e])}"
        raise Stop(Finding("finite", "fail", text))
    return rewards


def wrong_type(answer: object) -> str:
    """Why an answer cannot be kept as float64, or ""."""
    if isinstance(answer, torch.Tensor):
        if answer.requires_grad:
            return "rewards are a tensor that carries a gradient; return detach().cpu().numpy()"
        if answer.device.type != "cpu":
            return f"rewards are a tensor on {answer.device}; return cpu().numpy()"
        answer = answer.float().numpy() if answer.dtype == torch.bfloat16 else answer.numpy()
    try:
        array = np.asarray(answer)
    except ValueError as error:
        return f"rewards are no array: {error}"
    if array.dtype == np.float16:
        return "rewards are float16, which has three digits: prompts tie that differ; use float64"
    if array.dtype.kind not in "fiub":
        return f"rewards are of type {array.dtype}; expected real numbers, float64"
    return ""


def _content(prompt: Prompt) -> bytes:
    """What a prompt holds now; its digest is computed once."""
    return prompt.vectors.tobytes() if isinstance(prompt, SoftPrompt) else repr(prompt).encode()
