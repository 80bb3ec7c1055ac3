"""Every run of a section beside controls and references, and what may be said of the figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import get_args

from rlprompt._utils.text import cut_short
from rlprompt.reports.score_matrix import ScoreMatrix, mean_of
from rlprompt.reports.study_data import RunData
from rlprompt.reports.tables import NONE, Table, count, number
from rlprompt.search.result import PREFIX_MARK, SOFT_MARK
from rlprompt.store.summary import (
    ControlEntry,
    ReferenceEntry,
    ScoredEntry,
    TaskEntry,
    control_title,
)
from rlprompt.types import ClassMetric

HEADER = ("method", "seed", "rows", "seconds (LM)", "train", "dev", "test", "typed", "prompt")
# Columns that a narrow terminal can do without.
COSTS = ("rows", "seconds (LM)")
# Characters of a control's prompt that a table shows; one of demonstrations is in the summary.
MOST_SHOWN = 60
# Of a searched prompt, which may be a text of any length: all of it is among the best prompts.
MOST_FOUND = 200
# An average difference between train and test accuracy that is worth a sentence.
GAP = 0.05
# What typing a prompt's text gives, and what it means.
TYPED = {
    "same": "",
    "other": "other: typing the prompt's text gives other tokens than the prompt has.",
    "soft": "soft: vectors, named by six digits of their hash and shown as the tokens nearest to "
    "them, which are another prompt.",
    "prefix": "prefix: keys and values at every layer, which have no nearest tokens.",
}


def runs_table(matrix: ScoreMatrix, task: TaskEntry) -> Table:
    """Controls first, then the runs, those of a method together; references last."""
    runs = [run for run in matrix.runs if run.entry.task == task.name]
    order = matrix.methods.index
    found: list[tuple[ScoredEntry, tuple[str, ...]]] = []
    found += [(one, _control_row(one)) for one in matrix.controls if one.task == task.name]
    ordered = sorted(runs, key=lambda run: order(run.entry.optimiser))
    found += [(run.entry, _run_row(run)) for run in ordered]
    found += [(one, _reference_row(one)) for one in matrix.references if one.task == task.name]
    typed = {row[HEADER.index("typed")].partition(" ")[0] for _, row in found}
    header: tuple[str, ...] = HEADER
    at = HEADER.index("seed")
    rows = [row for _, row in found]
    if matrix.split_seeds != (None,):
        header = (*HEADER[:at], "split", *HEADER[at:])
        rows = [(*row[:at], _split(entry), *row[at:]) for entry, row in found]
    more = len(header) - len(HEADER)
    notes = [note for mark, note in TYPED.items() if mark in typed and note]
    return Table(
        matrix.name("runs", task.name),
        f"Every run on {task.name}, {matrix.model}, {matrix.budget:,} rows a search",
        header,
        tuple(rows),
        text=(0, 7 + more),
        code=(8 + more,),
        notes=(*_remarks(matrix, task, runs), *notes),
    )


def _control_row(control: ControlEntry) -> tuple[str, ...]:
    text = control.prompt
    return (
        control_title(control.name),
        NONE,
        count(control.rows) if control.rows else NONE,
        NONE,
        *map(number, (control.train, control.dev, control.test)),
        _typed(text, control.retypable),
        cut_short(text, MOST_SHOWN),
    )


def _run_row(run: RunData) -> tuple[str, ...]:
    entry = run.entry
    share = entry.lm_seconds / entry.total_seconds if entry.total_seconds else 0.0
    text = entry.prompt or ""
    typed = _typed(text, bool(entry.retypable))
    return (
        entry.optimiser + ("" if entry.status == "finished" else f" ({entry.status})"),
        str(entry.seed),
        count(entry.rows),
        f"{entry.total_seconds:,.1f} ({share:.0%})",
        *map(number, (entry.train, entry.dev, entry.test)),
        NONE if entry.prompt is None else " ".join([typed, *run.short_hash]),
        cut_short(text.removeprefix(SOFT_MARK), MOST_FOUND),
    )


def _reference_row(entry: ReferenceEntry) -> tuple[str, ...]:
    figures = map(number, (entry.train, entry.dev, entry.test))
    return (entry.name, NONE, count(entry.rows), f"{entry.seconds:,.1f}", *figures, NONE, "")


def _split(entry: ScoredEntry) -> str:
    return NONE if entry.split_seed is None else str(entry.split_seed)


def _typed(text: str, retypable: bool) -> str:
    if text.startswith(SOFT_MARK):
        return "soft"
    if text.startswith(PREFIX_MARK):
        return "prefix"
    return "same" if retypable else "other"


def _remarks(matrix: ScoreMatrix, task: TaskEntry, runs: Sequence[RunData]) -> Iterator[str]:
    """What went wrong, what was done, and how far the figures can be trusted."""
    own = [one for one in matrix.controls if one.task == task.name and one.note]
    for title, note in dict.fromkeys((control_title(one.name), one.note) for one in own):
        yield f"{title}: {note}."
    for run in runs:
        where = f"{run.entry.optimiser}, {run.seeds}"
        if run.entry.error:
            yield f"{where}: ended by {run.entry.error}"
        elif run.entry.prompt is None and run.entry.status == "finished":
            yield f"{where}: its budget did not cover the first thing that it asked for."
    if all(run.entry.train is None for run in runs):
        return
    counting = [run for run in runs if run.counts]
    train, test = (mean_of(run.score(split) for run in counting) for split in ("train", "test"))
    over_all = task.metric in get_args(ClassMetric)[1:]  # all but accuracy are no means
    yield f"Train, dev and test give the {'' if over_all else 'mean '}{task.metric}."
    earned = {run.entry.rewards.get("train") for run in counting} - {None}
    if len(counting) > 1 and len(earned) == 1:
        yield (
            "All picked prompts have the same train reward, so the searches had little or nothing "
            "to go by; `rlprompt check` says more, and `rlprompt score` shows what is scored."
        )
    if task.metric != "accuracy" or train is None or test is None:
        return
    if train - test >= GAP:
        yield (
            f"Train is {train - test:.2f} above test on average: the prompts fit the "
            f"{task.examples.get('train', 0)} train examples better than the task. Judge by test."
        )
    n_test = task.examples.get("test", 0)
    if n_test:
        # Half the 95 % interval of an accuracy, from the number of test examples alone.
        error = 1.96 * math.sqrt(max(test * (1 - test), 0.0) / n_test)
        yield f"{n_test} test examples leave about ±{error:.2f} (95 %) on each test figure."
