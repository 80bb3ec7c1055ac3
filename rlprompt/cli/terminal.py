"""What a person sees in a terminal: progress, tables, notices. Plain lines where there is none.

Prompts come from a model's vocabulary and may look like rich's markup, so text is never parsed.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.console import Console, JustifyMethod, OverflowMethod
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table as RichTable
from rich.text import Text

from rlprompt._utils.text import listed_briefly
from rlprompt.prompt import Length

if TYPE_CHECKING:
    from rlprompt.reports.page import Page
    from rlprompt.reports.tables import Table
    from rlprompt.search.budget import Ledger
    from rlprompt.studies.comparison import Run
    from rlprompt.studies.experiment import Experiment
    from rlprompt.studies.planned_search import PlannedSearch
    from rlprompt.studies.trackers import Watcher
    from rlprompt.tasks.base import Task

# Width that the progress line needs besides its bar.
BESIDES_BAR = 60
# Below this width the table leaves out what it costs; the page has it.
FULL_TABLE = 88
# Test examples that are enough to tell an accuracy to 0.05; more are worth a word about the cost.
MANY = 400
# Seconds and share of the budget after which a plain line of progress is due.
LINE_SECONDS, LINE_SHARE, LEAST_SECONDS = 10.0, 0.1, 1.0
# Whose log lines say what a person is waiting for.
TALKATIVE = (
    "rlprompt._utils.assets",
    "rlprompt.models.gguf_cache",
    "rlprompt.models.engine",
    "rlprompt.models.lm",
    "rlprompt.models.served.api",
    "rlprompt.models.served.lm",
    "rlprompt.studies.controls_and_references",
    "rlprompt.studies.training",
)


def make_console(stderr: bool = False, quiet: bool = False) -> Console:
    """A console that writes text as it is, and wraps it on a terminal only; a quiet one nothing."""
    console = Console(markup=False, highlight=False, emoji=False, stderr=stderr, quiet=quiet)
    console.soft_wrap = not console.is_terminal
    return console


class _ToConsole(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(self.format(record), style="dim")


@contextmanager
def log_to(console: Console) -> Iterator[None]:
    """Show the library's notices and warnings on the console for a while, and nowhere else."""
    handler = _ToConsole(console)
    ours = logging.getLogger("rlprompt")
    talkative = [logging.getLogger(name) for name in TALKATIVE]
    before = [(logger, logger.level) for logger in talkative]
    ours.addHandler(handler)
    # A library may give the root logger a handler, which would print every line a second time: absl
    # does as it is first used, and rouge-score uses it.
    propagates, ours.propagate = ours.propagate, False
    for logger in talkative:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.propagate = propagates
        for logger, level in before:
            logger.setLevel(level)


def opening(experiments: Sequence[Experiment], out: Path) -> list[str]:
    """What is about to run: sizes, devices, cost, and where it is written."""
    from rlprompt.studies.dry_run import all_controls

    first = experiments[0]
    tasks = {experiment.task_name: experiment.task for experiment in experiments}
    models = {experiment.lm.name: experiment.lm for experiment in experiments}
    splits = dict.fromkeys(str(one.split_seed) for one in experiments if one.split_seed is not None)
    on = f"; splits {', '.join(splits)}" if splits else ""
    return [
        *_notes(experiments, len(tasks) > 1),
        *(f"task: {name}, {_sizes(task)} examples" for name, task in tasks.items()),
        *(
            f"model: {lm.name} ({lm.fingerprint.kind}, {lm.fingerprint.dtype} on {lm.where})"
            for lm in models.values()
        ),
        f"searches: {sum(len(experiment.grid) for experiment in experiments)} "
        f"({', '.join(first.optimisers)}; seeds {', '.join(map(str, first.seeds))}{on})",
        *_lengths(Length.of(first.length), bool(first.own)),
        *(_budget(rows, tasks) for rows in dict.fromkeys(e.budget.rows for e in experiments)),
        *_cost(experiments, tasks),
        f"writing to {out}",
        f"scoring {len(all_controls(experiments))} controls first",
    ]


def _notes(experiments: Sequence[Experiment], several: bool) -> list[str]:
    """What was done to the data, each once: each split has its own, and each model cuts texts."""
    first: dict[str, str] = {}
    for one in experiments:
        for note in one.task.splits.notes:
            first.setdefault(note, f"note on {one.task_name}" if several else "note")
    return [f"{heading}: {note}" for note, heading in first.items()]


def _cost(experiments: Sequence[Experiment], tasks: Mapping[str, Task]) -> list[str]:
    """What is scored in all, and what to turn where most of it is no search."""
    from rlprompt.studies.dry_run import all_rows

    rows = all_rows(experiments)
    lines = [
        f"rows in all: {rows.searched:,} in searches, and at most {rows.outside:,} outside: "
        f"{rows.controls:,} controls, {rows.chosen:,} to pick on dev, {rows.final:,} final scores"
    ]
    many = [
        f"{name} has {n:,}" for name, task in tasks.items() if (n := len(task.splits.test)) > MANY
    ]
    if many and rows.outside > rows.searched:
        lines.append(
            f"most of these rows are not in searches: {listed_briefly(many)} test examples; set "
            f"`test: {MANY}` in a task's section to use that many"
        )
    return lines


def _lengths(lengths: Length, some_differ: bool) -> list[str]:
    """What to say of prompts that differ in length."""
    longest = lengths.at_most
    if lengths.simplest == longest:
        return []
    unless = ", unless a method says otherwise" if some_differ else ""
    return [
        f"prompts: {lengths.at_least} to {longest} tokens; soft prompts {longest} vectors{unless}"
    ]


def _sizes(task: Task) -> str:
    return " + ".join(f"{len(part)} {name}" for name, part in task.splits.parts().items())


def _budget(rows: int, tasks: Mapping[str, Task]) -> str:
    from rlprompt.tasks.base import prompt_rows

    covered = {name: f"{rows // prompt_rows(task):,}" for name, task in tasks.items()}
    if len(tasks) == 1:
        ((name, task),) = tasks.items()
        n_train = len(task.splits.train)
        return f"budget: {rows:,} rows each ({covered[name]} prompts on {n_train} examples)"
    each = ", ".join(f"{count} of {name}" for name, count in covered.items())
    return f"budget: {rows:,} rows each (prompts: {each})"


@contextmanager
def watching(console: Console, searches: Collection[PlannedSearch]) -> Iterator[Watcher]:
    """A watcher of searches for the console: bars on a terminal, lines elsewhere."""
    if not console.is_terminal or console.is_dumb_terminal:
        yield Lines(console, searches)
        return
    bar = BarColumn(bar_width=max(4, min(30, console.width - BESIDES_BAR)))
    columns = (
        TextColumn("{task.description}", markup=False),
        bar,
        TextColumn("{task.fields[rows]}", markup=False, justify="right"),
        TextColumn("{task.fields[best]}", markup=False),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console) as progress:
        yield Bars(progress, searches)


@contextmanager
def counting(console: Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """What is told how many more are done: a bar on a terminal, else a line now and then."""
    if console.is_terminal and not console.is_dumb_terminal:
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        # What is written to standard output meanwhile is data.
        with Progress(
            *columns, console=console, redirect_stdout=False, redirect_stderr=False
        ) as progress:
            task = progress.add_task(what, total=total)
            yield lambda n: progress.advance(task, n)
        return
    done, last = 0, time.monotonic()

    def count(n: int) -> None:
        nonlocal done, last
        done += n
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            console.print(f"{what}: {done:,}/{total:,}")

    yield count


class _Watch:
    """What both watchers know: the search that is under way, and its place among all."""

    def __init__(self, searches: Collection[PlannedSearch]) -> None:
        self._n_searches = len(searches)
        self._one_seed = len({search.seed for search in searches}) == 1
        self._begun = 0
        self.budget = self.prompt_rows = 1

    def title(self, search: PlannedSearch) -> str:
        """Place in the grid and name of the search that begins."""
        self._begun += 1
        self.budget = search.budget.rows
        self.prompt_rows = search.prompt_rows
        seed = "" if self._one_seed else f", seed {search.seed}"
        heading = f"{search.heading}, " if search.heading else ""
        return f"{self._begun}/{self._n_searches} {heading}{search.method}{seed}"


class Bars(_Watch):
    """A bar for each search."""

    def __init__(self, progress: Progress, searches: Collection[PlannedSearch]) -> None:
        super().__init__(searches)
        self._progress = progress
        self._task = TaskID(0)

    def begin(self, search: PlannedSearch) -> None:
        """See `Watcher`."""
        title = self.title(search)
        self._task = self._progress.add_task(title, total=self.budget, rows="starting", best="")

    def update(self, ledger: Ledger) -> None:
        """See `Watcher`."""
        # With no prompt left to pay for, what is scored next is dev and test.
        spent = self.budget - ledger.used < self.prompt_rows
        rows = "choosing on dev" if spent else self._rows(ledger.used)
        self._progress.update(self._task, completed=ledger.used, rows=rows, best=best(ledger))

    def end(self, run: Run) -> None:
        """See `Watcher`."""
        # What is left of a finished search's budget covers nothing that it asked for.
        total = max(run.result.rows, 1) if run.result.status == "finished" else self.budget
        self._progress.update(self._task, total=total, rows=self._rows(run.result.rows))
        self._progress.stop_task(self._task)
        if run.error:
            self._progress.console.print(f"{run.search.title}: {run.error}")

    def _rows(self, used: int) -> str:
        return f"{used:,}/{self.budget:,} rows"


class Lines(_Watch):
    """A line every ten seconds or tenth of the budget, and one at each end."""

    def __init__(self, console: Console, searches: Collection[PlannedSearch]) -> None:
        super().__init__(searches)
        self._console = console
        self._title = ""
        self._began = self._last_time = 0.0
        self._last_rows = 0

    def begin(self, search: PlannedSearch) -> None:
        """See `Watcher`."""
        self._title = self.title(search)
        self._began = self._last_time = time.monotonic()
        self._last_rows = 0
        self._say(f"{self._title}: starting")

    def update(self, ledger: Ledger) -> None:
        """See `Watcher`."""
        now = time.monotonic()
        since = now - self._last_time
        much = ledger.used - self._last_rows >= LINE_SHARE * self.budget
        if since < LINE_SECONDS and not (much and since >= LEAST_SECONDS):
            return
        self._last_time, self._last_rows = now, ledger.used
        left = datetime.timedelta(
            seconds=round((now - self._began) * (self.budget / ledger.used - 1))
        )
        known = (f"{ledger.used:,}/{self.budget:,} rows", best(ledger), f"{left} left")
        self._say(f"{self._title}: {', '.join(filter(None, known))}")

    def end(self, run: Run) -> None:
        """See `Watcher`."""
        scores = [f"{split} {score.metric:.3f}" for split, score in run.scores.items() if score]
        if not scores and run.best:
            scores = [f"best train reward {run.best.train_reward:.2f}"]
        outcome = run.error or ", ".join(scores) or "nothing scored"
        self._say(
            f"{self._title}: {run.result.status} after {run.result.rows:,} rows in "
            f"{run.result.total_seconds:.0f} s: {outcome}"
        )

    def _say(self, line: str) -> None:
        self._console.print(line)
        self._console.file.flush()


def best(ledger: Ledger) -> str:
    """The best mean train reward so far."""
    return f"best {ledger.best_reward:.2f}" if np.isfinite(ledger.best_reward) else ""


def print_page(console: Console, page: Page) -> None:
    """Every run of a study, a table a task, and what the page concludes."""
    for section in page.sections:
        for table in section.runs:
            print_table(console, table)
    print_conclusions(console, page)


def print_conclusions(console: Console, page: Page) -> None:
    """What a page concludes, and what cannot be relied on, a line each."""
    from rlprompt._utils.text import visible

    for line in (*page.conclusions(), *page.bills):
        console.print(visible(line))


def print_table(console: Console, table: Table) -> None:
    """A table of the page with its caption and notes; as Markdown where there is no terminal."""
    from rlprompt._utils.text import visible
    from rlprompt.reports.tables import markdown

    console.print()
    console.print(visible(table.caption), style="bold")
    if console.is_terminal:
        console.print(_drawn(console, table))
    else:
        console.print(f"\n{markdown(table)}\n")
    for note in table.notes:
        console.print(visible(note))
    if table.notes:
        console.print()


def _drawn(console: Console, table: Table) -> RichTable:
    """A table for a terminal, without what it costs where there is little room."""
    from rlprompt.reports.runs import COSTS
    from rlprompt.reports.tables import NONE

    left_out = COSTS if console.width < FULL_TABLE else ()
    columns = [i for i, title in enumerate(table.header) if title not in left_out]
    grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for i in columns:
        # A prompt is broken anywhere: it is no text, and every character counts.
        overflow: OverflowMethod = "fold" if i in table.code else "ellipsis"
        figure = table.is_figure(i)
        justify: JustifyMethod = "right" if figure else "left"
        grid.add_column(table.header[i], justify=justify, no_wrap=figure, overflow=overflow)
    seed = table.header.index("seed") if "seed" in table.header else None
    for row in table.rows:
        # What no search found stands back.
        style = "dim" if seed is not None and row[seed] == NONE else ""
        grid.add_row(*(Text(table.shown(i, row[i])) for i in columns), style=style)
    return grid


def print_columns(console: Console, rows: Sequence[Sequence[str]], numeric: int = 0) -> None:
    """Rows of text in aligned columns, the last `numeric` of them to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if i >= len(row) - numeric else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        console.print("  ".join(cells).rstrip())
