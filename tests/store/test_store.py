"""The store: nothing paid is lost, nothing wrong is answered, and a run has one owner."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import split_of
from optimisers import Climb, Walk
from stored_search import (
    EDITED,
    ME,
    ROWS,
    Counted,
    Cut,
    classification,
    everybody_dies,
    filled,
    go,
    nobody_dies,
    open_run,
    same,
)
from synthetic import N_EXAMPLES, HiddenVectors, HiddenWords
from tiny import tiny_lm

from rlprompt.agents.random_search import RandomSearch
from rlprompt.data.examples import Example
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.evaluation import Evaluator
from rlprompt.search.memo import Answer, Measurement, SplitQuestion, TrainQuestion
from rlprompt.search.result import Result
from rlprompt.search.run import search
from rlprompt.store.changes import differences
from rlprompt.store.database import StoreError
from rlprompt.store.store import Store
from rlprompt.studies.inspection import best, ledger, write_ledger
from rlprompt.tasks.base import Task
from rlprompt.types import Floats


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
            assert write_ledger(store, lines) == result.n_prompts
    assert sum(counts) == result.n_prompts + 1  # the picked one's final score, once
    records = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    assert [tuple(record["outputs"]) for record in records] == [
        outputs for batch in batches for outputs in batch.outputs or ()
    ]


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
            with pytest.raises(StoreError, match="holds a study with other settings"):
                store.plan(spec, planned)
        assert store.spec == {"config": config(0, 1, 2), "runs": runs}


def test_seeds_may_be_added_to_a_study_that_was_made_in_python(path: Path) -> None:
    def runs(*seeds: int, method: str = "walk", **more: Any) -> dict[str, Any]:
        return {f"{method}-seed{seed}": {"seed": seed, "rows": 9, **more} for seed in seeds}

    with Store(path) as store:
        store.plan({}, runs(0))
        store.plan({}, runs(0, 1))
        assert [run.name for run in store.runs()] == ["walk-seed0", "walk-seed1"]
        for planned, line in (
            (runs(1, 2), "run walk-seed0 was in the study and is not now"),
            (runs(0, 1) | runs(2, rows=8), "run walk-seed2 is new"),
            (runs(0, 1) | runs(0, method="run"), "run run-seed0 is new"),
            (runs(0, 1, 2, rows=8), "run walk-seed2 is new\n  rows: 9 before, 8 now"),
        ):
            with pytest.raises(StoreError, match=rf"settings:\n  {line}\n"):
                store.plan({}, planned)


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


def test_a_changed_study_is_refused_with_the_difference(path: Path) -> None:
    with Store(path) as store:
        store.plan({"budget": 9}, {"a": {"seed": 0}, "b": {"seed": 1}})
        store.plan({"budget": 9}, {"a": {"seed": 0}, "b": {"seed": 1}})
        with pytest.raises(StoreError, match=r"\n  budget: 9 before, 8 now\n.*--restart"):
            store.plan({"budget": 8}, {"a": {"seed": 0}, "b": {"seed": 1}})
        with pytest.raises(StoreError, match=r"run b was in .* not now\n  seed: 0 before, 2 now\n"):
            store.plan({"budget": 9}, {"a": {"seed": 2}})
        assert [run.name for run in store.runs()] == ["a", "b"]
    assert differences({"a": [1], "b": 2}, {"a": [1, 2]}) == [
        "a: [1] before, [1, 2] now",
        "b: 2 before, null now",
    ]


def test_an_edited_file_of_a_method_is_named(path: Path) -> None:
    def planned(*seeds: int, **source: str) -> tuple[dict[str, Any], dict[str, Any]]:
        spec = {"optimiser": "Mine", "settings": {}, **({"source": source} if source else {})}
        return {"seeds": list(seeds)}, {
            f"mine-seed{seed}": {**spec, "seed": seed} for seed in seeds
        }

    begun = {"mine.py": "a", "b.py": "b"}
    with Store(path) as store:
        store.plan(*planned(0, **begun))
        store.plan(*planned(0, 1, **begun))
        for now, lines in (
            (
                {"mine.py": "b", "c.py": "c"},
                r"mine.py, which Mine is made of, has changed since\n"
                r"  b.py is no part of Mine any more\n  c.py is a part of Mine now and was not",
            ),
            ({}, r"mine.py is no part of Mine any more\n  b.py is no part of Mine any more"),
        ):
            for seeds in ((0, 1), (0, 1, 2)):
                with pytest.raises(StoreError, match=rf"settings:\n  {lines}\nUndo"):
                    store.plan(*planned(*seeds, **now))


def test_long_values_are_shown_where_they_begin_to_differ() -> None:
    (line,) = differences({"a": list(range(1000))}, {"a": [*range(998), 0, 999]})
    start = "...990, 991, 992, 993, 994, 995, 996, 997, "
    assert line == f"a: {start}998, 999] before, {start}0, 999] now"
    assert differences({"a": "x" * 150}, {"a": ""}) == [f'a: "{"x" * 150}" before, "" now']
    assert len(differences({"a": "x" * 5000}, {"a": ""})[0]) < 200


def test_more_seeds_do_not_hide_what_else_has_changed(path: Path) -> None:
    with Store(path) as store:
        store.plan({"seeds": [0]}, {"a": {"task": "x"}})
        with pytest.raises(StoreError, match=r'settings:\n  task: "x" before, "y" now\nUndo'):
            store.plan({"seeds": [0, 1]}, {"a": {"task": "y"}, "b": {"task": "y"}})


def test_whose_run_is_taken_over_works_no_more(path: Path) -> None:
    with Store(path) as store:
        store.plan({}, {"a": {}})
        store.change_workers(lambda _: ["elsewhere", "second"])
        store.claim("elsewhere", dead=nobody_dies)
        assert store.claim("second", dead=everybody_dies) == "a"
        assert store.workers == ["second"]


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
        with pytest.raises(ValueError, match="has no run 'x'; known: a"):
            store.run("x")


def test_the_clock_may_be_set_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_run(path) as store:
        counts: list[int] = []
        with pytest.raises(Cut):
            go(store, Counted(counts=counts, last=30), Walk())
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with open_run(path) as store:
        result = go(store, Counted(counts=counts), Walk())
    assert sum(counts) == result.n_prompts + 1


def test_no_pickle_anywhere(path: Path) -> None:
    filled(path)
    with sqlite3.connect(path) as raw:
        ((prompts, rewards),) = raw.execute("SELECT prompts, rewards FROM answers LIMIT 1")
    raw.close()
    assert [len(state["ids"]) for state in json.loads(prompts)] == [3] * 6
    assert np.frombuffer(rewards, dtype="<f8").shape == (6 * N_EXAMPLES,)


@dataclass(frozen=True)
class Blocks(HiddenWords):
    """Rewards of each example's own, and an end of the process after some rows."""

    asked: list[int] = dataclasses.field(default_factory=list)
    last: int = 10**9

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        if sum(self.asked) + len(prompts) * len(examples) > self.last:
            raise Cut
        if {example.key for example in examples} <= {one.key for one in self.splits.train}:
            self.asked.append(len(prompts) * len(examples))
        numbers = np.array([int(example.fields["text"].split()[1]) for example in examples])
        worths = np.array([[self.worth(lm, prompt)] for prompt in prompts])
        rewards: Floats = worths + 0.01 * numbers
        return rewards


@pytest.mark.parametrize("last", [0, 10, 60, 150, 250])
def test_a_cut_search_on_blocks_goes_on_and_pays_each_row_once(
    path: Path, tmp_path: Path, last: int
) -> None:
    def go_on(store: Store, task: Task) -> Result:
        record = store.record("walk", lm, task, ME)
        return search(task, lm, optimiser, ROWS, seed=3, length=3, memo=record)

    lm, optimiser = tiny_lm(), RandomSearch(batch=12, halving=0.25)
    whole = search(Blocks(), lm, optimiser, ROWS, seed=3, length=3)
    asked: list[int] = []
    with open_run(path) as store, pytest.raises(Cut):
        go_on(store, Blocks(asked=asked, last=last))
    with open_run(path) as store:
        same(go_on(store, Blocks(asked=asked)), whole)
        state, entries = store.run("walk"), list(ledger(store, "walk"))
        lines, table = tmp_path / "ledger.jsonl", tmp_path / "ledger.csv"
        write_ledger(store, lines)
        write_ledger(store, table)
        shown = best(store, "walk", 1)
    assert sum(asked) == whole.rows + N_EXAMPLES  # the picked one once more
    assert (state.used, state.n_prompts, state.strayed) == (whole.rows, whole.n_prompts, None)
    assert state.best_reward == whole.trace[-1][1] == shown[0].reward
    known = [(entry.rows, entry.reward) for entry in entries if entry.reward is not None]
    assert known == list(whole.points)
    assert entries[0].examples == (0,)
    records = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    assert records[0]["examples"] == [0]
    assert (records[0]["reward"], records[0]["best"]) == (None, None)
    assert sum(record["reward"] is not None for record in records) == whole.n_prompts
    assert records[-1]["best"] == state.best_reward
    assert table.read_text().count('"[0]"') + table.read_text().count(",[0],") > 0


def test_a_block_is_another_question(path: Path) -> None:
    prompts = (TokenPrompt((10, 11)), TokenPrompt((12, 13)))
    lm, task, part = tiny_lm(), HiddenWords(), TrainQuestion(prompts, examples=(0, 2))
    with open_run(path) as store:
        store.record("walk", lm, task, ME).put(part, Answer(np.ones((2, 2)), None, 1.0))
        memo = store.record("walk", lm, task, ME)
        assert memo.get(TrainQuestion(prompts)) is None
        assert memo.get(TrainQuestion(prompts, examples=(0, 1))) is None
        assert memo.get(TrainQuestion(prompts, gradient=True, examples=(0, 2))) is None
        found = memo.get(part)
        assert found is not None
        assert found.per_example.shape == (2, 2)
        assert store.run("walk").best_reward is None
        assert (store.run("walk").used, store.run("walk").n_prompts) == (4, 0)
