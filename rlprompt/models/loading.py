"""From a name to a model and its tokenizer: names, devices, dtypes, and what a config says.

Four kinds of name: a pinned asset (`ASSETS`), a folder, the path of a `.gguf` file, and a name
on the Hugging Face hub; a folder or a name may be a PEFT adapter's (`adapters`). transformers takes
15 to 20 s to read the asset's GGUF file, so it is written once to a dense float32 folder beside
that file and read from there (about 1 s).

>>> model_names()
['smollm2-135m']
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import importlib
import io
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.constants import ENDPOINT
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto import auto_factory, modeling_auto
from transformers.utils import logging as hf_logging

from rlprompt._utils.assets import ASSETS, cache_folder, fetch
from rlprompt._utils.network import hub_answers
from rlprompt._utils.text import first_line, one_line
from rlprompt.models.adapters import Adapter, LoadError, find_adapter, put_on
from rlprompt.models.devices import pick_device
from rlprompt.models.weights import stays_as_loaded
from rlprompt.types import ModelKind

logger = logging.getLogger(__name__)


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# Stands for the first gap of a text in T5, mT5, UMT5, LongT5 and their kin.
SENTINEL = "<extra_id_0>"

# What transformers calls layers that attend to a sliding window.
SLIDING = "sliding_attention"

CHECKSUMS = "SHA256SUMS"
# Bytes of a file whose hash is noted: less is hashed before one would notice.
NOTED = 1 << 24

# Options of where files are, which config and tokenizer need as well.
FILES = ("cache_dir", "local_files_only", "subfolder")


@dataclass(frozen=True)
class Loaded:
    """What a name led to.

    Attributes:
        model: In the dtype that was asked for or else the checkpoint's, on the CPU or where a
            `device_map` put it.
        tokenizer: Its tokenizer.
        revision: Commit of the hub, or "".
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    revision: str


def load(
    name: str,
    dtype: str,
    revision: str | None,
    auto_class: type[auto_factory._BaseAutoModelClass] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Loaded:
    """Read a model and its tokenizer.

    Args:
        name: As for `FrozenLM.load`.
        dtype: A key of `DTYPES`, or `"auto"` for what the checkpoint holds.
        revision: Commit, branch or tag of a hub model.
        auto_class: What kind of model it is; None for the language model that its config names.
        options: More for `from_pretrained`, as `checked_options` gives them.

    Raises:
        ValueError: The name leads nowhere, no model of a known kind is there, no such dtype, or a
            package is missing (`LoadError`).
    """
    if dtype not in (*DTYPES, "auto"):
        raise ValueError(f"dtype {dtype!r}; give one of {', '.join(DTYPES)} or auto")
    more = dict(options or {})
    revision = more.pop("revision", None) or revision
    source, where = _resolve(name, revision)
    where |= {key: more.pop(key) for key in FILES if key in more}
    try:
        source, where = _dense(name, source, where)
        with quiet():
            adapter = None if "gguf_file" in where else find_adapter(name, source, where)
            if adapter is not None:
                return _read_adapter(adapter, dtype, auto_class, more)
            return _read(source, DTYPES.get(dtype, "auto"), where, auto_class, more)
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


def model_kind(config: Any, class_name: str = "") -> ModelKind:
    """How a model answers, from its config, or else from the name of its class.

    Raises:
        ValueError: It is no language model.
    """
    if config.is_encoder_decoder:
        return "encoder-decoder"
    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    masked = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    names = set(getattr(config, "architectures", None) or ())
    kind = config.model_type
    if names & {causal.get(kind)} or (kind in causal and kind not in masked):
        return "causal"
    if kind in masked:
        return "causal" if getattr(config, "is_decoder", False) else "masked"
    if hasattr(config, "text_config") and config.get_text_config() is not config:
        return model_kind(config.get_text_config(), class_name)
    if class_name in causal.values():
        return "causal"
    raise ValueError(
        f"a model of type {kind!r} is no language model that can score prompts; "
        "causal, masked and encoder-decoder models can"
    )


def packing_obstacle(model: PreTrainedModel, kind: ModelKind) -> str | None:
    """Why a model cannot be packed, from its kind and config, or None."""
    if kind != "causal":
        return f"{kind} models see the prompt from everywhere"
    config: Any = model.config.get_text_config()
    layers = set(getattr(config, "layer_types", None) or ()) - {"full_attention", SLIDING}
    if layers:
        return f"it has layers of type {', '.join(sorted(layers))}"
    head = cast(Any, model).get_output_embeddings()
    if model.base_model is model:
        return "its layers and its output head are one model"
    if not isinstance(head, torch.nn.Linear):
        return "it has no plain linear output head"
    return None


def sliding_window(config: Any) -> int | None:
    """Tokens that a token attends to, itself included, in some layers or in all; None for all."""
    layers: list[str] | None = getattr(config, "layer_types", None)
    slides = SLIDING in layers if layers else getattr(config, "use_sliding_window", True)
    window: int | None = getattr(config, "sliding_window", None)
    return window if slides else None


def context_length(model: PreTrainedModel, kind: ModelKind) -> int | None:
    """Longest sequence that the model takes, in tokens; None where there is no limit."""
    config = model.config.get_text_config()
    limit: int | None = getattr(config, "max_position_embeddings", None) or getattr(
        config, "n_positions", None
    )
    embeddings = getattr(model.base_model, "embeddings", None)
    table = getattr(embeddings, "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    if limit is not None and padding is not None:
        limit -= padding + 1  # RoBERTa counts positions from behind its pad's
    return None if kind == "encoder-decoder" or (limit or 0) < 1 else limit


def decoder_start(model: PreTrainedModel, name: str) -> tuple[int, ...]:
    """What the decoder of an encoder-decoder is given before it says anything of its own.

    As `generate` does it: the start token, and the first token that some checkpoints force, such
    as BART's `<s>` and a language of mBART.

    Raises:
        ValueError: The checkpoint names no token to start with.
    """
    settings: Any = cast(Any, model).generation_config
    named = (
        getattr(settings, "decoder_start_token_id", None),
        getattr(model.config, "decoder_start_token_id", None),
        getattr(settings, "bos_token_id", None),
    )
    start = next((token for token in named if isinstance(token, int)), None)
    if start is None:
        raise ValueError(
            f"{name} does not say what its decoder starts with; set "
            "model.generation_config.decoder_start_token_id to the id of that token"
        )
    forced = getattr(settings, "forced_bos_token_id", None)
    return (start,) if forced is None else (start, int(forced))


def special_ids(
    tokenizer: PreTrainedTokenizerBase, kind: ModelKind
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer puts around a text: (before, after), the latter not if causal."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    after = () if kind == "causal" else tuple(full[start + len(bare) :])
    return tuple(full[:start]), after


def gap_token(
    tokenizer: PreTrainedTokenizerBase, kind: ModelKind, name: str
) -> tuple[int | None, str]:
    """What stands in a text for the answer, id and text: a mask, or T5's first sentinel.

    None and "" where the answer follows the text.

    Raises:
        ValueError: A masked model's tokenizer has no mask.
    """
    if kind == "causal":
        return None, ""
    if kind == "masked":
        if tokenizer.mask_token_id is None:
            raise ValueError(
                f"{name} is a masked model and its tokenizer has no mask token; set "
                "tokenizer.mask_token to the token that it was trained with"
            )
        return cast(int, tokenizer.mask_token_id), str(tokenizer.mask_token)
    ids = tokenizer(SENTINEL, add_special_tokens=False)["input_ids"]
    return (ids[0], SENTINEL) if len(ids) == 1 and ids[0] != tokenizer.unk_token_id else (None, "")


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end what a model writes: those its checkpoint names, or the tokenizer's."""
    named = getattr(cast(Any, model).generation_config, "eos_token_id", None)
    ids = tokenizer.eos_token_id if named is None else named
    return frozenset(ids if isinstance(ids, list) else () if ids is None else (ids,))


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


def _dense(name: str, source: str, where: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The folder that is kept for a GGUF file in the place of the file; all else as it is."""
    others = dict(where)
    if file := others.pop("gguf_file", None):
        gguf = Path(source) / file
        folder = dense_folder(gguf, gguf.parent if name in model_names() else _place_of(gguf))
        if folder:
            return str(folder), others
    return source, dict(where)


def _place_of(gguf: Path) -> Path:
    """Where the dense form of a person's own file is kept, whatever the file is called."""
    return cache_folder() / "gguf" / _digest(gguf)[:32]


def _digest(path: Path) -> str:
    """SHA-256 of a file; a large one that was read for it is known again by path, size and time.

    It says what is loaded quickly, and no more: what results hang on are the weights, hashed anew.
    """
    seen = path.resolve().stat()
    known = f"{path.resolve()} {seen.st_size} {seen.st_mtime_ns}"
    note = cache_folder() / "digests" / hashlib.sha256(known.encode()).hexdigest()[:32]
    with contextlib.suppress(OSError):
        if len(digest := note.read_text()) == 64:  # what was cut short is written again
            return digest
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if seen.st_size >= NOTED:
        with contextlib.suppress(OSError):
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(digest)
    return digest


def _read(
    source: str,
    dtype: torch.dtype | str,
    where: Mapping[str, Any],
    auto_class: type[auto_factory._BaseAutoModelClass] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Loaded:
    """Read config, model and tokenizer; `more` is for the model alone."""
    config = AutoConfig.from_pretrained(source, **where)
    auto_class = auto_class or _auto_class(model_kind(config))
    model = auto_class.from_pretrained(source, config=config, dtype=dtype, **where, **(more or {}))
    tokenizer = AutoTokenizer.from_pretrained(source, **where)
    commit = getattr(model.config, "_commit_hash", None) or where.get("revision") or ""
    return Loaded(
        cast(PreTrainedModel, model), cast(PreTrainedTokenizerBase, tokenizer), str(commit)
    )


def _read_adapter(
    adapter: Adapter,
    dtype: str,
    auto_class: type[auto_factory._BaseAutoModelClass] | None,
    more: Mapping[str, Any],
) -> Loaded:
    """Read the base of an adapter, and put that on it."""
    try:
        read = partial(load, adapter.base, revision=adapter.revision, options=more)
        base = read("float32", auto_class=auto_class)  # in which merging loses nothing
        if dtype != "float32" and stays_as_loaded(base.model):
            del base
            base = read(dtype, auto_class=auto_class)
    except LoadError as error:
        raise LoadError(
            f"the base model of the adapter {adapter.source!r}, which its adapter_config.json "
            f"names as base_model_name_or_path: {error}"
        ) from error
    model, tokenizer = put_on(adapter, base.model, base.tokenizer)
    return Loaded(model, tokenizer, str(adapter.options.get("revision") or ""))


def _auto_class(kind: ModelKind) -> type[auto_factory._BaseAutoModelClass]:
    return {
        "causal": modeling_auto.AutoModelForCausalLM,
        "masked": modeling_auto.AutoModelForMaskedLM,
        "encoder-decoder": modeling_auto.AutoModelForSeq2SeqLM,
    }[kind]


def dense_folder(gguf: Path, parent: Path | None = None) -> Path | None:
    """A folder with the same model as a GGUF file in float32, written if it is not whole.

    The files' hashes (`_digest`) are compared with those in `SHA256SUMS`. None where it cannot be
    written, or may take more than half of what is free on the disk.

    Args:
        gguf: The file.
        parent: What the folder lies in, made if it is not there; the file's own by default.
    """
    parent = parent or gguf.parent
    folder = parent / "float32"
    if _is_whole(folder):
        return folder
    try:
        parent.mkdir(parents=True, exist_ok=True)
        # Of 4 bits a weight at the least.
        if (most := 8 * gguf.stat().st_size) > shutil.disk_usage(parent).free // 2:
            raise OSError(f"it may take {most / 1e9:.1f} GB, more than half of what is free")
        logger.info("converting %s to float32, once, in %s", gguf.name, parent)
        # Inside the target's parent, so that the last step is a rename on one file system.
        with tempfile.TemporaryDirectory(prefix="convert-", dir=parent) as scratch:
            part = Path(scratch) / "float32"
            _convert(gguf, part)
            _write_checksums(part)
            _put_in_place(part, folder, Path(scratch) / "broken")
    except OSError as error:
        logger.warning("cannot keep %s in float32 (%s); loading will stay slow", gguf.name, error)
        return None
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    with quiet():
        loaded = _read(str(gguf.parent), torch.float32, {"gguf_file": gguf.name})
        # Its weights are dense already, but it still says that it is quantised.
        quantizer = getattr(loaded.model, "hf_quantizer", None)
        if quantizer is not None:
            quantizer.remove_quantization_config(loaded.model)
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)


def _write_checksums(folder: Path) -> None:
    """Write `SHA256SUMS` in the format of sha256sum, all files down to the disk."""
    lines = []
    for path in sorted(folder.iterdir()):
        with path.open("rb+") as file:
            os.fsync(file.fileno())
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    (folder / CHECKSUMS).write_text("".join(lines))


def _is_whole(folder: Path) -> bool:
    try:
        lines = (folder / CHECKSUMS).read_text().splitlines()
        for line in lines:
            digest, name = line.split("  ", 1)
            if _digest(folder / name) != digest:
                return False
    except (OSError, ValueError):
        return False
    return bool(lines)


def _put_in_place(part: Path, folder: Path, aside: Path) -> None:
    """Rename `part` to `folder`, whatever broken thing is there; another process may be first."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(folder, aside)
    try:
        os.rename(part, folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not _is_whole(folder):
            raise


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep progress bars, log lines and warnings of the libraries below off the terminal."""
    bars: Any = hf_logging  # not annotated
    # The one bar that transformers' own switch does not reach.
    gguf_utils: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    gguf_bar = gguf_utils.tqdm
    had_bars, verbosity = bars.is_progress_bar_enabled(), bars.get_verbosity()
    gguf_utils.tqdm = functools.partial(gguf_bar, disable=True)
    bars.disable_progress_bar()
    bars.set_verbosity_error()
    try:
        # Bars of libraries that have no switch for them are written to stderr.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        gguf_utils.tqdm = gguf_bar
        bars.set_verbosity(verbosity)
        if had_bars:
            bars.enable_progress_bar()
