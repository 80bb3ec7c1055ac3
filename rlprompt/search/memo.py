"""What the model said, and where that may be remembered: the seam between a search and a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rlprompt.prompt import Prompt
from rlprompt.types import Floats, Ids, Outputs


@dataclass(frozen=True)
class Answer:
    """What the model said to one batch of prompts.

    Attributes:
        per_example: (P, E) float64.
        gradients: (P, L, H) float32, or None where none were asked for.
        seconds: Wall time that it took when it was computed, be that now or in an earlier process.
        outputs: (P, E) texts that the model wrote, or None where a reward is no matter of texts.
    """

    per_example: Floats
    gradients: NDArray[np.float32] | None
    seconds: float
    outputs: Outputs | None = None

    @property
    def finite(self) -> bool:
        """Whether all of it is numbers."""
        gradients = self.gradients
        return bool(np.isfinite(self.per_example).all()) and (
            gradients is None or bool(np.isfinite(gradients).all())
        )


class Answers(Protocol):
    """Answers paid for before, such as those of a run that was killed (`Store.record`).

    Questions are whole batches, as the model gets them: the last bit of a score depends on what it
    was computed together with.
    """

    def find(self, prompts: Sequence[Prompt], *, gradient: bool) -> Answer | None:
        """The answer to a batch, or None: then the task is asked, and `keep` called."""
        ...

    def keep(self, prompts: Sequence[Prompt], answer: Answer) -> Answer:
        """Put away a new answer, for good once this returns, and return what counts from now on."""
        ...

    def find_hidden(self, texts: Sequence[Ids]) -> NDArray[np.float32] | None:
        """What `Objective.hidden` gave for these token sequences, or None."""
        ...

    def keep_hidden(self, texts: Sequence[Ids], hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """Put away what the model made of token sequences, and return what counts from now on."""
        ...
