"""What a GGUF file says that transformers does not read.

transformers reads `rope.scaling.*` of gpt-oss alone, and of no type the tensors of factors by which
Llama-3.1 and Phi-3 scale positions; a model without them says something else, and the more so the
longer a text. Of a file that was split it reads one part, without a word of the others.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader
from numpy.typing import NDArray
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

# By what the frequencies of positions are divided: all 1 where nothing is scaled.
FACTORS = re.compile(r"(.*\.)?rope_(freqs|factors_long|factors_short)\.weight")
# Architectures of which transformers reads the scaling itself.
READ = ("gpt-oss",)
# What the factors of Llama-3.1, 3.2 and 3.3 are made of, beside the largest of them.
LLAMA3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@dataclass(frozen=True)
class Header:
    """What transformers does not read.

    Attributes:
        architecture: As llama.cpp calls it.
        parts: Files that the model was split into.
        scaling: What positions are scaled by, for a message, or "".
        linear: By which number all are divided, as the header says; else 0.
        factors: Tensors of factors that are not all 1.
    """

    architecture: str
    parts: int
    scaling: str
    linear: float
    factors: Mapping[str, NDArray[Any]]

    def scale(self, config: Any) -> bool:
        """Write the scaling into a config, in place; False where it cannot be told for certain."""
        plain: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
        if (self.architecture, config.model_type) != ("llama", "llama"):
            return False  # others scale some of their layers alone
        if plain.get("rope_type") != "default" or "rope_theta" not in plain:
            return False
        if self.linear and not self.factors:
            config.rope_parameters = plain | {"rope_type": "linear", "factor": self.linear}
            return True
        if self.linear or self.scaling != "rope_freqs.weight":
            return False
        factors = torch.tensor(np.array(self.factors[self.scaling], np.float32))
        scaled = copy.deepcopy(config)
        scaled.rope_parameters = plain | LLAMA3 | {"factor": float(factors.max())}
        found, _ = ROPE_INIT_FUNCTIONS["llama3"](scaled, torch.device("cpu"))
        steps = torch.arange(len(found)) / len(found)
        unscaled = plain["rope_theta"] ** -steps
        if factors.shape != found.shape:
            return False
        if not torch.allclose(found * factors, unscaled, rtol=1e-4, atol=0.0):
            return False
        config.rope_parameters = scaled.rope_parameters
        return True


def read_header(path: Path) -> Header:
    """What a file says.

    Raises:
        ValueError: It is no GGUF file.
    """
    reader: Any = GGUFReader(path)

    def said(key: str, default: Any) -> Any:
        field = reader.get_field(key)
        return default if field is None else field.contents()

    kind = said("general.architecture", "")
    parts = int(said("split.count", 0))
    if kind in READ:
        return Header(kind, parts, "", 0.0, {})
    # As llama.cpp has it: without a type it is linear, and a factor of 0 or 1 scales nothing.
    how = said(f"{kind}.rope.scaling.type", "linear")
    factor = said(f"{kind}.rope.scaling.factor", said(f"{kind}.rope.scale_linear", 0.0))
    factors = {
        tensor.name: np.asarray(tensor.data)
        for tensor in reader.tensors
        if FACTORS.fullmatch(tensor.name) and not np.all(np.asarray(tensor.data) == 1)
    }
    if how in ("none", "default", "") or (how == "linear" and factor in (0.0, 1.0)):
        return Header(kind, parts, ", ".join(factors), 0.0, factors)
    linear = factor if how == "linear" else 0.0
    return Header(kind, parts, f"{how}, factor {factor:g}", linear, factors)
