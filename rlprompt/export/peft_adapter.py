"""A prompt as an adapter that PEFT loads: two files, for which PEFT is not needed.

The format is that of prompt tuning in PEFT (https://huggingface.co/docs/peft, checked with 0.21.2):
`adapter_model.safetensors` holds one tensor, `prompt_embeddings`, and `PeftModel` puts its rows
before the embedded text. Rows are what a model's embedding module gives, before whatever the model
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
        rows: (N, H), N at least 1: what is put before the text.
        kind: How the model answers.
        model: What the model is called.
        revision: Its commit on the hub, or "".
    """
    config: dict[str, Any] = {
        "peft_type": "PROMPT_TUNING",
        "task_type": TASK_TYPES[kind],
        "base_model_name_or_path": model,
        "revision": revision or None,
        "num_virtual_tokens": len(rows),
        "token_dim": rows.shape[1],
        # The encoder alone gets the prompt; left out, PEFT would expect rows for a decoder too.
        "num_transformer_submodules": 1,
        # How rows would begin in training; they are all in the file.
        "prompt_tuning_init": "RANDOM",
        "inference_mode": True,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", "utf-8")
    tensors = {"prompt_embeddings": np.ascontiguousarray(rows, dtype=np.float32)}
    # Not save_file, which lets nobody else read it.
    content = safetensors.numpy.save(tensors, metadata={"format": "pt"})
    (folder / WEIGHTS).write_bytes(content)
