"""Gradient ascent on the vectors of a prompt, whatever they are fed to: what methods share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from rlprompt._utils.suggest import check_choice
from rlprompt.agents.shared.ranges import check_ranges, check_share
from rlprompt.data.examples import balanced
from rlprompt.prompt import SoftPrompt
from rlprompt.search.objective import Objective
from rlprompt.search.space import PrefixSpace, SoftSpace
from rlprompt.tasks.base import Task
from rlprompt.types import Loss

# Points of the path that are scored on all examples: as many as race on dev, which so has the path
# to choose from. No more than one for each pass over the examples, a quarter of the rows at most.
POINTS = 16

S = TypeVar("S", SoftSpace, PrefixSpace)


class Parametrisation(NamedTuple):
    """What a way up begins with, and what its numbers stand for.

    Attributes:
        start: The numbers that are trained.
        step: One unit of them.
        prompt: The prompt of such numbers.
        slope: How far a number of the prompt moves where that which is trained moves by 1.
    """

    start: NDArray[np.float32]
    step: float
    prompt: Callable[[NDArray[np.float32]], SoftPrompt]
    slope: NDArray[np.float32] | float = 1.0


@dataclass(frozen=True)
class Ascent(ABC, Generic[S]):
    """Train the numbers of one prompt with AdamW; for the settings see `SoftPromptTuning`.

    A step on a part of the examples says little of its prompt, and the last steps fit train by
    heart, so where a batch or an average is set, `POINTS` of the path are scored on all examples,
    and the search is known by these; where each step is on all examples, by the points that
    gradients were taken at as well. The end is scored in any case.

    Raises:
        ValueError: A setting is out of range.
    """

    needs_gradient: ClassVar[bool] = True

    learning_rate: float = 0.1
    weight_decay: float = 1e-5
    batch: int | None = 8
    loss: Loss | None = "cross_entropy"
    average: float | None = 0.9
    restarts: int | None = None
    pull: float | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        check_ranges(self, {"batch": 1, "restarts": 1}, ("learning_rate",))
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay is 0 or more, got {self.weight_decay}")
        if self.loss is not None:
            check_choice("loss", self.loss, Loss)
        check_share(self, "average", one=False)
        if self.pull is not None and not 0 < self.pull * self.learning_rate <= 1:
            raise ValueError(
                f"pull is above 0 and at most 1 / learning_rate = {1 / self.learning_rate:g}, or "
                f"None, got {self.pull}"
            )

    def run(self, objective: Objective, space: S, rng: np.random.Generator) -> None:
        """See `Optimiser.run`."""
        restarts, starts = self.restarts or 1, space.starts
        for restart in range(restarts):
            known = restart < len(starts)
            start = starts[restart] if known else self.drawn(objective, space, rng)
            rows = objective.remaining // (restarts - restart)
            self._climb(objective, self.parametrised(space, start), rows, rng)

    def check_task(self, task: Task) -> None:
        """Refuse to climb the reward of an example that calibrates itself: it has no slope.

        Raises:
            ValueError: A step would be on one example, and examples are scored together.
        """
        n_examples = len(task.splits.train)
        smallest = n_examples // n_parts(n_examples, self.batch)
        if task.scored_together and self._climbed(task) == "reward" and smallest < 2 <= n_examples:
            other = ", or `loss: cross_entropy`" * task.has("cross_entropy_with_grad")
            raise ValueError(
                f"with batch: {self.batch}, a step of the {n_examples} train examples is 1 example "
                f"at times, and task {task.name!r} takes out of its reward what the examples of a "
                "step have in common, so that nothing is left to climb; give a batch of "
                f"{2 + n_examples % 2} or more{other}"
            )

    def _climbed(self, task: Task) -> Loss:
        has_loss = task.has("cross_entropy_with_grad")
        return (self.loss if has_loss else None) or "reward"

    @abstractmethod
    def drawn(
        self, objective: Objective, space: S, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """A start past the last of the space: tokens drawn anew."""

    @abstractmethod
    def parametrised(self, space: S, start: NDArray[np.float32]) -> Parametrisation:
        """The way up from a start."""

    def _climb(
        self, objective: Objective, made: Parametrisation, rows: int, rng: np.random.Generator
    ) -> None:
        """Spend so many rows on a way up."""
        ledger, full = objective.ledger, objective.cost()
        end = ledger.used + rows
        parts = n_parts(objective.n_examples, self.batch)
        # A gradient on all examples tells the reward of the prompt that it is taken at.
        by_points = parts > 1 or self.average is not None
        loss = self._climbed(objective.task)
        apart = max(rows / POINTS, objective.cost(loss=loss)) if by_points else math.inf
        vectors, origin = torch.tensor(made.start), torch.tensor(made.start)
        average, unscored, last = origin.clone(), True, ledger.used
        adam = torch.optim.AdamW(
            [vectors], lr=self.learning_rate * made.step, weight_decay=self.weight_decay
        )
        for block in _blocks(objective, parts, rng):
            cost = objective.cost(loss=loss, examples=len(block))
            if ledger.used + cost + full > end:
                break
            prompt = made.prompt(vectors.numpy())
            evaluation = objective.evaluate_with_grad([prompt], block, loss=loss)
            # AdamW minimises.
            vectors.grad = -torch.from_numpy(evaluation.gradients[0] * made.slope)
            adam.step()
            if self.pull is not None:
                vectors += self.learning_rate * self.pull * (origin - vectors)
            average = torch.lerp(vectors, average, self.average or 0.0)
            unscored = True
            if ledger.used - last >= apart:
                objective.evaluate([made.prompt(average.numpy())])
                unscored, last = False, ledger.used
        # The end of the path; or its start, where the rows do not cover a step.
        if unscored and ledger.used + full <= end:
            objective.evaluate([made.prompt(average.numpy())])


def n_parts(n_examples: int, batch: int | None) -> int:
    """Steps of a pass over the examples."""
    return math.ceil(n_examples / (batch or n_examples))


def _blocks(objective: Objective, parts: int, rng: np.random.Generator) -> Iterator[Sequence[int]]:
    """Places of the train examples of one step after another, without an end."""
    n = objective.n_examples
    while True:
        if parts == 1:
            yield range(n)
            continue
        order = balanced(objective.task.splits.train, rng.permutation(n).tolist())
        yield from (block.tolist() for block in np.array_split(order, parts))
