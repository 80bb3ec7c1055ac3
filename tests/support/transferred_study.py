"""A finished study, and models whose tokenizer is another, for prompts to go to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from command_line import rlprompt
from tiny import tiny_model, tiny_tokenizer
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rlprompt.models.lm import FrozenLM
from rlprompt.transfer.file import Transfer, read_transfer


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """The tiny tokenizer without its words: all text is bytes."""
    state = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    state["model"]["merges"] = []
    ends = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    make: Any = PreTrainedTokenizerFast  # not annotated
    made: PreTrainedTokenizerBase = make(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)), **ends
    )
    return made


def save_bytes(folder: Path) -> None:
    """A tiny model with that tokenizer, in a folder."""
    tiny_model("gpt2").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


def byte_lm(**config: Any) -> FrozenLM:
    return FrozenLM(tiny_model("gpt2", **config), byte_tokenizer(), "bytes")


def transferred(study: Path, *options: str) -> Transfer:
    result = rlprompt("transfer", str(study), *options)
    assert result.exit_code == 0, result.stderr
    return read_transfer(study / "transfer.json")
