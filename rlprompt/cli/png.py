"""The picture of a comparison: best train reward so far against rows spent."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rlprompt.reports.svg import spread
from rlprompt.studies.comparison import Comparison, Run, Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, told apart with any colour vision; the line style helps in greyscale and
# tells a seventh line from the first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", (0, (6, 1.5)), (0, (2, 1)), (0, (6, 1.5, 1.5, 1.5)))
GREY = "#555555"
# Least distance between two labels at the right edge, as a share of the axis.
LABEL_GAP = 0.055
# Panels side by side, at most.
MOST_COLUMNS = 4
# What neighbours of a grid differ in, the innermost first.
_SIDE_BY_SIDE: tuple[Callable[[Section], object], ...] = (
    lambda section: section.experiment.budget.rows,
    lambda section: section.experiment.task_name,
)


def curves(comparison: Comparison) -> bytes:
    """The picture as PNG, a panel for each section."""
    # Not pyplot: it keeps global state and picks a window system.
    from matplotlib.figure import Figure

    sections = comparison.sections
    n_columns = 1 if len(sections) == 1 else _columns(sections)
    n_rows = math.ceil(len(sections) / n_columns)
    width, height = (9.0, 5.2) if len(sections) == 1 else (6.6, 4.0)
    figure = Figure((width * n_columns, height * n_rows), dpi=150, layout="constrained")
    for i, section in enumerate(sections):
        _panel(figure.add_subplot(n_rows, n_columns, i + 1), section)
    if len(sections) > 1:
        figure.suptitle(f"best prompt so far{_seeds(sections[0])}", x=0.01, ha="left")
    sink = io.BytesIO()
    figure.savefig(sink, format="png")
    return sink.getvalue()


def _columns(sections: Sequence[Section]) -> int:
    """Panels side by side: budgets, or tasks, that belong together, else two."""
    for count in (len({getter(s) for s in sections}) for getter in _SIDE_BY_SIDE):
        if 1 < count <= MOST_COLUMNS and len(sections) % count == 0:
            return count
    return 2


def _panel(axes: Axes, section: Section) -> None:
    """A line for the mean over seeds of each optimiser, thin ones for seeds."""
    labels: list[tuple[float, str, str]] = []
    for i, name in enumerate(section.experiment.optimisers):
        runs = [run for run in section.runs if run.optimiser == name and run.result.trace]
        if not runs:
            continue
        colour, style = COLOURS[i % len(COLOURS)], STYLES[i % len(STYLES)]
        for run in runs if len(runs) > 1 else []:
            axes.step(*mean_curve([run]), where="post", color=colour, lw=0.8, alpha=0.35)
        rows, means = mean_curve(runs)
        axes.step(rows, means, where="post", color=colour, ls=style, lw=2.2)
        labels.append((float(means[-1]), name, colour))
    for control in section.controls:
        score = control.scores["train"]
        if score is None or control.variant:
            continue
        axes.axhline(score.reward, color=GREY, ls=(0, (1, 2)), lw=1.3, zorder=1)
        labels.append((score.reward, control.title, GREY))
    axes.set_xlim(0, section.experiment.budget.rows)
    _label_ends(axes, labels)
    _describe(axes, section)


def mean_curve(runs: Sequence[Run]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows, and the mean over runs of the best reward at them, from where every run has one.

    A run keeps its last value to the end of its budget, and one that was stopped to where the
    longest of them came.
    """
    traces = [run.result.trace for run in runs]
    start = max(trace[0][0] for trace in traces)
    end = max(
        run.result.budget_rows if run.result.status == "finished" else run.result.rows
        for run in runs
    )
    changes = {rows for trace in traces for rows, _ in trace if rows >= start}
    grid = np.array(sorted(changes | {start, end}), dtype=np.int64)
    values = []
    for trace in traces:
        rows, rewards = np.array(trace).T
        values.append(rewards[np.searchsorted(rows, grid, side="right") - 1])
    return grid, np.mean(values, axis=0)


def _label_ends(axes: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """Names at the right edge at the height of their line, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    wanted = sorted(((value - low) / (high - low), name, colour) for value, name, colour in labels)
    places = spread([place for place, _, _ in wanted], LABEL_GAP)
    for place, (height, name, colour) in zip(places, wanted, strict=True):
        axes.annotate(
            name,
            xy=(1, height),
            xytext=(1.03, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            color=colour,
            fontsize=10,
            fontweight="normal" if colour == GREY else "bold",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "lw": 0.8,
                "relpos": (0, 0.5),  # from the left edge of the text
                "shrinkA": 1,
                "shrinkB": 0,
            },
        )


def _seeds(section: Section) -> str:
    n_seeds = len(section.experiment.seeds)
    return f", mean of {n_seeds} seeds (thin: each seed)" if n_seeds > 1 else ""


def _describe(axes: Axes, section: Section) -> None:
    experiment = section.experiment
    n_train = len(experiment.task.splits.train)
    reward = getattr(experiment.task, "reward", "")
    title = f"{experiment.task_name}, {experiment.lm.name}: best prompt so far{_seeds(section)}"
    axes.set_title(section.heading or title, loc="left", fontsize=11)
    per_row = f"one row = one prompt on one of {n_train} train examples"
    axes.set_xlabel(f"rows spent ({per_row})" if not section.heading else "rows spent")
    axes.set_ylabel("mean train reward" + (f" ({reward})" if reward else ""))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="y", color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
