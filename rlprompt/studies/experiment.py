"""What is compared: searches of one task and model at one budget, or a grid of those.

An `Experiment` is loaded and checked: whatever can be wrong with it is found before the first row
is paid for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import cycle
from pathlib import PurePath
from typing import Any

import numpy as np
import pydantic

from rlprompt._utils.suggest import reason
from rlprompt._utils.text import file_part
from rlprompt.config.registry import import_task, load, make_optimiser, make_task, settings_of
from rlprompt.config.schema import OWN, Config, ModelConfig, OptimiserConfig, PromptConfig
from rlprompt.config.tasks import (
    TAGS,
    ImportedTaskConfig,
    NamedTaskConfig,
    TaskConfig,
    hand_prompts,
    parse_task,
)
from rlprompt.export.folder import load_prompt
from rlprompt.models.lm import FrozenLM
from rlprompt.models.pool import ModelPool, PooledLM
from rlprompt.prompt import Length, Pool, Prompt, Start, TokenPrompt, checked_starts
from rlprompt.search.budget import Budget
from rlprompt.search.optimiser import Optimiser, make_space
from rlprompt.search.selection import Selection
from rlprompt.studies.controls import ControlPlan, plan_controls
from rlprompt.studies.references import Reference, check_references, make_reference
from rlprompt.studies.study import PlannedSearch
from rlprompt.tasks.base import Task, as_task, prompt_rows
from rlprompt.tasks.classification import ClassificationTask
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
        start: What searches begin with; see `search`.
        tokens: What token prompts are made of; see `search`.
        own: Of an optimiser, by name, the `length`, `start` and `tokens` that it has instead.
        controls: Prompts of one's own to score beside those of every study (`ControlPlan`), by
            name; outside the budget.
        config: Where it came from, for the record.
        task_title: What the task is called beside others, if not by its own name.
        references: Training to compare with, by the names that reports use; once with each seed.
        hand_prompts: Prompts written by hand beside the task's own, controls as that is.
        split_seed: Which draw of the examples it is on, beside others of the same task; None for
            the only one.
        selection: How each search picks its prompt on dev; None for `Selection()`, or, where the
            study was begun before, as it was begun.

    Raises:
        ValueError: There is nothing to run, the budget does not cover one prompt, no token is
            allowed, a start is none here, or an example is too long for the model.
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
    selection: Selection | None = None

    def __post_init__(self) -> None:
        """Find what is wrong while nothing is paid for."""
        object.__setattr__(self, "task", as_task(self.task))
        if not self.optimisers or not self.seeds:
            raise ValueError("nothing to run: give one optimiser and one seed or more")
        slugs = [file_part(name) for name in self.optimisers]
        if len(set(slugs)) < len(slugs):
            raise ValueError(f"names of optimisers differ too little for files: {slugs}")
        check_references(self.references, self.task, self.lm)
        self.control_plans  # noqa: B018  # while the model is in memory
        self.budget.check_covers(self.task)
        self._check_spaces()
        soft = [name for name, one in self.optimisers.items() if one.searches == "soft"]
        if soft and self.task.tokens_only:
            raise ValueError(
                f"task {self.task.name!r} reads the text of a prompt, and the vectors that "
                f"{', '.join(soft)} would search have none; use methods that search tokens"
            )
        needed = [prompt for p in self.control_plans if p.required for prompt in p.prompts]
        longest = [Length.of(self.space(name)["length"]).at_most for name in self.optimisers]
        _check_lengths(self.task, self.lm, max(*longest, *map(len, needed)))

    def space(self, optimiser: str) -> dict[str, Any]:
        """Where an optimiser looks: `length`, `banned`, `start` and `tokens` of `search`."""
        names = ("length", "banned", "start", "tokens")
        return {**{name: getattr(self, name) for name in names}, **self.own.get(optimiser, {})}

    def _check_spaces(self) -> None:
        """Refuse a space without tokens, or a start that is none there."""
        checked = list[tuple[str, dict[str, Any]]]()
        for name, optimiser in self.optimisers.items():
            settings = self.space(name)
            usual = checked_starts(settings["start"]) == ("vocabulary",)
            asked = (optimiser.searches, settings)
            if asked in checked or (optimiser.searches == "soft" and usual):
                continue
            checked.append(asked)
            rng = np.random.default_rng(0)
            try:
                make_space(optimiser.searches, self.lm, rng=rng, task=self.task, **settings)
            except ValueError as error:
                raise ValueError(f"{name}: {error}" if name in self.own else str(error)) from error

    @property
    def task_name(self) -> str:
        """What the task is called."""
        return self.task_title or self.task.name

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


def searches(experiments: Sequence[Experiment]) -> dict[str, PlannedSearch]:
    """The searches of several experiments by name, in order.

    A name is the optimiser's with the seed. Before it stands what tells the experiments apart: of
    task, model and budget those that differ, and the split where it has a seed.

    Raises:
        ValueError: There is no experiment, two of the same task, split, model and budget, two tasks
            or models of one name, or two splits of the same examples.
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
    tasks: dict[str, str] = {}
    models: dict[str, str] = {}
    examples: dict[str, str] = {}
    for experiment in experiments:
        task, lm = experiment.task, experiment.lm
        content = f"{task.fingerprint} {task.splits.digest}"
        # Label words that a model finds are its own.
        place = f"{experiment.task_name} {experiment.split_seed} {lm.name}"
        if tasks.setdefault(place, content) != content:
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
        _short([experiment.lm.name for experiment in experiments]),
        [f"{experiment.budget.rows} rows" for experiment in experiments],
    )
    differing = [column for column in columns if len(set(column)) > 1 or column is splits]
    return [tuple(filter(None, (c[i] for c in differing))) for i in range(len(experiments))]


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
    optimisers, own = dict[str, Optimiser[Any]](), dict[str, PromptConfig]()
    for one in config.optimisers:
        settings, prompt = own_prompt(one, config.prompt)
        optimisers[one.title] = make_optimiser(one.name, settings)
        if prompt != config.prompt:
            own[one.title] = prompt
    selection = None
    if config.selection is not None:
        selection = Selection(**config.selection.model_dump(exclude_none=True))
    tasks = _loaded(config)
    pool, experiments = pool or ModelPool(), []
    for i, (model, section) in enumerate(config.all_models):
        dtype = dtypes[i] if dtypes else config.dtype
        lm = PooledLM(model, partial(load_model, section, config.device), dtype, pool)
        for loaded in tasks:
            task = settle(loaded.section, loaded.task, lm)
            for budget in config.all_budgets:
                with _naming(config, f"{loaded.heading}, {model}, {budget} rows"):
                    experiment = _load_cell(
                        config,
                        optimisers,
                        own,
                        references,
                        selection,
                        replace(loaded, task=task),
                        lm,
                        budget,
                    )
                    experiments.append(experiment)
    return experiments


@dataclass(frozen=True)
class _Loaded:
    """A task of a config on one split.

    Attributes:
        title: What it is called, "" for its own name.
        section: What the config says of it.
        task: The task.
        split_seed: Of its examples; None for the only ones.
    """

    title: str
    section: TaskConfig
    task: Task
    split_seed: int | None

    @property
    def heading(self) -> str:
        """How to call it in a sentence."""
        split = "" if self.split_seed is None else f", split {self.split_seed}"
        return f"{self.title or self.task.name}{split}"


def _loaded(config: Config) -> list[_Loaded]:
    """The tasks of a config, all of a split together, so that a study is broad before it is deep.

    Raises:
        ValueError: Two splits of a task have the same examples, or something else is wrong.
    """
    own_names = [title or section.name for title, section in config.all_tasks]
    tasks = [
        _Loaded(title or (name if split is not None else ""), section, load_task(section), split)
        for (split, title, section), name in zip(config.split_tasks, cycle(own_names), strict=False)
    ]
    check_draws((one.title, one.split_seed, one.task) for one in tasks if one.title)
    return tasks


def _load_cell(
    config: Config,
    optimisers: Mapping[str, Optimiser[Any]],
    own: Mapping[str, PromptConfig],
    references: Mapping[str, Reference],
    selection: Selection | None,
    loaded: _Loaded,
    lm: FrozenLM,
    budget: int,
) -> Experiment:
    _, *more_by_hand = hand_prompts(loaded.section) or ("",)
    return Experiment(
        name=config.name,
        task=loaded.task,
        lm=lm,
        optimisers=optimisers,
        budget=Budget(budget, **config.stop.model_dump(exclude_none=True)),
        seeds=config.seeds,
        banned=config.prompt.banned,
        **_searched(config.prompt, lm),
        own={title: _searched(prompt, lm) for title, prompt in own.items()},
        references=references,
        config=config.record,
        task_title=loaded.title,
        hand_prompts=more_by_hand,
        split_seed=loaded.split_seed,
        selection=selection,
    )


def own_prompt(one: OptimiserConfig, prompt: PromptConfig) -> tuple[dict[str, Any], PromptConfig]:
    """An optimiser's own settings, and what it searches for.

    Its `length`, `start` and `tokens` are those of the prompt, unless its class has a setting of
    that name.

    Raises:
        ValueError: There is no such method, or a value is not allowed.
    """
    of_class = settings_of(load("optimiser", one.name))
    apart = {key: one.settings[key] for key in OWN if key in one.settings and key not in of_class}
    settings = {key: value for key, value in one.settings.items() if key not in apart}
    try:
        return settings, PromptConfig.model_validate({**prompt.model_dump(), **apart})
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in TAGS)
        raise ValueError(f"optimiser {one.name}: {place}: {reason(first)}") from None


def _searched(prompt: PromptConfig, lm: FrozenLM) -> dict[str, Any]:
    """The `length`, `start` and `tokens` of a section, with prompts found elsewhere read."""
    starts = [_found(s["found"], lm) if isinstance(s, Mapping) else s for s in prompt.start]
    return {"length": prompt.lengths, "start": tuple(starts), "tokens": prompt.tokens}


def _found(folder: str, lm: FrozenLM) -> Prompt:
    """An exported prompt: its vectors, or its tokens, typed again where the tokenizer differs."""
    exported = load_prompt(folder)
    there, facts = exported.prompt, exported.facts
    if isinstance(there, TokenPrompt) and facts.model.tokenizer != lm.fingerprint.tokenizer:
        return TokenPrompt(lm.encode(facts.text))
    return there


@contextlib.contextmanager
def _naming(config: Config, which: str) -> Iterator[None]:
    """Say in an error which of several experiments it is about."""
    try:
        yield
    except ValueError as error:
        if len(config.split_tasks) * len(config.all_models) * len(config.all_budgets) == 1:
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
        by_hand = dict(zip(("hand_prompt",), hand_prompts(section), strict=False))
        return make_task(section.name, {**section.settings, **by_hand, **inner})
    settings = {**dict(section), "hand_prompt": "".join(hand_prompts(section)[:1])}
    labels = settings.pop("labels")
    if labels:
        settings["label_words"] = {label: label for label in labels}
    task: Task = ClassificationTask.from_file(**settings)
    return task


def settle(section: TaskConfig, task: Task, lm: FrozenLM) -> Task:
    """The task for a model: with label words of the model's finding, if that is asked for."""
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
