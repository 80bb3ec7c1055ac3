"""GGUF files of tiny Llamas, written as llama.cpp's converter names things."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter
from tiny import CONTEXT, HIDDEN, tiny_model, tiny_tokenizer

# Names of transformers, and those of a GGUF file.
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "model.layers": "blk",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(
    path: Path,
    said: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
    without: str = "",
) -> Path:
    """Write one of `tiny_model()`.

    Args:
        path: What it is called.
        said: More of the header: strings, floats and whole numbers.
        more: Further tensors.
        without: What a tensor's name begins with that is left out.
    """
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(2)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(HIDDEN // 4)
    writer.add_layer_norm_rms_eps(1e-6)
    tokenizer: Any = tiny_tokenizer()
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token.startswith("<") else 1 for token in vocabulary])
    writer.add_token_merges(["Ġ g", "Ġg o"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for key, value in (said or {}).items():
        add: dict[type, Callable[[str, Any], None]] = {
            str: writer.add_string,
            float: writer.add_float32,
            int: writer.add_uint16,
        }
        add[type(value)](key, value)
    tensors = dict[str, Any](more or {})
    for name, tensor in tiny_model().named_parameters():
        for theirs, own in _NAMES.items():
            name = name.replace(theirs, own)
        tensors[name] = tensor.detach().numpy()
        if name.endswith(("attn_q.weight", "attn_k.weight")):  # halves of a head go in turn there
            n_heads = 4 if "attn_q" in name else 2
            tensors[name] = (
                tensors[name].reshape(n_heads, 2, -1, HIDDEN).swapaxes(1, 2).reshape(-1, HIDDEN)
            )
    for name, numbers in tensors.items():
        if not (without and name.startswith(without)):
            writer.add_tensor(name, np.asarray(numbers, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
