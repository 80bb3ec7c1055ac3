"""Answers that studies share: never a wrong one, and never a reason to stop."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import cached_study
import numpy as np
import pytest
from cached_study import run
from fakes import FakeTask, timeless
from forks import forked
from optimisers import Climb
from stored_search import Counted
from synthetic import N_EXAMPLES, HiddenVectors, HiddenWords, examples
from tiny import tiny_lm

import rlprompt.store.shared_cache
from rlprompt.data.examples import Splits
from rlprompt.prompt import TokenPrompt
from rlprompt.search.memo import Answer, Question, TrainQuestion, V
from rlprompt.search.result import Result
from rlprompt.store.shared_cache import SHARED, Cache, SharedMemo
from rlprompt.store.store import FILE, Store
from rlprompt.tasks.base import Task

PROMPTS = (TokenPrompt((10, 11)), TokenPrompt((12, 13)))
QUESTION = TrainQuestion(PROMPTS)


def alike(first: Result, second: Result) -> None:
    assert timeless(first) == timeless(second)


def test_a_second_study_pays_for_nothing_that_the_first_asked(tmp_path: Path) -> None:
    cache = tmp_path / "deep" / "cache.sqlite"
    counts: list[int] = []
    first = run(tmp_path / "a", Counted(counts=counts), cache)
    n_first = sum(counts)
    second = run(tmp_path / "b", Counted(counts=counts), cache)
    # The seconds, too, are those of the day the answers were computed.
    alike(first, second)
    assert second.lm_seconds == first.lm_seconds
    # The picked prompt alone, whose final scores are no part of the search.
    assert sum(counts) == n_first + 1
    # A longer search with another patience goes the same way, and pays from where the first ended.
    longer = run(tmp_path / "c", Counted(counts=counts), cache, rows=400)
    assert longer.points[: len(first.points) // 6 * 6] == first.points[: len(first.points) // 6 * 6]
    assert sum(counts) - n_first - 1 < longer.n_prompts - first.n_prompts + 6 + 2


def test_what_a_study_found_in_the_cache_is_as_readable_as_what_it_paid_for(
    tmp_path: Path,
) -> None:
    def read(folder: Path) -> list[Any]:
        with closing(sqlite3.connect(folder / FILE)) as raw:
            return raw.execute("SELECT digests, texts FROM answers ORDER BY id").fetchall()

    for name in "ab":
        run(tmp_path / name, Counted(), tmp_path / "cache.sqlite")
    assert read(tmp_path / "a") == read(tmp_path / "b")
    assert all(texts is not None for _, texts in read(tmp_path / "b"))


def test_a_study_does_not_need_the_cache_again(tmp_path: Path) -> None:
    cache = tmp_path / "cache.sqlite"
    first = run(tmp_path / "a", Counted(), cache)
    run(tmp_path / "b", Counted(), cache)
    cache.unlink()
    with sqlite3.connect(tmp_path / "b" / FILE) as raw:
        raw.execute("UPDATE runs SET result = NULL")
    raw.close()
    counts: list[int] = []
    alike(run(tmp_path / "b", Counted(counts=counts), None), first)
    assert counts == []


def test_gradients_are_shared(tmp_path: Path) -> None:
    cache = tmp_path / "cache.sqlite"
    first = run(tmp_path / "a", HiddenVectors(), cache, Climb())
    second = run(tmp_path / "b", HiddenVectors(), cache, Climb())
    alike(first, second)
    assert second.lm_seconds == first.lm_seconds


class Nothing:
    """A memo that finds nothing."""

    def get(self, question: Question[V]) -> V | None:
        return None

    def put(self, question: Question[V], answer: V) -> V:
        return answer


def behind(cache: Cache, task: Task, **lm: Any) -> SharedMemo:
    return SharedMemo(Nothing(), cache, tiny_lm(**lm), task)


OTHER = Splits(examples("train!"), examples("dev"), examples("test"))


@pytest.mark.parametrize(
    ("lm", "task"),
    [
        ({"seed": 1}, HiddenWords()),
        ({"kind": "gpt2"}, HiddenWords()),
        ({}, HiddenWords(fingerprint="other")),
        ({}, HiddenWords(splits=OTHER)),
        ({}, HiddenWords(name="other")),
        ({}, Counted(fingerprint="synthetic")),
    ],
    ids=["weights", "kind", "fingerprint", "examples", "name", "class"],
)
def test_another_question_finds_nothing(tmp_path: Path, lm: dict[str, Any], task: Task) -> None:
    with Cache(tmp_path / "cache.sqlite") as cache:
        behind(cache, HiddenWords()).put(QUESTION, Answer(np.ones((2, N_EXAMPLES)), None, 1.0))
        same = behind(cache, HiddenWords())
        found = same.get(QUESTION)
        assert found is not None
        assert found.per_example.tolist() == [[1.0] * N_EXAMPLES] * 2
        assert found.seconds == 1.0
        assert same.get(TrainQuestion(PROMPTS[::-1])) is None
        assert same.get(TrainQuestion(PROMPTS[:1])) is None
        assert same.get(TrainQuestion(PROMPTS, gradient=True)) is None
        assert behind(cache, task, **lm).get(QUESTION) is None


def spoil_with_text(path: Path) -> None:
    path.write_text("no database\n" * 200)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def forge(path: Path) -> None:
    """Change an answer behind SQLite's back: nothing but the checksum can tell."""
    with sqlite3.connect(path) as raw:
        ((rewards,),) = raw.execute("SELECT rewards FROM shared WHERE id = 1")
        forged = (np.frombuffer(rewards) + 1).tobytes()
        raw.execute("UPDATE shared SET rewards = ? WHERE id = 1", (forged,))
    raw.close()


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [spoil_with_text, truncate, forge, make_folder])
def test_a_cache_that_is_damaged_is_left_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Any
) -> None:
    cache = tmp_path / "cache.sqlite"
    first = run(tmp_path / "a", Counted(), cache)
    spoil(cache)
    second = run(tmp_path / "b", Counted(), cache)
    assert second.points == first.points
    (warning,) = [r.getMessage() for r in caplog.records if "cache" in r.getMessage()]
    assert warning.startswith(f"going on without the cache: {cache} ")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (SHARED.format - 1, "an older rlprompt (format 2, this one reads 3); remove it"),
        (SHARED.format + 1, "a newer rlprompt (format 4, this one reads 3); update rlprompt. "),
    ],
)
def test_a_cache_of_another_format_is_left_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, found: int, said: str
) -> None:
    cache = tmp_path / "cache.sqlite"
    first = run(tmp_path / "a", Counted(), cache)
    with sqlite3.connect(cache) as raw:
        raw.execute(f"PRAGMA user_version = {found}")
    raw.close()
    content = cache.read_bytes()
    assert run(tmp_path / "b", Counted(), cache).points == first.points
    assert f"going on without the cache: {cache} was written by {said}" in caplog.text
    assert cache.read_bytes() == content


def test_a_cache_that_is_locked_or_gone_is_left_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rlprompt.store.shared_cache, "PATIENCE", 0.3)
    cache = tmp_path / "cache.sqlite"
    first = run(tmp_path / "a", Counted(), cache)
    holder = sqlite3.connect(cache, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    # What is there can be read all the same; the first answer that is new cannot be written.
    longer = run(tmp_path / "b", Counted(), cache, rows=240)
    holder.execute("ROLLBACK")
    holder.close()
    assert longer.points[:48] == first.points[:48]
    assert "going on without the cache" in caplog.text
    assert "locked by another process" in caplog.text
    nowhere = tmp_path / "a" / FILE / "cache.sqlite"  # below a file
    assert run(tmp_path / "c", Counted(), nowhere).points == first.points
    assert "cannot be created" in caplog.text


def test_several_processes_fill_one_cache(tmp_path: Path) -> None:
    cache = tmp_path / "cache.sqlite"
    with ExitStack() as stack:
        asked = [(tmp_path / name, Counted(), cache) for name in "ab"]
        for process in [stack.enter_context(forked(cached_study.run, *one)) for one in asked]:
            process.join()
            assert process.exitcode == 0
    results = []
    for name in "ab":
        with Store(tmp_path / name / FILE, read_only=True) as store:
            results.append(store.run("run"))
    assert results[0].used == results[1].used
    counts: list[int] = []
    third = run(tmp_path / "c", Counted(counts=counts), cache)
    assert sum(counts) == 1
    assert third.rows == results[0].used


@pytest.mark.parametrize("wrong", [np.nan, 1e36])
def test_what_is_no_reward_is_not_shared(tmp_path: Path, wrong: float) -> None:
    broken = FakeTask(change=lambda rewards: np.full_like(rewards, wrong))
    cache = tmp_path / "cache.sqlite"
    with pytest.raises(ValueError, match="finite number"):
        run(tmp_path / "a", broken, cache)
    with sqlite3.connect(cache) as raw:
        assert raw.execute("SELECT count(*) FROM shared").fetchone() == (0,)
    raw.close()
