"""What a study's page says, as values: `write_page` writes them down.

Made from the summary, the results of the runs, and statistics; no model, no store.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from rlprompt._utils.text import counted, listed_briefly, slugs
from rlprompt.reports.caveats import Caveat, caveats, tests_rounding
from rlprompt.reports.costs import (
    bill_line,
    config_text,
    ledger,
    requirements,
    setup,
    tokens,
    total_rows,
    total_seconds,
)
from rlprompt.reports.curves import UNITS, TaskCurves, task_curves
from rlprompt.reports.panels import Panel, panels
from rlprompt.reports.prompts import BestPrompt, best_prompts, leading, prompt_table
from rlprompt.reports.results import Results, results
from rlprompt.reports.runs import runs_table
from rlprompt.reports.score_matrix import ScoreMatrix
from rlprompt.reports.struck import examined
from rlprompt.reports.study_data import StudyData
from rlprompt.reports.tables import Table, count
from rlprompt.reports.transfer import transfer_tables
from rlprompt.store.summary import ModelEntry, Summary


@dataclass(frozen=True)
class PageSection:
    """One model's searches at one budget: never two budgets in one table.

    Attributes:
        key: Tells it from the others, in names of tables and files.
        heading: The same in words.
        curves: Of each task.
        results: Results.
        runs: Every run, a table a task.
        leading: Of each task the prompt that is best on dev.
        best_prompts: The best prompts by task.
        prompts: The same as a table.
        panels: Whether the train reward foretells, and what more rows would buy, of each task.
    """

    key: str
    heading: str
    curves: tuple[TaskCurves, ...]
    results: Results
    runs: tuple[Table, ...]
    leading: tuple[BestPrompt, ...]
    best_prompts: dict[str, tuple[BestPrompt, ...]]
    prompts: Table
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Page:
    """A study's page.

    Attributes:
        name: The experiment's.
        headline: What was compared, in a line.
        facts: Term and value: on what, at which cost.
        caveats: What cannot be relied on, the gravest first.
        basis: How much the figures rest on, and whether rounding was tested.
        units: What costs are counted in, those that a curve has.
        sections: One or more.
        ledger: Cost tables.
        setup: Tables of models, tasks and versions.
        data_notes: What was done to the data, by task.
        command: What runs the study again.
        config: The experiment file that it needs, or "".
        requirements: What installs the same versions, or "".
        nested: Whether there are several splits of each task.
        transfer: What found prompts are worth on other models and data, where that was measured.
        bills: What servers were asked, a line a model.
    """

    name: str
    headline: str
    facts: tuple[tuple[str, str], ...]
    caveats: tuple[Caveat, ...]
    basis: str
    units: tuple[str, ...]
    sections: tuple[PageSection, ...]
    ledger: tuple[Table, ...]
    setup: tuple[Table, ...]
    data_notes: tuple[tuple[str, str], ...]
    command: str
    config: str
    requirements: str
    nested: bool = False
    transfer: tuple[Table, ...] = ()
    bills: tuple[str, ...] = ()

    def conclusions(self) -> list[str]:
        """What may be concluded, and what cannot be relied on."""
        lines = list[str]()
        for section in self.sections:
            heading = f"{section.heading}: " if len(self.sections) > 1 else ""
            lines += [f"{heading}{sentence}" for sentence in section.results.sentences]
        return lines + [f"{one.check}: {one.text}" for one in self.caveats]

    def tables(self) -> Iterator[Table]:
        """Those that are written as files too, each name once."""
        for section in self.sections:
            yield from section.results.tables
            yield from section.results.tests
            yield from (panel.table for panel in section.panels)
            yield from section.runs
            if section.best_prompts:
                yield section.prompts
        yield from self.transfer
        yield from self.ledger
        yield from self.setup


def page_of(study: StudyData) -> Page:
    """All that a page says of a study."""
    study = examined(study)
    summary = study.summary
    keys = slugs((f"{model} {budget}" for model, budget in study.sections), "at")
    sections = tuple(
        _section(study, model, budget, keys[f"{model} {budget}"] if len(keys) > 1 else "")
        for model, budget in study.sections
    )
    there = {unit for section in sections for one in section.curves for unit in one.plots}
    return Page(
        name=summary.name,
        headline=_headline(study),
        facts=tuple(_facts(study)),
        caveats=tuple(caveats(study)),
        basis=_basis(study),
        units=tuple(unit for unit in UNITS if unit in there),
        sections=sections,
        ledger=tuple(ledger(study)),
        setup=tuple(setup(summary)),
        data_notes=tuple(
            dict.fromkeys(
                (heading, note)
                for task in summary.tasks
                for split in task.splits
                for heading, one in split.headed("data_notes").items()
                for note in one.data_notes
            )
        ),
        command=_command(summary),
        config=config_text(summary),
        requirements=requirements(summary),
        nested=len(summary.split_seeds) > 1,
        transfer=tuple(transfer_tables(study.transfer)) if study.transfer else (),
        bills=tuple(filter(None, map(bill_line, summary.models))),
    )


def _command(summary: Summary) -> str:
    """What runs a study again; to one of a single search `compare` would add random search."""
    file = f"{summary.name}.yaml"
    methods, seeds = summary.optimisers, summary.seeds
    alone = len(methods) == len(seeds) == 1
    if not alone or methods[0].partition(" ")[0] == "random":
        return f"rlprompt compare {file}"
    return shlex.join(
        ["rlprompt", "run", file, "--optimiser", *methods, "--seed", *map(str, seeds)]
    )


def _section(study: StudyData, model: str, budget: int, key: str) -> PageSection:
    matrix = ScoreMatrix(study, model, budget, key)
    found = tuple(best_prompts(matrix))
    curves = (
        task_curves(study, model, budget, task, matrix.name("curve", task.name))
        for task in matrix.tasks
    )
    return PageSection(
        key=key,
        heading=f"{model}, {budget:,} rows a search",
        curves=tuple(one for one in curves if one),
        results=results(matrix),
        runs=tuple(runs_table(matrix, task) for task in matrix.tasks),
        leading=tuple(leading(matrix, found)),
        best_prompts={
            task: tuple(one for one in found if one.task == task)
            for task in dict.fromkeys(one.task for one in found)
        },
        prompts=prompt_table(matrix, found),
        panels=tuple(panels(matrix)),
    )


def _headline(study: StudyData) -> str:
    """What was compared, on what, at which cost."""
    summary = study.summary
    tasks, models = (
        listed_briefly(one.name for one in part) for part in (summary.tasks, summary.models)
    )
    budgets = listed_briefly(f"{budget:,}" for budget in summary.budgets)
    # Train, dev and test are splits, too.
    repetition = study.repetition.replace("splits", "splits (draws of the examples)")
    return (
        f"{counted(len(summary.optimisers), 'method')}, {repetition} "
        f"each, on {tasks} with {models}, at {budgets} rows a search"
    )


def _facts(study: StudyData) -> Iterator[tuple[str, str]]:
    summary = study.summary
    yield counted(len(summary.optimisers), "method"), listed_briefly(summary.optimisers)
    yield (
        counted(len(summary.tasks), "task"),
        listed_briefly(
            f"{heading} ({_sizes(one.examples)})"
            for task in summary.tasks
            for heading, one in task.headed("examples").items()
        ),
    )
    yield (
        counted(len(summary.models), "model"),
        listed_briefly(map(_model, summary.models)),
    )
    finished = sum(run.entry.status == "finished" for run in study.runs)
    seeds = f"{study.repetition} each"
    struck = sum(bool(run.struck) for run in study.runs)
    less = f", {struck} struck" if struck else ""
    yield f"{finished} of {summary.expected_runs} runs finished{less}", seeds
    budgets = listed_briefly(f"{budget:,}" for budget in summary.budgets)
    yield f"{budgets} rows a search", "a row is one prompt scored on one example"
    read, seconds = tokens(study.runs), total_seconds(study)
    time = f"{seconds / 3600:,.1f} hours" if seconds >= 5400 else f"{seconds:,.0f} seconds"
    # The rows beside them have those of controls, whose time is not taken.
    cost = [time + " without the controls" * any(one.rows for one in summary.controls)]
    if read is not None:
        cost.insert(0, f"{_short(read)} tokens in the searches")
    yield f"{count(total_rows(study))} rows in all", ", ".join(cost)
    for model in filter(bill_line, summary.models):
        term = f"bill of {model.name}"
        yield term, bill_line(model).removeprefix(f"{term}: ")


def _model(model: ModelEntry) -> str:
    if model.bill:
        return f"{model.name} (served by {model.device})"
    return f"{model.name} ({count(model.parameters)} parameters)"


def _basis(study: StudyData) -> str:
    """How much the figures rest on, and what of them was not tried."""
    sizes = listed_briefly(
        f"{one.examples.get('test', 0):,} on {heading}"
        for task in study.summary.tasks
        for heading, one in task.headed("examples").items()
    )
    untried = "Whether rounding decides near ties was not tested, or not for every reward."
    rounding = "Rounding decides nothing." if tests_rounding(study) else untried
    return (
        f"{rounding} Figures rest on {study.repetition} a method, and on these numbers of test "
        f"examples: {sizes}."
    )


def _sizes(examples: dict[str, int]) -> str:
    """Examples of each split in a word or two."""
    return " / ".join(f"{examples.get(split, 0):,}" for split in ("train", "dev", "test"))


def _short(value: float) -> str:
    """A large number to three digits or so."""
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:,.1f} {word}"
    return count(value)
