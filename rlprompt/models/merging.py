"""PEFT adapters that are inside a model, merged into the weights of a copy that is to be trained.

A model may be given with them, and one of quantised or spread weights is loaded with its own beside
these (`adapters`). Whoever puts a new adapter on such a model has PEFT write over the old one.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlprompt._utils.text import first_line
from rlprompt.models.examination import agree, some_ids
from rlprompt.models.memory import out_of_memory
from rlprompt.models.weights import stays_as_loaded

DIFFERS = "merged, it says something else, as where it changes one end of tied embeddings"


def has_adapter(model: PreTrainedModel) -> bool:
    """Whether layers of PEFT are inside.

    >>> has_adapter(torch.nn.Linear(2, 3))
    False
    """
    return any(type(one).__module__.partition(".")[0] == "peft" for one in model.modules())


def merged(model: PreTrainedModel) -> PreTrainedModel:
    """The model with its active adapters in its weights and no layer of PEFT's, in place.

    Args:
        model: Any; one without an adapter is left as it is.

    Raises:
        ValueError: An adapter is of a kind that is no change of weights.
        NotImplementedError: PEFT cannot merge it.
    """
    if not has_adapter(model):
        return model
    from peft.tuners.tuners_utils import BaseTunerLayer

    done = ""
    for name, module in list(model.named_modules()):  # outer ones first
        layer: Any = module
        if done and name.startswith(done):
            continue
        if hasattr(layer, "unload_and_optionally_merge_module"):  # modules that were trained whole
            whole = {"merge": True, "safe_merge": False, "adapter_names": None}
            plain = layer.unload_and_optionally_merge_module(**whole)
        elif isinstance(layer, BaseTunerLayer):
            layer.merge()
            plain = layer.get_base_layer()
        else:
            continue
        model.set_submodule(name, plain)
        done = f"{name}."
    vars(model).pop("peft_config", None)
    if has_adapter(model):
        raise ValueError("it does more than change weights")
    return model


def merged_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy in float32 with its active adapters merged, see `merged`."""
    return merged(_float_copy(model))


@torch.no_grad()
def merge_obstacle(model: PreTrainedModel) -> str:
    """Why `merged` gives no copy that says the same, or ""; it tries on one, in float32."""
    if not has_adapter(model):
        return ""
    kept = stays_as_loaded(model)
    if kept:
        return kept
    try:
        copied = _float_copy(model)
        ids = some_ids(copied)
        expected = _logits(copied, ids)
        found = _logits(merged(copied), ids)
    except Exception as error:  # those of PEFT are of any kind
        if out_of_memory(error):
            raise
        return first_line(error)
    return "" if agree(expected, found) else DIFFERS


def _float_copy(model: PreTrainedModel) -> PreTrainedModel:
    return torch.nn.Module.float(copy.deepcopy(model))


def _logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    made: Any = model
    return cast(Tensor, made(ids, attention_mask=torch.ones_like(ids), use_cache=False).logits)
