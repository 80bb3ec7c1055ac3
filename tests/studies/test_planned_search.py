"""What of a search's settings is recorded: what a study is held against when it is gone on with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from stored_search import classification
from synthetic import N_EXAMPLES
from tiny import tiny_lm

from rlprompt.agents.genetic import Genetic
from rlprompt.agents.greedy import Greedy
from rlprompt.agents.random_search import RandomSearch
from rlprompt.agents.rl import RL
from rlprompt.search.budget import Budget
from rlprompt.search.optimiser import LATER, Optimiser
from rlprompt.search.run import search
from rlprompt.studies.planned_search import PlannedSearch


@dataclass(frozen=True)
class Drawn(RandomSearch):
    """With a setting that came later."""

    twice: bool = field(default=False, metadata=LATER)


DRAWN = {"batch": 32, "halving": None}
BRED = {"population": 16, "children": 8, "tournament": 2, "mutation": 1.0, "guided": 0.5}
CLIMBED = {"pool": 1 / 3, "batch": 16}
LEARNT = {"algorithm": "A2C", "prompts": 16, "words": 200, "settings": {}}


@pytest.mark.parametrize(
    ("optimiser", "settings"),
    [
        (Drawn(), DRAWN),
        (Drawn(twice=True), DRAWN | {"twice": True}),
        (Greedy(), CLIMBED),
        (Greedy(halving=0.5), CLIMBED | {"halving": 0.5}),
        (Genetic(), BRED),
        (Genetic(entropy=0.1), BRED | {"entropy": 0.1}),
        (RL(), LEARNT),
        (RL(environment="edits"), LEARNT | {"environment": "edits"}),
    ],
)
def test_a_setting_that_came_later_is_recorded_where_it_is_not_the_default(
    optimiser: Optimiser[Any], settings: dict[str, Any]
) -> None:
    task, lm, rows = classification(calibration="none"), tiny_lm(), 4 * N_EXAMPLES
    planned = PlannedSearch(task, lm, optimiser, Budget(rows), seed=0, length=2, banned=())
    assert planned.spec["settings"] == settings
    assert search(task, lm, optimiser, rows, length=2).settings == settings
