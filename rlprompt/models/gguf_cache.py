"""GGUF files in float32, each written once: transformers takes 15 to 20 s to read the default one.

What is written is a folder like any other, read in about 1 s. That of a pinned asset lies beside
its file, that of a person's own in the cache, under the file's hash.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rlprompt._utils.assets import ASSETS, cache_folder
from rlprompt.models.reading import quiet, read

logger = logging.getLogger(__name__)

CHECKSUMS = "SHA256SUMS"
# Raised where all files are to be converted anew: 1 had random layers, and no scaling of positions.
FORMAT = 2
# Bytes of a file whose hash is noted: less is hashed before one would notice.
NOTED = 1 << 24


def dense_source(name: str, source: str, where: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The folder that is kept for a GGUF file in the place of the file; all else as it is."""
    others = dict(where)
    if file := others.pop("gguf_file", None):
        gguf = Path(source) / file
        folder = dense_folder(gguf, gguf.parent if name in ASSETS else _place_of(gguf))
        if folder:
            return str(folder), others
    return source, dict(where)


def dense_folder(gguf: Path, parent: Path | None = None) -> Path | None:
    """A folder with the same model as a GGUF file in float32, written if it is not whole.

    The files' hashes (`_digest`) are compared with those in `SHA256SUMS`. None where it cannot be
    written, or may take more than half of what is free on the disk.

    Args:
        gguf: The file.
        parent: What the folder lies in, made if it is not there; the file's own by default.
    """
    parent = parent or gguf.parent
    folder = parent / "float32"
    if _is_whole(folder):
        return folder
    try:
        parent.mkdir(parents=True, exist_ok=True)
        # Of 4 bits a weight at the least.
        if (most := 8 * gguf.stat().st_size) > shutil.disk_usage(parent).free // 2:
            raise OSError(f"it may take {most / 1e9:.1f} GB, more than half of what is free")
        logger.info("converting %s to float32, once, in %s", gguf.name, parent)
        # Inside the target's parent, so that the last step is a rename on one file system.
        with tempfile.TemporaryDirectory(prefix="convert-", dir=parent) as scratch:
            part = Path(scratch) / "float32"
            _convert(gguf, part)
            _write_checksums(part)
            _put_in_place(part, folder, Path(scratch) / "broken")
    except OSError as error:
        logger.warning("cannot keep %s in float32 (%s); loading will stay slow", gguf.name, error)
        return None
    return folder


def _place_of(gguf: Path) -> Path:
    """Where the dense form of a person's own file is kept, whatever the file is called."""
    return cache_folder() / "gguf" / f"{_digest(gguf)[:32]}-{FORMAT}"


def _digest(path: Path) -> str:
    """SHA-256 of a file; a large one that was read for it is known again by path, size and time.

    It says what is loaded quickly, and no more: results depend on the weights, hashed anew.
    """
    seen = path.resolve().stat()
    known = f"{path.resolve()} {seen.st_size} {seen.st_mtime_ns}"
    note = cache_folder() / "digests" / hashlib.sha256(known.encode()).hexdigest()[:32]
    with contextlib.suppress(OSError):
        if len(digest := note.read_text()) == 64:  # what was cut short is written again
            return digest
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if seen.st_size >= NOTED:
        with contextlib.suppress(OSError):
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(digest)
    return digest


def _convert(gguf: Path, folder: Path) -> None:
    with quiet():
        loaded = read(str(gguf.parent), torch.float32, {"gguf_file": gguf.name})
        # Its weights are dense already, but it still says that it is quantised.
        quantizer = getattr(loaded.model, "hf_quantizer", None)
        if quantizer is not None:
            quantizer.remove_quantization_config(loaded.model)
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)


def _write_checksums(folder: Path) -> None:
    """Write `SHA256SUMS` in the format of sha256sum, all files down to the disk."""
    lines = []
    for path in sorted(folder.iterdir()):
        with path.open("rb+") as file:
            os.fsync(file.fileno())
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    (folder / CHECKSUMS).write_text("".join(lines))


def _is_whole(folder: Path) -> bool:
    try:
        lines = (folder / CHECKSUMS).read_text().splitlines()
        for line in lines:
            digest, name = line.split("  ", 1)
            if _digest(folder / name) != digest:
                return False
    except (OSError, ValueError):
        return False
    return bool(lines)


def _put_in_place(part: Path, folder: Path, aside: Path) -> None:
    """Rename `part` to `folder`, whatever broken thing is there; another process may be first."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(folder, aside)
    try:
        os.rename(part, folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not _is_whole(folder):
            raise
