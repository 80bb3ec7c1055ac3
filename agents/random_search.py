"""Random search: the control that every other method has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np

from rlprompt.agents.shared.ranges import check_ranges, check_share
from rlprompt.search.allocation import doubling, halve, halving_size
from rlprompt.search.objective import Objective
from rlprompt.search.optimiser import AskTell, Proposals
from rlprompt.search.space import TokenSpace
from rlprompt.types import PromptKind


@dataclass(frozen=True)
class RandomSearch(AskTell[TokenSpace]):
    """Draw prompts uniformly, after the starts if there are any, and keep the best.

    Lu et al. 2024, "Strings from the Library of Babel" (arXiv 2311.09569;
    `generate_random_vocab_separator` of its code): random separators come within 1 % of optimised
    ones, so no comparison is complete without them. Unlike there, tokens come from the space's
    allowed ids and not from the whole vocabulary or a corpus, and one may come twice.

    >>> space = TokenSpace(length=3, allowed=np.arange(50))
    >>> proposals = RandomSearch(batch=4).ask(space, 100, np.random.default_rng(0))
    >>> prompts = next(proposals)
    >>> len(prompts), all(space.contains(prompt) for prompt in prompts)
    (4, True)

    Args:
        batch: Prompts in one objective call, 1 or more; changes speed and nothing else, but for
            halving.
        halving: Share of the train examples that all prompts are scored on, such as 0.25; the best
            third goes on to twice as many, and so on (`halve`, a pool of `batch` prompts). 3,200
            rows on 32 examples then see some 250 prompts and not 100, or 210 with batch
            calibration. None scores every prompt on all examples.

    Raises:
        ValueError: `batch` is below 1, or `halving` is no share.
    """

    searches: ClassVar[PromptKind] = "tokens"

    batch: int = 32
    halving: float | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        check_ranges(self, {"batch": 1})
        check_share(self, "halving", one=False)

    def ask(self, space: TokenSpace, n_prompts: int, rng: np.random.Generator) -> Proposals:
        """See `AskTell.ask`."""
        draws = space.draws(rng)
        while True:
            yield list(islice(draws, self.batch))

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        """See `Optimiser.run`."""
        if self.halving is None:
            super().run(objective, space, rng)
            return
        stages, draws = doubling(self.halving), space.draws(rng)
        while True:
            # The last pool is as large as the rest of the budget sees through to its end.
            covered = halving_size(objective, objective.remaining, stages=stages)
            pool = list(islice(draws, min(self.batch, covered)))
            halve(objective, pool, stages=stages)
