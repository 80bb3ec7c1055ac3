"""Objects that are no `Task` but have what one needs, as tasks with the defaults for the rest."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from rlprompt.tasks.base import Task, members

# What stands in a class for the same thing counts together or not at all.
PAIRS = {"metric": "measure", "hand_prompt": "written"}
PARTNERS = {**PAIRS, **{method: attribute for attribute, method in PAIRS.items()}}


class _Completed(Task):
    """An object that is no `Task`, with the defaults for what it lacks.

    Its hooks are properties of a subclass that `as_task` makes.
    """

    def __init__(self, task: object) -> None:
        self.__wrapped__ = task

    @property  # type: ignore[misc]  # what a class is called decides where its answers lie
    def __class__(self) -> type:
        return type(self.__wrapped__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)

    def __reduce__(self) -> tuple[Callable[[Any], Task], tuple[object]]:
        return as_task, (self.__wrapped__,)


def as_task(task: Any) -> Task:
    """A task with all of `Task`: itself, or an object with the defaults for what it lacks.

    >>> from rlprompt.data.examples import Example, Splits
    >>> class Short:
    ...     name, fingerprint = "short", "short 1"
    ...     splits = Splits(*[(Example({"text": text}, ""),) for text in ("one", "two", "three")])
    ...
    ...     def rewards(self, lm, prompts, examples):
    ...         return [[0.0] * len(examples) for _ in prompts]
    >>> as_task(Short()).metric, as_task(Short()).hand_prompt
    ('reward', '')
    """
    if isinstance(task, Task):
        return task
    there = {name for name in members() if inspect.getattr_static(task, name, None) is not None}
    own = {name for name in there if PARTNERS.get(name, name) in there}
    hooks = {name: property(attrgetter(f"__wrapped__.{name}")) for name in own}
    made: Task = type("_Completed", (_Completed,), hooks)(task)
    return made
