"""Tasks whose rewards need no forward pass of a model, so that searches on them take seconds.

Their answers depend on the model's embedding table alone. `HiddenWords` rewards tokens of a hidden
set, `HiddenVectors` soft prompts near a hidden one, with gradients.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tiny import tiny_lm

from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length, Prompt, SoftPrompt, TextPrompt, TokenPrompt
from rlprompt.search.optimiser import Optimiser
from rlprompt.search.result import Result
from rlprompt.search.run import search
from rlprompt.tasks.base import Task
from rlprompt.types import Floats

N_EXAMPLES = 4


def examples(prefix: str, n: int = N_EXAMPLES) -> tuple[Example, ...]:
    return tuple(Example({"text": f"{prefix} {i}"}, "good") for i in range(n))


SPLITS = Splits(examples("train"), examples("dev"), examples("test"))


@dataclass(frozen=True)
class Synthetic(Task):
    """What the tasks share; a reward that differs a little between examples but not in order.

    Args:
        only: The one split that may be scored, or "" for any.
        flat: Whether every prompt earns the same.
    """

    only: str = ""
    flat: bool = False
    splits: Splits = SPLITS
    name: str = "synthetic"
    fingerprint: str = "synthetic"

    def worth(self, lm: FrozenLM, prompt: Prompt) -> float:
        raise NotImplementedError

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        assert all(self.only in example.fields["text"] for example in examples)
        worths = np.array([0.0 if self.flat else self.worth(lm, prompt) for prompt in prompts])
        own = np.array([int(example.fields["text"].split()[-1]) for example in examples])
        rewards: Floats = worths[:, None] + 0.01 * own
        return rewards


@lru_cache(maxsize=32)
def hidden(lm: FrozenLM, seed: int, share: float) -> NDArray[np.bool_]:
    """Which tokens are on the hidden side, (V,); asked prompt by prompt."""
    side = lm.embeddings() @ normal(lm, seed)
    there: NDArray[np.bool_] = side > np.quantile(side, 1 - share)
    return there


def normal(lm: FrozenLM, seed: int) -> NDArray[np.float64]:
    """Of the plane, (H,)."""
    return np.random.default_rng(seed).standard_normal(lm.hidden_size)


@dataclass(frozen=True)
class HiddenWords(Synthetic):
    """The share of a token prompt's tokens on one side of a plane through the embeddings.

    Args:
        share: Of the vocabulary on that side.
        seed: Decides the plane.
    """

    share: float = 0.1
    seed: int = 0

    def normal(self, lm: FrozenLM) -> NDArray[np.float64]:
        return normal(lm, self.seed)

    def worth(self, lm: FrozenLM, prompt: Prompt) -> float:
        assert isinstance(prompt, TokenPrompt)
        if not len(prompt):
            return 0.0
        return float(hidden(lm, self.seed, self.share)[list(prompt.ids)].mean())


@dataclass(frozen=True)
class SlopedWords(HiddenWords):
    """Hidden words, with a cross-entropy that rises towards their side of the plane."""

    def cross_entropy_with_grad(
        self, lm: FrozenLM, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, NDArray[np.float32]]:
        tokens = [lm.nearest_tokens(prompt) for prompt in prompts]
        slopes = [np.tile(self.normal(lm), (len(p), 1)) / len(p) for p in prompts]
        flat = 0.0 if self.flat else 1.0
        return self.rewards(lm, tokens, examples), np.array(slopes, dtype=np.float32) * flat


@lru_cache(maxsize=32)
def spread(lm: FrozenLM) -> float:
    """Standard deviation of the embeddings."""
    return float(lm.embeddings().std())


@dataclass(frozen=True)
class HiddenVectors(Synthetic):
    """Minus half the mean squared distance, in embedding spreads, to a hidden soft prompt."""

    seed: int = 0

    def offset(self, lm: FrozenLM, prompt: Prompt) -> NDArray[Any]:
        assert isinstance(prompt, SoftPrompt)
        target = np.random.default_rng(self.seed).standard_normal(prompt.vectors.shape)
        offset: NDArray[Any] = target - prompt.vectors / np.float32(self.unit(lm))
        return offset

    def unit(self, lm: FrozenLM) -> float:
        """What the offset is counted in."""
        return spread(lm)

    def worth(self, lm: FrozenLM, prompt: Prompt) -> float:
        return -0.5 * float(np.square(self.offset(lm, prompt)).mean())

    def rewards_with_grad(
        self, lm: FrozenLM, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, NDArray[np.float32]]:
        scale = 0.0 if self.flat else 1 / self.unit(lm)
        gradients = [self.offset(lm, p) / p.vectors.size * scale for p in prompts]
        return self.rewards(lm, prompts, examples), np.array(gradients, dtype=np.float32)


@dataclass(frozen=True)
class HiddenTexts(Synthetic):
    """Texts that show train examples by their digits, worth more or less by which, and where.

    Args:
        n_examples: In each split, 10 at most.
        asked: What it was asked, if that is to be known.
    """

    n_examples: int = N_EXAMPLES
    asked: list[Prompt] | None = None
    splits: Splits = field(init=False)

    def __post_init__(self) -> None:
        train, dev, test = (examples(name, self.n_examples) for name in ("train", "dev", "test"))
        object.__setattr__(self, "splits", Splits(train, dev, test))

    def showable(self) -> Sequence[int]:
        return range(self.n_examples)

    def shown(self, places: Sequence[int], before: str = "") -> str:
        return before + "".join(map(str, places))

    @staticmethod
    def read(prompt: Prompt) -> list[int]:
        assert isinstance(prompt, TextPrompt)
        return [int(i) for i in re.findall(r"\d", prompt.text)]

    def worth(self, lm: FrozenLM, prompt: Prompt) -> float:
        return sum((i * 7 % 5) / (1 + place) for place, i in enumerate(self.read(prompt)))

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        if self.asked is not None:
            self.asked.extend(prompts)
        return super().rewards(lm, prompts, examples)


@dataclass(frozen=True)
class Batches(Synthetic):
    """Passes on to another task and notes how many prompts each call on train brings."""

    inner: Synthetic = field(default_factory=HiddenWords)
    calls: list[int] = field(default_factory=list)

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        if examples == self.splits.train:
            self.calls.append(len(prompts))
        return self.inner.rewards(lm, prompts, examples)


@dataclass(frozen=True)
class Noted(HiddenWords):
    """Remembers what it was asked."""

    asked: list[TokenPrompt] = field(default_factory=list)

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        self.asked.extend(prompt for prompt in prompts if isinstance(prompt, TokenPrompt))
        return super().rewards(lm, prompts, examples)


def searched(method: Optimiser[Any], seed: int, length: int | Length = 8) -> Result:
    """The result of 200 prompts for the hidden words."""
    return search(HiddenWords(), tiny_lm(), method, 200 * N_EXAMPLES, seed=seed, length=length)
