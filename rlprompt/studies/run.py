"""Runs an experiment: controls first, then every search of the grid, each kept on disk at once."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlprompt._utils.files import write_atomically
from rlprompt._utils.text import file_part
from rlprompt.config.schema import PASSING, RANDOM, Config
from rlprompt.search.result import Result
from rlprompt.store.changes import SOURCE
from rlprompt.store.database import StoreError
from rlprompt.store.store import FILE, Store, StoredRun
from rlprompt.store.summary import ReferenceEntry
from rlprompt.studies.comparison import Comparison, Run, Section
from rlprompt.studies.controls_and_references import (
    Controls,
    controls_of,
    score_controls,
    train_references,
)
from rlprompt.studies.experiment import Experiment, ExperimentError, headed, searches, short_names
from rlprompt.studies.folder import claimed, write
from rlprompt.studies.loading import load_experiments
from rlprompt.studies.planned_search import PlannedSearch
from rlprompt.studies.progress import Progress, in_notebook
from rlprompt.studies.provenance import provenance
from rlprompt.studies.ray_cluster import Ray, searched
from rlprompt.studies.search_queue import SearchQueue
from rlprompt.studies.trackers import Silent, Watcher

logger = logging.getLogger(__name__)


def compare(
    experiments: Experiment | Sequence[Experiment],
    out: Path,
    watcher: Watcher | None = None,
    *,
    workers: int = 1,
    cache: Path | None = None,
    cluster: Ray | None = None,
    track: Sequence[str] = (),
) -> Comparison:
    """Run every search of an experiment, or of several side by side.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from rlprompt import Budget, Experiment
    >>> from rlprompt.agents import RandomSearch
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> lm, methods = toy_lm(), {"random": RandomSearch()}
    >>> experiment = Experiment("toys", ToyTask(), lm, methods, Budget(40), length=2)
    >>> comparison = compare(experiment, Path(tempfile.mkdtemp()))
    >>> [(run.optimiser, run.seed, run.result.status) for run in comparison.runs]
    [('random', 0, 'finished')]

    `out` gets `summary.json` and `runs/` with a JSON file each run, brought up to date after each
    run, and `study.sqlite`, which holds every answer that was paid for; `rlprompt.reports` makes
    tables and a page of them. On a folder that holds this study already, it goes on: what is
    finished is not done again, and a search that was killed ends as if it had not been.

    A search that an error ends is kept as far as it came, with the traceback beside it, and the
    others go on; it is tried again the next time. Ctrl-C ends the comparison after the search that
    it interrupted is kept.

    Args:
        experiments: What to run, those of a model one after another.
        out: Folder to write to: empty, not there, or with this study in it.
        watcher: Is told how the searches of this process go; None for a `Progress` in a notebook,
            and elsewhere for nobody.
        workers: Processes that share the searches, this one included; each loads the model. More
            than one needs experiments that were loaded from a file.
        cache: File of answers that several studies share, see `Cache`.
        cluster: Machines that do the searches, see `Ray`; they say how many workers.
        track: What the other workers tell how their searches go, `tensorboard` or `wandb`, beside
            the same `watcher` here; see `tracker`.

    Raises:
        ValueError: The folder cannot be used, experiments cannot be told apart, or other workers
            could not load them.
        ClusterError: The cluster cannot be reached, or has no machine that is large enough.
        StoreError: It holds another study, or its store cannot be used.
        ExperimentError: A control cannot be scored, its reward is no number, a reference cannot be
            trained, or there are workers here and a cluster.
        OSError: A file could not be written.
    """
    if cluster is not None and workers > 1:
        raise ExperimentError(
            f"got {workers} workers on this machine and a Ray cluster; give one of the two (with "
            "`executor: ray`, workers are set under `ray:`)"
        )
    watcher = watcher or (Progress() if in_notebook() else Silent())
    experiments = [experiments] if isinstance(experiments, Experiment) else list(experiments)
    grid, named = searches(experiments), headed(experiments)
    with claimed(out), contextlib.ExitStack() as stack:
        new = not (out / FILE).exists()
        queue = stack.enter_context(_queue(grid, experiments[0].config, out, cache))
        _reach_as_now(queue, experiments[0].config)
        # A study whose controls cannot be scored is not begun: there is nothing to go on with.
        with _removed_on_error(queue) if new else contextlib.nullcontext():
            controls = score_controls(experiments, queue.store)
        queue.store.retry()
        references = list(train_references(experiments, queue.store, found_only=True))

        def found(last: Run | None = None) -> Comparison:
            runs = _kept(queue, grid, last)
            sections = _sections(named, controls, references, runs)
            return Comparison(tuple(sections), provenance(queue.store))

        write(found(), out)
        tell_lost = stack.enter_context(helpers(experiments[0], out, workers - 1, cache, track))
        doing = _done_here(queue, grid, watcher, out)
        if cluster is not None:
            doing = _done_elsewhere(queue, grid, watcher, out, cluster)
        stack.enter_context(contextlib.closing(doing))
        for run in doing:
            tell_lost()
            interrupted = run.result.status == "interrupted"
            comparison = found(run)
            write(comparison, out)
            watcher.end(run)
            if interrupted:
                return comparison
        tell_lost()
        # The searches' results are on disk before the first reference is trained.
        comparison = found()
        write(comparison, out)
        references.clear()
        for entry in train_references(experiments, queue.store):
            references.append(entry)
            comparison = found()
            write(comparison, out)
        return comparison


def work(
    experiments: Sequence[Experiment],
    out: Path,
    cache: Path | None = None,
    watcher: Watcher | None = None,
) -> None:
    """Help with a comparison that another process leads, or led, until its searches have ended.

    Args:
        experiments: What it is of.
        out: Its folder.
        cache: As for `compare`.
        watcher: Is told how the searches of this process go.

    Raises:
        StoreError: The folder holds another study, or its store cannot be used.
        OSError: A file could not be written.
    """
    grid, watcher = searches(experiments), watcher or Silent()
    with _queue(grid, experiments[0].config, out, cache) as queue:
        for run in _done_here(queue, grid, watcher, out):
            watcher.end(run)
            if run.result.status == "interrupted":
                return


def _queue(
    grid: Mapping[str, PlannedSearch], config: Mapping[str, Any], out: Path, cache: Path | None
) -> SearchQueue:
    return SearchQueue(out, grid, _resumed(config, out), cache)


@contextlib.contextmanager
def _removed_on_error(queue: SearchQueue) -> Iterator[None]:
    """Remove a study's store if its controls cannot be scored, unless others have begun on it."""
    try:
        yield
    except StoreError:
        raise
    # Any other error: a task may come from anyone. It goes on to whoever called.
    except Exception:
        begun = any(run.owner or run.used for run in queue.store.runs())
        begun = begun or queue.store.requests.any  # paid for
        queue.close()
        if not begun:
            for path in queue.folder.glob(f"{FILE}*"):  # the log of a reader, too
                path.unlink()
        raise


def _resumed(config: Mapping[str, Any], out: Path) -> Mapping[str, Any]:
    """A config to go on with: what decides no search is as the study in `out` was begun with."""
    if not config or not (out / FILE).exists():
        return config
    with Store(out / FILE) as store:
        kept = store.spec.get("config", {})
    # References may be asked for later.
    trained = {key: kept[key] for key in ("references",) if key in kept}
    return {**_reached(config, kept), **trained}


def _reach_as_now(queue: SearchQueue, config: Mapping[str, Any]) -> None:
    """Have all who load the study later, helpers first, reach its servers as a config of today."""
    if config and (reached := _reached(queue.config, config)) != queue.config:
        queue.store.change_config(lambda kept: _reached(kept, config))
        queue.config = reached  # for the machines of a cluster


def _reached(config: Any, like: Any) -> Any:
    """A section of a config with its servers reached as in another one."""
    if isinstance(config, list) and isinstance(like, list) and len(config) == len(like):
        return [_reached(*pair) for pair in zip(config, like, strict=True)]
    if not (isinstance(config, Mapping) and isinstance(like, Mapping)):
        return config
    passing = PASSING if config.get("url") else ()
    own = {key: _reached(v, like.get(key)) for key, v in config.items() if key not in passing}
    return own | {key: like[key] for key in passing if key in like}


@contextlib.contextmanager
def helpers(
    experiment: Experiment,
    out: Path,
    count: int,
    cache: Path | None = None,
    track: Sequence[str] = (),
) -> Iterator[Callable[[], None]]:
    """Other processes that help with a comparison; what they still do at the end is let go.

    Yields:
        What warns of each that has failed since it was called last.
    """
    if count > 0 and not experiment.config:
        raise ValueError("several workers need an experiment that was loaded from a file; use one")
    command = [sys.executable, "-m", "rlprompt.cli", "work", str(out)]
    if cache:
        command += ["--cache", str(cache)]
    command += [f"--track={one}" for one in track]
    helping: dict[int, subprocess.Popen[bytes]] = {}

    def tell_lost() -> None:
        for number in [one for one, process in helping.items() if process.poll()]:
            logger.warning(
                "worker %d ended with exit code %d; the others do its searches, and %s says why",
                *(number, helping.pop(number).returncode, out / f"worker-{number}.log"),
            )

    with contextlib.ExitStack() as stack:
        for number in range(2, count + 2):
            # Beside the results, so that a helper that cannot start is not a riddle.
            log = stack.enter_context((out / f"worker-{number}.log").open("w"))
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            helping[number] = process
        yield tell_lost


def load_again(config: Config, out: Path) -> list[Experiment]:
    """What a config describes, loaded, in the dtypes of the study in `out` if there is one.

    `dtype: auto` takes what is fast on the machine of the day; a study goes on as it began, and
    its searches are called what they were.

    Raises:
        ValueError: Something in the config is wrong.
        AssetError: Bundled data or model could not be fetched.
        StoreError: The study cannot be read.
    """
    dtypes, begun = list[str](), list[str]()
    if (out / FILE).exists():
        with Store(out / FILE) as store:
            begun = list(store.spec.get("runs", ()))
            dtypes = kept_dtypes(config, store) if config.dtype == "auto" else []
    return load_experiments(config, dtypes, begun=begun)


def with_control(config: Config, out: Path) -> Config:
    """The config with random search in it, unless the study in `out` was begun without.

    Raises:
        StoreError: The study cannot be read.
    """
    if not (out / FILE).exists():
        return config.with_random()
    with Store(out / FILE) as store:
        begun = store.spec.get("config", {}).get("optimisers", ())
    return config.with_random() if any(one["name"] == RANDOM for one in begun) else config


def kept_dtypes(config: Config, store: Store) -> list[str]:
    """The dtype of each model of a config in the study that was made from it."""
    titles = [title for title, _ in config.all_models]
    several = len(titles) > 1
    # In a run's name the model comes before the budget, each where there are several.
    place = -3 if len(config.all_budgets) > 1 else -2
    kept: dict[str, str] = {}
    for run in store.runs():
        own = run.name.split("/")[place:][0] if several else ""
        kept.setdefault(own, run.spec["model"]["dtype"])
    parts = map(file_part, short_names(titles)) if several else [""]
    # One that the study does not know is refused where the study is opened.
    return [kept.get(part, config.dtype) for part in parts]


def _kept(queue: SearchQueue, grid: Mapping[str, PlannedSearch], last: Run | None) -> list[Run]:
    """What the store holds of runs that have ended, whoever did them, and the last one."""
    runs = {
        run.name: _ended(grid[run.name], run, run.result)
        for run in queue.runs()
        if run.result is not None
    }
    if last is not None:
        runs.setdefault(last.search.name, last)
    return [runs[name] for name in grid if name in runs]


def _ended(search: PlannedSearch, kept: StoredRun, result: Result) -> Run:
    """A search with what came of it, and the files that it was planned with, as they were then."""
    return Run(search, result, kept.error, kept.spec.get(SOURCE, {}))


def _sections(
    experiments: Mapping[str, Experiment],
    controls: Controls,
    references: Sequence[ReferenceEntry],
    runs: Sequence[Run],
) -> Iterator[Section]:
    """A section for each experiment, by heading, in order."""
    for heading, experiment in experiments.items():
        own = tuple(run for run in runs if run.search.heading == heading)
        cell = experiment.cell
        trained = tuple(one for one in references if (one.task, one.split_seed, one.model) == cell)
        yield Section(experiment, controls_of(experiment, controls), own, heading, trained)


def _done_here(
    queue: SearchQueue, grid: Mapping[str, PlannedSearch], watcher: Watcher, out: Path
) -> Generator[Run]:
    """Do searches until all have ended, and yield what came of each."""
    for key in queue.claimed():
        watcher.begin(grid[key])
        yield _run(queue, grid[key], watcher, out)


def _done_elsewhere(
    queue: SearchQueue, grid: Mapping[str, PlannedSearch], watcher: Watcher, out: Path, cluster: Ray
) -> Generator[Run]:
    """The same on a cluster; the watcher hears of a search when it has ended."""
    with contextlib.closing(searched(queue, cluster)) as ended:
        for key, details in ended:
            watcher.begin(grid[key])
            kept = queue.store.run(key)
            if kept.error:
                _write_error(out, key, details)
            if kept.result is not None:
                yield _ended(grid[key], kept, kept.result)


def _write_error(out: Path, name: str, details: str) -> None:
    path = out / "runs" / f"{name}.error.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, details.encode())


def _run(queue: SearchQueue, search: PlannedSearch, watcher: Watcher, out: Path) -> Run:
    try:
        result = queue.run(search.name, watcher.update)
        return Run(search, result, source=search.source)  # as it was planned, or opening refused it
    # Any error: an optimiser may come from anyone, and the other searches must not be lost with
    # it. Nothing is hidden: it is reported, kept with its traceback, and decides the exit code.
    except Exception:
        kept = queue.store.run(search.name)
        if kept.result is None:
            raise
        _write_error(out, search.name, traceback.format_exc())
        return _ended(search, kept, kept.result)
