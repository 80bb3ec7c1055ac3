"""The plots: how good the best prompt was after how much was spent, and test scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlprompt.reports.score_matrix import ScoreMatrix, generator, mean_of, wilson
from rlprompt.reports.study_data import RunData, StudyData
from rlprompt.reports.svg import Dots, Line, dot_plot, line_plot, thinned, value_range
from rlprompt.reports.tables import NONE, Table, count, number
from rlprompt.statistics.summaries import Band, curve_band, performance_profile
from rlprompt.store.summary import TaskEntry, control_title
from rlprompt.types import Floats

# What a search spends, by the word in the switch, and how it reads below a plot.
UNITS = {
    "rows": "rows spent",
    "tokens": "tokens of rows spent",
    "seconds": "seconds of the search",
}
SPLITS = {
    "train": "best train reward so far",
    "dev": "dev reward of the best prompt on train so far",
}
# Controls that are drawn as levels; more would hide the curves. All are in the tables.
MOST_LEVELS = 2
# Seeds, or splits, below which their curves are drawn and no band: the 95 % interval of three is
# 4.3 standard errors either way, of two 12.7.
FEWEST_IN_A_BAND = 4
# Runs of a method, over all tasks, below which a performance profile is a few steps.
FEWEST_IN_A_PROFILE = 10
# Shares of the budget at which the table below a plot reads its curves.
MARKS = (0.2, 0.4, 0.6, 0.8, 1.0)
# Places at which a performance profile is read, for its plot and for its table.
PROFILE_PLACES, PROFILE_MARKS = 101, 6


# Costs and heights of one run's steps.
Steps = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Plot:
    """A picture and its figures.

    Attributes:
        svg: For the page.
        table: For those who do not see it.
    """

    svg: str
    table: Table


@dataclass(frozen=True)
class TaskCurves:
    """The curves of a task.

    Attributes:
        task: Its name.
        plots: Train and dev by unit; no unit in which costs are unknown.
    """

    task: str
    plots: dict[str, tuple[Plot, ...]]


def task_curves(
    study: StudyData, model: str, budget: int, task: TaskEntry, key: str
) -> TaskCurves | None:
    """The curves of the runs that count on a task; None where there are none.

    Args:
        study: The study, examined.
        model: Whose runs.
        budget: Of how many rows.
        task: On which task.
        key: Tells the plots from all others of the page.
    """
    runs = [
        run
        for run in study.section(model, budget)
        if run.entry.task == task.name and run.counts and run.result and run.result.points
    ]
    plots = {}
    for unit in UNITS if runs else ():
        bands = {split: _bands(study, runs, split, unit) for split in SPLITS}
        if not bands["train"]:
            continue
        levels = {split: _levels(study, model, task, split) for split in SPLITS}
        heights = [h for split in SPLITS for one in bands[split] for h in one.heights]
        values = [float(v) for part in heights for v in part]
        y_range = value_range(values + [v for split in SPLITS for _, v in levels[split]])
        plots[unit] = tuple(
            _plot(
                f"{key}.{unit}.{split}",
                task,
                split,
                unit,
                bands[split],
                levels[split],
                y_range,
                study,
            )
            for split in SPLITS
            if bands[split]
        )
    return TaskCurves(task.name, plots) if plots else None


def costs(run: RunData, rows: Sequence[float] | Floats, unit: str) -> Floats | None:
    """What a run had spent when it had spent these rows; None where that is unknown.

    Tokens are those of an average row. Seconds are known at each improvement for the model's work;
    the method's own time is spread evenly over it.
    """
    result = run.result
    spent = np.asarray(rows, dtype=np.float64)
    if unit == "rows" or result is None:
        return spent
    if unit == "tokens":
        return None if result.tokens_per_row is None else spent * result.tokens_per_row
    if len(result.trace_seconds) != len(result.points) or not result.lm_seconds:
        return None
    share = result.total_seconds / result.lm_seconds
    known = [0.0, *(at for at, _ in result.points), float(max(result.rows, 1))]
    seconds = np.array([0.0, *result.trace_seconds, result.lm_seconds]) * share
    return np.interp(spent, known, np.maximum.accumulate(seconds))


@dataclass(frozen=True)
class _Curve:
    """The curve of a method: its mean with a band, or with the few curves that it is the mean of.

    Attributes:
        name: The method's.
        n_runs: Its runs.
        unit: What varies independently among them, `split` or `seed`.
        band: Mean and interval; no interval of few.
        each: Heights of each unit, of a split those of its mean, where they are few.
    """

    name: str
    n_runs: int
    unit: str
    band: Band
    each: tuple[Floats, ...]

    @property
    def heights(self) -> tuple[Floats, ...]:
        """All that is drawn as curves."""
        return self.band.value, *self.each


def _bands(study: StudyData, runs: Sequence[RunData], split: str, unit: str) -> list[_Curve]:
    """The curve of each method that has such."""
    found = []
    for name in study.summary.optimisers:
        own = [run for run in runs if run.entry.optimiser == name]
        curves = [curve for run in own if (curve := _steps(run, split, unit)) is not None]
        if curves and len(curves) == len(own):
            # A search that ends early keeps what it found to the end of its budget, but no run is
            # drawn longer than it took.
            ends = [costs(run, [run.entry.budget_rows], unit) for run in own]
            end = max(float(one[0]) for one in ends if one is not None)
            start = max(float(at[0]) for at, _ in curves)
            grid = np.concatenate([at for at, _ in curves])
            grid = thinned(grid[grid >= start], max(end, start))
            steps = [list(zip(*(part.tolist() for part in curve), strict=True)) for curve in curves]
            found.append(_curve_of(name, steps, grid, [run.entry.split_seed for run in own]))
    return found


def _curve_of(
    name: str, steps: Sequence[Steps], grid: Floats, splits: Sequence[int | None]
) -> _Curve:
    """A method's curve of those of its runs."""
    band = curve_band(steps, grid, splits)
    # What varies independently, as in `curve_band`.
    unit = "split" if len(set(splits)) > 1 else "seed"
    units: Sequence[object] = splits if unit == "split" else range(len(steps))
    if not 1 < len(set(units)) < FEWEST_IN_A_BAND:
        return _Curve(name, len(steps), unit, band, ())
    own = {
        unit: [one for one, of in zip(steps, units, strict=True) if of == unit] for unit in units
    }
    nothing = np.full_like(grid, np.nan)
    each = tuple(curve_band(part, grid).value for part in own.values())
    return _Curve(name, len(steps), unit, replace(band, low=nothing, high=nothing), each)


def _steps(run: RunData, split: str, unit: str) -> tuple[Floats, Floats] | None:
    """Costs and heights of one run's steps."""
    result = run.result
    if result is None:
        return None
    if split == "train":
        points = [(rows, reward) for rows, reward in result.points]
    else:
        points = [(one.rows, one.dev.reward) for one in result.incumbents]
    if not points:
        return None
    rows, heights = np.array(points, dtype=np.float64).T
    spent = costs(run, rows, unit)
    return None if spent is None else (spent, heights)


def _levels(study: StudyData, model: str, task: TaskEntry, split: str) -> list[tuple[str, float]]:
    """Titles and rewards of the controls that are drawn."""
    rewards: dict[str, list[float | None]] = {}
    for one in study.summary.controls:
        if (one.model, one.task) == (model, task.name) and not one.variant:
            rewards.setdefault(control_title(one.name), []).append(one.rewards.get(split))
    means = ((title, mean_of(own)) for title, own in rewards.items())
    return [(title, mean) for title, mean in means if mean is not None][:MOST_LEVELS]


def _plot(
    name: str,
    task: TaskEntry,
    split: str,
    unit: str,
    curves: Sequence[_Curve],
    levels: Sequence[tuple[str, float]],
    y_range: tuple[float, float],
    study: StudyData,
) -> Plot:
    styles = study.summary.optimisers
    nested = any(one.unit == "split" for one in curves)
    over = "splits of means over seeds" if nested else "seeds"
    title = f"{task.name}: {SPLITS[split]} against {UNITS[unit]}"
    ends = [f"{one.name} {_ending(one.band)}" for one in curves]
    ends += [f"{title} {number(value)} throughout" for title, value in levels]
    svg = line_plot(
        name,
        title,
        f"Mean over {over}{_beside(curves)}. At the end: {'; '.join(ends)}.",
        [Line(one.name, styles.index(one.name), one.band, one.each) for one in curves],
        levels,
        x_label=UNITS[unit],
        y_label=f"{split} reward" + (f" ({task.reward})" if task.reward else ""),
        y_range=y_range,
    )
    return Plot(svg, _figures(name, title, unit, curves, over))


def _beside(curves: Sequence[_Curve]) -> str:
    """What is drawn with the means."""
    drawn = " or ".join(sorted({one.unit for one in curves if one.each}))
    banded = any(np.isfinite(one.band.low).any() for one in curves)
    return (" with a 95 % band" if banded else "") + (
        f", each {drawn} as a thin line" if drawn else ""
    )


def _ending(band: Band) -> str:
    text = number(float(band.value[-1]))
    if not np.isfinite(band.low[-1]):
        return text
    return f"{text} ({number(float(band.low[-1]))} to {number(float(band.high[-1]))})"


def _figures(name: str, title: str, unit: str, curves: Sequence[_Curve], over: str) -> Table:
    """The curves read at some shares of the longest one's cost."""
    end = max(float(one.band.at[-1]) for one in curves)
    marks = [share * end for share in MARKS]
    rows = []
    for one in curves:
        band = one.band
        cells = [number(_read(band.at, band.value, mark)) for mark in marks]
        interval = [number(_read(band.at, part, end)) for part in (band.low, band.high)]
        rows.append((one.name, str(one.n_runs), *cells, *interval))
    heads = [f"at {count(mark)}" for mark in marks]
    header = ("method", "seeds" if over == "seeds" else "runs", *heads, "low", "high")
    note = f"Means over {over} after so many {unit}; low and high: 95 % interval at the end."
    return Table(name, title, header, tuple(rows), notes=(note,))


def _read(at: Floats, heights: Floats, cost: float) -> float | None:
    """A step curve at a cost; None before its begin or where there is no value."""
    place = int(np.searchsorted(at, cost * (1 + 1e-12), side="right")) - 1
    return float(heights[place]) if place >= 0 and np.isfinite(heights[place]) else None


def dots(matrix: ScoreMatrix, task: TaskEntry) -> Plot | None:
    """Every run's test score, with mean and interval, controls and references beside."""
    rows = []
    for name, own in matrix.controls_of(task.name).items():
        (*others, last) = own
        title = control_title(name)
        if others:
            rows += _row(title, None, matrix.by_split(own), matrix, task)
        elif last.test is not None:
            rows.append(Dots(title, None, (), last.test, *wilson(last.test_metrics)))
    for name in matrix.methods:
        style = matrix.study.summary.optimisers.index(name)
        rows += _row(name, style, matrix.scores(name, [task])[..., 0], matrix, task)
    for title, trained in matrix.trained(task.name).items():
        rows += _row(title, None, matrix.by_split(trained), matrix, task)
    if not any(row.style is not None for row in rows):
        return None
    title = f"{task.name}: test {task.metric} of every run"
    means = "; ".join(f"{row.name} {number(row.mean)}" for row in rows)
    name = matrix.name("dots", task.name)
    svg = dot_plot(name, title, f"Means: {means}.", rows, x_label=f"test {task.metric}")
    cells = tuple(
        (row.name, number(row.mean), number(row.low), number(row.high), _listed(row.values))
        for row in rows
    )
    header = ("method", "mean", "low", "high", "runs")
    return Plot(svg, Table(name, title, header, cells, text=(0, 4)))


def _row(
    name: str, style: int | None, scores: Floats, matrix: ScoreMatrix, task: TaskEntry
) -> list[Dots]:
    """The row of (splits, runs), none where all are NaN."""
    found, values = matrix.summary(task, scores), scores[~np.isnan(scores)]
    if found is None:
        return []
    return [Dots(name, style, tuple(values.tolist()), found.mean, found.low, found.high)]


def _listed(values: Sequence[float]) -> str:
    return ", ".join(map(number, values)) or NONE


def profile(matrix: ScoreMatrix) -> Plot | None:
    """Share of runs above each score, a curve a method; None where a method has few runs.

    Over the tasks that every method has.
    """
    matrices = {name: matrix.scores(name, matrix.compared) for name in matrix.scored}
    if min(int((~np.isnan(one)).sum()) for one in matrices.values()) < FEWEST_IN_A_PROFILE:
        return None
    known = np.concatenate([matrix.ravel() for matrix in matrices.values()])
    low, high = np.nanmin(known), np.nanmax(known)
    # From where every run is above to where none is.
    places = np.linspace(low - (high - low) * 0.02 - 1e-9, high + 1e-9, PROFILE_PLACES)
    draws = matrix.draws(matrix.compared)
    bands = {
        name: performance_profile(one, places, generator(), draws=draws)
        for name, one in matrices.items()
    }
    title = f"Performance profile, {matrix.model}, {matrix.budget:,} rows"
    order = matrix.study.summary.optimisers
    svg = line_plot(
        matrix.name("profile"),
        title,
        "Share of runs above each test score, a mean over tasks. A curve that lies "
        "above another everywhere is better at every level.",
        [Line(name, order.index(name), band) for name, band in bands.items()],
        x_label="test score",
        y_label="share of runs above it",
        y_range=(0.0, 1.05),
        x_start=float(places[0]),
        legend=True,
    )
    marks = np.linspace(0, PROFILE_PLACES - 1, PROFILE_MARKS).astype(int)
    table = Table(
        matrix.name("profile"),
        title,
        ("method", *(f"above {number(float(places[mark]))}" for mark in marks)),
        tuple(
            (name, *(number(float(band.value[mark]), 2) for mark in marks))
            for name, band in bands.items()
        ),
    )
    return Plot(svg, table)
