"""What is compared, and what came of it: values only, `compare.py` fills them.

An `Experiment` is loaded and checked: whatever can be wrong with it is found before the first row
is paid for. A `Comparison` holds controls and runs so far.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlprompt.config import Config, ImportedTaskConfig, NamedTaskConfig, TaskConfig
from rlprompt.data import Splits
from rlprompt.lm import FrozenLM
from rlprompt.objective import Budget, Objective
from rlprompt.prompt import TokenPrompt
from rlprompt.registry import import_task, make_optimiser, make_task
from rlprompt.result import Candidate, Result, Score
from rlprompt.search import Optimiser
from rlprompt.space import TokenSpace
from rlprompt.task import ClassificationTask, Task, WrittenTask

FORMAT = 1


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
        soft = [name for name, one in self.optimisers.items() if one.searches == "soft"]
        if soft and getattr(self.task, "tokens_only", False):
            raise ValueError(
                f"task {self.task.name!r} reads the text of a prompt, and the vectors that "
                f"{', '.join(soft)} would search have none; use methods that search tokens"
            )
        if isinstance(self.task, ClassificationTask):
            _check_lengths(self.task, self.lm, max(self.length, *map(len, self.controls.values())))

    @property
    def grid(self) -> list[tuple[str, int]]:
        """Name and seed of each run; all optimisers with the first seed come first."""
        return [(name, seed) for seed in self.seeds for name in self.optimisers]


@dataclass(frozen=True)
class Control:
    """A prompt that no search found.

    Attributes:
        name: What it is called.
        text: How it reads.
        retypable: Whether typing the text gives the prompt again.
        scores: By split.
    """

    name: str
    text: str
    retypable: bool
    scores: Mapping[str, Score]


@dataclass(frozen=True)
class Run:
    """One search of the grid.

    Attributes:
        optimiser: Its name in the experiment.
        seed: Its seed.
        result: What it found, in part if its status is not `finished`.
        error: What ended it, in a line, or "".
    """

    optimiser: str
    seed: int
    result: Result
    error: str = ""

    @property
    def slug(self) -> str:
        """What its files are called."""
        return run_name(self.optimiser, self.seed)

    @property
    def best(self) -> Candidate | None:
        """The prompt picked on dev, or None if nothing was scored."""
        return self.result.candidates[0] if self.result.candidates else None

    @property
    def scores(self) -> dict[str, Score | None]:
        """Of the best prompt by split; None where it was not scored."""
        splits = ("train", "dev", "test")
        return {split: getattr(self.best, split) if self.best else None for split in splits}


@dataclass(frozen=True)
class Comparison:
    """Controls and runs so far.

    Attributes:
        experiment: What is compared.
        controls: Its controls.
        runs: Its runs, in the order of its grid.
        provenance: When, where and with what it ran.
    """

    experiment: Experiment
    controls: tuple[Control, ...]
    runs: tuple[Run, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every run of the grid finished."""
        n_finished = sum(run.result.status == "finished" for run in self.runs)
        return n_finished == len(self.experiment.grid)

    def summary(self) -> dict[str, Any]:
        """All but the curves as JSON values; train, dev and test are the task's metric."""
        experiment = self.experiment
        splits: Splits = experiment.task.splits
        fingerprint = experiment.lm.fingerprint
        return {
            "format": FORMAT,
            "name": experiment.name,
            "complete": self.complete,
            "task": experiment.task.name,
            "task_fingerprint": experiment.task.fingerprint,
            "examples": {name: len(part) for name, part in splits.parts().items()},
            "data_notes": list(splits.notes),
            "model": experiment.lm.name,
            "fingerprint": {"digest": fingerprint.digest, **dataclasses.asdict(fingerprint)},
            "device": str(experiment.lm.device),
            "noise": dataclasses.asdict(experiment.lm.own_noise),
            "budget_rows": experiment.budget,
            "controls": [_control_entry(control) for control in self.controls],
            "runs": [_run_entry(run) for run in self.runs],
            "config": dict(experiment.config),
            **self.provenance,
        }


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
    task = load_task(config.task)
    lm = load_model(config)
    controls = {"empty": TokenPrompt()}
    if isinstance(task, WrittenTask) and task.hand_prompt:
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


def load_task(section: TaskConfig) -> Task:
    """The task of a config, with its examples.

    Raises:
        ValueError: Something in it is wrong.
        AssetError: Bundled data could not be fetched.
    """
    if isinstance(section, NamedTaskConfig):
        return make_task(section.name, section.settings)
    if isinstance(section, ImportedTaskConfig):
        return import_task(section.place, section.args)
    return ClassificationTask.from_file(**dict(section))


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


def run_name(optimiser: str, seed: int) -> str:
    """What a search is called in a study, and its files."""
    return f"{slug(optimiser)}-seed{seed}"


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


def _control_entry(control: Control) -> dict[str, Any]:
    return {
        "name": control.name,
        "prompt": control.text,
        "retypable": control.retypable,
        **{split: score.metric for split, score in control.scores.items()},
        "rewards": {split: score.reward for split, score in control.scores.items()},
    }


def _run_entry(run: Run) -> dict[str, Any]:
    result, best = run.result, run.best
    return {
        "optimiser": run.optimiser,
        "seed": run.seed,
        "status": result.status,
        "error": run.error,
        "rows": result.rows,
        "n_prompts": result.n_prompts,
        "lm_seconds": result.lm_seconds,
        "total_seconds": result.total_seconds,
        **{split: score and score.metric for split, score in run.scores.items()},
        "prompt": best.text if best else None,
        "retypable": best.retypable if best else None,
        "rewards": {split: score and score.reward for split, score in run.scores.items()},
        "best_train_reward": result.trace[-1][1] if result.trace else None,
        "mean_sampled_reward": result.mean_reward if result.points else None,
        "settings": dict(result.settings),
        "file": f"runs/{run.slug}.json",
    }
