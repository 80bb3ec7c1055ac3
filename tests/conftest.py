"""Fixtures that several test modules share."""

from __future__ import annotations

import pytest
from command_line import desk, model
from hypothesis import settings
from tiny import tiny_lm, tiny_model
from transformers import AutoTokenizer

from rlprompt._utils.assets import fetch
from rlprompt.models.lm import FrozenLM
from rlprompt.models.loading import dense_folder

__all__ = ["desk", "lm", "model", "real_tokenizer"]

# The same cases every time, and no limit on the time of one: the machine may be shared.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("repeatable")


@pytest.fixture
def lm() -> FrozenLM:
    """A tiny causal model."""
    return tiny_lm("llama")


@pytest.fixture(scope="session")
def real_tokenizer() -> FrozenLM:
    """The default model's own tokenizer, on a tiny model with as many embeddings."""
    folder = dense_folder(fetch("smollm2-135m"))
    assert folder is not None
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return FrozenLM(tiny_model("llama", vocab_size=len(tokenizer)), tokenizer, "real-tokenizer")
