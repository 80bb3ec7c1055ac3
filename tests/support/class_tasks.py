"""Tasks of classes on tiny models."""

from __future__ import annotations

from typing import Any

import numpy as np
from tiny import HIDDEN

from rlprompt.data.load import Example, Splits
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
