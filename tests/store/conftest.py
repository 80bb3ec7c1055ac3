"""Where the stores of these tests are."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlprompt.store.store import FILE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE
