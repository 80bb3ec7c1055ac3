from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from tiny import TinyKind, tiny_model, tiny_tokenizer
from torch import nn

from rlprompt.models.lm import FrozenLM
from rlprompt.models.packed.kernels import Kernels, PackedLinear
from rlprompt.prompt import SoftPrompt, TokenPrompt
from rlprompt.template import Query

# Wide enough that packing its weights is worth it.
WIDE = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
WIDE_GPT2 = {"n_embd": 128}
QUERIES = [Query((5, 6, 7), (8,), ((9,), (10, 11))), Query((5,), (8, 9), ((9,), (10, 11)))]
PROMPTS = [TokenPrompt((12, 13)), TokenPrompt((14, 15, 16))]


def wide(kind: TinyKind) -> FrozenLM:
    config = WIDE_GPT2 if kind == "gpt2" else WIDE
    return FrozenLM(tiny_model(kind, **config), tiny_tokenizer(kind), f"wide-{kind}")


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma"])
def test_packed_weights_give_the_same_scores_and_gradients(kind: TinyKind) -> None:
    lm = wide(kind)
    assert lm._engine.plain.kernels.packed_bytes > 0
    packed = lm.score(PROMPTS, QUERIES)
    vectors = [SoftPrompt(np.random.default_rng(0).normal(size=(2, 128)))]
    found = lm.score_with_grad(vectors, QUERIES, lambda ll, _: ll.sum(-1))
    lm._engine.plain.kernels._forwards = {}
    lm._engine.plain.kernels._attends = False
    torch.testing.assert_close(packed, lm.score(PROMPTS, QUERIES), rtol=0, atol=1e-4)
    expected = lm.score_with_grad(vectors, QUERIES, lambda ll, _: ll.sum(-1))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_nothing_of_the_model_is_changed() -> None:
    lm = wide("llama")
    before = {name: dict(vars(module)) for name, module in lm.model.named_modules()}
    implementation = lm.model.config._attn_implementation
    lm.score(PROMPTS, QUERIES)
    with lm._engine.plain.kernels.applied():
        assert "forward" in vars(lm.model.get_submodule("model.layers.0.mlp"))
    assert {name: dict(vars(module)) for name, module in lm.model.named_modules()} == before
    assert lm.model.config._attn_implementation == implementation


def test_weights_are_not_packed_beyond_the_room_there_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, logger="rlprompt"):
        assert Kernels(nn.Linear(512, 512), room=1 << 19).packed_bytes == 0
    assert caplog.messages == ["weights are not packed: 1 MiB, room for 0"]


def test_falls_back_where_the_operators_are_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(self: PackedLinear, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute")

    expected = wide("llama").score(PROMPTS, QUERIES)
    monkeypatch.setattr(PackedLinear, "__init__", missing)
    with caplog.at_level(logging.INFO, logger="rlprompt"):
        lm = wide("llama")
    assert "weights are not packed: this build of PyTorch cannot" in caplog.text
    torch.testing.assert_close(lm.score(PROMPTS, QUERIES), expected, rtol=0, atol=1e-4)


def test_falls_back_where_the_operators_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackedLinear, "agrees", lambda self: False)
    assert wide("llama")._engine.plain.kernels.packed_bytes == 0
