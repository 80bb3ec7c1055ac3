"""What a test does on a GPU and, as far as that can be, on the CPU in its place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import pytest
import torch
from tiny import TinyKind, tiny_model, tiny_tokenizer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rlprompt.models.lm import FrozenLM
from rlprompt.models.memory import Memory
from rlprompt.models.packed.model import PackedModel

# Calls for which a GPU is waited: what they give lies on the CPU, or has a size that is looked up.
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim")
# Bytes that a cramped GPU has for activations, and new tokens of a pass that a cramped CPU has.
FEW_BYTES, FEW_TOKENS = 48 << 20, 200


def device_lm(
    device: str, kind: TinyKind = "llama", dtype: str = "float32", **settings: Any
) -> FrozenLM:
    """A tiny model on a device."""
    model = cast(Any, tiny_model(kind)).to(device, getattr(torch, dtype))
    return FrozenLM(model, tiny_tokenizer(kind), f"tiny-{kind}", **settings)


class _Watched(TorchDispatchMode):  # type: ignore[no-untyped-call]  # not annotated
    """Refuses what a GPU would be waited for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = [one for one in (args[1] if name == "index" else ()) if one is not None]
        if name in WAITS or any(mask.dtype == torch.bool for mask in masks):
            raise RuntimeError(f"called a synchronizing operation: {name}")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def no_waiting(device: str) -> Iterator[None]:
    """Whatever waits for the device is an error, as far as the CPU can tell in its place."""
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("called a synchronizing operation: a copy to the CPU")

    with pytest.MonkeyPatch.context() as patch, _Watched():  # type: ignore[no-untyped-call]
        for name in ("cpu", "numpy", "tolist"):
            patch.setattr(Tensor, name, refuse)
        yield


@contextlib.contextmanager
def passes(wrap: Any) -> Iterator[list[int]]:
    """Each pass runs inside `wrap()`; gives how many items each one had."""
    found: list[int] = []
    run = Memory.run

    def watched(self: Memory, items: list[Any], step: Any) -> None:
        def inside(own: list[Any]) -> None:
            found.append(len(own))
            with wrap():
                step(own)

        run(self, items, inside)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Memory, "run", watched)
        yield found


@contextlib.contextmanager
def cramped(device: str) -> Iterator[None]:
    """A device that has little memory left: a real limit on a GPU, a pretended one on a CPU."""
    if device == "cuda":
        torch.cuda.empty_cache()
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(
            (torch.cuda.memory_reserved() + FEW_BYTES) / whole
        )
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return
    forward = PackedModel.forward

    def small(self: PackedModel, layout: Any, *args: Any) -> Any:
        if layout.ids.size > FEW_TOKENS:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, layout, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackedModel, "forward", small)
        yield
