"""A task that keeps every promise, and tasks that break one each.

Rewards are numbers made from the content of prompt and example. Each fault is what people write:
a mean over the batch, a counter, a cache with the wrong key.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
from fakes import number
from numpy.typing import NDArray

from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt
from rlprompt.tasks.base import Measured, Task
from rlprompt.types import Floats


def split(name: str, n: int) -> tuple[Example, ...]:
    return tuple(
        Example({"text": f"{name} {i}"}, "ab"[i % 2], f"{name}.csv:{i + 2}") for i in range(n)
    )


SPLITS = Splits(split("train", 12), split("dev", 4), split("test", 5))


@dataclass(frozen=True)
class GoodTask(Task):
    """Keeps every promise; the base of those that do not."""

    splits: Splits = SPLITS
    name: str = "good"

    @property
    def fingerprint(self) -> str:
        return hashlib.blake2b(self.splits.digest.encode(), digest_size=8).hexdigest()

    def worth(self, prompt: Prompt, example: Example) -> float:
        if isinstance(prompt, SoftPrompt):
            return -float(np.square(prompt.vectors - number(example.content)).sum())
        return number(prompt.digest) * (1 + 0.2 * number(example.content))

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        rewards = [[self.worth(prompt, example) for example in examples] for prompt in prompts]
        return np.array(rewards).reshape(len(prompts), len(examples))

    def rewards_with_grad(
        self, lm: FrozenLM, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, NDArray[np.float32]]:
        target = np.mean([number(example.content) for example in examples])
        gradients = np.array([-2 * (prompt.vectors - target) for prompt in prompts])
        return self.rewards(lm, prompts, examples), gradients.astype(np.float32)


@dataclass(frozen=True)
class Changed(GoodTask):
    """Makes something else of good rewards."""

    def change(
        self, rewards: Floats, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Any:
        raise NotImplementedError

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        found: Floats = self.change(super().rewards(lm, prompts, examples), prompts, examples)
        return found


def changed(name: str, change: Any) -> GoodTask:
    """A task whose rewards go through `change(rewards, prompts, examples)`."""
    made = type(name, (Changed,), {"change": staticmethod(change)})
    return cast(GoodTask, made(name=name))


class Counter(GoodTask):
    """Drifts with every call."""

    calls = itertools.count()

    def rewards(self, *args: Any) -> Floats:
        drifted: Floats = super().rewards(*args) + 0.01 * next(self.calls)
        return drifted


@dataclass(frozen=True)
class Remembers(GoodTask):
    """A bonus for every prompt that it has seen."""

    seen: set[str] = field(default_factory=set)

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        self.seen.update(prompt.digest for prompt in prompts)
        rewards: Floats = super().rewards(lm, prompts, examples) + 0.1 * len(self.seen)
        return rewards


class DrawsFromGlobal(GoodTask):
    """A little noise from numpy's global generator."""

    def rewards(self, *args: Any) -> Floats:
        rewards = super().rewards(*args)
        noisy: Floats = rewards + 0.1 * np.random.rand(*rewards.shape)
        return noisy


class OwnGenerator(GoodTask):
    """The same from a generator of its own."""

    rng = np.random.default_rng(0)

    def rewards(self, *args: Any) -> Floats:
        rewards = super().rewards(*args)
        noisy: Floats = rewards + 0.1 * self.rng.random(rewards.shape)
        return noisy


class SeedsGlobal(GoodTask):
    """Makes itself repeatable at the cost of everyone else."""

    def rewards(self, *args: Any) -> Floats:
        torch.manual_seed(0)
        return super().rewards(*args)


class Slow(GoodTask):
    """Asks a service about each row, which would take ten seconds."""

    waited: ClassVar[float] = 0.0

    def worth(self, prompt: Prompt, example: Example) -> float:
        Slow.waited += 10.0
        return super().worth(prompt, example)

    @classmethod
    def clock(cls) -> float:
        """A stopwatch that believes in the service."""
        return time.perf_counter() + cls.waited


class RaisesOnOne(GoodTask):
    """Cannot read one example of test."""

    def worth(self, prompt: Prompt, example: Example) -> float:
        if example.fields["text"] == "test 3":
            raise KeyError("answer")
        return super().worth(prompt, example)


class RaisesTogether(GoodTask):
    """Cannot score prompts together."""

    def rewards(self, lm: FrozenLM, prompts: Any, examples: Any) -> Floats:
        if len(prompts) > 2:
            raise RuntimeError("batch too large")
        return super().rewards(lm, prompts, examples)


class ChangesExamples(GoodTask):
    """Cleans the texts where they lie."""

    splits = Splits(split("train", 12), split("dev", 4), split("test", 5))

    def rewards(self, lm: FrozenLM, prompts: Any, examples: Any) -> Floats:
        rewards = super().rewards(lm, prompts, examples)
        for example in examples:
            example.fields["length"] = str(len(example.fields["text"]))
        return rewards


class SortsPrompts(GoodTask):
    """Sorts the caller's list."""

    def rewards(self, lm: FrozenLM, prompts: Any, examples: Any) -> Floats:
        rewards = super().rewards(lm, prompts, examples)
        prompts.sort(key=lambda prompt: prompt.digest)
        return rewards


class Trains(GoodTask):
    """Changes a weight of the model."""

    def rewards(self, lm: FrozenLM, prompts: Any, examples: Any) -> Floats:
        with torch.no_grad():
            next(lm.model.parameters()).mul_(1.001)
        return super().rewards(lm, prompts, examples)


class SwitchesMode(GoodTask):
    """Leaves the model in training mode."""

    def rewards(self, lm: FrozenLM, prompts: Any, examples: Any) -> Floats:
        lm.model.train()
        return super().rewards(lm, prompts, examples)


class UnstableFingerprint(GoodTask):
    """Hashes its address."""

    @property
    def fingerprint(self) -> str:
        return str(id(self))


class TimedFingerprint(GoodTask):
    """Hashes the time."""

    @property
    def fingerprint(self) -> str:
        return str(time.perf_counter_ns())


class FixedFingerprint(GoodTask):
    """Ignores the examples."""

    @property
    def fingerprint(self) -> str:
        return "v1"


@dataclass(frozen=True)
class WrongGradient(GoodTask):
    """A gradient that is off by a factor, a sign, or a vector."""

    factor: float = 1.0
    kept: int = 99

    def rewards_with_grad(
        self, lm: FrozenLM, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, NDArray[np.float32]]:
        rewards, gradients = super().rewards_with_grad(lm, prompts, examples)
        gradients[:, self.kept :] = 0
        return rewards, np.float32(self.factor) * gradients


class OtherRewards(GoodTask):
    """Rewards of its own, but where the gradient is that of the cross-entropy."""

    def cross_entropy_with_grad(
        self, lm: FrozenLM, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, NDArray[np.float32]]:
        rewards, gradients = self.rewards_with_grad(lm, prompts, examples)
        return rewards + 50, gradients


class TransposedGradient(GoodTask):
    def rewards_with_grad(
        self, lm: FrozenLM, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, NDArray[np.float32]]:
        rewards, gradients = super().rewards_with_grad(lm, prompts, examples)
        return rewards, gradients.swapaxes(1, 2)


@dataclass(frozen=True)
class Measures(GoodTask):
    """Reports a metric, and other rewards with it."""

    metric: ClassVar[str] = "length"
    off: float = 0.0
    axis: int = 0

    def measure(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Measured:
        rewards = self.rewards(lm, prompts, examples)
        return Measured(rewards + self.off, rewards[self.axis :])


@dataclass(frozen=True)
class Writes(GoodTask):
    """Says what the model wrote, for all examples but the last."""

    off: float = 0.0
    lost: int = 0

    def rewards_with_outputs(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> tuple[Floats, tuple[tuple[str, ...], ...]]:
        texts = tuple(("text",) * (len(examples) - self.lost) for _ in prompts)
        return self.rewards(lm, prompts, examples) + self.off, texts


class LooksItUp(GoodTask):
    """A fingerprint that cannot be had."""

    @property
    def fingerprint(self) -> str:
        raise OSError("no such file")


class Loose(NamedTuple):
    """Splits that do not look for leaks."""

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    digest: str = "loose"

    def parts(self) -> Mapping[str, tuple[Example, ...]]:
        return {"train": self.train, "dev": self.dev, "test": self.test}


LEAKING = cast(Splits, Loose(SPLITS.train, SPLITS.dev, (*SPLITS.test, SPLITS.train[3])))


class Nameless:
    """Has rewards and nothing else."""

    def rewards(self, lm: FrozenLM, prompts: Any, examples: Any) -> Floats:
        return np.zeros((len(prompts), len(examples)))


def with_value(value: float) -> Any:
    """Puts a value in the place of one reward."""

    def change(rewards: Floats, prompts: Any, examples: Any) -> Floats:
        rewards[0, -1] = value
        return rewards

    return change


def hashed(prompts: Sequence[Prompt], examples: Sequence[Example]) -> Floats:
    """A number in [0, 1) for each row, nothing of which is the prompt's own."""
    return np.array([[number(p.digest + e.content) for e in examples] for p in prompts])


class Fault(NamedTuple):
    """A broken task, the finding that must name it, and words that must be in it."""

    name: str
    task: Any
    finding: str
    words: str


def fault(name: str, finding: str, words: str, change: Any) -> Fault:
    return Fault(name, changed(name, change), finding, words)


FAULTS = [
    Fault("fingerprint raises", LooksItUp(), "raises", "OSError: no such file (for `fingerprint`)"),
    Fault("no members", Nameless(), "protocol", "`fingerprint` is not there"),
    Fault("a class", GoodTask, "protocol", "this is a class"),
    Fault("leak", GoodTask(LEAKING), "splits", "train leaks into test"),
    fault("wrong shape", "shape", "expected (4, 3)", lambda r, p, e: r.mean(axis=1)),
    fault("transposed", "shape", "These are transposed", lambda r, p, e: r.T),
    fault("squeezed", "shape", "for 1 prompts and 1", lambda r, p, e: r.squeeze()),
    fault("float16", "dtype", "three digits", lambda r, p, e: r.astype(np.float16)),
    fault("text", "dtype", "<U", lambda r, p, e: r.astype(str)),
    fault("complex", "dtype", "complex128", lambda r, p, e: r.astype(complex)),
    fault("objects", "dtype", "object", lambda r, p, e: r.astype(object)),
    fault("nothing", "dtype", "object", lambda r, p, e: None),
    fault(
        "carries a gradient",
        "dtype",
        "detach()",
        lambda r, p, e: torch.tensor(r, requires_grad=True),
    ),
    fault("float32", "dtype", "ndarray of float32", lambda r, p, e: r.astype(np.float32)),
    fault("not a number", "finite", "train.csv:13", with_value(np.nan)),
    fault("infinite", "finite", "-inf", with_value(-np.inf)),
    Fault("counter", Counter(), "deterministic", "the same call gave"),
    Fault("own generator", OwnGenerator(), "deterministic", "the same call gave"),
    Fault("global generator", DrawsFromGlobal(), "random-state", "numpy.random"),
    Fault("global generator", DrawsFromGlobal(), "deterministic", "the same call gave"),
    Fault("seeds", SeedsGlobal(), "random-state", "torch"),
    fault(
        "place in the batch",
        "prompt-order",
        "reversed",
        lambda r, p, e: r + 0.1 * np.arange(len(p))[:, None],
    ),
    fault(
        "place among examples",
        "example-order",
        "reversed",
        lambda r, p, e: r + 0.1 * np.arange(len(e)),
    ),
    fault(
        "batch normalisation",
        "batch-size",
        "asked for alone",
        lambda r, p, e: (r - r.mean()) / (r.std() + 1e-9),
    ),
    fault(
        "first of equals",
        "repeats",
        "asked for twice",
        lambda r, p, e: r * (len(set(p)) / len(p)),
    ),
    Fault("remembers", Remembers(), "stateless", "after a call about other prompts"),
    Fault("remembers", Remembers(), "attributes", "seen"),
    fault("constant", "constant", "a search has nothing to go by", lambda r, p, e: 0 * r + 0.5),
    fault(
        "saturated",
        "saturated",
        "next to nothing to gain",
        lambda r, p, e: (hashed(p, e) > 0.03).astype(float),
    ),
    fault("coarse", "ties", "share the best", lambda r, p, e: (r > 0.4).astype(float)),
    fault("all noise", "signal", "more examples", lambda r, p, e: hashed(p, e)),
    Fault("slow", Slow(), "cost", "times a forward pass"),
    Fault("raises on one", RaisesOnOne(), "raises", "KeyError: 'answer' (for TokenPrompt"),
    Fault("raises on one", RaisesOnOne(), "raises", "test.csv:5"),
    Fault("raises together", RaisesTogether(), "raises", "for none alone"),
    Fault("changes examples", ChangesExamples(), "inputs-unchanged", "examples"),
    Fault("sorts prompts", SortsPrompts(), "inputs-unchanged", "prompts"),
    Fault("trains", Trains(), "model-unchanged", "weights"),
    Fault("training mode", SwitchesMode(), "model-unchanged", "training mode"),
    Fault("address as fingerprint", UnstableFingerprint(), "fingerprint-stable", "addresses"),
    Fault("time as fingerprint", TimedFingerprint(), "fingerprint-stable", "each look"),
    Fault("fingerprint of nothing", FixedFingerprint(), "fingerprint-examples", "splits.digest"),
    Fault("other rewards with a metric", Measures(off=1.0), "metric", "gives other rewards"),
    Fault("metric for some prompts", Measures(axis=1), "metric", "shape (3, 3)"),
    Fault("other rewards with texts", Writes(off=1.0), "outputs", "gives other rewards"),
    Fault("texts for some examples", Writes(lost=1), "outputs", "a text for each"),
    Fault("sum for mean", WrongGradient(factor=3.0), "gradient", "mean reward"),
    Fault("sign", WrongGradient(factor=-1.0), "gradient", "of the slope"),
    Fault("half a gradient", WrongGradient(kept=2), "gradient", "of the slope"),
    Fault("transposed gradient", TransposedGradient(), "gradient", "expected finite"),
]
