"""A prompt as an adapter that PEFT loads: two files, for which PEFT is not needed.

The format is that of prompt tuning in PEFT (https://huggingface.co/docs/peft, checked with 0.21.2):
`adapter_model.safetensors` holds one tensor, `prompt_embeddings`, and `PeftModel` puts its rows
before the embedded text; or that of prefix tuning, where a row is all keys and values of a
position, layer by layer, and `PeftModel` gives them to the model as what it has read already. Rows
of prompt tuning are what a model's embedding module gives, before whatever the model
does to them (Gemma multiplies them by the root of their width), as a soft prompt's vectors are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from rlprompt.types import ModelKind

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# PEFT has no class for masked models; the one for features leaves the output as the model gives it.
TASK_TYPES: dict[ModelKind, str] = {
    "causal": "CAUSAL_LM",
    "encoder-decoder": "SEQ_2_SEQ_LM",
    "masked": "FEATURE_EXTRACTION",
}


def write_adapter(
    folder: Path, rows: NDArray[np.float32], kind: ModelKind, model: str, revision: str
) -> None:
    """Write both files.

    Args:
        folder: Where to.
        rows: (N, H), N at least 1: what is put before the text; or (N, layers, 2, heads, width).
        kind: How the model answers.
        model: What the model is called.
        revision: Its commit on the hub, or "".
    """
    config: dict[str, Any] = {
        "task_type": TASK_TYPES[kind],
        "base_model_name_or_path": model,
        "revision": revision or None,
        "num_virtual_tokens": len(rows),
        # The encoder alone gets the prompt; left out, PEFT would expect rows for a decoder too.
        "num_transformer_submodules": 1,
        "inference_mode": True,
    }
    if rows.ndim == 2:
        # How rows would begin in training; they are all in the file.
        config |= {"peft_type": "PROMPT_TUNING", "prompt_tuning_init": "RANDOM"}
        config["token_dim"] = rows.shape[1]
    else:
        _, n_layers, _, n_heads, width = rows.shape
        config |= {"peft_type": "PREFIX_TUNING", "prefix_projection": False}
        config |= {"num_layers": n_layers, "num_attention_heads": n_heads}
        config["token_dim"] = n_heads * width
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", "utf-8")
    flat = np.ascontiguousarray(rows.reshape(len(rows), -1), dtype=np.float32)
    tensors = {"prompt_embeddings": flat}
    # Not save_file, which lets nobody else read it.
    content = safetensors.numpy.save(tensors, metadata={"format": "pt"})
    (folder / WEIGHTS).write_bytes(content)
