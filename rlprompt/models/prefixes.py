"""Prefix prompts of what a causal model makes of others: where a search for them begins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from rlprompt.models.packed.model import PackedModel
from rlprompt.models.request import Limits, prepare_soft
from rlprompt.models.weights import input_device
from rlprompt.prompt import SoftPrompt
from rlprompt.template import Query

# A text behind the prompts, which is not read.
ANY = Query((), (0,), ((0,),))


@torch.no_grad()
def keys_and_values(
    packed: PackedModel | None, limits: Limits, prompts: Sequence[SoftPrompt]
) -> NDArray[np.float32]:
    """What the layers make of soft prompts of one length, each read by itself from position 0.

    Args:
        packed: The model; None where it cannot be packed.
        limits: What it takes.
        prompts: (P,) of them.

    Returns:
        (P, L, layers, 2, heads, width), the vectors of prefix prompts.

    Raises:
        ValueError: The model takes no prefix prompts, or not these soft prompts.
    """
    limits.position_shape  # noqa: B018  # which refuses
    request = prepare_soft(limits, prompts, [ANY])
    assert packed is not None
    known = packed.extend(None, request.ids, request.on(input_device(packed.model)))
    rows = torch.stack([one for one in known if one is not None]).permute(0, 4, 1, 2, 3, 5)
    found: NDArray[np.float32] = rows.float().contiguous().cpu().numpy()
    return found
