"""What is in a study, for people and other tools: its state, its ledger, a check of its answers.

Reads alone: it works while others write, and in a folder that cannot be written.
"""

from __future__ import annotations

import csv
import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, TextPrompt, TokenPrompt
from rlprompt.search.evaluation import evaluate
from rlprompt.search.result import Result, Score
from rlprompt.store.database import StoreError
from rlprompt.store.heartbeat import has_ended
from rlprompt.store.store import FILE, Store, StoredRun, as_json, differences
from rlprompt.studies.study import PlannedSearch
from rlprompt.tasks.base import Task

COLUMNS = ("run", "prompt", "rows", "reward", "best", "gradient", "ids", "text", "digest")
LISTS = ("examples", "per_example")
# A stored score and one computed today differ by rounding alone. Packed and plain float32 scores of
# the default model differ by 3e-5 nats, its bfloat16 ones by 5e-2; the reward `gap` stretches nats
# by up to 180. Some times that is allowed.
TOLERANCE = {"float32": 5e-2}
TOLERANCE_16_BIT = 20.0


@dataclass(frozen=True)
class LedgerEntry:
    """A prompt in the ledger of a run.

    Attributes:
        prompt: The prompt; None for a soft prompt that was not the best of its batch.
        digest: Its content hash.
        rows: Rows spent when its reward was known.
        reward: Mean over all train examples; None as long as some have not been scored.
        examples: Places in train of those scored here, None for all.
        per_example: Rewards on these, (E,) of them.
        gradient: Whether its gradient was taken.
        outputs: What the model wrote for each train example, (E,) texts, or None.
    """

    prompt: Prompt | None
    digest: str
    rows: int
    reward: float | None
    examples: tuple[int, ...] | None
    per_example: tuple[float, ...]
    gradient: bool
    outputs: tuple[str, ...] | None = None

    @property
    def title(self) -> str:
        """How to tell the prompt in a line: its ids, its text, or its content hash."""
        if isinstance(self.prompt, TextPrompt):
            return repr(self.prompt.text)
        if isinstance(self.prompt, TokenPrompt):
            return f"ids {' '.join(map(str, self.prompt.ids)) or '(none)'}"
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
        for prompt, digest, reward, rewards, outputs in zip(
            batch.prompts, batch.digests, batch.rewards, batch.per_example, written, strict=True
        ):
            rows += batch.cost
            yield LedgerEntry(
                prompt=prompt,
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


def export(store: Store, path: Path) -> int:
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


def _records(store: Store) -> Iterator[dict[str, Any]]:
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
                "text": entry.prompt.text if isinstance(entry.prompt, TextPrompt) else None,
                "digest": entry.digest,
                "examples": entry.examples,
                "per_example": entry.per_example,
                "outputs": entry.outputs,
            }


def _export_csv(store: Store, path: Path) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, (*COLUMNS, *LISTS), extrasaction="ignore")
        writer.writeheader()
        for count, record in enumerate(_records(store), 1):  # noqa: B007
            lists = {name: record[name] and json.dumps(record[name]) for name in LISTS}
            writer.writerow({**record, **lists})
    return count


def _export_json_lines(store: Store, path: Path) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for count, record in enumerate(_records(store), 1):  # noqa: B007
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return count


def _export_parquet(store: Store, path: Path) -> int:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError(
            "Parquet needs a package more: pip install 'rlprompt[parquet]', or give a name that "
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
    table = pyarrow.Table.from_pylist(list(_records(store)), schema)
    pyarrow.parquet.write_table(table.select([*COLUMNS, *LISTS]), path)
    return int(table.num_rows)


@dataclass(frozen=True)
class Verification:
    """What came of scoring a study's prompts again.

    Attributes:
        n_prompts: Prompts of the ledger that were scored again.
        n_final: Scores of picked prompts that were computed again.
        largest: The largest difference of a reward on one example, or of a mean of the final ones.
        where: What differs the most, in words.
        tolerance: What rounding may make.
    """

    n_prompts: int
    n_final: int
    largest: float
    where: str
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the differences are no more than rounding."""
        return self.largest <= self.tolerance


def verify(
    store: Store, planned: Mapping[str, PlannedSearch], sample: int, seed: int = 0
) -> Verification:
    """Score a sample of a study's prompts and the picked ones of its finished runs again.

    Args:
        store: The study's.
        planned: Its searches by name, as they are today.
        sample: Prompts of the ledger a run, at most.
        seed: Decides which.

    Raises:
        ValueError: Model, task or data are not those of the study, so nothing is scored.
    """
    check_unchanged(store.runs(), planned)
    rng, gaps, n_final = np.random.default_rng(seed), [(0.0, "nothing")], 0
    n_prompts = 0
    for run in store.runs():
        search = planned[run.name]
        entries = [entry for entry in ledger(store, run.name) if entry.prompt is not None]
        chosen = rng.permutation(len(entries))[:sample]
        gaps += _ledger_gaps(search, run.name, [entries[i] for i in sorted(chosen)])
        n_prompts += len(chosen)
        final = [] if run.state != "finished" or run.result is None else _final(search, run.result)
        gaps += final
        n_final += len(final)
    largest, where = max(gaps)
    dtype = next(iter(planned.values())).lm.fingerprint.dtype
    return Verification(n_prompts, n_final, largest, where, TOLERANCE.get(dtype, TOLERANCE_16_BIT))


def check_unchanged(runs: Sequence[StoredRun], planned: Mapping[str, PlannedSearch]) -> None:
    """Refuse searches that are not what a study's runs were.

    Raises:
        ValueError: Model, task or data are others today; the message shows the difference.
    """
    changed = [
        line
        for run in runs
        for now in [planned[run.name].as_begun(run.spec)]
        for line in differences(run.spec, as_json(now.spec))
    ]
    if changed:
        raise ValueError(
            "this is not what the study was made with, so its answers are not compared:\n  "
            + "\n  ".join(dict.fromkeys(changed))
        )


def _ledger_gaps(
    search: PlannedSearch, name: str, entries: Sequence[LedgerEntry]
) -> list[tuple[float, str]]:
    train = search.task.splits.train
    blocks: dict[tuple[int, ...] | None, list[LedgerEntry]] = {}
    for entry in entries:
        blocks.setdefault(entry.examples, []).append(entry)
    found = []
    for places, own in blocks.items():
        examples = train if places is None else [train[i] for i in places]
        prompts = [entry.prompt for entry in own if entry.prompt is not None]
        again = search.task.rewards(search.lm, prompts, examples)
        gaps = np.abs(again - np.array([entry.per_example for entry in own])).max(axis=1)
        found += [
            (float(gap), f"{name}, prompt {entry.digest}")
            for gap, entry in zip(gaps, own, strict=True)
        ]
    return found


def _final(search: PlannedSearch, result: Result) -> list[tuple[float, str]]:
    if not result.candidates:
        return []
    scores: dict[str, Score | None] = {
        split: getattr(result.best, split) for split in ("train", "dev", "test")
    }
    return [
        (
            abs(_mean(search.task, search.lm, result.best.prompt, split) - score.reward),
            f"{split} score",
        )
        for split, score in scores.items()
        if score is not None
    ]


def _mean(task: Task, lm: FrozenLM, prompt: Prompt, split: str) -> float:
    return evaluate(task, lm, prompt, split).reward


def is_left(run: StoredRun) -> bool:
    """Whether a run stands still, since the process of this machine that had it is gone."""
    return run.state == "running" and has_ended(run.owner)


def state_line(run: StoredRun) -> str:
    """A run in a line: state, rows, best reward, seconds."""
    budget = run.spec.get("budget", {}).get("rows", 0)
    reward = "" if run.best_reward is None else f", best {run.best_reward:.2f}"
    marks = "" if run.strayed is None else f", strayed at batch {run.strayed}"
    error = f", {run.error}" if run.error else ""
    state = "interrupted" if is_left(run) else run.state
    return (
        f"{run.name}: {state}, {run.used:,}/{budget:,} rows, {run.seconds:.0f} s"
        f"{reward}{marks}{error}"
    )
