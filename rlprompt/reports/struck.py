"""Runs whose scores cannot count: each check a function, each finding a sentence.

A run that was selected on test, or whose file contradicts the summary, is *struck*: it is shown,
and counts in no statistic.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from rlprompt._utils.text import counted
from rlprompt.reports.study_data import Cell, RunData, StudyData
from rlprompt.search.result import Result
from rlprompt.store.summary import ModelEntry


def examined(study: StudyData) -> StudyData:
    """The same with the runs struck whose scores cannot count."""
    seen: Counter[Cell] = Counter()
    runs = []
    for run in study.runs:
        seen[run.cell] += 1
        problems = [problem for check in RUN_CHECKS for problem in check(run, study)]
        if seen[run.cell] > 1:
            problems.append("the summary has this run twice; the first one counts.")
        runs.append(dataclasses.replace(run, struck=tuple(problems)))
    return dataclasses.replace(study, runs=tuple(runs))


def unreadable(run: RunData, study: StudyData) -> Iterator[str]:
    """No result behind the summary's figures: missing, damaged, or of another version."""
    if run.problem:
        yield f"its result cannot be checked: {run.problem}."


def contradiction(run: RunData, study: StudyData) -> Iterator[str]:
    """Figures of the summary that are not those of the run's own file."""
    if run.result is None:
        return
    if different := list(_differences(run, run.result, study)):
        yield f"the summary and {run.entry.file} contradict each other: {'; '.join(different)}."


def overspending(run: RunData, study: StudyData) -> Iterator[str]:
    """More rows than the budget that it is compared at."""
    if run.entry.rows > run.entry.budget_rows:
        yield f"it spent {run.entry.rows:,} rows of a budget of {run.entry.budget_rows:,}."


def maximum_on_test(run: RunData, study: StudyData) -> Iterator[str]:
    """A prompt that was picked by its test score: the maximum of several, not an estimate."""
    if run.result is None or not run.result.candidates:
        return
    picked, *others = run.result.candidates
    tested = sum(one.test is not None for one in others)
    if tested:
        yield (
            f"besides the picked prompt, {counted(tested, 'candidate')} also got a test score, "
            "so the figure may be the best of several looks at test."
        )
    task = study.task_of(run)
    n_dev = task.examples.get("dev", 0) if task else 0
    by = task.select_by if task else "reward"
    rivals = [one.dev.worth(by)[0] for one in others if one.dev and one.dev_examples >= n_dev]
    if picked.dev and rivals and max(rivals) > (own := picked.dev.worth(by)[0]):
        yield (
            f"the picked prompt earns {own:.4g} on dev and another candidate "
            f"{max(rivals):.4g}, so it was not picked on dev."
        )


def looks_at_test(run: RunData, study: StudyData) -> Iterator[str]:
    """More prompts scored on test than the picked one (and a soft prompt's projection)."""
    if run.result is None or not run.result.candidates:
        return
    soft = run.result.best.prompt.kind == "soft"
    allowed = 2 if soft else 1
    if run.result.test_prompts > allowed:
        kind = "a soft prompt and its projection" if soft else "a prompt"
        yield (
            f"{run.result.test_prompts} prompts were scored on test, and {allowed} would do for "
            f"{kind}, so the figure may be the best of several."
        )


def _differences(run: RunData, result: Result, study: StudyData) -> Iterator[str]:
    """What the summary says of a run and its file does not."""
    entry = run.entry
    best = result.candidates[0] if result.candidates else None
    own: dict[str, object] = {
        key: getattr(result, key)
        for key in ("status", "seed", "budget_rows", "rows", "n_prompts", "n_partial")
    }
    own["prompt"] = best.text if best else None
    for split in ("train", "dev", "test"):
        score = getattr(best, split) if best else None
        own[split] = score.metric if score else None
    for key, value in own.items():
        if getattr(entry, key) != value:
            yield f"{key} is {getattr(entry, key)!r} in the one and {value!r} in the other"
    if best and best.test and result.test_metrics:
        mean = float(np.mean(result.test_metrics))
        if not math.isclose(mean, best.test.metric, rel_tol=1e-9, abs_tol=1e-9):
            yield f"test is {best.test.metric!r} and the mean over its test examples is {mean!r}"
    task = study.task_of(run)
    if task is None or task.fingerprint != result.task_fingerprint:
        yield "it ran on another task or other data (the fingerprints differ)"
    model = next((one for one in study.summary.models if one.name == entry.model), None)
    if model is None or not _same_model(model, result):
        yield "it ran on another model (the fingerprints differ)"


def _same_model(model: ModelEntry, result: Result) -> bool:
    return all(
        str(result.fingerprint[key]) == value
        for key, value in model.fingerprint.items()
        if key in result.fingerprint
    )


RUN_CHECKS: tuple[Callable[[RunData, StudyData], Iterator[str]], ...] = (
    unreadable,
    contradiction,
    overspending,
    maximum_on_test,
    looks_at_test,
)
