"""Which files a person's file is made of: what it imports of its own folder or package."""

from __future__ import annotations

import ast
import contextlib
import inspect
import os
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

# Folders of what others wrote: there a file beside another is no part of it.
INSTALLED = ("site-packages", "dist-packages")


def imported_files(path: Path) -> dict[str, Path]:
    """The files that one imports of its own package, or else of its folder, and what these import.

    By reading the texts, so that an import within a function counts before that is called; one by
    a name that is made up as it runs is not seen.

    Args:
        path: The file.

    Returns:
        By module name, sorted, without the file itself.

    >>> imported_files(Path("nowhere.py"))
    {}
    """
    path = path.resolve()
    base, names = path.parent, [path.stem]
    while (base / "__init__.py").is_file():
        names.insert(0, base.name)
        base = base.parent
    if names[-1] == "__init__":
        names.pop()
    packaged = len(names) > 1 or path.stem == "__init__"
    if base.name in INSTALLED and not packaged:
        return {}
    # Run by its path, a file of a package imports what lies beside it by bare names, too.
    beside = base if base.name in INSTALLED else path.parent
    found, left = dict[str, Path](), [(".".join(names), path)]
    while left:
        module, file = left.pop()
        for name in _imports(file, module):
            own = not packaged or name.split(".")[0] == names[0]
            there = _file_of(base if own else beside, name)
            there = None if beside is base and not own else there
            if there is not None and there != path and name not in found:
                found[name] = there
                left.append((name, there))
    return dict(sorted(found.items()))


def source_files(made: Any) -> dict[str, Path]:
    """The file that a function or a class is in, by "", and what that imports, by module name.

    Returns:
        Nothing for what is in no file, such as a notebook's.

    Raises:
        OSError: Python does not know where it is from.
        TypeError: It is not written in Python.
    """
    path = inspect.getsourcefile(made)
    return _with_imported(Path(path)) if path and Path(path).is_file() else {}


def own_texts(code: Iterable[Any], files: Iterable[Path] = ()) -> dict[str, str]:
    """Texts of the files that functions and classes are in, and of what these import of their own.

    Without those of Python, of installed packages and of this one, whose edits are not looked for.
    Of a script that is run, and of a notebook, there are the texts of the functions and classes
    alone: the rest of it may be what sets the study.

    Args:
        code: Functions and classes.
        files: More files.

    Returns:
        By name, sorted: of a file its path from the folder that all are in; of what a script or a
        notebook has, what it is called.
    """
    paths, loose = list(files), dict[str, list[str]]()
    for made in {id(one): one for one in code}.values():
        path, module = None, str(getattr(made, "__module__", ""))
        if _is_ours(module):
            continue
        with contextlib.suppress(OSError, TypeError):
            path = inspect.getsourcefile(made)
        if module == "__main__" and (text := _text_of(made)):
            loose.setdefault(made.__qualname__, []).append(text)  # lambdas have one name
        elif path and Path(path).is_file():
            paths.append(Path(path))
    found = {
        file.resolve()
        for path in dict.fromkeys(paths)
        if path.is_file() and not _is_installed(path.resolve())
        for module, file in _with_imported(path).items()
        if not _is_ours(module)
    }
    folder = os.path.commonpath([path.parent for path in found]) if found else ""
    texts = {
        path.relative_to(folder).as_posix(): path.read_text("utf-8", "replace") for path in found
    }
    said = {name: "\n".join(own) for name, own in loose.items()}
    return dict(sorted({**said, **texts}.items()))


def text_until_end(code: CodeType) -> str:
    """The lines that a function is written on, up to where it ends.

    "" where they are not found, and of what others wrote, such as a library's decorator. No other
    function of its name has the same: two lambdas of one line end at different places.

    >>> text_until_end(compile("1", "<nowhere>", "eval"))
    ''
    """
    if _is_installed(Path(code.co_filename).resolve()):
        return ""
    try:
        lines = inspect.findsource(code)[0]
    except (OSError, TypeError):
        return ""
    ends = ((until or line or 0, column) for line, until, _, column in code.co_positions())
    last, column = max((line, -1 if column is None else column) for line, column in ends)
    *before, end = [line.encode() for line in lines[code.co_firstlineno - 1 : last]] or [b""]
    return b"".join([*before, end[:column]]).decode("utf-8", "replace")


def _with_imported(path: Path) -> dict[str, Path]:
    return {"": path, **imported_files(path)}


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == "rlprompt"


def _is_installed(path: Path) -> bool:
    python = Path(sysconfig.get_paths()["stdlib"]).resolve()
    return path.is_relative_to(python) or any(name in path.parts for name in INSTALLED)


def _text_of(made: Any) -> str:
    """The text of a function, or of those of a class."""
    with contextlib.suppress(OSError, TypeError):
        return inspect.getsource(made)
    texts = list[str]()
    for one in vars(made).values() if isinstance(made, type) else ():
        function = inspect.unwrap(getattr(one, "__func__", one))
        if isinstance(function, FunctionType):
            with contextlib.suppress(OSError, TypeError):
                texts.append(inspect.getsource(function))
    return "\n".join(texts)


def _file_of(base: Path, name: str) -> Path | None:
    place = base.joinpath(*name.split("."))
    files = (place / "__init__.py", place.with_name(f"{place.name}.py"))
    return next((file for file in files if file.is_file()), None)


def _imports(file: Path, module: str) -> Iterator[str]:
    """Names of all modules that a file may import, those of packages on the way as well."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        named: list[str] = []
        if isinstance(node, ast.Import):
            named = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            # A relative import climbs one package less than it has dots.
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            start = ".".join([*(above if node.level else ()), *filter(None, [node.module])])
            # What is taken of a module may be a module of a package.
            named = [start, *(f"{start}.{one.name}" for one in node.names)]
        for name in named:
            parts = name.split(".")
            yield from (".".join(parts[: i + 1]) for i in range(len(parts)) if all(parts))
