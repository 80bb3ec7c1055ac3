"""What the header of a GGUF file says that transformers does not read.

transformers reads `rope.scaling.*` of gpt-oss alone, and of no type the tensors of factors by which
Llama-3.1 and Phi-3 turn positions; a model without them says something else, and the more so the
longer a text. Of a file that was split it reads one part, without a word of the others.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader

# Factors of the frequencies, or of their inverses: all 1 where nothing is scaled.
FACTORS = re.compile(r"(.*\.)?rope_(freqs|factors_long|factors_short)\.weight")
# Architectures of which transformers reads the scaling itself.
READ = ("gpt-oss",)


def gguf_obstacle(path: Path) -> str:
    """Why transformers would make another model of a GGUF file, with what to do, or ""."""
    reader: Any = GGUFReader(path)

    def said(key: str, default: Any) -> Any:
        field = reader.get_field(key)
        return default if field is None else field.contents()

    if (parts := said("split.count", 0)) > 1:
        return (
            f"it is one of {parts} parts of a model; merge them (llama-gguf-split --merge FIRST "
            "WHOLE) and give the whole file"
        )
    kind = said("general.architecture", "")
    if kind in READ:
        return ""
    found = _scaling(kind, said)
    if not found:
        found = next((tensor.name for tensor in reader.tensors if _scales(tensor)), "")
    if not found:
        return ""
    return (
        f"it scales rotary positions ({found}), which transformers does not read from a GGUF file; "
        "give the folder or the hub name of the model that the file was made of"
    )


def _scaling(kind: str, said: Any) -> str:
    """The scaling of positions that the header names, or "".

    As llama.cpp has it: without a type it is linear, and by a factor of 0 or 1 nothing is scaled.
    """
    prefix = f"{kind}.rope.scaling"
    how = said(f"{prefix}.type", "linear")
    factor = said(f"{prefix}.factor", said(f"{kind}.rope.scale_linear", 0.0))
    if how in ("none", "default", "") or (how == "linear" and factor in (0.0, 1.0)):
        return ""
    return f"{how}, factor {factor:g}"


def _scales(tensor: Any) -> bool:
    return bool(FACTORS.fullmatch(tensor.name)) and not np.all(np.asarray(tensor.data) == 1)
