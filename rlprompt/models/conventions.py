"""What a model's config and tokenizer say: its kind, its longest text, how texts start and end."""

from __future__ import annotations

from typing import Any, cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto import modeling_auto

from rlprompt.types import ModelKind

# Stands for the first gap of a text in T5, mT5, UMT5, LongT5 and their kin.
SENTINEL = "<extra_id_0>"

# What transformers calls layers that attend to a sliding window.
SLIDING = "sliding_attention"

# What configs call positions that are scaled by other factors in a long text (Ding et al. 2024,
# arXiv 2402.13753).
LONGROPE = ("longrope", "su")


def model_kind(config: Any, class_name: str = "") -> ModelKind:
    """How a model answers, from its config, or else from the name of its class.

    Raises:
        ValueError: It is no language model.
    """
    if config.is_encoder_decoder:
        return "encoder-decoder"
    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    masked = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    names = set(getattr(config, "architectures", None) or ())
    kind = config.model_type
    if names & {causal.get(kind)} or (kind in causal and kind not in masked):
        return "causal"
    if kind in masked:
        return "causal" if getattr(config, "is_decoder", False) else "masked"
    if hasattr(config, "text_config") and config.get_text_config() is not config:
        return model_kind(config.get_text_config(), class_name)
    if class_name in causal.values():
        return "causal"
    raise ValueError(
        f"a model of type {kind!r} is no language model that can score prompts; "
        "causal, masked and encoder-decoder models can"
    )


def packing_obstacle(model: PreTrainedModel, kind: ModelKind) -> str | None:
    """Why a model cannot be packed, from its kind and config, or None."""
    if kind != "causal":
        return f"{kind} models see the prompt from everywhere"
    config: Any = model.config.get_text_config()
    layers = set(getattr(config, "layer_types", None) or ()) - {"full_attention", SLIDING}
    if layers:
        return f"it has layers of type {', '.join(sorted(layers))}"
    head = cast(Any, model).get_output_embeddings()
    if model.base_model is model:
        return "its layers and its output head are one model"
    if not isinstance(head, torch.nn.Linear):
        return "it has no plain linear output head"
    return None


def sliding_window(config: Any) -> int | None:
    """Tokens that a token attends to, itself included, in some layers or in all; None for all."""
    layers: list[str] | None = getattr(config, "layer_types", None)
    slides = SLIDING in layers if layers else getattr(config, "use_sliding_window", True)
    window: int | None = getattr(config, "sliding_window", None)
    return window if slides else None


def context_length(model: PreTrainedModel, kind: ModelKind) -> int | None:
    """Longest sequence that the model takes, in tokens; None where there is no limit.

    Of an encoder-decoder the longest text of its encoder (`n_positions`).
    """
    two = kind == "encoder-decoder"
    inner: Any = cast(Any, model).get_encoder() if two else model.base_model
    config: Any = (inner if two else model).config.get_text_config()
    names = ["max_position_embeddings", "max_encoder_position_embeddings", "n_positions"]
    if hasattr(config, "relative_attention_num_buckets"):
        names.remove("n_positions")  # of T5, whose positions are relative
    limit: int | None = next(filter(None, (getattr(config, name, None) for name in names)), None)
    embeddings = getattr(inner, "embeddings", None)
    table = getattr(embeddings, "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    if limit is not None and padding is not None:
        limit -= padding + 1  # RoBERTa counts positions from behind its pad's
    limit = min(filter(None, (limit, hashed_limit(config))), default=None)
    return None if (limit or 0) < 1 else limit


def n_positions(kind: ModelKind, n_text: int, n_answer: int) -> int:
    """How much of the context is taken by so many tokens of text and of an answer that are fed.

    >>> n_positions("causal", 9, 3), n_positions("encoder-decoder", 9, 3)
    (12, 9)
    """
    # A decoder counts for itself, and begins with two tokens at most (`decoder_start`).
    return max(n_text, n_answer + 2) if kind == "encoder-decoder" else n_text + n_answer


def rope_limits(model: PreTrainedModel, kind: ModelKind) -> tuple[int, ...]:
    """Lengths of text beyond which all positions of a text are scaled otherwise, rising.

    Those of LongRoPE within the context; () for most models. Dynamic scaling is no such: it begins
    beyond `max_position_embeddings`, which is the context.
    """
    config: Any = model.config.get_text_config()
    stated = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    parts = [stated, *(part for part in stated.values() if isinstance(part, dict))]
    own = getattr(config, "original_max_position_embeddings", None)
    found = {
        part.get("original_max_position_embeddings") or own
        for part in parts
        if (part.get("rope_type") or part.get("type")) in LONGROPE
    }
    context = context_length(model, kind)
    return tuple(sorted(b for b in found if b and (context is None or b < context)))


def hashed_limit(config: Any) -> int | None:
    """Tokens beyond which a text is hashed by rotations drawn anew at every pass, or None.

    Reformer's (Kitaev et al. 2020, arXiv 2001.04451): its scores would differ from call to call.
    """
    layers: list[str] = getattr(config, "attn_layers", None) or []
    if "lsh" not in layers:
        return None
    return min(int(getattr(config, f"{layer}_attn_chunk_length")) for layer in set(layers))


class BlockSparse:
    """Attention that is sparse in long texts (BigBird; Zaheer et al. 2020, arXiv 2007.14062).

    Args:
        model: Most have none.
        kind: How it answers.

    Attributes:
        limits: Lengths of text beyond which attention has another block, rising; up to the first of
            them it is full. () for most models.
    """

    def __init__(self, model: PreTrainedModel, kind: ModelKind) -> None:
        self.limits: tuple[int, ...] = ()
        if kind == "causal":
            return  # attention is full there
        reader = cast(Any, model).get_encoder() if kind == "encoder-decoder" else model
        parts = (part for part in reader.modules() if hasattr(part, "set_attention_type"))
        self._part: Any = next(parts, None)
        config: Any = getattr(self._part, "config", None)
        if getattr(config, "attention_type", None) == "block_sparse":
            block = int(config.block_size)
            first = (5 + 2 * config.num_random_blocks) * block
            self.limits = tuple(range(first, context_length(model, kind) or first + 1, block))

    def attend_as_alone(self, width: int) -> None:
        """Have a pass of up to `width` tokens a text read as by a model that has read no other.

        transformers goes over to full attention at the first short text, and stays there.
        """
        if self.limits:
            wanted = "original_full" if width <= self.limits[0] else "block_sparse"
            # It makes layers and gives them its weights: without numbers, none are drawn from
            # torch's generator, whose other draws do not depend on what was scored.
            with torch.device("meta"):
                self._part.set_attention_type(wanted)


def decoder_start(model: PreTrainedModel, name: str) -> tuple[int, ...]:
    """What the decoder of an encoder-decoder is given before it says anything of its own.

    As `generate` does it: the start token, and the first token that some checkpoints force, such
    as BART's `<s>` and a language of mBART.

    Raises:
        ValueError: The checkpoint names no token to start with.
    """
    settings: Any = cast(Any, model).generation_config
    named = (
        getattr(settings, "decoder_start_token_id", None),
        getattr(model.config, "decoder_start_token_id", None),
        getattr(settings, "bos_token_id", None),
    )
    start = next((token for token in named if isinstance(token, int)), None)
    if start is None:
        raise ValueError(
            f"{name} does not say what its decoder starts with; set "
            "model.generation_config.decoder_start_token_id to the id of that token"
        )
    forced = getattr(settings, "forced_bos_token_id", None)
    return (start,) if forced is None else (start, int(forced))


def special_ids(
    tokenizer: PreTrainedTokenizerBase, kind: ModelKind
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer puts around a text: (before, after), the latter not if causal."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    after = () if kind == "causal" else tuple(full[start + len(bare) :])
    return tuple(full[:start]), after


def gap_token(
    tokenizer: PreTrainedTokenizerBase, kind: ModelKind, name: str
) -> tuple[int | None, str]:
    """What stands in a text for the answer, id and text: a mask, or T5's first sentinel.

    None and "" where the answer follows the text.

    Raises:
        ValueError: A masked model's tokenizer has no mask.
    """
    if kind == "causal":
        return None, ""
    if kind == "masked":
        if tokenizer.mask_token_id is None:
            raise ValueError(
                f"{name} is a masked model and its tokenizer has no mask token; set "
                "tokenizer.mask_token to the token that it was trained with"
            )
        return cast(int, tokenizer.mask_token_id), str(tokenizer.mask_token)
    ids = tokenizer(SENTINEL, add_special_tokens=False)["input_ids"]
    return (ids[0], SENTINEL) if len(ids) == 1 and ids[0] != tokenizer.unk_token_id else (None, "")


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end what a model writes: those its checkpoint names, or the tokenizer's."""
    settings = getattr(model, "generation_config", None)
    named = getattr(settings, "eos_token_id", None)
    ids = tokenizer.eos_token_id if named is None else named
    return frozenset(ids if isinstance(ids, list) else () if ids is None else (ids,))
