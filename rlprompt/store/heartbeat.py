"""Who works on a study, and who is gone.

No clock is compared with another's: a worker's heart makes a number grow, and who sees it stand
still for long enough, by its own stopwatch, takes the worker for dead. On the same machine and in
the same container a process that has ended is dead at once. A worker that was taken for dead and
comes back is refused by the store (`check_owner`), so a wrong guess costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import threading
import time
import uuid
from pathlib import Path

import psutil

from rlprompt.store.database import StoreError
from rlprompt.store.store import Store

logger = logging.getLogger(__name__)

# A heart that stands still for ten beats is dead.
BEAT_SECONDS = 3.0
LEASE_SECONDS = 30.0
# Workers of this process whose context is open: one that an error ended is dead though the process
# is not.
_alive: set[str] = set()


class Heartbeat:
    """Shows that this process works on a study, while the context is open.

    Args:
        path: The study's store.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # The worker's name; its last part tells two of one process apart.
        self.name = f"{machine()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._seen: dict[str, tuple[str, int, float]] = {}
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        _alive.add(self.name)
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._heart.join()
        _alive.discard(self.name)

    def takes_for_dead(self, run: str, owner: str, beat: int) -> bool:
        """Whether the owner of a run is dead, as far as this worker has seen."""
        if has_ended(owner):
            return True
        now = time.monotonic()
        *last, since = self._seen.get(run, (owner, beat, now))
        if last != [owner, beat]:
            since = now
        self._seen[run] = (owner, beat, since)
        return now - since > LEASE_SECONDS

    def _beat(self) -> None:
        with contextlib.ExitStack() as stack:
            store: Store | None = None
            while not self._stop.wait(BEAT_SECONDS):
                try:
                    # A connection of its own: one thread at a time may use one.
                    store = store or stack.enter_context(Store(self._path))
                    store.beat(self.name)
                except StoreError as error:  # the search itself will stumble over it, if it stays
                    logger.warning("this worker cannot show that it is alive: %s", error)


def machine() -> str:
    """Where a process id means this process and no other.

    The name of the host, and on Linux a hash of its boot and of the PID namespace: containers that
    share a host's name number their processes each for itself, and so do hosts of one name.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8")
        seen = f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux, or no leave to read it
        return platform.node()
    return f"{platform.node()}/{hashlib.blake2b(seen.encode(), digest_size=6).hexdigest()}"


def has_ended(owner: str) -> bool:
    """Whether an owner is a worker of this machine that is no more."""
    there, pid, _ = owner.rsplit(":", 2)
    # An older version gave the name of the host alone.
    if there not in (machine(), platform.node()):
        return False
    if int(pid) == os.getpid():
        return owner not in _alive
    try:
        return bool(psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
