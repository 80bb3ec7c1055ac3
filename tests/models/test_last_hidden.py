from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny import PACKABLE, TinyKind, tiny_lm

TEXTS = [(1, 9, 4), (5,), (7, 8)]


@pytest.mark.parametrize("kind", PACKABLE)
def test_the_output_head_makes_of_it_what_the_model_says_next(kind: TinyKind) -> None:
    lm = tiny_lm(kind)
    hidden = torch.from_numpy(lm.last_hidden(TEXTS))
    model: Any = lm.model
    logits = model.get_output_embeddings()(hidden)
    for row, text in zip(logits, TEXTS, strict=True):
        expected = model(input_ids=torch.tensor([text])).logits[0, -1]
        torch.testing.assert_close(row, expected)


def test_it_is_float32() -> None:
    assert tiny_lm().last_hidden(TEXTS).dtype == np.float32


@pytest.mark.parametrize("texts", [[], [(1,), ()]])
def test_there_must_be_something_to_go_on_with(texts: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="texts of one token or more"):
        tiny_lm().last_hidden(texts)


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_a_model_that_does_not_go_on_with_a_text_is_refused(kind: TinyKind) -> None:
    with pytest.raises(ValueError, match="only a causal model"):
        tiny_lm(kind).last_hidden(TEXTS)
