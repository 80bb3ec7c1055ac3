"""Weights quantised without a library: in a layer that unpacks, and in tensors of their own."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree
from transformers import PreTrainedModel

Quantised = tuple[Tensor, Tensor]


def rounded(weight: Tensor) -> Quantised:
    """A weight (out, in) as int8 and a scale for each row (out, 1)."""
    scale = weight.abs().amax(1, keepdim=True) / 127
    return (weight / scale).round().to(torch.int8), scale


class UnpackingLinear(nn.Module):
    """A linear layer that keeps int8 in a buffer, as GPTQ and its like do."""

    def __init__(self, dense: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = dense.in_features, dense.out_features
        packed, scale = rounded(dense.weight.data)
        self.register_buffer("packed", packed)
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        packed, scale = self.get_buffer("packed"), self.get_buffer("scale")
        return F.linear(x, packed * scale)


class Int8Weight(Tensor):
    """A tensor that says it is float32 and holds int8, as torchao's do."""

    packed: Tensor
    scale: Tensor

    @staticmethod
    def __new__(cls, packed: Tensor, scale: Tensor) -> Int8Weight:
        make: Any = Tensor._make_wrapper_subclass
        made: Int8Weight = make(cls, packed.shape, dtype=scale.dtype)
        made.packed, made.scale = packed, scale
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["packed", "scale"], None

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].packed, args[0].scale)
        dense = _pytree.tree_map_only(cls, lambda one: one.packed * one.scale, (args, kwargs or {}))
        return func(*dense[0], **dense[1])


def with_layers(model: PreTrainedModel) -> PreTrainedModel:
    """The model with its inner linear layers replaced by ones that unpack."""
    for layer in model.base_model.layers:  # type: ignore[union-attr]
        for part in (layer.self_attn, layer.mlp):
            for name, child in list(part.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(part, name, UnpackingLinear(child))
    return model


def with_tensors(model: PreTrainedModel) -> PreTrainedModel:
    """The model with the weights of its inner linear layers as tensors of their own."""
    for layer in model.base_model.layers:  # type: ignore[union-attr]
        for child in (*layer.self_attn.children(), *layer.mlp.children()):
            if isinstance(child, nn.Linear):
                weight = Int8Weight(*rounded(child.weight.data))
                child.weight = nn.Parameter(weight, requires_grad=False)
    return model
