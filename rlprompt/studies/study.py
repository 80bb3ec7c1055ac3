"""A folder of searches that can be killed at any moment and goes on as if nothing had happened.

A `Study` gives its searches, one at a time, to whoever works on it: this process, or several that
opened the same folder. Each search is claimed, replayed as far as it had come, finished, and kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlprompt.models.lm import FrozenLM
from rlprompt.models.pool import PooledLM
from rlprompt.search.budget import Ledger
from rlprompt.search.evaluation import Scores
from rlprompt.search.memo import Answers
from rlprompt.search.objective import Budget
from rlprompt.search.result import Result
from rlprompt.search.run import Optimiser, search
from rlprompt.store.database import StoreError
from rlprompt.store.heartbeat import Worker
from rlprompt.store.shared_cache import Cache, Cached
from rlprompt.store.store import EXTRA_ROWS, FILE, Store
from rlprompt.tasks.base import Task, prompt_rows

logger = logging.getLogger(__name__)

# How often a worker that has nothing to do looks whether another has died.
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Job:
    """One search of a study; its fields are arguments of `search`."""

    task: Task
    lm: FrozenLM
    optimiser: Optimiser
    budget: Budget
    seed: int
    length: int
    banned: Collection[str | int]

    @property
    def spec(self) -> dict[str, Any]:
        """All that decides the result, as JSON values."""
        fingerprint = dataclasses.asdict(self.lm.fingerprint)
        # A model by another name, or the same folder somewhere else, gives the same scores.
        del fingerprint["model"], fingerprint["revision"]
        extra = prompt_rows(self.task) - len(self.task.splits.train)
        return {
            "task": {
                "name": self.task.name,
                "fingerprint": self.task.fingerprint,
                "examples": self.task.splits.digest,
                **({EXTRA_ROWS: extra} if extra else {}),
            },
            "model": fingerprint,
            "optimiser": type(self.optimiser).__name__,
            "settings": _plain(self.optimiser),
            "budget": _plain(self.budget),
            "seed": self.seed,
            "length": self.length,
            "banned": sorted(map(str, self.banned)),
        }

    def run(
        self,
        answers: Answers | None = None,
        on_progress: Callable[[Ledger], None] | None = None,
        on_failure: Callable[[Result], None] | None = None,
        scores: Scores | None = None,
    ) -> Result:
        """Do the search; see `search`."""
        return search(
            self.task,
            self.lm,
            self.optimiser,
            self.budget,
            seed=self.seed,
            length=self.length,
            banned=self.banned,
            on_progress=on_progress,
            on_failure=on_failure,
            answers=answers,
            scores=scores,
        )


def _plain(settings: Any) -> Any:
    """The fields of a dataclass as JSON values, without infinities, which JSON does not have."""
    if not dataclasses.is_dataclass(settings) or isinstance(settings, type):
        return repr(settings)
    return {
        key: value
        for key, value in dataclasses.asdict(settings).items()
        if not (isinstance(value, float) and math.isinf(value))
    }


class Study:
    """A study that this process works on; a context that holds its store.

    Args:
        folder: Where `study.sqlite` is, made if it is not there.
        jobs: Its searches by name.
        config: What the searches were made from, JSON values.
        cache: File of answers that studies share, made if it is not there; None for none.

    Raises:
        StoreError: The store cannot be used, or holds a study that was made differently.
    """

    def __init__(
        self,
        folder: Path,
        jobs: Mapping[str, Job],
        config: Mapping[str, Any],
        cache: Path | None = None,
    ) -> None:
        self.folder = folder
        self.jobs = jobs
        self.config = config
        self.cache = cache
        self._stack = contextlib.ExitStack()
        self.store = self._stack.enter_context(Store(folder / FILE))
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self.store.plan(config, {name: job.spec for name, job in jobs.items()})
            self._shared = self._stack.enter_context(Cache(cache)) if cache else None
            self._worker = self._stack.enter_context(Worker(folder / FILE))
            undo.pop_all()

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store; searches that are under way here may be taken by others."""
        self._stack.close()

    def claimed(self) -> Iterator[str]:
        """Names of searches for this process to `run`, until all have come to an end.

        Those of a model that is in memory come first. While other workers have what is left, wait:
        a search whose worker died is claimed here.
        """
        waiting = False
        while True:
            name = self.claim(self._at_hand())
            if name:
                yield name
                waiting = False
                continue
            others = [run.name for run in self.store.runs() if run.state == "running"]
            if not others:
                return
            if not waiting:
                logger.info("waiting for other workers: %s", ", ".join(others))
                waiting = True
            time.sleep(POLL_SECONDS)

    def claim(self, prefer: Collection[str] = ()) -> str | None:
        """Take a search for this process, one that is preferred if there is one.

        Returns:
            Its name, or None where none waits to be taken.
        """
        dead = self._worker.takes_for_dead
        return self.store.claim(self._worker.name, prefer=prefer, dead=dead)

    def has_work(self) -> bool:
        """Whether there is a search to claim."""
        dead = self._worker.takes_for_dead
        return any(
            run.state == "waiting"
            or (run.state == "running" and dead(run.name, run.owner, run.beat))
            for run in self.store.runs()
        )

    def _at_hand(self) -> set[str]:
        """Names of the searches whose model need not be loaded."""
        return {
            name
            for name, job in self.jobs.items()
            if not isinstance(job.lm, PooledLM) or job.lm.in_memory
        }

    def answers(self, name: str) -> Answers:
        """What a search that was claimed is told: from the store, the cache, and then the model."""
        job = self.jobs[name]
        record = self.store.record(name, job.lm, job.task, self._worker.name)
        return Cached(record, self._shared, job.lm, job.task) if self._shared else record

    def scores(self, name: str) -> Scores:
        """The same for its scores outside the budget."""
        return self.store.scores(self.jobs[name].lm, self.jobs[name].task)

    def end(self, name: str, result: Result | None, error: str = "") -> None:
        """Keep what came of a search that was claimed, and let it go.

        Args:
            name: Its name.
            result: What it found, in part if an error or an interruption ended it.
            error: What ended it, in a line, or "".
        """
        if error:
            self.store.fail(name, self._worker.name, error, result)
        elif result is not None and result.status == "finished":
            self.store.finish(name, self._worker.name, result)
        else:
            self.store.release(name, self._worker.name)

    def run(self, name: str, on_progress: Callable[[Ledger], None] | None = None) -> Result:
        """Go on with a search that was claimed, and keep what came of it.

        Returns:
            The result. One that was interrupted is let go, for whoever goes on with it.

        Raises:
            StoreError: An answer could not be kept. The search can go on from there later.
            Exception: Whatever else ended the search. The run is marked as failed, with what it
                had found.
        """
        job, partial = self.jobs[name], list[Result]()
        try:
            result = job.run(self.answers(name), on_progress, partial.append, self.scores(name))
        except StoreError:
            raise
        except Exception as error:
            line = " ".join(f"{type(error).__name__}: {error}".split())
            self.end(name, partial[0] if partial else None, line)
            raise
        self.end(name, result)
        return result
