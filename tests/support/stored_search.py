"""A search with a store of its own, which may be cut short, for tests of the store."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fakes import timeless
from optimisers import Climb, Walk
from synthetic import N_EXAMPLES, SPLITS, HiddenWords, Synthetic, examples
from tiny import tiny_lm

from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length, Prompt
from rlprompt.search.optimiser import Optimiser
from rlprompt.search.result import Result
from rlprompt.search.run import search
from rlprompt.store.store import Store
from rlprompt.tasks.base import Task
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.template import Template
from rlprompt.types import Floats

ROWS = 70 * N_EXAMPLES
ME = "worker"


class Cut(Exception):  # noqa: N818
    """A process that ends."""


@dataclass(frozen=True)
class Counting(Synthetic):
    """Counts the prompts that it scores on train or parts of it; may end the process after some."""

    counts: list[int] = dataclasses.field(default_factory=list)
    last: int = 10**9

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        if all(example in self.splits.train for example in examples):
            if sum(self.counts) + len(prompts) > self.last:
                raise Cut
            self.counts.append(len(prompts))
        return super().rewards(lm, prompts, examples)


@dataclass(frozen=True)
class Counted(Counting, HiddenWords):
    fingerprint: str = "counted"


def nobody_dies(run: str, owner: str, beat: int) -> bool:
    return False


def everybody_dies(run: str, owner: str, beat: int) -> bool:
    return True


def open_run(path: Path, name: str = "walk", **spec: object) -> Store:
    store = Store(path, patience=0.5)
    store.plan({}, {name: spec})
    assert store.claim(ME, only={name}, dead=everybody_dies) == name
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


def goes_on(
    path: Path,
    optimiser: Optimiser[Any],
    whole: Task,
    lives: Sequence[Task],
    rows: int = 60 * N_EXAMPLES,
    length: Length = Length(4, 2),  # noqa: B008  # frozen
    tokens: Any = "all",
) -> None:
    """A search that is cut, again and again, ends as an undisturbed one does.

    Args:
        path: Of its store.
        optimiser: The method.
        whole: The task that nothing disturbs.
        lives: The same for one process after another: all but the last end it with `Cut`.
        rows: Budget.
        length: Of its prompts.
        tokens: What they are made of.
    """

    def searched(task: Task, store: Store | None = None) -> Result:
        memo = None if store is None else store.record("walk", tiny_lm(), task, ME)
        settings: dict[str, Any] = {"seed": 3, "length": length, "tokens": tokens, "memo": memo}
        return search(task, tiny_lm(), optimiser, rows, **settings)

    undisturbed = searched(whole)
    for task in lives[:-1]:
        with open_run(path) as store, pytest.raises(Cut):
            searched(task, store)
    with open_run(path) as store:
        same(searched(lives[-1], store), undisturbed)
        assert store.run("walk").strayed is None


def filled(path: Path) -> Result:
    with open_run(path) as store:
        return go(store, HiddenWords(), Walk())


def classification(train: Sequence[Example] = SPLITS.train, **changes: Any) -> ClassificationTask:
    splits = Splits(tuple(train), examples("dev"), examples("test"))
    words = {"good": changes.pop("word", "great"), "bad": "terrible"}
    return ClassificationTask(
        "words", splits, Template(changes.pop("template", "{text} {prompt}")), words, **changes
    )


EDITED = (Example({"text": "train 0!"}, "good"), *SPLITS.train[1:])
