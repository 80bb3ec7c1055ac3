"""Has transformers read a model and its tokenizer from where they lie, and keeps it quiet.

What transformers only warns of, or does not see, is asked for here: weights that a checkpoint
lacks, which it makes up, and what it leaves out of a GGUF file.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto import auto_factory, modeling_auto
from transformers.utils import logging as hf_logging

from rlprompt.models.conventions import model_kind
from rlprompt.models.gguf_header import read_header
from rlprompt.models.weights import quantisation
from rlprompt.types import ModelKind


class LoadError(ValueError):
    """A model cannot be loaded. The message says why, and what to do."""


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


def read(
    source: str,
    dtype: torch.dtype | str,
    where: Mapping[str, Any],
    auto_class: type[auto_factory._BaseAutoModelClass] | None = None,
    more: Mapping[str, Any] | None = None,
    brought: Collection[str] = (),
) -> Loaded:
    """Read config, model and tokenizer.

    Args:
        source: Folder, or name on the hub.
        dtype: As transformers takes it.
        where: Where the files are.
        auto_class: What kind of model it is; None for the language model that its config names.
        more: For the model alone.
        brought: Modules whose weights an adapter brings, so that they may be missing.

    Raises:
        LoadError: The checkpoint lacks weights of the model, or a GGUF file is a part of one or
            scales positions in a way that a config cannot be told.
    """
    gguf = where.get("gguf_file")
    config = _gguf_config(source, where) if gguf else AutoConfig.from_pretrained(source, **where)
    auto_class = auto_class or _auto_class(model_kind(config))
    made: Any = auto_class  # not annotated
    model, told = made.from_pretrained(
        source, config=config, dtype=dtype, output_loading_info=True, **where, **(more or {})
    )
    lacking = _lacking(told, model, brought)
    # Where texts are only encoded, nobody reads these.
    unread = ("pooler.", "decoder.") if hasattr(model, "encoder") else ("pooler.",)
    if auto_class is modeling_auto.AutoModel and all(key.startswith(unread) for key in lacking):
        if lacking and hasattr(model, "pooler"):
            model.pooler = None
    elif lacking:
        what = str(Path(source) / gguf) if gguf else source
        raise LoadError(_sentence(what, model, lacking))
    tokenizer = AutoTokenizer.from_pretrained(source, **where)
    commit = getattr(model.config, "_commit_hash", None) or where.get("revision") or ""
    return Loaded(
        cast(PreTrainedModel, model), cast(PreTrainedTokenizerBase, tokenizer), str(commit)
    )


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


def _gguf_config(source: str, where: Mapping[str, Any]) -> Any:
    """The config of a GGUF file, with the scaling of positions that transformers does not read."""
    path = Path(source) / where["gguf_file"]
    header = read_header(path)
    if header.parts > 1:
        raise LoadError(
            f"model file {str(path)!r} is one of {header.parts} parts of a model; merge them "
            "(llama-gguf-split --merge FIRST WHOLE) and give the whole file"
        )
    config = AutoConfig.from_pretrained(source, **where)
    if header.scaling and not header.scale(config):
        raise LoadError(
            f"model file {str(path)!r} scales rotary positions ({header.scaling}), which "
            "transformers does not read from a GGUF file; give the folder or the hub name of the "
            "model that it was made of"
        )
    return config


def _lacking(
    told: Mapping[str, Any], model: PreTrainedModel, brought: Collection[str]
) -> list[str]:
    """Weights that a checkpoint does not have, or has in another shape, by transformers' report.

    Of a quantised layer some of the tensors may be made as it is loaded, never all.
    """
    keys = {*told["missing_keys"], *(key for key, *_ in told["mismatched_keys"])}
    if keys and quantisation(model):
        there = {key.rpartition(".")[0] for key in model.state_dict() if key not in keys}
        keys = {key for key in keys if key.rpartition(".")[0] not in there}
    return sorted(key for key in keys if not any(f".{own}." in f".{key}" for own in brought))


def _sentence(what: str, model: PreTrainedModel, lacking: list[str]) -> str:
    kind = type(model).__name__
    named = [name for name in getattr(model.config, "architectures", None) or [] if name != kind]
    of = f", it is of a {named[0]}" if named else ""
    n, some = len(lacking), ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
    return (
        f"model {what!r} lacks {n} weight{'s' * (n > 1)} of a {kind}{of}: {some}; filled with "
        "random numbers it would be another model each time: give a checkpoint that was saved "
        f"from a whole {kind}"
    )


def _auto_class(kind: ModelKind) -> type[auto_factory._BaseAutoModelClass]:
    return {
        "causal": modeling_auto.AutoModelForCausalLM,
        "masked": modeling_auto.AutoModelForMaskedLM,
        "encoder-decoder": modeling_auto.AutoModelForSeq2SeqLM,
    }[kind]
