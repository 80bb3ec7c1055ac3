"""Files that are written whole, also by two at once, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from rlprompt._utils.files import write_atomically, written_beside


def test_two_who_write_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    with written_beside(path) as slow:
        slow.write_bytes(b"half")
        write_atomically(path, b"of another")
        assert path.read_bytes() == b"of another"
        slow.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_atomically(path, b"before")

    def half() -> None:
        with written_beside(path) as part:
            part.write_bytes(b"half")
            raise RuntimeError

    for fails in (half, lambda: write_atomically(path, cast(bytes, None))):
        with pytest.raises((RuntimeError, TypeError)):
            fails()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
