from __future__ import annotations

import time
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import transformers
from tiny import KINDS, TinyKind, tiny_lm, tiny_model, tiny_tokenizer
from transformers.utils import logging as hf_logging

from rlprompt.models.conventions import model_kind
from rlprompt.models.devices import pick_device
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import TokenPrompt
from rlprompt.tasks.style_models import SentenceEncoder, StyleClassifier
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

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_whole_one_of_any_kind_lacks_nothing(self, kind: TinyKind, tmp_path: Path) -> None:
        tiny_model(kind).save_pretrained(tmp_path)
        tiny_tokenizer(kind).save_pretrained(tmp_path)
        before = tiny_lm(kind).fingerprint.digest
        assert FrozenLM.load(str(tmp_path), dtype="float32").fingerprint.digest == before

    @pytest.mark.parametrize("part", ["bert trunk", "bert classifier", "llama trunk"])
    def test_one_that_lacks_weights_is_refused(self, part: str, tmp_path: Path) -> None:
        model: Any
        if part == "bert classifier":
            model = transformers.BertForSequenceClassification(cast(Any, tiny_model("bert").config))
            expected = (
                r"of a BertForMaskedLM, it is of a BertForSequenceClassification: cls\.predic"
            )
        elif part == "bert trunk":
            model = tiny_model("bert").base_model
            expected = (
                r"lacks 6 weights of a BertForMaskedLM, it is of a BertModel: cls\.predictions"
            )
        else:
            model = tiny_model("llama", tie_word_embeddings=False).base_model
            expected = (
                r"lacks 1 weight of a LlamaForCausalLM, it is of a LlamaModel: lm_head\.weight"
            )
        model.save_pretrained(tmp_path)
        tiny_tokenizer("bert" if "bert" in part else "llama").save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=expected) as e:
            FrozenLM.load(str(tmp_path))
        assert str(tmp_path) in str(e.value)
        assert "give a checkpoint that was saved from a whole" in str(e.value)
        assert "\n" not in str(e.value)

    def test_a_trunk_without_the_pooler_that_nobody_reads_is_an_encoder(
        self, tmp_path: Path
    ) -> None:
        tiny_model("bert").save_pretrained(tmp_path)
        tiny_tokenizer("bert").save_pretrained(tmp_path)
        first, second = (SentenceEncoder.load(str(tmp_path), "cpu") for _ in range(2))
        assert first.fingerprint == second.fingerprint
        assert torch.equal(first.vectors(["a film"]), second.vectors(["a film"]))
        with pytest.raises(
            ValueError, match=r"of a BertForSequenceClassification, .*: bert\.pooler"
        ):
            StyleClassifier.load(str(tmp_path), "LABEL_0", "cpu")

    def test_loading_leaves_the_settings_of_transformers_alone(self, tmp_path: Path) -> None:
        settings: Any = hf_logging
        before = settings.get_verbosity(), settings.is_progress_bar_enabled()
        with pytest.raises(ValueError, match="cannot be loaded"):
            FrozenLM.load(str(tmp_path))
        assert (settings.get_verbosity(), settings.is_progress_bar_enabled()) == before


class TestChoices:
    def test_an_unknown_dtype_or_device_is_named(self) -> None:
        with pytest.raises(ValueError, match="dtype 'int8' is not known; give one of float32, b"):
            FrozenLM.load("smollm2-135m", dtype="int8")
        with pytest.raises(ValueError, match=r"cannot be used here: .*give cpu, cuda, cuda:N"):
            pick_device("cuda:99")
        for device in ("gpu", "tpu", ""):
            with pytest.raises(
                ValueError,
                match=f"^device '{device}' is not one that PyTorch has; give cpu, cuda, cuda:N",
            ):
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
