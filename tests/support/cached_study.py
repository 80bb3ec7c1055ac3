"""A search in a study of its own, with a cache beside it.

`python cached_study.py CACHE FOLDER ...` does the same search in each folder, in processes at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optimisers import Walk
from stored_search import Counted
from tiny import tiny_lm

from rlprompt.search.budget import Budget
from rlprompt.search.result import Result
from rlprompt.studies.study import PlannedSearch, Study
from rlprompt.tasks.base import Task


def run(
    folder: Path, task: Task, cache: Path | None, optimiser: Any = None, rows: int = 200
) -> Result:
    """One search in a study of its own."""
    job = PlannedSearch(
        task, tiny_lm(), optimiser or Walk(), Budget(rows), seed=3, length=3, banned=()
    )
    with Study(folder, {"run": job}, {}, cache) as study:
        return study.run(next(study.claimed()))


def side_by_side(cache: Path, folders: Sequence[Path]) -> None:
    """Forks, so that what is imported is so once."""
    children = []
    for folder in folders:
        children.append(os.fork())
        if not children[-1]:
            run(folder, Counted(), cache)
            os._exit(0)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(folders)


if __name__ == "__main__":
    side_by_side(Path(sys.argv[1]), [Path(folder) for folder in sys.argv[2:]])
