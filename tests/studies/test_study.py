"""Studies that are killed, shared and taken over, and end as if nothing had happened."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

import fault_study
import pytest
from fakes import FakePricedTask
from study_results import ledgers, results
from tiny import tiny_lm

from rlprompt.agents.random_search import RandomSearch
from rlprompt.search.budget import Budget
from rlprompt.studies.inspection import ledger
from rlprompt.studies.study import PlannedSearch, Study

N_PROMPTS, N_KILLS = 200, 40
# New moments each time; a failure shows them.
SEED = secrets.randbelow(1 << 30)


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that was undisturbed, one that was killed, and one that was shared."""
    folder: Path = tmp_path_factory.mktemp("studies")
    subprocess.run(
        [sys.executable, fault_study.__file__, folder, str(N_PROMPTS), str(N_KILLS), str(SEED)],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return folder


def test_killed_at_random_moments_it_ends_as_if_undisturbed(studies: Path) -> None:
    assert results(studies / "killed") == results(studies / "undisturbed")
    assert ledgers(studies / "killed") == ledgers(studies / "undisturbed")


def test_two_workers_share_a_study_and_one_takes_over_from_the_other(studies: Path) -> None:
    assert results(studies / "shared") == results(studies / "undisturbed")
    assert ledgers(studies / "shared") == ledgers(studies / "undisturbed")


def test_what_a_task_needs_beyond_its_examples_is_in_the_ledger(tmp_path: Path) -> None:
    task = FakePricedTask()
    job = PlannedSearch(task, tiny_lm(), RandomSearch(), Budget(60), seed=0, length=3, banned=())
    with Study(tmp_path, {"run": job}, {}) as study:
        result = study.run(next(study.claimed()))
        (run,), entries = study.store.runs(), list(ledger(study.store, "run"))
    assert result.rows == run.used == entries[-1].rows == 60 // 5 * 5
    assert [entry.rows for entry in entries] == [rows for rows, _ in result.points]
