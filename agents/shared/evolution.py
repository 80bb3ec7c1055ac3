"""Evolution of the coordinates of a prompt: how many there are, and the generations of CMA-ES."""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlprompt.types import Floats

# A full covariance is learnt in about 1000 evaluations a dimension (Nevergrad's documentation,
# "Optimizers"). At Black-Box Tuning's 8000 evaluations for 500 dimensions, pycma's own learning
# rates replace 1.7 % of the full matrix and 97.5 % of a diagonal one.
EVALUATIONS_A_DIMENSION = 1000
# Where the dimension comes from the budget. Ours: 100 prompts are then 8 generations of 12 in 20
# dimensions, and Black-Box Tuning's 8000 prompts have 16 for each of its 500. No default, for dev
# is against it at 3,200 rows: 0.677 over nine cells, and 0.741 by 500 and 20.
PROMPTS_A_DIMENSION = 5
MOST_DIMENSIONS = 500


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
