"""Scores outside any budget, counted: of controls, of the selection on dev, and of the one test.

They are kept, so that a search that was killed while it chose does not choose again, and opens
test once.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt
from rlprompt.search.result import Score
from rlprompt.tasks.base import Measured, Task, as_task, prompt_rows

# Of what the model wrote, this many characters are kept with a result.
MOST_CHARACTERS = 400


class Finding(NamedTuple):
    """What prompts came to on a split.

    Attributes:
        measured: On each example.
        at: When it was computed, ISO 8601 with the time zone.
        seconds: How long that took.
    """

    measured: Measured
    at: str
    seconds: float


class Scores(Protocol):
    """Scores that an earlier process computed: nothing is selected, or tested, twice."""

    def find(
        self, prompts: Sequence[Prompt], split: str, which: Sequence[int] | None = None
    ) -> Finding | None:
        """What prompts came to together on a split, or on some of its examples, or None."""
        ...

    def keep(
        self,
        prompts: Sequence[Prompt],
        split: str,
        finding: Finding,
        which: Sequence[int] | None = None,
    ) -> None:
        """Put away what is new, for good once this returns."""
        ...


class Pending:
    """Scores of a study that is not begun yet (`Scores`), for its store."""

    def __init__(self) -> None:
        self._kept: list[tuple[Sequence[Prompt], str, Finding, Sequence[int] | None]] = []

    def find(
        self, prompts: Sequence[Prompt], split: str, which: Sequence[int] | None = None
    ) -> Finding | None:
        """See `Scores.find`."""
        asked = (prompts, split, which)
        return next((kept for p, s, kept, w in self._kept if (p, s, w) == asked), None)

    def keep(
        self,
        prompts: Sequence[Prompt],
        split: str,
        finding: Finding,
        which: Sequence[int] | None = None,
    ) -> None:
        """See `Scores.keep`."""
        self._kept.append((prompts, split, finding, which))

    def move(self, scores: Scores) -> None:
        """Put everything where it lasts."""
        for entry in self._kept:
            scores.keep(*entry)


@dataclass
class Unmetered:
    """Scores prompts without a budget, and counts what that costs.

    Args:
        task: What a prompt is worth.
        lm: The frozen model.
        kept: Where scores are looked up and put.

    Attributes:
        rows: Rows so far, whether computed here or found.
        seconds: Seconds that they took when they were computed.
        opened: When test was scored first, ISO 8601, or "".
        test_prompts: Prompts scored on test.
    """

    task: Task
    lm: FrozenLM
    kept: Scores | None = None
    rows: int = 0
    seconds: float = 0.0
    opened: str = ""
    test_prompts: int = 0

    def __post_init__(self) -> None:
        """Give the task what it lacks."""
        self.task = as_task(self.task)

    def measure(
        self, prompts: Sequence[Prompt], split: str, which: Sequence[int] | None = None
    ) -> Measured:
        """Rewards, metrics and answers (P, E) of prompts on a split.

        Args:
            prompts: (P,) of them.
            split: `train`, `dev` or `test`.
            which: Places of the examples to score on; None for all.

        Raises:
            ValueError: The task's answer is no number, or of the wrong shape.
        """
        found = self.kept.find(prompts, split, which) if self.kept else None
        if found is None:
            found = self._computed(prompts, split, which)
            if self.kept:
                self.kept.keep(prompts, split, found, which)
        extra = prompt_rows(self.task) - len(self.task.splits.train)
        self.rows += len(prompts) * (found.measured.rewards.shape[1] + extra)
        self.seconds += found.seconds
        if split == "test":
            self.opened = self.opened or found.at
            self.test_prompts += len(prompts)
        return found.measured

    def scores(self, prompts: Sequence[Prompt], split: str) -> list[Score]:
        """Mean reward and metric of each prompt on a whole split; errors as for `measure`."""
        return means(self.measure(prompts, split))

    def _computed(
        self, prompts: Sequence[Prompt], split: str, which: Sequence[int] | None
    ) -> Finding:
        part = self.task.splits.parts()[split]
        examples = part if which is None else [part[i] for i in which]
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        began = time.perf_counter()
        rewards, metrics, answers = Measured(*self.task.measure(self.lm, prompts, examples))
        seconds = time.perf_counter() - began
        rewards, metrics = (np.asarray(answer, np.float64) for answer in (rewards, metrics))
        for answer in (rewards, metrics):
            # Sorted among numbers, a NaN could end up anywhere, first included.
            if answer.shape != (len(prompts), len(examples)) or not np.isfinite(answer).all():
                raise ValueError(
                    f"task {self.task.name!r} gave an answer of shape {answer.shape} with "
                    f"{(~np.isfinite(answer)).sum()} values that are no finite number for "
                    f"{len(prompts)} prompts on {len(examples)} examples of {split}"
                )
        return Finding(Measured(rewards, metrics, answers), at, seconds)


def means(measured: Measured) -> list[Score]:
    """Mean reward and metric of each prompt."""
    pairs = (values.mean(axis=1).tolist() for values in measured[:2])
    return [Score(reward, metric) for reward, metric in zip(*pairs, strict=True)]


def shown_answers(measured: Measured) -> tuple[str, ...]:
    """What the model answered under the only prompt, cut; empty where the task does not say."""
    if measured.answers is None:
        return ()
    (answers,) = measured.answers
    return tuple(text[:MOST_CHARACTERS] for text in answers)
