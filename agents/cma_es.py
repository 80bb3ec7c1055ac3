"""CMA-ES over soft prompts in a random subspace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from rlprompt._utils.suggest import check_choice
from rlprompt.agents.shared.evolution import dimension_for, generations
from rlprompt.agents.shared.ranges import check_ranges
from rlprompt.search.objective import Objective
from rlprompt.search.optimiser import AskTell, Proposals
from rlprompt.search.space import SoftSpace
from rlprompt.search.vocabulary import commonest, typable_tokens
from rlprompt.types import PromptKind

Basis = Literal["gaussian", "tokens"]


@dataclass(frozen=True)
class CMAES(AskTell[SoftSpace]):
    """Evolve the coordinates of a soft prompt in a random subspace, with pycma.

    Black-Box Tuning (Sun et al. 2022, arXiv 2201.03514). What is called theirs here is what their
    last `bbt.py` has unless told: a Gaussian projection in units of the embeddings' spread
    (`LMForwardAPI`), a first step of 1, and no bounds. Earlier releases had PyTorch's uniform one,
    a first step of 0.5 within bounds of 5, and the hinge loss.

    Departures: what counts is the task's reward, where theirs is cross-entropy; the prompt stands
    by itself and is as long as is asked for, where theirs is added to 50 tokens before the text;
    the covariance is diagonal (Ros & Hansen 2008) unless the budget can teach a full one; the start
    is rows of common tokens and not a pretrained prompt; a search that stops early begins again
    with twice the population (IPOP, Auger & Hansen 2005), the budget is what ends it.

    >>> space = SoftSpace(start=np.zeros((5, 16), dtype=np.float32), scale=1.0)
    >>> proposals = CMAES(dimension=8).ask(space, 200, np.random.default_rng(0))
    >>> generation = next(proposals)
    >>> len(generation), generation[0].vectors.shape
    (20, (5, 16))

    Args:
        dimension: Coordinates of the subspace, d, 2 or more. Black-Box Tuning's 500, which are
            meant for 8,000 prompts. None for a fifth of the prompts that the budget covers, 2 to
            500.
        population: Prompts of a generation, scored together, 4 or more. Black-Box Tuning's 20. None
            for pycma's default, 4 + 3 ln d (Hansen 2016, arXiv 1604.00772, table 1).
        alpha: How far the first generation spreads, in standard deviations of the model's
            embeddings, above 0. 1 in Black-Box Tuning; it is not sized to the budget. On dev (nine
            cells, 3,200 rows) the defaults came to 0.741; with `dimension` and `population` of None
            `alpha: 1` came to 0.677 and `alpha: 0.3` to 0.701.
        basis: What spans the subspace: `gaussian` noise as in Black-Box Tuning, or prompts of the
            space's `tokens` (`SoftSpace.superposed`). None is `gaussian`.

    Raises:
        ValueError: A setting is out of range.
    """

    searches: ClassVar[PromptKind] = "soft"

    dimension: int | None = 500
    population: int | None = 20
    alpha: float = 1.0
    basis: Basis | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        check_ranges(self, {"dimension": 2, "population": 4}, ("alpha",))
        if self.basis is not None:
            check_choice("basis", self.basis, Basis)

    def run(self, objective: Objective, space: SoftSpace, rng: np.random.Generator) -> None:
        """See `Optimiser.run`."""
        if self.basis == "tokens":
            lm = objective.lm
            table = lm.embeddings()[list(space.tokens or commonest(lm, typable_tokens(lm)))]
            dimension = self._dimension(objective.affordable())
            space = space.superposed(dimension, table, rng, alpha=self.alpha)
        super().run(objective, space, rng)

    def _dimension(self, n_prompts: int) -> int:
        """Coordinates of the subspace at a budget of so many prompts."""
        return dimension_for(n_prompts) if self.dimension is None else self.dimension

    def ask(self, space: SoftSpace, n_prompts: int, rng: np.random.Generator) -> Proposals:
        """See `AskTell.ask`."""
        if space.basis is None:
            space = space.subspace(self._dimension(n_prompts), rng, alpha=self.alpha)
        dimension = space.dimension
        evolving = generations(dimension, n_prompts, self.population, rng)
        points = next(evolving)
        while True:
            evaluation = yield [space.prompt(z) for z in points]
            points = evolving.send(evaluation.rewards)
