"""Who works on a run, and when it is taken for dead."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlprompt.store import heartbeat
from rlprompt.store.database import StoreError
from rlprompt.store.heartbeat import LEASE_SECONDS, Heartbeat, has_ended
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


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Has this process be in a PID namespace of a host that was booted as some other one was."""
    read, link = Path.read_text, os.readlink

    def be(boot: str, namespace: str) -> None:
        answers = {"/proc/sys/kernel/random/boot_id": boot, "/proc/self/ns/pid": namespace}

        def answer(usual: Callable[..., str], path: Path | str, *args: Any) -> str:
            if (said := answers.get(str(path))) == "unreadable":
                raise PermissionError(path)
            return usual(path, *args) if said is None else said

        monkeypatch.setattr(Path, "read_text", lambda *args: answer(read, *args))
        monkeypatch.setattr(os, "readlink", lambda *args: answer(link, *args))

    return be


def test_a_process_of_another_container_is_not_known_by_its_number(
    elsewhere: Callable[[str, str], None], tmp_path: Path
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    def worker_here() -> str:
        """The name of a worker of this place whose process has ended."""
        return f"{Heartbeat(tmp_path / FILE).name.rsplit(':', 2)[0]}:{ended.pid}:abc"

    elsewhere("boot a\n", "pid:[1]")
    own = worker_here()
    assert has_ended(own)
    for boot, namespace in (("boot a\n", "pid:[2]"), ("boot b\n", "pid:[1]")):
        elsewhere(boot, namespace)
        assert not has_ended(own)
        assert has_ended(worker_here())
    # Where that cannot be read the host has a name, which is all that an older version gave.
    for boot, namespace in (("unreadable", "pid:[1]"), ("boot a\n", "unreadable")):
        elsewhere(boot, namespace)
        assert worker_here().startswith(f"{platform.node()}:")
        assert has_ended(worker_here())
    elsewhere("boot a\n", "pid:[1]")
    assert has_ended(f"{platform.node()}:{ended.pid}:abc")
    assert not has_ended(f"another-host:{ended.pid}:abc")


def test_a_heart_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.01)
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

    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(heartbeat, "Store", locked_at_first)
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
