"""What methods and references of an experiment are called: their names with their settings."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from itertools import count
from pathlib import PurePath
from typing import Any, Protocol

from rlprompt._utils.text import file_part


class Section(Protocol):
    """Something that a file names, with some of its settings."""

    @property
    def name(self) -> str:
        """Its name; of a person's own class its place."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those that are given."""


def titles(sections: Sequence[Section], begun: Collection[str] = ()) -> list[str]:
    """Sections as `greedy pool=0.5`, each with as much of its paths and digits as tells it apart.

    Two that have the same title are the same.

    Args:
        sections: Of one file.
        begun: Names of the runs of a study that goes on: what these were called by a version that
            wrote settings as Python does is called that still.

    >>> from types import SimpleNamespace
    >>> one = {"start": {"found": "a/best"}, "pool": 1 / 3}
    >>> titles([SimpleNamespace(name="greedy", settings=one)])
    ['greedy start=found:best pool=0.3333']
    >>> other = one | {"start": {"found": "b/best"}}
    >>> titles([SimpleNamespace(name="greedy", settings=own) for own in (one, other)])[1]
    'greedy start=found:b/best pool=0.3333333333333333'
    """
    found = [_title(one, 1) for one in sections]
    for parts in count(2):
        alike = [found.count(title) > 1 for title in found]
        pairs = zip(sections, found, alike, strict=True)
        longer = [_title(one, parts) if same else title for one, title, same in pairs]
        if longer == found:
            break
        found = longer
    known = {name.rpartition("/")[2].rpartition("-seed")[0] for name in begun}
    for i, one in enumerate(sections):
        if file_part(found[i]) not in known and file_part(before := _earlier(one)) in known:
            found[i] = before
    return found


def shown(value: Any, parts: int = 1, key: str = "") -> str:
    """A setting as a file may have it, in short.

    Args:
        value: It.
        parts: So many of the last parts of a path to what a person made; from two on, numbers have
            all their digits.
        key: Under which it stands.

    >>> shown({"learning_rate": 1e-4, "policy_kwargs": {"net_arch": [64]}, "verbose": None})
    'learning_rate:0.0001,policy_kwargs:{"net_arch": [64]},verbose:null'
    >>> shown(["hand", {"found": "runs/best"}]), shown({"url": "http://a:8000/v1"}), shown(True)
    ('hand+found:best', 'url:http://a:8000/v1', 'true')
    """
    if isinstance(value, str):
        is_path = key == "found" or ".py:" in value
        return "/".join(PurePath(value).parts[-parts:]) if is_path else value or '""'
    if isinstance(value, float):
        short = f"{value:.4g}"
        exact = parts > 1 or float(short) == value
        return repr(value) if exact else min(repr(value), short, key=len)
    if isinstance(value, Mapping) and value and not key:
        return ",".join(f"{own}:{shown(item, parts, own)}" for own, item in value.items())
    if isinstance(value, list | tuple) and value and not key:
        return "+".join(shown(item, parts) for item in value)
    simple = value is None or isinstance(value, bool | int | list | tuple | Mapping)
    return json.dumps(value, default=str, ensure_ascii=False) if simple else str(value)


def _title(one: Section, parts: int) -> str:
    settings = (f"{key}={shown(value, parts)}" for key, value in one.settings.items())
    place = PurePath(one.name).parts
    name = one.name.rpartition(":")[2] if parts == 1 else "/".join(place[1 - parts :])
    return " ".join([name, *settings])


def _earlier(one: Section) -> str:
    """The title that a version had which wrote settings as Python does."""
    settings = (f"{key}={_as_python(value)}" for key, value in one.settings.items())
    return " ".join([one.name.rpartition(":")[2], *settings])


def _as_python(value: Any) -> str:
    if isinstance(value, str) and ".py:" in value:
        return PurePath(value).name
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{PurePath(str(item)).name}" for key, item in value.items())
    return "+".join(map(_as_python, value)) if isinstance(value, list | tuple) else str(value)
