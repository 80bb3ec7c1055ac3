"""The seconds of a search are those of one that asks everything itself and nothing interrupts."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from exports import class_task
from tiny import tiny_lm

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import SoftPrompt, TokenPrompt
from rlprompt.search.memo import Memo
from rlprompt.search.objective import Objective
from rlprompt.search.result import Result
from rlprompt.search.run import search
from rlprompt.search.space import TokenSpace
from rlprompt.store.store import FILE, Store
from rlprompt.tasks.base import Task
from rlprompt.types import PromptKind

POOL, OWN, HIDDEN, KEYS = 64.0, 1.0, 8.0, 16.0  # sums of some of these are told apart


class Cut(Exception):  # noqa: N818
    """A process that ends."""


@dataclass
class Clock:
    """One that goes on where a test says so alone."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    return clock


@pytest.fixture
def lm(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> FrozenLM:
    """A model that takes its time, longer over the texts of a task than over prompts."""
    lm = tiny_lm()
    last_hidden, keys_and_values = lm.last_hidden, lm.keys_and_values

    def hidden(texts: Sequence[tuple[int, ...]], *after: Any) -> Any:
        clock.now += POOL if len(texts[0]) > 3 else HIDDEN
        return last_hidden(texts, *after)

    def keys(prompts: Sequence[SoftPrompt]) -> Any:
        clock.now += KEYS
        return keys_and_values(prompts)

    monkeypatch.setattr(lm, "last_hidden", hidden)
    monkeypatch.setattr(lm, "keys_and_values", keys)
    return lm


@dataclass(frozen=True)
class Asks:
    """Asks the model beside rewards; `last` ends the process after so many questions."""

    clock: Clock
    last: int = 9
    searches: ClassVar[PromptKind] = "tokens"

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        vectors = SoftPrompt(np.ones((2, objective.lm.hidden_size)))
        asked: list[Callable[[], object]] = [
            lambda: objective.hidden([(1, 5)]),
            lambda: objective.keys_and_values([vectors]),
            lambda: objective.hidden([(1, 5, 6)], [[(1, 5)]]),
        ]
        for i, ask in enumerate(asked):
            if i == self.last:
                raise Cut
            ask()
            self.clock.now += OWN
        objective.evaluate([TokenPrompt((5, 6))])


WHOLE = POOL + 2 * HIDDEN + KEYS + 3 * OWN


def searched(lm: FrozenLM, task: Task, method: Asks, memo: Memo | None = None) -> Result:
    return search(task, lm, method, len(task.splits.train), memo=memo, tokens="likely")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / FILE) as store:
        store.plan({}, {"a": {}, "b": {}})
        for _ in "ab":
            store.claim("me", dead=lambda *_: False)
        yield store


def test_asked_at_once_with_a_store_or_without(lm: FrozenLM, clock: Clock, store: Store) -> None:
    task = class_task()
    record = store.record("a", lm, task, "me")
    assert searched(lm, task, Asks(clock)).total_seconds == WHOLE
    assert searched(lm, task, Asks(clock), record).total_seconds == WHOLE


@pytest.mark.parametrize("last", [0, 1, 2])
def test_resumed_after_a_kill(lm: FrozenLM, clock: Clock, store: Store, last: int) -> None:
    task = class_task()
    with pytest.raises(Cut):
        searched(lm, task, Asks(clock, last), store.record("a", lm, task, "me"))
    before = clock.now
    resumed = searched(lm, task, Asks(clock), store.record("a", lm, task, "me"))
    assert clock.now - before < WHOLE  # some was found
    assert resumed.total_seconds == WHOLE


def test_found_where_another_search_had_asked(lm: FrozenLM, clock: Clock, store: Store) -> None:
    task = class_task()
    first, second = (
        searched(lm, task, Asks(clock), store.record(name, lm, task, "me")) for name in "ab"
    )
    assert clock.now == WHOLE + 3 * OWN
    assert second.total_seconds == first.total_seconds == WHOLE
    assert second.own_tokens == first.own_tokens


def test_the_vocabulary_is_read_for_all_searches_of_a_process(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, lm = class_task(), tiny_lm(seed=77)  # one that no test has read
    decode = lm.decode

    def slow(*args: Any) -> str:
        clock.now += 1
        return decode(*args)

    monkeypatch.setattr(lm, "decode", slow)
    first, second = (searched(lm, task, Asks(clock)) for _ in range(2))
    assert clock.now > len(lm.tokenizer) / 2
    assert first.total_seconds == second.total_seconds


def test_a_store_that_kept_no_seconds_goes_on(lm: FrozenLM, clock: Clock, tmp_path: Path) -> None:
    task, path = class_task(), tmp_path / FILE
    with Store(path) as store:
        store.plan({}, {"a": {}, "b": {}})
        for _ in "ab":
            store.claim("me", dead=lambda *_: False)
        with pytest.raises(Cut):
            searched(lm, task, Asks(clock, last=1), store.record("a", lm, task, "me"))
    raw = sqlite3.connect(path)
    with raw:  # as it was before
        raw.execute("ALTER TABLE hidden DROP COLUMN seconds")
    raw.close()
    content = path.read_bytes()
    with Store(path, read_only=True) as store:
        assert [run.name for run in store.runs()] == ["a", "b"]
    assert path.read_bytes() == content
    for _ in range(2):
        with Store(path) as store:
            asked = clock.now
            found = searched(lm, task, Asks(clock), store.record("a", lm, task, "me"))
    assert clock.now - asked == 3 * OWN  # nothing was asked again
    assert found.total_seconds == WHOLE - POOL - HIDDEN  # of what was asked before they are unknown
