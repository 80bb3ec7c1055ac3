"""Tasks whose rewards are computed from the content of prompts and examples, without a model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt
from rlprompt.search.memo import Question, V
from rlprompt.search.result import Result
from rlprompt.tasks.base import Task
from rlprompt.types import Floats


def fake_splits(n_train: int = 3, n_dev: int = 4, n_test: int = 5) -> Splits:
    sizes = {"train": n_train, "dev": n_dev, "test": n_test}
    train, dev, test = (
        tuple(
            Example({"text": f"{name} {i}"}, "ab"[i % 2], f"{name}.csv:{i + 2}") for i in range(n)
        )
        for name, n in sizes.items()
    )
    return Splits(train, dev, test)


def split_of(splits: Splits, examples: Sequence[Example]) -> str:
    """The split that these are all of, or some of."""
    keys = {example.key for example in examples}
    return next(n for n, part in splits.parts().items() if keys <= {one.key for one in part})


def timeless(result: Result) -> Result:
    """A result without what a clock says."""
    return replace(
        result,
        lm_seconds=0.0,
        total_seconds=0.0,
        outside_seconds=0.0,
        trace_seconds=(),
        test_opened="",
    )


def number(content: str) -> float:
    """A number in [0, 1) that depends on nothing but the content."""
    return int(hashlib.blake2b(content.encode(), digest_size=4).hexdigest(), 16) / 2**32


@dataclass
class FakeTask(Task):
    """Rewards in [0, 2) that depend on nothing but the content of prompt and example.

    Attributes:
        splits: The examples.
        before: Called with the number of the call before it is answered; may raise.
        change: What to make of the rewards.
        calls: Prompts and examples of every call, in order.
    """

    splits: Splits = field(default_factory=fake_splits)
    before: Callable[[int], None] = lambda n: None
    change: Callable[[Floats], Any] = lambda rewards: rewards
    name: str = "fake"
    fingerprint: str = "fake"
    calls: list[tuple[tuple[Prompt, ...], tuple[Example, ...]]] = field(default_factory=list)

    def worth(self, prompt: Prompt, example: Example) -> float:
        return number(prompt.digest) * (1 + number(example.content))

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        self.calls.append((tuple(prompts), tuple(examples)))
        self.before(len(self.calls))
        rewards = [[self.worth(prompt, example) for example in examples] for prompt in prompts]
        changed: Floats = self.change(np.array(rewards).reshape(len(prompts), len(examples)))
        return changed

    def mean_reward(self, prompt: Prompt, split: str = "train") -> float:
        """What a prompt earns on a split, computed on the side."""
        examples = self.splits.parts()[split]
        return float(np.mean([self.worth(prompt, example) for example in examples]))

    def splits_seen(self) -> list[str]:
        """The split that each call asked about, or asked about some examples of."""
        return [split_of(self.splits, asked) for _, asked in self.calls]


@dataclass
class FakePricedTask(FakeTask):
    """One whose prompts cost more than one row an example."""

    extra_rows: int = 2


@dataclass
class FakeGradientTask(FakeTask):
    """Minus the squared distance of a soft prompt to a target of each example's own."""

    change_gradient: Callable[[NDArray[np.float32]], Any] = lambda gradients: gradients

    def worth(self, prompt: Prompt, example: Example) -> float:
        assert isinstance(prompt, SoftPrompt)
        return -float(np.square(prompt.vectors - number(example.content)).sum())

    def rewards_with_grad(
        self, lm: FrozenLM, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, NDArray[np.float32]]:
        target = np.mean([number(example.content) for example in examples])
        gradients = np.array([-2 * (prompt.vectors - target) for prompt in prompts])
        changed: NDArray[np.float32] = self.change_gradient(gradients.astype(np.float32))
        return self.rewards(lm, prompts, examples), changed


@dataclass
class FakeTwoGradientsTask(FakeGradientTask):
    """One that offers a cross-entropy, whose slope is 1 everywhere."""

    def cross_entropy_with_grad(
        self, lm: FrozenLM, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, NDArray[np.float32]]:
        rewards, gradients = self.rewards_with_grad(lm, prompts, examples)
        return rewards, np.ones_like(gradients)


class Remembered:
    """A memo in memory."""

    def __init__(self) -> None:
        self.answers: dict[Question[Any], Any] = {}

    def get(self, question: Question[V]) -> V | None:
        answer: V | None = self.answers.get(question)
        return answer

    def put(self, question: Question[V], answer: V) -> V:
        self.answers[question] = answer
        return answer
