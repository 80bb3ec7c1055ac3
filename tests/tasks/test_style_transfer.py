from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from spellings import thinking_lm
from tiny import tiny_lm, tiny_model, tiny_tokenizer

from rlprompt.config.registry import settings_of
from rlprompt.data.examples import Example, Splits
from rlprompt.models.decoding import Decoding, Generated
from rlprompt.prompt import TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.evaluation import Evaluator
from rlprompt.search.objective import Objective
from rlprompt.tasks.base import Task, prompt_rows
from rlprompt.tasks.compression import CompressionTask
from rlprompt.tasks.lm_judge import verbalised
from rlprompt.tasks.style_models import SentenceEncoder, StyleClassifier
from rlprompt.tasks.style_transfer import StyleTransferTask
from rlprompt.template import Template


def split(name: str, n: int) -> tuple[Example, ...]:
    return tuple(Example({"text": f"{name} film {i}, so it was bad"}, "negative") for i in range(n))


TASK = StyleTransferTask(
    "film",
    Splits(split("train", 4), split("dev", 2), split("test", 2)),
    "positive",
    decoding=Decoding(max_new_tokens=8, stop=('"',)),
)
EXAMPLES = TASK.splits.dev
PROMPTS = [TokenPrompt((40, 41)), TokenPrompt((42,))]


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have the model write given answers, for every prompt the same."""

    def script(*answers: str) -> None:
        def generate(prompts: Sequence[Any], queries: Sequence[Any], **_: Any) -> Any:
            return [[Generated((), answer, "end token") for answer in answers] for _ in prompts]

        monkeypatch.setattr(tiny_lm(), "generate", generate)

    return script


def test_it_is_all_that_a_task_can_be() -> None:
    assert isinstance(TASK, Task)
    assert all(TASK.has(hook) for hook in ("rewards_with_outputs", "written", "measure"))


def test_content_is_a_cosine_and_style_a_probability(says: Any) -> None:
    lm = tiny_lm()
    says(" a great film ", "it was, was bad")
    judged = TASK.judge(lm, PROMPTS, EXAMPLES)
    outputs = ["a great film", "it was, was bad"]
    assert judged.outputs == (tuple(outputs),) * 2
    encoder = SentenceEncoder.of(lm)
    inputs = [example.fields["text"] for example in EXAMPLES]
    cosines = (encoder.vectors(outputs) * encoder.vectors(inputs)).sum(1).clamp(0, 1)
    template = Template("{text} It was{prompt}")
    style = verbalised(lm, template, ["great", "terrible"], [{"text": one} for one in outputs])
    np.testing.assert_allclose(judged.content, cosines.expand(2, -1), atol=1e-5)
    np.testing.assert_allclose(judged.style, style.expand(2, -1), atol=1e-5)
    assert not judged.copied.any()


def test_rewards_are_the_mean_or_the_product_of_the_two(says: Any) -> None:
    lm = tiny_lm()
    says("a great film", "it was")
    judged = TASK.judge(lm, PROMPTS, EXAMPLES)
    product = dataclasses.replace(TASK, reward="product")
    mean_rewards, joint, _ = TASK.measure(lm, PROMPTS, EXAMPLES)
    np.testing.assert_allclose(mean_rewards, (judged.content + judged.style) / 2)
    np.testing.assert_allclose(product.rewards(lm, PROMPTS, EXAMPLES), joint)
    np.testing.assert_allclose(joint, judged.content * judged.style)
    again, outputs = TASK.rewards_with_outputs(lm, PROMPTS, EXAMPLES)
    assert np.array_equal(again, mean_rewards)
    assert outputs == judged.outputs


def test_a_copy_has_all_the_content_and_is_counted(says: Any) -> None:
    says("Dev film 0,  so it was bad", "dev film 1, so it was bad!")
    judged = TASK.judge(tiny_lm(), PROMPTS[:1], EXAMPLES)
    assert judged.copied.tolist() == [[True, False]]
    says("dev film 0, so it was bad", "dev film 1, so it was bad")
    judged = TASK.judge(tiny_lm(), PROMPTS[:1], EXAMPLES)
    np.testing.assert_allclose(judged.content, 1, atol=1e-6)


def test_an_empty_answer_earns_nothing(says: Any) -> None:
    says(" ", "great")
    rewards, joint, _ = TASK.measure(tiny_lm(), PROMPTS, EXAMPLES)
    assert rewards[:, 0].tolist() == joint[:, 0].tolist() == [0, 0]
    assert (rewards[:, 1] > 0).all()
    says("", "")
    assert not TASK.rewards(tiny_lm(), PROMPTS, EXAMPLES).any()


def test_what_the_model_cannot_spell_of_its_own_answer_is_not_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm, splits = thinking_lm(), Splits(split("train", 1), split("dev", 1), split("test", 1))
    task = dataclasses.replace(TASK, splits=splits)
    styles = []
    for answer in ("<think>so good", "so good"):
        one = Generated((), answer, "end token")
        monkeypatch.setattr(lm, "generate", lambda *_, one=one, **__: [[one]])
        styles.append(task.judge(lm, PROMPTS[:1], splits.train).style)
    assert styles[0] == styles[1]


def test_the_prompt_stands_before_the_quoted_sentence() -> None:
    lm = tiny_lm()
    query = TASK.template.query({"text": "so bad"}, lm)
    assert query.head_ids == lm.prefix_ids
    assert lm.decode(query.tail_ids) == ' "so bad" "'
    assert lm.decode(TASK.written(lm, "Turn it around:").ids) == "Turn it around:"


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("judge")
    fields: Any = tiny_model("bert").config.to_diff_dict()
    labels = {0: "BAD", 1: "positive"}
    torch.manual_seed(0)
    model: Any = transformers.BertForSequenceClassification(
        transformers.BertConfig(**{**fields, "id2label": labels})
    )
    model.save_pretrained(path)
    tiny_tokenizer("bert").save_pretrained(path)
    return path


def test_other_models_judge_where_they_are_named(judge: Path, says: Any, tmp_path: Path) -> None:
    data = reviews(tmp_path)
    task = StyleTransferTask.from_file(
        str(data), shots=2, test=2, style_model=str(judge), sentence_model=str(judge)
    )
    says("a great film", "it was")
    judged = task.judge(tiny_lm(), PROMPTS, task.splits.test)
    outputs = ["a great film", "it was"]
    style = StyleClassifier.load(str(judge), "positive").probabilities(outputs)
    encoder = SentenceEncoder.load(str(judge))
    inputs = [example.fields["text"] for example in task.splits.test]
    cosines = (encoder.vectors(outputs) * encoder.vectors(inputs)).sum(1)
    np.testing.assert_allclose(judged.style[0], style, atol=1e-6)
    np.testing.assert_allclose(judged.content[0], cosines.clamp(0, 1), atol=1e-6)


def test_judgements_of_the_frozen_model_are_paid_for(judge: Path) -> None:
    classifier = StyleClassifier.load(str(judge), "positive")
    encoder = SentenceEncoder.load(str(judge))
    judged = dataclasses.replace(TASK, classifier=classifier)
    assert [prompt_rows(task) for task in (TASK, judged)] == [12, 8]
    assert prompt_rows(dataclasses.replace(judged, encoder=encoder)) == 4


def test_what_is_judged_is_what_was_written_and_no_more(judge: Path) -> None:
    # Of 4 train examples each row has two judgements: a block of 1 costs 3, and 100 tests 300.
    assert prompt_rows(TASK, 1) == 3
    assert [TASK.split_rows("test", n) for n in (100, 2)] == [300, 6]
    judged = dataclasses.replace(TASK, classifier=StyleClassifier.load(str(judge), "positive"))
    assert judged.split_rows("dev", 10) == 20
    short = CompressionTask(TASK, "Rewrite it:", 0.1)
    assert (prompt_rows(short, 1), short.split_rows("test", 100)) == (3, 300)


def test_a_block_is_charged_for_its_own_judgements(says: Any) -> None:
    says("a great film")
    objective = Objective(TASK, tiny_lm(), Budget(20))
    assert objective.cost(examples=1) == 3
    objective.evaluate(PROMPTS, examples=[2])
    assert objective.ledger.used == 6  # 2 prompts, written once and judged twice
    evaluator = Evaluator(TASK, tiny_lm())
    evaluator.measure(PROMPTS, "test", [0])
    assert evaluator.rows == 6


def reviews(folder: Path) -> Path:
    rows = [f"{mood} text {i},{mood}" for i in range(9) for mood in ("negative", "positive")]
    data = folder / "reviews.csv"
    data.write_text("\n".join(["text,label", *rows]), "utf-8")
    return data


def test_only_sentences_of_the_source_style_are_rewritten(tmp_path: Path) -> None:
    task = StyleTransferTask.from_file(str(reviews(tmp_path)), shots=2, test=None)
    assert [len(part) for part in task.splits.parts().values()] == [2, 2, 5]
    assert {e.label for part in task.splits.parts().values() for e in part} == {"negative"}
    assert task.name == "reviews-negative-to-positive"
    assert task.hand_prompt == "Rewrite the sentence so that it is positive."
    back = StyleTransferTask.from_file(
        str(reviews(tmp_path)), source="positive", target="negative", shots=2, test=3
    )
    assert len(back.splits.test) == 3
    few = StyleTransferTask.from_file(str(reviews(tmp_path)), shots=2, test=6)
    assert few.splits.notes[-1] == "test has 5 examples, 6 were asked for"
    assert back.hand_prompt.endswith("negative.")


def test_the_film_reviews_are_the_default() -> None:
    settings = settings_of(StyleTransferTask.from_file)
    assert settings["data"] == "movie-reviews"
    assert (settings["source"], settings["target"]) == ("negative", "positive")


def test_one_text_is_no_list_of_ends(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop is 'END'; give a list of strings"):
        StyleTransferTask.from_file(str(reviews(tmp_path)), shots=2, stop="END")


def test_all_that_decides_a_reward_is_in_the_fingerprint(judge: Path) -> None:
    classifier = StyleClassifier.load(str(judge), "positive")
    changed = [
        dataclasses.replace(TASK, target="glad", words={"glad": "great", "negative": "bad"}),
        dataclasses.replace(TASK, words={"positive": "good", "negative": "bad"}),
        dataclasses.replace(TASK, reward="product"),
        dataclasses.replace(TASK, template=Template("{prompt} {text}:")),
        dataclasses.replace(TASK, style_template="{text} All in all"),
        dataclasses.replace(TASK, decoding=Decoding(max_new_tokens=9, stop=('"',))),
        dataclasses.replace(TASK, classifier=classifier),
        dataclasses.replace(TASK, classifier=StyleClassifier.load(str(judge), "BAD")),
        dataclasses.replace(TASK, encoder=SentenceEncoder.load(str(judge))),
    ]
    assert len({TASK.fingerprint, *(task.fingerprint for task in changed)}) == 1 + len(changed)
    assert dataclasses.replace(TASK, name="other", hand_prompt="x").fingerprint == TASK.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": "sum"}, "give one of mean, product"),
        ({"target": "negative"}, "some sentences are 'negative' already"),
        ({"target": "polite"}, "give one for the style 'polite'"),
        ({"words": {"positive": "great"}}, "others for the other styles"),
        ({"words": {"positive": "great", "negative": " great"}}, "others for the other styles"),
        ({"words": {"positive": "great", "negative": ""}}, "others for the other styles"),
        ({"template": Template("{prompt} {body}")}, "needs {text} and {prompt}"),
        ({"template": Template("{text} {prompt} {mask}")}, "no {mask}"),
        ({"style_template": "It was"}, "needs the field {text} and no other"),
        ({"style_template": "{body} was"}, "needs the field {text} and no other"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TASK, **change)
