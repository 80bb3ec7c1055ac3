"""Has transformers read a model and its tokenizer from where they lie, and keeps it quiet."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto import auto_factory, modeling_auto
from transformers.utils import logging as hf_logging

from rlprompt.models.conventions import model_kind
from rlprompt.types import ModelKind


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


def _auto_class(kind: ModelKind) -> type[auto_factory._BaseAutoModelClass]:
    return {
        "causal": modeling_auto.AutoModelForCausalLM,
        "masked": modeling_auto.AutoModelForMaskedLM,
        "encoder-decoder": modeling_auto.AutoModelForSeq2SeqLM,
    }[kind]
