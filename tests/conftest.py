"""Fixtures that several test modules share."""

from __future__ import annotations

import os

import pytest
import torch
from command_line import desk, model
from hypothesis import settings
from tiny import tiny_lm, tiny_model
from transformers import AutoTokenizer

from rlprompt._utils.assets import fetch
from rlprompt.models.lm import FrozenLM
from rlprompt.models.loading import dense_folder

__all__ = ["default_lm", "desk", "lm", "model", "real_tokenizer"]

# The same cases every time, and no limit on the time of one: the machine may be shared.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("repeatable")

# Workers side by side have a core each, as have the processes that they start: more threads would
# wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture
def lm() -> FrozenLM:
    """A tiny causal model."""
    return tiny_lm("llama")


@pytest.fixture(scope="session")
def default_lm() -> FrozenLM:
    """The default model on the CPU in float32; change nothing in it."""
    return FrozenLM.load("smollm2-135m", device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def real_tokenizer() -> FrozenLM:
    """The default model's own tokenizer, on a tiny model with as many embeddings."""
    folder = dense_folder(fetch("smollm2-135m"))
    assert folder is not None
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return FrozenLM(tiny_model("llama", vocab_size=len(tokenizer)), tokenizer, "real-tokenizer")
