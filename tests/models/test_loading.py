from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import KINDS, TinyKind, tiny_lm, tiny_model, tiny_tokenizer
from transformers.utils import logging as hf_logging

from rlprompt.models import loading
from rlprompt.models.devices import pick_device
from rlprompt.models.lm import FrozenLM
from rlprompt.models.loading import dense_folder, model_kind
from rlprompt.prompt import TokenPrompt
from rlprompt.template import Query


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


class TestNames:
    @pytest.mark.usefixtures("no_hub")
    @pytest.mark.parametrize("name", ["gpt2", "some-org/some-model", "no/folder"])
    def test_an_unreachable_one_fails_at_once_and_says_what_to_give(self, name: str) -> None:
        start = time.perf_counter()
        with pytest.raises(ValueError, match="cannot be reached and the model is not in its") as e:
            FrozenLM.load(name)
        assert time.perf_counter() - start < 5
        for part in (repr(name), "smollm2-135m", "hub name such as", "folder", ".gguf"):
            assert part in str(e.value)
        assert "\n" not in str(e.value)

    @pytest.mark.parametrize("name", ["./no/such/folder", "/no/such", "~/no/such", "../no"])
    def test_a_missing_folder_is_named(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"model folder '{name}' does not exist"):
            FrozenLM.load(name)

    def test_a_missing_gguf_file_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"model file 'no/such\.gguf' does not exist"):
            FrozenLM.load("no/such.gguf")

    def test_a_folder_without_a_model_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="cannot be loaded"):
            FrozenLM.load(str(tmp_path))

    @pytest.mark.parametrize("kind", ["llama", "bert", "t5"])
    def test_a_saved_folder_gives_the_same_scores(
        self,
        kind: TinyKind,
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        tiny_model(kind).save_pretrained(tmp_path)
        tiny_tokenizer(kind).save_pretrained(tmp_path)
        capfd.readouterr()
        lm, before = FrozenLM.load(str(tmp_path), dtype="float32"), tiny_lm(kind)
        assert capfd.readouterr() == ("", "")  # no bars, no chatter
        assert lm.fingerprint.digest == before.fingerprint.digest
        tail = () if lm.mask_id is None else (lm.mask_id,)
        query, prompt = Query((5, 6), tail, ((7,), (8,))), TokenPrompt((9, 10))
        # Not to the last bit: weights that are read from a file lie elsewhere in memory.
        scored, expected = lm.score([prompt], [query]), before.score([prompt], [query])
        torch.testing.assert_close(scored, expected, rtol=0, atol=1e-5)

    def test_loading_leaves_the_settings_of_transformers_alone(self, tmp_path: Path) -> None:
        settings: Any = hf_logging
        before = settings.get_verbosity(), settings.is_progress_bar_enabled()
        with pytest.raises(ValueError, match="cannot be loaded"):
            FrozenLM.load(str(tmp_path))
        assert (settings.get_verbosity(), settings.is_progress_bar_enabled()) == before


class TestChoices:
    def test_an_unknown_dtype_or_device_is_named(self) -> None:
        with pytest.raises(ValueError, match="dtype 'int8'; give one of float32, bfloat16, float1"):
            FrozenLM.load("smollm2-135m", dtype="int8")
        for device in ("tpu", "cuda:99"):
            with pytest.raises(ValueError, match=r"cannot be used here: .*give cpu, cuda, cuda:N"):
                pick_device(device)

    def test_the_kind_is_told_from_the_config(self) -> None:
        expected = dict.fromkeys(KINDS, "causal") | {
            "bert": "masked", "roberta": "masked", "t5": "encoder-decoder"
        }  # fmt: skip
        assert {kind: model_kind(tiny_model(kind).config) for kind in KINDS} == expected

    def test_a_model_of_images_is_refused(self) -> None:
        import transformers

        with pytest.raises(ValueError, match="type 'vit' is no language model"):
            model_kind(transformers.ViTConfig())


class TestDenseFolder:
    @pytest.fixture
    def gguf(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A file whose conversion only counts how often it was asked for."""
        self.conversions = 0

        def convert(gguf: Path, folder: Path) -> None:
            self.conversions += 1
            folder.mkdir()
            (folder / "model.safetensors").write_bytes(b"weights")

        monkeypatch.setattr(loading, "_convert", convert)
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
        convert = loading._convert

        def slower(gguf: Path, folder: Path) -> None:
            convert(gguf, folder)
            other = gguf.parent / "float32"
            convert(gguf, other)
            loading._write_checksums(other)

        monkeypatch.setattr(loading, "_convert", slower)
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
        monkeypatch.setattr(loading, "NOTED", 4)
        digest, read = loading._digest(gguf), list[Path]()
        assert digest == hashlib.sha256(b"GGUF").hexdigest()
        opened = Path.open

        def counting(path: Path, *args: Any, **more: Any) -> Any:
            read.extend([path] if path == gguf else [])
            return opened(path, *args, **more)

        monkeypatch.setattr(Path, "open", counting)
        assert loading._digest(gguf) == digest
        assert read == []
        (note,) = (tmp_path / "cache" / "digests").iterdir()
        note.write_text(digest[:20])  # cut short by a machine that went down
        assert loading._digest(gguf) == digest
        assert read == [gguf]
        gguf.write_bytes(b"LLMS")
        os.utime(gguf, ns=(0, 1))
        assert loading._digest(gguf) == hashlib.sha256(b"LLMS").hexdigest()

    def test_a_file_of_any_name_is_converted_once(
        self, gguf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("RLPROMPT_CACHE", str(tmp_path / "cache"))
        count = loading._convert

        def convert(gguf: Path, folder: Path) -> None:
            count(gguf, folder)
            tiny_model().save_pretrained(folder)
            tiny_tokenizer().save_pretrained(folder)

        monkeypatch.setattr(loading, "_convert", convert)
        moved = shutil.copy(gguf, tmp_path / "moved.gguf")
        prompts, queries = [TokenPrompt((5, 6))], [Query((7,), (), ((8,), (9,)))]
        expected = tiny_lm().score(prompts, queries)
        for path in (gguf, gguf, moved):
            lm = FrozenLM.load(str(path), dtype="float32")
            assert torch.equal(lm.score(prompts, queries), expected)
        assert self.conversions == 1


def _refuse_missing(rename: Any) -> Any:
    """os.rename as it was before the other process came: there is no old folder to put aside."""

    def renaming(source: Path, target: Path) -> None:
        if Path(target).name == "broken":
            raise FileNotFoundError
        rename(source, target)

    return renaming


def test_no_warning_of_the_libraries_comes_through(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        FrozenLM.load(str(tmp_path))
    assert caught == []


def test_a_batch_that_was_padded_does_not_change_a_fingerprint() -> None:
    tokenizer = tiny_tokenizer("llama")
    fresh = FrozenLM(tiny_model(), tokenizer).fingerprint
    tokenizer(["a", "b c"], padding=True, truncation=True, max_length=8)
    assert tokenizer.backend_tokenizer.padding is not None
    assert FrozenLM(tiny_model(), tokenizer).fingerprint == fresh
