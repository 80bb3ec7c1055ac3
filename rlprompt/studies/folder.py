"""The folder of a study: claiming it, finding the newest, and what a run writes there."""

from __future__ import annotations

import contextlib
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rlprompt._utils.files import write_atomically
from rlprompt.store import summary
from rlprompt.store.store import FILE
from rlprompt.studies.comparison import Comparison


def write(comparison: Comparison, out: Path) -> None:
    """Bring the files of a comparison up to date, each whole or not at all.

    A summary of more searches is left to the process that wrote it, which has added seeds to these.

    Raises:
        OSError: The folder cannot be written to.
    """
    for run in comparison.runs:
        path, content = out / "runs" / f"{run.search.name}.json", run.result.to_json().encode()
        if not path.exists() or path.read_bytes() != content:  # a failed one was tried again
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
    found = comparison.summary()
    if found.expected_runs >= _expected_runs(out / summary.FILE):
        write_atomically(out / summary.FILE, found.to_json().encode())


def _expected_runs(path: Path) -> int:
    """Searches that a summary is of; 0 where there is none that can be read."""
    try:
        return int(json.loads(path.read_text("utf-8"))["expected_runs"])
    except (OSError, ValueError, TypeError, LookupError):
        return 0


@contextlib.contextmanager
def claimed(out: Path, *, beside: bool = False) -> Iterator[Path]:
    """A folder to write to, empty or with a study, found out before anything is paid for.

    On leaving, it is removed again if it was made here and nothing was written.

    Args:
        out: The folder, with those above it made where they are missing.
        beside: Where `out` holds anything, a study too, take the first free of `out-2`, ...

    Raises:
        ValueError: It holds something else, or cannot be written to.
    """
    for number in itertools.count(1):
        place = out if number == 1 else out.with_name(f"{out.name}-{number}")
        try:
            made = not place.is_dir()
            place.mkdir(parents=True, exist_ok=not made)
            taken = any(place.iterdir())
            if (place / FILE).exists() and not beside:
                taken = False
            if not taken:
                tempfile.TemporaryFile(dir=place).close()
        except FileExistsError:
            taken = True
        except OSError as error:
            raise ValueError(f"cannot write to {place}: {error.strerror}") from None
        if not taken:
            break
        if not beside:
            raise ValueError(
                f"{place} exists, holds no study to go on with, and is not overwritten; remove it "
                "or give another folder"
            )
    try:
        yield place
    finally:
        if made:
            with contextlib.suppress(OSError):  # not empty
                place.rmdir()


def newest(out: Path) -> Path | None:
    """The last of `out`, `out-2`, `out-3`, ... that holds a study, or None."""
    places = (
        out if number == 1 else out.with_name(f"{out.name}-{number}")
        for number in itertools.count(1)
    )
    studies = [
        place for place in itertools.takewhile(Path.exists, places) if (place / FILE).exists()
    ]
    return studies[-1] if studies else None
