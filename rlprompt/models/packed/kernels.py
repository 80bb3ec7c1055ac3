"""Faster ways to compute a frozen model's own modules on a CPU, in force only while scoring.

Three things that a general-purpose forward pass cannot know: the weights never change, so oneDNN
may keep them in the layout of its matrix product; a mask says who attends to whom, so grouped
attention is two batched products without repeating keys and values; and only a few tokens of the
last layer are read, so its MLP need not run on the others.

Nothing of the model is changed: modules get another `forward` inside `Kernels.applied` and their
own back after it. On a GPU there is nothing to gain and nothing is replaced but the last MLP.

>>> Kernels(nn.Linear(128, 128), room=1 << 20).packed_bytes
65536
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import SiLUActivation
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.pytorch_utils import Conv1D

from rlprompt.models.memory import out_of_memory
from rlprompt.models.weights import is_dense

logger = logging.getLogger(__name__)

Forward = Callable[[Tensor], Any]
Parts = tuple[nn.Module, nn.Module, nn.Module]
# Numbers below which a weight is not worth another layout.
SMALLEST = 1 << 14
# Inputs of a gate on trial: some types clamp what it makes of large ones, at 7 or 10.
SCALES = (1.0, 1e2, 1e4)
ATTENTION = "rlprompt"


class Kernels:
    """Replacements for a model's modules.

    Args:
        model: The frozen model. Its weights must not change as long as this lives.
        room: Bytes that packed weights may take beside the weights themselves.

    Attributes:
        packed_bytes: What they take.
        differ: Whether a module has what one that is replaced has, and computes otherwise.
    """

    def __init__(self, model: nn.Module, room: int) -> None:
        self._config: Any = getattr(model, "config", None)
        self._last_mlp = _last_mlp(model)
        self._beside: list[Any] = []
        self._forwards: dict[nn.Module, Forward] = {}
        self.packed_bytes = 0
        gated = {mlp: parts for mlp in model.modules() if (parts := _gated_parts(mlp))}
        # Asked wherever the model is, for it marks the model.
        fusible = {mlp: parts for mlp, parts in gated.items() if _is_gated(mlp, parts)}
        self.differ = len(fusible) < len(gated)
        on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
        # Its numbers are those of "sdpa", so it stands in for that one only.
        self._attends = on_cpu and getattr(self._config, "_attn_implementation", None) == "sdpa"
        if on_cpu:
            self._pack(model, room, fusible)

    def _pack(self, model: nn.Module, room: int, fusible: dict[nn.Module, Parts]) -> None:
        weights = {m: w for m in model.modules() if (w := _linear_weight(m)) is not None}
        size = sum(weight.nbytes for weight in weights.values())
        if size > room:
            logger.info("weights are not packed: %d MiB, room for %d", size >> 20, room >> 20)
            return
        packed = _pack_all(weights)
        self.packed_bytes = size if packed else 0
        self._forwards |= {m: layer.forward for m, layer in packed.items()}
        if packed:
            self._forwards |= {m: _fuse_mlp(m, parts, packed) for m, parts in fusible.items()}

    def drop(self) -> None:
        """Replace no layer any more, for the model says something else with them."""
        self._forwards, self.packed_bytes, self.differ = {}, 0, True

    @contextmanager
    def applied(self, read: Tensor | None = None) -> Iterator[None]:
        """Compute with the replacements.

        Args:
            read: For a pass under an additive mask, the flat indices into (B * T) of the only
                outputs that will be read. None for any other pass: attention stays as it is.
        """
        forwards = dict(self._forwards)
        mlp = self._last_mlp
        if mlp is not None and read is not None:
            forwards[mlp] = _only_at(read, forwards.get(mlp, mlp.forward), self._beside)
        attends = self._attends and read is not None
        # A forward of its own is that of a library that wraps modules: offloading, quantisation.
        before = {module: module.__dict__.get("forward") for module in forwards}
        try:
            # Into the instance's dictionary, past nn.Module.__setattr__: 0.1 us instead of 2.
            for module, forward in forwards.items():
                module.__dict__["forward"] = forward
            if attends:
                self._config._attn_implementation = ATTENTION
            yield
        finally:
            if attends:
                self._config._attn_implementation = "sdpa"
            for module, own in before.items():
                if own is None:
                    del module.__dict__["forward"]
                else:
                    module.__dict__["forward"] = own


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    position_bias: Tensor | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Grouped attention under an additive mask, as transformers calls it.

    Two batched products of (group * T) rows: 0.7 to 0.3 of the time of
    `scaled_dot_product_attention`, which first repeats keys and values (T of 80 to 5, 25 tokens of
    prefix, 9 heads on 3).

    Args:
        module: Not used.
        query: (B, heads, T, dim).
        key: (B, key heads, S + T, dim).
        value: As the keys, of any width.
        attention_mask: (B, 1, T, S + T), added to the scores.
        scaling: Of the scores; None for 1 / sqrt(dim).
        position_bias: (B or 1, heads, T, S + T), added as well.

    Returns:
        (B, T, heads, width of the values), and None where others give the attention weights.
    """
    n_rows, n_heads, n_new, dim = query.shape
    n_groups, n_all = key.shape[1], key.shape[2]
    grouped = query.reshape(n_rows, n_groups, -1, dim)  # (B, groups, heads / groups * T, dim)
    scores = grouped @ key.transpose(-1, -2)
    scores = scores.mul_(dim**-0.5 if scaling is None else scaling)
    scores = scores.view(n_rows, n_heads, n_new, n_all).add_(attention_mask)
    weights = (scores if position_bias is None else scores.add_(position_bias)).softmax(-1)
    mixed = weights.view(n_rows, n_groups, -1, n_all) @ value
    return mixed.view(n_rows, n_heads, n_new, -1).transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)


def _linear_weight(module: nn.Module) -> Tensor | None:
    """The weight (out, in) of a linear layer worth packing, None for any other module."""
    weight = None
    if "forward" in vars(module):
        return None  # computes more than its product
    if type(module) is nn.Linear:
        weight = module.weight
    elif type(module) is Conv1D:
        weight = module.weight.t()
    if weight is None or not is_dense(weight) or weight.numel() < SMALLEST:
        return None
    return weight


class PackedLinear:
    """A linear layer whose weight is laid out once for oneDNN.

    PyTorch's compiler uses these operators for frozen CPU models; they have no public name. On a
    core with AVX-512: 107 against 90 GFLOP/s at 160 rows or more, 81 against 35 at 5 rows.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.contiguous())

    def __call__(self, input: Tensor, activation: str = "none") -> Tensor:
        """`activation` ("none", "swish") of the layer's output; has no derivative."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(
            input, self.packed, self.bias, activation, [], ""
        )
        return out

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output, computed as usual where a gradient is wanted."""
        if input.requires_grad:
            return F.linear(input, self.weight, self.bias)
        return self(input)

    def agrees(self) -> bool:
        """Whether a few numbers come out as from the ordinary layer."""
        trial = torch.linspace(-1, 1, 3 * self.weight.shape[1]).view(3, -1).to(self.weight.dtype)
        expected = F.linear(trial, self.weight, self.bias).float()
        tolerance = 1e-2 * float(expected.abs().max())  # 16-bit rounding, no more
        return bool(((self(trial).float() - expected).abs() <= tolerance).all())


def _pack_all(weights: dict[nn.Module, Tensor]) -> dict[nn.Module, PackedLinear]:
    """Every layer packed, or none where the operators are missing or wrong."""
    try:
        packed = {m: PackedLinear(w, getattr(m, "bias", None)) for m, w in weights.items()}
        right = all(layer.agrees() for layer in packed.values())
    except (AttributeError, RuntimeError):
        right = False
    if not right:
        logger.info("weights are not packed: this build of PyTorch cannot, or does so wrongly")
    return packed if right else {}


def _gated_parts(mlp: nn.Module) -> Parts | None:
    """The layers of what looks like a gated MLP of the Llama shape: gate, up, down."""
    parts = [getattr(mlp, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    if "forward" in vars(mlp) or not isinstance(
        getattr(mlp, "act_fn", None), nn.SiLU | SiLUActivation
    ):
        return None
    found = [p for p in parts if isinstance(p, nn.Module) and _linear_weight(p) is not None]
    return (found[0], found[1], found[2]) if len(found) == 3 else None


@torch.no_grad()
def _is_gated(mlp: nn.Module, parts: Parts) -> bool:
    """Whether an MLP gives down(silu(gate) * up) of small numbers and of large ones, and no more.

    Some types have those parts and multiply, clamp or scale in between.
    """
    gate, up, down = (part.forward for part in parts)
    weight = _linear_weight(parts[0])
    assert weight is not None
    few = torch.linspace(-1, 1, 3 * weight.shape[1], device=weight.device).view(1, 3, -1)
    trial = (few * torch.tensor(SCALES, device=weight.device)[:, None]).to(weight.dtype)
    try:
        outs = mlp.forward(trial), down(F.silu(gate(trial)) * up(trial))
        # What overflows in float16 does so in both.
        found, expected = (out.float().nan_to_num(0, 0, 0) for out in outs)
        differences = (found - expected).norm(dim=-1)
        tolerance = max(1e-5, torch.finfo(weight.dtype).eps)
        return bool((differences <= tolerance * expected.norm(dim=-1)).all())
    except Exception as error:  # of a forward that is not ours, so any
        if out_of_memory(error):
            raise
        return False


def _fuse_mlp(mlp: nn.Module, parts: Parts, packed: dict[nn.Module, PackedLinear]) -> Forward:
    """A gated MLP with the gate's SiLU computed inside its matrix product."""
    gate, up, down = (packed[part] for part in parts)
    ordinary: Forward = mlp.forward
    skipped = [*parts, cast(nn.Module, mlp.act_fn)]

    def forward(x: Tensor) -> Any:
        # A hook wants to be called, also one that came after this.
        if x.requires_grad or any(m._forward_hooks or m._forward_pre_hooks for m in skipped):
            return ordinary(x)
        return down(gate(x, "swish").mul_(up(x)))

    return forward


def _last_mlp(model: nn.Module) -> nn.Module | None:
    """The MLP of the last layer, which computes each token by itself; None if not found."""
    n_layers = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_layers:
            mlp = getattr(module[-1], "mlp", None)
            return mlp if isinstance(mlp, nn.Module) else None
    return None


def _only_at(read: Tensor, forward: Forward, beside: list[Any]) -> Forward:
    """`forward` (B, T, H) at the flat places `read`; zeros elsewhere, where nobody looks.

    Args:
        read: The places.
        forward: What is done at them.
        beside: What else it gave the last time, as experts tell how they were chosen.
    """

    def at_reads(hidden_states: Tensor) -> Tensor | tuple[Any, ...]:
        flat = hidden_states.flatten(0, 1)
        out = torch.zeros_like(flat)
        if len(read):
            found = forward(flat[None, read])
            if isinstance(found, tuple):
                found, *beside[:] = found
            out = out.index_copy(0, read, found[0])
        out = out.view(hidden_states.shape)
        return (out, *beside) if beside else out

    return at_reads
