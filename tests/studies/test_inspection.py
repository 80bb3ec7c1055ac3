"""What a study is asked for: its ledger, its best prompts, a line a run, a check of its answers."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes import FakePricedTask
from synthetic import N_EXAMPLES, HiddenWords
from tiny import tiny_lm

from rlprompt.agents.random_search import RandomSearch
from rlprompt.prompt import TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.store.database import StoreError
from rlprompt.store.store import FILE, Store
from rlprompt.studies.inspection import (
    best,
    is_deserted,
    is_left,
    ledger,
    state_line,
    state_of,
    studies,
    write_ledger,
)
from rlprompt.studies.planned_search import PlannedSearch
from rlprompt.studies.search_queue import SearchQueue
from rlprompt.studies.verification import verify

N_PROMPTS = 12


def planned(seed: int = 0) -> PlannedSearch:
    return PlannedSearch(
        HiddenWords(),
        tiny_lm(),
        RandomSearch(batch=4),
        Budget(N_PROMPTS * N_EXAMPLES),
        seed=seed,
        length=3,
        banned=(),
    )


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SearchQueue]:
    """Of a finished study of one run."""
    with SearchQueue(tmp_path / "study", {"run": planned()}, {}) as made:
        made.run(next(made.claimed()))
        yield made


def test_what_a_task_needs_beyond_its_examples_is_in_the_ledger(tmp_path: Path) -> None:
    task = FakePricedTask()
    job = PlannedSearch(task, tiny_lm(), RandomSearch(), Budget(60), seed=0, length=3, banned=())
    with SearchQueue(tmp_path, {"run": job}, {}) as queue:
        result = queue.run(next(queue.claimed()))
        (run,), entries = queue.store.runs(), list(ledger(queue.store, "run"))
    assert result.rows == run.used == entries[-1].rows == 60 // 5 * 5
    assert [entry.rows for entry in entries] == [rows for rows, _ in result.points]


def test_the_best_prompts_are_distinct_and_in_order(queue: SearchQueue) -> None:
    entries = list(ledger(queue.store, "run"))
    assert [entry.rows for entry in entries] == [N_EXAMPLES * (i + 1) for i in range(N_PROMPTS)]
    found = best(queue.store, "run", 5)
    assert len({entry.digest for entry in found}) == len(found) == 5
    rewards = {entry.digest: entry.reward for entry in entries if entry.reward is not None}
    assert len(entries) == N_PROMPTS >= len(rewards)
    assert [entry.reward for entry in found] == sorted(rewards.values(), reverse=True)[:5]
    assert len(best(queue.store, "run", 100)) == len(rewards)


def test_a_prompt_is_titled_by_its_text_and_ids(queue: SearchQueue) -> None:
    entry = next(ledger(queue.store, "run"))
    assert isinstance(entry.prompt, TokenPrompt)
    assert entry.text == tiny_lm().decode(entry.prompt.ids)
    ids = " ".join(map(str, entry.prompt.ids))
    assert entry.title == f"{entry.text!r} (ids {ids})"
    assert dataclasses.replace(entry, text=None).title == f"ids {ids}"
    assert dataclasses.replace(entry, prompt=None).title == f"soft {entry.digest}"


def test_studies_are_found_and_what_is_broken_costs_no_other(
    queue: SearchQueue, tmp_path: Path
) -> None:
    (tmp_path / "deep" / "broken").mkdir(parents=True)
    (tmp_path / "deep" / "broken" / FILE).write_text("nothing of the kind " * 50)
    found = studies(tmp_path)
    assert list(found) == [tmp_path / "deep" / "broken", queue.folder]
    assert isinstance(found[tmp_path / "deep" / "broken"], StoreError)
    assert found[queue.folder] == queue.store.runs()


def test_the_ledger_as_lines_says_what_was_best_so_far(queue: SearchQueue, tmp_path: Path) -> None:
    assert write_ledger(queue.store, tmp_path / "ledger.jsonl") == N_PROMPTS
    records = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert [record["prompt"] for record in records] == list(range(N_PROMPTS))
    highest = np.maximum.accumulate([record["reward"] for record in records])
    assert [record["best"] for record in records] == highest.tolist()
    told = [tiny_lm().decode(tuple(map(int, record["ids"].split()))) for record in records]
    assert [record["text"] for record in records] == told
    with pytest.raises(ValueError, match=r"does not end in .csv, .parquet or .jsonl"):
        write_ledger(queue.store, tmp_path / "ledger.txt")


def test_answers_that_hold_are_told_from_forged_ones(queue: SearchQueue) -> None:
    good = verify(queue.store, {"run": planned()}, sample=N_PROMPTS)
    assert good.holds
    assert (good.n_prompts, good.n_final) == (N_PROMPTS, 3)
    assert verify(queue.store, {"run": planned()}, sample=2).n_prompts == 2
    with sqlite3.connect(queue.folder / FILE) as raw:
        ((rewards,),) = raw.execute("SELECT rewards FROM answers WHERE id = 1")
        forged = (np.frombuffer(rewards) + 1).tobytes()
        raw.execute("UPDATE answers SET rewards = ? WHERE id = 1", (forged,))
    raw.close()
    bad = verify(queue.store, {"run": planned()}, sample=N_PROMPTS)
    assert not bad.holds
    assert bad.largest == pytest.approx(1)
    assert bad.where.startswith("run, prompt ")


def test_a_study_that_recorded_less_of_its_model_is_held_against_what_it_recorded(
    queue: SearchQueue,
) -> None:
    """It is not gone on with, since its answers may be those of a model with another config."""
    with sqlite3.connect(queue.folder / FILE) as raw:
        for table in ("runs", "study"):
            (text,) = raw.execute(f"SELECT spec FROM {table}").fetchone()
            state = json.loads(text)
            for name in ("config", "ends"):
                del (state if table == "runs" else state["runs"]["run"])["model"][name]
            raw.execute(f"UPDATE {table} SET spec = ?", (json.dumps(state),))
    raw.close()
    assert verify(queue.store, {"run": planned()}, sample=N_PROMPTS).holds
    with pytest.raises(StoreError) as refused:
        queue.store.plan({}, {"run": planned().spec})
    assert str(refused.value) == (
        f"{queue.folder / FILE} was begun by an older rlprompt, which hashed a model's weights and "
        "tokenizer and not its config, its special and end tokens and its chat template, so its "
        "answers may be those of a model that differs in them; run the study again with this "
        "version (--restart starts in a new folder), or go on with the version that began it. "
        "Nothing was changed"
    )


def test_another_search_is_not_compared(queue: SearchQueue) -> None:
    with pytest.raises(ValueError, match=r"are not those of the study.*\n  seed: 0 before"):
        verify(queue.store, {"run": planned(seed=1)}, sample=1)


def test_a_run_is_told_in_a_line(queue: SearchQueue) -> None:
    run = queue.store.run("run")
    rows = N_PROMPTS * N_EXAMPLES
    line = f"run: finished, {rows}/{rows} rows, {run.seconds:.0f} s, best {run.best_reward:.2f}"
    assert state_line(run) == line
    strayed = dataclasses.replace(run, strayed=2, error="ValueError: no")
    marked = line.replace("finished", "failed")
    assert state_line(strayed) == f"{marked}, strayed at batch 2, ValueError: no"
    said = state_of(strayed)
    assert (said["state"], said["strayed"], said["error"]) == ("failed", 2, "ValueError: no")
    assert (said["rows"], said["budget"], said["best_reward"]) == (rows, rows, run.best_reward)
    assert state_line(dataclasses.replace(run, best_reward=None)) == line.partition(", best")[0]


def test_a_study_is_deserted_when_no_worker_is_left(tmp_path: Path) -> None:
    given = {name: planned(seed) for seed, name in enumerate("ab")}
    with Store(tmp_path / FILE) as store:
        store.change_workers(lambda _: [f"{platform.node()}:{os.getpid()}:of-another-time"])
        with SearchQueue(tmp_path, given, {}) as queue:
            names = queue.claimed()
            queue.run(next(names))
            assert [run.state for run in store.runs()] == ["finished", "waiting"]
            assert len(store.workers) == 1
            assert not is_deserted(store)
        assert store.workers == []
        assert is_deserted(store)
        store.change_workers(lambda _: ["elsewhere:1:x"])
        assert not is_deserted(store)
        store.change_workers(lambda _: [])
        with SearchQueue(tmp_path, given, {}) as queue:
            queue.run(next(queue.claimed()))
        assert not is_deserted(store)  # there is nothing to go on with


def test_a_run_whose_process_is_gone_is_interrupted(queue: SearchQueue) -> None:
    run = dataclasses.replace(queue.store.run("run"), result=None)
    gone = dataclasses.replace(run, owner=f"{platform.node()}:{os.getpid()}:of-another-time")
    elsewhere = dataclasses.replace(run, owner="elsewhere:1:x")
    assert [is_left(one) for one in (gone, elsewhere, queue.store.run("run"))] == [
        True,
        False,
        False,
    ]
    assert state_line(gone).startswith("run: interrupted, ")
    assert state_line(elsewhere).startswith("run: running, ")
