"""The types that rooms share: token ids, numbers, what a model wrote, and the kinds of things."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ids = tuple[int, ...]
"""Token ids, of a text or of a part of one."""

Candidates = tuple[Ids, ...]
"""The continuations that a model is asked about, each with a token or more."""

Floats = NDArray[np.float64]
"""Rewards, metrics and figures: float64, of the shape that is said where it is used."""

Outputs = tuple[tuple[str, ...], ...]
"""What a model wrote: a text for each example of each prompt, prompts x examples."""


class Written(NamedTuple):
    """An answer to a request, and the tokens that it took, as whoever wrote it counts."""

    text: str
    n_read: int
    n_written: int


PromptKind = Literal["tokens", "soft", "prefix", "text"]
"""Whether a prompt is token ids, embedding vectors, keys and values at every layer, or text."""

StartName = Literal["vocabulary", "hand", "label-words", "common-words", "task-words", "auto"]
"""Where a search may begin, by name: random tokens, the task's hand prompt, the words of its
classes, the most common words, the train texts' own, or the best of all of these."""

PoolKind = Literal["all", "words", "likely"]
"""Which tokens a token prompt is made of: all, words worth trying, or what the model expects."""

ModelKind = Literal["causal", "masked", "encoder-decoder"]
"""Where a model reads its answer: after the text, at a mask, or in a decoder."""

Loss = Literal["reward", "cross_entropy"]
"""What a gradient is of: the task's own reward, or the log-probability of the right answer."""

Calibration = Literal["none", "contextual", "batch"]
"""What is taken out of the scores of classes: nothing, or what the model answers to texts without
content, or on average to the train texts."""

DEFAULT_CALIBRATION: Calibration = "batch"
"""What a classification does where nothing is said."""

ClassMetric = Literal["accuracy", "balanced_accuracy", "macro_f1", "mcc"]
"""What reports give of a task of classes."""

SelectBy = Literal["reward", "metric"]
"""By what a prompt is picked on dev."""

RegistryKind = Literal["optimiser", "task"]
"""What has a short name in an experiment file."""
