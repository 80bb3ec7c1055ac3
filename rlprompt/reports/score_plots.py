"""Plots of test scores: every run of a task, and the performance profile over all tasks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlprompt.reports.curves import Plot
from rlprompt.reports.score_matrix import Scoreboard, generator, wilson
from rlprompt.reports.svg import Dots, Line, dot_plot, line_plot
from rlprompt.reports.tables import NONE, Table, number
from rlprompt.statistics.summaries import performance_profile, summarise
from rlprompt.store.summary import TaskEntry

# Places at which a performance profile is read, for its plot and for its table.
PROFILE_PLACES, PROFILE_MARKS = 101, 6


def dots(board: Scoreboard, task: TaskEntry) -> Plot | None:
    """Every run's test score, with mean and interval, controls and references beside."""
    rows = []
    for control in board.controls:
        if control.task == task.name and control.test is not None:
            low, high = wilson(control.test_metrics)
            rows.append(Dots(control.name, None, (), control.test, low, high))
    for name in board.methods:
        values = board.scores(name, [task]).ravel()
        values = values[~np.isnan(values)]
        if len(values):
            found = summarise(values)
            style = board.evidence.summary.optimisers.index(name)
            rows.append(
                Dots(name, style, tuple(values.tolist()), found.mean, found.low, found.high)
            )
    for kind, own in board.trained(task.name).items():
        tests = [one.test for one in own if one.test is not None]
        if tests:
            found = summarise(np.array(tests))
            rows.append(Dots(kind, None, tuple(tests), found.mean, found.low, found.high))
    if not any(row.style is not None for row in rows):
        return None
    title = f"{task.name}: test {task.metric} of every run"
    means = "; ".join(f"{row.name} {number(row.mean)}" for row in rows)
    name = board.name("dots", task.name)
    svg = dot_plot(name, title, f"Means: {means}.", rows, x_label=f"test {task.metric}")
    cells = tuple(
        (row.name, number(row.mean), number(row.low), number(row.high), _listed(row.values))
        for row in rows
    )
    header = ("method", "mean", "low", "high", "runs")
    return Plot(svg, Table(name, title, header, cells, text=(0, 4)))


def _listed(values: Sequence[float]) -> str:
    return ", ".join(map(number, values)) or NONE


def profile(board: Scoreboard) -> Plot:
    """Share of runs above each score, a curve a method."""
    matrices = {name: board.scores(name, board.tested) for name in board.scored}
    known = np.concatenate([matrix.ravel() for matrix in matrices.values()])
    low, high = np.nanmin(known), np.nanmax(known)
    # From where every run is above to where none is.
    places = np.linspace(low - (high - low) * 0.02 - 1e-9, high + 1e-9, PROFILE_PLACES)
    bands = {name: performance_profile(one, places, generator()) for name, one in matrices.items()}
    title = f"Performance profile, {board.model}, {board.budget:,} rows"
    order = board.evidence.summary.optimisers
    svg = line_plot(
        board.name("profile"),
        title,
        "Share of runs above each test score, a mean over tasks. A curve above another "
        "everywhere is better at every level.",
        [Line(name, order.index(name), band) for name, band in bands.items()],
        x_label="test score",
        y_label="share of runs above it",
        y_range=(0.0, 1.05),
        x_start=float(places[0]),
        legend=True,
    )
    marks = np.linspace(0, PROFILE_PLACES - 1, PROFILE_MARKS).astype(int)
    table = Table(
        board.name("profile"),
        title,
        ("method", *(f"above {number(float(places[mark]))}" for mark in marks)),
        tuple(
            (name, *(number(float(band.value[mark]), 2) for mark in marks))
            for name, band in bands.items()
        ),
    )
    return Plot(svg, table)
