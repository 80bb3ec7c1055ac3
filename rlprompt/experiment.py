"""What is compared: searches of one task and model at one budget, or a grid of those.

An `Experiment` is loaded and checked: whatever can be wrong with it is found before the first row
is paid for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import PurePath
from typing import Any

from rlprompt.config import Config
from rlprompt.data import load_splits
from rlprompt.lm import FrozenLM
from rlprompt.objective import Budget, Objective
from rlprompt.prompt import TokenPrompt
from rlprompt.registry import make_optimiser
from rlprompt.search import Optimiser, describe
from rlprompt.space import TokenSpace
from rlprompt.task import ClassificationTask, Task
from rlprompt.template import Template


class ExperimentError(ValueError):
    """The experiment cannot be run as it is. The message says why."""


@dataclass(frozen=True)
class Experiment:
    """Every optimiser with every seed, on one task and model, at one budget.

    Args:
        name: What it is called.
        task: What a prompt is worth.
        lm: The frozen model.
        optimisers: The methods by the names that reports use.
        budget: Rows that each run may spend.
        seeds: Each optimiser runs once with each.
        length: Tokens or vectors of a prompt.
        banned: Ids and words that token prompts may not use.
        controls: Prompts that no search found, by name; scored outside the budget.
        config: Where it came from, for the record.
        stop: When a search ends before, fields of `Budget`.

    Raises:
        ValueError: There is nothing to run, the budget does not cover one prompt, no token is
            allowed, or an example is too long for the model.
    """

    name: str
    task: Task
    lm: FrozenLM
    optimisers: Mapping[str, Optimiser]
    budget: int
    seeds: Sequence[int] = (0,)
    length: int = 5
    banned: Collection[str | int] = ()
    controls: Mapping[str, TokenPrompt] = field(default_factory=lambda: {"empty": TokenPrompt()})
    config: Mapping[str, Any] = field(default_factory=dict)
    stop: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find what is wrong while nothing is paid for."""
        if not self.optimisers or not self.seeds:
            raise ValueError("nothing to run: give one optimiser and one seed or more")
        slugs = [slug(name) for name in self.optimisers]
        if len(set(slugs)) < len(slugs):
            raise ValueError(f"names of optimisers differ too little for files: {slugs}")
        Objective(self.task, self.lm, Budget(self.budget, **self.stop))
        if any(optimiser.searches == "tokens" for optimiser in self.optimisers.values()):
            TokenSpace.from_lm(self.lm, self.length, self.banned)
        if isinstance(self.task, ClassificationTask):
            _check_lengths(self.task, self.lm, max(self.length, *map(len, self.controls.values())))
        self.control_texts  # noqa: B018  # while the model is in memory

    @cached_property
    def control_texts(self) -> dict[str, tuple[str, bool]]:
        """How each control reads, and whether typing that gives it again."""
        return {name: describe(self.lm, prompt) for name, prompt in self.controls.items()}

    @property
    def grid(self) -> list[tuple[str, int]]:
        """Name and seed of each run; all optimisers with the first seed come first."""
        return [(name, seed) for seed in self.seeds for name in self.optimisers]


@dataclass(frozen=True)
class Search:
    """One search of a comparison.

    Attributes:
        name: What it is called in a study, and its files.
        experiment: What it is part of.
        optimiser: The method's name in the experiment.
        seed: Its seed.
        heading: What tells its experiment from the others, or "".
    """

    name: str
    experiment: Experiment
    optimiser: str
    seed: int
    heading: str = ""

    @property
    def title(self) -> str:
        """How to call it in a sentence."""
        place = f"{self.heading}: " if self.heading else ""
        return f"{place}{self.optimiser}, seed {self.seed}"


def searches(experiments: Sequence[Experiment]) -> dict[str, Search]:
    """The searches of several experiments by name, in order.

    A name is the optimiser's with the seed. Before it stands what tells the experiments apart: of
    task, model and budget those that differ.

    Raises:
        ValueError: There is no experiment, two of the same task, model and budget, or two tasks or
            models of one name.
    """
    if not experiments:
        raise ValueError("nothing to run: give one experiment or more")
    _tell_apart("tasks", {(e.task.name, _content(e.task)) for e in experiments})
    _tell_apart("models", {(e.lm.name, e.lm.fingerprint.digest) for e in experiments})
    found: dict[str, Search] = {}
    for parts, experiment in zip(_differences(experiments), experiments, strict=True):
        for optimiser, seed in experiment.grid:
            name = "/".join(slug(part) for part in (*parts, f"{optimiser}-seed{seed}"))
            if name in found:
                raise ValueError(f"two searches would be called {name}; their files could not differ")
            found[name] = Search(name, experiment, optimiser, seed, ", ".join(parts))
    return found


def _tell_apart(what: str, named: Set[tuple[str, str]]) -> None:
    """Refuse two contents of one name."""
    names = sorted(name for name, _ in named)
    twice = [name for name, following in pairwise(names) if name == following]
    if twice:
        raise ValueError(f"two {what} are called {twice[0]}; give one of them another name")


def _content(task: Task) -> str:
    return f"{task.fingerprint} {task.splits.digest}"


def _differences(experiments: Sequence[Experiment]) -> list[tuple[str, ...]]:
    """Of each experiment: its task, model and budget, as far as they differ."""
    columns = (
        [experiment.task.name for experiment in experiments],
        _short([experiment.lm.name for experiment in experiments]),
        [f"{experiment.budget} rows" for experiment in experiments],
    )
    differing = [column for column in columns if len(set(column)) > 1]
    return [tuple(column[i] for column in differing) for i in range(len(experiments))]


def _short(models: Sequence[str]) -> list[str]:
    """Models by the last part of their path, if that tells them apart."""
    last = [PurePath(model).name for model in models]
    return last if len(set(last)) == len(set(models)) else list(models)


def load_experiment(config: Config) -> Experiment:
    """What a config describes, loaded: what is quick to check first, the model last.

    Raises:
        ValueError: Something in it is wrong.
        AssetError: Bundled data or model could not be fetched.
    """
    optimisers = {
        optimiser.title: make_optimiser(optimiser.name, optimiser.settings)
        for optimiser in config.optimisers
    }
    task = load_task(config)
    lm = load_model(config)
    controls = {"empty": TokenPrompt()}
    if task.hand_prompt:
        controls["hand-written"] = task.written(lm, task.hand_prompt)
    return Experiment(
        name=config.name,
        task=task,
        lm=lm,
        optimisers=optimisers,
        budget=config.budget,
        stop=config.stop.model_dump(exclude_none=True),
        seeds=config.seeds,
        length=config.prompt.length,
        banned=config.prompt.banned,
        controls=controls,
        config=config.model_dump(mode="json"),
    )


def load_task(config: Config) -> ClassificationTask:
    """The task of a config, with its examples.

    Raises:
        ValueError: Its data or label words are wrong.
        AssetError: Bundled data could not be fetched.
    """
    section = config.task
    template = Template(section.template)
    splits = load_splits(
        section.data,
        list(section.label_words),
        text=template.fields,
        label=section.label,
        shots=section.shots,
        n_test=section.test,
        seed=section.seed,
        on_bad_rows=section.on_bad_rows,
    )
    return ClassificationTask(
        name=section.name,
        splits=splits,
        template=template,
        label_words=section.label_words,
        reward=section.reward,
        hand_prompt=section.hand_prompt,
    )


def load_model(config: Config) -> FrozenLM:
    """The model of a config.

    Raises:
        ValueError: Its name leads nowhere, or device or dtype cannot be had.
        AssetError: The bundled model could not be fetched.
    """
    return FrozenLM.load(
        config.model.name,
        device=config.device,
        dtype=config.dtype,
        revision=config.model.revision,
    )


def slug(name: str) -> str:
    """A name as part of a file name."""
    return "".join(c if c.isalnum() or c in "=.-_" else "-" for c in name)


def _check_lengths(task: ClassificationTask, lm: FrozenLM, n_prompt: int) -> None:
    """Refuse an example of any split that leaves no room for the prompt.

    Test is scored last; a search must not end there.
    """
    if lm.context is None:
        return
    for split, examples in task.splits.parts().items():
        for example, query in zip(examples, task.queries(lm, examples), strict=True):
            n_text = len(query.head_ids) + len(query.tail_ids)
            n_answer = max(map(len, query.candidates)) - 1
            if n_text + n_prompt + n_answer > lm.context:
                where = example.source or f"{str(dict(example.fields))[:60]}..."
                raise ValueError(
                    f"the {split} example {where} is too long: {n_text} tokens of text + "
                    f"{n_prompt} of prompt + {n_answer} of answer, and {lm.name} takes "
                    f"{lm.context}; shorten or remove it, or choose another model"
                )
