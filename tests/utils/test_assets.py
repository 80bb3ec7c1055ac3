from __future__ import annotations

import hashlib
import io
import logging
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rlprompt._utils import assets
from rlprompt._utils.assets import ASSETS, Asset, AssetError, fetch

CONTENT = b"what the asset holds\n" * 1000


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def wheel_bytes(member: str, content: bytes = CONTENT) -> bytes:
    """Return a wheel that pip accepts as `tiny 1.0`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
        info = "tiny-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return buffer.getvalue()


def tar_bytes(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place that pip looks for packages in: an empty folder."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("RLPROMPT_CACHE", str(folder))
    return folder


@pytest.fixture
def publish(index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Asset]:
    """Return a function that puts an archive on the index and registers it as asset `tiny`."""

    def register(archive: bytes, filename: str, **changes: str) -> Asset:
        (index / filename).write_bytes(archive)
        asset = Asset(
            package="tiny",
            version="1.0",
            filename=filename,
            archive_sha256=sha256(archive),
            nested="",
            member="tiny/data.bin",
            member_sha256=sha256(CONTENT),
            licence="MIT",
            source="made up",
            description="a tiny file",
        )
        monkeypatch.setattr(assets, "ASSETS", {"tiny": replace(asset, **changes)})
        return asset

    return register


@pytest.fixture
def tiny(publish: Callable[..., Asset]) -> Asset:
    return publish(wheel_bytes("tiny/data.bin"), "tiny-1.0-py3-none-any.whl")


@pytest.fixture
def no_subprocess(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function after whose call starting any process fails the test."""

    def refuse(*args: object, **options: object) -> None:
        pytest.fail(f"started a process: {args}")

    return lambda: monkeypatch.setattr(subprocess, "Popen", refuse)


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


class TestTheRealAssets:
    """The real index and the user's real cache: everything else needs these two files."""

    def test_the_model_is_a_gguf_file_with_the_pinned_hash(self) -> None:
        path = fetch("smollm2-135m")
        assert path.name == "SmolLM2-135M-Instruct.Q4_1.gguf"
        assert path.stat().st_size == 98_362_432
        with path.open("rb") as file:
            assert file.read(4) == b"GGUF"

    def test_the_reviews_have_an_id_a_rating_and_a_text_on_every_line(self) -> None:
        path = fetch("movie-reviews")
        assert path.name == "movieReviewSnippets_GroundTruth.txt"
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
        assert len(rows) == 10_605
        assert all(len(row) == 3 and row[2] for row in rows)
        assert all(-4 <= float(row[1]) <= 4 for row in rows)

    @pytest.mark.parametrize("name", sorted(ASSETS))
    def test_a_second_call_starts_no_process(
        self, name: str, no_subprocess: Callable[[], None]
    ) -> None:
        first = fetch(name)
        no_subprocess()
        assert fetch(name) == first

    @pytest.mark.parametrize("asset", ASSETS.values(), ids=sorted(ASSETS))
    def test_licence_and_source_are_stated(self, asset: Asset) -> None:
        assert asset.licence in {"Apache-2.0", "BSD-3-Clause", "MIT"}
        assert "https://" in asset.source


class TestFetching:
    def test_a_wheel_gives_its_member_and_leaves_nothing_else(
        self, tiny: Asset, cache: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, logger="rlprompt"):
            path = fetch("tiny")
        assert path.read_bytes() == CONTENT
        assert path.is_relative_to(cache)
        assert files_below(cache) == ["data.bin"]
        assert [entry.name for entry in path.parent.iterdir()] == ["data.bin"]
        assert "fetching tiny 1.0 with pip" in caplog.text

    def test_a_source_archive_gives_the_member_of_the_archive_inside(
        self, publish: Callable[..., Asset], cache: Path
    ) -> None:
        inner = tar_bytes({"data/a.txt": b"no", "data/b.txt": CONTENT})
        setup = b"from setuptools import setup\nsetup(name='tiny', version='1.0', packages=[])\n"
        outer = tar_bytes({"tiny-1.0/setup.py": setup, "tiny-1.0/extra/inner.tar.gz": inner})
        publish(outer, "tiny-1.0.tar.gz", nested="tiny-1.0/extra/inner.tar.gz", member="data/b.txt")
        assert fetch("tiny").read_bytes() == CONTENT
        assert files_below(cache) == ["b.txt"]

    def test_a_later_call_starts_no_process(
        self, tiny: Asset, no_subprocess: Callable[[], None]
    ) -> None:
        first = fetch("tiny")
        no_subprocess()
        assert fetch("tiny") == first

    @pytest.mark.parametrize("broken", [b"", CONTENT[:-1], CONTENT[:-1] + b"X"])
    def test_a_broken_entry_is_fetched_again(self, tiny: Asset, broken: bytes) -> None:
        path = fetch("tiny")
        path.write_bytes(broken)
        assert fetch("tiny").read_bytes() == CONTENT

    def test_what_a_killed_process_left_does_no_harm(self, tiny: Asset) -> None:
        path = fetch("tiny")
        path.unlink()
        (path.parent / "fetch-dead").mkdir()
        (path.parent / "fetch-dead" / "part").write_bytes(CONTENT[:10])
        assert fetch("tiny").read_bytes() == CONTENT

    def test_two_processes_at_once_both_get_the_file(self, tiny: Asset, cache: Path) -> None:
        code = (
            "import sys, time\n"
            "from rlprompt._utils import assets\n"
            f"assets.ASSETS = {{'tiny': assets.{tiny!r}}}\n"
            "print('ready', flush=True); sys.stdin.readline()\n"
            "print(assets.fetch('tiny'))\n"
        )
        root = str(Path(assets.__file__).parents[2])
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"PYTHONPATH": root},
            )
            for _ in range(2)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=120)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0]
        assert outputs[0] == outputs[1]
        assert Path(outputs[0].strip()).read_bytes() == CONTENT
        assert files_below(cache) == ["data.bin"]

    def test_the_cache_is_the_users_own_unless_it_is_named(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv("RLPROMPT_CACHE", raising=False)
        assert "rlprompt" in assets.cache_folder().parts
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("RLPROMPT_CACHE", "here")
        assert assets.cache_folder() == tmp_path / "here"

    def test_a_file_of_the_working_folder_is_not_imported(
        self, tiny: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "logging.py").write_text("raise SystemExit('the wrong module')")
        monkeypatch.chdir(tmp_path)
        assert fetch("tiny").read_bytes() == CONTENT


class TestDistrust:
    def test_an_archive_with_another_hash_is_refused_unopened(
        self, publish: Callable[..., Asset], cache: Path, tmp_path: Path
    ) -> None:
        marker = tmp_path / "setup-was-run"
        setup = f"open({str(marker)!r}, 'w').close()\n".encode()
        publish(
            tar_bytes({"tiny-1.0/setup.py": setup, "tiny-1.0/data.bin": CONTENT}),
            "tiny-1.0.tar.gz",
            archive_sha256="0" * 64,
            member="tiny-1.0/data.bin",
        )
        with pytest.raises(AssetError, match="DO NOT MATCH THE HASHES"):
            fetch("tiny")
        assert not marker.exists()
        assert files_below(cache) == []

    def test_the_archive_is_hashed_again_whatever_pip_says(
        self, tiny: Asset, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def careless(*arguments: str) -> subprocess.CompletedProcess[str]:
            folder = Path(arguments[arguments.index("--dest") + 1])
            (folder / tiny.filename).write_bytes(wheel_bytes("tiny/data.bin", b"other"))
            return subprocess.CompletedProcess(arguments, 0, "", "")

        monkeypatch.setattr(assets, "_pip", careless)
        with pytest.raises(AssetError, match="no archive with the pinned hash"):
            fetch("tiny")
        assert files_below(cache) == []

    def test_a_member_with_another_hash_is_refused(
        self, publish: Callable[..., Asset], cache: Path
    ) -> None:
        archive = wheel_bytes("tiny/data.bin", b"other")
        publish(archive, "tiny-1.0-py3-none-any.whl")
        with pytest.raises(AssetError, match=r"tiny/data\.bin has the SHA-256 \w+, but \w+ is"):
            fetch("tiny")
        assert files_below(cache) == []

    def test_a_missing_member_is_named(self, publish: Callable[..., Asset], cache: Path) -> None:
        publish(wheel_bytes("tiny/other.bin"), "tiny-1.0-py3-none-any.whl")
        with pytest.raises(AssetError, match=r"whl does not hold tiny/data\.bin"):
            fetch("tiny")
        assert files_below(cache) == []

    @pytest.mark.parametrize("member", ["../../escaped.bin", "/tmp/escaped.bin"])
    def test_a_member_name_that_leads_elsewhere_writes_inside_the_cache(
        self, publish: Callable[..., Asset], cache: Path, tmp_path: Path, member: str
    ) -> None:
        inner = tar_bytes({member: CONTENT})
        publish(
            wheel_bytes("tiny/inner.tar.gz", inner),
            "tiny-1.0-py3-none-any.whl",
            member="tiny/inner.tar.gz",
            member_sha256=sha256(inner),
        )
        assert fetch("tiny").is_relative_to(cache)
        setup = b"from setuptools import setup\nsetup(name='tiny', version='1.0', packages=[])\n"
        outer = tar_bytes({"tiny-1.0/setup.py": setup, "tiny-1.0/inner.tar.gz": inner})
        publish(outer, "tiny-1.0.tar.gz", nested="tiny-1.0/inner.tar.gz", member=member)
        (tmp_path / "index" / "tiny-1.0-py3-none-any.whl").unlink()
        assert fetch("tiny").is_relative_to(cache)
        assert files_below(tmp_path / "cache") == ["escaped.bin", "inner.tar.gz"]
        assert not list(tmp_path.glob("escaped.bin"))

    def test_a_folder_is_not_a_file(self, publish: Callable[..., Asset]) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            setup = b"from setuptools import setup\nsetup(name='tiny', version='1.0', packages=[])"
            entry = tarfile.TarInfo("tiny-1.0/setup.py")
            entry.size = len(setup)
            archive.addfile(entry, io.BytesIO(setup))
            folder = tarfile.TarInfo("tiny-1.0/data")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
        publish(buffer.getvalue(), "tiny-1.0.tar.gz", member="tiny-1.0/data")
        with pytest.raises(AssetError, match="not a regular file"):
            fetch("tiny")


class TestAdvice:
    def test_an_unknown_name_lists_the_known_ones(self) -> None:
        known = "french-messages, iterator-functions, movie-reviews, smollm2-135m"
        with pytest.raises(ValueError, match=f"'gpt2'; there are: {known}"):
            fetch("gpt2")

    def test_without_cache_and_index_the_message_says_all(
        self, tiny: Asset, index: Path, cache: Path
    ) -> None:
        (index / tiny.filename).unlink()
        with pytest.raises(AssetError) as caught:
            fetch("tiny")
        message = str(caught.value)
        for part in (
            "tiny (a tiny file) is not in the cache",
            str(cache),
            "from the package index (tiny==1.0, with pip)",
            "pip said: ERROR: No matching distribution found for tiny==1.0",
            "Connect to the package index once",
            "RLPROMPT_CACHE",
            "give the path of a local model or data file",
        ):
            assert part in message
        assert "\n" not in message

    def test_a_python_without_pip_is_named(
        self, tiny: Asset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def without(*arguments: str) -> subprocess.CompletedProcess[str]:
            said = f"{sys.executable}: No module named pip\n"
            return subprocess.CompletedProcess(arguments, 1, "", said)

        monkeypatch.setattr(assets, "_pip", without)
        with pytest.raises(AssetError, match=r"has no pip\. Install it \(`python -m ensurepip`"):
            fetch("tiny")

    @pytest.mark.parametrize("said", assets.NO_SETUPTOOLS)
    def test_a_python_without_setuptools_is_named(
        self, said: str, tiny: Asset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def without(*arguments: str) -> subprocess.CompletedProcess[str]:
            traceback = f"ERROR: Exception:\nTraceback (most recent call last):\n{said}\n"
            return subprocess.CompletedProcess(arguments, 2, "", traceback)

        monkeypatch.setattr(assets, "_pip", without)
        advice = r"has no setuptools, .*Install it \(`pip install 'rlprompt\[demo\]'`\)"
        with pytest.raises(AssetError, match=advice):
            fetch("tiny")

    def test_a_cache_that_cannot_be_written_is_named(
        self, tiny: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A file in the place of the folder: permission bits would not stop root.
        (tmp_path / "occupied").write_text("")
        monkeypatch.setenv("RLPROMPT_CACHE", str(tmp_path / "occupied"))
        with pytest.raises(AssetError, match=r"cache folder .*occupied.*Set RLPROMPT_CACHE"):
            fetch("tiny")

    def test_a_full_disk_is_reported_and_cleaned_up(
        self, tiny: Asset, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(AssetError, match="No space left on device"):
            fetch("tiny")
        assert files_below(cache) == []
