"""From a file to experiments: tasks on their splits, models, and methods with their settings."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import pydantic

from rlprompt._utils.assets import AssetError
from rlprompt._utils.suggest import reason
from rlprompt._utils.text import visible
from rlprompt.config.problems import config_from_json
from rlprompt.config.registry import import_task, load, make_optimiser, make_task, settings_of
from rlprompt.config.schema import (
    OWN,
    Config,
    ModelConfig,
    OptimiserConfig,
    PromptConfig,
)
from rlprompt.config.tasks import (
    TAGS,
    ImportedTaskConfig,
    NamedTaskConfig,
    TaskConfig,
    hand_prompts,
    parse_task,
)
from rlprompt.config.titles import titles
from rlprompt.export.export import export_prompt, task_title
from rlprompt.export.facts import same_weights
from rlprompt.export.folder import ExportedPrompt, load_prompt
from rlprompt.models.fingerprint import loading, told_by_server
from rlprompt.models.lm import FrozenLM
from rlprompt.models.pool import ModelPool, PooledLM
from rlprompt.models.served.access import ACCESS
from rlprompt.models.served.bill import Prices
from rlprompt.models.served.lm import ServedLM
from rlprompt.prompt import Length, Prompt, SoftPrompt, TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.optimiser import Optimiser
from rlprompt.search.result import SOFT_MARK, Result
from rlprompt.search.selection import Selection
from rlprompt.store.store import Store, StoredRun
from rlprompt.studies.controls import written_by_hand
from rlprompt.studies.experiment import Experiment, check_draws
from rlprompt.studies.references import Reference, make_reference
from rlprompt.tasks.base import Task
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.tasks.fitting import fitted
from rlprompt.tasks.label_search import with_found_words


def load_experiments(
    config: Config,
    dtypes: Sequence[str] = (),
    pool: ModelPool | None = None,
    begun: Collection[str] = (),
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
        begun: Names of the runs of a study that goes on, whose methods keep their titles.

    Raises:
        ValueError: Something in it is wrong.
        AssetError: Bundled data or a model could not be fetched.
    """
    named = zip(titles(config.references), config.references, strict=True)
    references = {title: make_reference(one.name, one.settings) for title, one in named}
    optimisers, own = dict[str, Optimiser[Any]](), dict[str, PromptConfig]()
    for title, one in config.titled(begun).items():
        settings, prompt = own_prompt(one, config.prompt)
        optimisers[title] = made = make_optimiser(one.name, settings)
        if config.prompt.kind not in (None, made.searches):
            raise ValueError(
                f"{title} searches prompts of the kind {made.searches}, and the experiment "
                f"asks for the kind {config.prompt.kind}; use methods that search that, or leave "
                "`kind` out, so that each method searches its own"
            )
        if prompt != config.prompt:
            own[title] = prompt
    chosen = config.selection.model_dump(exclude_none=True) if config.selection else {}
    selection = Selection(**chosen)
    tasks, at_most = _loaded(config), longest(config)
    pool, experiments = pool or ModelPool(), []
    for i, (model, section) in enumerate(config.all_models):
        dtype = dtypes[i] if dtypes else config.dtype
        if section.url:  # takes no memory
            lm = load_model(section, config.device, dtype)
            lm.name = lm.name if model == section.url else model
        else:
            lm = PooledLM(model, partial(load_model, section, config.device), dtype, pool)
        for loaded in tasks:
            task = settle(loaded.section, loaded.task, lm, at_most)
            for budget in config.all_budgets:
                with _naming(config, f"{loaded.heading}, {model}, {budget} rows"):
                    experiment = _make_experiment(
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
    tasks = [
        _Loaded(title, section, load_task(section), split)
        for (split, _, section), title in zip(
            config.split_tasks, cycle(config.task_titles), strict=False
        )
    ]
    check_draws((one.title, one.split_seed, one.task) for one in tasks if one.title)
    return tasks


def _make_experiment(
    config: Config,
    optimisers: Mapping[str, Optimiser[Any]],
    own: Mapping[str, PromptConfig],
    references: Mapping[str, Reference],
    selection: Selection,
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
        **search_settings(config.prompt, lm),
        own={title: search_settings(prompt, lm) for title, prompt in own.items()},
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
    made = load("optimiser", one.name)
    of_class = settings_of(made)
    apart = {key: one.settings[key] for key in OWN if key in one.settings and key not in of_class}
    if "tokens" in apart and getattr(made, "searches", "") == "text":
        raise ValueError(
            f"optimiser {one.name}: tokens says what token prompts are made of, and it searches "
            "texts; leave it out"
        )
    settings = {key: value for key, value in one.settings.items() if key not in apart}
    try:
        return settings, PromptConfig.model_validate({**prompt.model_dump(), **apart})
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in TAGS)
        raise ValueError(f"optimiser {one.name}: {place}: {reason(first)}") from None


def longest(config: Config) -> int:
    """Tokens of the longest prompt that any optimiser of a config may propose.

    All tasks of a study leave room for it, and so must whoever makes one of them again.

    Raises:
        ValueError: There is no such method, or a value is not allowed.
    """
    asked = (one for one in config.optimisers if "length" in one.settings)
    prompts = (config.prompt, *(own_prompt(one, config.prompt)[1] for one in asked))
    return max(Length.of(prompt.lengths).at_most for prompt in prompts)


def search_settings(prompt: PromptConfig, lm: FrozenLM) -> dict[str, Any]:
    """The `length`, `start` and `tokens` of a section, with prompts found elsewhere read."""
    starts = [_found(s["found"], lm) if isinstance(s, Mapping) else s for s in prompt.start]
    return {"length": prompt.lengths, "start": tuple(starts), "tokens": prompt.tokens}


def _found(folder: str, lm: FrozenLM) -> Prompt:
    """An exported prompt: its vectors, or its tokens, typed again where the tokenizer differs.

    Raises:
        ValueError: It is none, or has vectors of another model.
    """
    exported = load_prompt(folder)
    there, facts = exported.prompt, exported.facts
    if isinstance(there, SoftPrompt) and not same_weights(facts.model, lm):
        here = lm.fingerprint.dtype
        told = "" if lm.served or here == facts.model.dtype else f" as far as {here} tells"
        near = visible(repr(facts.text.removeprefix(SOFT_MARK)))
        raise ValueError(
            f"the start {{found: {folder}}} is vectors of {facts.model.model}, and {lm.name} has "
            f"other weights{told}, to which they mean nothing; give an exported prompt of tokens, "
            f"or a text, such as that of their nearest tokens: {near}"
        )
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
    by_hand = {"hand_prompt": "".join(hand_prompts(section)[:1])}
    settings = {**dict(section), **by_hand, "labels": section.aliases}
    if section.label_words == "auto":
        settings["label_words"] = {label: label for label in section.classes}
    task: Task = ClassificationTask.from_file(**settings)
    return task


def settle(section: TaskConfig, task: Task, lm: FrozenLM, length: int) -> Task:
    """The task for a model: with examples that fit it, and label words of its finding if asked for.

    Args:
        section: What a config says of the task.
        task: As `load_task` gives it.
        lm: The model.
        length: Tokens of the longest prompt of a search, `longest(config)`.

    Raises:
        ValueError: The hand prompt cannot be made, an example does not fit, or no label words are
            found.
    """
    written_by_hand(task, lm)  # first, for where that fails it says which prompt it was
    task = fitted(task, lm, length)
    if getattr(section, "label_words", None) == "auto":
        task = with_found_words(task, lm)
    by_hand = written_by_hand(task, lm, hand_prompts(section)[1:])
    return fitted(task, lm, length, list(by_hand.values()))


def model_found_on(
    store: Store, fingerprint: Mapping[str, str], place: str | None = None, device: str = "auto"
) -> FrozenLM:
    """The model of a study's result; a served one is reached as the experiment says.

    What a server was paid for in the study is not asked again.

    Args:
        store: The study's.
        fingerprint: Of the model, as a `Result` has it.
        place: Where the model is now, a path or an address; None for where it was.
        device: As for `FrozenLM.load`.

    Raises:
        ValueError: It cannot be had.
    """
    if not (told := told_by_server(fingerprint)):
        return FrozenLM.load(place or fingerprint["model"], device=device, **loading(fingerprint))
    section, config = ModelConfig(url=told["url"]), store.spec.get("config")
    for _, one in config_from_json(config).all_models if config else ():
        if one.url == section.url and one.name in ("", fingerprint["model"]):
            section = one
    there = {"name": fingerprint["model"], "url": place or section.url}
    lm = load_model(section.model_copy(update=there), device, "auto")
    if isinstance(lm, ServedLM):
        lm.keep_answers(store.requests.looked_up())
    return lm


def write_best(
    store: Store, run: StoredRun, folder: Path, lm: FrozenLM
) -> tuple[ExportedPrompt, str]:
    """Export the picked prompt of a finished run; also why its task cannot be had, or ""."""
    assert run.result is not None
    task, problem = _task_of(store, run, run.result, lm)
    return export_prompt(run.result, folder, lm, task, run=run.name), problem


def task_titles(store: Store) -> list[str]:
    """What a study calls its tasks, in order, as far as its file names them; see `pick_run`."""
    with contextlib.suppress(ValueError):  # of a file that is none any more
        if config := store.spec.get("config"):
            return list(filter(None, config_from_json(config).task_titles))
    return []


def _task_of(store: Store, run: StoredRun, result: Result, lm: FrozenLM) -> tuple[Task | None, str]:
    """The task of a run, or None and why it cannot be had."""
    config = store.spec.get("config")
    if not config:
        return None, "the study was not made from an experiment file"
    called = task_title(run, result, task_titles(store))
    problem = f"task {called} has changed since the prompt was found"
    try:
        made = config_from_json(config)
        at_most = longest(made)
    except ValueError as error:
        return None, f"task {called} cannot be loaded ({error})"
    # A task is known by its content, which others may have; by its name alone it is not.
    splits, parts = made.split_tasks, run.name.split("/")
    own = [
        called in (title, section.name) and (seed is None or f"split-{seed}" in parts)
        for seed, title, section in splits
    ]
    for (_, _, section), is_own in sorted(zip(splits, own, strict=True), key=lambda x: not x[1]):
        try:
            task = settle(section, load_task(section), lm, at_most)
        except (ValueError, OSError, AssetError) as error:
            if is_own or not any(own):
                problem = f"task {called} cannot be loaded ({error})"
            continue
        if task.fingerprint == result.task_fingerprint:
            return task, ""
    return None, problem


def load_model(section: ModelConfig, device: str, dtype: str) -> FrozenLM:
    """The model of a config.

    Raises:
        ValueError: Its name leads nowhere, or device, dtype or how to load it cannot be had.
        AssetError: The bundled model could not be fetched.
    """
    if section.url:
        told = section.prices
        prices = None if told is None else Prices(told.input, told.output)
        access = {key: getattr(section, key) for key in ACCESS}
        return ServedLM.connect(section.url, section.name, prices=prices, **access)
    return FrozenLM.load(
        section.name, device=device, dtype=dtype, revision=section.revision, load=section.load
    )
