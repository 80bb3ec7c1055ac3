"""A model that says what a test wants."""

from __future__ import annotations

from typing import Any

from tiny import tiny_lm

from rlprompt.models.decoding import Generated
from rlprompt.models.lm import FrozenLM


class Says:
    """Says the same text to each example, whatever the prompt, and else is a tiny model.

    Args:
        texts: For each example, of a token a character; none where nothing is to be written.
    """

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def __getattr__(self, name: str) -> Any:
        return getattr(tiny_lm(), name)

    def generate(self, prompts: Any, queries: Any, **_: Any) -> list[list[Generated]]:
        if not self.texts:
            raise AssertionError("nothing is to be written")
        answers = [Generated(tuple(range(len(t))), t, "length") for t in self.texts]
        return [answers[: len(queries)] for _ in prompts]


def says(*texts: str) -> FrozenLM:
    return Says(*texts)  # type: ignore[return-value]
