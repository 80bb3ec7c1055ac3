"""What is compared: searches of one task and model at one budget, or a grid of those.

An `Experiment` is loaded and checked: whatever can be wrong with it is found before the first row
is paid for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import product
from pathlib import PurePath
from typing import Any

from rlprompt._utils.text import file_part
from rlprompt.config.registry import import_task, make_optimiser, make_task
from rlprompt.config.schema import Config, ModelConfig
from rlprompt.config.tasks import ImportedTaskConfig, NamedTaskConfig, TaskConfig, parse_task
from rlprompt.models.lm import FrozenLM
from rlprompt.models.pool import ModelPool, PooledLM
from rlprompt.prompt import Length, TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.optimiser import Optimiser
from rlprompt.search.space import TokenSpace
from rlprompt.studies.controls import ControlPlan, plan_controls
from rlprompt.studies.references import Reference, check_references, make_reference
from rlprompt.studies.study import PlannedSearch
from rlprompt.tasks.base import Task, as_task, prompt_rows
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.tasks.fitting import fitted
from rlprompt.tasks.label_search import with_found_words


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
        banned: Ids and words that token prompts may not use.
        controls: Prompts of one's own to score beside those of every study (`ControlPlan`), by
            name; outside the budget.
        config: Where it came from, for the record.
        task_title: What the task is called beside others, if not by its own name.
        references: Training to compare with, by the names that reports use; once with each seed.

    Raises:
        ValueError: There is nothing to run, the budget does not cover one prompt, no token is
            allowed, or an example is too long for the model.
    """

    name: str
    task: Task
    lm: FrozenLM
    optimisers: Mapping[str, Optimiser[Any]]
    budget: Budget
    seeds: Sequence[int] = (0,)
    length: int | Length = 5
    banned: Collection[str | int] = ()
    controls: Mapping[str, TokenPrompt] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    task_title: str = ""
    references: Mapping[str, Reference] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find what is wrong while nothing is paid for."""
        object.__setattr__(self, "task", as_task(self.task))
        if not self.optimisers or not self.seeds:
            raise ValueError("nothing to run: give one optimiser and one seed or more")
        slugs = [file_part(name) for name in self.optimisers]
        if len(set(slugs)) < len(slugs):
            raise ValueError(f"names of optimisers differ too little for files: {slugs}")
        own = list(self.controls.values())
        object.__setattr__(self, "task", fitted(self.task, self.lm, self.length, own))
        check_references(self.references, self.task, self.lm)
        self.control_plans  # noqa: B018  # while the model is in memory
        self.budget.check_covers(self.task)
        if any(optimiser.searches == "tokens" for optimiser in self.optimisers.values()):
            TokenSpace.from_lm(self.lm, self.length, self.banned, self.task.tokens(self.lm))
        soft = [name for name, one in self.optimisers.items() if one.searches == "soft"]
        if soft and self.task.tokens_only:
            raise ValueError(
                f"task {self.task.name!r} reads the text of a prompt, and the vectors that "
                f"{', '.join(soft)} would search have none; use methods that search tokens"
            )
        needed = [prompt for p in self.control_plans if p.required for prompt in p.prompts]
        _check_lengths(self.task, self.lm, max(Length.of(self.length).at_most, *map(len, needed)))

    @property
    def task_name(self) -> str:
        """What the task is called."""
        return self.task_title or self.task.name

    @cached_property
    def control_plans(self) -> tuple[ControlPlan, ...]:
        """The prompts that no search found, each with what it is scored on."""
        return plan_controls(self.task, self.lm, self.controls)

    @property
    def grid(self) -> list[tuple[str, int]]:
        """Name and seed of each run; all optimisers with the first seed come first."""
        return [(name, seed) for seed in self.seeds for name in self.optimisers]

    @property
    def prompt_rows(self) -> int:
        """Rows that one prompt costs."""
        return prompt_rows(self.task)


def searches(experiments: Sequence[Experiment]) -> dict[str, PlannedSearch]:
    """The searches of several experiments by name, in order.

    A name is the optimiser's with the seed. Before it stands what tells the experiments apart: of
    task, model and budget those that differ.

    Raises:
        ValueError: There is no experiment, two of the same task, model and budget, or two tasks or
            models of one name.
    """
    if not experiments:
        raise ValueError("nothing to run: give one experiment or more")
    _tell_apart(experiments)
    found: dict[str, PlannedSearch] = {}
    for parts, experiment in zip(_differences(experiments), experiments, strict=True):
        for optimiser, seed in experiment.grid:
            name = "/".join(file_part(part) for part in (*parts, f"{optimiser}-seed{seed}"))
            if name in found:
                raise ValueError(
                    f"two searches would be called {name}; the same task and model are there twice"
                )
            found[name] = PlannedSearch(
                task=experiment.task,
                lm=experiment.lm,
                optimiser=experiment.optimisers[optimiser],
                budget=experiment.budget,
                seed=seed,
                length=experiment.length,
                banned=experiment.banned,
                name=name,
                method=optimiser,
                task_name=experiment.task_name,
                heading=", ".join(parts),
            )
    return found


def headed(experiments: Sequence[Experiment]) -> dict[str, Experiment]:
    """Experiments by what tells them apart, in order; the only one by ""; else as `searches`."""
    headings = dict.fromkeys(search.heading for search in searches(experiments).values())
    return dict(zip(headings, experiments, strict=True))


def _tell_apart(experiments: Sequence[Experiment]) -> None:
    """Refuse two contents of one name, for reports, and of one fingerprint, for the store."""
    tasks: dict[str, str] = {}
    models: dict[str, str] = {}
    examples: dict[str, str] = {}
    for experiment in experiments:
        task, lm = experiment.task, experiment.lm
        content = f"{task.fingerprint} {task.splits.digest}"
        # Label words that a model finds are its own.
        if tasks.setdefault(f"{experiment.task_name} {lm.name}", content) != content:
            raise ValueError(
                f"two tasks are called {experiment.task_name}; call one of them otherwise: "
                "`tasks:` takes a mapping of names as well as a list"
            )
        if models.setdefault(lm.name, lm.fingerprint.digest) != lm.fingerprint.digest:
            raise ValueError(
                f"two models are called {lm.name}; call one of them otherwise: "
                "`models:` takes a mapping of names as well as a list"
            )
        if examples.setdefault(task.fingerprint, task.splits.digest) != task.splits.digest:
            raise ValueError(
                f"task {experiment.task_name} has the fingerprint of another with other examples, "
                "so their scores would be mixed up; a fingerprint is a hash of all that decides a "
                "reward, examples included"
            )


def _differences(experiments: Sequence[Experiment]) -> list[tuple[str, ...]]:
    """Of each experiment: its task, model and budget, as far as they differ."""
    columns = (
        [experiment.task_name for experiment in experiments],
        _short([experiment.lm.name for experiment in experiments]),
        [f"{experiment.budget.rows} rows" for experiment in experiments],
    )
    differing = [column for column in columns if len(set(column)) > 1]
    return [tuple(column[i] for column in differing) for i in range(len(experiments))]


def _short(models: Sequence[str]) -> list[str]:
    """Models by the last part of their path, if that tells them apart."""
    last = [PurePath(model).name for model in models]
    return last if len(set(last)) == len(set(models)) else list(models)


def load_experiments(
    config: Config, dtypes: Sequence[str] = (), pool: ModelPool | None = None
) -> list[Experiment]:
    """What a config describes, loaded: what is quick to check first, the models last.

    >>> import json, tempfile
    >>> from pathlib import Path
    >>> from rlprompt import load_config
    >>> from rlprompt.check import toy_lm
    >>> folder = Path(tempfile.mkdtemp())
    >>> for part in (toy_lm().model, toy_lm().tokenizer):
    ...     _ = part.save_pretrained(folder / "model")
    >>> config = {"name": "toys", "model": str(folder / "model"), "task": "plurals", "budget": 320}
    >>> config |= {"prompt": {"length": 2}, "optimisers": ["random"], "dtype": "float32"}
    >>> _ = (folder / "toys.yaml").write_text(json.dumps(config))  # JSON is YAML
    >>> (experiment,) = load_experiments(load_config(folder / "toys.yaml"))
    >>> experiment.task_name, experiment.budget.rows
    ('plurals', 320)

    Of several models one at a time is in memory, and their experiments follow each other.

    Args:
        config: The grid.
        dtypes: Of each model; empty for the config's.
        pool: Shared with models beside those of the config, if there are any.

    Raises:
        ValueError: Something in it is wrong.
        AssetError: Bundled data or a model could not be fetched.
    """
    references = {one.title: make_reference(one.name, one.settings) for one in config.references}
    optimisers = {
        optimiser.title: make_optimiser(optimiser.name, optimiser.settings)
        for optimiser in config.optimisers
    }
    tasks = [(title, one, load_task(one)) for title, one in config.all_tasks]
    pool, experiments = pool or ModelPool(), []
    for i, (model, section) in enumerate(config.all_models):
        dtype = dtypes[i] if dtypes else config.dtype
        lm = PooledLM(model, partial(load_model, section, config.device), dtype, pool)
        lengths = config.prompt.lengths
        settled = [(title, settle(one, task, lm, lengths)) for title, one, task in tasks]
        for (title, task), budget in product(settled, config.all_budgets):
            with _naming(config, f"{title or task.name}, {model}, {budget} rows"):
                experiment = _load_cell(config, optimisers, references, task, title, lm, budget)
                experiments.append(experiment)
    return experiments


def _load_cell(
    config: Config,
    optimisers: Mapping[str, Optimiser[Any]],
    references: Mapping[str, Reference],
    task: Task,
    title: str,
    lm: FrozenLM,
    budget: int,
) -> Experiment:
    return Experiment(
        name=config.name,
        task=task,
        lm=lm,
        optimisers=optimisers,
        budget=Budget(budget, **config.stop.model_dump(exclude_none=True)),
        seeds=config.seeds,
        length=config.prompt.lengths,
        banned=config.prompt.banned,
        references=references,
        config=config.record,
        task_title=title,
    )


@contextlib.contextmanager
def _naming(config: Config, which: str) -> Iterator[None]:
    """Say in an error which of several experiments it is about."""
    try:
        yield
    except ValueError as error:
        if len(config.all_tasks) * len(config.all_models) * len(config.all_budgets) == 1:
            raise
        raise ValueError(f"{which}: {error}") from error


def load_task(section: TaskConfig) -> Task:
    """The task of a config, with its examples; `settle` makes it ready for a model.

    Raises:
        ValueError: Something in it is wrong.
        AssetError: Bundled data could not be fetched.
    """
    if isinstance(section, ImportedTaskConfig):
        return import_task(section.place, section.args)
    if isinstance(section, NamedTaskConfig):
        # A task of another task, such as compression, has that in a section of its own.
        inner = {k: load_task(parse_task(v)) for k, v in section.settings.items() if k == "task"}
        return make_task(section.name, {**section.settings, **inner})
    settings = dict(section)
    labels = settings.pop("labels")
    if labels:
        settings["label_words"] = {label: label for label in labels}
    task: Task = ClassificationTask.from_file(**settings)
    return task


def settle(section: TaskConfig, task: Task, lm: FrozenLM, length: Length | int) -> Task:
    """The task for a model: with examples that fit it, and label words of its finding if asked for.

    Raises:
        ValueError: An example does not fit, or no label words are found.
    """
    task = fitted(task, lm, length)
    found = getattr(section, "label_words", None) == "auto"
    return with_found_words(task, lm) if found else task


def load_model(section: ModelConfig, device: str, dtype: str) -> FrozenLM:
    """The model of a config.

    Raises:
        ValueError: Its name leads nowhere, or device or dtype cannot be had.
        AssetError: The bundled model could not be fetched.
    """
    return FrozenLM.load(section.name, device=device, dtype=dtype, revision=section.revision)


def _check_lengths(task: Task, lm: FrozenLM, n_prompt: int) -> None:
    """Refuse an example of any split that leaves no room for the prompt.

    Test is scored last; a search must not end there.
    """
    if lm.context is None:
        return
    for split, examples in task.splits.parts().items():
        sizes = task.lengths(lm, examples)
        if sizes is None:
            return
        for example, size in zip(examples, sizes, strict=True):
            n_text, n_answer = size
            if n_text + n_prompt + n_answer > lm.context:
                where = example.source or f"{str(dict(example.fields))[:60]}..."
                raise ValueError(
                    f"the {split} example {where} is too long: {n_text} tokens of text "
                    f"+ {n_prompt} of prompt + {n_answer} of answer, and {lm.name} takes "
                    f"{lm.context}; shorten or remove it, or choose another model"
                )
