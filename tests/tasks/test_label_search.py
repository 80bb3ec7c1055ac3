from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from tiny import TinyKind, tiny_lm
from torch import Tensor

from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import TokenPrompt
from rlprompt.tasks import label_search
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.tasks.label_search import CHUNK, FoundWords, find_label_words, with_found_words
from rlprompt.template import Template

LABELS = ("neg", "pos")
TEMPLATES: dict[TinyKind, str] = {
    "llama": "{text} {prompt}",
    "gpt2": "{text} {prompt} it",
    "bert": "{text} {prompt} {mask} .",
    "roberta": "{text} {prompt} {mask} .",
    "t5": "{text} {prompt}",
}


def examples(name: str, n: int, labels: Sequence[str] = LABELS) -> tuple[Example, ...]:
    return tuple(
        Example({"text": f"{name} {'the film was ' * (i % 3)}{i}"}, labels[i % len(labels)])
        for i in range(n)
    )


SPLITS = Splits(examples("train", CHUNK + 3), examples("dev", 6), examples("test", 6))


CAUSAL = Template("{text} {prompt}")


def found(
    lm: FrozenLM,
    template: Template = CAUSAL,
    *,
    hand_prompt: str = "",
    count: int = 1,
    pool: int = 4,
) -> FoundWords:
    return find_label_words(
        lm,
        SPLITS.train,
        template,
        LABELS,
        hand_prompt=hand_prompt,
        count=count,
        pool=pool,
    )


def planted(lm: FrozenLM, worth: dict[str, dict[str, float]], examples: Sequence[Example]) -> Any:
    """A score that likes these words, by label; every other word is as unlikely as the next."""
    labels = {lm.encode(example.fields["text"]): example.label for example in examples}
    words = {lm.encode(f" {word}"): by_label for word, by_label in worth.items()}

    def score(prompts: Any, queries: Any, **options: Any) -> Tensor:
        return torch.tensor(
            [
                [
                    [
                        words.get(ids, {}).get(labels[query.head_ids], -9.0)
                        for ids in query.candidates
                    ]
                    for query in queries
                ]
            ]
        )

    return score


class TestWhatIsFound:
    @pytest.mark.parametrize("kind", list(TEMPLATES))
    @pytest.mark.parametrize("count", [1, 2])
    def test_words_are_single_tokens_and_as_good_as_stated(
        self, kind: TinyKind, count: int
    ) -> None:
        # Of this tokenizer, a word is a token behind a space, which a decoder's text has not.
        lm, template = tiny_lm(kind), Template(TEMPLATES[kind], " " if kind == "t5" else "auto")
        result = found(lm, template, count=count, hand_prompt="it was")
        assert list(result.label_words) == list(LABELS)
        assert [len(words) for words in result.label_words.values()] == [count, count]
        words = result.label_words
        task = ClassificationTask("f", SPLITS, template, words, calibration="none")
        report = task.label_word_report(lm)
        assert {len(word.ids) for word in report.words} == {1}
        assert all(word.word.isalpha() and len(word.word) > 1 for word in report.words)
        _, correct, _ = task.measure(lm, [task.written(lm, "it was")], SPLITS.train)
        assert correct.mean() == pytest.approx(result.accuracy)

    def test_no_other_word_would_do_better_in_the_place_of_one(self) -> None:
        lm, ids = tiny_lm(), range(tiny_lm().n_vocabulary)
        letters = {i: lm.decode([i]).strip() for i in ids}
        words = [
            word
            for i, word in letters.items()
            if len(word) > 1 and word.isalpha() and lm.encode(f" {word}") == (i,)
        ]
        result = found(lm, pool=len(words))
        (neg,), (pos,) = result.label_words.values()
        for word in set(words) - {neg, pos}:
            for pair in ({"neg": word, "pos": pos}, {"neg": neg, "pos": word}):
                template = Template("{text} {prompt}")
                task = ClassificationTask("f", SPLITS, template, pair, calibration="none")
                _, correct, _ = task.measure(lm, [TokenPrompt()], SPLITS.train)
                assert correct.mean() <= result.accuracy

    def test_words_that_speak_for_a_class_are_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lm = tiny_lm(seed=11)
        worth = {
            "bad": {"neg": -1.0, "pos": -3.0},
            "great": {"neg": -4.0, "pos": -1.0},
            "the": {"neg": -0.5, "pos": -0.5},  # likeliest, and says nothing
            "film": {"neg": -0.6, "pos": -0.7},
        }
        monkeypatch.setattr(lm, "score", planted(lm, worth, SPLITS.train))
        result = found(lm)
        assert result.label_words == {"neg": ["bad"], "pos": ["great"]}
        assert result.accuracy == 1

    def test_the_best_ratio_gives_way_to_a_better_pair(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Both ratios are highest for words that never beat each other on one of the classes."""
        lm = tiny_lm(seed=11)
        worth = {
            "bad": {"neg": -7.0, "pos": -8.9},
            "terrible": {"neg": -2.0, "pos": -3.0},
            "great": {"neg": -5.0, "pos": -2.5},
        }
        monkeypatch.setattr(lm, "score", planted(lm, worth, SPLITS.train))
        result = found(lm)
        assert result.label_words == {"neg": ["terrible"], "pos": ["great"]}
        assert result.accuracy == 1

    def test_three_classes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lm = tiny_lm(seed=11)
        labels = ("neg", "mid", "pos")
        some = examples("train", 9, labels)
        worth = {
            word: {label: -1.0 if label == own else -3.0 for label in labels}
            for word, own in zip(("bad", "was", "great"), labels, strict=True)
        }
        monkeypatch.setattr(lm, "score", planted(lm, worth, some))
        result = find_label_words(lm, some, Template("{text} {prompt}"), labels, pool=5)
        assert result.label_words == {"neg": ["bad"], "mid": ["was"], "pos": ["great"]}

    def test_it_is_the_same_every_time(self) -> None:
        assert found(tiny_lm(), count=2) == found(tiny_lm(), count=2)

    def test_no_word_stands_for_two_classes(self) -> None:
        result = found(tiny_lm(), count=4, pool=8)
        words = [word for own in result.label_words.values() for word in own]
        assert len(set(words)) == len(words) == 8


class TestWhatItSees:
    def test_train_under_the_hand_prompt_and_each_example_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lm = tiny_lm(seed=12)
        score, seen = lm.score, list[str]()

        def spy(prompts: Any, queries: Any, **options: Any) -> Tensor:
            assert prompts == [TokenPrompt(lm.encode(" it was"))]
            seen.extend(lm.decode(query.head_ids) for query in queries)
            return score(prompts, queries, **options)

        monkeypatch.setattr(lm, "score", spy)
        result = found(lm, hand_prompt="it was")
        assert seen == [example.fields["text"].strip() for example in SPLITS.train]
        assert result.rows == len(seen)

    def test_the_weights_stay_as_they_are(self) -> None:
        lm = tiny_lm()
        before = lm.hash_weights()
        found(lm)
        assert lm.hash_weights() == before


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"count": 0}, "count is 0 and pool 4; give a count of 1 or more"),
            ({"count": 3}, "count is 3 and pool 4; .* pool of count times 2 classes or more"),
            ({"pool": 10**4}, "tiny-llama has .* words of one token that can answer in"),
        ],
    )
    def test_a_wrong_setting_is_named(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            found(tiny_lm(), **options)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (("neg",), "labels are .*; give two or more"),
            (("neg", "neg", "pos"), "each once"),
            (("neg", "mid", "pos"), "class 'mid' has no example"),
            (("neg", "good"), "has the label 'pos'; known: neg, good"),
        ],
    )
    def test_labels_that_do_not_fit_the_examples_are_named(
        self, labels: tuple[str, ...], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            find_label_words(tiny_lm(), SPLITS.train, Template("{text} {prompt}"), labels)

    def test_a_masked_model_needs_a_mask(self) -> None:
        with pytest.raises(ValueError, match="answers at one mask"):
            found(tiny_lm("bert"))


def test_a_task_takes_the_words_and_says_what_they_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    smaller = partial(find_label_words, pool=4)
    monkeypatch.setattr(label_search, "find_label_words", smaller)
    words = dict(zip(LABELS, LABELS, strict=True))
    task = ClassificationTask("films", SPLITS, Template("{text} {prompt}"), words)
    settled = with_found_words(task, tiny_lm())
    assert settled.label_words == found(tiny_lm()).label_words
    (note,) = settled.splits.notes
    assert f"for {len(SPLITS.train)} rows outside the budget: neg: " in note
    assert settled.fingerprint != task.fingerprint
    assert settled.splits == task.splits
