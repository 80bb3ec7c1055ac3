"""What a prompt costs, in rows: one an example, and what a task needs beyond."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from rlprompt.tasks.base import Task


@runtime_checkable
class PricedTask(Task, Protocol):
    """A task that has the model do more for a prompt than score it on the examples."""

    @property
    def extra_rows(self) -> int:
        """Rows that each prompt costs beyond one an example, 0 or more."""
        ...


def prompt_rows(task: Task) -> int:
    """Rows that one prompt costs on the train split, in the unit of `Budget`.

    Raises:
        ValueError: The task's `extra_rows` is no whole number of 0 or more.
    """
    extra = task.extra_rows if isinstance(task, PricedTask) else 0
    if not isinstance(extra, int) or extra < 0:
        raise ValueError(
            f"task {task.name!r} has extra_rows {extra!r}; give a whole number, 0 or more"
        )
    return len(task.splits.train) + extra
