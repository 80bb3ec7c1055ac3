"""Scores of prompts that others found, computed a few at a time and kept one by one."""

from __future__ import annotations

import datetime
import platform
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt
from rlprompt.search.evaluation import Evaluator, means
from rlprompt.search.memo import Measurement, SplitQuestion
from rlprompt.search.result import Score
from rlprompt.store.store import Store
from rlprompt.tasks.base import Measured, Task

# What may change a score without a change of model, task and prompt.
PACKAGES = ("rlprompt", "torch", "transformers")
# Prompts scored together: six took 29 s where one by one they took 70, on 200 examples with the
# default model. Ctrl-C loses no more than these.
TOGETHER = 8


class TransferScores:
    """Scores on one model and task, kept in a study so that none is computed twice.

    They are kept apart from the study's own and by versions and device: else nothing could drift.
    Each is kept by itself, so a later command finds it in whatever company it asks.

    Args:
        task: What a prompt is worth.
        lm: The frozen model.
        store: The study's.
        read_only: Look scores up, and keep none.

    Attributes:
        on_test: Prompts that were scored on test, and had not been before.
    """

    def __init__(self, task: Task, lm: FrozenLM, store: Store, read_only: bool = False) -> None:
        self.task = task
        self.lm = lm
        self.on_test = 0
        made_by = (*map(version, PACKAGES), platform.machine(), str(lm.device))
        self._memo = store.memo(lm, task, f" transfer {' '.join(made_by)}")
        self._read_only = read_only

    def scores(self, prompts: Iterable[Prompt], split: str) -> dict[Prompt, Score | str]:
        """Means over a split of each prompt, or in a line why it has none."""
        found: dict[Prompt, Score | str] = {}
        new: dict[bool, list[Prompt]] = {False: [], True: []}
        for prompt in dict.fromkeys(prompts):
            measurement = self._memo.get(SplitQuestion((prompt,), split))
            if measurement is None:
                new[isinstance(prompt, SoftPrompt)].append(prompt)
            else:
                (found[prompt],) = means(measurement.measured)
        for kind in new.values():  # a batch is of one kind
            for start in range(0, len(kind), TOGETHER):
                found |= self._computed(kind[start : start + TOGETHER], split)
        return found

    def _computed(self, prompts: Sequence[Prompt], split: str) -> dict[Prompt, Score | str]:
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        began = time.perf_counter()
        try:
            together = Evaluator(self.task, self.lm).measure(prompts, split)
        except ValueError as error:
            if len(prompts) == 1:
                return {prompts[0]: " ".join(str(error).split())}
            # One that cannot be scored, such as a text too long, does not spoil the others.
            alone = (self._computed([prompt], split) for prompt in prompts)
            return {prompt: score for one in alone for prompt, score in one.items()}
        seconds = (time.perf_counter() - began) / len(prompts)
        self.on_test += len(prompts) * (split == "test")
        if not self._read_only:
            for i, prompt in enumerate(prompts):
                own = Measurement(_row(together, i), at, seconds)
                self._memo.put(SplitQuestion((prompt,), split), own)
        return dict(zip(prompts, means(together), strict=True))


def _row(together: Measured, i: int) -> Measured:
    """What the i-th prompt came to, as if it had been asked for alone."""
    rewards, metrics, answers = together
    own = slice(i, i + 1)
    return Measured(rewards[own], metrics[own], None if answers is None else answers[own])
