"""A folder of searches that can be killed at any moment and goes on as if nothing had happened.

A `SearchQueue` gives its searches, one at a time, to whoever works on it: this process, or several
that opened the same folder. Each is claimed, replayed as far as it had come, finished, and kept.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from itertools import filterfalse
from pathlib import Path
from typing import Any

from rlprompt._utils.text import error_line
from rlprompt.models.pool import PooledLM
from rlprompt.models.served.lm import ServedLM
from rlprompt.search.budget import Ledger
from rlprompt.search.memo import Memo
from rlprompt.search.result import Result
from rlprompt.store.database import StoreError
from rlprompt.store.heartbeat import Heartbeat, has_ended
from rlprompt.store.shared_cache import Cache, SharedMemo
from rlprompt.store.store import FILE, Store, StoredRun, without
from rlprompt.studies.planned_search import PlannedSearch
from rlprompt.studies.provenance import here

logger = logging.getLogger(__name__)

# How often a worker that has nothing to do looks whether another has died.
POLL_SECONDS = 0.5


class SearchQueue:
    """The searches of a study that this process works on; a context that holds the study's store.

    Args:
        folder: Where `study.sqlite` is, made if it is not there.
        searches: By name.
        config: What the searches were made from, JSON values.
        cache: File of answers that studies share, made if it is not there; None for none.

    Raises:
        StoreError: The store cannot be used, or holds a study that was made differently.
    """

    def __init__(
        self,
        folder: Path,
        searches: Mapping[str, PlannedSearch],
        config: Mapping[str, Any],
        cache: Path | None = None,
    ) -> None:
        self.folder = folder
        self.searches = searches
        self.config = config
        self.cache = cache
        self._stack = contextlib.ExitStack()
        self.store = self._stack.enter_context(Store(folder / FILE))
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            # First, so that whoever watches never sees searches without somebody at them.
            self._heartbeat = self._stack.enter_context(Heartbeat(folder / FILE))
            self._stack.enter_context(self._at_work())
            self.store.plan(config, {name: one.spec for name, one in searches.items()})
            for one in searches.values():
                if isinstance(one.lm, ServedLM):
                    one.lm.keep_answers(self.store.requests)
                    self._stack.callback(one.lm.let_go)
            self._shared = self._stack.enter_context(Cache(cache)) if cache else None
            undo.pop_all()

    def __enter__(self) -> SearchQueue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """Have whoever watches the study know that this process works on it."""
        own = self._heartbeat.name
        self.store.change_workers(lambda there: [*filterfalse(has_ended, there), own])
        try:
            yield
        finally:
            # Where it cannot be said, it is seen once the process has ended.
            with contextlib.suppress(StoreError):
                self.store.change_workers(partial(without, own))

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
            others = [run.name for run in self.runs() if run.state == "running"]
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
        dead = self._heartbeat.takes_for_dead
        known = self.searches.keys()
        return self.store.claim(self._heartbeat.name, only=known, prefer=prefer, dead=dead)

    def runs(self) -> list[StoredRun]:
        """Its searches as the store has them; another process may have added seeds to these."""
        return [run for run in self.store.runs() if run.name in self.searches]

    def has_work(self) -> bool:
        """Whether there is a search to claim."""
        dead = self._heartbeat.takes_for_dead
        return any(
            run.state == "waiting"
            or (run.state == "running" and dead(run.name, run.owner, run.beat))
            for run in self.runs()
        )

    def _at_hand(self) -> set[str]:
        """Names of the searches whose model need not be loaded."""
        return {
            name
            for name, one in self.searches.items()
            if not isinstance(one.lm, PooledLM) or one.lm.in_memory
        }

    def memo(self, name: str) -> Memo:
        """What a search that was claimed is told: from the store, the cache, and then the model."""
        task, lm = self.searches[name].task, self.searches[name].lm
        record = self.store.record(name, lm, task, self._heartbeat.name)
        return SharedMemo(record, self._shared, lm, task) if self._shared else record

    def end(self, name: str, result: Result | None, error: str = "") -> None:
        """Keep what came of a search that was claimed, and let it go.

        Args:
            name: Its name.
            result: What it found, in part if an error or an interruption ended it; None for
                nothing.
            error: What ended it, in a line, or "".
        """
        if error:  # also one before it began: a run that failed is seen by its result
            found = result or self.searches[name].nothing
            self.store.fail(name, self._heartbeat.name, error, found)
        elif result is not None and result.status == "finished":
            self.store.finish(name, self._heartbeat.name, result)
        else:
            self.store.release(name, self._heartbeat.name)

    def run(self, name: str, on_progress: Callable[[Ledger], None] | None = None) -> Result:
        """Go on with a search that was claimed, and keep what came of it.

        Returns:
            The result. One that was interrupted is let go, for whoever goes on with it.

        Raises:
            StoreError: An answer could not be kept. The search can go on from there later.
            Exception: Whatever else ended the search. The run is marked as failed, with what it
                had found.
        """
        partial = list[Result]()
        self.store.note_environment(here())
        try:
            result = self.searches[name].run(self.memo(name), on_progress, partial.append)
        except StoreError:
            raise
        except Exception as error:
            line = error_line(error)
            self.end(name, partial[0] if partial else None, line)
            raise
        self.end(name, result)
        return result
