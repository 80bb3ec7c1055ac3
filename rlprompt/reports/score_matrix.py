"""The scores of one model's searches at one budget, as the statistics want them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from rlprompt._utils.text import slugs
from rlprompt.reports.study_data import RunData, StudyData
from rlprompt.statistics.nested import are_shares
from rlprompt.statistics.summaries import MeanInterval, share_interval, summarise
from rlprompt.store.summary import (
    HAND,
    ControlEntry,
    ReferenceEntry,
    ScoredEntry,
    TaskEntry,
    control_title,
    hand_name,
)
from rlprompt.types import Floats

Entry = TypeVar("Entry")

# What a mean of scores may be beyond their range.
ROUNDING = 1e-9
# What the best of several hand-written prompts is called.
BEST_HAND = f"best {HAND}"


class ScoreMatrix:
    """The scores of one model's searches at one budget.

    Args:
        study: The study, examined.
        model: Whose runs.
        budget: Of how many rows.
        key: Tells its tables from those of other sections.
    """

    def __init__(self, study: StudyData, model: str, budget: int, key: str) -> None:
        self.study, self.model, self.budget, self.key = study, model, budget, key
        summary = study.summary
        self.runs = study.section(model, budget)
        controls = [one for one in summary.controls if one.model == model]
        self.controls = [*controls, *_best_by_hand(controls)]
        self.references = [one for one in summary.references if one.model == model]
        there = {one.task for one in (*(run.entry for run in self.runs), *self.controls)}
        self.tasks = [task.of_model(model) for task in summary.tasks if task.name in there]
        begun = {run.entry.optimiser for run in self.runs}
        self.methods = [name for name in summary.optimisers if name in begun]
        self.seeds = sorted({run.entry.seed for run in self.runs})
        scored = (*(run.entry for run in self.runs), *self.controls)
        self.split_seeds = tuple(dict.fromkeys(one.split_seed for one in scored))
        self._slugs = slugs((task.name for task in self.tasks), key)

    @property
    def rivals(self) -> list[str]:
        """Controls to hold searches against: of several hand-written prompts the best."""
        names = dict.fromkeys(one.name for one in self.controls)
        return [one for one in names if BEST_HAND not in names or not one.startswith(HAND)]

    def name(self, kind: str, task: str = "") -> str:
        """What a table or plot of this section is called among all of the page."""
        # No slug has a dot in it, so no two such names are alike.
        return ".".join(filter(None, [self._slugs[task] if task else self.key, kind]))

    def of(self, method: str, task: str) -> list[RunData]:
        """The runs of a method on a task that count."""
        return [
            run
            for run in self.runs
            if (run.entry.optimiser, run.entry.task) == (method, task) and run.counts
        ]

    def scores(self, method: str, tasks: Sequence[TaskEntry], split: str = "test") -> Floats:
        """(splits, seeds, tasks) of the metric, NaN where there is none that counts."""
        scores = np.full((len(self.split_seeds), len(self.seeds), len(tasks)), np.nan)
        for column, task in enumerate(tasks):
            for run in self.of(method, task.name):
                value = run.score(split)
                if value is not None:
                    row = self.split_seeds.index(run.entry.split_seed)
                    scores[row, self.seeds.index(run.entry.seed), column] = value
        return scores

    def draws(self, tasks: Sequence[TaskEntry]) -> list[str]:
        """(tasks,) names, the same for tasks whose searches share what a seed draws."""
        first: dict[str, str] = {}
        for task in tasks:
            own = [one.draw for one in task.splits if one.draw]
            met = [first[draw] for draw in own if draw in first]
            name = next(iter(met), task.name)
            # Tasks that had nothing in common may each share a draw with this one.
            first = {one: name if known in met else known for one, known in first.items()}
            first |= {task.name: name, **dict.fromkeys(own, name)}
        return [first[task.name] for task in tasks]

    @property
    def nested(self) -> bool:
        """Whether its runs are on several draws of the examples."""
        return len(self.split_seeds) > 1

    @property
    def unit(self) -> str:
        """What varies independently, in a word."""
        return "split" if self.nested else "seed"

    @property
    def n_units(self) -> int:
        """Splits of the runs that count, or seeds where there is one split."""
        counting = [run.entry for run in self.runs if run.counts]
        return len({one.split_seed if self.nested else one.seed for one in counting})

    @property
    def tested(self) -> list[TaskEntry]:
        """Tasks on which a run that counts has a test figure."""
        return [
            task
            for task in self.tasks
            if any(not np.isnan(self.scores(name, [task])).all() for name in self.methods)
        ]

    @property
    def compared(self) -> list[TaskEntry]:
        """Tasks on which every method with a test figure has one, so that their means compare."""
        return [
            task
            for task in self.tested
            if not any(np.isnan(self.scores(name, [task])).all() for name in self.scored)
        ]

    @property
    def shares_a_scale(self) -> bool:
        """Whether a mean over its tasks means something: one task, or scores of one known range."""
        if len(self.tested) <= 1:
            return True
        scale, *others = {task.scale for task in self.tested}
        if scale is None or others:
            return False
        # Of what there is: runs may be missing or failed, all of them too.
        every = [np.ravel(self.scores(name, self.tested)) for name in self.methods]
        low, high = scale[0] - ROUNDING, scale[1] + ROUNDING
        return not any(((one < low) | (one > high)).any() for one in every)

    def summary(self, task: TaskEntry, scores: Floats) -> MeanInterval | None:
        """Mean and interval of (splits, runs) of the metric; None where all are NaN."""
        if np.isnan(scores).all():
            return None
        return summarise(scores, shares=are_shares(scores, task.scale))

    def control(self, name: str, tasks: Sequence[TaskEntry]) -> Floats:
        """(splits, tasks) of a control's test score, NaN where it has none."""
        scores = np.full((len(self.split_seeds), len(tasks)), np.nan)
        names = [task.name for task in tasks]
        for one in self.controls:
            if one.name == name and one.task in names and one.test is not None:
                row = self.split_seeds.index(one.split_seed)
                scores[row, names.index(one.task)] = one.test
        return scores

    def controls_of(self, task: str) -> dict[str, list[ControlEntry]]:
        """Controls of a task by name, an entry a split."""
        return _grouped((one.name, one) for one in self.controls if one.task == task)

    def by_split(
        self, entries: Iterable[ScoredEntry], split: str = "test", *, rewards: bool = False
    ) -> Floats:
        """(splits, entries of one) of the metric, or of rewards; NaN where there is none."""
        rows: dict[int | None, list[float]] = {seed: [] for seed in self.split_seeds}
        for one in entries:
            value = one.rewards.get(split) if rewards else getattr(one, split)
            rows.setdefault(one.split_seed, []).append(np.nan if value is None else value)
        width = max(map(len, rows.values()), default=0)
        return np.array([[*row, *[np.nan] * (width - len(row))] for row in rows.values()])

    def mean(self, entries: Iterable[ScoredEntry]) -> float | None:
        """Mean over splits of the means on test over the entries of each; None where is none."""
        return known_mean(self.by_split(entries))

    def trained(self, task: str) -> dict[str, list[ReferenceEntry]]:
        """Trained models of a task by title, an entry a seed: of one kind there may be several."""
        return _grouped((one.title, one) for one in self.references if one.task == task)

    @property
    def scored(self) -> list[str]:
        """Methods that have a test figure."""
        return [name for name in self.methods if not np.isnan(self.scores(name, self.tasks)).all()]


def _grouped(named: Iterable[tuple[str, Entry]]) -> dict[str, list[Entry]]:
    """What goes by each name, in order."""
    found: dict[str, list[Entry]] = {}
    for name, one in named:
        found.setdefault(name, []).append(one)
    return found


def _best_by_hand(controls: Sequence[ControlEntry]) -> Iterator[ControlEntry]:
    """Of several hand-written prompts the best on train and dev, on each split of each task.

    They were fitted to neither, and test decides nothing.
    """
    places: dict[tuple[str, int | None], list[ControlEntry]] = {}
    for one in controls:
        if one.name.startswith(HAND):
            places.setdefault((one.task, one.split_seed), []).append(one)
    if not any(one.name == hand_name(2) for one in controls):
        return
    for own in places.values():
        best = max(own, key=_without_test)
        title = control_title(best.name)
        note = f"the best of {len(own)} hand-written prompts on train and dev, {title}"
        where = "" if best.split_seed is None else f" on split {best.split_seed}"
        yield best.model_copy(update={"name": BEST_HAND, "rows": 0, "note": f"{note}{where}"})


def _without_test(one: ControlEntry) -> float:
    """Mean over train and dev, minus infinity where neither is known."""
    mean = mean_of((one.train, one.dev))
    return -np.inf if mean is None else mean


def wilson(metrics: Sequence[float]) -> tuple[float | None, float | None]:
    """The interval of one prompt's share of right answers; none for other metrics."""
    if not metrics or not set(metrics) <= {0.0, 1.0}:
        return None, None
    return share_interval(round(sum(metrics)), len(metrics))


def known_mean(values: Floats) -> float | None:
    """Mean over splits of (splits, runs), NaN left out; None where there is nothing else."""
    return None if np.isnan(values).all() else summarise(values).mean


def mean_of(values: Iterable[float | None]) -> float | None:
    """Of those that are there."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def generator() -> np.random.Generator:
    """The same for each figure, so that it does not depend on those before it."""
    return np.random.default_rng(0)
