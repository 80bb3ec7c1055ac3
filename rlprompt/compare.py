"""Runs an experiment: controls first, then every search of the grid, each kept on disk at once."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import platform
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import rlprompt
from rlprompt.comparison import Comparison, Control, Experiment, ExperimentError, Run
from rlprompt.objective import Ledger
from rlprompt.prompt import TokenPrompt
from rlprompt.report import claimed, write, write_whole
from rlprompt.result import Result
from rlprompt.search import describe, evaluate, search

logger = logging.getLogger(__name__)

PACKAGES = ("torch", "transformers", "numpy")


class Watcher(Protocol):
    """Is told how a comparison goes."""

    def begin(self, optimiser: str, seed: int) -> None:
        """A search begins."""

    def update(self, ledger: Ledger) -> None:
        """Some prompts were scored."""

    def end(self, run: Run) -> None:
        """The search ended, and what it found is on disk."""


class Silent:
    """A watcher that says nothing."""

    def begin(self, optimiser: str, seed: int) -> None:
        """See `Watcher`."""

    def update(self, ledger: Ledger) -> None:
        """See `Watcher`."""

    def end(self, run: Run) -> None:
        """See `Watcher`."""


def compare(experiment: Experiment, out: Path, watcher: Watcher | None = None) -> Comparison:
    """Run every search of an experiment.

    `out` gets `summary.json`, `table.md`, `curves.png` and `runs/` with a JSON file each run, all
    brought up to date after each run. A search that an error ends is kept as far as it came, with
    the traceback beside it, and the others go on. Ctrl-C ends the comparison after the search that
    it interrupted is kept.

    Args:
        experiment: What to run.
        out: Folder to write to; it must be empty or not there.
        watcher: Is told how it goes.

    Raises:
        ValueError: The folder cannot be used.
        ExperimentError: A control cannot be scored, or its reward is no number.
        OSError: A file could not be written.
    """
    watcher = watcher or Silent()
    with claimed(out):
        controls = tuple(
            _control(experiment, name, prompt) for name, prompt in experiment.controls.items()
        )
        comparison = Comparison(experiment, controls, provenance=_provenance())
        write(comparison, out)
        for name, seed in experiment.grid:
            watcher.begin(name, seed)
            run = _run(experiment, name, seed, watcher, out)
            comparison = dataclasses.replace(comparison, runs=(*comparison.runs, run))
            write(comparison, out)
            watcher.end(run)
            if run.result.status == "interrupted":
                break
    return comparison


def _control(experiment: Experiment, name: str, prompt: TokenPrompt) -> Control:
    task, lm = experiment.task, experiment.lm
    try:
        scores = {split: evaluate(task, lm, prompt, split) for split in task.splits.parts()}
    except ValueError as error:
        raise ExperimentError(f"the {name} prompt cannot be scored: {error}") from error
    return Control(name, *describe(lm, prompt), scores)


def _run(experiment: Experiment, name: str, seed: int, watcher: Watcher, out: Path) -> Run:
    partial: list[Result] = []
    try:
        result = search(
            experiment.task,
            experiment.lm,
            experiment.optimisers[name],
            experiment.budget,
            seed=seed,
            length=experiment.length,
            banned=experiment.banned,
            on_progress=watcher.update,
            on_failure=partial.append,
        )
    # Any error: an optimiser may come from anyone, and the other searches must not be lost with
    # it. Nothing is hidden: it is reported, kept with its traceback, and decides the exit code.
    except Exception as error:
        if not partial:
            raise
        run = Run(name, seed, partial[0], " ".join(f"{type(error).__name__}: {error}".split()))
        (out / "runs").mkdir(exist_ok=True)
        write_whole(out / "runs" / f"{run.slug}.error.txt", traceback.format_exc().encode())
        return run
    return Run(name, seed, result)


def _provenance() -> dict[str, Any]:
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "versions": {
            "rlprompt": rlprompt.__version__,
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
    }
