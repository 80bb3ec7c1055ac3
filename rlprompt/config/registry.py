"""Optimisers and tasks by their short names, from the entry points of the installed packages.

A package adds its own under the groups `rlprompt.optimisers` (classes) and `rlprompt.tasks`
(classes, or functions that give a task). None is imported before it is made.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, cast, get_args

import pydantic

from rlprompt._utils.assets import AssetError
from rlprompt._utils.plugins import load_object, told
from rlprompt._utils.suggest import advice, reason
from rlprompt.types import PromptKind, RegistryKind

# Names of papers and systems, and the search method here that follows them.
FOLLOWED = {
    "a2c": "rl",
    "ape": "instructions",
    "autoprompt": "gcg",
    "bbt": "cma-es",
    "black-box-tuning": "cma-es",
    "dqn": "rl",
    "evoprompt": "genetic",
    "gepa": "instructions",
    "greater": "gcg",
    "grips": "genetic",
    "opro": "instructions",
    "p-tuning": "soft-prompt",
    "p-tuning-v2": "prefix",
    "prompt-tuning": "soft-prompt",
    "protegi": "instructions",
    "rlprompt": "soft-q",
    "sac": "rl-soft",
    "td3": "rl-soft",
    "tempera": "ppo-edit",
    "trpo": "rl",
}

# What a function of a person's own may give.
GIVEN: Mapping[RegistryKind, str] = {
    "optimiser": "an optimiser, such as `Play(learn)`",
    "task": "a task",
}
# What people call the environment that a loop of theirs plays.
ENVIRONMENTS = ("env", "envs", "environment", "vec_env")

if TYPE_CHECKING:
    from rlprompt.search.optimiser import Optimiser
    from rlprompt.tasks.base import Task


@cache  # the metadata of every installed package are read
def entries(kind: RegistryKind) -> dict[str, EntryPoint]:
    """The search methods, or the tasks, that there are, by name."""
    return {point.name: point for point in sorted(entry_points(group=f"rlprompt.{kind}s"))}


def find(kind: RegistryKind, name: str) -> EntryPoint:
    """Where the search method or task of that name comes from.

    Raises:
        ValueError: There is none.
    """
    known = entries(kind)
    if name not in known:
        meant = FOLLOWED.get(name.lower(), name) if kind == "optimiser" else name
        raise ValueError(f"no {kind} is called {name!r}{advice(meant, known)}")
    return known[name]


def load(kind: RegistryKind, name: str) -> Callable[..., Any]:
    """The class of a search method, or what makes a task.

    Args:
        kind: Which of the two.
        name: Its short name, or its place, `FILE.py:NAME` or `MODULE:NAME`.

    Raises:
        ValueError: There is none of that name, it cannot be imported, or what is in that place
            cannot be called.
    """
    if ":" in name:
        made = load_object(name)
        if not callable(made):
            raise ValueError(
                f"{name} is of the type {type(made).__name__}; give a class, or a function that "
                f"gives {GIVEN[kind]}"
            )
        return cast("Callable[..., Any]", made)
    point = find(kind, name)
    try:
        return cast("Callable[..., Any]", point.load())
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{kind} {name} ({point.value}) cannot be imported: {error}") from error
    except Exception as error:  # whatever a package raises; kept as the cause
        problem = f"{kind} {name} ({point.value}) cannot be imported: {told(error)}"
        raise ValueError(problem) from error


def make_optimiser(name: str, settings: Mapping[str, Any]) -> Optimiser[Any]:
    """A search method with some of its settings changed.

    Args:
        name: Its short name, or the place of a person's own class, or of a function that gives one.
        settings: Some of its settings.

    Raises:
        ValueError: There is no such method or setting, a value is not allowed, or it is none.
    """
    made = _make("optimiser", name, settings)
    kinds = get_args(PromptKind)
    if not callable(getattr(made, "run", None)) or getattr(made, "searches", None) not in kinds:
        raise ValueError(
            f"{name} gives a {type(made).__name__}, which is no optimiser; one has `searches`, "
            f"{' or '.join(map(repr, kinds))}, and run(objective, space, rng), inherits from "
            "rlprompt.AskTell, or is `rlprompt.agents.Play(learn)`"
        )
    return cast("Optimiser[Any]", made)


def make_task(name: str, settings: Mapping[str, Any]) -> Task:
    """A task by its short name, with its settings.

    Raises:
        ValueError: There is no such task or setting, one is missing, or a value is not allowed.
    """
    return checked_task(_make("task", name, settings), f"task {name}")


def import_task(spec: str, args: Mapping[str, Any]) -> Task:
    """A task from a person's own class, or function that gives one.

    Args:
        spec: `FILE.py:NAME` or `MODULE:NAME`.
        args: What it is called with.

    Raises:
        ValueError: It is not there, does not take the arguments, or gives no task.
    """
    made = load_object(spec)
    if not callable(made):
        kind = type(made).__name__
        raise ValueError(f"{spec} is of the type {kind}; give a class, or a function")
    try:
        inspect.signature(made).bind(**args)
    except TypeError as error:
        raise ValueError(f"{spec} cannot be called with args {dict(args)!r}: {error}") from None
    try:
        task = made(**args)
    except Exception as error:  # whatever a person's class raises; kept as the cause
        raise ValueError(f"{spec} raised {told(error)}") from error
    return checked_task(task, spec)


def checked_task(task: Any, where: str) -> Task:
    """A task that has what a task needs, and the defaults for the rest.

    Raises:
        ValueError: It has not.
    """
    from rlprompt.data.examples import Splits
    from rlprompt.tasks.completed import as_task

    needed = ("name", "splits", "fingerprint", "rewards")
    try:
        missing = [name for name in needed if not hasattr(task, name)]
    except ValueError:
        raise
    except Exception as error:  # of a property of a person's own; kept as the cause
        raise ValueError(f"{where} raised {told(error)}") from error
    if missing or isinstance(task, type):
        lacks = f"without {', '.join(missing)}" if missing else "and not made yet"
        raise ValueError(
            f"{where} gives a {type(task).__name__} {lacks}, which is no task; a task has name, "
            "splits, fingerprint and rewards(lm, prompts, examples)"
        )
    if not isinstance(task.splits, Splits):
        raise ValueError(
            f"{where} has splits of the type {type(task.splits).__name__}; make them with "
            "rlprompt.Splits or rlprompt.load_splits"
        )
    return as_task(task)


def _make(kind: RegistryKind, name: str, settings: Mapping[str, Any]) -> Any:
    """What is registered under a name, called with settings that were checked."""
    return make(load(kind, name), f"{kind} {name.rpartition(':')[2]}", settings)


def make(made: Callable[..., Any], what: str, settings: Mapping[str, Any]) -> Any:
    """A class or function called with settings that were checked.

    Args:
        made: What is called.
        what: What an error calls it.
        settings: Some or all of its arguments.

    Raises:
        ValueError: It has no such setting, lacks one, or does not allow a value.
    """
    known = settings_of(made)
    hints = _types_of(made) if settings else {}
    values = {}
    for key, value in settings.items():
        if key not in known:
            raise ValueError(f"{what} has no setting {key!r}{advice(key, known)}")
        adapter = pydantic.TypeAdapter[Any](
            hints.get(key, Any), config=pydantic.ConfigDict(arbitrary_types_allowed=True)
        )
        try:
            values[key] = adapter.validate_python(value)
        except pydantic.ValidationError as error:
            problem = reason(error.errors()[0])
            raise ValueError(f"{what}: {key} {problem}") from None
    for key, default in known.items():
        if default is inspect.Parameter.empty and key not in values:
            loop = key in ENVIRONMENTS and inspect.isfunction(made)
            raise ValueError(
                f"{what} needs the setting {key!r}"
                + f"; a loop is given by a function without it, which gives `Play({made.__name__})`"
                * loop
            )
    try:
        return made(**values)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    except (AssetError, OSError):  # which say themselves what is not there
        raise
    except Exception as error:  # whatever a person's class raises; kept as the cause
        raise ValueError(f"{what} raised {told(error)}") from error


def _types_of(made: Callable[..., Any]) -> dict[str, Any]:
    """Types of arguments by name; none where one is known to type checkers alone."""
    while isinstance(made, functools.partial):
        made = made.func
    plain_class = inspect.isclass(made) and not dataclasses.is_dataclass(made)
    try:
        return typing.get_type_hints(made.__init__ if plain_class else made)
    except Exception:  # an annotation may be any text; what it is for checks what it is given
        return {}


def settings_of(made: Callable[..., Any]) -> dict[str, Any]:
    """The settings of an optimiser class, or of what makes a task, with their defaults.

    Of one that has no default, `inspect.Parameter.empty`.
    """
    made_by = {
        field.name: field.default_factory()
        for field in (dataclasses.fields(made) if dataclasses.is_dataclass(made) else ())
        if field.default_factory is not dataclasses.MISSING
    }
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(made).parameters.values()
    return {one.name: made_by.get(one.name, one.default) for one in parameters if one.kind in named}


def summary_of(made: Callable[..., Any]) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(made) or "").partition("\n")[0]
