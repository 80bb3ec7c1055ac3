"""A task and a model that cost next to nothing, to try optimisers on.

>>> from rlprompt.prompt import TokenPrompt
>>> task = ToyTask(n_examples=2)
>>> task.rewards(None, [TokenPrompt((1, 2))] * 3, task.splits.train).shape
(3, 2)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlprompt.data.examples import Example, Splits
from rlprompt.prompt import Prompt, SoftPrompt, TextPrompt
from rlprompt.tasks.base import Measured, Task
from rlprompt.types import Floats, Loss

if TYPE_CHECKING:
    from rlprompt.models.lm import FrozenLM

# Prompts, examples, and what a gradient was asked of, if one was.
Call = tuple[tuple[Prompt, ...], tuple[Example, ...], Loss | None]


@dataclass(frozen=True)
class ToyTask(Task):
    """A reward that needs no model, for prompts of all kinds, with gradients.

    A token prompt earns the mean of its tokens' hidden worths, and a prompt of vectors minus half
    their mean square, so that all have better and worse parts. Answers are of two classes, by
    prompt and example.

    >>> task = ToyTask(n_examples=2)
    >>> ones = SoftPrompt(np.ones((3, 32), np.float32))
    >>> task.rewards(toy_lm(), [ones], task.splits.train).shape
    (1, 2)

    Args:
        n_examples: In each split, 1 or more.
        flat: Whether every prompt earns the same.
        scored_together: Whether a reward on a train example depends on which others of train are
            scored with it, as with batch calibration; see `Task`.
        asked: Called with the prompts, the examples and the loss of a gradient, or None.
        shows: The task whose examples prompts show; None for its own.
    """

    n_examples: int = 4
    flat: bool = False
    scored_together: bool = False
    asked: Callable[[Call], object] = field(default=lambda call: None, repr=False)
    shows: Task | None = field(default=None, repr=False)
    name: str = "toy"
    fingerprint: str = "toy"

    @cached_property
    def splits(self) -> Splits:
        """Examples that differ in their texts alone."""
        train, dev, test = (
            tuple(Example({"text": f"{name} {i}"}, "any") for i in range(self.n_examples))
            for name in ("train", "dev", "test")
        )
        return Splits(train, dev, test)

    @cached_property
    def _train_texts(self) -> list[str]:
        return [example.fields["text"] for example in self.splits.train]

    def showable(self) -> Sequence[int]:
        """See `Task.showable`."""
        return range(self.n_examples) if self.shows is None else self.shows.showable()

    def shown(self, places: Sequence[int], before: str = "") -> str:
        """See `Task.shown`."""
        if self.shows is not None:
            return self.shows.shown(places, before)
        return " ".join([*before.split(), *(f"{i}." for i in places)])

    def rewards(
        self, lm: FrozenLM | None, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        """See `Task.rewards`."""
        self.asked((tuple(prompts), tuple(examples), None))
        return self._rewards(prompts, examples)

    def measure(
        self, lm: FrozenLM | None, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Measured:
        """See `Task.measure`: the answer is whether the prompt is worth more than the example."""
        rewards = self.rewards(lm, prompts, examples)
        worths, own = self._worths(prompts), _offsets(examples)
        more = worths[:, None] > own
        answers = tuple(tuple("more" if one else "less" for one in row) for row in more)
        return Measured(rewards, rewards, answers)

    def rewards_with_grad(
        self, lm: FrozenLM | None, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, NDArray[np.float32]]:
        """See `Task.rewards_with_grad`."""
        return self._with_grad(prompts, examples, "reward")

    def cross_entropy_with_grad(
        self, lm: FrozenLM | None, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, NDArray[np.float32]]:
        """See `Task.cross_entropy_with_grad`: here that of the reward."""
        return self._with_grad(prompts, examples, "cross_entropy")

    def _with_grad(
        self, prompts: Sequence[SoftPrompt], examples: Sequence[Example], loss: Loss
    ) -> tuple[Floats, NDArray[np.float32]]:
        self.asked((tuple(prompts), tuple(examples), loss))
        gradients = [-(not self.flat) * p.vectors / p.vectors.size for p in prompts]
        return self._rewards(prompts, examples), np.array(gradients, dtype=np.float32)

    def _rewards(self, prompts: Sequence[Prompt], examples: Sequence[Example]) -> Floats:
        worths, offsets = self._worths(prompts), _offsets(examples)
        if self.scored_together:
            of_train = np.isin([one.fields["text"] for one in examples], self._train_texts)
            offsets -= of_train * (offsets @ of_train) / len(examples)
        rewards: Floats = worths[:, None] + offsets
        return rewards

    def _worths(self, prompts: Sequence[Prompt]) -> Floats:
        return np.array([0.0 if self.flat else _worth(prompt) for prompt in prompts])


def _offsets(examples: Sequence[Example]) -> Floats:
    return np.array([_number(example.fields["text"]) for example in examples])


def _worth(prompt: Prompt) -> float:
    if isinstance(prompt, SoftPrompt):
        return -0.5 * float(np.square(prompt.vectors, dtype=np.float64).mean())
    parts = prompt.text.split() if isinstance(prompt, TextPrompt) else prompt.ids
    return float(np.mean([_number(str(part)) for part in parts])) if parts else 0.0


@lru_cache(maxsize=1 << 16)
def _number(content: str) -> float:
    """A number in [0, 1) that depends on nothing but the content."""
    return int(hashlib.blake2b(content.encode(), digest_size=4).hexdigest(), 16) / 2**32


def toy_lm() -> FrozenLM:
    """A causal model of 2 layers with random weights and a token a byte, made in milliseconds.

    >>> lm = toy_lm()
    >>> lm.kind, lm.encode("hi") == lm.encode("h") + lm.encode("i")
    ('causal', True)
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from rlprompt.models.lm import FrozenLM

    letters = ("</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()))
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    make: Any = PreTrainedTokenizerFast  # not annotated
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    return FrozenLM(model, make(tokenizer_object=tokenizer, eos_token="</s>"), "toy")
