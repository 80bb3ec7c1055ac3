"""What a study holds, without what depends on the clock."""

from __future__ import annotations

from pathlib import Path

from fakes import timeless

from rlprompt.search.result import Result
from rlprompt.store.store import FILE, Store


def results(folder: Path) -> dict[str, Result]:
    """Of each run: everything but the seconds."""
    with Store(folder / FILE) as store:
        runs = store.runs()
    assert {run.state for run in runs} == {"finished"}
    assert all(run.strayed is None for run in runs)
    found = {run.name: run.result for run in runs}
    return {name: timeless(result) for name, result in found.items() if result}


def ledgers(folder: Path) -> dict[str, list[tuple[str, ...]]]:
    """Of each run: digests and rewards of all its batches."""
    with Store(folder / FILE) as store:
        return {
            run.name: [
                (*batch.digests, batch.per_example.tobytes().hex())
                for batch in store.batches(run.name)
            ]
            for run in store.runs()
        }
