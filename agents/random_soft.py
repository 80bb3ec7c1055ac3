"""Random search over vectors: the control of every method that has no gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlprompt.agents.shared.ranges import check_ranges
from rlprompt.search.optimiser import AskTell, Proposals
from rlprompt.search.space import SoftSpace
from rlprompt.types import PromptKind


@dataclass(frozen=True)
class RandomSoft(AskTell[SoftSpace]):
    """Draw soft prompts around the start and keep the best.

    The first prompts of `SoftPPO` and `CMAES` spread alike, so a method that does no better than
    this has learnt nothing. Unlike theirs, each draw is free in every coordinate: a control has no
    use for a subspace.

    >>> space = SoftSpace(start=np.zeros((5, 16), dtype=np.float32), scale=1.0)
    >>> prompts = next(RandomSoft(batch=4).ask(space, 100, np.random.default_rng(0)))
    >>> len(prompts), prompts[0].vectors.shape
    (4, (5, 16))

    Args:
        alpha: How far prompts spread, in standard deviations of the model's embeddings, above 0. 1,
            as for the methods that it is held against.
        batch: Prompts in one objective call, 1 or more; changes speed and nothing else.

    Raises:
        ValueError: A setting is out of range.
    """

    searches: ClassVar[PromptKind] = "soft"

    alpha: float = 1.0
    batch: int = 32

    def __post_init__(self) -> None:
        """Check the settings."""
        check_ranges(self, {"batch": 1}, ("alpha",))

    def ask(self, space: SoftSpace, n_prompts: int, rng: np.random.Generator) -> Proposals:
        """See `AskTell.ask`."""
        while True:
            drawn = rng.standard_normal((self.batch, space.dimension))
            yield [space.prompt(self.alpha * z) for z in drawn]
