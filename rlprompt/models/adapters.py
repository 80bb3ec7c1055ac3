"""A PEFT adapter in the place of a model: its base is loaded, and the adapter put on it.

Where the adapter changes weights (LoRA and its kin) it is merged into them, in float32, so that the
model is one like any other. It stays beside weights that are quantised or spread over devices, and
where merged it would say something else, as on embeddings that are tied to the output. Adapters are
read by PEFT, an optional package.
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from rlprompt._utils.text import one_line
from rlprompt.models.examination import agree, outputs, some_ids
from rlprompt.models.memory import out_of_memory
from rlprompt.models.reading import Loaded, LoadError
from rlprompt.models.weights import stays_as_loaded
from rlprompt.prompt import FACTS


@dataclass(frozen=True)
class Adapter:
    """An adapter's files.

    Attributes:
        source: Folder, or name on the hub.
        base: The model that it belongs to, as `FrozenLM.load` takes it.
        revision: Of the base, or None.
        options: Where the adapter's files are, for transformers and PEFT.
        brings: Modules whose weights are in the adapter whole.
    """

    source: str
    base: str
    revision: str | None
    options: Mapping[str, Any]
    brings: Collection[str]


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
    brings = config.get("modules_to_save") or ()
    return Adapter(source, base, config.get("revision"), options, brings)


def put_on(
    adapter: Adapter, load_base: Callable[[], Loaded]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base with the adapter, and the adapter's tokenizer where it has one.

    Args:
        adapter: The adapter.
        load_base: Gives the base; anew where merging has changed one to no avail.

    Raises:
        LoadError: The adapter does not fit the base.
    """
    model, tokenizer, kept = _beside(adapter, load_base())
    if kept or not hasattr(model, "merge_and_unload"):
        return model, tokenizer
    merged = _merged(model)
    if merged is not None:
        return merged, tokenizer
    del model
    return _beside(adapter, load_base())[:2]


def _beside(adapter: Adapter, base: Loaded) -> tuple[Any, PreTrainedTokenizerBase, str]:
    """The adapter's layers around those of the base, the tokenizer, and why they have to stay."""
    import peft

    model, tokenizer = base.model, base.tokenizer
    if _has_tokenizer(adapter):
        made: Any = AutoTokenizer.from_pretrained(adapter.source, **adapter.options)
        tokenizer = cast(PreTrainedTokenizerBase, made)
        if len(tokenizer) > len(cast(Any, model.get_input_embeddings()).weight):
            model.resize_token_embeddings(len(tokenizer))
    renamed = getattr(model, "_checkpoint_conversion_mapping", {})
    told: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found: Any = peft.PeftModel.from_pretrained(model, adapter.source, **adapter.options)
        told = [str(warning.message) for warning in caught]
        unplaced = _unplaced(adapter, found, renamed)
    except (RuntimeError, ValueError, KeyError) as error:
        raise _misfit(adapter, one_line(error)[:200]) from error
    if unplaced:
        some = ", ".join(unplaced[:2]) + (", ..." if len(unplaced) > 2 else "")
        raise _misfit(
            adapter,
            f"{len(unplaced)} of its tensors have no place there ({some}); name the model that it "
            "was trained on as base_model_name_or_path in its adapter_config.json",
        )
    # PEFT has this in a warning alone.
    if any(line.startswith("Found missing adapter keys") for line in told):
        raise _misfit(
            adapter,
            "its file lacks tensors of layers that its adapter_config.json names; save it anew",
        )
    return found, tokenizer, stays_as_loaded(model)


def _misfit(adapter: Adapter, why: str) -> LoadError:
    return LoadError(
        f"adapter {adapter.source!r} does not fit its base model {adapter.base!r}: {why}"
    )


def _unplaced(adapter: Adapter, model: Any, renamed: Mapping[str, str]) -> list[str]:
    """Tensors of the adapter's file that went nowhere, found by putting all in once more."""
    import peft

    if model.active_peft_config.is_prompt_learning:  # what stands before a text is in no layer
        return []
    tensors = peft.load_peft_weights(
        adapter.source, device="cpu", key_mapping=dict(renamed), **adapter.options
    )
    placed: Any = peft.set_peft_model_state_dict(model, tensors, model.active_adapter)
    return sorted(placed.unexpected_keys)


def _merged(model: Any) -> PreTrainedModel | None:
    """The model with the adapter in its weights, in place, or None where it does not say the same.

    Kinds of adapters that cannot be merged are of that sort, of which PEFT has no list, and those
    on one end of weights that both ends share: the other end would change with it.
    """
    ids = some_ids(model)
    try:
        expected = outputs(model, ids)
        merged: PreTrainedModel = model.merge_and_unload()
        return merged if agree(expected, outputs(merged, ids)) else None
    except Exception as error:  # those of PEFT are of any kind
        if out_of_memory(error):
            raise
        return None


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
