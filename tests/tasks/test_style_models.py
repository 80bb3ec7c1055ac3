from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny import TinyKind, randomised, tiny_lm, tiny_model, tiny_tokenizer

from rlprompt.tasks.style_models import Judge, SentenceEncoder, StyleClassifier

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


def saved(path: Path, model: Any, kind: TinyKind = "bert", **config: Any) -> Path:
    """A folder of a model of random weights, and of a tokenizer that knows no longest text."""
    fields = tiny_model(kind).config.to_diff_dict() | config
    made = randomised(model(model.config_class(**fields)), 3)
    made.save_pretrained(path)
    tiny_tokenizer(kind).save_pretrained(path)
    return path


LABELS = {0: "toxic", 1: "insult", 2: "threat"}
MULTI: dict[str, Any] = {"problem_type": "multi_label_classification"}
SINGLE: dict[str, Any] = {"problem_type": "single_label_classification"}


@pytest.mark.parametrize(
    ("config", "sums_to_one"),
    [
        ({"id2label": LABELS}, True),
        ({"id2label": LABELS, **SINGLE}, True),
        ({"id2label": LABELS, **MULTI}, False),
        ({"id2label": {0: "toxic"}}, False),
    ],
)
def test_scores_are_those_of_the_pipeline_of_transformers(
    config: dict[str, Any], sums_to_one: bool, tmp_path: Path
) -> None:
    where = str(saved(tmp_path, transformers.BertForSequenceClassification, **config))
    make: Any = transformers.pipeline  # not annotated
    told = make("text-classification", where, device="cpu", top_k=None)(TEXTS)
    total = torch.zeros(len(TEXTS))
    for label in config["id2label"].values():
        scores = [next(one["score"] for one in each if one["label"] == label) for each in told]
        found = StyleClassifier.load(where, label).probabilities(TEXTS)
        assert found.tolist() == pytest.approx(scores, abs=1e-6)
        assert len({round(value, 3) for value in scores}) > 1
        total += found
    assert bool((total - 1).abs().max() < 1e-5) == sums_to_one


def test_what_several_classes_at_once_were_taken_for_is_not_found_again(tmp_path: Path) -> None:
    as_ever = []
    for problem in (SINGLE, MULTI):
        where = tmp_path / problem["problem_type"]
        saved(where, transformers.BertForSequenceClassification, id2label=LABELS, **problem)
        judge = StyleClassifier.load(str(where), "toxic")
        unmarked = Judge(judge.name, judge.model, judge.tokenizer)
        as_ever.append(judge.fingerprint == unmarked.fingerprint)
    assert as_ever == [True, False]


def test_a_regression_gives_no_probability(tmp_path: Path) -> None:
    model = transformers.BertForSequenceClassification
    where = saved(tmp_path, model, id2label={0: "score"}, problem_type="regression")
    with pytest.raises(ValueError, match=r"regression, .* set style_model to one that tells"):
        StyleClassifier.load(str(where), "score")


def test_the_longest_text_is_what_its_positions_allow(tmp_path: Path) -> None:
    # Those of RoBERTa begin behind its pad's.
    table = {"max_position_embeddings": 34, "pad_token_id": 1}
    judge = SentenceEncoder.load(
        str(saved(tmp_path, transformers.RobertaModel, "roberta", **table))
    )
    cut = " the film was bad" * 7 + " the film"  # 30 words and two special tokens
    assert torch.equal(judge.vectors([" the film was bad" * 20]), judge.vectors([cut]))
    shorter = " the film was bad" * 7 + " the"
    assert not torch.allclose(judge.vectors([cut]), judge.vectors([shorter]), atol=1e-3)


def test_a_classifier_without_a_pad_judges_many_texts(tmp_path: Path) -> None:
    model = transformers.GPT2ForSequenceClassification
    where = str(saved(tmp_path, model, "gpt2", pad_token_id=None, id2label=LABELS))
    texts = [*TEXTS, *(text[::-1] for text in TEXTS)]
    plain: Any = model.from_pretrained(where)
    answers = one_by_one(plain.eval(), tiny_tokenizer("gpt2"), texts)
    expected = torch.stack([answer.logits[0].softmax(-1)[1] for answer in answers])
    found = StyleClassifier.load(where, "insult").probabilities(texts)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("t5", transformers.T5Model),
        ("t5", transformers.T5EncoderModel),  # as sentence-t5 is saved
        ("bart", transformers.BartModel),
    ],
)
def test_of_an_encoder_decoder_the_encoder_reads(
    kind: TinyKind, model: Any, tmp_path: Path
) -> None:
    where = saved(tmp_path, model, kind)
    encoder = model.from_pretrained(where).eval().get_encoder()
    answers = one_by_one(encoder, tiny_tokenizer(kind), TEXTS)
    means = torch.stack([answer.last_hidden_state[0].mean(0) for answer in answers])
    expected = means / means.norm(dim=-1, keepdim=True)
    judge = SentenceEncoder.load(str(where))
    torch.testing.assert_close(judge.vectors(TEXTS), expected, atol=1e-5, rtol=0)
    assert judge.fingerprint == SentenceEncoder.load(str(where)).fingerprint


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
