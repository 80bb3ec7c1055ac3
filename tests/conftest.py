"""Fixtures that several test modules share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from scripted_server import Script

    from rlprompt.models.lm import FrozenLM

# Torch and all that needs it is imported inside the fixtures: the process that only hands tests to
# the workers reads this file too, and they start when it has.

# The same cases every time, and no limit on the time of one: the machine may be shared.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("repeatable")

# Workers side by side have a core each, as have the processes that they start: more threads would
# wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect tests without collecting garbage.

    What is imported here stays; to look through it again and again takes a fifth of the time, and
    more in the tests.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what needs a GPU where there is none."""
    if item.get_closest_marker("cuda"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("PyTorch sees no GPU here")


@pytest.fixture
def lm() -> FrozenLM:
    """A tiny causal model."""
    from tiny import tiny_lm

    return tiny_lm("llama")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny model; change nothing in it."""
    from command_line import save

    return save(tmp_path_factory.mktemp("model"))


@pytest.fixture
def desk(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with an experiment file and its data."""
    from command_line import ROWS, write_config, write_data

    monkeypatch.chdir(tmp_path)
    # Wide, so that no message is wrapped.
    monkeypatch.setenv("COLUMNS", "200")
    write_data(tmp_path, ROWS)
    write_config(tmp_path, model=str(model))
    return tmp_path


@pytest.fixture
def server() -> Iterator[Script]:
    """A server on this machine that answers by a script."""
    from scripted_server import serving

    with serving() as script:
        yield script


@pytest.fixture(scope="session")
def real_tokenizer() -> FrozenLM:
    """The default model's own tokenizer, on a tiny model with as many embeddings."""
    from tiny import tiny_model
    from transformers import AutoTokenizer

    from rlprompt._utils.assets import fetch
    from rlprompt.models.gguf_cache import dense_folder
    from rlprompt.models.lm import FrozenLM

    folder = dense_folder(fetch("smollm2-135m"))
    assert folder is not None
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return FrozenLM(tiny_model("llama", vocab_size=len(tokenizer)), tokenizer, "real-tokenizer")
