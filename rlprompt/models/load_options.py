"""What may be said of how a model is loaded (`load:`), checked before anything is read.

>>> checked_options({"attn_implementation": "eager"})
{'attn_implementation': 'eager'}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rlprompt._utils.suggest import advice

# Handed to `from_pretrained` of transformers as they are.
ALLOWED = (
    "attn_implementation",
    "cache_dir",
    "device_map",
    "local_files_only",
    "max_memory",
    "offload_buffers",
    "offload_folder",
    "quantization_config",
    "revision",
    "subfolder",
    "use_safetensors",
    "variant",
)
# What is said elsewhere, or not at all.
REFUSED = {
    "trust_remote_code": "it runs code that comes with the model; load the model yourself in "
    "Python, if you trust it, and give it to `FrozenLM(model, tokenizer)`",
    "dtype": "the dtype has a key of its own beside `model:`: `dtype: bfloat16`",
    "torch_dtype": "the dtype has a key of its own beside `model:`: `dtype: bfloat16`",
    "device": "the device has a key of its own beside `model:`: `device: cuda:1`",
    "token": "a study keeps what is given here; log in with `hf auth login`",
    "load_in_4bit": "say `quantization_config: {load_in_4bit: true}`",
    "load_in_8bit": "say `quantization_config: {load_in_8bit: true}`",
}


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON values, those of libraries' own classes as the mappings they stand for.

    Raises:
        ValueError: One is not known, is not allowed, or has a value that cannot be kept.
    """
    found = {key: _plain(value) for key, value in options.items()}
    for key, value in found.items():
        if key in REFUSED:
            raise ValueError(f"{key} cannot be given: {REFUSED[key]}")
        if key not in ALLOWED:
            raise ValueError(f"unknown key {key!r} of load{advice(key, ALLOWED)}")
        if key == "quantization_config" and not isinstance(value, Mapping):
            raise ValueError(
                f"quantization_config must be a mapping such as {{load_in_4bit: true}}, got "
                f"{value!r}"
            )
        if key == "quantization_config" and not {
            "quant_method",
            "load_in_4bit",
            "load_in_8bit",
        } & set(value):
            raise ValueError(
                "quantization_config names no method: give quant_method (bitsandbytes, "
                "torchao, ...) with its settings, or load_in_4bit or load_in_8bit"
            )
    try:
        made: dict[str, Any] = json.loads(json.dumps(found))
    except (TypeError, ValueError) as error:
        raise ValueError(f"a value cannot be kept with a study: {error}") from None
    return made


def _plain(value: Any) -> Any:
    to_dict = getattr(value, "to_dict", None)  # of transformers' quantisation configs
    return to_dict() if callable(to_dict) else value
