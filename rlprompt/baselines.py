"""What searches are measured by, computed once a study: controls before them, references after.

Both hang on task and model alone, so that they are the same at all budgets, and both are kept in
the study's store, so that nothing is scored or trained twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlprompt.controls import Control, ControlPlan, score_control
from rlprompt.experiment import Experiment, ExperimentError
from rlprompt.lm import FrozenLM
from rlprompt.store import Store
from rlprompt.task import Task
from rlprompt.unmetered import Pending, Scores

# Task, model and name of a control, and the digests of its prompts.
_Place = tuple[str, ...]
Controls = Mapping[_Place, Control]


def score_required(experiments: Sequence[Experiment]) -> dict[tuple[str, str], Pending]:
    """The scores of the controls without which a study is not begun, for its store.

    Raises:
        ExperimentError: One cannot be scored.
    """
    pending: dict[tuple[str, str], Pending] = {}
    # From the last to the first: the last model is the one in memory, the first is needed next.
    for experiment in reversed(experiments):
        kept = pending.setdefault(_scope(experiment.task, experiment.lm), Pending())
        for plan in experiment.control_plans:
            if plan.required:
                _scored(plan, experiment.lm, kept)
    return pending


def keep(
    pending: Mapping[tuple[str, str], Pending], experiments: Sequence[Experiment], store: Store
) -> None:
    """Put the scores of a study that is begun now into its store."""
    for experiment in experiments:
        scores = pending.get(_scope(experiment.task, experiment.lm))
        if scores is not None:
            scores.move(store.scores(experiment.lm, experiment.task))


def score_controls(experiments: Sequence[Experiment], store: Store) -> Controls:
    """All controls, once for all budgets, and as the store has them if it has.

    Raises:
        ExperimentError: One that a study needs cannot be scored.
    """
    found: dict[_Place, Control] = {}
    for experiment in experiments:
        for plan in experiment.control_plans:
            place = _place(experiment, plan)
            if place not in found:
                kept = store.scores(experiment.lm, plan.task)
                found[place] = _scored(plan, experiment.lm, kept)
    return found


def controls_of(experiment: Experiment, controls: Controls) -> tuple[Control, ...]:
    """Those of one experiment, in its order."""
    return tuple(controls[_place(experiment, plan)] for plan in experiment.control_plans)


def _scored(plan: ControlPlan, lm: FrozenLM, kept: Scores) -> Control:
    try:
        return score_control(plan, lm, kept)
    except ValueError as error:
        raise ExperimentError(f"the {plan.name} prompt cannot be scored: {error}") from error


def _place(experiment: Experiment, plan: ControlPlan) -> _Place:
    digests = (prompt.digest for prompt in plan.prompts)
    return (experiment.task_name, experiment.lm.name, plan.name, *digests)


def _scope(task: Task, lm: FrozenLM) -> tuple[str, str]:
    return task.fingerprint, lm.fingerprint.digest
