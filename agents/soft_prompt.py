"""Gradient ascent on a soft prompt: what one gets with access to the model's inside."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from rlprompt.prompt import SoftPrompt
from rlprompt.search.objective import Objective
from rlprompt.search.space import SoftSpace
from rlprompt.types import PromptKind


@dataclass(frozen=True)
class SoftPromptTuning:
    """Train the vectors of one prompt with AdamW on all train examples.

    Prompt tuning (Lester et al. 2021, arXiv 2104.08691), started from vocabulary rows as there
    and in PEFT's `SAMPLE_VOCAB`. Departures: AdamW and not Adafactor, all examples in each step,
    and the task's reward, whatever it is, in place of the likelihood of the answer. Adam's steps
    do not depend on the gradient's scale, so a reward in [-180, 200] needs no scaling.

    On a task and a model that cost next to nothing:

    >>> from rlprompt import search
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> found = search(ToyTask(), toy_lm(), SoftPromptTuning(), budget=48, length=2)
    >>> found.n_prompts, found.rows  # each on 4 examples, at 3 rows for a gradient
    (4, 48)
    >>> found.trace[-1][1] > found.trace[0][1]
    True

    Args:
        learning_rate: Step of each coordinate, in standard deviations of the model's embeddings,
            which differ between models by orders of magnitude. 0.1 is ours: it fits 32 film
            reviews in about 20 steps of SmolLM2-135M, and a search has about a hundred.
        weight_decay: AdamW's. Lester et al.: 1e-5.

    Raises:
        ValueError: A setting is out of range.
    """

    searches: ClassVar[PromptKind] = "soft"

    learning_rate: float = 0.1
    weight_decay: float = 1e-5

    def __post_init__(self) -> None:
        """Check the settings."""
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate is above 0, got {self.learning_rate}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay is 0 or more, got {self.weight_decay}")

    def run(self, objective: Objective, space: SoftSpace, rng: np.random.Generator) -> None:
        """See `Optimiser.run`; nothing here is random but the space's start."""
        vectors = torch.tensor(space.start)
        step = self.learning_rate * space.scale
        adam = torch.optim.AdamW([vectors], lr=step, weight_decay=self.weight_decay)
        while True:
            evaluation = objective.evaluate_with_grad([SoftPrompt(vectors.numpy())])
            vectors.grad = -torch.from_numpy(evaluation.gradients[0])  # AdamW minimises
            adam.step()
