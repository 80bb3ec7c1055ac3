"""Whether a study's answers are still those of its model and tasks: some are computed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt
from rlprompt.search.evaluation import evaluate
from rlprompt.search.result import Result, Score
from rlprompt.store.store import Store, StoredRun, as_json, differences
from rlprompt.studies.inspection import LedgerEntry, ledger
from rlprompt.studies.study import PlannedSearch
from rlprompt.tasks.base import Task

# A stored score and one computed today differ by rounding alone. Packed and plain float32 scores of
# the default model differ by 3e-5 nats, its bfloat16 ones by 5e-2; the reward `gap` stretches nats
# by up to 180. Some times that is allowed.
TOLERANCE = {"float32": 5e-2}
TOLERANCE_16_BIT = 20.0


@dataclass(frozen=True)
class Verification:
    """What came of scoring a study's prompts again.

    Attributes:
        n_prompts: Prompts of the ledger that were scored again.
        n_final: Scores of picked prompts that were computed again.
        largest: The largest difference of a reward on one example, or of a mean of the final ones.
        where: What differs the most, in words.
        tolerance: What rounding may make.
    """

    n_prompts: int
    n_final: int
    largest: float
    where: str
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the differences are no more than rounding."""
        return self.largest <= self.tolerance


def verify(
    store: Store, planned: Mapping[str, PlannedSearch], sample: int, seed: int = 0
) -> Verification:
    """Score a sample of a study's prompts and the picked ones of its finished runs again.

    Args:
        store: The study's.
        planned: Its searches by name, as they are today.
        sample: Prompts of the ledger a run, at most.
        seed: Decides which.

    Raises:
        ValueError: Model, task or data are not those of the study, so nothing is scored.
    """
    check_unchanged(store.runs(), planned)
    rng, gaps, n_final = np.random.default_rng(seed), [(0.0, "nothing")], 0
    n_prompts = 0
    for run in store.runs():
        search = planned[run.name]
        entries = [entry for entry in ledger(store, run.name) if entry.prompt is not None]
        chosen = rng.permutation(len(entries))[:sample]
        gaps += _ledger_gaps(search, run.name, [entries[i] for i in sorted(chosen)])
        n_prompts += len(chosen)
        final = [] if run.state != "finished" or run.result is None else _final(search, run.result)
        gaps += final
        n_final += len(final)
    largest, where = max(gaps)
    dtype = next(iter(planned.values())).lm.fingerprint.dtype
    return Verification(n_prompts, n_final, largest, where, TOLERANCE.get(dtype, TOLERANCE_16_BIT))


def check_unchanged(runs: Sequence[StoredRun], planned: Mapping[str, PlannedSearch]) -> None:
    """Refuse searches that are not what a study's runs were.

    Raises:
        ValueError: Model, task or data are others today; the message shows the difference.
    """
    changed = [
        line
        for run in runs
        for now in [planned[run.name].as_begun(run.spec)]
        for line in differences(run.spec, as_json(now.spec))
    ]
    if changed:
        raise ValueError(
            "this is not what the study was made with, so its answers are not compared:\n  "
            + "\n  ".join(dict.fromkeys(changed))
        )


def _ledger_gaps(
    search: PlannedSearch, name: str, entries: Sequence[LedgerEntry]
) -> list[tuple[float, str]]:
    train = search.task.splits.train
    blocks: dict[tuple[int, ...] | None, list[LedgerEntry]] = {}
    for entry in entries:
        blocks.setdefault(entry.examples, []).append(entry)
    found = []
    for places, own in blocks.items():
        examples = train if places is None else [train[i] for i in places]
        prompts = [entry.prompt for entry in own if entry.prompt is not None]
        again = search.task.rewards(search.lm, prompts, examples)
        gaps = np.abs(again - np.array([entry.per_example for entry in own])).max(axis=1)
        found += [
            (float(gap), f"{name}, prompt {entry.digest}")
            for gap, entry in zip(gaps, own, strict=True)
        ]
    return found


def _final(search: PlannedSearch, result: Result) -> list[tuple[float, str]]:
    if not result.candidates:
        return []
    scores: dict[str, Score | None] = {
        split: getattr(result.best, split) for split in ("train", "dev", "test")
    }
    return [
        (
            abs(_mean(search.task, search.lm, result.best.prompt, split) - score.reward),
            f"{split} score",
        )
        for split, score in scores.items()
        if score is not None
    ]


def _mean(task: Task, lm: FrozenLM, prompt: Prompt, split: str) -> float:
    return evaluate(task, lm, prompt, split).reward
