"""What a search paid for and what came of it; only the `Objective` writes it."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np

from rlprompt.prompt import Prompt

# Distinct prompts remembered for the selection on dev.
KEPT = 64


@dataclass(frozen=True)
class Scored:
    """A prompt in the ledger: its mean train reward, and the rows spent when it was known."""

    prompt: Prompt
    reward: float
    rows: int


@dataclass(frozen=True)
class Improvement(Scored):
    """A prompt that was better than all before, with the seconds of rewards spent till then."""

    seconds: float


@dataclass
class Ledger:
    """What was paid and what came of it; only the objective writes it.

    Attributes:
        used: Rows charged.
        n_prompts: Prompts scored, repeats counted.
        lm_seconds: Wall time that rewards and gradients took when they were computed.
        points: Rows used and mean reward after each scored prompt, in order.
        improvements: Each prompt that was the best so far, in order.
    """

    used: int = 0
    n_prompts: int = 0
    lm_seconds: float = 0.0
    points: list[tuple[int, float]] = field(default_factory=list)
    improvements: list[Improvement] = field(default_factory=list)
    _kept: dict[str, Scored] = field(default_factory=dict, repr=False)
    _heap: list[tuple[float, int, str]] = field(default_factory=list, repr=False)

    @property
    def trace(self) -> list[tuple[int, float]]:
        """Rows used and best reward, at each improvement."""
        return [(one.rows, one.reward) for one in self.improvements]

    @property
    def best_reward(self) -> float:
        """Highest mean reward so far, minus infinity before the first."""
        return self.improvements[-1].reward if self.improvements else -np.inf

    def best(self, count: int) -> list[Scored]:
        """The best distinct prompts, highest reward first, the earlier of equals first."""
        ranked = sorted(self._kept.values(), key=lambda scored: (-scored.reward, scored.rows))
        return ranked[:count]

    def record(self, scored: Scored) -> None:
        """Enter a scored prompt."""
        self.n_prompts += 1
        self.points.append((scored.rows, scored.reward))
        if scored.reward > self.best_reward:
            seconds = self.lm_seconds
            self.improvements.append(
                Improvement(scored.prompt, scored.reward, scored.rows, seconds)
            )
        key = scored.prompt.digest
        if key in self._kept:
            return
        # Ties: the later prompt is the first to go.
        heapq.heappush(self._heap, (scored.reward, -self.n_prompts, key))
        self._kept[key] = scored
        if len(self._heap) > KEPT:
            del self._kept[heapq.heappop(self._heap)[2]]
