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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlprompt._utils.seeding import SEEDED_BY
from rlprompt._utils.text import error_line
from rlprompt.models.lm import FrozenLM
from rlprompt.models.pool import PooledLM
from rlprompt.models.served.lm import ServedLM
from rlprompt.prompt import Length, Pool, Start, checked_starts
from rlprompt.search.budget import Budget, Ledger
from rlprompt.search.memo import Memo
from rlprompt.search.optimiser import Optimiser
from rlprompt.search.result import Result, plain
from rlprompt.search.run import search
from rlprompt.search.selection import Selection
from rlprompt.store.database import StoreError
from rlprompt.store.heartbeat import Heartbeat
from rlprompt.store.shared_cache import Cache, SharedMemo
from rlprompt.store.store import FILE, Store
from rlprompt.studies.environment import here
from rlprompt.tasks.base import Task, prompt_rows

logger = logging.getLogger(__name__)

# How often a worker that has nothing to do looks whether another has died.
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class PlannedSearch:
    """One search of a study: arguments of `search`, and what it is called.

    Attributes:
        task: What a prompt is worth.
        lm: The frozen model.
        optimiser: The method.
        budget: What it may spend.
        seed: Decides everything random.
        length: Tokens of a prompt, exactly or in a range; see `search`.
        banned: Ids and words that no token prompt or start may use; see `search`.
        start: What it begins with; see `search`.
        tokens: What token prompts and random starts are made of; see `search`.
        name: What it is called in its study, and its files.
        method: The optimiser's name in the experiment.
        task_name: The task's name in the experiment.
        split_seed: Which draw of the examples it is on; None for the only one.
        heading: What tells its experiment from the others of the study, or "".
        selection: How its prompt is picked.
    """

    task: Task
    lm: FrozenLM
    optimiser: Optimiser[Any]
    budget: Budget
    seed: int
    length: int | Length
    banned: Collection[str | int]
    start: Start | Sequence[Start] = "vocabulary"
    tokens: str | Mapping[str, int] | Pool = "all"
    name: str = ""
    method: str = ""
    task_name: str = ""
    split_seed: int | None = None
    heading: str = ""
    selection: Selection = field(default_factory=Selection)

    @property
    def title(self) -> str:
        """How to call it in a sentence."""
        place = f"{self.heading}: " if self.heading else ""
        return f"{place}{self.method}, seed {self.seed}"

    @property
    def prompt_rows(self) -> int:
        """Rows that one prompt costs."""
        return prompt_rows(self.task)

    @property
    def spec(self) -> dict[str, Any]:
        """All that decides the result, as JSON values."""
        starts = checked_starts(self.start)
        return {
            "task": {
                "name": self.task.name,
                "fingerprint": self.task.fingerprint,
                "examples": self.task.splits.digest,
                "prompt_rows": self.prompt_rows,
            },
            "model": self.lm.fingerprint.content,
            "optimiser": type(self.optimiser).__name__,
            "settings": _plain(self.optimiser),
            "budget": _plain(self.budget),
            "seed": self.seed,
            "seeded by": SEEDED_BY,
            "length": plain(Length.of(self.length).simplest),
            "banned": sorted(map(str, self.banned)),
            "selection": dataclasses.asdict(self.selection),
            "start": [one if isinstance(one, str) else one.digest for one in starts],
            "tokens": Pool.of(self.tokens).simplest,
        }

    def run(
        self,
        memo: Memo | None = None,
        on_progress: Callable[[Ledger], None] | None = None,
        on_failure: Callable[[Result], None] | None = None,
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
            start=self.start,
            tokens=self.tokens,
            on_progress=on_progress,
            on_failure=on_failure,
            memo=memo,
            selection=self.selection,
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
            self.store.plan(config, {name: one.spec for name, one in searches.items()})
            for one in searches.values():
                if isinstance(one.lm, ServedLM):
                    one.lm.keep_answers(self.store.requests)
                    self._stack.callback(one.lm.let_go)
            self._shared = self._stack.enter_context(Cache(cache)) if cache else None
            self._heartbeat = self._stack.enter_context(Heartbeat(folder / FILE))
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
        dead = self._heartbeat.takes_for_dead
        return self.store.claim(self._heartbeat.name, prefer=prefer, dead=dead)

    def has_work(self) -> bool:
        """Whether there is a search to claim."""
        dead = self._heartbeat.takes_for_dead
        return any(
            run.state == "waiting"
            or (run.state == "running" and dead(run.name, run.owner, run.beat))
            for run in self.store.runs()
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
            result: What it found, in part if an error or an interruption ended it.
            error: What ended it, in a line, or "".
        """
        if error:
            self.store.fail(name, self._heartbeat.name, error, result)
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
