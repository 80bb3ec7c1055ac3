"""The store, the database under it, and replay: nothing paid is lost, nothing wrong is answered."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import split_of, timeless
from optimisers import Climb, Walk
from synthetic import N_EXAMPLES, SPLITS, HiddenVectors, HiddenWords, examples
from tiny import tiny_lm

import rlprompt.store.store
from rlprompt.data.load import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.evaluation import Evaluator
from rlprompt.search.memo import Answer, Measurement, SplitQuestion, TrainQuestion
from rlprompt.search.objective import GRADIENT_ROWS
from rlprompt.search.result import Result
from rlprompt.search.run import search
from rlprompt.store.database import APPLICATION, StoreError
from rlprompt.store.schema import MIGRATIONS
from rlprompt.store.store import FILE, Store, differences
from rlprompt.studies.inspection import export
from rlprompt.tasks.base import Task
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.template import Template
from rlprompt.types import Floats

ROWS = 70 * N_EXAMPLES
ME = "worker"


class Cut(Exception):  # noqa: N818
    """A process that ends."""


@dataclass(frozen=True)
class Counted(HiddenWords):
    """Counts the prompts that it scores on train, and may end the process after some."""

    counts: list[int] = dataclasses.field(default_factory=list)
    last: int = 10**9
    fingerprint: str = "counted"

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        if examples == self.splits.train:
            if sum(self.counts) + len(prompts) > self.last:
                raise Cut
            self.counts.append(len(prompts))
        return super().rewards(lm, prompts, examples)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE


def nobody_dies(run: str, owner: str, beat: int) -> bool:
    return False


def everybody_dies(run: str, owner: str, beat: int) -> bool:
    return True


def open_run(path: Path, name: str = "walk", **spec: object) -> Store:
    store = Store(path, patience=0.5)
    store.plan({}, {name: spec})
    assert store.claim(ME, only=name, dead=everybody_dies) == name
    return store


def go(
    store: Store,
    task: Task,
    optimiser: Walk | Climb,
    lm: FrozenLM | None = None,
    name: str = "walk",
) -> Result:
    lm = lm or tiny_lm()
    record = store.record(name, lm, task, ME)
    return search(task, lm, optimiser, ROWS, seed=3, length=3, memo=record)


def same(first: Result, second: Result) -> None:
    """Equal in all but the wall time that a process took."""
    assert timeless(first) == timeless(second)


def test_a_search_ends_alike_with_and_without_a_store(path: Path) -> None:
    for optimiser, task in ((Walk(), HiddenWords()), (Climb(), HiddenVectors())):
        name = type(optimiser).__name__
        with open_run(path.with_name(name), name) as store:
            kept = go(store, task, optimiser, name=name)
        same(kept, search(task, tiny_lm(), optimiser, ROWS, seed=3, length=3))


@dataclass(frozen=True)
class Writing(Counted):
    """Writes the prompt and the number of the example."""

    def rewards_with_outputs(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> tuple[Floats, tuple[tuple[str, ...], ...]]:
        texts = tuple(written(prompt, len(examples)) for prompt in prompts)
        return self.rewards(lm, prompts, examples), texts


def written(prompt: Prompt | None, n: int) -> tuple[str, ...]:
    assert isinstance(prompt, TokenPrompt)
    return tuple(f"{prompt.ids} é 漢 {i}" for i in range(n))


def test_what_the_model_wrote_is_kept_and_found_again(path: Path, tmp_path: Path) -> None:
    counts: list[int] = []
    for _ in range(2):
        with open_run(path) as store:
            result = go(store, Writing(counts=counts), Walk())
            batches = list(store.batches("walk"))
            assert [batch.outputs for batch in batches] == [
                tuple(written(prompt, N_EXAMPLES) for prompt in batch.prompts) for batch in batches
            ]
            lines = tmp_path / "ledger.jsonl"
            assert export(store, lines) == result.n_prompts
    assert sum(counts) == result.n_prompts + 1  # the picked one's final score, once
    records = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    assert [tuple(record["outputs"]) for record in records] == [
        outputs for batch in batches for outputs in batch.outputs or ()
    ]


@pytest.mark.parametrize("last", [0, 3, 6, 17, 40, 69])
def test_a_cut_search_goes_on_and_pays_each_prompt_once(path: Path, last: int) -> None:
    whole = search(Counted(), tiny_lm(), Walk(), ROWS, seed=3, length=3)
    counts: list[int] = []
    with open_run(path) as store, pytest.raises(Cut):
        go(store, Counted(counts=counts, last=last), Walk())
    with open_run(path) as store:
        resumed = go(store, Counted(counts=counts), Walk())
        same(resumed, whole)
        # The last is the picked prompt, scored on train once more after the search.
        assert sum(counts) == whole.n_prompts + 1
        state = store.run("walk")
        assert (state.used, state.n_prompts, state.strayed) == (whole.rows, whole.n_prompts, None)
        assert state.best_reward == whole.trace[-1][1]
        assert state.seconds == resumed.lm_seconds


def test_gradients_are_paid_once_and_seconds_are_those_of_the_first_time(path: Path) -> None:
    with open_run(path) as store:
        first = go(store, HiddenVectors(), Climb())
    with open_run(path) as store:
        again = go(store, HiddenVectors(), Climb())
        same(first, again)
        assert again.lm_seconds == first.lm_seconds
        (batch, *_) = store.batches("walk")
        assert batch.gradient
        assert batch.cost == GRADIENT_ROWS * N_EXAMPLES
        assert batch.prompts[0] is not None
        assert batch.prompts[0].digest == batch.digests[0]


def test_runs_share_answers_to_the_same_batch(path: Path) -> None:
    counts: list[int] = []
    with Store(path) as store:
        store.plan({}, {"a": {}, "b": {}})
        results = []
        for name in ("a", "b"):
            assert store.claim(ME, dead=nobody_dies) == name
            results.append(go(store, Counted(counts=counts), Walk(), name=name))
            store.finish(name, ME, results[-1])
        same(*results)
        assert sum(counts) == results[0].n_prompts + 1  # the final score, once
        assert [run.used for run in store.runs()] == [ROWS, ROWS]
        assert store.runs()[1].result == results[1]
        assert store.claim(ME, dead=everybody_dies) is None


def test_dev_is_chosen_on_and_test_opened_once(path: Path) -> None:
    @dataclass(frozen=True)
    class Watched(HiddenWords):
        """Ends the process after the scores of some splits."""

        seen: list[str] = dataclasses.field(default_factory=list)
        last: str = ""

        def rewards(
            self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
        ) -> Floats:
            if self.seen and self.seen[-1] == self.last:
                raise Cut
            split = split_of(self.splits, examples)
            if (split, len(prompts)) != ("train", 6) and used() == ROWS:
                self.seen.append(split)
            return super().rewards(lm, prompts, examples)

    def used() -> int:
        return store.run("walk").used

    seen: list[str] = []
    for last in ("dev", "test", ""):
        with open_run(path) as store:
            task = Watched(seen=seen, last=last)
            record = store.record("walk", tiny_lm(), task, ME)
            with contextlib.suppress(Cut):
                result = search(task, tiny_lm(), Walk(), ROWS, seed=3, length=3, memo=record)
    # The race, the prompts that led, the picked one in parts; each once in three processes.
    assert seen == ["dev", "dev", "dev", "train", "test"]
    same(result, search(HiddenWords(), tiny_lm(), Walk(), ROWS, seed=3, length=3))


def assert_same(found: Measurement | None, expected: Measurement) -> None:
    assert found is not None
    assert found[1:] == expected[1:]
    for one, other in zip(found.measured[:2], expected.measured[:2], strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.measured.answers == expected.measured.answers


def test_final_scores_are_of_one_split_and_one_question(path: Path) -> None:
    lm, task, prompts = tiny_lm(), classification(), (TokenPrompt((10,)), TokenPrompt((11,)))
    whole, part = SplitQuestion(prompts, "dev"), SplitQuestion(prompts, "dev", (0,))
    with Store(path) as store:
        memo = store.memo(lm, task)
        first = Measurement(Evaluator(task, lm).measure(prompts, "dev"), "2026-01-01", 1.5)
        memo.put(whole, first)
        assert_same(store.memo(lm, task).get(whole), first)
        assert_same(memo.put(whole, first._replace(at="later")), first)  # the first ones stay
        assert_same(memo.get(whole), first)
        assert memo.get(part) is None
        memo.put(part, first._replace(at="a part"))
        found = memo.get(part)
        assert found is not None
        assert found.at == "a part"
        assert memo.get(SplitQuestion(prompts, "test")) is None
        assert memo.get(SplitQuestion(prompts[:1], "dev")) is None
        assert memo.get(SplitQuestion(prompts[::-1], "dev")) is None
        assert store.memo(lm, task, " elsewhere").get(whole) is None
        assert store.memo(tiny_lm(seed=1), task).get(whole) is None
        assert store.memo(lm, classification(EDITED)).get(whole) is None
        assert store.memo(lm, classification(reward="hinge")).get(whole) is None


def test_runs_that_are_preferred_are_claimed_first(path: Path) -> None:
    with Store(path) as store:
        store.plan({}, {"a": {}, "b": {}, "c": {}})
        claims = [store.claim(ME, prefer={"c"}, dead=nobody_dies) for _ in range(3)]
    assert claims == ["c", "a", "b"]


def test_seeds_may_be_added_and_nothing_else(path: Path) -> None:
    def config(*seeds: int, budget: int = 9) -> dict[str, Any]:
        return {"seeds": list(seeds), "budget": budget}

    runs = {f"walk-seed{seed}": {"seed": seed} for seed in range(3)}
    few = {name: runs[name] for name in list(runs)[:2]}
    with Store(path) as store:
        store.plan(config(0, 1), few)
        assert store.claim(ME, dead=nobody_dies) == "walk-seed0"
        store.plan(config(0, 1, 2), runs)
        assert [run.name for run in store.runs()] == list(runs)
        assert store.run("walk-seed0").owner == ME  # what is under way is left alone
        assert store.spec == {"config": config(0, 1, 2), "runs": runs}
        changed = [
            (config(0, 1), few),
            (config(0, 1, 2, 3, budget=10), {**runs, "walk-seed3": {"seed": 3}}),
            (config(0, 1, 2, 3), {**runs, "walk-seed0": {"seed": 7}, "walk-seed3": {"seed": 3}}),
        ]
        for spec, planned in changed:
            with pytest.raises(StoreError, match="made differently"):
                store.plan(spec, planned)
        assert store.spec == {"config": config(0, 1, 2), "runs": runs}


def test_a_stopped_search_stops_at_the_same_place_when_replayed(path: Path) -> None:
    lm, task = tiny_lm(), HiddenWords()
    budget = Budget(ROWS, seconds=2e-3)
    results = []
    for _ in range(2):
        with open_run(path) as store:
            record = store.record("walk", lm, task, ME)
            results.append(search(task, lm, Walk(), budget, seed=3, length=3, memo=record))
    assert 0 < results[0].rows < ROWS
    same(*results)
    assert results[0].lm_seconds == results[1].lm_seconds


@pytest.mark.parametrize(
    ("budget", "stopped"),
    [
        (Budget(400, target=0.2), lambda result: result.trace[-1][1] >= 0.2),
        (Budget(400, patience=48), lambda result: result.rows - result.trace[-1][0] >= 48),
    ],
)
def test_stop_conditions(budget: Budget, stopped: object) -> None:
    result = search(HiddenWords(), tiny_lm(), Walk(), budget, seed=3, length=3)
    assert callable(stopped)
    assert result.rows < 400
    assert stopped(result)
    assert result.status == "finished"


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"patience": 0}, {"target": float("nan")}])
def test_a_stop_condition_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a search stops"):
        Budget(10, **wrong)


def test_a_question_without_an_answer_is_scored_and_marks_the_run(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_run(path) as store:
        go(store, HiddenWords(), Walk())
    # As if the machine rounded otherwise: another search under the same name.
    with open_run(path) as store:
        result = go(store, HiddenWords(), Walk(batch=7))
        state = store.run("walk")
        assert state.strayed == 0
        assert (state.used, state.n_prompts) == (result.rows, result.n_prompts)
        assert sum(len(batch.digests) for batch in store.batches("walk")) == result.n_prompts
    assert "does not repeat itself" in caplog.text
    same(result, search(HiddenWords(), tiny_lm(), Walk(batch=7), ROWS, seed=3, length=3))


def classification(train: Sequence[Example] = SPLITS.train, **changes: Any) -> ClassificationTask:
    splits = Splits(tuple(train), examples("dev"), examples("test"))
    words = {"good": changes.pop("word", "great"), "bad": "terrible"}
    return ClassificationTask(
        "words", splits, Template(changes.pop("template", "{text} {prompt}")), words, **changes
    )


EDITED = (Example({"text": "train 0!"}, "good"), *SPLITS.train[1:])
OTHER_LABEL = (Example({"text": "train 0"}, "bad"), *SPLITS.train[1:])


@pytest.mark.parametrize(
    ("lm", "task"),
    [
        ({"seed": 1}, classification()),
        ({"kind": "gpt2"}, classification()),
        ({}, classification(EDITED)),
        ({}, classification(OTHER_LABEL)),
        ({}, classification(word="good")),
        ({}, classification(template="{text}: {prompt}")),
        ({}, classification(reward="hinge")),
    ],
    ids=["weights", "kind", "text", "label", "word", "template", "reward"],
)
def test_the_cache_never_answers_for_another_question(
    path: Path, lm: dict[str, object], task: ClassificationTask
) -> None:
    prompts = (TokenPrompt((10, 11)), TokenPrompt((12, 13)))
    question = TrainQuestion(prompts)
    with open_run(path) as store:
        first = store.record("walk", tiny_lm(), classification(), ME)
        kept = first.put(question, Answer(np.ones((2, N_EXAMPLES)), None, 1.0))
        assert kept.per_example.tolist() == [[1.0] * N_EXAMPLES] * 2
        assert store.record("walk", tiny_lm(), classification(), ME).get(question)
        other = store.record("walk", tiny_lm(**lm), task, ME)
        assert other.get(question) is None
        same_question = store.record("walk", tiny_lm(), classification(), ME)
        assert same_question.get(TrainQuestion(prompts[::-1])) is None
        assert same_question.get(TrainQuestion(prompts, gradient=True)) is None


def test_what_two_ask_at_once_has_one_answer(path: Path) -> None:
    question = TrainQuestion((TokenPrompt((10, 11)),))
    with Store(path) as store:
        store.plan({}, {"a": {}, "b": {}})
        records = []
        for name in ("a", "b"):
            store.claim(ME, only=name, dead=nobody_dies)
            records.append(store.record(name, tiny_lm(), HiddenWords(), ME))
        answers = [
            record.put(question, Answer(np.full((1, N_EXAMPLES), float(i)), None, 1.0))
            for i, record in enumerate(records)
        ]
    assert answers[0].per_example.tolist() == answers[1].per_example.tolist()


def test_a_changed_study_is_refused_with_the_difference(path: Path) -> None:
    with Store(path) as store:
        store.plan({"budget": 9}, {"a": {"seed": 0}, "b": {"seed": 1}})
        store.plan({"budget": 9}, {"a": {"seed": 0}, "b": {"seed": 1}})
        with pytest.raises(StoreError, match=r"\n  budget: 9 there, 8 now\n.*--restart"):
            store.plan({"budget": 8}, {"a": {"seed": 0}, "b": {"seed": 1}})
        with pytest.raises(StoreError, match=r"\n  run b is only there\n  seed: 0 there, 2 now\n"):
            store.plan({"budget": 9}, {"a": {"seed": 2}})
        assert [run.name for run in store.runs()] == ["a", "b"]
    assert differences({"a": [1], "b": 2}, {"a": [1, 2]}) == [
        "a: [1] there, [1, 2] now",
        "b: 2 there, null now",
    ]


def test_a_run_is_claimed_once_and_taken_over_from_the_dead(path: Path) -> None:
    task = HiddenWords()
    with Store(path) as store:
        store.plan({}, {"a": {}})
        assert store.claim("first", dead=nobody_dies) == "a"
        assert store.claim("second", dead=nobody_dies) is None
        before = store.run("a").beat
        store.beat("second")
        assert store.run("a").beat == before
        store.beat("first")
        assert store.run("a").beat == before + 1
        assert store.claim("second", dead=everybody_dies) == "a"
        lost = store.record("a", tiny_lm(), task, "first")
        with pytest.raises(StoreError, match="taken over by another worker"):
            lost.put(
                TrainQuestion((TokenPrompt((10,)),)), Answer(np.ones((1, N_EXAMPLES)), None, 1.0)
            )
        with pytest.raises(StoreError, match="taken over"):
            store.release("a", "first")
        store.fail("a", "second", "ValueError: no", None)
        assert store.run("a").state == "failed"
        assert store.claim("second", dead=everybody_dies) is None
        store.retry()
        assert store.run("a").state == "waiting"
        assert store.claim("second", dead=nobody_dies) == "a"
        store.release("a", "second")
        with pytest.raises(ValueError, match="has no run 'x'; it has a"):
            store.run("x")


# What can be wrong with the file.


def filled(path: Path) -> Result:
    with open_run(path) as store:
        return go(store, HiddenWords(), Walk())


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
    with pytest.raises(StoreError, match="is damaged, or no database"):
        Store(path)
    assert path.read_text() == "name: demo\n" * 100
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(StoreError, match="no store of rlprompt"):
        Store(path)


def test_a_folder_or_a_file_in_the_way_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StoreError, match="cannot be opened; make it and its folder readable"):
        Store(path)
    (path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made: File exists"):
        Store(path / "file" / FILE)


def test_damage_that_is_met_later_is_an_error_and_no_answer(path: Path) -> None:
    filled(path)
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="is damaged"), open_run(path) as store:
        go(store, HiddenWords(), Walk())


def test_a_newer_schema_is_refused(path: Path) -> None:
    filled(path)
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(StoreError, match=r"newer rlprompt.*update rlprompt"):
        Store(path)


def test_an_older_schema_is_migrated_with_all_it_holds(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = filled(path)
    script = "ALTER TABLE runs ADD COLUMN note TEXT; CREATE TABLE notes (x)"
    monkeypatch.setattr(rlprompt.store.store, "MIGRATIONS", (*MIGRATIONS, script))
    with pytest.raises(StoreError, match="older rlprompt"):
        Store(path, read_only=True)
    counts: list[int] = []
    with open_run(path) as store:
        same(go(store, HiddenWords(), Walk()), whole)
    assert not counts
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
        assert raw.execute("SELECT name, note FROM runs").fetchall() == [("walk", None)]
    raw.close()


def test_a_store_of_version_1_goes_on(path: Path) -> None:
    whole = filled(path)
    # What later versions added is taken away again.
    with sqlite3.connect(path) as raw:
        raw.executescript(
            "ALTER TABLE answers DROP COLUMN outputs; DROP TABLE hidden; DROP TABLE scores;"
            "DROP TABLE documents;"
            "PRAGMA user_version = 1"
        )
    raw.close()
    counts: list[int] = []
    with open_run(path) as store:
        same(go(store, Counted(counts=counts, fingerprint="synthetic"), Walk()), whole)
        (batch, *_) = store.batches("walk")
        assert batch.outputs is None
    assert counts == [1]  # the picked prompt, once more after the search


def test_a_planted_version_0_becomes_a_store(path: Path) -> None:
    with sqlite3.connect(path) as raw:
        raw.execute(f"PRAGMA application_id = {APPLICATION}")
        raw.execute("VACUUM")
    raw.close()
    filled(path)


def test_a_migration_that_fails_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = filled(path)
    known = MIGRATIONS
    monkeypatch.setattr(rlprompt.store.store, "MIGRATIONS", (*known, "DROP TABLE runs; nonsense"))
    with pytest.raises(StoreError, match="cannot be used"):
        Store(path)
    monkeypatch.setattr(rlprompt.store.store, "MIGRATIONS", known)
    with open_run(path) as store:
        same(go(store, HiddenWords(), Walk()), whole)


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
    assert "locked by another process; trying for" in caplog.text
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


def test_the_clock_may_be_set_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_run(path) as store:
        counts: list[int] = []
        with pytest.raises(Cut):
            go(store, Counted(counts=counts, last=30), Walk())
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with open_run(path) as store:
        result = go(store, Counted(counts=counts), Walk())
    assert sum(counts) == result.n_prompts + 1


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
        with pytest.raises(StoreError, match="cannot be made"):
            Store(folder / "new" / FILE)
        with Store(folder / FILE, read_only=True) as store:
            assert store.run("walk").used == whole.rows
            assert len(list(store.batches("walk"))) == 12
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_reading_makes_no_file(path: Path) -> None:
    with pytest.raises(StoreError, match="there is no"):
        Store(path, read_only=True)
    assert not path.exists()


def test_no_pickle_anywhere(path: Path) -> None:
    filled(path)
    with sqlite3.connect(path) as raw:
        ((prompts, rewards),) = raw.execute("SELECT prompts, rewards FROM answers LIMIT 1")
    raw.close()
    assert [len(state["ids"]) for state in json.loads(prompts)] == [3] * 6
    assert np.frombuffer(rewards, dtype="<f8").shape == (6 * N_EXAMPLES,)
