"""What searches are measured by, computed once a study: controls before them, references after.

Both depend on task and model alone, so that they are the same at all budgets, and both are kept in
the study's store, so that nothing is scored or trained twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar, cast

import torch

from rlprompt._utils.seeding import SEEDED_BY
from rlprompt._utils.text import error_line
from rlprompt.check.empty_answers import empty_answers
from rlprompt.models.lm import FrozenLM
from rlprompt.search.memo import Memo, Question
from rlprompt.store.store import Store
from rlprompt.store.summary import ReferenceEntry
from rlprompt.studies.controls import Control, ControlPlan, score_control
from rlprompt.studies.experiment import Experiment, ExperimentError
from rlprompt.studies.provenance import here
from rlprompt.studies.references import Reference, seeds_of, titled, train_reference
from rlprompt.tasks.base import Task
from rlprompt.tasks.classification import ClassificationTask

logger = logging.getLogger(__name__)

V = TypeVar("V")

# The cell and name of a control or reference, and the digests of the prompts of a control.
_Key = tuple[str | int | None, ...]
Controls = Mapping[_Key, Control]


@dataclass(frozen=True)
class _NotingMemo:
    """A memo that has it noted what computes the answers that are put into it."""

    memo: Memo
    note: Callable[[], None]

    def get(self, question: Question[V]) -> V | None:
        """See `Memo.get`."""
        return self.memo.get(question)

    def put(self, question: Question[V], answer: V) -> V:
        """See `Memo.put`."""
        self.note()
        return self.memo.put(question, answer)


def score_controls(experiments: Sequence[Experiment], store: Store) -> Controls:
    """All controls, once for all budgets, and as the store has them if it has.

    Each is told as soon as it is known, and a warning is logged where the model writes nothing
    under any of them.

    Raises:
        ExperimentError: One that a study needs cannot be scored.
    """
    found: dict[_Key, Control] = {}
    # Once, and only where something is computed.
    note = cache(lambda: store.note_environment(here()))
    alike = {one.cell: one for one in experiments}
    for experiment in experiments:
        for plan in experiment.control_plans:
            key = _key(experiment, plan)
            if key not in found:
                memo = _NotingMemo(store.memo(experiment.lm, plan.task), note)
                found[key] = _scored(plan, experiment.lm, memo)
                _tell(experiment, found[key], named=len(alike) > 1)
    for experiment in alike.values():
        _warn_of_empty_answers(experiment, controls_of(experiment, found))
    return found


def controls_of(experiment: Experiment, controls: Controls) -> tuple[Control, ...]:
    """Those of one experiment, in its order."""
    return tuple(controls[_key(experiment, plan)] for plan in experiment.control_plans)


def _tell(experiment: Experiment, control: Control, *, named: bool) -> None:
    """What came of a control, in a line; `named` says where."""
    scores = [
        f"{split} {score.metric:.3f}"
        for split in ("dev", "test")
        if (score := control.scores[split]) is not None
    ]
    if scores:
        where = f" of {experiment.task_name} on {experiment.lm.name}" if named else ""
        split = "" if experiment.split_seed is None else f", split {experiment.split_seed}"
        figures = f"{experiment.task.metric} on {', '.join(scores)}"
        logger.info("%s%s%s: %s", control.title, where, split, figures)


def _warn_of_empty_answers(experiment: Experiment, controls: Sequence[Control]) -> None:
    """Say before a search is paid for that there is nothing to go by, where nothing is written."""
    answers = {one.title: one.test_answers for one in controls if not one.variant}
    problem = empty_answers(
        {f"the {title}": own for title, own in answers.items() if own}, experiment.task
    )
    if problem:
        logger.warning("task %s on %s: %s", experiment.task_name, experiment.lm.name, problem)


def train_references(
    experiments: Sequence[Experiment], store: Store, *, found_only: bool = False
) -> Iterator[ReferenceEntry]:
    """All references, once for all budgets, and as the store has them if it has.

    Args:
        experiments: Whose they are.
        store: The study's, which keeps each as soon as it is trained.
        found_only: Leave out what is not there yet.

    Raises:
        ExperimentError: One cannot be trained; what was found before is kept.
    """
    seen = set[_Key]()
    for experiment in experiments:
        task, lm = experiment.task, experiment.lm
        for name, reference in experiment.references.items():
            for seed in seeds_of(reference, experiment.seeds):
                called = titled(name, reference, seed)
                named = (*experiment.cell, called)
                if named in seen:
                    continue
                seen.add(named)
                own = f"{reference!r} {seed} {SEEDED_BY}"
                key = f"reference {_scope(task, lm)} {task.splits.digest} {own}"
                kept = store.document(key)
                if kept is not None:
                    names = dict(zip(("task", "split_seed", "model", "name"), named, strict=True))
                    yield ReferenceEntry.model_validate_json(kept).model_copy(update=names)
                elif not found_only:
                    store.note_environment(here())
                    entry = _trained(reference, experiment, seed, called)
                    store.keep_document(key, entry.model_dump_json())
                    yield entry


def _trained(reference: Reference, experiment: Experiment, seed: int, name: str) -> ReferenceEntry:
    task, lm, task_name = experiment.task, experiment.lm, experiment.task_name
    logger.info("training the reference %s on %s with %s", name, task_name, lm.name)
    try:
        # With label words, or the experiment had been refused.
        classes = cast(ClassificationTask, task)
        entry = train_reference(reference, classes, lm, seed, name=name, task_name=task_name)
        return entry.model_copy(update={"split_seed": experiment.split_seed})
    except (ValueError, torch.OutOfMemoryError) as error:
        raise ExperimentError(
            f"reference {name} cannot be trained on {task_name}: {error}. The searches are kept; "
            "change it or leave it out of `references`, and run the same command again"
        ) from error


def _scored(plan: ControlPlan, lm: FrozenLM, memo: Memo) -> Control:
    try:
        return score_control(plan, lm, memo)
    # Any error: a task may come from anyone, and its author is told what it was asked.
    except Exception as error:
        raise ExperimentError(
            f"the {plan.name} prompt cannot be scored: {error_line(error)}{plan.asked}"
        ) from error


def _key(experiment: Experiment, plan: ControlPlan) -> _Key:
    digests = (prompt.digest for prompt in plan.prompts)
    return (*experiment.cell, plan.name, *digests)


def _scope(task: Task, lm: FrozenLM) -> tuple[str, str]:
    return task.fingerprint, lm.fingerprint.digest
