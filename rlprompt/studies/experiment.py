"""What is compared: searches of one task and model at one budget, or a grid of those.

An `Experiment` is loaded and checked: whatever can be wrong with it is found before the first row
is paid for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import Any

import numpy as np

from rlprompt._utils.text import file_part
from rlprompt.models.lm import FrozenLM
from rlprompt.models.served.lm import Asked, ServedLM
from rlprompt.prompt import Length, Pool, Start, TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.gradient_pool import check_pool, pool_rows
from rlprompt.search.make_space import make_space
from rlprompt.search.optimiser import Optimiser, check_model, check_space, check_task
from rlprompt.search.selection import Selection
from rlprompt.studies.controls import ControlPlan, plan_controls, written_by_hand
from rlprompt.studies.planned_search import PlannedSearch
from rlprompt.studies.references import Reference, check_references
from rlprompt.tasks.base import Task, prompt_rows
from rlprompt.tasks.completed import as_task
from rlprompt.tasks.fitting import check_room, fitted

# Task, split seed and model, by their names in a study.
Cell = tuple[str, int | None, str]


class ExperimentError(ValueError):
    """The experiment cannot be run as it is. The message says why."""


@dataclass(frozen=True)
class Experiment:
    """Every optimiser with every seed, on one task and model, at one budget.

    >>> from rlprompt.agents import RandomSearch
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> task, lm = ToyTask(), toy_lm()
    >>> methods = {"random": RandomSearch()}
    >>> experiment = Experiment("toys", task, lm, methods, Budget(40), seeds=(0, 1), length=2)
    >>> experiment.grid
    [('random', 0), ('random', 1)]

    Args:
        name: What it is called.
        task: What a prompt is worth.
        lm: The frozen model.
        optimisers: The methods by the names that reports use.
        budget: What each run may spend.
        seeds: Each optimiser runs once with each.
        length: Tokens of a prompt, exactly or in a range; see `search`.
        banned: Ids and words that no prompt of tokens or text and no start may use; see `search`.
        start: What searches begin with; see `search`.
        tokens: What token prompts and random starts are made of; see `search`.
        own: Of an optimiser, by name, the `length`, `start` and `tokens` that it has instead.
        controls: Prompts of one's own to score beside those of every study (`ControlPlan`), by
            name; outside the budget.
        config: Where it came from, for the record.
        task_title: What the task is called beside others, if not by its own name.
        references: Training to compare with, by the names that reports use; once with each seed.
        hand_prompts: Prompts written by hand beside the task's own, controls as that is.
        split_seed: Which draw of the examples it is on, beside others of the same task; None for
            the only one.
        selection: How each search picks its prompt on dev.

    Raises:
        ValueError: There is nothing to run, the budget does not cover one prompt, no token is
            allowed, a start is none here, tokens are to be ranked by a gradient that is not to be
            had, or an example is too long for the model.
    """

    name: str
    task: Task
    lm: FrozenLM
    optimisers: Mapping[str, Optimiser[Any]]
    budget: Budget
    seeds: Sequence[int] = (0,)
    length: int | Length = 5
    banned: Collection[str | int] = ()
    start: Start | Sequence[Start] = "vocabulary"
    tokens: str | Mapping[str, int] | Pool = "all"
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    controls: Mapping[str, TokenPrompt] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    task_title: str = ""
    references: Mapping[str, Reference] = field(default_factory=dict)
    hand_prompts: Sequence[str] = ()
    split_seed: int | None = None
    selection: Selection = field(default_factory=Selection)

    def __post_init__(self) -> None:
        """Find what is wrong while nothing is paid for."""
        object.__setattr__(self, "task", as_task(self.task))
        if not self.optimisers or not self.seeds:
            raise ValueError("nothing to run: give at least one optimiser and one seed")
        slugs = [file_part(name) for name in self.optimisers]
        if len(set(slugs)) < len(slugs):
            raise ValueError(
                f"optimisers would have the same file names ({', '.join(slugs)}); give them names "
                "that differ in letters or digits"
            )
        for optimiser in self.optimisers.values():
            check_model(optimiser, self.lm)
        longest = max(Length.of(self.space(name)["length"]).at_most for name in self.optimisers)
        by_hand = written_by_hand(self.task, self.lm, self.hand_prompts)
        scored = [*self.controls.values(), *by_hand.values()]
        object.__setattr__(self, "task", fitted(self.task, self.lm, longest, scored))
        check_references(self.references, self.task, self.lm)
        if isinstance(self.lm, ServedLM):
            check_asked(self.task, self.lm)
        self.control_plans  # noqa: B018  # while the model is in memory
        self.budget.check_covers(self.task)
        for name, optimiser in self.optimisers.items():
            check_task(optimiser, self.task, name)
        self._check_spaces()
        needed = [prompt for p in self.control_plans if p.required for prompt in p.prompts]
        trained = [getattr(one, "length", 0) for one in self.references.values()]
        check_room(self.task, self.lm, max(longest, *map(len, needed), *trained))

    def space(self, optimiser: str) -> dict[str, Any]:
        """Where an optimiser looks: `length`, `banned`, `start` and `tokens` of `search`."""
        names = ("length", "banned", "start", "tokens")
        return {**{name: getattr(self, name) for name in names}, **self.own.get(optimiser, {})}

    def pool_rows(self, optimiser: str) -> int:
        """Rows of an optimiser's budget that its pool of tokens costs: of a gradient, or 0."""
        searches, pool = self.optimisers[optimiser].searches, self.space(optimiser)["tokens"]
        return pool_rows(searches, Pool.of(pool), self.task)

    def _check_spaces(self) -> None:
        """Refuse a space that cannot be had, a start that is none there, or nothing to show."""
        checked = list[tuple[str, bool, dict[str, Any]]]()
        for name, optimiser in self.optimisers.items():
            settings = self.space(name)
            shows = getattr(optimiser, "needs_demonstrations", False)
            asked = (optimiser.searches, shows, settings)
            if asked in checked:
                continue
            checked.append(asked)
            rng = np.random.default_rng(0)
            try:
                pool, rows = Pool.of(settings["tokens"]), self.budget.rows
                check_pool(optimiser.searches, pool, self.task, self.lm, rows)
                made = make_space(optimiser.searches, self.lm, rng=rng, task=self.task, **settings)
                check_space(optimiser, self.lm, self.task, made)
            except ValueError as error:
                raise ValueError(f"{name}: {error}" if name in self.own else str(error)) from error

    @property
    def task_name(self) -> str:
        """What the task is called."""
        return self.task_title or self.task.name

    @property
    def cell(self) -> Cell:
        """Its task, split and model: what no budget makes a difference to."""
        return (self.task_name, self.split_seed, self.lm.name)

    @cached_property
    def control_plans(self) -> tuple[ControlPlan, ...]:
        """The prompts that no search found, each with what it is scored on."""
        return plan_controls(self.task, self.lm, self.controls, self.hand_prompts)

    @property
    def grid(self) -> list[tuple[str, int]]:
        """Name and seed of each run; all optimisers with the first seed come first."""
        return [(name, seed) for seed in self.seeds for name in self.optimisers]

    @property
    def prompt_rows(self) -> int:
        """Rows that one prompt costs."""
        return prompt_rows(self.task)


def check_asked(task: Task, lm: ServedLM) -> None:
    """Have a task ask a server for all that it needs, up to where something would be sent.

    Raises:
        ValueError: The server cannot be asked for it.
    """
    for asks in (task.rewards, task.measure):
        with contextlib.suppress(Asked):
            asks(lm.unasked(), [TokenPrompt()], task.splits.train[:1])


def searches(experiments: Sequence[Experiment]) -> dict[str, PlannedSearch]:
    """The searches of several experiments by name, in order.

    A name is the optimiser's with the seed. Before it stands what tells the experiments apart: of
    task, model and budget those that differ, and the split where it has a seed.

    Raises:
        ValueError: There is no experiment, two of the same task, split, model and budget, two tasks
            or models of one name, or two splits of the same examples.
    """
    if not experiments:
        raise ValueError("nothing to run: give at least one experiment")
    _tell_apart(experiments)
    found: dict[str, PlannedSearch] = {}
    for parts, experiment in zip(_differences(experiments), experiments, strict=True):
        for optimiser, seed in experiment.grid:
            name = "/".join(file_part(part) for part in (*parts, f"{optimiser}-seed{seed}"))
            if name in found:
                raise ValueError(
                    f"two searches would be called {name}: the same task and model are given "
                    "twice; leave one out"
                )
            found[name] = PlannedSearch(
                task=experiment.task,
                lm=experiment.lm,
                optimiser=experiment.optimisers[optimiser],
                budget=experiment.budget,
                seed=seed,
                **experiment.space(optimiser),
                name=name,
                method=optimiser,
                task_name=experiment.task_name,
                split_seed=experiment.split_seed,
                heading=", ".join(parts),
                selection=experiment.selection,
            )
    return found


def headed(experiments: Sequence[Experiment]) -> dict[str, Experiment]:
    """Experiments by what tells them apart, in order; the only one by ""; else as `searches`."""
    headings = dict.fromkeys(search.heading for search in searches(experiments).values())
    return dict(zip(headings, experiments, strict=True))


def _tell_apart(experiments: Sequence[Experiment]) -> None:
    """Refuse two contents of one name, for reports, and of one fingerprint, for the store."""
    check_draws((one.task_name, one.split_seed, one.task) for one in experiments)
    tasks: dict[Cell, str] = {}
    models: dict[str, str] = {}
    examples: dict[str, str] = {}
    for experiment in experiments:
        task, lm = experiment.task, experiment.lm
        content = f"{task.fingerprint} {task.splits.digest}"
        # Label words that a model finds are its own.
        if tasks.setdefault(experiment.cell, content) != content:
            raise ValueError(
                f"two tasks are called {experiment.task_name}; give each its own name, with a "
                "mapping of names under `tasks:`"
            )
        if models.setdefault(lm.name, lm.fingerprint.digest) != lm.fingerprint.digest:
            raise ValueError(
                f"two models are called {lm.name}; give each its own name, with a mapping of names "
                "under `models:`"
            )
        if examples.setdefault(task.fingerprint, task.splits.digest) != task.splits.digest:
            raise ValueError(
                f"task {experiment.task_name} has the same fingerprint as one with other examples, "
                "so their scores would be mixed up; make its fingerprint a hash of all that "
                "decides a reward, examples included"
            )


def check_draws(tasks: Iterable[tuple[str, int | None, Task]]) -> None:
    """Refuse two splits of a task that have the same examples to learn from.

    Args:
        tasks: Name, split seed and task.

    Raises:
        ValueError: There are such.
    """
    seen: dict[tuple[str, int], int | None] = {}
    for name, seed, task in tasks:
        drawn = (*task.splits.train, *task.splits.dev)
        content = hash(tuple((example.key, example.label) for example in drawn))
        first = seen.setdefault((name, content), seed)
        if first != seed:
            raise ValueError(
                f"{name} has the same examples for the split seeds {first} and {seed}, which would "
                "count twice: name a folder for each with {seed} in `data`, give a file to draw "
                "from, or leave out split_seeds"
            )


def _differences(experiments: Sequence[Experiment]) -> list[tuple[str, ...]]:
    """Of each experiment: its task, split, model and budget, as far as they differ."""
    splits = ["" if one.split_seed is None else f"split {one.split_seed}" for one in experiments]
    columns = (
        [experiment.task_name for experiment in experiments],
        # In names from the first split on, so that others can be added to a study.
        splits,
        short_names([experiment.lm.name for experiment in experiments]),
        [f"{experiment.budget.rows} rows" for experiment in experiments],
    )
    differing = [column for column in columns if len(set(column)) > 1 or column is splits]
    return [tuple(filter(None, (c[i] for c in differing))) for i in range(len(experiments))]


def short_names(models: Sequence[str]) -> list[str]:
    """Models by the last part of their path, if that tells them apart."""
    last = [PurePath(model).name for model in models]
    return last if len(set(last)) == len(set(models)) else list(models)
