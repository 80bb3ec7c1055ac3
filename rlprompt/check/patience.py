"""How long a check may take, and what it leaves out for want of time.

>>> patience = Patience(60.0)
>>> patience.allows(3600.0, "every example")
False
>>> patience.left_out
['every example (1:00:00)']
"""

from __future__ import annotations

import datetime
import math
import time


class Patience:
    """Seconds that are left, and what they did not cover.

    Args:
        seconds: From now on; infinite for as long as it takes.

    Attributes:
        left_out: What was left out, each with the time that it would take.
        row_seconds: What a row of a task that was checked took; 0 before.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self._end = time.perf_counter() + seconds
        self.left_out: list[str] = []
        self.row_seconds = 0.0

    @property
    def left(self) -> float:
        """Seconds that are left, 0 or more."""
        return max(0.0, self._end - time.perf_counter())

    def part(self, share: float) -> Patience:
        """A share of what is left, in [0, 1], as a patience that notes in the same place."""
        own = Patience(share * self.left)
        own.left_out, own.row_seconds = self.left_out, self.row_seconds
        return own

    def allows(self, seconds: float, what: str) -> bool:
        """Whether there is time for something; if not, it is noted.

        Args:
            seconds: That it takes, as far as one knows.
            what: What to call it.
        """
        if seconds <= self.left:
            return True
        self.leave_out(what, seconds)
        return False

    def leave_out(self, what: str, seconds: float) -> None:
        """Note something that there was no time for, and the seconds that it takes."""
        self.left_out.append(f"{what} ({duration(seconds)})")


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(0.04), duration(75)
    ('0.0 s', '0:01:15')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    return str(datetime.timedelta(seconds=round(seconds)))
