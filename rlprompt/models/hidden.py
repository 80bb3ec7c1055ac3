"""What a causal model has understood at the end of a text, for policies that build on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from rlprompt.models.lm import FrozenLM
from rlprompt.types import Ids


@torch.no_grad()
def last_hidden(lm: FrozenLM, texts: Sequence[Ids]) -> NDArray[np.float32]:
    """What the output head of a causal model is given at the end of each text.

    Args:
        lm: The model.
        texts: (B,) token ids, one or more each, computed in one forward pass.

    Returns:
        (B, W) float32, W as wide as the head's rows.

    Raises:
        ValueError: There is no text, one is empty, or the model is not causal.
    """
    if lm.kind != "causal":
        raise ValueError(f"{lm.name} is {lm.kind}; only a causal model goes on with a text")
    if not texts or not all(texts):
        raise ValueError("nothing to go on with: give texts of one token or more")
    longest = max(map(len, texts))
    # What stands behind a position cannot change what a causal model makes of it: no mask.
    padded = [(*text, *text[-1:] * (longest - len(text))) for text in texts]
    model: Any = lm.model  # transformers leaves this attribute untyped
    hidden = model.base_model(torch.tensor(padded, device=lm.device)).last_hidden_state
    last = hidden[torch.arange(len(texts)), [len(text) - 1 for text in texts]]
    return cast("NDArray[np.float32]", last.float().cpu().numpy())
