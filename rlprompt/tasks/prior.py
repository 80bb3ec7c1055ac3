"""What calibration takes out of the scores of a prompt: its prior over the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

from rlprompt.prompt import Prompt
from rlprompt.types import Floats

if TYPE_CHECKING:
    from rlprompt.models.lm import FrozenLM


class Prior:
    """A prompt's prior, and the task with and without it: by default there is none.

    >>> from rlprompt.tasks import Task
    >>> Task().prior_rows, Task().calibrated()
    (0, None)

    Attributes:
        prior_rows: Rows of what calibrates a prompt's scores (`log_priors`), 0 where there
            is none that could be known beforehand.
        scored_together: Whether a reward on a train example depends on which others of train are
            scored with it, as where their texts make a prior; never on those of another split.
            Rewards on parts of train then do not make up those on all.
    """

    if TYPE_CHECKING:  # read-only to users, and for a subclass fields or properties as it likes

        @property
        def prior_rows(self) -> int: ...  # noqa: D102
        @property
        def scored_together(self) -> bool: ...  # noqa: D102

    else:
        prior_rows, scored_together = 0, False

    def calibrated(self) -> Self | None:
        """The task with contextual calibration, or None where it has any, or cannot."""
        return None

    def uncalibrated(self) -> Self | None:
        """The task without calibration by its train texts, or None where it has no such thing."""
        return None

    def class_prior(self, lm: FrozenLM, prompt: Prompt) -> Mapping[str, float] | None:
        """Log-probability of each class that calibration takes out of a prompt's scores, nats.

        It is made without the texts that are judged, and so can be kept with the prompt. None where
        nothing is taken out.
        """
        return None

    def log_priors(self, lm: FrozenLM, prompts: Sequence[Prompt]) -> Floats:
        """What calibration takes out of each prompt's scores, (P, C) nats, for `prior_rows` each.

        Raises:
            ValueError: There is no such thing, which is the default.
        """
        raise ValueError(f"{self.__class__.__name__} has no class priors (no method log_priors)")

    def knowing(self, lm: FrozenLM, prompts: Sequence[Prompt], priors: Floats) -> Self:
        """The task, told the `log_priors` of some prompts, which it need not find again.

        By default itself.
        """
        return self


def needs_prior(task: Prior, split: str) -> bool:
    """Whether scores on a split take a prompt's prior; train, scored together, makes its own."""
    return bool(task.prior_rows) and not (split == "train" and task.scored_together)
