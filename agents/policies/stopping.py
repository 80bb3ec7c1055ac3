"""How often a policy over tokens ends a prompt before anything is learnt."""

from __future__ import annotations

import torch
from torch import Tensor

from rlprompt.search.space import TokenSpace

# Probability of a stop where one is allowed, before anything is learnt. Ours: of prompts of 1 to 5
# tokens two in three have 5, and one in ten each other length or a little less.
STOP = 0.1
# Share that a search's starts have in what is written at first. Ours: of five tokens half are kept
# at first, so that most prompts are neighbours of a start and few are the start again.
LEAN = 0.5


def stop_prior(space: TokenSpace) -> Tensor:
    """Probability of a stop after each number of tokens (L,), before anything is learnt.

    `STOP`, and where a search has starts, half of it as often as these end there.
    """
    prior = torch.full((space.length,), STOP)
    lengths = torch.tensor([len(start) for start in space.starts])
    for position in range(space.length):
        there = lengths[lengths >= position]
        if len(there):
            ends = float((there == position).float().mean())
            prior[position] = (1 - LEAN) * STOP + LEAN * ends
    return prior
