"""What can be wrong with the file of a study, and what is said and kept then."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from optimisers import Walk
from stored_search import (
    ROWS,
    Counted,
    filled,
    go,
    open_run,
    same,
)
from synthetic import HiddenWords
from tiny import tiny_lm

from rlprompt.search.run import search
from rlprompt.store.database import StoreError
from rlprompt.store.schema import STUDY
from rlprompt.store.store import FILE, Store


@pytest.mark.parametrize("size", [0, 100, 5000, -4096])
def test_a_truncated_file_is_refused_and_left_alone(path: Path, size: int) -> None:
    filled(path)
    content = path.read_bytes()[:size]
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"is damaged.*Restore it from a copy"):
        Store(path)
    assert path.read_bytes() == content


def test_a_file_of_something_else_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("name: demo\n" * 100)
    with pytest.raises(StoreError, match="is damaged, or is not a database"):
        Store(path)
    assert path.read_text() == "name: demo\n" * 100
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(StoreError, match="is the database of another program"):
        Store(path)


def test_a_folder_or_a_file_in_the_way_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StoreError, match="cannot be opened; make it and its folder readable"):
        Store(path)
    (path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be created: File exists"):
        Store(path / "file" / FILE)


def test_damage_that_is_met_later_is_an_error_and_no_answer(path: Path) -> None:
    filled(path)
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="is damaged"), open_run(path) as store:
        go(store, HiddenWords(), Walk())


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    ("found", "said"),
    [
        (STUDY.format + 1, r"a newer rlprompt \(format 12, this one reads 11\); update"),
        (STUDY.format - 1, r"an older rlprompt \(format 10, this one reads 11\); run the"),
        (0, "an older rlprompt .*, or read it with the version that wrote it. Nothing was changed"),
    ],
)
def test_another_format_is_refused_and_left_alone(
    path: Path, found: int, said: str, read_only: bool
) -> None:
    filled(path)
    with sqlite3.connect(path) as raw:
        raw.execute(f"PRAGMA user_version = {found}")
    raw.close()
    content = path.read_bytes()
    with pytest.raises(StoreError, match=f"{path} was written by {said}"):
        Store(path, read_only=read_only)
    assert path.read_bytes() == content


def test_a_lock_that_stays_is_an_error_that_says_so(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    holder = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); time.sleep(60)"
    )
    with (
        open_run(path) as store,
        subprocess.Popen(
            [sys.executable, "-c", holder, str(path)], stdout=subprocess.PIPE
        ) as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(StoreError, match="locked by another process; wait for that to end"):
            go(store, HiddenWords(), Walk())
        process.kill()
    assert "locked by another process; retrying for" in caplog.text
    with open_run(path) as store:
        same(go(store, HiddenWords(), Walk()), filled(path.with_name("other")))


def test_a_lock_that_goes_away_is_waited_for(path: Path) -> None:
    holder = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); time.sleep(0.7)"
    )
    open_run(path).close()
    with (
        Store(path, patience=30) as store,
        subprocess.Popen(
            [sys.executable, "-c", holder, str(path)], stdout=subprocess.PIPE
        ) as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        assert go(store, HiddenWords(), Walk()).rows == ROWS


def test_a_log_left_behind_is_taken_over(path: Path, tmp_path: Path) -> None:
    store = open_run(path)
    whole = go(store, HiddenWords(), Walk())
    # As a killed process leaves it: all since the last checkpoint is in the log alone.
    copy = tmp_path / "copy"
    copy.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", copy)
    store.close()
    assert (copy / f"{FILE}-wal").stat().st_size > 0
    counts: list[int] = []
    with open_run(copy / FILE) as store:
        same(go(store, HiddenWords(), Walk()), whole)
        assert store.run("walk").used == ROWS
    assert not counts


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here; that needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_loses_nothing(small_disk: Path) -> None:
    whole = search(Counted(), tiny_lm(), Walk(), ROWS, seed=3, length=3)
    counts: list[int] = []
    path = small_disk / FILE
    with open_run(path) as store:
        n_kept = 0
        ballast = small_disk / "ballast"
        free = shutil.disk_usage(small_disk).free
        ballast.write_bytes(b"x" * (free - 28 * 1024))
        with pytest.raises(StoreError, match=r"disk is full; free some space.*same command again"):
            go(store, Counted(counts=counts), Walk())
        n_kept = sum(len(batch.digests) for batch in store.batches("walk"))
        # All that was paid for is there, but for the batch that there was no room for.
        assert 0 < n_kept == sum(counts[:-1])
    ballast.unlink()
    with open_run(path) as store:
        same(go(store, Counted(counts=counts), Walk()), whole)


def test_a_full_disk_at_the_start_is_an_error(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 4096))
    with pytest.raises(StoreError, match="disk is full"):
        Store(small_disk / FILE)
    assert not (small_disk / FILE).exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir()
    whole = filled(folder / FILE)
    bind = ["mount", "--bind", str(folder), str(folder)]
    remount = ["mount", "-o", "remount,ro,bind", str(folder)]
    if os.getuid() or any(
        subprocess.run(c, capture_output=True).returncode for c in (bind, remount)
    ):
        pytest.skip("a folder cannot be made read-only for this user")
    try:
        with pytest.raises(StoreError, match="make it and its folder readable and writable"):
            open_run(folder / FILE)
        with pytest.raises(StoreError, match="cannot be created"):
            Store(folder / "new" / FILE)
        with Store(folder / FILE, read_only=True) as store:
            assert store.run("walk").used == whole.rows
            assert len(list(store.batches("walk"))) == 12
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_reading_makes_no_file(path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        Store(path, read_only=True)
    assert not path.exists()
