"""What a model is found to do on a few tokens, before anything is asked of it.

A model that cannot be scored is refused here by name, with a sentence that says why, whatever its
type: what decides is what its forward pass does.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlprompt.models.head import Head, find_head
from rlprompt.models.memory import out_of_memory
from rlprompt.types import Ids, ModelKind

# Nats by which the same log-probabilities may differ: largest in float32, on average in 16 bits.
WIDE, NARROW = 1e-3, 0.3


def unwrap(model: Any) -> PreTrainedModel:
    """The model inside a `PeftModel`, its adapters in place; any other model as it is.

    Raises:
        ValueError: The adapters are not inside the model, as virtual tokens before every text are
            not: the positions of a text would not be those that were asked for.
    """
    find = getattr(model, "get_base_model", None)
    if find is None:
        return cast(PreTrainedModel, model)
    configs: dict[str, Any] = model.peft_config
    kinds = sorted({str(getattr(c.peft_type, "value", c.peft_type)) for c in configs.values()})
    if any(config.is_prompt_learning for config in configs.values()):
        raise ValueError(
            f"an adapter of type {', '.join(kinds)} puts virtual tokens of its own before every "
            "text, beside which no other prompt can be scored; take the base model "
            "(model.get_base_model()), and score such vectors as a SoftPrompt"
        )
    inner: PreTrainedModel = find()
    ids = torch.arange(1, 5, device=inner.device)[None]
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if inner.config.is_encoder_decoder:
        given["decoder_input_ids"] = ids
    with torch.no_grad():
        outer, own = model.eval()(**given).logits, inner.eval()(**given).logits
    if not _agree(outer, own):
        raise ValueError(
            f"an adapter of type {', '.join(kinds)} does more than change the model's weights, and "
            "cannot be scored; merge it (model.merge_and_unload()), or take the base model"
        )
    return inner


@torch.no_grad()
def examine(model: PreTrainedModel, kind: ModelKind, name: str, start: Ids) -> Head | None:
    """Run a model on a few tokens.

    Args:
        model: The model.
        kind: How it answers.
        name: What messages call it.
        start: What the decoder of an encoder-decoder begins with.

    Returns:
        Of a causal model its output head; None where it does more than a `Head`.

    Raises:
        ValueError: It does not run on token ids alone, gives no logits of each token, or is to be
            causal and looks ahead.
    """
    what = f"{name} cannot be scored: a model of type {model.config.model_type}"
    try:
        table = cast(Any, model).get_input_embeddings()
        n_vocabulary, _ = table.weight.shape
        ids = torch.arange(7, 19, device=model.device)[None] % n_vocabulary
        raw: list[Tensor] = []
        layer = cast(Any, model).get_output_embeddings()
        handle = None
        if isinstance(layer, nn.Module):
            handle = layer.register_forward_hook(lambda *call: raw.append(call[2]))
        try:
            logits = _logits(model, kind, ids, start)
        finally:
            if handle is not None:
                handle.remove()
        shorter = _logits(model, kind, ids[:, :5], start) if kind == "causal" else None
    except Exception as error:
        if out_of_memory(error):
            raise
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise ValueError(
            f"{what} does not run on token ids alone ({type(error).__name__}: {reason}); take a "
            "language model of texts"
        ) from error
    places = len(start) if kind == "encoder-decoder" else ids.shape[1]
    if not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[:2] != (1, places):
        shape = tuple(getattr(logits, "shape", ()))
        raise ValueError(
            f"{what} gives logits of shape {shape} for a text of {places} tokens, where those of "
            "each token are needed; take another language model"
        )
    if shorter is None:
        return None
    if not _agree(logits[:, :5], shorter):
        raise ValueError(
            f"{what} reads what follows a token before it says what follows, so it gives no "
            "probability of an answer; take a causal model"
        )
    return find_head(model, raw[0], logits) if len(raw) == 1 else None


def _logits(model: Any, kind: ModelKind, ids: Tensor, start: Ids) -> Any:
    if kind == "encoder-decoder":
        begun = torch.tensor([start], device=ids.device)
        return model(input_ids=ids, decoder_input_ids=begun, use_cache=False).logits
    return model(input_ids=ids, **({} if kind == "masked" else {"use_cache": False})).logits


def _agree(a: Tensor, b: Tensor) -> bool:
    """Whether logits (1, T, V) give the same log-probabilities."""
    if a.shape != b.shape:
        return False
    differences = (a.float().log_softmax(-1) - b.float().log_softmax(-1)).abs()
    if a.dtype == torch.float32:
        return float(differences.max()) < WIDE
    return float(differences.mean()) < NARROW
