"""What the frozen model would write next: which tokens go together, at no rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlprompt.search.objective import Objective
from rlprompt.types import Ids


@torch.no_grad()
def continued(
    objective: Objective,
    begun: Sequence[Ids],
    allowed: NDArray[np.int64],
    after: Sequence[Sequence[Ids]] = (),
) -> Tensor:
    """Probability of each allowed token after each beginning of a prompt.

    Args:
        objective: Where the frozen model is asked. One that tells no next token, as any that is
            not causal, finds all tokens alike.
        begun: (B,) tokens of a prompt so far, none or more.
        allowed: (N,) ids to choose from.
        after: What was asked before, as for `Objective.hidden`.

    Returns:
        (B, N) float32, each row a distribution, on the model's device.
    """
    lm = objective.lm
    if not lm.tells_next:
        return torch.full((len(begun), len(allowed)), 1 / len(allowed), device=lm.device)
    hidden = read(objective, begun, after)
    return lm.next_logits(hidden, allowed).float().softmax(-1)


def read(
    objective: Objective, begun: Sequence[Ids], after: Sequence[Sequence[Ids]] = ()
) -> NDArray[np.float32]:
    """What the model's output head is given after each beginning of a prompt.

    Args:
        objective: Where the frozen model is asked, which must be causal.
        begun: As for `continued`.
        after: As for `continued`.

    Returns:
        (B, W) float32.
    """
    tokenizer = objective.lm.tokenizer
    starts = (tokenizer.bos_token_id, tokenizer.eos_token_id, 0)
    start = next(token for token in starts if token is not None)
    calls = [[(start, *ids) for ids in call] for call in (*after, begun)]
    return objective.hidden(calls[-1], calls[:-1])
