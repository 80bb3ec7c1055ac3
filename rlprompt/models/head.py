"""What a causal model makes of its last hidden states: a linear layer, a scale and a soft cap.

Cohere multiplies logits and Granite divides them by a number of its config, and Gemma-2 caps them:
cap * tanh(logits / cap). Configs name these numbers as they like (`logits_scaling` multiplies in
HyperCLOVA X), so what is done with them is found on the model's own logits.

>>> layer = nn.Linear(2, 3, bias=False)
>>> nn.init.ones_(layer.weight).shape
torch.Size([3, 2])
>>> Head(layer, scale=0.5, cap=4.0).logits(torch.tensor([[4.0, 4.0]]))[0, 0].item() / 4  # tanh(1)
0.7615941762924194
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

SPREAD = 100.0
# Of that; 16 bits round to 0.4 % of a number.
TOLERANCE = 0.005


@dataclass(frozen=True)
class Head:
    """An output head.

    Attributes:
        layer: From hidden states (..., W) to numbers (..., V).
        scale: What those are multiplied by.
        cap: What they are softly capped at, or None.
    """

    layer: nn.Module
    scale: float = 1.0
    cap: float | None = None

    @property
    def weight(self) -> Tensor:
        """Rows of the tokens, (V, W)."""
        return self.layer.get_parameter("weight")

    def logits(self, hidden: Tensor, among: Tensor | None = None) -> Tensor:
        """Logits (..., V) of hidden states (..., W), in the layer's dtype; (..., N) of ids (N,)."""
        if among is None:
            return self.finish(self.layer(hidden))
        if type(self.layer) is not nn.Linear or 2 * len(among) > len(self.weight):
            return self.logits(hidden)[..., among]
        bias = None if self.layer.bias is None else self.layer.bias[among]
        return self.finish(F.linear(hidden, self.weight[among], bias))

    def finish(self, raw: Tensor) -> Tensor:
        """Logits of what the layer gives."""
        scaled = raw if self.scale == 1 else raw * self.scale
        return scaled if self.cap is None else torch.tanh(scaled / self.cap) * self.cap


@torch.no_grad()
def find_head(model: PreTrainedModel, ids: Tensor) -> Head | None:
    """The head of a causal model, or None where it does more than a `Head`.

    Its output layer is made to give numbers from -`SPREAD` to `SPREAD`, so that a cap shows
    whatever the model's own logits are.

    Args:
        model: The model.
        ids: A text to run it on, (1, T).
    """
    layer = cast(Any, model).get_output_embeddings()
    if not isinstance(layer, nn.Module) or not hasattr(layer, "weight"):
        return None
    given: list[Tensor] = []

    def spread(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        numbers = torch.linspace(-SPREAD, SPREAD, output.shape[-1])
        given.append(numbers.to(output).expand_as(output))
        return given[-1]

    handle = layer.register_forward_hook(spread)
    try:
        logits: Tensor = cast(Any, model)(input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()
    if len(given) != 1 or given[0].shape != logits.shape:
        return None
    heads = list(_possible(layer, model.config.get_text_config()))
    errors = [float((head.finish(given[0]).float() - logits.float()).abs().max()) for head in heads]
    # Of equals the plainest.
    return heads[errors.index(min(errors))] if min(errors) <= TOLERANCE * SPREAD else None


def _possible(layer: nn.Module, config: Any) -> Iterator[Head]:
    """The plain layer first, then all that the config's numbers may mean."""
    numbers = {
        name: float(value)
        for name, value in config.to_dict().items()
        if isinstance(value, int | float) and not isinstance(value, bool) and value
    }
    scales = [v for name, v in numbers.items() if re.search("logits?_scal|head_multiplier", name)]
    caps = [v for name, v in numbers.items() if re.search("soft_?cap", name)]
    for cap in (None, *caps):
        for scale in (1.0, *scales, *(1 / scale for scale in scales)):
            yield Head(layer, scale, cap)
