"""Gradient ascent on a soft prompt: what one gets with access to the model's inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rlprompt.agents.shared.ascent import Ascent, Parametrisation
from rlprompt.prompt import SoftPrompt
from rlprompt.search.objective import Objective
from rlprompt.search.space import SoftSpace
from rlprompt.types import PromptKind


@dataclass(frozen=True)
class SoftPromptTuning(Ascent[SoftSpace]):
    """Train the vectors of one prompt with AdamW.

    Prompt tuning (Lester et al. 2021, arXiv 2104.08691, section 2), started from rows of common
    tokens as there (`from_sample_of_embeddings` of its code). Departures: AdamW and not Adafactor;
    the likelihood of the right class among the classes, and not among all tokens; the average of
    the path, and not its end. P-tuning (Liu et al. 2021, arXiv 2103.10385) differs in more: an LSTM
    and a network of two layers make its vectors (`PromptEncoder` of its code), which stand in
    several places of a template, where here the vectors are trained as they are, in one place.
    Adam's steps do not depend on the gradient's scale, so a reward in [-180, 200] needs no scaling
    where that is climbed. Batch, loss and average were decided on dev.
    Where a batch or an average is set, `POINTS` of the path are scored on all examples (`Ascent`),
    and its end always.

    On a task and a model that cost next to nothing:

    >>> from rlprompt import search
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> found = search(ToyTask(), toy_lm(), SoftPromptTuning(), budget=48, length=2)
    >>> found.n_prompts, found.rows  # each on 4 examples, at 3 rows for a gradient
    (6, 48)
    >>> found.trace[-1][1] > found.trace[0][1]
    True

    Args:
        learning_rate: Step of each coordinate, above 0, in standard deviations of the model's
            embeddings, which differ between models by orders of magnitude. 0.1 is ours: it fits 32
            film reviews in about 20 steps of SmolLM2-135M, and a search has about a hundred. Lester
            et al.: 0.3 in no such unit, for 30,000 steps.
        weight_decay: AdamW's, towards zero, 0 or more. Lester et al.: 1e-5 (section 3).
        batch: Train examples of a step, 1 or more, all classes as evenly as can be, drawn anew for
            each pass; passes are cut into parts that differ by one at most. None, and more than
            there are, stand for all.
        loss: What is climbed: the task's `reward`, or the log-probability of the right answer,
            `cross_entropy`, which has a slope where the reward is flat (`gap` where the model is
            sure, `accuracy` everywhere) and is not calibrated where the reward is. A task that has
            no such thing has its reward climbed. What is found is judged by the reward in either
            case. None is `reward`.
        average: What the running mean of the path keeps of itself in a step, such as 0.9, in the
            range (0, 1): that mean is scored in the place of the path's points (Polyak & Juditsky
            1992, https://doi.org/10.1137/0330046; exponential, as for weights of networks). What a
            gradient on all examples was taken at is known besides, for the gradient's rows. None
            scores the points themselves.
        restarts: Ways up within the budget, 1 or more, each with its share of the rows: from the
            space's starts, the best first, and then from tokens drawn anew. None for one.
        pull: Decay towards the start and not to zero (L2-SP, Li et al. 2018, arXiv 1802.01483):
            in each step the share `learning_rate * pull` of the way back, so that steps of full
            size are balanced `1 / pull` standard deviations away; above 0 and at most
            `1 / learning_rate`. None for none.

    Raises:
        ValueError: A setting is out of range.
    """

    searches: ClassVar[PromptKind] = "soft"

    def drawn(
        self, objective: Objective, space: SoftSpace, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """See `Ascent.drawn`."""
        return SoftSpace.from_lm(objective.lm, space.length, rng, space.tokens).start

    def parametrised(self, space: SoftSpace, start: NDArray[np.float32]) -> Parametrisation:
        """See `Ascent.parametrised`: the vectors themselves are trained."""
        return Parametrisation(start, space.scale, SoftPrompt)
