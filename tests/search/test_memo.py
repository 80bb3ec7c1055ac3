"""What answers are found by, and how they are written down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlprompt.prompt import TokenPrompt
from rlprompt.search.memo import Answer, Question, Scope, SplitQuestion, TrainQuestion

PROMPTS = (TokenPrompt((10, 11)), TokenPrompt((12,)))
SCOPE = Scope("model", "task", "examples")


@pytest.mark.parametrize(
    ("question", "key"),
    [
        (TrainQuestion(PROMPTS), "fde1a212ae163df44ec3222a3bc18478"),
        (
            TrainQuestion(PROMPTS, True, (0, 2), "cross_entropy", told=True),
            "3ec7911b70348090f379a6d2701bff7e",
        ),
        (SplitQuestion(PROMPTS, "dev"), "dc48af9d27154dd49904cf2345abfb9d"),
    ],
)
def test_an_answer_has_one_key_from_version_to_version(question: Question[Any], key: str) -> None:
    """Another one would have everybody pay again."""
    assert question.key(SCOPE).hex() == key


@pytest.mark.parametrize(("outputs", "judged"), [(None, 0), ((("a", "b"), ("", "é")), 7)])
def test_an_answer_is_read_as_it_was_written(
    outputs: tuple[tuple[str, ...], ...] | None, judged: int
) -> None:
    question = TrainQuestion(PROMPTS)
    row = question.encoded(Answer(np.eye(2), None, 1.5, outputs, judged))
    found = question.decoded([row[column] for column in question.columns])
    assert found.per_example.tolist() == np.eye(2).tolist()
    assert (found.gradients, found.seconds) == (None, 1.5)
    assert (found.outputs, found.judge_tokens) == (outputs, judged)
