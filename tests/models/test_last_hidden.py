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


CALLS: list[list[tuple[int, ...]]] = [
    [(1,)],
    [(1, 9), (1, 4)],
    [(1, 9, 2), (1, 4, 2), (1, 7), (1, 9, 2)],
]


@pytest.mark.parametrize("kind", PACKABLE)
def test_texts_that_go_on_with_others_are_read_to_the_same_end(kind: TinyKind) -> None:
    lm = tiny_lm(kind)
    for i, texts in enumerate(CALLS):
        read_on = lm.last_hidden(texts, CALLS[:i])
        np.testing.assert_allclose(read_on, lm.last_hidden(texts), rtol=1e-4, atol=1e-5)


def test_what_was_read_before_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, sizes = tiny_lm(seed=31), list[int]()  # one that has read nothing yet
    assert lm._engine.packed is not None
    forward = lm._engine.packed.packed.hidden

    def count(ids: torch.Tensor, *args: Any) -> torch.Tensor:
        sizes.append(ids.numel())
        return forward(ids, *args)

    monkeypatch.setattr(lm._engine.packed.packed, "hidden", count)
    for i in range(1, len(CALLS)):
        lm.last_hidden(CALLS[i], CALLS[:i])
    assert sizes == [1, 2, 3]  # a token of each distinct text


def test_an_answer_does_not_hang_on_what_happens_to_be_remembered() -> None:
    lm = tiny_lm()
    for i in range(1, len(CALLS)):
        step_by_step = lm.last_hidden(CALLS[i], CALLS[:i])
    lm.last_hidden([(2, 3)], [[(2,)]])
    at_once = lm.last_hidden(CALLS[-1], CALLS[:-1])
    np.testing.assert_array_equal(at_once, step_by_step)
