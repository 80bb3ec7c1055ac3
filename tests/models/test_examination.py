"""What is found out about a model when it is loaded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import tiny_lm, tiny_model, tiny_tokenizer

from rlprompt.models.lm import FrozenLM
from rlprompt.models.packed.model import PackedModel
from rlprompt.prompt import TokenPrompt
from rlprompt.template import Query

QUERY = Query((5, 6, 7), (8,), ((9,), (11,)))


def test_an_error_of_the_models_own_forward_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = tiny_model("llama")
    forward = model.model.forward

    def choosy(**given: Any) -> Any:
        if "past_key_values" in given and given.get("position_ids") is not None:
            raise NotImplementedError("no packing here\nplease")
        return forward(**given)

    monkeypatch.setattr(model.model, "forward", choosy)
    lm = FrozenLM(model, tiny_tokenizer(), "choosy")
    reason = "its forward pass refused a packed input (NotImplementedError: no packing here)"
    assert lm.obstacle == reason
    expected = tiny_lm("llama").score([TokenPrompt((20,))], [QUERY])
    torch.testing.assert_close(lm.score([TokenPrompt((20,))], [QUERY]), expected)


def test_an_error_of_ours_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise AttributeError("ours")

    monkeypatch.setattr(PackedModel, "_masks", broken)
    with pytest.raises(AttributeError, match="ours"):
        FrozenLM(tiny_model("llama"), tiny_tokenizer(), "llama")


@pytest.mark.parametrize("seed", range(3))
def test_a_masked_model_of_few_words_is_loaded(seed: int) -> None:
    tokenizer = tiny_tokenizer("bert")
    mask = tokenizer.mask_token_id
    assert isinstance(mask, int)
    model = tiny_model("bert", seed, vocab_size=mask + 2)
    noise = FrozenLM(model, tokenizer, "small").own_noise
    assert 0 <= noise.largest < 1e-4


def test_a_masked_model_needs_a_mask() -> None:
    with pytest.raises(
        ValueError, match=r"^bert is a masked model and its tokenizer has no mask to"
    ):
        FrozenLM(tiny_model("bert"), tiny_tokenizer("llama"), "bert")


def test_minus_one_is_no_limit() -> None:
    model = tiny_model("mistral-sliding")
    model.config.max_position_embeddings = -1
    assert FrozenLM(model, tiny_tokenizer(), "endless").context is None


def test_a_window_counts_in_texts_that_are_longer() -> None:
    lm = tiny_lm("mistral-sliding")
    assert lm.obstacle is None
    assert lm.model.config.sliding_window == 8  # as it was
    near, far = ((6, *range(10, 30)), (7, *range(10, 30)))
    queries = [Query(head, (8,), ((9,), (11,))) for head in (near, far)]
    a, b = lm.score([TokenPrompt((20, 21))], queries)[0]
    # Two layers of 8 see 15 tokens back, so neither sees the first.
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
