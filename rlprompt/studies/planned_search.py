"""One search of a study, before it is done: what decides its result, and how to do it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rlprompt._utils.identity import identity, own_sources
from rlprompt._utils.seeding import SEEDED_BY
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length, Pool, Start, checked_starts
from rlprompt.search.budget import Budget, Ledger
from rlprompt.search.memo import Memo
from rlprompt.search.optimiser import Optimiser, recorded, resolved
from rlprompt.search.result import Result, plain
from rlprompt.search.run import nothing_found, search
from rlprompt.search.selection import Selection
from rlprompt.store.changes import SOURCE
from rlprompt.tasks.base import Task, prompt_rows


@dataclass(frozen=True)
class PlannedSearch:
    """One search of a study: arguments of `search`, and what it is called.

    Attributes:
        task: What a prompt is worth.
        lm: The frozen model.
        optimiser: The method.
        budget: What it may spend.
        seed: Decides everything random.
        length: Tokens of a prompt, exactly or in a range; see `search`.
        banned: Ids and words that no prompt of tokens or text and no start may use; see `search`.
        start: What it begins with; see `search`.
        tokens: What token prompts and random starts are made of; see `search`.
        name: What it is called in its study, and its files.
        method: The optimiser's name in the experiment.
        task_name: The task's name in the experiment.
        split_seed: Which draw of the examples it is on; None for the only one.
        heading: What tells its experiment from the others of the study, or "".
        selection: How its prompt is picked.
    """

    task: Task
    lm: FrozenLM
    optimiser: Optimiser[Any]
    budget: Budget
    seed: int
    length: int | Length
    banned: Collection[str | int]
    start: Start | Sequence[Start] = "vocabulary"
    tokens: str | Mapping[str, int] | Pool = "all"
    name: str = ""
    method: str = ""
    task_name: str = ""
    split_seed: int | None = None
    heading: str = ""
    selection: Selection = field(default_factory=Selection)

    @property
    def title(self) -> str:
        """How to call it in a sentence."""
        place = f"{self.heading}: " if self.heading else ""
        return f"{place}{self.method}, seed {self.seed}"

    @property
    def prompt_rows(self) -> int:
        """Rows that one prompt costs."""
        return prompt_rows(self.task)

    @cached_property
    def source(self) -> dict[str, str]:
        """Hashes of the files of a person's own that the method is made of, by name."""
        return own_sources(self.optimiser)

    @property
    def spec(self) -> dict[str, Any]:
        """All that decides the result, as JSON values."""
        starts = checked_starts(self.start)
        return {
            "task": {
                "name": self.task.name,
                "fingerprint": self.task.fingerprint,
                "examples": self.task.splits.digest,
                "prompt_rows": self.prompt_rows,
            },
            "model": self.lm.fingerprint.content,
            "optimiser": type(self.optimiser).__name__,
            "settings": _finite(resolved(self.optimiser)),
            # Of our own methods and of installed ones there are none.
            **({SOURCE: self.source} if self.source else {}),
            "budget": _finite(self.budget),
            "seed": self.seed,
            "seeded by": SEEDED_BY,
            "length": plain(Length.of(self.length).simplest),
            "banned": sorted(map(str, self.banned)),
            "selection": dataclasses.asdict(self.selection),
            "start": [one if isinstance(one, str) else one.digest for one in starts],
            "tokens": Pool.of(self.tokens).simplest,
        }

    @property
    def nothing(self) -> Result:
        """Its result where an error keeps it from beginning."""
        length = Length.of(self.length)
        return nothing_found(self.task, self.lm, self.optimiser, self.budget, self.seed, length)

    def run(
        self,
        memo: Memo | None = None,
        on_progress: Callable[[Ledger], None] | None = None,
        on_failure: Callable[[Result], None] | None = None,
    ) -> Result:
        """Do the search; see `search`."""
        return search(
            self.task,
            self.lm,
            self.optimiser,
            self.budget,
            seed=self.seed,
            length=self.length,
            banned=self.banned,
            start=self.start,
            tokens=self.tokens,
            on_progress=on_progress,
            on_failure=on_failure,
            memo=memo,
            selection=self.selection,
        )


def _finite(settings: Any) -> Any:
    """What a method or a budget is, without infinities of its own, which JSON does not have."""
    told = identity(settings, by_fields=True)
    if not dataclasses.is_dataclass(settings):
        return told
    known = recorded(settings)
    return {
        key: value
        for key, value in told.items()
        if key in known and not (isinstance(value, float) and math.isinf(value))
    }
