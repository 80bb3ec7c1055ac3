"""A pure reward is the same however it is asked for; what it depends on besides is named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from broken_tasks import SPLITS, DrawsFromGlobal, GoodTask, OwnGenerator
from tiny import tiny_lm

from rlprompt.check.calls import CheckedTask
from rlprompt.check.purity import check_purity
from rlprompt.check.report import Finding, collect
from rlprompt.prompt import TokenPrompt


def findings(task: GoodTask) -> dict[str, Finding]:
    return {one.name: one for one in collect(lambda: _all(task))}


def test_a_pure_reward_passes_everything() -> None:
    found = findings(GoodTask())
    assert list(found) == [
        "dtype",
        "shape",
        "finite",
        "deterministic",
        "prompt-order",
        "example-order",
        "batch-size",
        "repeats",
        "stateless",
    ]
    assert {one.status for one in found.values()} == {"pass"}


@pytest.mark.parametrize("task", [DrawsFromGlobal(), OwnGenerator()])
def test_one_that_draws_is_asked_no_further(task: GoodTask) -> None:
    found = findings(task)
    assert list(found)[-1] == "deterministic"
    assert found["deterministic"].status == "fail"
    assert "a reward depends on model, prompt and example alone" in found["deterministic"].text


class JudgesTogether(GoodTask):
    """What is taken out is the mean of whatever is judged."""

    def __init__(self, parts: tuple[str, ...]) -> None:
        super().__init__()
        self.parts = parts

    scored_together = True

    def rewards(self, lm: Any, prompts: Any, examples: Any) -> Any:
        rewards = super().rewards(lm, prompts, examples)
        keys = {one.key for part in self.parts for one in SPLITS.parts()[part]}
        if keys.issuperset(one.key for one in examples):
            rewards = rewards - rewards.mean(1, keepdims=True)
        return rewards


@pytest.mark.parametrize(("parts", "status"), [(("train",), "pass"), (("train", "dev"), "fail")])
def test_train_may_be_scored_together_and_what_is_judged_may_not(
    parts: tuple[str, ...], status: str
) -> None:
    assert findings(JudgesTogether(parts))["batch-size"].status == status


def _all(task: GoodTask) -> Iterator[Finding]:
    prompts = [TokenPrompt((i, i + 1)) for i in range(4)]
    others = [TokenPrompt((9,)), TokenPrompt((8,))]
    checked = CheckedTask(task, tiny_lm())
    return check_purity(checked, prompts, SPLITS.train[:3], others, SPLITS.dev[:2])
