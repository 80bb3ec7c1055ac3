"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under another name and rename it."""
    with written_beside(path) as part:
        part.write_bytes(content)


@contextlib.contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A file to write that takes the place of another at the end, or is removed by an error.

    Its name is no other process's, for two may write the same file.

    Yields:
        Its path, in the same folder.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
