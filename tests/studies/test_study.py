"""Studies that are killed, shared and taken over, and end as if nothing had happened."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

import fault_study
import pytest
from fakes import FakePricedTask
from study_results import ledgers, results
from tiny import tiny_lm

import rlprompt.store.heartbeat
from rlprompt.agents.random_search import RandomSearch
from rlprompt.search.budget import Budget
from rlprompt.store.heartbeat import LEASE_SECONDS, Heartbeat
from rlprompt.store.store import FILE, Store
from rlprompt.studies.inspection import ledger
from rlprompt.studies.study import PlannedSearch, Study

N_PROMPTS = 200
# New moments each time; a failure shows them.
SEED = secrets.randbelow(1 << 30)


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


def test_two_workers_share_a_study_and_one_takes_over_from_the_other(
    tmp_path: Path, undisturbed: Path
) -> None:
    script = f"import pathlib, fault_study; fault_study.share(pathlib.Path({str(tmp_path)!r}), "
    tests = Path(fault_study.__file__).parent
    subprocess.run([sys.executable, "-c", f"{script}{N_PROMPTS})"], check=True, cwd=tests)
    assert results(tmp_path) == results(undisturbed)
    assert ledgers(tmp_path) == ledgers(undisturbed)


def test_a_worker_is_dead_once_its_heart_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    # No clock of another machine, and no date, is looked at.
    monkeypatch.setattr(time, "time", lambda: 0.0)
    worker = Heartbeat(tmp_path / FILE)
    elsewhere = "elsewhere:1:abc"
    assert not worker.takes_for_dead("a", elsewhere, 1)
    clock += LEASE_SECONDS - 1
    assert not worker.takes_for_dead("a", elsewhere, 1)
    assert not worker.takes_for_dead("b", elsewhere, 1)
    clock += 2
    assert not worker.takes_for_dead("a", elsewhere, 2)
    clock += LEASE_SECONDS + 1
    assert worker.takes_for_dead("a", elsewhere, 2)
    # Here, a process that has ended is dead at once, and this one lives.
    ended = subprocess.Popen([sys.executable, "-c", ""])
    here = worker.name.rsplit(":", 2)[0]
    time.sleep(0.5)
    assert worker.takes_for_dead("c", f"{here}:{ended.pid}:abc", 1)  # a zombie, not waited for
    ended.wait()
    assert worker.takes_for_dead("c", f"{here}:{ended.pid}:abc", 1)
    # One of this very process lives as long as its context.
    assert worker.takes_for_dead("d", worker.name, 1)
    with Store(tmp_path / FILE), worker:
        assert not worker.takes_for_dead("d", worker.name, 1)


def test_a_heart_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rlprompt.store.heartbeat, "BEAT_SECONDS", 0.01)
    with Store(tmp_path / FILE) as store:
        store.plan({}, {"a": {}})
        with Heartbeat(tmp_path / FILE) as worker:
            assert store.claim(worker.name, dead=worker.takes_for_dead) == "a"
            before = store.run("a").beat
            deadline = time.monotonic() + 30
            while store.run("a").beat < before + 3 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert store.run("a").beat >= before + 3


def test_what_a_task_needs_beyond_its_examples_is_in_the_ledger(tmp_path: Path) -> None:
    task = FakePricedTask()
    job = PlannedSearch(task, tiny_lm(), RandomSearch(), Budget(60), seed=0, length=3, banned=())
    with Study(tmp_path, {"run": job}, {}) as study:
        result = study.run(next(study.claimed()))
        (run,), entries = study.store.runs(), list(ledger(study.store, "run"))
    assert result.rows == run.used == entries[-1].rows == 60 // 5 * 5
    assert [entry.rows for entry in entries] == [rows for rows, _ in result.points]
