"""Gradient ascent on keys and values at every layer: a prompt that reaches further than the input.

>>> PrefixTuning().searches, PrefixTuning().learning_rate
('prefix', 0.1)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rlprompt.agents.shared.ascent import Ascent, Parametrisation
from rlprompt.prompt import SoftPrompt
from rlprompt.search.objective import Objective
from rlprompt.search.space import PrefixSpace, SoftSpace
from rlprompt.types import PromptKind


@dataclass(frozen=True)
class PrefixTuning(Ascent[PrefixSpace]):
    """Train the keys and values of one prefix prompt with AdamW.

    Prefix tuning (Li & Liang 2021, arXiv 2101.00190, eq. 3) and P-tuning v2 (Liu et al. 2022, arXiv
    2110.07602): the model is told at every layer what a soft prompt tells the first one. The start
    is what the layers make of real tokens. Departures: the numbers are trained as they are, as in
    P-tuning v2, and not made by the network of two layers of Li & Liang's section 4.3; answers are
    read off the frozen head, where P-tuning v2 trains a linear one besides (`PrefixEncoder` and
    `BertPrefixForSequenceClassification` of its code); a step is measured in what the keys, or the
    values, of a layer differ by between tokens, so that all layers move alike; and a step, a loss
    and a path as those of soft prompts (`SoftPromptTuning`).

    The prompt comes first in the template. There are as many numbers as a soft prompt has, times
    what keys and values of all layers are wider than an embedding: 20 times in SmolLM2-135M, so a
    search of 3,200 rows keeps some 40 MB of gradients in the study.

    >>> from rlprompt import search
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> found = search(ToyTask(), toy_lm(), PrefixTuning(), budget=48, length=2)
    >>> found.best.prompt.vectors.shape  # 2 positions, 2 layers, keys and values, 4 heads of 8
    (2, 2, 2, 4, 8)
    >>> found.trace[-1][1] > found.trace[0][1]
    True

    Args:
        learning_rate: Step of each number, above 0, in standard deviations of its layer's keys or
            values between tokens. 0.1 is that of `SoftPromptTuning`. Theirs know no such unit: 5e-5
            for the weights of Li & Liang's network, and for numbers as they are 5e-3 (RTE) or 3e-2
            (CoNLL 2003), say, in P-tuning v2's scripts.
        weight_decay: AdamW's, 0 or more: towards the start, around which the coordinates lie. 1e-5
            is ours, that of `SoftPromptTuning` and untried against others. Li & Liang's
            `train_e2e.py`: 0.
        batch: Train examples of a step; this and what follows as in `SoftPromptTuning`.
        loss: What is climbed: `cross_entropy` is not calibrated, also where the reward is.
        average: What the running mean of the path keeps of itself in a step.
        restarts: Ways up within the budget.
        pull: Decay towards the start, which `weight_decay` is here too: their sum counts.

    Raises:
        ValueError: A setting is out of range.
    """

    searches: ClassVar[PromptKind] = "prefix"

    def drawn(
        self, objective: Objective, space: PrefixSpace, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """See `Ascent.drawn`."""
        soft = SoftSpace.from_lm(objective.lm, space.length, rng, space.tokens)
        start: NDArray[np.float32] = objective.keys_and_values([SoftPrompt(soft.start)])[0]
        return start

    def parametrised(self, space: PrefixSpace, start: NDArray[np.float32]) -> Parametrisation:
        """See `Ascent.parametrised`: coordinates around the start are trained."""
        around = replace(space, start=start, others=None)
        return Parametrisation(np.zeros_like(start), 1.0, around.prompt, space.scale)
