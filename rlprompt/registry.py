"""Optimisers by their short names, from the entry points of the packages that are installed.

A package adds its own under the group `rlprompt.optimisers`. None is imported before it is made.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, cast

import pydantic

from rlprompt.mistakes import advice, reason

if TYPE_CHECKING:
    from rlprompt.search import Optimiser

GROUP = "rlprompt.optimisers"


def optimisers() -> dict[str, EntryPoint]:
    """The search methods that there are, by name."""
    return {point.name: point for point in sorted(entry_points(group=GROUP))}


def find_optimiser(name: str) -> EntryPoint:
    """Where the search method of that name comes from.

    Raises:
        ValueError: There is none.
    """
    known = optimisers()
    if name not in known:
        raise ValueError(f"no optimiser is called {name!r}{advice(name, known)}")
    return known[name]


def load_optimiser(name: str) -> type:
    """The class of a search method.

    Raises:
        ValueError: There is none of that name, or it cannot be imported.
    """
    point = find_optimiser(name)
    try:
        return cast(type, point.load())
    except (ImportError, AttributeError) as error:
        raise ValueError(f"optimiser {name} ({point.value}) cannot be imported: {error}") from error


def make_optimiser(name: str, settings: Mapping[str, Any]) -> Optimiser:
    """A search method with some of its settings changed.

    Raises:
        ValueError: There is no such method or setting, or a value is not allowed.
    """
    made = load_optimiser(name)
    known = settings_of(made)
    hints = typing.get_type_hints(made) if settings else {}
    values = {}
    for key, value in settings.items():
        if key not in known:
            raise ValueError(f"optimiser {name} has no setting {key!r}{advice(key, known)}")
        adapter = pydantic.TypeAdapter[Any](
            hints[key], config=pydantic.ConfigDict(arbitrary_types_allowed=True)
        )
        try:
            values[key] = adapter.validate_python(value)
        except pydantic.ValidationError as error:
            what = reason(error.errors()[0])
            raise ValueError(f"optimiser {name}: {key} {what}") from None
    try:
        return cast("Optimiser", made(**values))
    except ValueError as error:
        raise ValueError(f"optimiser {name}: {error}") from error


def settings_of(made: type) -> dict[str, Any]:
    """The settings of an optimiser class with their defaults."""
    if not dataclasses.is_dataclass(made):
        return {}
    return {
        field.name: field.default
        if field.default_factory is dataclasses.MISSING
        else field.default_factory()
        for field in dataclasses.fields(made)
        if field.init
    }


def summary_of(made: type) -> str:
    """The first line of a class's docstring."""
    return (inspect.getdoc(made) or "").partition("\n")[0]
