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
