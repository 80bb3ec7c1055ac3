"""From a name to a model and its tokenizer: names, devices and dtypes.

Four kinds of name: a pinned asset (`ASSETS`), a folder, the path of a `.gguf` file (read from its
float32 form, `gguf_cache`), and a name on the Hugging Face hub; a folder or a name may be a PEFT
adapter's (`adapters`).

>>> model_names()
['smollm2-135m']
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.constants import ENDPOINT
from transformers.models.auto import auto_factory

from rlprompt._utils.assets import ASSETS, fetch
from rlprompt._utils.network import hub_answers
from rlprompt._utils.text import first_line, one_line
from rlprompt.models.adapters import Adapter, find_adapter, put_on
from rlprompt.models.devices import pick_device
from rlprompt.models.gguf_cache import dense_source
from rlprompt.models.reading import Loaded, LoadError, quiet, read
from rlprompt.models.weights import DTYPES, stays_as_loaded

# Options of where files are, which config and tokenizer need as well.
FILES = ("cache_dir", "local_files_only", "subfolder")


def load(
    name: str,
    dtype: str,
    revision: str | None,
    auto_class: type[auto_factory._BaseAutoModelClass] | None = None,
    options: Mapping[str, Any] | None = None,
    brought: Collection[str] = (),
) -> Loaded:
    """Read a model and its tokenizer.

    Args:
        name: As for `FrozenLM.load`.
        dtype: A key of `DTYPES`, or `"auto"` for what the checkpoint holds.
        revision: Commit, branch or tag of a hub model.
        auto_class: What kind of model it is; None for the language model that its config names.
        options: More for `from_pretrained`, as `checked_options` gives them.
        brought: Modules whose weights an adapter brings, so that they may be missing.

    Raises:
        ValueError: The name leads nowhere, no model of a known kind is there, weights of it are
            missing, no such dtype, or a package is missing (`LoadError`).
    """
    if dtype not in (*DTYPES, "auto"):
        raise ValueError(f"dtype {dtype!r} is not known; give one of {', '.join(DTYPES)} or auto")
    more = dict(options or {})
    revision = more.pop("revision", None) or revision
    source, where = _resolve(name, revision)
    where |= {key: more.pop(key) for key in FILES if key in more}
    try:
        source, where = dense_source(name, source, where)
        with quiet():
            adapter = None if "gguf_file" in where else find_adapter(name, source, where)
            if adapter is not None:
                return _read_adapter(adapter, dtype, auto_class, more)
            return read(source, DTYPES.get(dtype, "auto"), where, auto_class, more, brought)
    except LoadError:
        raise
    except ImportError as error:
        line = one_line(error)
        raise LoadError(f"model {name!r} needs a package that is not there: {line}") from error
    except (OSError, ValueError, KeyError, RuntimeError, AssertionError) as error:
        reason = first_line(error)
        if where.get("local_files_only"):
            reason = f"{ENDPOINT} cannot be reached and the model is not in its local cache."
        elif more:
            told = ", ".join(f"{key}: {value}" for key, value in more.items())
            raise LoadError(
                f"model {name!r} cannot be loaded with {told[:200]}: {reason}"
            ) from error
        raise LoadError(
            f"model {name!r} cannot be loaded: {reason} Give one of {', '.join(model_names())}, "
            "a hub name such as HuggingFaceTB/SmolLM2-135M-Instruct (needs the hub), a folder "
            "saved with save_pretrained or of a PEFT adapter, or the path of a .gguf file."
        ) from error


def model_names() -> list[str]:
    """Names of the models that need no hub."""
    return [name for name, asset in ASSETS.items() if asset.member.endswith(".gguf")]


def place(device: str, options: Mapping[str, Any]) -> torch.device | None:
    """The device of that name, or None where the `device_map` of `options` says where a model goes.

    Raises:
        ValueError: No such device here, or both are given.
    """
    if "device_map" not in options:
        return pick_device(device)
    if device != "auto":
        raise ValueError(
            f"device {device!r} and load: device_map both say where the model goes; give one"
        )
    return None


def _resolve(name: str, revision: str | None) -> tuple[str, dict[str, Any]]:
    """What transformers is to load: a folder or hub name, and options."""
    if name in model_names():
        gguf = fetch(name)
        return str(gguf.parent), {"gguf_file": gguf.name}
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise LoadError(f"model file {name!r} does not exist")
        return str(path.parent), {"gguf_file": path.name}
    if path.is_dir():
        return str(path), {}
    if name.startswith((".", "~")) or path.is_absolute():  # no name on the hub begins so
        raise LoadError(f"model folder {name!r} does not exist")
    options: dict[str, Any] = {} if revision is None else {"revision": revision}
    return name, options if hub_answers() else options | {"local_files_only": True}


def _read_adapter(
    adapter: Adapter,
    dtype: str,
    auto_class: type[auto_factory._BaseAutoModelClass] | None,
    more: Mapping[str, Any],
) -> Loaded:
    """Read the base of an adapter, and put that on it."""

    def load_base() -> Loaded:
        def load_in(dtype: str) -> Loaded:
            return load(adapter.base, dtype, adapter.revision, auto_class, more, adapter.brings)

        try:
            base = load_in("float32")  # in which merging loses nothing
            if dtype != "float32" and stays_as_loaded(base.model):
                del base
                base = load_in(dtype)
        except LoadError as error:
            raise LoadError(
                f"the base model of the adapter {adapter.source!r}, which its adapter_config.json "
                f"names as base_model_name_or_path: {error}"
            ) from error
        return base

    model, tokenizer = put_on(adapter, load_base)
    return Loaded(model, tokenizer, str(adapter.options.get("revision") or ""))
