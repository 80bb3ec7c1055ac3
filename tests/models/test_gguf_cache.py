from __future__ import annotations

import hashlib
import logging
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_files import write_gguf
from tiny import tiny_lm, tiny_model, tiny_tokenizer

from rlprompt.models import gguf_cache
from rlprompt.models.gguf_cache import dense_folder
from rlprompt.models.gguf_header import LLAMA3
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import TokenPrompt
from rlprompt.template import Query

PROMPTS, QUERIES = [TokenPrompt((5, 6))], [Query((7,), (), ((8,), (9,)))]


def llama3_factor(place: int) -> float:
    """What llama.cpp's converter writes of Llama-3.2, for heads of 8 numbers."""
    length: float = 2 * math.pi * 500000 ** (place / 4)
    smooth = min(max((8192 / length - 1) / (4 - 1), 0), 1)
    return 1 / ((1 - smooth) / 32 + smooth)


LLAMA3_FACTORS = [llama3_factor(place) for place in range(4)]


class TestDenseFolder:
    @pytest.fixture
    def gguf(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A file whose conversion only counts how often it was asked for."""
        self.conversions = 0

        def convert(gguf: Path, folder: Path) -> None:
            self.conversions += 1
            folder.mkdir()
            (folder / "model.safetensors").write_bytes(b"weights")

        monkeypatch.setattr(gguf_cache, "_convert", convert)
        path = tmp_path / "model.gguf"
        path.write_bytes(b"GGUF")
        return path

    def test_is_written_once(self, gguf: Path) -> None:
        first = dense_folder(gguf)
        assert first == dense_folder(gguf) == gguf.parent / "float32"
        assert self.conversions == 1
        digest = hashlib.sha256(b"weights").hexdigest()
        assert (first / "SHA256SUMS").read_text() == f"{digest}  model.safetensors\n"
        assert sorted(path.name for path in gguf.parent.iterdir()) == ["float32", "model.gguf"]

    @pytest.mark.parametrize("name", ["model.safetensors", "SHA256SUMS"])
    @pytest.mark.parametrize("content", [None, b"", b"broken"])
    def test_heals_itself(self, gguf: Path, name: str, content: bytes | None) -> None:
        folder = dense_folder(gguf)
        assert folder is not None
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
        assert dense_folder(gguf) == folder
        assert self.conversions == 2
        assert (folder / "model.safetensors").read_bytes() == b"weights"

    def test_another_process_may_be_first(
        self, gguf: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        convert = gguf_cache._convert

        def slower(gguf: Path, folder: Path) -> None:
            convert(gguf, folder)
            other = gguf.parent / "float32"
            convert(gguf, other)
            gguf_cache._write_checksums(other)

        monkeypatch.setattr(gguf_cache, "_convert", slower)
        monkeypatch.setattr(os, "rename", _refuse_missing(os.rename))
        assert dense_folder(gguf) == gguf.parent / "float32"

    def test_a_cache_that_cannot_be_written_costs_time_only(
        self, gguf: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with caplog.at_level(logging.WARNING):
            assert dense_folder(gguf) is None
        assert "No space left on device" in caplog.text

    def test_it_leaves_room_on_the_disk(
        self, gguf: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        usage = shutil._ntuple_diskusage(100, 40, 60)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        with caplog.at_level(logging.WARNING):
            assert dense_folder(gguf) is None  # 4 bytes may become 32
        assert "more than half of what is free" in caplog.text
        assert self.conversions == 0

    def test_a_large_file_is_hashed_once(
        self, gguf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("RLPROMPT_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(gguf_cache, "NOTED", 4)
        digest, read = gguf_cache._digest(gguf), list[Path]()
        assert digest == hashlib.sha256(b"GGUF").hexdigest()
        opened = Path.open

        def counting(path: Path, *args: Any, **more: Any) -> Any:
            read.extend([path] if path == gguf else [])
            return opened(path, *args, **more)

        monkeypatch.setattr(Path, "open", counting)
        assert gguf_cache._digest(gguf) == digest
        assert read == []
        (note,) = (tmp_path / "cache" / "digests").iterdir()
        note.write_text(digest[:20])  # cut short by a machine that went down
        assert gguf_cache._digest(gguf) == digest
        assert read == [gguf]
        gguf.write_bytes(b"LLMS")
        os.utime(gguf, ns=(0, 1))
        assert gguf_cache._digest(gguf) == hashlib.sha256(b"LLMS").hexdigest()

    def test_a_file_of_any_name_is_converted_once(
        self, gguf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("RLPROMPT_CACHE", str(tmp_path / "cache"))
        count = gguf_cache._convert

        def convert(gguf: Path, folder: Path) -> None:
            count(gguf, folder)
            tiny_model().save_pretrained(folder)
            tiny_tokenizer().save_pretrained(folder)

        monkeypatch.setattr(gguf_cache, "_convert", convert)
        moved = shutil.copy(gguf, tmp_path / "moved.gguf")
        expected = tiny_lm().score(PROMPTS, QUERIES)
        for path in (gguf, gguf, moved):
            lm = FrozenLM.load(str(path), dtype="float32")
            assert torch.equal(lm.score(PROMPTS, QUERIES), expected)
        assert self.conversions == 1


class TestWhole:
    @pytest.fixture(autouse=True)
    def cache(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        monkeypatch.setenv("RLPROMPT_CACHE", str(tmp_path / "cache"))
        return tmp_path / "cache"

    # What scales nothing may be said, as llama.cpp has it.
    @pytest.mark.parametrize(
        ("said", "more"),
        [
            ({}, {}),
            ({"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0}, {}),
            ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 1.0}, {}),
            ({"split.count": 1}, {"rope_freqs.weight": [1.0] * 4}),
        ],
    )
    def test_a_whole_file_is_loaded(
        self, tmp_path: Path, said: dict[str, Any], more: dict[str, Any], cache: Path
    ) -> None:
        path = write_gguf(tmp_path / "tiny.gguf", said, more)
        lm = FrozenLM.load(str(path), dtype="float32")
        expected = tiny_lm().score(PROMPTS, QUERIES)
        torch.testing.assert_close(lm.score(PROMPTS, QUERIES), expected, rtol=0, atol=1e-4)
        (kept,) = (cache / "gguf").iterdir()
        assert kept.name == f"{gguf_cache._digest(path)[:32]}-{gguf_cache.FORMAT}"

    def test_one_that_lacks_layers_is_refused_and_not_kept(
        self, tmp_path: Path, cache: Path
    ) -> None:
        path = write_gguf(tmp_path / "tiny.gguf", without="blk.1.")
        for _ in range(2):
            with pytest.raises(
                ValueError, match=r"tiny\.gguf' lacks 9 weights of a Llama.*: model"
            ):
                FrozenLM.load(str(path))
        assert not list((cache / "gguf").glob("*/*"))

    def test_what_an_earlier_version_kept_of_it_is_not_taken(
        self, tmp_path: Path, cache: Path
    ) -> None:
        path = write_gguf(tmp_path / "tiny.gguf", without="blk.1.")
        old = cache / "gguf" / gguf_cache._digest(path)[:32] / "float32"
        tiny_model().save_pretrained(old)
        tiny_tokenizer().save_pretrained(old)
        gguf_cache._write_checksums(old)
        with pytest.raises(ValueError, match="lacks 9 weights"):
            FrozenLM.load(str(path))

    def test_a_part_of_a_split_one_is_refused(self, tmp_path: Path) -> None:
        path = write_gguf(tmp_path / "tiny-00001-of-00002.gguf", {"split.count": 2})
        with pytest.raises(ValueError, match=r"is one of 2 parts of a model; merge them") as e:
            FrozenLM.load(str(path))
        assert "\n" not in str(e.value)

    @pytest.mark.parametrize(
        ("said", "more", "scaling"),
        [
            (
                {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
                {},
                {"rope_type": "linear", "factor": 4.0},
            ),
            ({"llama.rope.scaling.factor": 2.0}, {}, {"rope_type": "linear", "factor": 2.0}),
            ({"llama.rope.scale_linear": 2.0}, {}, {"rope_type": "linear", "factor": 2.0}),
            ({}, {"rope_freqs.weight": LLAMA3_FACTORS}, LLAMA3 | {"factor": 32.0}),
        ],
    )
    def test_scaled_positions_of_a_llama_are_read(
        self, tmp_path: Path, said: dict[str, Any], more: dict[str, Any], scaling: dict[str, Any]
    ) -> None:
        path = write_gguf(tmp_path / "tiny.gguf", {"llama.rope.freq_base": 500000.0} | said, more)
        lm = FrozenLM.load(str(path), dtype="float32")
        plain = {"rope_theta": 500000.0, "rope_type": "default"}
        unscaled, scaled = (
            FrozenLM(tiny_model(rope_parameters=parameters), tiny_tokenizer())
            for parameters in (plain, plain | scaling)
        )
        prompts, queries = [TokenPrompt((5, 6))], [Query((*range(7, 107),), (), ((8,), (9,)))]
        found, expected = lm.score(prompts, queries), scaled.score(prompts, queries)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        assert float((found - unscaled.score(prompts, queries)).abs().max()) > 1e-3
        assert lm.model.config.rope_parameters == scaled.model.config.rope_parameters

    @pytest.mark.parametrize(
        ("said", "more", "named"),
        [
            (
                {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
                {"rope_freqs.weight": [1.0, 1.0, 3.0, 8.0]},
                "linear, factor 4",
            ),
            (
                {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 8.0},
                {},
                "yarn, factor 8",
            ),
            ({}, {"rope_freqs.weight": [1.0, 1.0, 3.0, 8.0]}, r"rope_freqs\.weight"),
            ({}, {"rope_factors_long.weight": [1.0, 1.0, 3.0, 8.0]}, "rope_factors_long"),
        ],
    )
    @pytest.mark.parametrize("keeps", [True, False])
    def test_scaled_positions_are_refused(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        said: dict[str, Any],
        more: dict[str, Any],
        named: str,
        keeps: bool,
    ) -> None:
        if not keeps:  # read as it is, where nothing can be kept
            monkeypatch.setattr(gguf_cache, "dense_folder", lambda *given: None)
        path = write_gguf(tmp_path / "tiny.gguf", said, more)
        with pytest.raises(ValueError, match=rf"scales rotary positions \({named}.*give the fol"):
            FrozenLM.load(str(path))


def _refuse_missing(rename: Any) -> Any:
    """os.rename as it was before the other process came: there is no old folder to put aside."""

    def renaming(source: Path, target: Path) -> None:
        if Path(target).name == "broken":
            raise FileNotFoundError
        rename(source, target)

    return renaming
