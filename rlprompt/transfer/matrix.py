"""Transferred prompts as a report shows them: a matrix of gains, losses on the way, and drift.

Values alone, from `transfer.json`. Gains are over the empty prompt on the same target.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

import numpy as np

from rlprompt.statistics.nested import are_shares
from rlprompt.statistics.summaries import share_interval, summarise
from rlprompt.store.summary import range_of
from rlprompt.transfer.file import Form, Source, Target, Transfer, TransferEntry

# Whose mean over examples is a share of them, for which there is an interval without seeds.
COUNTED = ("accuracy",)


@dataclass(frozen=True)
class Row:
    """The picked prompts of one method, a seed each.

    Attributes:
        task: Where they were found.
        model: On which model.
        budget_rows: With how much.
        optimiser: By which method.
        title: What tells the row from the others.
    """

    task: str
    model: str
    budget_rows: int
    optimiser: str
    title: str


@dataclass(frozen=True)
class Column:
    """A target.

    Attributes:
        target: Model, task, controls, or why it could not be scored.
        title: Model and task, a model by the last part of its path where that will do; and the
            metric where columns have several.
        of_study: Whether the study searched on this model.
    """

    target: Target
    title: str
    of_study: bool


@dataclass(frozen=True)
class Cell:
    """What the prompts of a row are worth on the target of a column.

    Attributes:
        mean: Mean metric over seeds.
        low: Lower end of its 95 % interval; None where there is none.
        high: The upper end.
        over: What the interval is about: other `seeds` (Student's t), or for one prompt other
            `examples` (Wilson's, of an accuracy); "" without one.
        empty: The target's metric with the empty prompt; gains take it as it is.
        form: How the prompts arrived.
        notes: What a reader should know.
    """

    mean: float
    low: float | None
    high: float | None
    over: Literal["seeds", "examples", ""]
    empty: float
    form: Form
    notes: tuple[str, ...]

    @property
    def gain(self) -> float:
        """Mean over that of the empty prompt."""
        return self.mean - self.empty

    @property
    def gain_low(self) -> float | None:
        """Lower end of the interval of the gain."""
        return None if self.low is None else self.low - self.empty

    @property
    def gain_high(self) -> float | None:
        """Upper end of the interval of the gain."""
        return None if self.high is None else self.high - self.empty


@dataclass(frozen=True)
class Failure:
    """A cell that could not be scored.

    Attributes:
        problem: Why.
    """

    problem: str


@dataclass(frozen=True)
class Matrix:
    """Found prompts by targets.

    Attributes:
        rows: Source task and method.
        columns: Target model and task, the study's own model first.
        cells: A row each; None where nobody asked.
    """

    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    cells: tuple[tuple[Cell | Failure | None, ...], ...]


@dataclass(frozen=True)
class Loss:
    """A prompt on the model and task where it was found, as it was and as something else.

    Attributes:
        source: The prompt.
        form: What it became: `by text`, typed again; or `nearest tokens`, of a soft prompt.
        split: Where both were scored.
        as_found: Metric as it was found.
        then: Metric in that form.
    """

    source: Source
    form: Form
    split: str
    as_found: float
    then: float


@dataclass(frozen=True)
class Drift:
    """Scores on the study's own models and tasks today, against those that the study holds.

    Attributes:
        n: Scores that were compared.
        reward: The difference of a mean reward that exceeds its tolerance the most.
        tolerance: What rounding may make there.
        metric: The largest difference of a mean metric.
        run: The run of that reward, or "".
    """

    n: int
    reward: float
    tolerance: float
    metric: float
    run: str

    @property
    def holds(self) -> bool:
        """Whether the differences are no more than rounding."""
        return self.reward <= self.tolerance


def drift(transfer: Transfer) -> Drift:
    """How far today's scores are from the stored ones."""
    tolerances = {(one.model, one.task): one.tolerance for one in transfer.targets}
    gaps = [
        (
            abs(one.score.reward - one.stored.reward),
            abs(one.score.metric - one.stored.metric),
            tolerance,
            one.run,
        )
        for one in transfer.entries
        if one.score and one.stored
        if (tolerance := tolerances.get((one.model, one.task))) is not None
    ]
    if not gaps:
        return Drift(0, 0.0, 0.0, 0.0, "")
    # A tolerance of 0 is one of rewards that are all the same.
    reward, _, tolerance, run = max(gaps, key=lambda gap: gap[0] / (gap[2] or 1e-12))
    return Drift(len(gaps), reward, tolerance, max(metric for _, metric, _, _ in gaps), run)


def reached(transfer: Transfer) -> bool:
    """Whether something could be scored of what was asked for: tasks and models, if some were."""
    own = {model.name for model in transfer.models if model.of_study}
    named = [one for one in transfer.targets if one.asked or one.model not in own]
    scored = {(one.model, one.task) for one in transfer.entries if one.score}
    return any((one.model, one.task) in scored for one in named or transfer.targets)


def losses(transfer: Transfer) -> tuple[Loss, ...]:
    """What prompts lose on their own model and task by being typed, or as their nearest tokens."""
    sources = {source.run: source for source in transfer.sources}
    home = {
        (entry.run, entry.split, entry.form): entry.score.metric
        for entry in transfer.entries
        if entry.score
        and (entry.model, entry.task) == (sources[entry.run].model, sources[entry.run].task)
    }
    return tuple(
        Loss(sources[run], form, split, home[run, split, "as found"], metric)
        for (run, split, form), metric in home.items()
        if form != "as found" and (run, split, "as found") in home
    )


def matrix(transfer: Transfer) -> Matrix:
    """Found prompts by targets, each in the form that keeps most of it: as found, if it can be."""
    grouped = _rows(transfer.sources)
    columns = _columns(transfer)
    cells = tuple(
        tuple(_cell(transfer, sources, column.target) for column in columns)
        for sources in grouped.values()
    )
    return Matrix(tuple(grouped), columns, cells)


def titles(sources: Sequence[Source]) -> dict[str, str]:
    """What to call the method of each run: of task, model and budget those that differ."""
    several = [
        name
        for name in ("task", "model", "budget_rows")
        if len({getattr(source, name) for source in sources}) > 1
    ]
    found, models = {}, _short(source.model for source in sources)
    for source in sources:
        parts = {
            "task": source.task,
            "model": models[source.model],
            "budget_rows": f"{source.budget_rows:,} rows",
        }
        found[source.run] = ", ".join([*(parts[name] for name in several), source.optimiser])
    return found


def _rows(sources: Sequence[Source]) -> dict[Row, list[Source]]:
    """Sources by row."""
    named = titles(sources)
    rows: dict[Row, list[Source]] = {}
    for one in sources:
        row = Row(one.task, one.model, one.budget_rows, one.optimiser, named[one.run])
        rows.setdefault(row, []).append(one)
    return rows


def _short(models: Iterable[str]) -> dict[str, str]:
    """Models by the last parts of their paths, where that tells them apart."""
    names = {name: PurePath(name).name for name in models}
    return names if len(set(names.values())) == len(names) else {name: name for name in names}


def _columns(transfer: Transfer) -> tuple[Column, ...]:
    names = _short(target.model for target in transfer.targets)
    of_study = {model.name for model in transfer.models if model.of_study}
    several = len({target.metric for target in transfer.targets if target.metric}) > 1
    titles = [
        f"{names[one.model]}: {one.task}" + (f", {one.metric}" if several and one.metric else "")
        for one in transfer.targets
    ]
    return tuple(
        Column(target, title, target.model in of_study)
        for target, title in zip(transfer.targets, titles, strict=True)
    )


def _cell(transfer: Transfer, sources: Sequence[Source], target: Target) -> Cell | Failure | None:
    if target.problem:
        return Failure(target.problem)
    runs = {source.run for source in sources}
    here = [
        entry
        for entry in transfer.entries
        if entry.run in runs
        and (entry.model, entry.task, entry.split) == (target.model, target.task, target.split)
    ]
    if not here:
        return None
    form = _best_form(here)
    chosen = [entry for entry in here if entry.form == form]
    scores = [entry.score.metric for entry in chosen if entry.score]
    failed = [entry for entry in chosen if not entry.score]
    if not scores:
        return Failure(failed[0].problem)
    notes = dict.fromkeys(note for entry in chosen for note in entry.notes)
    if failed:
        many = f"{len(failed)} of {len(chosen)} prompts"
        notes[f"{many} could not be scored: {failed[0].problem}"] = None
    low, high, over = _interval(scores, target)
    return Cell(
        mean=float(np.mean(scores)),
        low=low,
        high=high,
        over=over,
        empty=target.controls["empty"].metric,
        form=form,
        notes=tuple(notes),
    )


def _best_form(entries: Sequence[TransferEntry]) -> Form:
    """The first form in which some prompt could be scored, or else the first that was tried."""
    forms: tuple[Form, ...] = ("as found", "by text", "nearest tokens")
    scored = {entry.form for entry in entries if entry.score}
    tried = scored or {entry.form for entry in entries}
    return next(form for form in forms if form in tried)


def _interval(
    scores: Sequence[float], target: Target
) -> tuple[float | None, float | None, Literal["seeds", "examples", ""]]:
    """The interval of a mean over seeds; of one prompt's accuracy, that of a share."""
    if len(scores) > 1:
        values = np.array(scores)
        scale = target.metric_range or range_of(target.metric)
        summary = summarise(values, shares=are_shares(values, scale))
        return summary.low, summary.high, "seeds"
    if target.metric in COUNTED:
        low, high = share_interval(round(scores[0] * target.examples), target.examples)
        return low, high, "examples"
    return None, None, ""


def missing_models(transfer: Transfer) -> dict[str, str]:
    """The models that could not be had, and why."""
    there = {model.name for model in transfer.models}
    return {
        target.model: target.problem for target in transfer.targets if target.model not in there
    }
