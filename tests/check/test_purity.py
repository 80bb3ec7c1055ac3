"""A pure reward is the same however it is asked for; what it hangs on besides is named."""

from __future__ import annotations

import pytest
from broken_tasks import SPLITS, DrawsFromGlobal, GoodTask, OwnGenerator
from tiny import tiny_lm

from rlprompt.check.calls import CheckedTask
from rlprompt.check.purity import check_purity
from rlprompt.check.report import Finding
from rlprompt.prompt import TokenPrompt


def findings(task: GoodTask) -> dict[str, Finding]:
    prompts = [TokenPrompt((i, i + 1)) for i in range(4)]
    others = [TokenPrompt((9,)), TokenPrompt((8,))]
    checked = CheckedTask(task, tiny_lm())
    found = check_purity(checked, prompts, SPLITS.train[:3], others, SPLITS.dev[:2])
    return {one.name: one for one in found}


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
    assert "a reward hangs on model, prompt and example alone" in found["deterministic"].text
