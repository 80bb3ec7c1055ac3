"""A task that takes its time, and a clock for it: no machine is busy or slow in such a test."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from broken_tasks import GoodTask
from numpy.typing import NDArray

from rlprompt.data.examples import Example
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt
from rlprompt.types import Floats


def clock_of_sleep(patch: pytest.MonkeyPatch, look: float = 0.0) -> None:
    """Have time pass while somebody sleeps, at once, and `look` seconds at each look at the clock.

    A look that takes no time keeps figures exact; what divides by seconds needs some.
    """
    now = 0.0

    def sleep(seconds: float) -> float:
        nonlocal now
        now += seconds
        return now

    patch.setattr(time, "perf_counter", lambda: sleep(look))
    patch.setattr(time, "sleep", sleep)


@dataclass(frozen=True)
class SlowTask(GoodTask):
    """Sleeps for each row, and three times as long for a gradient."""

    row_seconds: float = 0.1

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        time.sleep(self.row_seconds * len(prompts) * len(examples))
        return super().rewards(lm, prompts, examples)

    def rewards_with_grad(
        self, lm: FrozenLM, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, NDArray[np.float32]]:
        time.sleep(2 * self.row_seconds * len(prompts) * len(examples))
        return super().rewards_with_grad(lm, prompts, examples)
