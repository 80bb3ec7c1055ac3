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
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

# The logits of one token differ by a nat or more from those of another scale.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
TOLERANCE_16_BIT = 0.05


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

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., W), in the layer's dtype."""
        return self.finish(self.layer(hidden))

    def finish(self, raw: Tensor) -> Tensor:
        """Logits of what the layer gives."""
        scaled = raw if self.scale == 1 else raw * self.scale
        return scaled if self.cap is None else torch.tanh(scaled / self.cap) * self.cap


def find_head(model: PreTrainedModel, raw: Tensor, logits: Tensor) -> Head | None:
    """The head of a causal model, or None where it does more than a `Head`.

    Args:
        model: The model.
        raw: What its output layer gave, of any shape.
        logits: What the model made of that.
    """
    layer: nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    raw, logits = raw.float(), logits.float()
    if raw.shape != logits.shape or not hasattr(layer, "weight"):
        return None
    tolerance = TOLERANCE.get(model.dtype, TOLERANCE_16_BIT) * float(logits.abs().max())
    for head in _possible(layer, model.config.get_text_config()):
        if float((head.finish(raw) - logits).abs().max()) <= tolerance:
            return head
    return None


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
