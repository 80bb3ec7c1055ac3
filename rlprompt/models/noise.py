"""How much the arithmetic alone changes a score, in figures; to read them needs no torch.

>>> Noise(alone=0.0, shuffled=0.25, batches=0.0, plain=0.5, spread=1.0).largest
0.5
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

# What a nat in every log-likelihood makes of a reward on an example, at most, by the reward's name:
# of each that is made of log-likelihoods and no answer. Reports read it, without torch.
# `gap`: 200 times a difference of two probabilities, which a nat in the odds changes by a half at
# most, and the odds of two classes by two nats. A log-probability among classes by two nats, its
# own and all the others'; a reference's is its own alone. `hinge` by two for each rival.
SLOPES: Mapping[str, float] = {
    "gap": 200.0,
    "cross_entropy": 2.0,
    "hinge": 2.0,
    "log_likelihood": 1.0,
}


def slope(reward: str, n_classes: int = 2) -> float | None:
    """What a nat in every log-likelihood makes of a reward on an example; None where unknown.

    >>> slope("gap"), slope("hinge", 4), slope("bleu")
    (200.0, 6.0, None)
    """
    steep = SLOPES.get(reward)
    return steep if steep is None or reward != "hinge" else steep * max(1, n_classes - 1)


# Share of the usual distance between two prompts that noise may reach before it can decide.
QUIET = 0.01


class NotFiniteError(ValueError):
    """A model's answers are no finite numbers. The message says in which dtype, and what to do."""


@dataclass(frozen=True)
class Noise:
    """Largest differences of a row's log-likelihoods, nats, from all rows scored in one call.

    >>> found = Noise(alone=1e-5, shuffled=2e-5, batches=1e-5, plain=3e-5, spread=0.6)
    >>> found.largest / found.spread < QUIET  # too small to decide which of two prompts is better
    True

    Attributes:
        alone: Each prompt and query scored in a call of their own.
        shuffled: Prompts and queries in another order.
        batches: Forward passes of other sizes.
        plain: One padded row a sequence, nothing shared.
        spread: What to hold them against: the median difference between two prompts on the same
            query and candidate.
    """

    alone: float
    shuffled: float
    batches: float
    plain: float
    spread: float

    @property
    def largest(self) -> float:
        """The largest of the four differences, nats."""
        return largest_noise(asdict(self)) or 0.0


def largest_noise(noise: Mapping[str, float]) -> float | None:
    """The largest difference, nats, of the fields of a `Noise`; None where it was not measured.

    >>> largest_noise({"alone": 0.0, "plain": 0.5, "spread": 1.0}), largest_noise({})
    (0.5, None)
    """
    return max((value for name, value in noise.items() if name != "spread"), default=None)
