"""Random search: the control that every other method has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlprompt.search.optimiser import AskTell, Proposals
from rlprompt.search.space import TokenSpace
from rlprompt.types import PromptKind


@dataclass(frozen=True)
class RandomSearch(AskTell[TokenSpace]):
    """Draw prompts uniformly and keep the best.

    Lu et al. 2024, "Strings from the Library of Babel" (arXiv 2311.09569): random separators come
    within 1 % of optimised ones, so no comparison is complete without them. Unlike there, tokens
    come from the space's allowed ids and not from the whole vocabulary or a corpus.

    >>> space = TokenSpace(length=3, allowed=np.arange(50))
    >>> proposals = RandomSearch(batch=4).ask(space, 100, np.random.default_rng(0))
    >>> prompts = next(proposals)
    >>> len(prompts), all(space.contains(prompt) for prompt in prompts)
    (4, True)

    Args:
        batch: Prompts in one objective call; changes speed and nothing else.

    Raises:
        ValueError: `batch` is below 1.
    """

    searches: ClassVar[PromptKind] = "tokens"

    batch: int = 32

    def __post_init__(self) -> None:
        """Check the batch."""
        if self.batch < 1:
            raise ValueError(f"batch is 1 prompt or more, got {self.batch}")

    def ask(self, space: TokenSpace, n_prompts: int, rng: np.random.Generator) -> Proposals:
        """See `AskTell.ask`."""
        while True:
            yield [space.sample(rng) for _ in range(self.batch)]
