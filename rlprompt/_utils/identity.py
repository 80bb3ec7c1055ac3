"""What an object of Python is, as JSON values that are the same in every process.

A study is gone on with in another process, so what decides a search may not be named by where it
lies in memory, as the `repr` of most objects does.

>>> import functools
>>> identity({"rate": 0.5, "of": (1, 2), "by": functools.partial(identity, 3)})["by"]
{'partial': 'rlprompt._utils.identity:identity', 'args': [3], 'keywords': {}}
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
import operator
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, MethodWrapperType
from typing import Any

import numpy as np

from rlprompt._utils.own_source import own_texts, text_until_end
from rlprompt._utils.plugins import module_title

# A place in memory, in the `repr` of an object or of what is in it.
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")
# A place of a person's own class among settings, as `locate` gives it.
PLACE = re.compile(r".+\.py:\w+")
# Modules of what a search hands to a method: one that keeps it is no other method for that.
HANDED = ("rlprompt.envs.", "rlprompt.search.objective")


def identity(value: Any, *, by_fields: bool = False) -> Any:
    """All that tells a value from others, as JSON values.

    Args:
        value: Numbers, texts, lists, tuples and dictionaries are as JSON has them, a set is a list
            in order. What has a property `digest` or `fingerprint` is its class and that, a task
            with a hash of its examples; arrays, tensors and modules are hashes of their content,
            and a dataclass is its fields. Anything else is its `repr`, unless that has a place in
            memory in it: then a function is `MODULE:NAME`, with what it has taken from where it
            was made, and a hash of its text where others may have its name, as lambdas do; a
            partial one and a method are their parts; and any other object its class and its
            attributes.
        by_fields: A dataclass itself by its fields, even if it has such a property.
    """
    return _Walk(value if by_fields else None).identity(value)


def is_told(value: Any) -> bool:
    """Whether `identity` says anything of all that a value is made of, besides its class.

    >>> is_told([1, len]), is_told(object())
    (True, False)
    """
    walk = _Walk()
    walk.identity(value)
    return not walk.untold


def own_sources(value: Any) -> dict[str, str]:
    """A hash of every file of a person's own that a value is made of, by name; see `own_texts`.

    >>> own_sources(identity)
    {}
    """
    walk = _Walk()
    walk.identity(value)
    texts = own_texts(walk.code, [Path(place.rpartition(":")[0]) for place in walk.places])
    return {name: _hash(text.encode()) for name, text in texts.items()}


class _Walk:
    """Goes through a value and all that it is made of.

    Args:
        by_fields: A dataclass to tell by its fields.

    Attributes:
        untold: Objects of which nothing but the class could be said.
        code: Functions and classes on the way.
        places: Of classes that are named among settings.
    """

    def __init__(self, by_fields: Any = None) -> None:
        self.untold: list[Any] = []
        self.code: list[Any] = []
        self.places: list[str] = []
        self._above: list[Any] = []
        self._by_fields = by_fields

    def identity(self, value: Any) -> Any:
        """See the function."""
        if isinstance(value, str) and PLACE.fullmatch(value):
            self.places.append(value)
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return value if value == value else "nan"  # equals nothing, itself too
        if any(one is value for one in self._above):
            return "..."  # it holds itself
        with self._within(value):
            return self._contents(value)

    @contextlib.contextmanager
    def _within(self, value: Any) -> Iterator[None]:
        self._above.append(value)
        yield
        self._above.pop()

    def _contents(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self._mapping(value)
        if isinstance(value, list | tuple):
            return [self.identity(item) for item in value]
        if isinstance(value, set | frozenset) and not all(_is_number(item) for item in value):
            # Texts come in another order in every process.
            return sorted(map(self.identity, value), key=json.dumps)
        self._note(value)
        said = None if value is self._by_fields else _digest(value)
        if said is not None:
            return {"class": _name(type(value)), **said}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = dataclasses.fields(value)
            return {field.name: self.identity(getattr(value, field.name)) for field in fields}
        if isinstance(value, np.ndarray) or _is_of_torch(value, "Tensor", "nn.Module"):
            return {"class": _name(type(value)), **self._numbers(value)}
        text = repr(value)
        of = getattr(value, "__self__", None) if isinstance(value, MethodType) else value
        if isinstance(of, type) and module_title(of.__module__) != of.__module__:
            return self._object(value)  # whose `repr` names the folder of its file
        return text if not ADDRESS.search(text) else self._object(value)

    def _numbers(self, value: Any) -> dict[str, Any]:
        """Of an array or a tensor its type, its shape and a hash; of a module a hash alone."""
        if isinstance(value, np.ndarray) and value.dtype.hasobject:
            return {"shape": list(value.shape), "items": self.identity(value.tolist())}
        if isinstance(value, np.ndarray):
            found = {"type": str(value.dtype), "shape": list(value.shape)}
            return {**found, "digest": _hash(value.tobytes())}
        if _is_of_torch(value, "nn.Module"):
            # Weights, buffers, settings and modules within.
            return {"digest": _hash(self._mapping(attributes(value)))}
        found = {"type": str(value.dtype), "shape": list(value.shape)}
        try:
            flat = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
            return {**found, "digest": _hash(flat.view(sys.modules["torch"].uint8).numpy())}
        except (RuntimeError, NotImplementedError):  # sparse, quantised, without memory
            self.untold.append(value)
            return found

    def _mapping(self, value: Mapping[Any, Any]) -> dict[Any, Any]:
        return {
            key if key is None or isinstance(key, str | int | float) else _as_text(key): item
            for key, item in ((key, self.identity(item)) for key, item in value.items())
        }

    def _object(self, value: Any) -> Any:
        if isinstance(value, type):
            return _name(value)
        if isinstance(value, functools.partial):
            parts = {"args": value.args, "keywords": value.keywords}
            return {"partial": self.identity(value.func), **self._mapping(parts)}
        if isinstance(value, MethodType | BuiltinFunctionType | MethodWrapperType):
            return {"method": value.__qualname__, "of": self.identity(value.__self__)}
        if callable(value) and isinstance(getattr(value, "__qualname__", None), str):
            return self._function(value)
        name = _name(type(value))
        if type(value).__module__.startswith(HANDED):
            return name
        if isinstance(value, Mapping):
            return {"class": name, **self._mapping(value)}
        parts = attributes(value)
        if not parts and not _is_plain(value):
            self.untold.append(value)
        return {"class": name, **self._mapping(parts)} if parts else name

    def _function(self, value: Any) -> Any:
        made = inspect.unwrap(value)  # of a cached one, say
        kept = getattr(value, "__code__", None), getattr(value, "__closure__", None)
        found = dict[str, Any]()
        if kept[0] is not None and kept[1]:
            found["closure"] = dict(_cells(kept[0].co_freevars, kept[1]))
        if isinstance(made, FunctionType) and "<locals>" in made.__qualname__:
            # Of one name there may be many, each with its own defaults.
            parameters = inspect.signature(made).parameters.values()
            given = {one.name: one.default for one in parameters if one.default is not one.empty}
            found |= {"defaults": given} if given else {}
        # A decorator's function goes by the name of what it wraps.
        codes = dict.fromkeys(getattr(one, "__code__", None) for one in (value, made))
        shared = [one for one in codes if isinstance(one, CodeType) and "<" in one.co_qualname]
        if texts := list(filter(None, map(text_until_end, shared))):
            found["code"] = _hash(texts)
        if made is not value:
            self._note(made)
        return {"function": _name(made), **self._mapping(found)} if found else _name(made)

    def _note(self, value: Any) -> None:
        if isinstance(value, FunctionType):
            self.code.append(value)
        else:
            self.code += (value if isinstance(value, type) else type(value)).__mro__


def attributes(value: Any) -> dict[str, Any]:
    """Those that an object has of its own, in a dictionary or in slots."""
    try:
        state: Any = object.__getstate__(value)
    except TypeError:  # of a class that is not written in Python
        return {}
    if isinstance(state, tuple):
        return {**(state[0] or {}), **state[1]}
    return dict(state or {})


def _name(made: Any) -> str:
    return f"{module_title(str(getattr(made, '__module__', None)))}:{made.__qualname__}"


def _digest(value: Any) -> dict[str, str] | None:
    """What it says of its own content, such as a model's weights; None if it says nothing."""
    for name in ("digest", "fingerprint"):
        stated = inspect.getattr_static(type(value), name, None)
        if isinstance(stated, property | functools.cached_property):
            with contextlib.suppress(Exception):  # whatever a person's property raises
                said = getattr(value, name)
                said = getattr(said, "digest", said)
                # A task's says nothing of its examples.
                examples = getattr(getattr(value, "splits", None), "digest", None)
                if isinstance(said, str):
                    found = {"digest": said}
                    return found | {"examples": examples} if examples else found
    return None


def _hash(value: Any) -> str:
    """Of bytes, or of JSON values."""
    if not isinstance(value, bytes | np.ndarray):
        value = json.dumps(value).encode()
    return hashlib.blake2b(value, digest_size=8).hexdigest()


def _is_of_torch(value: Any, *names: str) -> bool:
    """Whether it is of one of torch's classes; where torch is not imported, nothing is."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(
        value, tuple(operator.attrgetter(name)(torch) for name in names)
    )


def _is_plain(value: Any) -> bool:
    """Whether its class is written in Python, so that its attributes are all that there is."""
    return hasattr(value, "__dict__") or hasattr(type(value), "__slots__")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _as_text(key: Any) -> str:
    return json.dumps(_Walk().identity(key))


def _cells(names: tuple[str, ...], cells: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(names, cells, strict=True):
        with contextlib.suppress(ValueError):  # nothing is in it yet
            yield name, cell.cell_contents
