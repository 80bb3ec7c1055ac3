"""A search in a study of its own, with a cache beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optimisers import Walk
from tiny import tiny_lm

from rlprompt.search.budget import Budget
from rlprompt.search.result import Result
from rlprompt.studies.planned_search import PlannedSearch
from rlprompt.studies.search_queue import SearchQueue
from rlprompt.tasks.base import Task


def run(
    folder: Path, task: Task, cache: Path | None, optimiser: Any = None, rows: int = 200
) -> Result:
    """One search in a study of its own."""
    job = PlannedSearch(
        task, tiny_lm(), optimiser or Walk(), Budget(rows), seed=3, length=3, banned=()
    )
    with SearchQueue(folder, {"run": job}, {}, cache) as queue:
        return queue.run(next(queue.claimed()))
