"""Tables of scores: of a task, of all tasks together, and against training the model itself.

Methods keep the order of the experiment, so that no table ranks what is not settled.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlprompt.prompt import SoftPrompt
from rlprompt.reports.score_matrix import Scoreboard, generator, mean_of, wilson
from rlprompt.reports.study_data import Found
from rlprompt.reports.tables import NONE, Table, count, number
from rlprompt.statistics.summaries import interquartile_mean, summarise, task_mean
from rlprompt.store.summary import ControlEntry, ReferenceEntry, TaskEntry

# What prompts are held against, the first of these that there is.
MEASURE = ("fine-tuning", "lora")
SCORE_HEADER = (
    "method", "train", "dev", "test", "sd", "low", "high", "interval over", "dev - test", "kind",
    "runs", "rows a run",
)  # fmt: skip


def task_table(board: Scoreboard, task: TaskEntry) -> Table:
    """Train, dev and test of everything that was scored on a task, side by side."""
    rows = [_control_row(one) for one in board.controls if one.task == task.name]
    rows += [_method_row(board, name, task) for name in board.methods]
    rows += [_reference_row(kind, own) for kind, own in board.trained(task.name).items()]
    notes = [
        f"Means of {task.metric}. sd, low and high are of test: the standard deviation over seeds "
        "and the 95 % interval of the mean; over the test examples (Wilson) where there is one "
        "prompt. No interval where all seeds have the same score, which is no precision.",
        "dev - test is what picking on dev overstates (the winner's curse); controls are not "
        "picked there.",
    ]
    struck = [run for run in board.runs if run.struck and run.entry.task == task.name]
    if struck:
        notes.append(
            "Left out: "
            + "; ".join(
                f"{run.entry.optimiser}, seed {run.entry.seed} (test {number(run.entry.test)})"
                for run in struck
            )
            + "."
        )
    return Table(
        board.name("scores", task.name),
        f"{task.name}, {board.model}, {board.budget:,} rows a search",
        SCORE_HEADER,
        tuple(rows),
        text=(0, 7, 9),
        notes=tuple(notes),
    )


def _method_row(board: Scoreboard, name: str, task: TaskEntry) -> tuple[str, ...]:
    runs = board.of(name, task.name)
    means = {split: mean_of(run.score(split) for run in runs) for split in ("train", "dev", "test")}
    tests = [run.score("test") for run in runs]
    gaps = [
        dev - test
        for run in runs
        if (dev := run.score("dev")) is not None and (test := run.score("test")) is not None
    ]
    metrics = runs[0].result.test_metrics if len(runs) == 1 and runs[0].result else ()
    return (
        name,
        *(number(means[split]) for split in ("train", "dev", "test")),
        *_spread(tests, metrics),
        number(mean_of(gaps)),
        "search",
        str(len(runs)),
        count(mean_of(run.entry.rows for run in runs)),
    )


def _control_row(control: ControlEntry) -> tuple[str, ...]:
    return (
        control.name,
        *(number(value) for value in (control.train, control.dev, control.test)),
        *_spread([control.test], control.test_metrics),
        NONE,
        "control",
        NONE,
        count(control.rows) if control.rows else NONE,
    )


def _reference_row(kind: str, own: Sequence[ReferenceEntry]) -> tuple[str, ...]:
    means = {
        split: mean_of(getattr(one, split) for one in own) for split in ("train", "dev", "test")
    }
    gaps = [one.dev - one.test for one in own if one.dev is not None and one.test is not None]
    return (
        kind,
        *(number(means[split]) for split in ("train", "dev", "test")),
        *_spread([one.test for one in own], own[0].test_metrics if len(own) == 1 else ()),
        number(mean_of(gaps)),
        "training",
        str(len(own)),
        count(mean_of(one.rows for one in own)),
    )


def _spread(tests: Sequence[float | None], metrics: Sequence[float]) -> tuple[str, str, str, str]:
    """Standard deviation and interval over runs, or of one prompt over test examples."""
    known = np.array([value for value in tests if value is not None])
    if len(known) > 1:
        found = summarise(known)
        return number(found.deviation), number(found.low), number(found.high), "seeds"
    low, high = wilson(metrics) if len(known) else (None, None)
    return NONE, number(low), number(high), NONE if low is None else "examples"


def overall_table(board: Scoreboard) -> Table:
    """Mean and interquartile mean over all tasks that have a test figure."""
    rows: list[tuple[str, ...]] = []
    for name in dict.fromkeys(one.name for one in board.controls):
        values = np.array([board.control(name, task.name) for task in board.tested])
        if not np.isnan(values).any():
            rows.append((name, "control", NONE, number(float(values.mean())), *(NONE,) * 5))
    for name in board.scored:
        scores = board.scores(name, board.tested)
        figures: list[str] = []
        for estimate in (
            task_mean(scores, generator()),
            interquartile_mean(scores, generator()),
        ):
            figures += map(number, (estimate.value, estimate.low, estimate.high))
        rows.append((name, "search", str(int((~np.isnan(scores)).sum())), *figures))
    return Table(
        board.name("all-tasks"),
        f"All {len(board.tested)} tasks together, {board.model}, {board.budget:,} rows",
        ("method", "kind", "runs", "mean", "mean low", "mean high", "IQM", "IQM low", "IQM high"),
        tuple(rows),
        text=(0, 1),
        notes=(
            "Test scores. Mean over tasks and interquartile mean over runs (Agarwal et al. 2021), "
            "each with its 95 % stratified bootstrap interval over seeds.",
        ),
    )


def kept_table(board: Scoreboard) -> Table:
    """What of training the model itself a prompt keeps, at which share of the cost."""
    rows = []
    for task in board.tasks:
        trained = board.trained(task.name)
        if trained:
            kind = next((kind for kind in MEASURE if kind in trained), next(iter(trained)))
            rows += [
                (task.name, kind, name, *_shares(board, task.name, name, trained[kind]))
                for name in board.methods
            ]
    return Table(
        board.name("kept"),
        f"What of training the model is kept, {board.model}, {board.budget:,} rows",
        ("task", "training", "method", "% of test", "% of gain", "% of numbers", "% of rows"),
        tuple(rows),
        text=(0, 1, 2),
        notes=(
            "Test score of the prompts over that of the trained model; the same above the empty "
            "prompt; numbers searched over numbers trained; rows of work (search, selection and "
            "final scores) over those of training, where an example seen in training is 3 rows.",
        ),
    )


def _shares(
    board: Scoreboard, task: str, method: str, trained: Sequence[ReferenceEntry]
) -> tuple[str, ...]:
    """Of test, of the gain over the empty prompt, of numbers, and of rows; percent."""
    runs = board.of(method, task)
    top, test = mean_of(one.test for one in trained), mean_of(run.score("test") for run in runs)
    empty = board.control("empty", task)
    spent = mean_of(
        run.entry.rows + sum(run.result.outside_rows.values()) for run in runs if run.result
    )
    numbers = mean_of(_size(run) for run in runs)
    return (
        _percent(test, top),
        _percent(None if test is None else test - empty, None if top is None else top - empty),
        _percent(numbers, mean_of(one.trainable for one in trained), ".2g"),
        _percent(spent, mean_of(one.rows for one in trained)),
    )


def _size(run: Found) -> float:
    """Numbers that its prompt is made of: token ids, or entries of its vectors."""
    if run.result is None or not run.result.candidates:
        return 0.0
    prompt = run.result.best.prompt
    return float(prompt.vectors.size if isinstance(prompt, SoftPrompt) else len(prompt))


def _percent(part: float | None, whole: float | None, form: str = ",.1f") -> str:
    """A share in hundredths, of something above 0."""
    if part is None or whole is None or np.isnan([part, whole]).any() or whole <= 0:
        return NONE
    return format(100 * part / whole, form)
