"""What came of a comparison: values only, `compare.py` fills them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlprompt.experiment import Experiment, Search
from rlprompt.lm import FrozenLM
from rlprompt.result import Candidate, Result, Score
from rlprompt.task import Task, metric_name

FORMAT = 2


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
    """A search that was begun.

    Attributes:
        search: Which.
        result: What it found, in part if its status is not `finished`.
        error: What ended it, in a line, or "".
    """

    search: Search
    result: Result
    error: str = ""

    @property
    def optimiser(self) -> str:
        """The method's name in the experiment."""
        return self.search.optimiser

    @property
    def seed(self) -> int:
        """Its seed."""
        return self.search.seed

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
class Section:
    """What came of one experiment so far.

    Attributes:
        experiment: What is compared.
        controls: Its controls.
        runs: Its runs, in the order of its grid.
        heading: What tells it from the other sections, or "" for the only one.
    """

    experiment: Experiment
    controls: tuple[Control, ...]
    runs: tuple[Run, ...] = ()
    heading: str = ""


@dataclass(frozen=True)
class Comparison:
    """Controls and runs so far, a section for each task, model and budget.

    Attributes:
        sections: One or more.
        provenance: When, where and with what it ran.
    """

    sections: tuple[Section, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs of all sections."""
        return tuple(run for section in self.sections for run in section.runs)

    @property
    def complete(self) -> bool:
        """Whether every run of the grid finished."""
        n_finished = sum(run.result.status == "finished" for run in self.runs)
        return n_finished == sum(len(section.experiment.grid) for section in self.sections)

    def summary(self) -> dict[str, Any]:
        """All but the curves as JSON values; train, dev and test are the task's metric.

        `controls` and `runs` are tables: each entry names its task, model and budget.
        """
        experiments = [section.experiment for section in self.sections]
        tasks = {experiment.task_name: experiment.task for experiment in experiments}
        models = {experiment.lm.name: experiment.lm for experiment in experiments}
        return {
            "format": FORMAT,
            "name": experiments[0].name,
            "complete": self.complete,
            "tasks": [_task_entry(name, task) for name, task in tasks.items()],
            "models": [_model_entry(lm) for lm in models.values()],
            "controls": list(self._controls().values()),
            "runs": [_run_entry(run) for run in self.runs],
            "config": dict(experiments[0].config),
            **self.provenance,
        }

    def _controls(self) -> dict[tuple[str, str, str], dict[str, Any]]:
        """Entries of the controls, which have no budget, by task, model and name."""
        return {
            (task, model, control.name): _control_entry(task, model, control)
            for section in self.sections
            for task, model in [(section.experiment.task_name, section.experiment.lm.name)]
            for control in section.controls
        }


def _task_entry(name: str, task: Task) -> dict[str, Any]:
    return {
        "name": name,
        "fingerprint": task.fingerprint,
        "metric": metric_name(task),
        "examples": {name: len(part) for name, part in task.splits.parts().items()},
        "data_notes": list(task.splits.notes),
    }


def _model_entry(lm: FrozenLM) -> dict[str, Any]:
    return {
        "name": lm.name,
        "fingerprint": {"digest": lm.fingerprint.digest, **dataclasses.asdict(lm.fingerprint)},
        "device": str(lm.device),
        "noise": dataclasses.asdict(lm.own_noise),
    }


def _control_entry(task: str, model: str, control: Control) -> dict[str, Any]:
    return {
        "task": task,
        "model": model,
        "name": control.name,
        "prompt": control.text,
        "retypable": control.retypable,
        **{split: score.metric for split, score in control.scores.items()},
        "rewards": {split: score.reward for split, score in control.scores.items()},
    }


def _run_entry(run: Run) -> dict[str, Any]:
    result, best, experiment = run.result, run.best, run.search.experiment
    return {
        "name": run.search.name,
        "task": experiment.task_name,
        "model": experiment.lm.name,
        "budget_rows": experiment.budget,
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
        "file": f"runs/{run.search.name}.json",
    }
