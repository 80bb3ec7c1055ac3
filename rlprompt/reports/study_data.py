"""What a study's folder holds, read without a model: its summary and the results of its runs.

Nothing is believed because it is in the folder: the page's caveats say what cannot be relied on.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from rlprompt._utils.text import counted
from rlprompt.prompt import SoftPrompt
from rlprompt.search.result import Result
from rlprompt.store.summary import RunEntry, Summary, TaskEntry, read_summary
from rlprompt.transfer.file import FILE as TRANSFER
from rlprompt.transfer.file import Transfer, TransferError, read_transfer

Cell = tuple[str, str, int, str, int | None, int]
"""Task, model, budget, method, split and seed of a run."""


@dataclass(frozen=True)
class RunData:
    """A run, as the summary and its own file have it.

    Attributes:
        entry: From the summary.
        result: From its file, with the improvements of its curve alone; None if unreadable.
        problem: Why the file could not be read, or "".
        struck: Why its scores count for nothing, one sentence each; empty where they count.
    """

    entry: RunEntry
    result: Result | None
    problem: str = ""
    struck: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What it is called in a sentence."""
        entry = self.entry
        return f"{entry.optimiser} on {entry.task}, {entry.model}, {self.seeds}"

    @property
    def seeds(self) -> str:
        """Its seeds in words: of the split, where it has one, and of the search."""
        entry = self.entry
        split = "" if entry.split_seed is None else f"split {entry.split_seed}, "
        return f"{split}seed {entry.seed}"

    @property
    def cell(self) -> Cell:
        """Its place in the study."""
        one = self.entry
        return one.task, one.model, one.budget_rows, one.optimiser, one.split_seed, one.seed

    @property
    def counts(self) -> bool:
        """Whether its scores enter the statistics."""
        return self.entry.status == "finished" and not self.struck

    @property
    def length(self) -> int | None:
        """Tokens or vectors of the prompt that it picked, None where it has none."""
        result = self.result
        return result.best.length if result and result.candidates else None

    @property
    def short_hash(self) -> tuple[str, ...]:
        """Six digits that tell a picked prompt of vectors from others; none of a readable one."""
        found = self.result.candidates[:1] if self.result else ()
        return tuple(one.prompt.digest[:6] for one in found if isinstance(one.prompt, SoftPrompt))

    def score(self, split: str) -> float | None:
        """Its metric on a split, None where it has none or does not count."""
        value: float | None = getattr(self.entry, split)
        return value if self.counts else None


@dataclass(frozen=True)
class StudyData:
    """All that a page is made of.

    Attributes:
        summary: The study's.
        runs: In the order of the summary.
        transfer: What the prompts are worth elsewhere, where that was measured.
        transfer_problem: Why that could not be read, or "".
    """

    summary: Summary
    runs: tuple[RunData, ...]
    transfer: Transfer | None = None
    transfer_problem: str = ""

    def task(self, name: str) -> TaskEntry | None:
        """The task of that name."""
        return next((task for task in self.summary.tasks if task.name == name), None)

    def task_of(self, run: RunData) -> TaskEntry | None:
        """The task of a run, on its split and as its model has it."""
        task = self.task(run.entry.task)
        return task and task.of_model(run.entry.model).on(run.entry.split_seed)

    @property
    def repetition(self) -> str:
        """How often each search runs on a task, in words."""
        summary = self.summary
        seeds = counted(len(summary.seeds), "seed")
        n_splits = len(summary.split_seeds)
        return f"{counted(n_splits, 'split')} of {seeds}" if n_splits else seeds

    def section(self, model: str, budget: int) -> tuple[RunData, ...]:
        """The runs of a model at a budget."""
        return tuple(
            run for run in self.runs if (run.entry.model, run.entry.budget_rows) == (model, budget)
        )

    @property
    def sections(self) -> list[tuple[str, int]]:
        """Models and budgets that have runs; where there are none at all, those planned."""
        summary = self.summary
        places = [(model.name, budget) for model in summary.models for budget in summary.budgets]
        begun = {(run.entry.model, run.entry.budget_rows) for run in self.runs}
        known = [place for place in places if place in begun]
        return [*known, *sorted(begun - set(places))] or places


def read_study(folder: Path) -> StudyData:
    """Read a study's folder; a result that cannot be read is a problem of its run.

    Raises:
        SummaryError: There is no summary, or it cannot be read.
    """
    summary = read_summary(folder)
    runs = tuple(_found(folder, entry) for entry in summary.runs)
    if not (folder / TRANSFER).exists():
        return StudyData(summary, runs)
    try:
        return StudyData(summary, runs, read_transfer(folder / TRANSFER))
    except TransferError as error:
        return StudyData(summary, runs, transfer_problem=str(error))


def _found(folder: Path, entry: RunEntry) -> RunData:
    path = (folder / entry.file).resolve()
    if not path.is_relative_to(folder.resolve()):
        return RunData(entry, None, f"{entry.file} lies outside the study's folder")
    try:
        result = Result.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return RunData(entry, None, f"{entry.file} is missing")
    except (OSError, ValueError) as error:
        return RunData(entry, None, f"{entry.file} cannot be read: {error}")
    # A million points in memory at a time are enough; the curve is its improvements.
    return RunData(entry, dataclasses.replace(result, points=result.trace))
