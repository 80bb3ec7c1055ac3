"""Who works on a run, and when it is taken for dead."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rlprompt.store.heartbeat
from rlprompt.store.database import StoreError
from rlprompt.store.heartbeat import LEASE_SECONDS, Heartbeat
from rlprompt.store.store import FILE, Store


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
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
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


def test_a_heart_beats_though_its_store_was_locked_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = list[Path]()

    def locked_at_first(path: Path) -> Store:
        opened.append(path)
        if len(opened) == 1:
            raise StoreError("the database is locked")
        return Store(path)

    monkeypatch.setattr(rlprompt.store.heartbeat, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(rlprompt.store.heartbeat, "Store", locked_at_first)
    with Store(tmp_path / FILE) as store:
        store.plan({}, {"a": {}})
        with Heartbeat(tmp_path / FILE) as worker:
            assert store.claim(worker.name, dead=worker.takes_for_dead) == "a"
            deadline = time.monotonic() + 30
            while store.run("a").beat < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert store.run("a").beat >= 2
    assert len(opened) == 2


def test_a_run_of_the_dead_is_claimed_and_one_of_the_living_is_not(tmp_path: Path) -> None:
    path = tmp_path / FILE
    with Store(path) as store:
        store.plan({}, {"a": {}})
        with Heartbeat(path) as mine:
            with Heartbeat(path) as left:
                assert store.claim(left.name, dead=left.takes_for_dead) == "a"
                assert store.claim(mine.name, dead=mine.takes_for_dead) is None
            assert store.claim(mine.name, dead=mine.takes_for_dead) == "a"
            assert store.run("a").owner == mine.name
