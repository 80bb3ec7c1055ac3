"""What decides a model's scores, as hashes that enter every result and cache key.

>>> Fingerprint("a", "", "causal", "0", "0", "float32", "").digest
'2ba3490154760077'
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlprompt.models.weights import stated_quantisation, stored

# What a model on a server is in the place of causal, masked or encoder-decoder.
SERVED: Final = "served"
# Of such a model stands before what its server says, in the place of a hash of the weights.
TOLD = "not provable, told by the server: "


def told_by_server(fingerprint: Mapping[str, str]) -> dict[str, str]:
    """What a server says of its model, its address (`url`) among it; {} of a model that is here.

    >>> told_by_server({"kind": "served", "weights": TOLD + '{"url": "http://127.0.0.1:8000/v1"}'})
    {'url': 'http://127.0.0.1:8000/v1'}
    """
    if fingerprint["kind"] != SERVED:
        return {}
    found: dict[str, str] = json.loads(fingerprint["weights"].removeprefix(TOLD))
    return found


def loading(fingerprint: Mapping[str, str]) -> dict[str, Any]:
    """What `FrozenLM.load` takes beside the name for the same model again.

    Args:
        fingerprint: Fields of a `Fingerprint`.

    Raises:
        ValueError: It is on a server, which loads it.

    >>> mine = Fingerprint("./mine", "", "causal", "3a1b", "77fe", "float32", "")
    >>> loading(asdict(mine))
    {'dtype': 'float32', 'revision': None, 'load': {}}
    """
    if fingerprint["kind"] == SERVED:
        raise ValueError(
            f"the model {fingerprint['model']} is on a server, and this takes one that is loaded "
            "here; what a search found there is a text: `rlprompt transfer` and `rlprompt score` "
            "take it to any model"
        )
    return {
        "dtype": fingerprint["dtype"],
        "revision": fingerprint["revision"] or None,
        "load": json.loads(fingerprint["options"] or "{}"),
    }


@dataclass(frozen=True)
class Fingerprint:
    """What decides a score, besides the text: enters every result.

    >>> from dataclasses import replace
    >>> mine = Fingerprint("./mine", "", "causal", "3a1b", "77fe", "float32", "")
    >>> mine.digest
    'fbf982c0090d6854'
    >>> mine.digest == replace(mine, model="./moved").digest  # what it is called does not matter
    True
    >>> mine.digest == replace(mine, dtype="bfloat16").digest
    False

    Attributes:
        model: The name it was loaded by.
        revision: Commit of the hub, or "".
        kind: causal, masked, encoder-decoder, or served.
        weights: SHA-256 of all parameters, names included; of a served model, whose weights cannot
            be seen, what its server says of it.
        tokenizer: SHA-256 of the tokenizer's full state.
        dtype: What weights and activations are computed in.
        quantisation: The method that the checkpoint names and a hash of its settings, or "".
        attention: The implementation, or "" for the one that transformers takes by itself.
        options: What it was loaded with beside name and revision (`load:`), as JSON, or "".
    """

    model: str
    revision: str
    kind: str
    weights: str
    tokenizer: str
    dtype: str
    quantisation: str
    attention: str = ""
    options: str = ""

    @property
    def content(self) -> dict[str, str]:
        """What changes scores; the name a model goes by, and where it lies, do not."""
        fields: dict[str, str] = asdict(self)
        for name in ("model", "revision", "options"):
            del fields[name]
        if not self.attention:
            del fields["attention"]
        return fields

    @property
    def digest(self) -> str:
        """One short hash of the content."""
        return hashlib.sha256(repr(sorted(self.content.items())).encode()).hexdigest()[:16]


def take_fingerprint(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    revision: str,
    kind: str,
    options: str = "",
    marks: Sequence[str] = (),
) -> Fingerprint:
    """The fingerprint of a model as it is now; hashes all weights (0.4 s for 135M in float32).

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        name: The name it was loaded by.
        revision: Commit of the hub, or "".
        kind: causal, masked or encoder-decoder.
        options: What it was loaded with besides, as JSON, or "".
        marks: Ways in which texts become scores that were not always as they are.
    """
    spelt = _hash_tokenizer(tokenizer)
    for mark in marks:
        spelt = hashlib.sha256(f"{spelt} {mark}".encode()).hexdigest()
    return Fingerprint(
        model=name,
        revision=revision,
        kind=kind,
        weights=hash_weights(model),
        tokenizer=spelt,
        dtype=str(model.dtype).removeprefix("torch."),
        quantisation=stated_quantisation(model),
        attention=_attention(model),
        options=options,
    )


def hash_weights(model: PreTrainedModel, rounded: torch.dtype | None = None) -> str:
    """SHA-256 of every parameter and buffer as they are now, hexadecimal.

    Args:
        model: The model.
        rounded: Hash what the floating-point ones would be in this dtype.
    """
    digest = hashlib.sha256()
    for name, tensor in stored(model):
        if rounded is not None and tensor.is_floating_point():
            tensor = tensor.to(rounded)
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _attention(model: PreTrainedModel) -> str:
    """How attention is computed, where it is not as transformers would choose, or ""."""
    used = getattr(model.config, "_attn_implementation", None) or ""
    usual = "sdpa" if getattr(model, "_supports_sdpa", False) else "eager"
    return "" if used == usual else str(used)


def _hash_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend and (backend.padding or backend.truncation):
        # Left over from whoever padded a batch last; no score depends on it.
        backend = type(backend).from_str(backend.to_str())
        backend.no_padding()
        backend.no_truncation()
    state = backend.to_str() if backend else repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(state.encode()).hexdigest()
