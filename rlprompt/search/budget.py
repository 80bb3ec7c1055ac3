"""What a search may spend, and what it spent and found; only the `Objective` spends."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

import numpy as np

from rlprompt.prompt import Prompt
from rlprompt.tasks.base import Task, prompt_rows

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

    >>> from rlprompt import Budget, Objective, TokenPrompt
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> objective = Objective(ToyTask(n_examples=4), toy_lm(), Budget(20))
    >>> _ = objective.evaluate([TokenPrompt((1, 2)), TokenPrompt((3, 4))])
    >>> ledger = objective.ledger
    >>> ledger.used, ledger.n_prompts, ledger.best(1)[0].reward == ledger.best_reward
    (8, 2, True)

    Attributes:
        used: Rows charged.
        n_prompts: Prompts scored on all train examples, repeats counted.
        length: Tokens or vectors of all that count in `n_prompts` together.
        lm_seconds: Wall time that rewards and gradients took when they were computed.
        own_tokens: Tokens that the frozen model read for the method itself, at no row.
        reading_seconds: Wall time that this took when they were read.
        proposer_read: Tokens of what a writer was asked to propose (`Objective.written`).
        proposer_written: Tokens of what it wrote.
        proposer_seconds: Wall time that this took when it was written.
        judge_tokens: Tokens that models which judge answers read, at no row.
        points: Rows used and mean reward after each scored prompt, in order.
        improvements: Each prompt that was the best so far, in order.
    """

    used: int = 0
    n_prompts: int = 0
    length: int = 0
    lm_seconds: float = 0.0
    own_tokens: int = 0
    reading_seconds: float = 0.0
    proposer_read: int = 0
    proposer_written: int = 0
    proposer_seconds: float = 0.0
    judge_tokens: int = 0
    points: list[tuple[int, float]] = field(default_factory=list)
    improvements: list[Improvement] = field(default_factory=list)
    _whole: set[str] = field(default_factory=set, repr=False)
    _in_part: set[str] = field(default_factory=set, repr=False)
    _kept: dict[str, Scored] = field(default_factory=dict, repr=False)
    _heap: list[tuple[float, int, str]] = field(default_factory=list, repr=False)

    @property
    def n_distinct(self) -> int:
        """Different prompts among those that count in `n_prompts`."""
        return len(self._whole)

    @property
    def n_partial(self) -> int:
        """Different prompts scored on a part of the examples and never on all of them.

        They are in `used` and `lm_seconds`, and in nothing else here.
        """
        return len(self._in_part)

    @property
    def trace(self) -> list[tuple[int, float]]:
        """Rows used and best reward, at each improvement."""
        return [(one.rows, one.reward) for one in self.improvements]

    @property
    def mean_length(self) -> float:
        """Tokens or vectors of a scored prompt on average, 0 before the first."""
        return self.length / self.n_prompts if self.n_prompts else 0.0

    @property
    def best_reward(self) -> float:
        """Highest mean reward so far, minus infinity before the first."""
        return self.improvements[-1].reward if self.improvements else -np.inf

    def best(self, count: int) -> list[Scored]:
        """The best distinct prompts, highest reward first, the earlier of equals first."""
        ranked = sorted(self._kept.values(), key=lambda scored: (-scored.reward, scored.rows))
        return ranked[:count]

    def record_part(self, prompt: Prompt) -> None:
        """Note a prompt that was scored on a part of the train examples."""
        if prompt.digest not in self._whole:
            self._in_part.add(prompt.digest)

    def record(self, scored: Scored, length: int) -> None:
        """Enter a prompt of so many tokens or vectors that was scored on all train examples."""
        self.n_prompts += 1
        self._whole.add(scored.prompt.digest)
        self._in_part.discard(scored.prompt.digest)
        self.length += length
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


@dataclass(frozen=True)
class Budget:
    """What a search may spend, and when it may stop before.

    All but `rows` are looked at before each call of the objective, so a search ends with the call
    that it was in.

    >>> Budget(1000, patience=200).limits
    {'patience': 200}
    >>> Budget(0)
    Traceback (most recent call last):
    ValueError: a budget has one row or more, got 0

    Args:
        rows: Prompt-on-example scores, 1 or more.
        seconds: Wall time of rewards and gradients, above 0.
        target: A mean train reward that is good enough.
        patience: Rows without a better reward, 1 or more. Rows on a part of the examples are
            counted; only a mean over all of them is a better reward, or reaches the target.
    """

    rows: int
    seconds: float = math.inf
    target: float = math.inf
    patience: float = math.inf

    def __post_init__(self) -> None:
        """Refuse an empty budget."""
        if self.rows < 1:
            raise ValueError(f"a budget has one row or more, got {self.rows}")
        if not self.seconds > 0 or not self.patience >= 1 or math.isnan(self.target):
            raise ValueError(
                "a search stops after seconds above 0, a target that is a number, or a patience "
                f"of one row or more; got {self}"
            )

    @property
    def limits(self) -> dict[str, float]:
        """What may end a search before its rows are spent, by field."""
        limits = {"seconds": self.seconds, "target": self.target, "patience": self.patience}
        return {name: limit for name, limit in limits.items() if limit < math.inf}

    def check_covers(self, task: Task) -> None:
        """Refuse to begin what cannot score one prompt.

        Raises:
            ValueError: It does not cover one.
        """
        n_train, rows = len(task.splits.train), prompt_rows(task)
        if self.rows < rows:
            extra = rows - n_train
            more = f" and scores each prompt on {extra} more texts" if extra else ""
            raise ValueError(
                f"a budget of {self.rows} rows does not cover one prompt: the task has "
                f"{n_train} train examples{more}, so give {rows} rows or more"
            )

    def stops(self, ledger: Ledger) -> bool:
        """Whether a search with this ledger has reason to stop before its rows are spent."""
        improved = ledger.improvements[-1].rows if ledger.improvements else 0
        return (
            ledger.lm_seconds >= self.seconds
            or ledger.best_reward >= self.target
            or ledger.used - improved >= self.patience
        )
