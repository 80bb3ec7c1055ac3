"""A SQLite file that a study can trust: opened safely, and clear about what is wrong.

Not what a study remembers, which is `Store`. The journal is a write-ahead log, so readers and a
writer do not wait for each other, a killed process leaves nothing half done, and what it left in
the log is taken over by whoever opens the file next.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from rlprompt._utils.text import other_format

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Marks the file as ours in its header, "rlpr" in ASCII.
APPLICATION = 0x726C7072
# Seconds that a lock or a full disk is waited for.
PATIENCE = 60.0
# A killed process loses nothing; a power cut may take what was written since the last sync to the
# disk. One sync a second costs nothing that can be measured.
SYNC_SECONDS = 1.0
# How often a write that could not be done is tried again.
RETRY_SECONDS = 0.25

# By SQLite's name of the error: what happened, and what to do.
_ADVICE = {
    "SQLITE_BUSY": "is locked by another process; wait for that to end, or end it",
    "SQLITE_LOCKED": "is locked by another process; wait for that to end, or end it",
    "SQLITE_PROTOCOL": "cannot be locked, as on some network file systems; use a local folder",
    "SQLITE_FULL": "cannot grow, because the disk is full; free some space",
    "SQLITE_READONLY": "cannot be written; make it and its folder writable, or copy the folder",
    "SQLITE_PERM": "may not be opened; make it and its folder readable and writable",
    "SQLITE_CANTOPEN": "cannot be opened; make it and its folder readable and writable",
    "SQLITE_IOERR": "cannot be read or written; check whether the disk is full, failing or gone",
    "SQLITE_CORRUPT": "is damaged",
    "SQLITE_NOTADB": "is damaged, or is not a database",
}
_MENDING = (
    "; nothing was changed. Restore it from a copy (with its -wal file if there is one), save what "
    "can be read with `sqlite3 FILE .recover`, or start again in another folder"
)
_AGAIN = "; then run the same command again, which scores nothing twice"
_WORTH_WAITING = ("SQLITE_BUSY", "SQLITE_FULL")


class StoreError(RuntimeError):
    """A store cannot be used. The message says why and what to do.

    >>> Database(Path("nowhere.sqlite"), Schema(1, "", ""), read_only=True)
    Traceback (most recent call last):
    rlprompt.store.database.StoreError: nowhere.sqlite does not exist; `rlprompt ls runs` lists ...
    """


class Schema(NamedTuple):
    """The tables of one kind of file.

    Attributes:
        format: Stands in each file; those of another are refused. Raise it with every change but
            those in `later`.
        script: SQL that makes the tables.
        advice: What to do about a file of an older format.
        later: Table, name and type of the columns that came since the format did. They are added
            to a file that lacks them, NULL in what is there, and older versions leave them alone.
    """

    format: int
    script: str
    advice: str
    later: tuple[tuple[str, str, str], ...] = ()


class Database:
    """A connection to one SQLite file of ours.

    One thread at a time may use it; processes open their own.

    Args:
        path: The file; made if it is not there, unless read-only.
        schema: What is in it.
        read_only: Change nothing; works in a folder that cannot be written.
        patience: Seconds that a lock or a full disk is waited for.

    Raises:
        StoreError: The file is no store, damaged, of another format, or cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        schema: Schema,
        *,
        read_only: bool = False,
        patience: float = PATIENCE,
    ) -> None:
        self.path = path
        self._patience = patience
        self._synced = 0.0
        if read_only and not path.exists():
            raise StoreError(f"{path} does not exist; `rlprompt ls runs` lists the studies")
        if not path.exists():
            _create(path, schema)
        if path.stat().st_size == 0:
            raise StoreError(f"{path} is damaged: it is empty{_MENDING}")
        self._connection = self._open(read_only)
        try:
            self._check_format(schema)
            if not read_only:
                self._add_columns(schema.later)
        except StoreError:
            self.close()
            raise

    def read(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows that a query gives.

        Raises:
            StoreError: The file cannot be read.
        """
        return self._patiently(lambda: self._connection.execute(sql, values).fetchall())

    def write(self, steps: Callable[[sqlite3.Connection], T]) -> T:
        """Do all of some steps or none of them, and wait until they are in the file.

        Args:
            steps: Given the connection inside a transaction; may be called again after a failure.

        Raises:
            StoreError: They could not be written.
        """
        return self._patiently(lambda: self._transaction(steps))

    def close(self) -> None:
        """Close the file, as far as it can be."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _open(self, read_only: bool) -> sqlite3.Connection:
        address = f"file:{quote(str(self.path.absolute()))}?mode={'ro' if read_only else 'rw'}"
        log = self.path.with_name(f"{self.path.name}-wal")
        if read_only and not os.access(self.path.parent, os.W_OK) and not log.exists():
            # A reader of a write-ahead log puts a file beside it, unless told that none writes.
            address += "&immutable=1"
        # Waiting is done in `_patiently`, which says so.
        try:
            return sqlite3.connect(address, timeout=RETRY_SECONDS, isolation_level=None, uri=True)
        except sqlite3.Error as error:
            raise StoreError(_message(self.path, error)) from error

    def _check_format(self, schema: Schema) -> None:
        ((application,),) = self.read("PRAGMA application_id")
        if application != APPLICATION:
            raise StoreError(
                f"{self.path} is the database of another program; nothing was changed. Give "
                "another file or folder"
            )
        ((found,),) = self.read("PRAGMA user_version")
        if found != schema.format:
            refusal = other_format(self.path, found, schema.format, schema.advice)
            raise StoreError(f"{refusal}. Nothing was changed")

    def _add_columns(self, columns: Iterable[tuple[str, str, str]]) -> None:
        """Give tables the columns that they lack."""
        sql = "SELECT 1 FROM pragma_table_info(?) WHERE name = ?"

        def steps(connection: sqlite3.Connection) -> None:
            for table, name, kind in missing:
                # Another process may have opened the file meanwhile.
                if not connection.execute(sql, (table, name)).fetchone():
                    connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")

        missing = [one for one in columns if not self.read(sql, *one[:2])]
        if missing:
            self.write(steps)

    def _transaction(self, steps: Callable[[sqlite3.Connection], T]) -> T:
        now = time.monotonic()
        sync = now - self._synced >= SYNC_SECONDS
        # FULL waits until the log is on the disk, with all that was written before.
        self._connection.execute(f"PRAGMA synchronous = {'FULL' if sync else 'NORMAL'}")
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            result = steps(self._connection)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # some errors have ended it already
                self._connection.execute("ROLLBACK")
            raise
        self._synced = now if sync else self._synced
        return result

    def _patiently(self, action: Callable[[], T]) -> T:
        """Do it, and again while something is in the way that may go away."""
        deadline, warned = time.monotonic() + self._patience, False
        while True:
            try:
                return action()
            except sqlite3.Error as error:
                name = _name(error)
                if name not in _WORTH_WAITING or time.monotonic() > deadline:
                    raise StoreError(_message(self.path, error)) from error
                if not warned:
                    what = _ADVICE[name].partition(";")[0]
                    logger.warning("%s %s; retrying for %.0f s", self.path, what, self._patience)
                    warned = True
                time.sleep(RETRY_SECONDS)


def _create(path: Path, schema: Schema) -> None:
    """Make the file elsewhere and move it into place whole: an empty file is always damage."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be created: {error.strerror}") from error
    try:
        with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(
                f"BEGIN; {schema.script}; PRAGMA application_id = {APPLICATION};"
                f"PRAGMA user_version = {schema.format}; COMMIT"
            )
        _put(draft, path)
    except sqlite3.Error as error:
        raise StoreError(_message(path, error)) from error
    except OSError as error:
        raise StoreError(f"{path} cannot be created: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)


def _put(draft: Path, path: Path) -> None:
    """Give a draft its name, unless another process was faster: its file is as good."""
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        draft.rename(path)


def _name(error: sqlite3.Error) -> str:
    """SQLite's name of an error without its extension: SQLITE_IOERR_WRITE is SQLITE_IOERR."""
    return "_".join(str(getattr(error, "sqlite_errorname", "")).split("_")[:2])


def _message(path: Path, error: sqlite3.Error) -> str:
    name = _name(error)
    if name in ("SQLITE_CORRUPT", "SQLITE_NOTADB"):
        return f"{path} {_ADVICE[name]} ({error}){_MENDING}"
    if name in _ADVICE:
        return f"{path} {_ADVICE[name]} ({error}){_AGAIN}"
    return f"{path} cannot be used: {error}"
