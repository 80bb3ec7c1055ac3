"""Gradient ascent on a soft prompt: what one gets with access to the model's inside."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from rlprompt.data.examples import balanced, check_choice
from rlprompt.prompt import SoftPrompt
from rlprompt.search.objective import Objective
from rlprompt.search.space import SoftSpace
from rlprompt.types import Loss, PromptKind

# Points of the path that are scored on all examples: as many as race on dev, which so has the path
# to choose from. No more than one for each pass over the examples, a quarter of the rows at most.
POINTS = 16


@dataclass(frozen=True)
class SoftPromptTuning:
    """Train the vectors of one prompt with AdamW.

    Prompt tuning (Lester et al. 2021, arXiv 2104.08691), started from vocabulary rows as there
    and in PEFT's `SAMPLE_VOCAB`. Departures: AdamW and not Adafactor; the likelihood of the right
    class among the classes, and not among all tokens; the average of the path, and not its end.
    Adam's steps do not depend on the gradient's scale, so a reward in [-180, 200] needs no scaling
    where that is climbed. Batch, loss and average were decided on dev, see experiments/LOG.md.

    A step on a part of the examples says little of its prompt, and the last steps fit train by
    heart, so where a batch or an average is set, `POINTS` of the path are scored on all examples,
    and the search is known by these.

    On a task and a model that cost next to nothing:

    >>> from rlprompt import search
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> found = search(ToyTask(), toy_lm(), SoftPromptTuning(), budget=48, length=2)
    >>> found.n_prompts, found.rows  # each on 4 examples, at 3 rows for a gradient
    (6, 48)
    >>> found.trace[-1][1] > found.trace[0][1]
    True

    Args:
        learning_rate: Step of each coordinate, in standard deviations of the model's embeddings,
            which differ between models by orders of magnitude. 0.1 is ours: it fits 32 film
            reviews in about 20 steps of SmolLM2-135M, and a search has about a hundred.
        weight_decay: AdamW's. Lester et al.: 1e-5.
        batch: Train examples of a step, all classes as evenly as can be, drawn anew for each pass;
            passes are cut into parts that differ by one at most. None, and more than there are,
            stand for all.
        loss: What is climbed: the task's `reward`, or the log-probability of the right answer,
            `cross_entropy`, which has a slope where the reward is flat (`gap` where the model is
            sure, `accuracy` everywhere). A task that has no such thing has its reward climbed. What
            is found is judged by the reward in either case. None is `reward`.
        average: What the running mean of the path keeps of itself in a step, such as 0.9, in the
            range (0, 1): that mean is scored in the place of the path's points (Polyak & Juditsky
            1992, https://doi.org/10.1137/0330046; exponential, as for weights of networks). None
            scores the points themselves.
        restarts: Ways up within the budget, each with its share of the rows, the first from the
            space's start and the others from tokens drawn anew. None for one.
        pull: Decay towards the start and not to zero (L2-SP, Li et al. 2018, arXiv 1802.01483):
            in each step the share `learning_rate * pull` of the way back, so that steps of full
            size are balanced `1 / pull` standard deviations away. None for none.

    Raises:
        ValueError: A setting is out of range.
    """

    searches: ClassVar[PromptKind] = "soft"
    needs_gradient: ClassVar[bool] = True

    learning_rate: float = 0.1
    weight_decay: float = 1e-5
    batch: int | None = 8
    loss: Loss | None = "cross_entropy"
    average: float | None = 0.9
    # None and no other default: studies that were made before these settings go on.
    restarts: int | None = None
    pull: float | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate is above 0, got {self.learning_rate}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay is 0 or more, got {self.weight_decay}")
        if self.batch is not None and self.batch < 1:
            raise ValueError(f"batch is 1 example or more, or None for all, got {self.batch}")
        if self.loss is not None:
            check_choice("loss", self.loss, Loss)
        if self.average is not None and not 0 < self.average < 1:
            raise ValueError(f"average is above 0 and below 1, or None, got {self.average}")
        if self.restarts is not None and self.restarts < 1:
            raise ValueError(f"restarts is 1 way up or more, or None for one, got {self.restarts}")
        if self.pull is not None and not 0 < self.pull * self.learning_rate <= 1:
            raise ValueError(
                f"pull is above 0 and at most 1 / learning_rate = {1 / self.learning_rate:g}, or "
                f"None, got {self.pull}"
            )

    def run(self, objective: Objective, space: SoftSpace, rng: np.random.Generator) -> None:
        """See `Optimiser.run`."""
        restarts = self.restarts or 1
        for restart in range(restarts):
            start = _start(objective, space, restart, rng)
            rows = objective.remaining // (restarts - restart)
            self._climb(objective, start, space.scale, rows, rng)

    def _climb(
        self,
        objective: Objective,
        start: NDArray[np.float32],
        scale: float,
        rows: int,
        rng: np.random.Generator,
    ) -> None:
        """Spend so many rows on the way up from a start."""
        ledger, full = objective.ledger, objective.cost()
        end = ledger.used + rows
        parts = math.ceil(objective.n_examples / (self.batch or objective.n_examples))
        # Of a step on all examples the prompt's reward is known; of any other it has to be paid.
        by_points = parts > 1 or self.average is not None
        has_loss = objective.task.has("cross_entropy_with_grad")
        loss: Loss = (self.loss if has_loss else None) or "reward"
        apart = max(rows / POINTS, objective.cost(loss=loss)) if by_points else math.inf
        vectors, origin = torch.tensor(start), torch.tensor(start)
        average, unscored, last = origin.clone(), True, ledger.used
        adam = torch.optim.AdamW(
            [vectors], lr=self.learning_rate * scale, weight_decay=self.weight_decay
        )
        for block in _blocks(objective, parts, rng):
            cost = objective.cost(loss=loss, examples=len(block))
            if ledger.used + cost + (full if parts > 1 else 0) > end:
                break
            prompt = SoftPrompt(vectors.numpy())
            evaluation = objective.evaluate_with_grad([prompt], block, loss=loss)
            vectors.grad = -torch.from_numpy(evaluation.gradients[0])  # AdamW minimises
            adam.step()
            if self.pull is not None:
                vectors += self.learning_rate * self.pull * (origin - vectors)
            average = torch.lerp(vectors, average, self.average or 0.0)
            unscored = by_points
            if ledger.used - last >= apart:
                objective.evaluate([SoftPrompt(average.numpy())])
                unscored, last = False, ledger.used
        # The end of the path; or its start, where the rows do not cover a step.
        if unscored and ledger.used + full <= end:
            objective.evaluate([SoftPrompt(average.numpy())])


def _start(
    objective: Objective, space: SoftSpace, restart: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Where a way up begins: at a start of the space, or, past the last, at tokens drawn anew."""
    starts = space.starts
    if restart < len(starts):
        start: NDArray[np.float32] = starts[restart]
        return start
    return SoftSpace.from_lm(objective.lm, space.length, rng).start


def _blocks(objective: Objective, parts: int, rng: np.random.Generator) -> Iterator[Sequence[int]]:
    """Places of the train examples of one step after another, without an end."""
    n = objective.n_examples
    while True:
        if parts == 1:
            yield range(n)
            continue
        order = balanced(objective.task.splits.train, rng.permutation(n).tolist())
        yield from (block.tolist() for block in np.array_split(order, parts))
