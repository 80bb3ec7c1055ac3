"""A PEFT adapter in the place of a model: its base is loaded, and the adapter put on it.

Where the adapter changes weights (LoRA and its kin) it is merged into them, in float32, so that the
model is one like any other. On weights that are quantised, or spread over devices, it stays beside
them. Adapters are read by PEFT, an optional package.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from rlprompt._utils.text import one_line
from rlprompt.models.weights import stays_as_loaded
from rlprompt.prompt import FACTS


class LoadError(ValueError):
    """A model cannot be loaded. The message says why, and what to do."""


@dataclass(frozen=True)
class Adapter:
    """An adapter's files.

    Attributes:
        source: Folder, or name on the hub.
        base: The model that it belongs to, as `FrozenLM.load` takes it.
        revision: Of the base, or None.
        options: Where the adapter's files are, for transformers and PEFT.
    """

    source: str
    base: str
    revision: str | None
    options: Mapping[str, Any]


def find_adapter(name: str, source: str, options: Mapping[str, Any]) -> Adapter | None:
    """The adapter of that name, or None where it is none.

    Args:
        name: As a person wrote it.
        source: Folder, or name on the hub.
        options: Revision and the like.

    Raises:
        LoadError: It is an exported prompt, its config is damaged or names no base, or PEFT is
            missing.
        OSError: The hub refuses.
    """
    find: Any = find_adapter_config_file  # not annotated
    path = find(source, **options)
    exported = Path(source) / FACTS
    if exported.is_file():
        model = (_json(name, exported).get("model") or {}).get("model", "its model")
        raise LoadError(
            f"{name!r} is a prompt that rlprompt exported, no model: score it with `rlprompt score "
            f"{name} EXPERIMENT.yaml`, or give the model that it belongs to, {model!r}"
        )
    if path is None:
        return None
    config = _json(name, Path(path))
    base, kind = config.get("base_model_name_or_path"), config.get("peft_type", "an unnamed type")
    if not base:
        raise LoadError(
            f"{name!r} is a PEFT adapter ({kind}) whose adapter_config.json names no base model; "
            "write the name or folder of one there, as base_model_name_or_path"
        )
    if importlib.util.find_spec("peft") is None:
        raise LoadError(
            f"{name!r} is a PEFT adapter of {base!r}, and reading it needs another package: "
            "pip install 'rlprompt[peft]'"
        )
    beside = Path(source) / base  # a relative one is so to the adapter, or else to where we are
    base = str(beside) if (beside / "config.json").is_file() else base
    return Adapter(source, base, config.get("revision"), options)


def put_on(
    adapter: Adapter, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base with the adapter, and the adapter's tokenizer where it has one.

    Raises:
        LoadError: The adapter does not fit the base.
    """
    import peft

    if _has_tokenizer(adapter):
        made: Any = AutoTokenizer.from_pretrained(adapter.source, **adapter.options)
        tokenizer = cast(PreTrainedTokenizerBase, made)
        if len(tokenizer) > len(cast(Any, base.get_input_embeddings()).weight):
            base.resize_token_embeddings(len(tokenizer))
    try:
        model: Any = peft.PeftModel.from_pretrained(base, adapter.source, **adapter.options)
    except (RuntimeError, ValueError, KeyError) as error:
        line = one_line(error)[:200]
        raise LoadError(
            f"adapter {adapter.source!r} does not fit its base model {adapter.base!r}: {line}"
        ) from error
    if not stays_as_loaded(base) and hasattr(model, "merge_and_unload"):
        try:
            return model.merge_and_unload(), tokenizer
        except (NotImplementedError, ValueError, AttributeError):
            pass  # of those kinds that cannot be merged; PEFT has no list of them
    return model, tokenizer


def _has_tokenizer(adapter: Adapter) -> bool:
    find: Any = cached_file  # not annotated
    silent = dict.fromkeys(
        (
            "_raise_exceptions_for_gated_repo",
            "_raise_exceptions_for_missing_entries",
            "_raise_exceptions_for_connection_errors",
        ),
        False,
    )
    return find(adapter.source, "tokenizer_config.json", **silent, **adapter.options) is not None


def _json(name: str, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise LoadError(f"{name!r} cannot be loaded: {path} is damaged, it is no JSON mapping")
    return found
