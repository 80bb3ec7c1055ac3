"""What decides a model's scores, as hashes that enter every result and cache key.

>>> Fingerprint("a", "", "causal", "0", "0", "float32", "").digest
'2ba3490154760077'
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from rlprompt._utils.identity import identity
from rlprompt.models.weights import stated_quantisation, stored

# What a model on a server is in the place of causal, masked or encoder-decoder.
SERVED: Final = "served"
# Of such a model stands before what its server says, in the place of a hash of the weights.
TOLD = "not provable, told by the server: "
# Fields that an older version did not take, and that are left out where there is nothing to say.
ADDED: Final = ("config", "special", "ends", "chat")
# What of a config stands elsewhere in a fingerprint, or changes no number of a model that is not
# trained: names, versions, what a forward pass returns beside its logits.
_VOID = re.compile(
    "_.*|name_or_path|architectures|auto_map|transformers_version|tokenizer_class|(torch_)?dtype"
    "|attn_implementation|quantization_config|use_cache|output_attentions|output_hidden_states"
    "|return_dict|task_specific_params|.*(dropout|pdrop|layerdrop|drop_path|initializer).*"
)


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
        config: SHA-256 of what the config says of a forward pass (`hash_config`), or "".
        special: Ids that stand in or around every text without being written there, or "".
        ends: Ids that end what the model writes, or "".
        chat: SHA-256 of the template for chats and of the special tokens that it names, or "".
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
    config: str = ""
    special: str = ""
    ends: str = ""
    chat: str = ""

    @property
    def content(self) -> dict[str, str]:
        """What changes scores; the name a model goes by, and where it lies, do not."""
        fields: dict[str, str] = asdict(self)
        for name in ("model", "revision", "options"):
            del fields[name]
        for name in ("attention", *ADDED):
            if not fields[name]:
                del fields[name]
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
    special: str = "",
    ends: str = "",
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
        special: See `Fingerprint`.
        ends: See `Fingerprint`.
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
        config=hash_config(model.config),
        special=special,
        ends=ends,
        chat=_hash_chat(tokenizer),
    )


def hash_config(config: PreTrainedConfig) -> str:
    """SHA-256 of what a config says of a forward pass, hexadecimal.

    What is as the type's own default is left out: a version of transformers that knows another
    setting gives it one that changes nothing.

    >>> from transformers import LlamaConfig
    >>> hash_config(LlamaConfig()) == hash_config(LlamaConfig(attention_dropout=0.1))
    True
    >>> hash_config(LlamaConfig()) == hash_config(LlamaConfig(rms_norm_eps=1e-5))
    False
    """
    try:
        usual = type(config)().to_dict()
    # Any error: some types have no default, and which error that is, is theirs to choose.
    except Exception:
        usual = {}
    stated = _unusual(config.to_dict(), usual) | {"model_type": config.model_type}
    text = json.dumps(_plain(stated), sort_keys=True, default=identity)
    return hashlib.sha256(text.encode()).hexdigest()


def _unusual(stated: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """What of a config is not as usual, of its parts too."""
    found: dict[str, Any] = {}
    for name, value in stated.items():
        own = usual.get(name)
        if isinstance(value, dict):
            usual_part = own if isinstance(own, dict) and own.keys() <= value.keys() else None
            differing = _unusual(value, usual_part or {})
            # A part that lacks something stands there whole.
            if differing or usual_part is None:
                found[name] = differing
        elif name not in usual or _plain(value) != _plain(own):
            found[name] = value
    return {name: value for name, value in found.items() if not _VOID.fullmatch(str(name))}


def _plain(value: Any) -> Any:
    """A value as JSON has it, with 1.0 as 1: a file may spell a number either way."""
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


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


def _hash_chat(tokenizer: PreTrainedTokenizerBase) -> str:
    template: Any = getattr(tokenizer, "chat_template", None)
    if not template:
        return ""
    text = json.dumps(template, sort_keys=True)
    named = {
        name: token
        for name, token in tokenizer.special_tokens_map.items()
        if name in text  # as `bos_token`, which the template may write
    }
    state = text + json.dumps(named, sort_keys=True, default=str)
    return hashlib.sha256(state.encode()).hexdigest()
