"""Processes that are there at once: forks of this one, which has imported what takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch


@contextmanager
def forked(target: Callable[..., object], *given: object) -> Iterator[BaseProcess]:
    """A process that calls a function of a module, and is killed where the context ends before.

    Where a GPU is in use here, which no fork could use, it is started anew.
    """
    cuda: Any = torch.cuda  # not annotated
    context: Any = multiprocessing.get_context("spawn" if cuda.is_initialized() else "fork")
    process: BaseProcess = context.Process(target=_run, args=(Path.cwd(), target, *given))
    with warnings.catch_warnings():
        # Those of pytest-xdist and of scripted servers wait for something to read.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def done(target: Callable[..., object], *given: object) -> None:
    """Have a process call a function, which must end well."""
    with forked(target, *given) as process:
        process.join()
        assert process.exitcode == 0, f"ended with {process.exitcode}"


def _run(folder: Path, target: Callable[..., object], *given: object) -> None:
    os.chdir(folder)
    os.environ["OMP_NUM_THREADS"] = "1"  # of what it starts in turn
    target(*given)


def python(said: Path, code: str) -> None:
    """Code as `python -c` runs it, and a file for what it says."""
    with said.open("w") as sys.stdout:
        exec(code, {"__name__": "__main__"})


def rlprompt(said: Path, *arguments: str, line_seconds: float = 10.0) -> None:
    """`rlprompt` as a terminal runs it: in a group of its own, and Ctrl-C ends it.

    Args:
        said: File for what it says; what it says of errors goes beside it (`.err`).
        arguments: Of the command.
        line_seconds: After which a line of progress is due.
    """
    from rlprompt.cli import app, terminal

    os.setsid()
    # A shell that starts the tests in the background has them ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name, path in ((1, "stdout", said), (2, "stderr", said.with_suffix(".err"))):
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
        setattr(sys, name, open(number, "w", buffering=1, closefd=False))  # noqa: SIM115
    terminal.LINE_SECONDS = line_seconds
    sys.argv = ["rlprompt", *arguments]
    app.main()
