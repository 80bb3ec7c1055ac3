"""Runs an experiment: controls first, then every search of the grid, each kept on disk at once."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import logging
import platform
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import rlprompt
from rlprompt.comparison import (
    Comparison,
    Control,
    Experiment,
    ExperimentError,
    Run,
    load_experiment,
    run_name,
)
from rlprompt.config import Config
from rlprompt.objective import Budget, Ledger
from rlprompt.prompt import TokenPrompt
from rlprompt.report import claimed, write, write_whole
from rlprompt.search import describe, evaluate
from rlprompt.store import FILE, Store
from rlprompt.study import Job, Study

logger = logging.getLogger(__name__)

PACKAGES = ("torch", "transformers", "numpy")


class Watcher(Protocol):
    """Is told how a comparison goes: the way to plug in a tracker (`tracking.py`)."""

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


def compare(
    experiment: Experiment, out: Path, watcher: Watcher | None = None, *, workers: int = 1
) -> Comparison:
    """Run every search of an experiment.

    `out` gets `summary.json`, `table.md`, `curves.png` and `runs/` with a JSON file each run, all
    brought up to date after each run, and `study.sqlite`, which holds every answer that was paid
    for. On a folder that holds this experiment already, it goes on: what is finished is not done
    again, and a search that was killed ends as if it had not been.

    A search that an error ends is kept as far as it came, with the traceback beside it, and the
    others go on; it is tried again the next time. Ctrl-C ends the comparison after the search that
    it interrupted is kept.

    Args:
        experiment: What to run.
        out: Folder to write to: empty, not there, or with this experiment in it.
        watcher: Is told how the searches of this process go.
        workers: Processes that share the searches, this one included; each loads the model. More
            than one needs an experiment that was loaded from a file.

    Raises:
        ValueError: The folder cannot be used, or other workers could not load the experiment.
        StoreError: It holds another experiment, or its store cannot be used.
        ExperimentError: A control cannot be scored, or its reward is no number.
        OSError: A file could not be written.
    """
    watcher = watcher or Silent()
    grid = {run_name(name, seed): (name, seed) for name, seed in experiment.grid}
    with claimed(out), contextlib.ExitStack() as stack:
        controls = tuple(
            _control(experiment, name, prompt) for name, prompt in experiment.controls.items()
        )
        study = stack.enter_context(Study(out, jobs(experiment), experiment.config))
        study.store.retry()
        comparison = Comparison(experiment, controls, _kept(study, grid), _provenance())
        write(comparison, out)
        stack.enter_context(helpers(experiment, out, workers - 1))
        for key in study.claimed():
            watcher.begin(*grid[key])
            run = _run(study, key, *grid[key], watcher, out)
            comparison = dataclasses.replace(comparison, runs=_kept(study, grid, run))
            write(comparison, out)
            watcher.end(run)
            if run.result.status == "interrupted":
                return comparison
        return dataclasses.replace(comparison, runs=_kept(study, grid))


def work(experiment: Experiment, out: Path) -> None:
    """Help with a comparison that another process leads, or led, until its searches have ended.

    Raises:
        StoreError: The folder holds another experiment, or its store cannot be used.
        OSError: A file could not be written.
    """
    grid = {run_name(name, seed): (name, seed) for name, seed in experiment.grid}
    with Study(out, jobs(experiment), experiment.config) as study:
        for key in study.claimed():
            run = _run(study, key, *grid[key], Silent(), out)
            if run.result.status == "interrupted":
                return


@contextlib.contextmanager
def helpers(experiment: Experiment, out: Path, count: int) -> Iterator[None]:
    """Other processes that help with a comparison; what they still do at the end is let go."""
    if count > 0 and not experiment.config:
        raise ValueError("several workers need an experiment that was loaded from a file")
    command = [sys.executable, "-m", "rlprompt.cli", "work", str(out)]
    with contextlib.ExitStack() as stack:
        for number in range(2, count + 2):
            # Beside the results, so that a helper that cannot start is not a riddle.
            log = stack.enter_context((out / f"worker-{number}.log").open("w"))
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        yield


def load_again(config: Config, out: Path) -> Experiment:
    """What a config describes, loaded, in the dtype of the study in `out` if there is one.

    `dtype: auto` takes what is fast on the machine of the day; a study goes on as it began.

    Raises:
        ValueError: Something in the config is wrong.
        AssetError: Bundled data or model could not be fetched.
        StoreError: The study cannot be read.
    """
    began = config
    if config.dtype == "auto" and (out / FILE).exists():
        with Store(out / FILE, read_only=True) as store:
            dtypes = {run.spec["model"]["dtype"] for run in store.runs()}
        began = config.model_copy(update={"dtype": dtypes.pop()} if dtypes else {})
    experiment = load_experiment(began)
    return dataclasses.replace(experiment, config=config.model_dump(mode="json"))


def jobs(experiment: Experiment) -> dict[str, Job]:
    """The searches of an experiment by name."""
    return {
        run_name(name, seed): Job(
            task=experiment.task,
            lm=experiment.lm,
            optimiser=experiment.optimisers[name],
            budget=Budget(experiment.budget, **experiment.stop),
            seed=seed,
            length=experiment.length,
            banned=experiment.banned,
        )
        for name, seed in experiment.grid
    }


def _kept(
    study: Study, grid: Mapping[str, tuple[str, int]], last: Run | None = None
) -> tuple[Run, ...]:
    """What the store holds of runs that have ended, whoever did them, and the last one."""
    runs = {
        run.name: Run(*grid[run.name], run.result, run.error)
        for run in study.store.runs()
        if run.result is not None
    }
    if last is not None:
        runs.setdefault(last.slug, last)
    return tuple(runs[name] for name in grid if name in runs)


def _control(experiment: Experiment, name: str, prompt: TokenPrompt) -> Control:
    task, lm = experiment.task, experiment.lm
    try:
        scores = {split: evaluate(task, lm, prompt, split) for split in task.splits.parts()}
    except ValueError as error:
        raise ExperimentError(f"the {name} prompt cannot be scored: {error}") from error
    return Control(name, *describe(lm, prompt), scores)


def _run(study: Study, key: str, name: str, seed: int, watcher: Watcher, out: Path) -> Run:
    try:
        return Run(name, seed, study.run(key, watcher.update))
    # Any error: an optimiser may come from anyone, and the other searches must not be lost with
    # it. Nothing is hidden: it is reported, kept with its traceback, and decides the exit code.
    except Exception:
        kept = study.store.run(key)
        if kept.result is None:
            raise
        (out / "runs").mkdir(exist_ok=True)
        write_whole(out / "runs" / f"{key}.error.txt", traceback.format_exc().encode())
        return Run(name, seed, kept.result, kept.error)


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
