"""Studies that are killed, shared and taken over, and end as if nothing had happened."""

from __future__ import annotations

import dataclasses
import os
import secrets
import subprocess
import sys
from pathlib import Path

import fault_study
import pytest

from rlprompt.result import Result
from rlprompt.store import FILE, Store

N_PROMPTS = 200
# New moments each time; a failure shows them.
SEED = secrets.randbelow(1 << 30)


def results(folder: Path) -> dict[str, Result]:
    """Of each run: everything but the seconds."""
    with Store(folder / FILE) as store:
        runs = store.runs()
    assert {run.state for run in runs} == {"finished"}
    assert all(run.strayed is None for run in runs)
    found = {run.name: run.result for run in runs}
    return {
        name: dataclasses.replace(result, total_seconds=0, lm_seconds=0)
        for name, result in found.items()
        if result
    }


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


def run_study(folder: Path, n_kills: int = 0) -> None:
    subprocess.run(
        [sys.executable, fault_study.__file__, folder, str(N_PROMPTS), str(n_kills), str(SEED)],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("undisturbed")
    run_study(folder)
    return folder


def test_killed_at_random_moments_it_ends_as_if_undisturbed(
    tmp_path: Path, undisturbed: Path
) -> None:
    run_study(tmp_path, n_kills=40)
    assert results(tmp_path) == results(undisturbed)
    assert ledgers(tmp_path) == ledgers(undisturbed)
