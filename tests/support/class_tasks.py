"""Tasks of classes on tiny models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tiny import HIDDEN

from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import SoftPrompt, TokenPrompt
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.template import Template

WORDS = {"neg": "terrible", "pos": "great"}


LONG = {"neg": "bad film", "pos": "good", "mid": "it was so-so"}


CAUSAL = "{text} {prompt}"


MASKED = "{text} {prompt} {mask} ."


def example(text: str, label: str) -> Example:
    return Example({"text": text}, label, f"reviews.csv:{len(text)}")


TRAIN = (
    example("the film was good", "pos"),
    example("it was bad bad bad", "neg"),
    example("A dull thing.", "neg"),
    example("the best", "pos"),
    example("Not sure about it, but great.", "pos"),
)


SPLITS = Splits(TRAIN, (example("on dev", "pos"),), (example("on test", "neg"),))


PROMPTS = [TokenPrompt(ids) for ids in ((290 - 1, 20, 30), (40, 50), (), (60, 61, 62, 63))]


def task(**changes: Any) -> ClassificationTask:
    settings: dict[str, Any] = {
        "template": Template(CAUSAL),
        "label_words": WORDS,
        "reward": "cross_entropy",
        "calibration": "none",
    }
    return ClassificationTask("film", SPLITS, **(settings | changes))


def soft(count: int = 2, length: int = 3, seed: int = 0) -> list[SoftPrompt]:
    generator = np.random.default_rng(seed)
    return [SoftPrompt(0.3 * generator.standard_normal((length, HIDDEN))) for _ in range(count)]


def check_slopes(
    made: ClassificationTask,
    lm: FrozenLM,
    examples: Sequence[Example] = TRAIN,
    *,
    seed: int = 1,
    step: float = 3e-4,
    within: float = 0.005,
) -> None:
    """Hold gradients against central differences of mean rewards, along random directions.

    Args:
        seed: Of prompts that have no kink of the reward within a step.
        step: Half the distance between the ends.
        within: How far off a slope may be, in products of norms.
    """
    prompts = soft(seed=seed)
    rewards, gradients = made.rewards_with_grad(lm, prompts, examples)
    np.testing.assert_allclose(rewards, made.rewards(lm, prompts, examples), atol=1e-2, rtol=1e-4)
    assert gradients.shape == (2, 3, HIDDEN)
    assert gradients.dtype == np.float32
    generator = np.random.default_rng(1)
    for prompt, gradient in zip(prompts, gradients, strict=True):
        for _ in range(3):
            direction = generator.standard_normal(gradient.shape)
            direction += 3 * gradient / np.linalg.norm(gradient)  # so that there is a slope
            ends = [SoftPrompt(prompt.vectors + s * step * direction) for s in (-1, 1)]
            low, high = made.rewards(lm, ends, examples).mean(axis=1)
            slope = float((gradient * direction).sum())
            scale = float(np.linalg.norm(gradient) * np.linalg.norm(direction))
            assert (high - low) / (2 * step) == pytest.approx(slope, abs=within * scale)
