from __future__ import annotations

import copy
import logging
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from every_model import build
from tiny import TinyKind, randomised, tiny_model, tiny_tokenizer
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.models.llama.modeling_llama import LlamaMLP

from rlprompt.models.engine import Engine
from rlprompt.models.lm import FrozenLM
from rlprompt.models.packed.kernels import ATTENTION, Kernels, PackedLinear
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


def alone(model: Any, prompt: TokenPrompt, query: Query) -> list[float]:
    """Log-likelihoods of a query's candidates as transformers computes them, one by one."""
    found = []
    for candidate in query.candidates:
        ids = torch.tensor([(*query.head_ids, *prompt.ids, *query.tail_ids, *candidate)])
        with torch.no_grad():
            logs = model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
        n = len(candidate)
        found.append(float(logs[-n - 1 : -1].gather(1, ids[0, -n:, None]).sum()))
    return found


def agrees(lm: FrozenLM, model: Any) -> None:
    """Scores are those of a copy of the model that nothing was done to."""
    expected = [[alone(model, prompt, query) for query in QUERIES] for prompt in PROMPTS]
    torch.testing.assert_close(
        lm.score(PROMPTS, QUERIES), torch.tensor(expected), rtol=0, atol=1e-4
    )


def of_type(model_type: str, **changes: Any) -> Any:
    config = build(model_type, "causal").config
    config = type(config)(**config.to_dict() | changes)
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]
    return randomised(getattr(transformers, model_class)(config).eval(), 0)


WIDE_H1 = {"hidden_size": 128, "intermediate_size": 160, "mamba_d_ssm": 64}


class TestAnMlpThatDoesMoreWithTheSameParts:
    @pytest.mark.parametrize("multipliers", [[0.88, 0.59], [1.0, 0.97]])
    def test_that_multiplies(self, multipliers: list[float]) -> None:
        model = of_type("falcon_h1", mlp_multipliers=multipliers, **WIDE_H1)
        lm = FrozenLM(copy.deepcopy(model), tiny_tokenizer(), "h1")
        assert lm._engine.plain.kernels.packed_bytes > 0
        agrees(lm, model)

    def test_with_gradients(self) -> None:
        model = of_type("falcon_h1", mlp_multipliers=[0.88, 0.59], **WIDE_H1)
        lm = FrozenLM(model, tiny_tokenizer(), "h1")
        prompts = [SoftPrompt(lm.embeddings(prompt.ids)) for prompt in PROMPTS]
        found, _ = lm.score_with_grad(prompts[:1], QUERIES, lambda ll, _: ll.sum(-1))
        torch.testing.assert_close(found, lm.score(PROMPTS[:1], QUERIES), rtol=0, atol=1e-4)

    @pytest.mark.parametrize("limit", [10.0, 40.0])
    def test_that_clamps(self, limit: float) -> None:
        model: Any = tiny_model("llama", **WIDE)
        for layer in model.model.layers:
            layer.mlp.__class__ = Clamped
            layer.mlp.limit = limit
            for name in ("gate_proj", "up_proj"):  # so that real texts come to the clamp
                layer.mlp.get_submodule(name).weight.data.mul_(20)
        lm = FrozenLM(copy.deepcopy(model), tiny_tokenizer(), "clamped")
        assert lm._engine.plain.kernels.packed_bytes > 0
        agrees(lm, model)

    @pytest.mark.parametrize("scale", [1.0, 0.5])
    def test_is_told_by_the_fingerprint(
        self, scale: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = of_type("falcon_h1", mlp_multipliers=[scale, 1.0], **WIDE_H1)
        lm = FrozenLM(model, tiny_tokenizer(), "h1")
        marked = lm.fingerprint
        monkeypatch.setattr(Engine, "marks", [])
        del lm.fingerprint
        # One that does no more was scored right before, and is found again.
        assert (lm.fingerprint == marked) is (scale == 1)


class Clamped(LlamaMLP):
    """As DeepSeek-V4's."""

    limit: float

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.gate_proj(x).clamp(max=self.limit)
        up = self.up_proj(x).clamp(-self.limit, self.limit)
        out: torch.Tensor = self.down_proj(self.act_fn(gate) * up)
        return out


@pytest.mark.parametrize("part", ["gate_proj", "up_proj", "down_proj", "act_fn"])
@pytest.mark.parametrize("late", [False, True])
def test_hooks_on_parts_of_an_mlp_are_called(part: str, late: bool) -> None:
    model: Any = tiny_model("llama", **WIDE)

    def hook(model: Any) -> None:
        for layer in model.model.layers:
            layer.mlp.get_submodule(part).register_forward_hook(lambda _, given, out: out * 0.5)

    hooked, lm = copy.deepcopy(model), None if not late else FrozenLM(model, tiny_tokenizer(), "l")
    hook(model)
    hook(hooked)
    agrees(lm or FrozenLM(model, tiny_tokenizer(), "llama"), hooked)


def test_weights_that_the_first_pass_changes_are_packed_after_it() -> None:
    sizes = {"hidden_size": 128, "attention_hidden_size": 128, "intermediate_size": 160}
    model = of_type("rwkv", num_hidden_layers=8, rescale_every=3, **sizes)
    lm = FrozenLM(copy.deepcopy(model), tiny_tokenizer(), "rwkv")
    assert lm._engine.plain.kernels.packed_bytes > 0
    agrees(lm, model)
    assert lm._engine.marks == ["rescaled"]
    few = FrozenLM(of_type("rwkv", rescale_every=3), tiny_tokenizer(), "rwkv of two layers")
    assert few._engine.marks == []


@pytest.mark.parametrize("biased", [False, True])
def test_attention_is_that_of_transformers(biased: bool) -> None:
    made = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, n, 5, 8, generator=made) for n in (4, 2, 2))
    mask = torch.full((2, 1, 5, 5), torch.finfo(torch.float32).min).triu(1)
    more = {"position_bias": torch.randn(1, 4, 5, 5, generator=made)} if biased else {}
    module = nn.Module()
    module.num_key_value_groups = 2  # type: ignore[assignment]  # no part of it
    found, expected = (
        ALL_ATTENTION_FUNCTIONS[name](module, query, key, value, mask, scaling=0.5, **more)[0]
        for name in (ATTENTION, "sdpa")
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_layers_that_are_computed_wrong_are_left_as_they_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model("llama", **WIDE)
    monkeypatch.setattr(PackedLinear, "agrees", lambda self: True)
    usual = PackedLinear.__call__
    monkeypatch.setattr(PackedLinear, "__call__", lambda self, *given: 0.9 * usual(self, *given))
    with caplog.at_level(logging.INFO, logger="rlprompt"):
        lm = FrozenLM(copy.deepcopy(model), tiny_tokenizer(), "llama")
    assert "llama says something else with packed weights: none are packed" in caplog.messages
    agrees(lm, model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_llamas_mlp_is_fused_in_every_dtype(dtype: torch.dtype) -> None:
    model: Any = tiny_model("llama", **WIDE)
    model.to(dtype)
    kernels = Kernels(model, room=1 << 30)
    with kernels.applied():
        assert all("forward" in vars(layer.mlp) for layer in model.model.layers)
    assert not kernels.differ


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
