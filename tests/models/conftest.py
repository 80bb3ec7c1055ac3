"""What several tests of models share."""

from __future__ import annotations

import pytest

from rlprompt.models.lm import FrozenLM


@pytest.fixture(scope="session")
def default_lm() -> FrozenLM:
    """The default model in float32 on the CPU, loaded once."""
    return FrozenLM.load("smollm2-135m", device="cpu", dtype="float32")
