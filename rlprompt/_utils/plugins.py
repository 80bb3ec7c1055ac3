"""Objects that a person wrote, by where they are: `FILE.py:NAME` or `MODULE:NAME`.

A file need not be installed; what lies beside it can be imported by it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from rlprompt._utils.own_source import imported_files
from rlprompt._utils.suggest import advice
from rlprompt._utils.text import error_line


def locate(spec: str, folder: Path) -> str:
    """The spec with the file that it names in `folder`, if there is one, by its full path.

    That is the file before the colon, or the schema of `json:FILE`.

    >>> locate("json.loads:x", Path("/nowhere"))
    'json.loads:x'
    """
    place, colon, name = spec.rpartition(":")
    if not colon:
        return spec
    for file in (folder / place, folder / f"{place}.py"):
        if file.suffix == ".py" and file.is_file():
            return f"{file.resolve()}:{name}"
    if place == "json" and (folder / name).is_file():
        return f"{place}:{(folder / name).resolve()}"
    return spec


def load_object(spec: str) -> Any:
    """What is at `FILE.py:NAME` or `MODULE:NAME`.

    Raises:
        ValueError: It is not there, or the file cannot be run; the cause is what it raised.
    """
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise ValueError(f"{spec!r} names no object; give FILE.py:NAME or MODULE:NAME")
    module = _run_file(Path(place)) if place.endswith(".py") else _import(place)
    if not hasattr(module, name):
        public = [other for other in vars(module) if not other.startswith("_")]
        raise ValueError(f"{place} has no {name!r}{advice(name, public)}")
    return getattr(module, name)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise ValueError(f"module {name} cannot be imported: {error}") from error
        raise ValueError(
            f"there is no module {name!r}: no {name}.py beside the experiment file, and none is "
            "installed"
        ) from None
    except Exception as error:  # whatever a person's module raises; kept as the cause
        raise ValueError(f"module {name} cannot be imported: {told(error)}") from error


def own_modules() -> list[ModuleType]:
    """The modules that were run from a file; no other process can import them by their name."""
    return [sys.modules[name] for name in _run]


def module_title(name: str) -> str:
    """What to call a module: of one that was run from a file, in any process, the file's name.

    >>> module_title("json"), module_title("bandit_0a1b2c3d")
    ('json', 'bandit')
    """
    # What was sent to a process is there without its module.
    sent = re.fullmatch(r"(.+)_[0-9a-f]{8}", name) if name not in sys.modules else None
    return sent[1] if sent else _run.get(name, name)


# Names of modules that were run from a file, and of these without the ending.
_run: dict[str, str] = {}


# Names of modules that such files imported from beside them.
_neighbours: set[str] = set()


def _forget_namesakes(path: Path) -> None:
    """Have a file import its own neighbours, and not those of another folder by the same names.

    Python keeps one module of a name; who imported the other one before has it still. Modules that
    no such file brought in, those of Python and of packages, stay.
    """
    for name, file in imported_files(path).items():
        there = getattr(sys.modules.get(name), "__file__", None)
        if name in _neighbours and there and Path(there).resolve() != file.resolve():
            del sys.modules[name]
            above, _, last = name.rpartition(".")
            if above in sys.modules:
                vars(sys.modules[above]).pop(last, None)


def _run_file(path: Path) -> ModuleType:
    """The module in a file, run once a process."""
    path = path.expanduser().resolve()
    # Another file of the same name is another module, and no installed one is hidden.
    digest = hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest()
    name = f"{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValueError(f"there is no file {path}")
    _forget_namesakes(path)
    before = set(sys.modules)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a person's file raises; kept as the cause
        del sys.modules[name]
        raise ValueError(f"{path.name} cannot be run: {told(error, path)}") from error
    finally:
        sys.path.remove(str(path.parent))
        _neighbours.update(imported_files(path).keys() & (sys.modules.keys() - before))
    _run[name] = path.stem
    return module


def told(error: Exception, path: Path | None = None) -> str:
    """An error of a person's code in a line: what, and the last place that it came from.

    Args:
        error: As it was caught; who catches it is no such place.
        path: The file to name a place in; None for any.
    """
    frames = traceback.extract_tb(error.__traceback__)[1:]
    own = [one for one in frames if path is None or one.filename == str(path)]
    if isinstance(error, SyntaxError) and Path(error.filename or "").is_file():
        own = []  # it says its file and line itself
    where = f" at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    return error_line(error).rstrip(": ") + where
