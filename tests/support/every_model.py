"""A tiny random model of every type that transformers maps to a language model.

`build("qwen3", "causal")` makes one from the type's own config class, its sizes made small: names
of sizes are much the same everywhere (`_SMALL`), and what is not is in `_OWN`.
"""

from __future__ import annotations

from typing import Any

import transformers
from tiny import CONTEXT, HIDDEN, randomised, tiny_tokenizer
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

from rlprompt.types import ModelKind

VOCABULARY = len(tiny_tokenizer())

MAPPINGS: dict[ModelKind, dict[str, str]] = {
    "causal": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "masked": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "encoder-decoder": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
}

_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads",
    "decoder_attention_heads", "num_encoder_attention_heads", "num_decoder_attention_heads",
    "attention_heads")  # fmt: skip
_WIDTHS = ("hidden_size", "d_model", "n_embd", "dim", "embedding_dim", "word_embed_proj_dim",
    "embedding_size", "emb_dim", "attention_hidden_size", "d_latents", "lru_width",
    "input_embedding_size", "output_embedding_size", "prediction_head_size")  # fmt: skip
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers",
    "decoder_layers", "num_encoder_layers", "num_decoder_layers", "num_blocks")  # fmt: skip
_INNER = ("intermediate_size", "decoder_ffn_dim", "encoder_ffn_dim", "ffn_dim", "d_ff", "dim_ff",
    "dff", "hidden_dim", "n_inner", "moe_intermediate_size", "d_inner", "feed_forward_size",
    "shared_expert_intermediate_size", "ffn_hidden_size", "intermediate_size_mlp",
    "expert_ffn_hidden_size", "shared_intermediate_size", "dense_intermediate_size",
    "shared_experts_intermediate_size", "moe_shared_expert_intermediate_size")  # fmt: skip
_SMALL: dict[str, Any] = {
    **dict.fromkeys(_HEADS, 4), **dict.fromkeys(_WIDTHS, HIDDEN), **dict.fromkeys(_LAYERS, 2),
    **dict.fromkeys(_INNER, 48),
    **dict.fromkeys(("vocab_size", "src_vocab_size", "tgt_vocab_size", "decoder_vocab_size",
        "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len",
        "max_encoder_position_embeddings", "max_decoder_position_embeddings",
        "max_source_positions", "max_target_positions", "context_length", "model_max_length"),
        CONTEXT),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads"), 2),
    "swa_num_attention_heads": 4,
    **dict.fromkeys(("head_dim", "d_kv", "dim_head", "kv_channels", "swa_head_dim", "d_head",
        "attention_head_size", "index_head_dim", "qk_nope_head_dim", "v_head_dim",
        "qk_rope_head_dim", "linear_key_head_dim", "linear_value_head_dim", "linear_head_dim"), 8),
    "qk_head_dim": 16,
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk",
        "n_group", "topk_group", "num_expert_group"), 1),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "o_lora_rank"), 8),
    "index_topk": 4, "index_n_heads": 32,
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "linear_num_heads"), 2),
    **dict.fromkeys(("sliding_window", "sliding_window_size", "attention_window_size"), 8),
    "rotary_dim": 4, "first_k_dense_replace": 1, "mamba_expand": 2,
}  # fmt: skip

_BY_LAYER = ("layer_types", "mlp_layer_types", "layers_block_type", "indexer_types",
    "no_rope_layers", "layer_rope_theta", "num_attention_heads_per_layer")  # fmt: skip

# What a type needs besides, or otherwise.
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1,
    "mamba_expand": 2}  # fmt: skip
_OWN: dict[str, dict[str, Any]] = {
    "bamba": _MAMBA | {"attn_layer_indices": [1], "hidden_size": HIDDEN},
    "granitemoehybrid": _MAMBA | {"hidden_size": HIDDEN},
    "falcon_h1": _MAMBA | {"mamba_d_ssm": 64},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1,
        "hidden_size": HIDDEN},
    "zamba2": {"mamba_headdim": 8, "n_mamba_heads": 8, "hidden_size": HIDDEN},
    "nemotron_h": {"mamba_num_heads": 4, "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 1},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "num_hidden_layers": 2},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "window_size": 64},
    "reformer": {"axial_pos_shape": [16, 16], "axial_pos_embds_dim": [16, 16]},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 1, "n_routed_experts": 4, "first_k_dense_replace": 1},
    "neomme": {"head_dim": 16},
    "fsmt": {"decoder_start_token_id": 2},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2},
    "esm": {"vocab_size": VOCABULARY, "mask_token_id": 3},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
    "luke": {"entity_vocab_size": 8},
    "roc_bert": {"shape_vocab_size": 8, "pronunciation_vocab_size": 8},
    "longformer": {"attention_window": 8},
    "led": {"attention_window": 8},
    "esmc": {"num_key_value_heads": 4},
    "dots3_note_text": {"num_key_value_heads": 4},
    "xmod": {"default_language": "en_XX"},
    "gemma3n_text": {"num_hidden_layers": 4, "num_kv_shared_layers": 2, "intermediate_size": 48,
        "layer_types": ["sliding_attention", "full_attention"] * 2},
}  # fmt: skip

# Of these no tiny model is made.
_DRAFTS = "drafts for another model, whose hidden states it needs"
_NO_SMALL = "no small config of it was found that runs"
NOT_TRIED = {
    "blt": _NO_SMALL,
    "cohere_compass_text": _NO_SMALL,
    "dots3_note": "a model of images and sound around dots3_note_text",
    "gemma3n": "a model of images and sound around gemma3n_text, whose eyes need timm",
    "gemma4_assistant": _DRAFTS,
    "gemma4_unified_assistant": _DRAFTS,
    "longcat_flash": _NO_SMALL,
    "musicflamingo": "a model of sound",
    "nemo_speechlm": "a model of sound",
    "qwen4_exp": "a model of images around qwen4_exp_text",
    "qwen4_exp_text": _NO_SMALL,
    "vibevoice_asr": "a model of sound, 16 s to make",
    "voxtral_realtime": "a model of sound",
    "zamba": _NO_SMALL,
    "zamba2": _NO_SMALL,
}

_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def build(model_type: str, kind: ModelKind, seed: int = 0) -> PreTrainedModel:
    """A model of this type, of wide random weights."""
    config: Any = CONFIG_MAPPING[model_type](**_fields(CONFIG_MAPPING[model_type], model_type))
    if model_type == "encoder-decoder":
        one = transformers.BertConfig(**_fields(transformers.BertConfig, "bert"))
        config = config.from_encoder_decoder_configs(one, one)
    if kind == "causal" and getattr(config, "is_decoder", None) is False:
        config.is_decoder = True
    if kind != "causal" and config.is_encoder_decoder:
        start = getattr(config, "decoder_start_token_id", None)
        known = isinstance(start, int) and 0 <= start < VOCABULARY
        config.decoder_start_token_id = start if known else 2
    model_class: Any = getattr(transformers, MAPPINGS[kind][model_type])
    for name, inner in getattr(config, "sub_configs", {}).items():
        if inner is model_class.config_class:
            config = getattr(config, name)  # as the auto classes do it
    return randomised(model_class(config).eval(), seed)


def _fields(config_class: Any, model_type: str) -> dict[str, Any]:
    """A small config's fields; of configs inside it too."""
    own = _OWN.get(model_type, {})
    known = config_class().to_dict()
    fields = {
        name: _SMALL[name]
        for name, value in known.items()
        if name in _SMALL and isinstance(value, int) and not isinstance(value, bool)
    }
    n_layers: int = next((own.get(n, fields[n]) for n in _LAYERS if n in fields), 2)
    if known.get("kv_lora_rank"):
        fields["num_key_value_heads"] = _SMALL["num_attention_heads"]
    for name in _BY_LAYER:
        if isinstance(known.get(name), list):
            fields[name] = _of_every_sort(known[name], n_layers)
    for name, inner in getattr(config_class, "sub_configs", {}).items():
        if isinstance(known.get(name), dict) and name not in own:
            kind = known[name].get("model_type", "")
            inner = inner if inner is not AutoConfig else CONFIG_MAPPING[kind]
            small = _fields(inner, kind)
            fields[name] = small if hasattr(inner, "sub_configs") else inner(**small)
    return fields | _TOKENS | own


def _of_every_sort(values: list[Any], n: int) -> list[Any]:
    """`n` of the values, of as many sorts as there are."""
    sorts = sorted(dict.fromkeys(values), key=str)
    return (sorts * n)[:n]
