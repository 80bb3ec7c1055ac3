"""A data file as bytes and as lines: its kind by its ending, unpacked, and its encoding."""

from __future__ import annotations

import codecs
import difflib
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TextIO

# Endings of data files, in upper or lower case; those of text may have another of `PACKED` after.
SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".json", ".parquet")
PACKED = (".gz", ".zip")
ENDINGS = f"{', '.join(SUFFIXES)} (or with .gz or .zip after it)"
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class DataFile:
    """A file with rows in it.

    Args:
        path: Where it lies.

    Raises:
        ValueError: It has another ending, or is an archive of more or less than one file; while it
            is read also where it is damaged.

    >>> DataFile(Path("Films.TSV.gz")).suffix
    '.tsv'
    """

    path: Path

    def __post_init__(self) -> None:
        """Refuse what is no data file."""
        if self.suffix not in SUFFIXES:
            inside = "" if self.inner == self.name else f", and holds {self.inner}"
            raise ValueError(f"{self.path} does not end in {ENDINGS}{inside}")

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.path.name

    @property
    def suffix(self) -> str:
        """One of `SUFFIXES`."""
        return Path(self.inner).suffix.lower()

    @cached_property
    def inner(self) -> str:
        """What the file is called once it is unpacked."""
        packing = self.path.suffix.lower()
        if packing == ".zip":
            with self._told(), zipfile.ZipFile(self.path) as archive:
                (member,) = self._members(archive)
                return member
        return self.path.stem if packing == ".gz" else self.name

    @contextmanager
    def bytes(self) -> Iterator[IO[bytes]]:
        """Its content, unpacked."""
        packing = self.path.suffix.lower()
        with self._told():
            if packing == ".gz":
                with gzip.open(self.path) as unpacked:
                    yield unpacked  # type: ignore[misc]  # which typeshed has no type for
            elif packing == ".zip":
                with zipfile.ZipFile(self.path) as archive, archive.open(self.inner) as member:
                    yield member
            else:
                with self.path.open("rb") as file:
                    yield file

    @contextmanager
    def text(self, newline: str = "") -> Iterator[TextIO]:
        """Its text, without a byte order mark.

        Args:
            newline: As for `open`.

        Raises:
            ValueError: It is no text.
        """
        encoding = self.encoding
        with (
            self.bytes() as content,
            io.TextIOWrapper(content, encoding, newline=newline) as lines,
        ):
            yield lines

    @cached_property
    def encoding(self) -> str:
        """`utf-8-sig`, or `utf-16` where the file says so by its first two bytes.

        Raises:
            ValueError: It is neither, by its line.
        """
        with self.bytes() as content:
            if content.read(2) in UTF_16:
                content.seek(0)
                try:
                    with io.TextIOWrapper(content, "utf-16") as lines:
                        for _ in lines:
                            pass
                except UnicodeError as error:
                    reason = getattr(error, "reason", error)
                    raise ValueError(f"{self.name} is no UTF-16 ({reason}); convert it") from None
                return "utf-16"
            content.seek(0)
            for number, line in enumerate(content, 1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise ValueError(
                        f"{self.name}:{number} is not UTF-8 ({error.reason}); convert it"
                    ) from None
                if number == 1 and b"\0" in line:
                    raise ValueError(
                        f"{self.name}:1 has NUL bytes, as UTF-16 has; convert it to UTF-8"
                    )
        return "utf-8-sig"

    def _members(self, archive: zipfile.ZipFile) -> list[str]:
        """The one file in an archive, without what macOS puts beside it."""
        names = [
            name
            for name in archive.namelist()
            if not name.endswith("/") and not name.startswith("__MACOSX/")
        ]
        if len(names) != 1:
            held = ", ".join(names[:5]) or "nothing"
            raise ValueError(f"{self.name} holds {held}; give an archive of one file, or unpack it")
        return names

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say of which file it is that it cannot be unpacked."""
        try:
            yield
        except (EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile, RuntimeError) as error:
            # The last is zipfile's for a password.
            raise ValueError(f"{self.name} cannot be unpacked: {error}") from None
        except OSError as error:
            raise ValueError(f"{self.path} cannot be read: {error.strerror or error}") from None


def find_file(folder: Path, name: str) -> Path | None:
    """The data file of that name, whatever its ending; None where there is none.

    Of several, that whose ending comes first in `SUFFIXES`, and the unpacked one.
    """
    order = [suffix + packing for packing in ("", *PACKED) for suffix in SUFFIXES]
    found = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_file()}
    names = [name + ending for ending in (*order, ".zip")]
    return next((found[one] for one in names if one in found), None)


def near_file(path: Path, also: Sequence[str] = ()) -> str:
    """What a path that leads nowhere probably meant, as a question in brackets, or "".

    Args:
        path: Where nothing is; what lies beside it is near.
        also: Other names that it may have meant.
    """
    around = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, [*also, *around], 1)
    return f" (did you mean {near[0]}?)" if near else ""


def file_title(path: Path) -> str:
    """A file's name without its endings.

    >>> file_title(Path("Train.TSV.gz")), file_title(Path("v1.2.csv"))
    ('Train', 'v1.2')
    """
    packed = path.suffix.lower() in PACKED and Path(path.stem).suffix.lower() in SUFFIXES
    return Path(path.stem).stem if packed else path.stem


def data_name(data: object) -> str:
    """What results call data: a file without its endings, a folder with the one above.

    >>> data_name("data/films.csv.gz"), data_name([{"text": "Fun."}])
    ('films', 'data')
    """
    if not isinstance(data, str | Path):
        return "data"
    path = Path(data)
    return "/".join(path.parts[-2:]) if path.is_dir() else file_title(path)
