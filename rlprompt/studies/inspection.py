"""What is in a study, for people and other tools: its state and its ledger.

Reads alone, and no model: it works while others write, and in a folder that cannot be written.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from rlprompt._utils.csv_rows import csv_writer
from rlprompt.prompt import Prompt, TextPrompt, TokenPrompt
from rlprompt.store.database import StoreError
from rlprompt.store.heartbeat import has_ended
from rlprompt.store.store import FILE, Store, StoredRun

COLUMNS = ("run", "prompt", "rows", "reward", "best", "gradient", "ids", "text", "digest")
LISTS = ("examples", "per_example")


@dataclass(frozen=True)
class LedgerEntry:
    """A prompt in the ledger of a run.

    Attributes:
        prompt: The prompt; None for a soft prompt that was not the best of its batch.
        text: The text of a prompt that is one, or tokens; None for others.
        digest: Its content hash.
        rows: Rows spent when its reward was known.
        reward: Mean over all train examples; None as long as some have not been scored.
        examples: Places in train of those scored here, None for all.
        per_example: Rewards on these, (E,) of them.
        gradient: Whether its gradient was taken.
        outputs: What the model wrote for each train example, (E,) texts, or None.
    """

    prompt: Prompt | None
    text: str | None
    digest: str
    rows: int
    reward: float | None
    examples: tuple[int, ...] | None
    per_example: tuple[float, ...]
    gradient: bool
    outputs: tuple[str, ...] | None = None

    @property
    def title(self) -> str:
        """How to tell the prompt in a line: its text, its ids, or its content hash."""
        if isinstance(self.prompt, TextPrompt):
            return repr(self.prompt.text)
        if isinstance(self.prompt, TokenPrompt):
            ids = f"ids {' '.join(map(str, self.prompt.ids)) or '(none)'}"
            return ids if self.text is None else f"{self.text!r} ({ids})"
        return f"{'soft' if self.prompt is None else self.prompt.kind} {self.digest}"


def studies(folder: Path) -> dict[Path, list[StoredRun] | StoreError]:
    """The studies in a folder and the folders under it, with their runs, or why they have none."""
    found: dict[Path, list[StoredRun] | StoreError] = {}
    for path in sorted(folder.rglob(FILE)):
        try:
            with Store(path, read_only=True) as store:
                found[path.parent] = store.runs()
        except StoreError as error:  # the others can be listed all the same
            found[path.parent] = error
    return found


def ledger(store: Store, name: str) -> Iterator[LedgerEntry]:
    """What a run paid for, in order."""
    rows = 0
    for batch in store.batches(name):
        written = batch.outputs or (None,) * len(batch.prompts)
        for prompt, text, digest, reward, rewards, outputs in zip(
            batch.prompts,
            batch.texts,
            batch.digests,
            batch.rewards,
            batch.per_example,
            written,
            strict=True,
        ):
            rows += batch.cost
            yield LedgerEntry(
                prompt=prompt,
                text=prompt.text if isinstance(prompt, TextPrompt) else text,
                digest=digest,
                rows=rows,
                reward=None if np.isnan(reward) else float(reward),
                examples=batch.examples,
                per_example=tuple(rewards.tolist()),
                gradient=batch.gradient,
                outputs=outputs,
            )


def best(store: Store, name: str, count: int) -> list[LedgerEntry]:
    """The best distinct prompts of a run that may still go on, the best first."""
    seen: set[str] = set()

    def first_times() -> Iterator[tuple[float, int, LedgerEntry]]:
        for entry in ledger(store, name):
            if entry.prompt is None or entry.reward is None:
                continue
            if entry.digest not in seen:
                seen.add(entry.digest)
                yield entry.reward, -entry.rows, entry

    ranked = heapq.nlargest(count, first_times(), key=itemgetter(0, 1))
    return [entry for *_, entry in ranked]


def write_ledger(store: Store, path: Path) -> int:
    """Write the ledger of all runs: CSV or Parquet for a data frame, or JSON lines.

    A prompt that was scored on some train examples has their places in `examples`, and a `reward`,
    the mean over all of them, only once the others are scored, too. JSON lines alone hold what the
    model wrote, which may be large.

    Args:
        store: The study's.
        path: The file, replaced if it is there; its ending decides what is written.

    Returns:
        The number of prompts.

    Raises:
        ValueError: The name ends in something else, or Parquet lacks its package.
    """
    if path.suffix == ".csv":
        return _export_csv(store, path)
    if path.suffix == ".parquet":
        return _export_parquet(store, path)
    if path.suffix == ".jsonl":
        return _export_json_lines(store, path)
    raise ValueError(f"{path} does not end in .csv, .parquet or .jsonl")


def records(store: Store) -> Iterator[dict[str, Any]]:
    """The ledger of all runs, a record a prompt, as `write_ledger` writes them."""
    for run in store.runs():
        highest: float | None = None
        for i, entry in enumerate(ledger(store, run.name)):
            if entry.reward is not None:
                highest = entry.reward if highest is None else max(highest, entry.reward)
            ids = entry.prompt.ids if isinstance(entry.prompt, TokenPrompt) else None
            yield {
                "run": run.name,
                "prompt": i,
                "rows": entry.rows,
                "reward": entry.reward,
                "best": highest,
                "gradient": entry.gradient,
                "ids": None if ids is None else " ".join(map(str, ids)),
                "text": entry.text,
                "digest": entry.digest,
                "examples": entry.examples,
                "per_example": entry.per_example,
                "outputs": entry.outputs,
            }


def _export_csv(store: Store, path: Path) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        write = csv_writer(file)
        write((*COLUMNS, *LISTS))
        for count, record in enumerate(records(store), 1):  # noqa: B007
            lists = (record[name] and json.dumps(record[name]) for name in LISTS)
            write((*(record[name] for name in COLUMNS), *lists))
    return count


def _export_json_lines(store: Store, path: Path) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for count, record in enumerate(records(store), 1):  # noqa: B007
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return count


def _export_parquet(store: Store, path: Path) -> int:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError(
            "Parquet needs another package: pip install 'rlprompt[parquet]', or give a name that "
            "ends in .csv"
        ) from None
    schema = pyarrow.schema(
        [
            *((name, pyarrow.string()) for name in ("run", "ids", "text", "digest")),
            *((name, pyarrow.int64()) for name in ("prompt", "rows")),
            *((name, pyarrow.float64()) for name in ("reward", "best")),
            ("gradient", pyarrow.bool_()),
            ("examples", pyarrow.list_(pyarrow.int64())),
            ("per_example", pyarrow.list_(pyarrow.float64())),
        ]
    )
    table = pyarrow.Table.from_pylist(list(records(store)), schema)
    pyarrow.parquet.write_table(table.select([*COLUMNS, *LISTS]), path)
    return int(table.num_rows)


def is_left(run: StoredRun) -> bool:
    """Whether a run stands still, since the process of this machine that had it is gone."""
    return run.state == "running" and has_ended(run.owner)


def is_deserted(store: Store) -> bool:
    """Whether there are searches to go on with, and nobody works on the study."""
    workers = store.workers  # before the runs: the last one to leave has ended its run
    left = [run for run in store.runs() if run.state in ("waiting", "running")]
    owners = [run.owner for run in left if run.owner]
    return bool(left) and all(map(has_ended, (*workers, *owners)))


def state_of(run: StoredRun) -> dict[str, Any]:
    """A run as data: state, rows, best reward, seconds, and what is wrong with it."""
    return {
        "name": run.name,
        "state": "interrupted" if is_left(run) else run.state,
        "rows": run.used,
        "budget": run.spec.get("budget", {}).get("rows", 0),
        "seconds": run.seconds,
        "best_reward": run.best_reward,
        "strayed": run.strayed,
        "error": run.error,
    }


def state_line(run: StoredRun) -> str:
    """A run in a line: what `state_of` says."""
    said = state_of(run)
    reward = "" if run.best_reward is None else f", best {run.best_reward:.2f}"
    marks = "" if run.strayed is None else f", strayed at batch {run.strayed}"
    error = f", {run.error}" if run.error else ""
    return (
        f"{run.name}: {said['state']}, {run.used:,}/{said['budget']:,} rows, {run.seconds:.0f} s"
        f"{reward}{marks}{error}"
    )
