"""A Gaussian for each vector of a soft prompt, chosen one after the other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rlprompt.agents.policies.features import Position
from rlprompt.envs.embedding_prompt import EmbeddingEpisodes
from rlprompt.search.objective import Objective
from rlprompt.search.space import SoftSpace

# Spread of the first actions over vectors, which end at -1 and 1: 5 % of them are cut there.
SIGMA = 0.5


def gaussian(
    objective: Objective,
    space: SoftSpace,
    rng: np.random.Generator,
    prompts: int,
    dimension: int,
    alpha: float,
) -> tuple[EmbeddingEpisodes, dict[str, Any]]:
    """Prompts in a random subspace of each vector, and keyword arguments of a policy of theirs.

    Args:
        objective: What prompts are scored by.
        space: Its vectors are those of a start.
        rng: Draws the subspaces.
        prompts: Prompts side by side.
        dimension: Coordinates of a vector.
        alpha: How far the first prompts spread, in standard deviations of the embeddings.
    """
    subspace = space.stepwise(dimension, rng, sigma=SIGMA, alpha=alpha)
    kwargs = {
        "log_std_init": math.log(SIGMA),
        "features_extractor_class": Position,
        "features_extractor_kwargs": {"length": space.length},
    }
    return EmbeddingEpisodes(objective, subspace, prompts), kwargs
