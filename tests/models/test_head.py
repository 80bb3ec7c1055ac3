from __future__ import annotations

from typing import Any

import pytest
import torch
from every_model import build

from rlprompt.models.head import Head, find_head

IDS = torch.tensor([[5, 6, 7]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cap_is_found_however_small_the_logits_are(dtype: torch.dtype) -> None:
    model: Any = build("gemma2", "causal")
    with torch.no_grad():
        model.lm_head.weight.mul_(1e-3)
    model = torch.nn.Module.to(model, dtype)
    for cap in (30.0, 12.0, None):
        model.config.final_logit_softcapping = cap
        assert find_head(model, IDS) == Head(model.lm_head, cap=cap)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("name", "scale"), [("granite", 1 / 8), ("hyperclovax", 8.0)])
def test_the_same_number_may_multiply_or_divide(
    name: str, scale: float, dtype: torch.dtype
) -> None:
    model: Any = torch.nn.Module.to(build(name, "causal"), dtype)
    model.config.logits_scaling = 8.0
    assert find_head(model, IDS) == Head(model.lm_head, scale=scale)
    model.config.logits_scaling = 1.0
    assert find_head(model, IDS) == Head(model.lm_head)


def test_whatever_else_is_done_to_logits_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = build("llama", "causal")
    forward = model.forward

    def moved(**given: Any) -> Any:
        output = forward(**given)
        output.logits = output.logits + 1
        return output

    monkeypatch.setattr(model, "forward", moved)
    assert find_head(model, IDS) is None


class Doubled(torch.nn.Linear):
    """A layer that gives more than its weight says, as those with an adapter do."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


@pytest.mark.parametrize("layer", [torch.nn.Linear(4, 9), torch.nn.Linear(4, 9, bias=False)])
@pytest.mark.parametrize("ids", [[7, 2], [0, 1, 2, 3, 4, 5, 8]])
def test_logits_of_a_few_tokens_are_those_among_all(layer: torch.nn.Linear, ids: list[int]) -> None:
    hidden, among = torch.randn(2, 3, 4), torch.tensor(ids)
    doubled = Doubled(4, 9)
    for head in (Head(layer, scale=0.5, cap=2.0), Head(layer), Head(doubled)):
        torch.testing.assert_close(head.logits(hidden, among), head.logits(hidden)[..., among])
