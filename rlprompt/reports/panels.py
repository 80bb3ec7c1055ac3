"""Does the train reward foretell held-out scores, and what would more rows buy.

Made of what was paid for already: the prompts that a run raced or scored on dev along its way, the
controls, and on test the picked prompts alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rlprompt._utils.text import listed, listed_briefly
from rlprompt.reports.curves import Plot
from rlprompt.reports.score_matrix import ScoreMatrix, generator, known_mean
from rlprompt.reports.study_data import RunData
from rlprompt.reports.svg import Line, Points, line_plot, scatter_plot, value_range
from rlprompt.reports.tables import NONE, Table, count, number
from rlprompt.search.result import MARKS, Result
from rlprompt.statistics.summaries import Band, curve_band
from rlprompt.statistics.trends import Correlation, Outlook, outlook, rank_correlation
from rlprompt.statistics.verdict import MOST_NAMED
from rlprompt.store.summary import TaskEntry
from rlprompt.types import Floats


@dataclass(frozen=True)
class Panel:
    """A question, what can be said to it, and the figures.

    Attributes:
        question: Of which task.
        answer: In a sentence or two.
        plot: Where there is something to see.
        table: The figures.
    """

    question: str
    answer: str
    plot: Plot | None
    table: Table


def panels(matrix: ScoreMatrix) -> Iterator[Panel]:
    """Those of each task that has runs which count."""
    for task in matrix.tasks:
        runs = [run for name in matrix.methods for run in matrix.of(name, task.name)]
        if any(run.result and run.result.candidates for run in runs):
            yield prediction(matrix, task, runs)
            yield more_rows(matrix, task)


@dataclass(frozen=True)
class _Scored:
    """A prompt with its train reward, and its reward and metric on another split.

    Attributes:
        train: Mean reward in the search.
        reward: Mean reward on all of the other split.
        metric: Metric on all of the other split.
    """

    train: float
    reward: float
    metric: float


def on_dev(result: Result, n_dev: int) -> list[_Scored]:
    """Distinct prompts of a run that were scored on all of dev: raced, or best for a while."""
    found = {
        one.found_at_rows: _Scored(one.train_reward, one.dev.reward, one.dev.metric)
        for one in result.candidates
        if one.dev is not None and one.dev_examples >= n_dev
    }
    rewards = dict(result.trace)
    for incumbent in result.incumbents:
        if incumbent.rows in rewards:
            dev = incumbent.dev
            scored = _Scored(rewards[incumbent.rows], dev.reward, dev.metric)
            found.setdefault(incumbent.rows, scored)
    return list(found.values())


def prediction(matrix: ScoreMatrix, task: TaskEntry, runs: Sequence[RunData]) -> Panel:
    """Train reward against dev of what was raced, and against test of what was picked."""
    named = task.metric != "reward"
    dev = {id(run): _on_own_dev(matrix, task, run) for run in runs}
    raced = {name: _by_split(matrix, task, name, dev) for name in matrix.methods}
    controls = _controls(matrix, task)
    every = [
        [*own, np.array(controls[i]).reshape(-1, 3)]
        for i, own in enumerate(map(_joined, zip(*raced.values(), strict=True)))
    ]
    rewards = rank_correlation([[run[:, :2] for run in own] for own in every], generator())
    rows = [("all, controls too", *_cells(every, rewards, named), *_optimism(matrix, runs))]
    for name, splits in raced.items():
        own = [run for run in runs if run.entry.optimiser == name]
        found = rank_correlation([[run[:, :2] for run in one] for one in splits], generator())
        rows.append((name, *_cells(splits, found, named), *_optimism(matrix, own)))
    title = f"{task.name}: does the train reward predict held-out scores?"
    both = f"dev reward to {task.metric}: the correlation of the two on dev. " if named else ""
    table = Table(
        matrix.name("prediction", task.name),
        title,
        (
            *("prompts", "dev prompts", "rho reward", "low", "high"),
            *([f"rho {task.metric}", f"dev reward to {task.metric}"] if named else []),
            *("picked: train", "dev", "test", "train - test", "dev - test"),
        ),
        tuple(rows),
        notes=(
            "rho: Spearman's rank correlation of the train reward of the search with reward and "
            f"{task.metric} on all of dev, within splits, over the prompts that were scored there "
            "(leaders of the race, the best so far at every tenth of the budget; over all prompts "
            f"of a search it would be higher); 95 % interval over runs. {both}picked: mean rewards "
            "of the prompts that were picked on dev; train - test and dev - test are how much "
            "picking overstates (the winner's curse).",
        ),
    )
    drawn = _scatter(matrix, task, raced, runs, controls, title)
    answer = _said(rewards, matrix, runs) + (_agreement(every, task.metric) if named else "")
    return Panel(title, answer, Plot(drawn, table) if drawn else None, table)


def _on_own_dev(matrix: ScoreMatrix, task: TaskEntry, run: RunData) -> list[_Scored]:
    """`on_dev` of a run: splits need not have dev sets of one size."""
    own = matrix.study.task_of(run) or task
    return [] if run.result is None else on_dev(run.result, own.examples.get("dev", 0))


def _by_split(
    matrix: ScoreMatrix, task: TaskEntry, method: str, dev: dict[int, list[_Scored]]
) -> list[list[Floats]]:
    """Of each split its runs: (prompts, 3) train reward, dev reward, dev metric."""
    found: list[list[Floats]] = [[] for _ in matrix.split_seeds]
    for run in matrix.of(method, task.name):
        points = [(one.train, one.reward, one.metric) for one in dev[id(run)]]
        if points:
            row = matrix.split_seeds.index(run.entry.split_seed)
            found[row].append(np.array(points))
    return found


def _joined(parts: Sequence[list[Floats]]) -> list[Floats]:
    return [run for part in parts for run in part]


def _controls(matrix: ScoreMatrix, task: TaskEntry) -> list[list[tuple[float, float, float]]]:
    """Of each split: train reward, dev reward and dev metric of what no search found."""
    found: list[list[tuple[float, float, float]]] = [[] for _ in matrix.split_seeds]
    for one in matrix.study.summary.controls:
        # A variant's rewards are those of another task.
        if (one.task, one.model, one.variant) != (task.name, matrix.model, False):
            continue
        train, dev = one.rewards.get("train"), one.rewards.get("dev")
        if train is not None and dev is not None and one.dev is not None:
            found[matrix.split_seeds.index(one.split_seed)].append((train, dev, one.dev))
    return found


def _cells(splits: Sequence[Sequence[Floats]], found: Correlation, named: bool) -> tuple[str, ...]:
    pairs = ([0, 2], [1, 2]) if named else ()
    others = [rank_correlation([[run[:, two] for run in own] for own in splits]) for two in pairs]
    figures = (found.value, found.low, found.high, *(one.value for one in others))
    return (count(found.n), *map(number, figures))


def _optimism(matrix: ScoreMatrix, runs: Sequence[RunData]) -> tuple[str, ...]:
    """Mean rewards of the picked prompts, and what train and dev are above test."""
    means = _picked(matrix, runs)
    test = means["test"]
    return (
        *(number(known_mean(values)) for values in means.values()),
        *(number(known_mean(means[split] - test)) for split in ("train", "dev")),
    )


def _picked(matrix: ScoreMatrix, runs: Sequence[RunData]) -> dict[str, Floats]:
    """(splits, runs) of the rewards of picked prompts."""
    entries = [run.entry for run in runs]
    splits = ("train", "dev", "test")
    return {split: matrix.by_split(entries, split, rewards=True) for split in splits}


def _said(found: Correlation, matrix: ScoreMatrix, runs: Sequence[RunData]) -> str:
    if found.value is None:
        return "Too few prompts were scored on dev to say whether the train reward predicts it."
    interval = "" if found.low is None else f", 95 % interval {found.low:.2f} to {found.high:.2f}"
    text = (
        f"Over {found.n:,} prompts, train and dev reward have a Spearman rank correlation of "
        f"{found.value:.2f}{interval}."
    )
    means = {split: known_mean(values) for split, values in _picked(matrix, runs).items()}
    if None in means.values():
        return text
    figures = listed(f"{value:.3g} on {split}" for split, value in means.items())
    return (
        f"{text} Picked prompts earn {figures} on average: what train and dev are above test "
        "comes from picking the best (the winner's curse)."
    )


def _agreement(splits: Sequence[Sequence[Floats]], metric: str) -> str:
    """How well the reward ranks prompts by the metric, both on dev."""
    found = rank_correlation([[run[:, [1, 2]] for run in own] for own in splits], generator())
    if found.value is None:
        return f" On dev, reward or {metric} is the same for all, so neither predicts the other."
    interval = "" if found.low is None else f" ({found.low:.2f} to {found.high:.2f})"
    return f" Reward and {metric} on dev have a rank correlation of {found.value:.2f}{interval}."


def _scatter(
    matrix: ScoreMatrix,
    task: TaskEntry,
    raced: dict[str, list[list[Floats]]],
    runs: Sequence[RunData],
    controls: Sequence[Sequence[tuple[float, float, float]]],
    title: str,
) -> str:
    order = matrix.study.summary.optimisers
    points = []
    for name, splits in raced.items():
        own = _joined(splits)
        hollow = np.concatenate(own)[:, [0, 2]] if own else np.zeros((0, 2))
        filled = [
            (train, run.entry.test)
            for run in runs
            if run.entry.optimiser == name and run.entry.test is not None
            if (train := run.entry.rewards.get("train")) is not None
        ]
        points.append(
            Points(name, order.index(name), hollow, np.array(filled, dtype=float).reshape(-1, 2))
        )
    known = np.array([(train, dev) for own in controls for train, _, dev in own]).reshape(-1, 2)
    if len(known):
        points.append(Points("controls", None, known, np.zeros((0, 2))))
    if not any(len(one.hollow) + len(one.filled) for one in points):
        return ""
    return scatter_plot(
        matrix.name("prediction", task.name),
        title,
        "Circles are prompts on dev, dots picked prompts on test, against their train reward.",
        points,
        x_label="train reward" + (f" ({task.reward})" if task.reward else ""),
        y_label=f"{task.metric} on dev (circles), test (dots)",
    )


def more_rows(matrix: ScoreMatrix, task: TaskEntry) -> Panel:
    """Dev reward of the best prompt on train, beyond the budget."""
    marks = np.arange(1, MARKS + 1) * matrix.budget / MARKS
    rows, lines = [], list[Line]()
    said: dict[str, list[str]] = {}
    order = matrix.study.summary.optimisers
    for name in matrix.methods:
        own = [run for run in matrix.of(name, task.name) if run.result and run.result.incumbents]
        if not own:
            continue
        steps = [
            [(float(one.rows), one.dev.reward) for one in run.result.incumbents]
            for run in own
            if run.result
        ]
        heights = np.array([curve_band([curve], marks).value for curve in steps])
        there = ~np.isnan(heights).any(axis=0)
        splits = [run.entry.split_seed for run in own]
        found = outlook(marks[there], heights[:, there], splits if matrix.nested else None)
        gain = found.gain
        figures = (None,) * 3 if gain is None else (gain.mean, gain.low, gain.high)
        shown = count(float(found.band.at[-1])) if len(found.band.at) else NONE
        row = (name, str(len(own)), *map(number, figures), shown, found.problem or NONE)
        rows.append(row)
        said.setdefault(_promise(found), []).append(name)
        if len(found.band.at):
            known = curve_band(steps, marks[there], splits)
            lines.append(Line(name, order.index(name), _continued(known, found.band)))
    title = f"{task.name}: what would more rows buy?"
    table = Table(
        matrix.name("more-rows", task.name),
        title,
        ("method", "runs", "gain", "low", "high", "shown to", "why no further"),
        tuple(rows),
        text=(0, 6),
        notes=(
            f"gain: what twice the {matrix.budget:,} rows would add to the dev reward of the best "
            "prompt on train, if the curve goes on as a + b log(rows), with its 95 % interval over "
            f"{matrix.unit}s. Shown up to twice the rows, as far as the interval is narrower than "
            "all that the curve has gained, and not where its first half mispredicts the second.",
        ),
    )
    answers = "; ".join(
        f"{listed_briefly(names, MOST_NAMED)} {promise}" for promise, names in said.items()
    )
    answer = "No search was scored on dev as it went, so nothing can be said."
    if answers:
        more = (
            f"Another {matrix.budget:,} rows would add to the dev reward, if curves go on as before"
        )
        answer = f"{more}: {answers}."
    if not lines:
        return Panel(title, answer, None, table)
    values = [float(v) for line in lines for v in line.band.value if np.isfinite(v)]
    svg = line_plot(
        table.name,
        title,
        answer,
        lines,
        x_label="rows spent; beyond the line, fitted",
        y_label="dev reward" + (f" ({task.reward})" if task.reward else ""),
        y_range=value_range(values),
        until=float(matrix.budget),
    )
    return Panel(title, answer, Plot(svg, table), table)


def _continued(known: Band, ahead: Band) -> Band:
    parts = zip(
        *((band.at, band.value, band.low, band.high) for band in (known, ahead)), strict=True
    )
    return Band(*(np.concatenate(pair) for pair in parts))


def _promise(found: Outlook) -> str:
    gain = found.gain
    if gain is None or gain.low is None or gain.high is None:
        return f"unknown, since {found.problem or 'nothing varies'}"
    size = f"{gain.mean:+.3g} ({gain.low:.3g} to {gain.high:.3g})"
    return f"{size}, which may be nothing" if gain.low <= 0 <= gain.high else size
