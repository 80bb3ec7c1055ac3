"""CMA-ES over soft prompts in a random subspace."""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rlprompt._utils.suggest import check_choice
from rlprompt.agents.shared.ranges import check_ranges
from rlprompt.search.objective import Objective
from rlprompt.search.optimiser import AskTell, Proposals
from rlprompt.search.space import SoftSpace
from rlprompt.search.vocabulary import commonest, typable_tokens
from rlprompt.types import Floats, PromptKind

# A full covariance is learnt in about 1000 evaluations a dimension (Nevergrad's documentation,
# "Optimizers"). At Black-Box Tuning's 8000 evaluations for 500 dimensions, pycma's own learning
# rates replace 1.7 % of the full matrix and 97.5 % of a diagonal one.
EVALUATIONS_A_DIMENSION = 1000
# Where the dimension comes from the budget. Ours: 100 prompts are then 8 generations of 12 in 20
# dimensions, and Black-Box Tuning's 8000 prompts have 16 for each of its 500. No default, for dev
# is against it at 3,200 rows: 0.677 over nine cells, and 0.741 by 500 and 20.
PROMPTS_A_DIMENSION = 5
MOST_DIMENSIONS = 500

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
        dimension: Coordinates of the subspace, d. Black-Box Tuning's 500, which are meant for 8,000
            prompts. None for a fifth of the prompts that the budget covers, 2 to 500.
        population: Prompts of a generation, scored together. Black-Box Tuning's 20. None for
            pycma's default, 4 + 3 ln d (Hansen 2016, arXiv 1604.00772, table 1).
        alpha: How far the first generation spreads, in standard deviations of the model's
            embeddings. 1 in Black-Box Tuning, whatever the budget.
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
        if self.dimension is not None and self.dimension < 2:
            raise ValueError(
                f"dimension is 2 or more, or None for one by the budget, got {self.dimension}"
            )
        if self.population is not None and self.population < 4:
            raise ValueError(
                f"population is 4 prompts or more, or None for one by the dimension, got "
                f"{self.population}"
            )
        check_ranges(self, {}, ("alpha",))
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


def dimension_for(n_prompts: int) -> int:
    """Coordinates of which so many prompts can tell something."""
    return max(2, min(MOST_DIMENSIONS, n_prompts // PROMPTS_A_DIMENSION))


def generations(
    dimension: int, n_prompts: int, population: int | None, rng: np.random.Generator
) -> Generator[list[NDArray[np.float64]], Floats, None]:
    """Points around 0 to score, a generation after another; it is sent the rewards of each.

    The first spreads by 1. Where a strategy stops, another begins with twice the population.

    Args:
        dimension: Coordinates of a point.
        n_prompts: Points that the budget covers.
        population: As for `CMAES`.
        rng: The only source of randomness.
    """
    with warnings.catch_warnings():
        # Without matplotlib it cannot plot, which nothing here asks of it.
        warnings.filterwarnings("ignore", "Could not import matplotlib")
        import cma  # half a second that other methods need not wait for

    diagonal = n_prompts < EVALUATIONS_A_DIMENSION * dimension
    population = population or 4 + int(3 * math.log(dimension))
    while True:
        options = _options(population, diagonal, rng)
        strategy = cma.CMAEvolutionStrategy(np.zeros(dimension), 1.0, options)
        while not strategy.stop():
            points = strategy.ask()
            rewards = yield points
            # pycma minimises: the one place where the sign of a reward is turned.
            strategy.tell(points, (-rewards).tolist())
        population *= 2


def _options(population: int, diagonal: bool, rng: np.random.Generator) -> dict[str, Any]:
    return {
        "popsize": population,
        "CMA_diagonal": diagonal,
        # Any other seed is given to numpy's global generator. With NaN that one is left alone and
        # all numbers come from `randn`.
        "seed": math.nan,
        "randn": lambda *shape: rng.standard_normal(shape),
        # From -10 down pycma also reads no signal file in the working directory.
        "verbose": -10,
        # A reward with few values, such as an accuracy, ties often: that is no reason to stop.
        "tolflatfitness": math.inf,
        "tolfun": 0,
        "tolfunhist": 0,
        "tolstagnation": 0,
        "maxiter": math.inf,
    }
