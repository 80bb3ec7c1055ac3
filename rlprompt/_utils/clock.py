"""The time, as it is kept in files."""

from __future__ import annotations

import datetime


def now() -> str:
    """This second in UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
