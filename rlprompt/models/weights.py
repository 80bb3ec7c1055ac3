"""What a model's weights are: dense or quantised, how many, and their bytes wherever they lie.

Whether weights are quantised is decided here, once, when a model is loaded; dtype, packing and
fingerprint follow from it. Quantised are weights that another layer than PyTorch's own unpacks
(bitsandbytes, GPTQ), tensors of a class of their own (torchao), and numbers of 8 bits or fewer.

>>> quantisation(nn.Linear(2, 3)), n_parameters(nn.Linear(2, 3))
('', 9)
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from typing import Any, cast

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn

# Types of numbers that a model computes in.
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# Those that a person may ask for, by name.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def is_dense(tensor: Tensor) -> bool:
    """Whether a weight is one plain number an element, of a type to compute in."""
    return type(tensor.data) is Tensor and tensor.dtype in FLOATS


def quantisation(model: nn.Module) -> str:
    """How weights are quantised: the method that the config names, the class or dtype, or "".

    What was quantised in its file and is dense now (GGUF) is not.
    """
    method, _ = _named(model)
    if method and method != "gguf":
        return method
    return next(
        (
            type(p.data).__name__ if type(p.data) is not Tensor else str(p.dtype)
            for module in model.modules()
            for p in _own(module).values()
            if not is_dense(p) and (isinstance(p, nn.Parameter) or _is_linear(module))
        ),
        "",
    ).removeprefix("torch.")


def stays_as_loaded(model: nn.Module) -> str:
    """Why weights are neither moved nor changed to another dtype once they are loaded, or ""."""
    method = quantisation(model)
    if method:
        return f"its weights are quantised ({method})"
    if not is_spread(model):
        return ""
    places = {str(place) for place in cast(Any, model).hf_device_map.values()}
    return f"it is spread over {', '.join(sorted(places))}"


def is_spread(model: nn.Module) -> bool:
    """Whether a `device_map` has put parts of a model in different places."""
    return len(set(getattr(model, "hf_device_map", {}).values())) > 1


def input_device(model: nn.Module) -> torch.device:
    """Where a model wants its inputs: where its embeddings are computed, wherever they lie."""
    embedding: Any = model
    hook = getattr(embedding.get_input_embeddings(), "_hf_hook", None)
    place = getattr(hook, "execution_device", None)
    return torch.device(embedding.device if place is None else place)


def keep_layout(model: nn.Module) -> None:
    """Have bitsandbytes leave 4-bit weights in the layout that they were loaded in, and be quiet.

    On some CPUs it lays them out anew on the first pass, in place: products are then in bfloat16
    whatever the dtype, carry no gradient, and saving them loses digits.

    Raises:
        ValueError: It has done so already.
    """
    # It has a line for every product of 8 bits on a CPU.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            cast(Any, module).support_avx512bf16_for_cpu = False
            state = getattr(getattr(module, "weight", None), "quant_state", None)
            if getattr(state, "packing_format_for_cpu", False):
                raise ValueError(
                    "bitsandbytes has laid out the model's 4-bit weights for this processor, which "
                    "takes gradients and digits away; give the model before its first forward "
                    "pass, or have it loaded by FrozenLM.load"
                )


def stated_quantisation(model: nn.Module) -> str:
    """What a fingerprint says of it: the method, with a hash of its settings where it matters."""
    method, settings = _named(model)
    if not method or method == "gguf":
        return method or quantisation(model)
    text = json.dumps(settings, sort_keys=True, default=str)
    return f"{method} {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _named(model: nn.Module) -> tuple[str, dict[str, Any]]:
    """Method and settings of quantisation that a model's config names."""
    config: Any = getattr(getattr(model, "config", None), "quantization_config", None)
    if config is None:
        return "", {}
    settings = config if isinstance(config, dict) else config.to_dict()
    method = settings.get("quant_method", "")
    return str(getattr(method, "value", method)), settings


def n_parameters(model: nn.Module) -> int:
    """How many numbers the weights stand for, however many bits each takes; shared ones once."""
    seen, count = set[int](), 0
    for module in model.modules():
        own = _own(module)
        parameters = {id(p): p for p in own.values() if isinstance(p, nn.Parameter)}
        if _is_linear(module) and own and not seen & set(parameters):
            # Packed weights have another shape, and scales beside them that are no weights.
            count += int(module.in_features) * int(module.out_features)  # type: ignore[arg-type]
            count += own["bias"].numel() if "bias" in own else 0
        else:
            count += sum(_logical(p) for key, p in parameters.items() if key not in seen)
        seen |= set(parameters)
    return count


def _logical(parameter: nn.Parameter) -> int:
    """Numbers of a parameter; bitsandbytes has two in a byte, and says how many they are."""
    shape = getattr(getattr(parameter, "quant_state", None), "shape", None)
    return parameter.numel() if shape is None else int(torch.Size(shape).numel())


def _is_linear(module: nn.Module) -> bool:
    sizes = (getattr(module, "in_features", None), getattr(module, "out_features", None))
    return all(isinstance(size, int) for size in sizes)


def _own(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of a module itself."""
    return {
        **dict(module.named_parameters(recurse=False)),
        **dict(module.named_buffers(recurse=False)),
    }


def stored(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and plain tensors of all that a checkpoint of the model would hold, sorted by name.

    A tensor of a class of its own comes as the parts that it is made of. One that lies elsewhere
    (`device_map` with `disk` or `cpu`) is fetched for as long as it is looked at.
    """
    modules = dict(model.named_modules())
    for name, tensor in sorted(model.state_dict().items()):
        if not isinstance(tensor, Tensor):  # a module's own state, of any type
            yield name, torch.frombuffer(bytearray(repr(tensor).encode()), dtype=torch.uint8)
        elif tensor.is_meta:
            place, _, own = name.rpartition(".")
            with align_module_device(modules[place], "cpu"):
                yield from _parts(name, modules[place].state_dict()[own])
        else:
            yield from _parts(name, tensor)


def _parts(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if type(tensor.data) is not Tensor and hasattr(tensor, "__tensor_flatten__"):
        inner: Any = tensor
        names, _ = inner.__tensor_flatten__()
        for part in names:
            yield from _parts(f"{name}.{part}", getattr(tensor, part))
    else:
        yield name, tensor.detach().as_subclass(Tensor)
