"""What a study remembers: its runs, and every answer that was paid for.

Resume is replay. A search is decided by its seed and the answers that it gets, so one that was
killed begins again from the start, and its `Record` answers what was answered before, until the
search is where it stopped. That holds for every method, and none has a state to save.

Answers are found by content: a hash of the model (`Fingerprint`), the task (template,
label words, reward, examples) and the prompts, so the runs of a study share them. A question is a
whole batch, as the model gets it. Answers to single prompts would be found more often, but the
last bit of a score depends on what it was computed together with, and the result of a run would
depend on which runs went before it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlprompt._utils.identity import identity
from rlprompt._utils.suggest import advice
from rlprompt.prompt import Prompt
from rlprompt.search.memo import texts
from rlprompt.search.result import Result, prompt_from_state
from rlprompt.store.changes import has_more_seeds, refusal
from rlprompt.store.database import PATIENCE, Database, StoreError
from rlprompt.store.record import Record, StoredMemo, check_owner
from rlprompt.store.requests import StoredRequests
from rlprompt.store.schema import STUDY
from rlprompt.types import Floats, Outputs

if TYPE_CHECKING:
    from rlprompt.models.lm import FrozenLM
    from rlprompt.tasks.base import Task

logger = logging.getLogger(__name__)

FILE = "study.sqlite"
# The document that says what computed something of a study.
ENVIRONMENTS = "environments"
# The document that names the processes that work on a study, with a search in hand or between two.
WORKERS = "workers"

# So many batches at a time: a long run need not fit into memory.
_PAGE = """
    SELECT position, prompts, digests, rewards, gradients IS NOT NULL, seconds, outputs, examples,
        completed, cost, texts
    FROM evaluations JOIN answers ON answers.id = answer
    WHERE run = ? AND position > ? ORDER BY position LIMIT 256
"""


@dataclass(frozen=True)
class StoredRun:
    """A run as the store knows it.

    Attributes:
        name: Its name in the study.
        spec: What decides it: task, model, optimiser, settings, seed, budget.
        owner: The worker that has it, or "".
        beat: Counts up while the owner lives.
        used: Rows charged.
        n_prompts: Prompts scored, repeats counted.
        best_reward: Highest mean train reward, or None before the first.
        seconds: Wall time of the rewards and gradients.
        strayed: The first batch in which a replay asked for something else than the run had asked
            for before (another machine's arithmetic, say), or None.
        error: What ended it, in a line, or "".
        result: What it found, once it is finished or failed.
    """

    name: str
    spec: Mapping[str, Any]
    owner: str
    beat: int
    used: int
    n_prompts: int
    best_reward: float | None
    seconds: float
    strayed: int | None
    error: str
    result: Result | None

    @property
    def state(self) -> str:
        """`finished`, `failed`, `running` or `waiting`."""
        if self.error:
            return "failed"
        if self.result is not None:
            return "finished"
        return "running" if self.owner else "waiting"


@dataclass(frozen=True)
class StoredBatch:
    """A batch of a run.

    Attributes:
        digests: (P,) content hashes of its prompts.
        prompts: (P,) prompts; of soft prompts only the best of the batch, None for the others.
        texts: (P,) texts of those that are tokens; None for others.
        per_example: (P, E) float64.
        rewards: (P,) float64, means over all train examples: of a batch on a part of them those of
            the prompts that were scored on the others before, and NaN for the rest.
        examples: Places of the E examples in train, None for all.
        gradient: Whether gradients were taken.
        seconds: Wall time when it was computed.
        outputs: (P, E) texts that the model wrote, or None.
        cost: Rows that one of its prompts was charged.
    """

    digests: tuple[str, ...]
    prompts: tuple[Prompt | None, ...]
    texts: tuple[str | None, ...]
    per_example: Floats
    rewards: Floats
    examples: tuple[int, ...] | None
    gradient: bool
    seconds: float
    outputs: Outputs | None
    cost: int


class Store:
    """The database of one study, in its folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Store(Path(folder, FILE)) as store:
    ...     len(store.runs())
    0

    Args:
        path: The file, made if it is not there.
        read_only: Change nothing; works in a folder that cannot be written.
        patience: Seconds that a lock or a full disk is waited for.

    Raises:
        StoreError: The file cannot be used.
    """

    def __init__(self, path: Path, *, read_only: bool = False, patience: float = PATIENCE) -> None:
        self.path = path
        self._database = Database(path, STUDY, read_only=read_only, patience=patience)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def plan(self, spec: Mapping[str, Any], runs: Mapping[str, Mapping[str, Any]]) -> None:
        """Enter a study's runs, or see that they are the ones that are there, but for more seeds.

        Args:
            spec: What the study was made from, JSON values.
            runs: Of each run by name: all that decides its result, JSON values.

        Raises:
            StoreError: The file holds another study; the message shows the difference.
        """
        planned = as_json({"config": spec, "runs": runs})

        def steps(connection: sqlite3.Connection) -> None:
            there = connection.execute("SELECT spec FROM study").fetchone()
            known: set[str] = set()
            if there is not None:
                begun = json.loads(there[0])
                if not has_more_seeds(begun, planned):
                    if found := refusal(begun, planned):
                        raise StoreError(f"{self.path} {found}")
                    return
                known = set(begun["runs"])
                planned["runs"] |= begun["runs"]  # as it was begun
            connection.execute("DELETE FROM study")
            connection.execute("INSERT INTO study VALUES (?)", (json.dumps(planned),))
            connection.executemany(
                "INSERT INTO runs (name, spec) VALUES (?, ?)",
                [(k, json.dumps(run)) for k, run in planned["runs"].items() if k not in known],
            )

        self._database.write(steps)

    @property
    def spec(self) -> dict[str, Any]:
        """What the study was made from: `config`, and `runs` by name; empty before `plan`."""
        rows = self._database.read("SELECT spec FROM study")
        return dict(json.loads(rows[0][0])) if rows else {}

    def change_config(self, change: Callable[[Any], Any]) -> None:
        """Put another `config` into `spec`, which differs in what decides no search.

        Args:
            change: Gives it, JSON values, for the one that is there.
        """

        def steps(connection: sqlite3.Connection) -> None:
            spec = json.loads(connection.execute("SELECT spec FROM study").fetchone()[0])
            changed = {**spec, "config": as_json(change(spec["config"]))}
            connection.execute("UPDATE study SET spec = ?", (json.dumps(changed),))

        self._database.write(steps)

    def runs(self) -> list[StoredRun]:
        """All runs, in the order they were planned."""
        columns = [field.name for field in dataclasses.fields(StoredRun)]
        rows = self._database.read(f"SELECT {', '.join(columns)} FROM runs ORDER BY id")
        runs = []
        for row in rows:
            state = dict(zip(columns, row, strict=True))
            state["spec"] = json.loads(state["spec"])
            state["result"] = state["result"] and Result.from_json(state["result"])
            runs.append(StoredRun(**state))
        return runs

    def run(self, name: str) -> StoredRun:
        """The run of that name.

        Raises:
            ValueError: There is none.
        """
        runs = {run.name: run for run in self.runs()}
        if name not in runs:
            raise ValueError(f"{self.path} has no run {name!r}{advice(name, runs)}")
        return runs[name]

    def claim(
        self,
        worker: str,
        *,
        only: Collection[str] | None = None,
        prefer: Collection[str] = (),
        dead: Callable[[str, str, int], bool],
    ) -> str | None:
        """Take a run that waits or whose owner is dead, the first there is.

        Args:
            worker: Who takes it.
            only: Names of the runs that it knows, or None for any.
            prefer: Names of runs that come before the others.
            dead: Whether an owner is dead, given the run's name, the owner's, and the run's beat.

        Returns:
            The run's name, or None.
        """
        claimable = "result IS NULL AND error = ''"
        listed = f"SELECT id, name, owner, beat FROM runs WHERE {claimable} ORDER BY id"

        def steps(connection: sqlite3.Connection) -> str | None:
            rows = connection.execute(listed).fetchall()
            for run, name, owner, beat in sorted(rows, key=lambda row: row[1] not in prefer):
                if only is not None and name not in only:
                    continue
                if owner and not dead(name, owner, beat):
                    continue
                if owner:
                    logger.warning("continuing %s, since its worker %s has stopped", name, owner)
                    _change(connection, WORKERS, partial(without, owner))
                connection.execute(
                    "UPDATE runs SET owner = ?, beat = beat + 1 WHERE id = ?", (worker, run)
                )
                return str(name)
            return None

        return self._database.write(steps)

    def beat(self, worker: str) -> None:
        """Show that a worker lives."""
        self._database.write(
            lambda connection: connection.execute(
                "UPDATE runs SET beat = beat + 1 WHERE owner = ?", (worker,)
            )
        )

    def record(self, name: str, lm: FrozenLM, task: Task, worker: str) -> Record:
        """The answers of a run that `worker` has claimed, from its beginning."""
        return Record(self._database, lm, task, name, worker)

    @property
    def requests(self) -> StoredRequests:
        """The answers of servers, request by request."""
        return StoredRequests(self._database)

    def memo(self, lm: FrozenLM, task: Task, apart: str = "") -> StoredMemo:
        """The answers that no run asked for, such as the scores of controls; see `StoredMemo`."""
        return StoredMemo(self._database, lm, task, apart)

    def document(self, name: str) -> str | None:
        """What was kept under a name that is no run's, or None."""
        rows = self._database.read("SELECT content FROM documents WHERE name = ?", name)
        return str(rows[0][0]) if rows else None

    def keep_document(self, name: str, content: str) -> None:
        """Keep a text under a name, in the place of what was there."""
        self._database.write(
            lambda connection: connection.execute(
                "INSERT OR REPLACE INTO documents VALUES (?, ?)", (name, content)
            )
        )

    @property
    def environments(self) -> list[dict[str, Any]]:
        """What computed something of the study, as `note_environment` was told, the first first."""
        return list(json.loads(self.document(ENVIRONMENTS) or "[]"))

    def note_environment(self, environment: Mapping[str, Any]) -> None:
        """Keep what a process runs on, JSON values, unless all but its `started` is there."""

        def noted(seen: list[dict[str, Any]]) -> list[dict[str, Any]]:
            known = any({**environment, "started": one["started"]} == one for one in seen)
            return seen if known else [*seen, dict(environment)]

        self._database.write(lambda connection: _change(connection, ENVIRONMENTS, noted))

    @property
    def workers(self) -> list[str]:
        """Who works on the study, as far as they said so; some may have died since."""
        return list(json.loads(self.document(WORKERS) or "[]"))

    def change_workers(self, change: Callable[[list[str]], list[str]]) -> None:
        """Keep who works on the study, given those who did until now."""
        self._database.write(lambda connection: _change(connection, WORKERS, change))

    def finish(self, name: str, worker: str, result: Result) -> None:
        """Keep the result of a run, which nobody has to do again."""
        self._leave(name, worker, "", result)

    def fail(self, name: str, worker: str, error: str, found: Result | None) -> None:
        """Note what ended a run, and what it had found; `retry` makes it wait again."""
        self._leave(name, worker, error, found)

    def release(self, name: str, worker: str) -> None:
        """Let a run go, for whoever goes on with it."""
        self._leave(name, worker, "", None)

    def retry(self) -> None:
        """Make failed runs wait again."""
        sql = "UPDATE runs SET error = '', result = NULL WHERE error <> ''"
        self._database.write(lambda connection: connection.execute(sql))

    def _leave(self, name: str, worker: str, error: str, result: Result | None) -> None:
        values = (error, result and result.to_json(), name, worker)

        def steps(connection: sqlite3.Connection) -> None:
            updated = connection.execute(
                "UPDATE runs SET owner = '', error = ?, result = ? WHERE name = ? AND owner = ?",
                values,
            )
            check_owner(updated, name)

        self._database.write(steps)

    def batches(self, name: str) -> Iterator[StoredBatch]:
        """The batches of a run, in order."""
        ((run,),) = self._database.read("SELECT id FROM runs WHERE name = ?", name)
        last = -1
        while page := self._database.read(_PAGE, run, last):
            last = page[-1][0]
            for _, prompts, digests, rewards, gradients, seconds, outputs, *placed in page:
                places, means, cost, read = placed
                states = json.loads(prompts)
                per_example = np.frombuffer(rewards, dtype="<f8").reshape(len(states), -1)
                yield StoredBatch(
                    tuple(digests[i : i + 16].hex() for i in range(0, len(digests), 16)),
                    tuple(state and prompt_from_state(state) for state in states),
                    tuple(json.loads(read)) if read else (None,) * len(states),
                    per_example,
                    per_example.mean(axis=1) if means is None else np.frombuffer(means, "<f8"),
                    None if places is None else tuple(json.loads(places)),
                    bool(gradients),
                    seconds,
                    texts(outputs),
                    cost,
                )


def _change(connection: sqlite3.Connection, name: str, change: Callable[[Any], Any]) -> None:
    """Keep something else under a name, given what there is, or an empty list."""
    sql = "SELECT content FROM documents WHERE name = ?"
    there = connection.execute(sql, (name,)).fetchone()
    now = json.dumps(change(json.loads(there[0]) if there else []))
    connection.execute("INSERT OR REPLACE INTO documents VALUES (?, ?)", (name, now))


def without(worker: str, workers: list[str]) -> list[str]:
    """The other workers."""
    return [one for one in workers if one != worker]


def as_json(value: Any) -> Any:
    """A value as it is read back from a store; what JSON does not know, by its `identity`."""
    return json.loads(json.dumps(value, default=identity))
