"""The default model, for what may depend on real words and trained weights."""

from __future__ import annotations

import logging

import pytest

from rlprompt.models.lm import FrozenLM


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += f"{record.getMessage()}\n"


@pytest.fixture(scope="session")
def loaded() -> tuple[FrozenLM, str]:
    """The model on the CPU, and what was logged as it was loaded; change nothing in it."""
    lines, logger = Lines(), logging.getLogger("rlprompt")
    level = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    try:
        return FrozenLM.load("smollm2-135m", device="cpu"), lines.text
    finally:
        logger.setLevel(level)
        logger.removeHandler(lines)


@pytest.fixture(scope="session")
def default_lm(loaded: tuple[FrozenLM, str]) -> FrozenLM:
    """The model alone."""
    return loaded[0]
