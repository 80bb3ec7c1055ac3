from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny import TinyKind, tiny_lm, tiny_model, tiny_tokenizer

from rlprompt.tasks.style_models import SentenceEncoder, StyleClassifier

TEXTS = ["the film was good", "bad", "it was the film", "so so", "a terrible, terrible film"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny classifier of three styles; its encoder can be loaded from there too."""
    path = tmp_path_factory.mktemp("classifier")
    tokenizer = tiny_tokenizer("bert")
    small = tiny_model("bert").config
    labels = {0: "rude", 1: "kind", 2: "flat"}
    made: Any = transformers.BertConfig(
        **{**small.to_diff_dict(), "id2label": labels, "max_position_embeddings": 32}
    )
    torch.manual_seed(3)
    model: Any = transformers.BertForSequenceClassification(made)
    with torch.no_grad():
        model.classifier.weight.normal_()
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def one_by_one(model: Any, tokenizer: Any, texts: list[str]) -> list[Any]:
    with torch.no_grad():
        return [model(input_ids=torch.tensor([tokenizer(text)["input_ids"]])) for text in texts]


def test_probabilities_are_those_of_transformers(folder: Path) -> None:
    judge = StyleClassifier.load(str(folder), "kind")
    plain: Any = transformers.BertForSequenceClassification.from_pretrained(folder)
    answers = one_by_one(plain.eval(), tiny_tokenizer("bert"), TEXTS)
    expected = torch.stack([answer.logits[0].softmax(-1)[1] for answer in answers])
    found = judge.probabilities(TEXTS)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert len({round(value, 3) for value in found.tolist()}) > 1


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
def test_vectors_are_mean_states_of_the_model_itself(kind: TinyKind) -> None:
    lm = tiny_lm(kind)
    model: Any = lm.model
    inner = model.get_encoder() if kind == "t5" else model.base_model
    answers = one_by_one(inner, lm.tokenizer, TEXTS)
    means = torch.stack([answer.last_hidden_state[0].mean(0) for answer in answers])
    expected = means / means.norm(dim=-1, keepdim=True)
    found = SentenceEncoder.of(lm).vectors(TEXTS)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_text_is_judged_the_same_in_any_company(folder: Path) -> None:
    for judge in (SentenceEncoder.load(str(folder)), SentenceEncoder.of(tiny_lm())):
        together = judge.vectors(TEXTS)
        alone = torch.cat([judge.vectors([text]) for text in TEXTS])
        torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
        torch.testing.assert_close(judge.vectors(TEXTS[::-1]), together.flip(0), atol=1e-6, rtol=0)


def test_a_long_text_is_cut(folder: Path) -> None:
    judge = SentenceEncoder.load(str(folder))
    long = "the film was good " * 20
    cut = "the film was good " * 7 + "the film"  # 30 words and two special tokens
    assert torch.equal(judge.vectors([long]), judge.vectors([cut]))


def test_fingerprints_are_of_the_weights(folder: Path) -> None:
    first, again = (SentenceEncoder.load(str(folder)).fingerprint.digest for _ in range(2))
    assert first == again
    assert SentenceEncoder.of(tiny_lm()).fingerprint.digest != first


def test_a_class_that_the_model_does_not_know_is_named(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no class 'kindd'.*kind.*style_label"):
        StyleClassifier.load(str(folder), "kindd")


def test_a_name_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be loaded"):
        SentenceEncoder.load(str(tmp_path))
