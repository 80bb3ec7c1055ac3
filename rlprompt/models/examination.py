"""What a model is found to do on a few tokens, before anything is asked of it.

A model that cannot be scored is refused here by name, with a sentence that says why, whatever its
type: what decides is what its forward pass does.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlprompt._utils.text import first_line
from rlprompt.models.head import Head, find_head
from rlprompt.models.memory import out_of_memory
from rlprompt.models.precision import check_finite
from rlprompt.models.scorer import embed
from rlprompt.models.weights import input_device, quantisation
from rlprompt.types import Ids, ModelKind

# Nats by which the same log-probabilities may differ: largest in float32, on average in 16 bits.
WIDE, NARROW = 1e-3, 0.3
MORE = "it makes more of a token than of its vector; search for tokens"
# Tokens of the shorter text that models are tried on.
SHORT = 5


def unwrap(model: Any, name: str) -> PreTrainedModel:
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
            f"{name or 'this model'} cannot be scored: its adapter ({', '.join(kinds)}) puts "
            "virtual tokens of its own before every text; take the base model "
            "(model.get_base_model())"
        )
    inner: PreTrainedModel = find()
    ids = torch.arange(1, 5, device=input_device(inner))[None]
    if not agree(outputs(model, ids), outputs(inner, ids)):
        raise ValueError(
            f"{name or 'this model'} cannot be scored: its adapter ({', '.join(kinds)}) does more "
            "than change the model's weights; merge it (model.merge_and_unload()), or take the "
            "base model (model.get_base_model())"
        )
    return inner


class Examined(NamedTuple):
    """What a model was found to do.

    Attributes:
        head: Of a causal model its output head; None where it does more than a `Head`.
        pads: Whether a text comes out the same where a longer one stands beside it.
    """

    head: Head | None
    pads: bool


@torch.no_grad()
def examine(model: PreTrainedModel, kind: ModelKind, name: str, start: Ids) -> Examined:
    """Run a model on a few tokens.

    Args:
        model: The model.
        kind: How it answers.
        name: What messages call it.
        start: What the decoder of an encoder-decoder begins with.

    Raises:
        ValueError: It does not run on token ids alone, gives no logits of each token, or is to
            write and looks ahead.
    """
    what = f"{name} cannot be scored: a model of type {model.config.model_type}"
    table = getattr(cast(Any, model).get_input_embeddings(), "weight", None)
    if table is None or table.ndim != 2:
        raise ValueError(f"{what} has no table of one vector for each token")
    longer = (*start, 1, 2)
    try:
        ids = some_ids(model)
        logits = _logits(model, kind, ids, longer)
        begun = _logits(model, kind, ids[:, :SHORT], longer)
        padded = _logits(model, kind, ids.repeat(2, 1), longer, cut=True)
    except Exception as error:
        if out_of_memory(error):
            raise
        raise ValueError(
            f"{what} does not run on token ids alone ({type(error).__name__}: {first_line(error)})"
        ) from error
    places = len(start) + 2 if kind == "encoder-decoder" else ids.shape[1]
    if not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[:2] != (1, places):
        shape = tuple(getattr(logits, "shape", ()))
        raise ValueError(
            f"{what} gives logits of shape {shape} for a text of {places} tokens, where those of "
            "each token are needed; take another language model"
        )
    found = logits.float().log_softmax(-1)
    if bool(found.isnan().any()):  # no two of them would agree
        check_finite(found, name, model.dtype)
    # Activations that are quantised by a whole batch differ a little with what is beside them.
    exact = not quantisation(model)
    known = begun.shape[1]
    whole = _logits(model, kind, ids, start) if kind == "encoder-decoder" else begun
    if kind != "masked" and not agree(logits[:, : whole.shape[1]], whole, exact):
        raise ValueError(
            f"{what} says something else after the same text when more text follows, so it gives "
            "no probability of an answer; take another causal or encoder-decoder model"
        )
    if kind == "encoder-decoder" and not agree(padded[:1], logits, exact):
        raise ValueError(f"{what} decodes otherwise from its encoder's output than from the text")
    head = find_head(model, ids) if kind == "causal" else None
    return Examined(head, agree(padded[1:, :known], begun, exact))


@torch.no_grad()
def vectors_obstacle(
    model: PreTrainedModel, kind: ModelKind, start: Ids, mask_id: int | None
) -> str | None:
    """Why a token's vector does not stand for the token, or None where it does.

    Some types look at the ids as well (Gemma-3n's vectors of every layer, DeepSeek-V4's routes,
    ESM's masks).
    """
    ids = some_ids(model)
    if mask_id is not None:
        ids[0, 3] = mask_id
    expected = _logits(model, kind, ids, start)
    try:
        found = _logits(model, kind, ids, start, vectors=embed(model, ids, None))
    except Exception as error:
        if out_of_memory(error):
            raise
        told = f"{type(error).__name__}: {first_line(error)}"
        return f"it does not run on vectors ({told}); search for tokens"
    return None if agree(expected, found) else MORE


def some_ids(model: Any, count: int = 12) -> Tensor:
    """A text of so many different tokens, (1, T), as far as the vocabulary has them."""
    n_vocabulary = len(model.get_input_embeddings().weight)
    return torch.arange(7, 7 + count, device=input_device(model))[None] % n_vocabulary


@torch.no_grad()
def outputs(model: Any, ids: Tensor, **options: bool) -> Tensor:
    """What a model of any kind makes of ids (1, T): logits, or hidden states where it has none.

    An encoder-decoder is fed them at both ends.
    """
    given: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **options}
    if model.config.is_encoder_decoder:
        given["decoder_input_ids"] = ids
    made = torch.nn.Module.eval(model)(**given)
    return cast(Tensor, made["logits"] if "logits" in made else made[0])


def _logits(
    model: Any,
    kind: ModelKind,
    ids: Tensor,
    fed: Ids,
    *,
    cut: bool = False,
    vectors: Tensor | None = None,
) -> Any:
    """Logits of ids (B, T), of which the last row is cut to `SHORT` tokens if asked for.

    Of vectors (B, T, H) in their place, where these are given. A text of an encoder-decoder goes
    through the encoder by itself then, as where it is scored.
    """
    mask = torch.ones_like(ids)
    if cut:
        mask[-1, SHORT:] = 0
    given: dict[str, Any] = {"attention_mask": mask}
    text = {"input_ids": ids * mask} if vectors is None else {"inputs_embeds": vectors}
    if kind == "encoder-decoder" and (cut or vectors is not None):
        text = {"encoder_outputs": model.get_encoder()(**text, **given)}
    if kind == "encoder-decoder":
        given["decoder_input_ids"] = torch.tensor([fed] * len(ids), device=ids.device)
    if kind != "masked":
        given["use_cache"] = False
    return model(**text, **given).logits


def agree(a: Tensor, b: Tensor, exact: bool = True) -> bool:
    """Whether logits (1, T, V) give the same log-probabilities; `exact` where float32 is."""
    if a.shape != b.shape:
        return False
    differences = (a.float().log_softmax(-1) - b.float().log_softmax(-1)).abs()
    if a.dtype == torch.float32 and exact:
        return float(differences.max()) < WIDE
    return float(differences.mean()) < NARROW
