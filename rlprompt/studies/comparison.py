"""What came of a comparison: values only, `compare` fills them."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlprompt.data.examples import Example, Splits, repeats
from rlprompt.models.lm import FrozenLM
from rlprompt.models.served.lm import ServedLM
from rlprompt.search.result import Candidate, Result, Score
from rlprompt.store.summary import (
    BillEntry,
    ControlEntry,
    ExampleEntry,
    ModelEntry,
    ReferenceEntry,
    RunEntry,
    Summary,
    TaskEntry,
)
from rlprompt.studies.controls import Control
from rlprompt.studies.experiment import Experiment
from rlprompt.studies.planned_search import PlannedSearch
from rlprompt.tasks.base import Task
from rlprompt.template import Template

# Test examples that a summary shows.
SHOWN = 8


@dataclass(frozen=True)
class Run:
    """A search that was begun.

    Attributes:
        search: The planned search: task, model, budget, method and seed.
        result: What it found, in part if its status is not `finished`.
        error: What ended it, in a line, or "".
        source: Hashes of the files of a person's own that its method was made of, by name.
    """

    search: PlannedSearch
    result: Result
    error: str = ""
    source: Mapping[str, str] = field(default_factory=dict)

    @property
    def optimiser(self) -> str:
        """The method's name in the experiment."""
        return self.search.method

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
        references: Training of its model on its examples, an entry a seed.
    """

    experiment: Experiment
    controls: tuple[Control, ...]
    runs: tuple[Run, ...] = ()
    heading: str = ""
    references: tuple[ReferenceEntry, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Controls and runs so far, a section for each task, model and budget.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from rlprompt import Budget, Experiment, compare
    >>> from rlprompt.agents import RandomSearch
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> lm, methods = toy_lm(), {"random": RandomSearch()}
    >>> experiment = Experiment("toys", ToyTask(), lm, methods, Budget(40), length=2)
    >>> comparison = compare(experiment, Path(tempfile.mkdtemp()))
    >>> comparison.complete, comparison.summary().runs[0].rows
    (True, 40)

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

    def summary(self) -> Summary:
        """All but the curves; `controls` and `runs` are tables over all sections."""
        experiments = [section.experiment for section in self.sections]
        models = {experiment.lm.name: experiment.lm for experiment in experiments}
        first = experiments[0]
        return Summary(
            name=first.name,
            complete=self.complete,
            expected_runs=sum(len(experiment.grid) for experiment in experiments),
            optimisers=tuple(first.optimisers),
            seeds=tuple(first.seeds),
            split_seeds=tuple(
                dict.fromkeys(one.split_seed for one in experiments if one.split_seed is not None)
            ),
            budgets=tuple(dict.fromkeys(experiment.budget.rows for experiment in experiments)),
            tasks=tuple(_task_entries(experiments)),
            models=tuple(map(model_entry, models.values())),
            controls=tuple(self._controls().values()),
            references=tuple(self._references().values()),
            runs=tuple(map(_run_entry, self.runs)),
            config=dict(first.config),
            **self.provenance,
        )

    def _controls(self) -> dict[tuple[str, int | None, str, str], ControlEntry]:
        """Entries of the controls, which have no budget, by task, split, model and name."""
        return {
            (*one.cell, control.name): _control_entry(one, control)
            for section in self.sections
            for one in [section.experiment]
            for control in section.controls
        }

    def _references(self) -> dict[tuple[str, int | None, str, str], ReferenceEntry]:
        """Those of all sections, which have no budget, by task, split, model and name."""
        return {
            (entry.task, entry.split_seed, entry.model, entry.name): entry
            for section in self.sections
            for entry in section.references
        }


def _task_entries(experiments: Sequence[Experiment]) -> Iterator[TaskEntry]:
    """The tasks by name, each with its splits, and what models have of their own there."""
    tasks: dict[str, dict[int | None, dict[str, Task]]] = {}
    for one in experiments:
        splits = tasks.setdefault(one.task_name, {})
        splits.setdefault(one.split_seed, {})[one.lm.name] = one.task
    for name, splits in tasks.items():
        yield TaskEntry.joined(
            {model: _task_entry(name, task, seed) for model, task in own.items()}
            for seed, own in splits.items()
        )


def _task_entry(name: str, task: Task, split_seed: int | None) -> TaskEntry:
    splits = task.splits
    words = task.class_words
    template = getattr(task, "template", None)
    reward = getattr(task, "reward", "")
    return TaskEntry(
        name=name,
        fingerprint=task.fingerprint,
        metric=task.metric,
        metric_range=task.metric_range,
        select_by=task.select_by,
        reward=reward if isinstance(reward, str) else "",
        template=template.text if isinstance(template, Template) else "",
        classes=tuple(words),
        label_words={label: tuple(own) for label, own in words.items()},
        test_labels=tuple(example.label for example in splits.test) if words else (),
        examples={name: len(part) for name, part in splits.parts().items()},
        shown=tuple(_shown(splits.test)),
        data_notes=splits.notes,
        leaks=_leaks(splits),
        split_seed=split_seed,
        draw=splits.drawn_digest,
    )


def _leaks(splits: Splits) -> dict[str, int]:
    """Examples of a split that an earlier split has as well, by split."""
    found = repeats(splits.parts())
    return dict(Counter(split for (split, _), (home, _) in found if split != home))


def _shown(examples: Sequence[Example]) -> Iterator[ExampleEntry]:
    """A few examples, evenly spread: files are often sorted by class."""
    count = min(SHOWN, len(examples))
    for place in (i * len(examples) // count for i in range(count)):
        example = examples[place]
        label = " | ".join(example.references)
        yield ExampleEntry(place=place, fields=dict(example.fields), label=label)


def model_entry(lm: FrozenLM) -> ModelEntry:
    """What a summary says of a model."""
    return ModelEntry(
        name=lm.name,
        kind=lm.kind,
        parameters=lm.n_parameters,
        fingerprint={"digest": lm.fingerprint.digest, **dataclasses.asdict(lm.fingerprint)},
        device=lm.where,
        noise={} if lm.served else dataclasses.asdict(lm.own_noise),
        bill=_bill_entry(lm) if isinstance(lm, ServedLM) else None,
    )


def _bill_entry(lm: ServedLM) -> BillEntry:
    told: dict[str, Any] = {**dataclasses.asdict(lm.bill), "cost": lm.cost}
    if lm.prices:
        told |= {"input_price": lm.prices.input, "output_price": lm.prices.output}
    return BillEntry(**told)


def _control_entry(experiment: Experiment, control: Control) -> ControlEntry:
    return ControlEntry(
        task=experiment.task_name,
        split_seed=experiment.split_seed,
        model=experiment.lm.name,
        name=control.name,
        prompt=control.text,
        retypable=control.retypable,
        **{split: score.metric if score else None for split, score in control.scores.items()},
        rewards={split: score.reward if score else None for split, score in control.scores.items()},
        rows=control.rows,
        length=control.length,
        note=control.note,
        variant=control.variant,
        test_metrics=control.test_metrics,
        test_answers=control.test_answers,
    )


def _run_entry(run: Run) -> RunEntry:
    result, best, planned = run.result, run.best, run.search
    return RunEntry(
        name=planned.name,
        task=planned.task_name,
        split_seed=planned.split_seed,
        model=planned.lm.name,
        budget_rows=planned.budget.rows,
        optimiser=run.optimiser,
        seed=run.seed,
        status=result.status,
        error=run.error,
        rows=result.rows,
        n_prompts=result.n_prompts,
        n_partial=result.n_partial,
        lm_seconds=result.lm_seconds,
        total_seconds=result.total_seconds,
        **{split: score.metric if score else None for split, score in run.scores.items()},
        rewards={split: score.reward if score else None for split, score in run.scores.items()},
        prompt=best.text if best else None,
        retypable=best.retypable if best else None,
        best_train_reward=result.trace[-1][1] if result.trace else None,
        mean_sampled_reward=None if math.isnan(result.mean_reward) else result.mean_reward,
        settings=dict(result.settings),
        source=dict(run.source),
        file=f"runs/{planned.name}.json",
    )
