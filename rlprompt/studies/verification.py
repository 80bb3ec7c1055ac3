"""Whether a study's answers are still those of its model and tasks: some are computed again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rlprompt.models.fingerprint import ADDED
from rlprompt.models.noise import slope
from rlprompt.search.evaluation import Evaluator, naming
from rlprompt.search.result import Result, Score
from rlprompt.store.changes import SOURCE, differences, lacks_config
from rlprompt.store.store import Store, StoredRun, as_json
from rlprompt.studies.inspection import LedgerEntry, ledger
from rlprompt.studies.planned_search import PlannedSearch
from rlprompt.tasks.base import Task
from rlprompt.types import Floats

# A stored score and one computed today differ by rounding alone. Packed and plain float32
# log-likelihoods of the default model differ by 3e-5 nats, its bfloat16 ones by 5e-2. Some times
# that is allowed.
NATS = {"float32": 2.5e-4}
NATS_16_BIT = 0.1
# Other rewards are of answers, which rounding turns where two are near ties: in 16 bits so many of
# them, and one at least; in float32 as good as none.
TURNED = {"float32": 1e-3}
TURNED_16_BIT = 0.1
# A prior is the mean of probabilities among classes, and its logarithm changes as theirs do.
PRIOR = "cross_entropy"


def rounding(
    reward: str, dtype: str, spread: float = 0.0, n_examples: int = 1, n_classes: int = 2
) -> float:
    """What rounding may make of a reward that is computed again, in its unit.

    Args:
        reward: What it is called (`reward_name`); `PRIOR` for log priors.
        dtype: What the model computes in.
        spread: The largest reward on an example less the smallest, of those at hand.
        n_examples: How many a mean is of.
        n_classes: Classes of the task, where it has some.

    Returns:
        Of a reward on one example where it is made of log-likelihoods (`slope`); else of a mean.

    >>> [rounding(name, "bfloat16", 1.0, 16) for name in ("gap", "cross_entropy", "accuracy")]
    [20.0, 0.2, 0.1]
    >>> rounding("accuracy", "bfloat16", 1.0, 4)  # one of four
    0.25
    """
    if steep := slope(reward, n_classes):
        return steep * NATS.get(dtype, NATS_16_BIT)
    return spread * (TURNED.get(dtype) or max(TURNED_16_BIT, 1 / n_examples))


def reward_name(task: Task) -> str:
    """What a task's reward is called, "" where it is a function."""
    name = getattr(task, "reward", "")
    return name if isinstance(name, str) else ""


class Gap(NamedTuple):
    """A difference between what is stored and what is computed today.

    Attributes:
        size: Absolute difference, in the reward's units.
        tolerance: What rounding may make of it there, in the same units.
        where: What differs, in words.
    """

    size: float
    tolerance: float
    where: str

    @property
    def excess(self) -> float:
        """The difference in tolerances."""
        if not self.tolerance:
            return math.inf if self.size else 0.0
        return self.size / self.tolerance


def gap_of(task: Task, dtype: str, stored: Floats, again: Floats, where: str) -> Gap:
    """How far rewards that are computed again are from the stored ones.

    Args:
        task: What they are of.
        dtype: What the model computes in.
        stored: (E,) rewards of a prompt, or (1,) of their mean.
        again: (E,) rewards.
        where: What differs, in words.
    """
    name, spread = reward_name(task), float(np.ptp(np.concatenate([stored, again])))
    each = slope(name) is not None and len(stored) == len(again)
    size = np.abs(again - stored).max() if each else abs(again.mean() - stored.mean())
    return Gap(float(size), rounding(name, dtype, spread, len(again), len(task.class_words)), where)


@dataclass(frozen=True)
class Verification:
    """What came of scoring a study's prompts again.

    Attributes:
        n_prompts: Prompts of the ledger that were scored again.
        n_final: Scores of picked prompts that were computed again.
        largest: The difference that exceeds its tolerance the most: of a reward on one example, or
            of a mean.
        where: What differs the most, in words.
        tolerance: What rounding may make there.
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
        ValueError: Model, task or data are not those of the study, so nothing is scored, or a task
            of a person's own raised an error.
    """
    check_unchanged(store.runs(), planned)
    rng, gaps, n_final = np.random.default_rng(seed), [Gap(0.0, 0.0, "nothing")], 0
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
    worst = max(gaps, key=lambda gap: (gap.excess, gap.tolerance))
    return Verification(n_prompts, n_final, worst.size, worst.where, worst.tolerance)


def check_unchanged(runs: Sequence[StoredRun], planned: Mapping[str, PlannedSearch]) -> None:
    """Refuse searches that are not what a study's runs were.

    Raises:
        ValueError: Model, task or data are others today; the message shows the difference.
    """
    changed: list[str] = []
    for run in runs:
        now = as_json(planned[run.name].spec)
        if lacks_config(run.spec, now):
            now["model"] = {k: v for k, v in now["model"].items() if k not in ADDED}
        # What a prompt is worth depends on no method, so its files may have been edited.
        changed += differences({**run.spec, SOURCE: None}, {**now, SOURCE: None})
    if changed:
        raise ValueError(
            "model, task or data are not those of the study, so nothing is scored:\n  "
            + "\n  ".join(dict.fromkeys(changed))
        )


def _ledger_gaps(search: PlannedSearch, name: str, entries: Sequence[LedgerEntry]) -> Iterator[Gap]:
    task, train, dtype = search.task, search.task.splits.train, search.lm.fingerprint.dtype
    blocks: dict[tuple[int, ...] | None, list[LedgerEntry]] = {}
    for entry in entries:
        blocks.setdefault(entry.examples, []).append(entry)
    for places, own in blocks.items():
        examples = train if places is None else [train[i] for i in places]
        prompts = [entry.prompt for entry in own if entry.prompt is not None]
        with naming(task):
            again = np.asarray(task.rewards(search.lm, prompts, examples), np.float64)
        for entry, rewards in zip(own, again, strict=True):
            stored = np.array(entry.per_example)
            yield gap_of(task, dtype, stored, rewards, f"{name}, prompt {entry.digest}")


def _final(search: PlannedSearch, result: Result) -> list[Gap]:
    if not result.candidates:
        return []
    scores: dict[str, Score | None] = {
        split: getattr(result.best, split) for split in ("train", "dev", "test")
    }
    dtype, evaluator = search.lm.fingerprint.dtype, Evaluator(search.task, search.lm)
    gaps = list[Gap]()
    for split, score in scores.items():
        if score is not None:
            with naming(search.task):
                (again,) = evaluator.measure([result.best.prompt], split).rewards
            stored = np.array([score.reward])
            gaps.append(gap_of(search.task, dtype, stored, again, f"{split} score"))
    return gaps
