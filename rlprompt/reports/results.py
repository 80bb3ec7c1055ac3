"""Results of one model's searches at one budget: what may be concluded, tables and plots.

Methods keep the order of the experiment, so that no table ranks what is not settled. All statistics
are those of `rlprompt.statistics`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rlprompt.reports.curves import Plot, dots, profile
from rlprompt.reports.kept import kept_table
from rlprompt.reports.score_matrix import (
    BEST_HAND,
    ScoreMatrix,
    generator,
    known_mean,
    mean_of,
    wilson,
)
from rlprompt.reports.tables import NONE, Table, count, number
from rlprompt.statistics.pairwise import Pair
from rlprompt.statistics.summaries import (
    interquartile_mean,
    probability_of_improvement,
    task_mean,
)
from rlprompt.statistics.verdict import Verdict, judge, shared_luck
from rlprompt.store.summary import (
    BEST_WORD,
    CALIBRATED,
    IN_CONTEXT,
    UNIT,
    ControlEntry,
    ReferenceEntry,
    ScoredEntry,
    TaskEntry,
    control_title,
)
from rlprompt.types import Floats

SCORE_HEADER = (
    "method", "train", "dev", "test", "sd", "low", "high", "interval over", "dev - test", "kind",
    "runs", "rows a run", "prompt",
)  # fmt: skip
# The optimiser that every other one should beat.
BASELINE = "random"
# What to do where several splits are planned and one has scores.
MORE_SPLITS = " Run the study's command again to score the other splits."


@dataclass(frozen=True)
class Results:
    """What came of one model's searches at one budget.

    Attributes:
        sentences: What may be concluded, by task where their scores share no scale, else one.
        notes: What else may be said.
        brief: Test scores alone, of one task or over all; None where they share no scale.
        tables: Of each task, then over all tasks.
        tests: Every pair held against each other.
        plots: Of each task, and the performance profile.
    """

    sentences: tuple[str, ...]
    notes: tuple[str, ...]
    brief: Table | None
    tables: tuple[Table, ...]
    tests: tuple[Table, ...]
    plots: tuple[Plot, ...]


def results(matrix: ScoreMatrix) -> Results:
    """Lay out the results; with one seed, nothing that ranks."""
    verdicts = list(verdicts_of(matrix)) if matrix.methods else []
    ranked = verdicts if matrix.n_units > 1 and len(matrix.scored) > 1 else []
    tests = [table for task, verdict in ranked for table in pair_tables(matrix, task, verdict)]
    plots = [plot for task in matrix.tasks if (plot := dots(matrix, task))]
    if ranked and matrix.shares_a_scale:
        tests.append(improvement_table(matrix))
        plots += filter(None, [profile(matrix)])
    return Results(
        tuple(sentences(matrix, verdicts)),
        tuple(dict.fromkeys(note for _, verdict in ranked for note in verdict.notes)),
        _brief(matrix),
        tuple(_tables(matrix)),
        tuple(tests),
        tuple(plots),
    )


def _tables(matrix: ScoreMatrix) -> Iterator[Table]:
    for task in matrix.tasks:
        yield task_table(matrix, task)
    if matrix.compared and len(matrix.tested) > 1 and matrix.shares_a_scale:
        yield overall_table(matrix)
    if matrix.references and matrix.scored:
        yield kept_table(matrix)


def _brief(matrix: ScoreMatrix) -> Table | None:
    """Method and test score with its interval, of what has one and leaves the model as it is."""
    if not matrix.compared or not matrix.shares_a_scale:
        return None
    if len(matrix.tested) > 1:
        table, columns = overall_table(matrix), ("mean", "mean low", "mean high")
    else:
        table, columns = task_table(matrix, matrix.tested[0]), ("test", "low", "high")
    places = (0, *map(table.header.index, columns))
    kind = table.header.index("kind")
    frozen = [row for row in table.rows if row[kind] != "training"]
    rows = tuple(tuple(row[i] for i in places) for row in frozen if row[places[1]] != NONE)
    header = ("method", "test", "low", "high")
    return Table(table.name, table.caption, header, rows, text=(0,))


def task_table(matrix: ScoreMatrix, task: TaskEntry) -> Table:
    """Train, dev and test of everything that was scored on a task, side by side."""
    controls = matrix.controls_of(task.name)
    rows = [_control_row(matrix, task, own) for own in controls.values()]
    rows += [_method_row(matrix, name, task) for name in matrix.methods]
    rows += [_reference_row(matrix, task, own) for own in matrix.trained(task.name).values()]
    over, unit = "seeds", "seeds"
    if matrix.nested:
        over, unit = "the means of splits, each over its seeds,", "splits"
    others = f"controls other than the {BEST_HAND} prompt" if BEST_HAND in controls else "controls"
    notes = [
        f"Means of {task.metric}. sd, low and high are for test: the standard deviation over "
        f"{over} and the 95 % interval of the mean; over the test examples (Wilson) where there is "
        f"one prompt. No interval where all {unit} have the same score, which proves no precision.",
        f"dev - test is how much picking on dev overstates (the winner's curse); {others} are not "
        "picked there.",
        "prompt: its mean length in tokens or vectors, which every later prediction reads too.",
    ]
    struck = [run for run in matrix.runs if run.struck and run.entry.task == task.name]
    if struck:
        notes.append(
            "Left out: "
            + "; ".join(
                f"{run.entry.optimiser}, {run.seeds} (test {number(run.entry.test)})"
                for run in struck
            )
            + "."
        )
    return Table(
        matrix.name("scores", task.name),
        f"{task.name}, {matrix.model}, {matrix.budget:,} rows a search",
        SCORE_HEADER,
        tuple(rows),
        text=(0, 7, 9),
        notes=tuple(notes),
    )


def _method_row(matrix: ScoreMatrix, name: str, task: TaskEntry) -> tuple[str, ...]:
    runs = matrix.of(name, task.name)
    metrics = runs[0].result.test_metrics if len(runs) == 1 and runs[0].result else ()
    return (
        name,
        *_figures(matrix, task, [run.entry for run in runs], metrics),
        "search",
        str(len(runs)),
        count(mean_of(run.entry.rows for run in runs)),
        _length(run.length for run in runs),
    )


def _control_row(
    matrix: ScoreMatrix, task: TaskEntry, own: Sequence[ControlEntry]
) -> tuple[str, ...]:
    rows = mean_of(one.rows for one in own)
    figures = _figures(matrix, task, own, own[0].test_metrics if len(own) == 1 else ())
    return (
        control_title(own[0].name),
        *figures[:-1],
        figures[-1] if own[0].name == BEST_HAND else NONE,
        "control",
        NONE,
        count(rows) if rows else NONE,
        _length(one.length for one in own),
    )


def _reference_row(
    matrix: ScoreMatrix, task: TaskEntry, own: Sequence[ReferenceEntry]
) -> tuple[str, ...]:
    return (
        own[0].title,
        *_figures(matrix, task, own, own[0].test_metrics if len(own) == 1 else ()),
        "training",
        str(len(own)),
        count(mean_of(one.rows for one in own)),
        NONE,
    )


def _length(lengths: Iterable[int | None]) -> str:
    """Tokens of prompts on average, where that is known of each."""
    found = list(lengths)
    known = [one for one in found if one is not None]
    return f"{np.mean(known):.3g}" if known and len(known) == len(found) else NONE


def _figures(
    matrix: ScoreMatrix, task: TaskEntry, entries: Sequence[ScoredEntry], metrics: Sequence[float]
) -> tuple[str, ...]:
    """Train, dev and test; of test the spread; and what dev is above test."""
    by_split = {split: matrix.by_split(entries, split) for split in ("train", "dev", "test")}
    return (
        *(number(known_mean(values)) for values in by_split.values()),
        *_spread(matrix, task, by_split["test"], metrics),
        number(known_mean(by_split["dev"] - by_split["test"])),
    )


def _spread(
    matrix: ScoreMatrix, task: TaskEntry, tests: Floats, metrics: Sequence[float]
) -> tuple[str, str, str, str]:
    """Standard deviation and interval over runs, or of one prompt over test examples."""
    found = matrix.summary(task, tests)
    if found is not None and found.n > 1:
        return number(found.deviation), number(found.low), number(found.high), f"{matrix.unit}s"
    low, high = wilson(metrics) if found is not None else (None, None)
    return NONE, number(low), number(high), NONE if low is None else "examples"


def overall_table(matrix: ScoreMatrix) -> Table:
    """Mean and interquartile mean over all tasks on which every method has a test figure."""
    rows: list[tuple[str, ...]] = []
    tasks, tested = matrix.compared, matrix.tested
    draws = matrix.draws(tasks)
    which = f"All {len(tasks)} tasks together"
    left = [task.name for task in tested if task not in tasks]
    if left:
        which = f"{len(tasks)} of {len(tested)} tasks, those on which every method has a score"
    for name in dict.fromkeys(one.name for one in matrix.controls):
        values = matrix.control(name, tasks)
        if not np.isnan(values).any():
            rows.append(
                (control_title(name), "control", NONE, number(float(values.mean())), *(NONE,) * 5)
            )
    for name in matrix.scored:
        scores = matrix.scores(name, tasks)
        figures: list[str] = []
        for estimate in (
            task_mean(scores, generator(), draws=draws, shares=tasks[0].scale == UNIT),
            interquartile_mean(scores, generator(), draws=draws),
        ):
            figures += map(number, (estimate.value, estimate.low, estimate.high))
        rows.append((name, "search", str(int((~np.isnan(scores)).sum())), *figures))
    return Table(
        matrix.name("all-tasks"),
        f"{which}, {matrix.model}, {matrix.budget:,} rows",
        ("method", "kind", "runs", "mean", "mean low", "mean high", "IQM", "IQM low", "IQM high"),
        tuple(rows),
        text=(0, 1),
        notes=(
            "Test scores. Mean over tasks and interquartile mean over runs (Agarwal et al. 2021), "
            + (
                "the first with its 95 % t interval over the means of splits, the second with its "
                "95 % bootstrap interval, splits drawn first and seeds within; with few splits "
                "that is too narrow."
                if matrix.nested
                else "each with its 95 % stratified bootstrap interval over seeds."
            ),
            *([f"Left out: {', '.join(left)}, where a method has no score."] if left else []),
            *([shared_luck(matrix.unit)] if len(set(draws)) < len(draws) else []),
        ),
    )


def verdicts_of(matrix: ScoreMatrix) -> Iterator[tuple[str, Verdict]]:
    """Over all tasks, or where their scores share no scale of each task by its name."""
    tested = matrix.tested
    groups = {"": tested} if matrix.shares_a_scale else {task.name: [task] for task in tested}
    for name, tasks in groups.items():
        metrics = {task.metric for task in tasks}
        controls = {_in_words(control): matrix.control(control, tasks) for control in matrix.rivals}
        verdict = judge(
            {method: matrix.scores(method, tasks) for method in matrix.methods},
            controls,
            dict.fromkeys(matrix.methods, matrix.budget),
            baseline=BASELINE if BASELINE in matrix.methods else None,
            metric=f"test {metrics.pop() if len(metrics) == 1 else 'score'}",
            draws=matrix.draws(tasks),
        )
        yield name, verdict


def _in_words(control: str) -> str:
    """How a control reads in a sentence."""
    known = {
        CALIBRATED: "the calibrated hand-written prompt",
        BEST_WORD: "the best word",
        IN_CONTEXT: "the prompt of train examples in context",
    }
    return known.get(control, f"the {control} prompt")


def sentences(matrix: ScoreMatrix, verdicts: Sequence[tuple[str, Verdict]]) -> Iterator[str]:
    """What may be concluded; with one seed no method is named."""
    if not matrix.methods or not any(run.counts for run in matrix.runs):
        yield "Nothing can be concluded yet: only the controls are known."
    elif not matrix.tested:
        yield "No search has a test score: nothing can be concluded about test."
    elif matrix.n_units == 1:
        more = MORE_SPLITS if matrix.nested else ""
        yield from dict.fromkeys(verdict.sentence + more for _, verdict in verdicts)
    else:
        for name, verdict in verdicts:
            said = f"{verdict.sentence} {_best_control(matrix, name, verdict)}".rstrip()
            yield f"{name}: {said}" if name else said


def _best_control(matrix: ScoreMatrix, task: str, verdict: Verdict) -> str:
    """Whether a search is shown to beat the best prompt that no search found."""
    tasks = [one for one in matrix.tested if task in ("", one.name)]
    means = {name: float(np.mean(matrix.control(name, tasks))) for name in matrix.rivals}
    scored = {name: mean for name, mean in means.items() if not np.isnan(mean)}
    if not scored:
        return ""
    best = max(scored, key=lambda name: scored[name])
    control = f"the best control, {_in_words(best)} ({scored[best]:.3f})"
    above = [
        pair.first
        for pair in verdict.against_controls
        if pair.second == _in_words(best) and pair.settled and pair.difference.mean > 0
    ]
    if not above:
        return f"No search is shown to beat {control}."
    return f"Shown to beat {control}: {', '.join(above)}."


def pair_tables(matrix: ScoreMatrix, task: str, verdict: Verdict) -> Iterator[Table]:
    """Every pair of a verdict, searches first and then searches with controls."""
    where = f"{matrix.model}, {matrix.budget:,} rows" + (f", {task}" if task else "")
    unit = matrix.unit
    paired = f"{unit}, a pair of means over its seeds" if matrix.nested else unit
    for name, what, pairs in (
        ("search-pairs", "Every pair of searches", verdict.pairs),
        ("control-pairs", "Every search against every control", verdict.against_controls),
    ):
        if pairs:
            yield Table(
                matrix.name(name, task),
                f"{what}: differences in test score, {where}",
                ("first", "second", "difference", "low", "high", "p (Holm)", "settled", f"{unit}s"),
                tuple(map(_pair_row, pairs)),
                text=(0, 1, 6),
                notes=(
                    f"First minus second, paired by task and {paired}, with the 95 % interval of "
                    "that pair alone; settled where p, after Holm's correction over all pairs of "
                    "this table, is below 0.05, so an interval may exclude 0 for a pair that is "
                    "not settled. "
                    "No interval where all differences are the same or there is only one. "
                    f"{unit}s: how many a task would settle it, if the true difference is as large "
                    "as this.",
                ),
            )


def _pair_row(pair: Pair) -> tuple[str, ...]:
    found = pair.difference
    return (
        pair.first,
        pair.second,
        number(found.mean),
        number(found.low),
        number(found.high),
        _p(pair.adjusted_p),
        "yes" if pair.settled else "open",
        count(pair.seeds_needed),
    )


def _p(value: float | None) -> str:
    """A p value; the smallest are not told apart."""
    return "<0.001" if value is not None and value < 0.001 else number(value)


def improvement_table(matrix: ScoreMatrix) -> Table:
    """How often a run of one method beats one of another."""
    scored = matrix.scored
    cells: dict[tuple[str, str], str] = {}
    matrices = {name: matrix.scores(name, matrix.tested) for name in scored}
    draws = matrix.draws(matrix.tested)
    for first in scored:
        for second in scored:
            x, y = matrices[first], matrices[second]
            if first == second or np.isnan(x - y).all():
                cells[first, second] = NONE
            else:
                found = probability_of_improvement(x, y, generator(), draws=draws)
                interval = "" if found.low is None else f" ({found.low:.2f} to {found.high:.2f})"
                cells[first, second] = f"{found.value:.2f}{interval}"
    return Table(
        matrix.name("improvement"),
        f"Probability of improvement, {matrix.model}, {matrix.budget:,} rows",
        ("a run of", *(f"over {name}" for name in scored)),
        tuple((first, *(cells[first, second] for second in scored)) for first in scored),
        notes=(
            "How often a run of the row's method scores higher on test than one of the column's, "
            "a mean over tasks, with its 95 % interval; 0.5 is no difference. It says how often, "
            "not by how much.",
        ),
    )
