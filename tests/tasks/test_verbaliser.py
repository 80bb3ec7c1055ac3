from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from class_tasks import CAUSAL, PROMPTS, SPLITS, TRAIN, WORDS, soft, task
from spellings import spelling_lm
from tiny import TinyKind, tiny_lm

from rlprompt.prompt import SoftPrompt
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.tasks.verbaliser import Verbaliser
from rlprompt.template import Template

MANY = {"neg": ["bad", "terrible"], "pos": ["good", "great", "the"]}


def scores(
    logliks: list[float], label_words: dict[str, Any], lengths: list[int], **options: str
) -> list[float]:
    candidates = [(9,) * length for length in lengths]
    loglik = torch.tensor([logliks], dtype=torch.float64)
    found: list[float] = (
        Verbaliser(label_words, **options).class_scores(loglik, candidates)[0].tolist()
    )
    return found


class TestByHand:
    def test_one_word_a_class_is_the_words_own_log_likelihood(self) -> None:
        assert scores([-1.5, -2.25], WORDS, [1, 3]) == [-1.5, -2.25]

    def test_the_mean_of_log_likelihoods(self) -> None:
        found = scores([-1, -3, -2, -4, -6], MANY, [1] * 5)
        assert found == pytest.approx([-2, -4])

    def test_the_log_of_the_sum_of_probabilities(self) -> None:
        logliks = [math.log(p) for p in (0.1, 0.2, 0.05, 0.15, 0.3)]
        found = scores(logliks, MANY, [1] * 5, pooling="logsumexp")
        assert np.exp(found) == pytest.approx([0.3, 0.5])

    def test_the_mean_of_a_words_tokens(self) -> None:
        assert scores([-3, -4], WORDS, [1, 2], length="mean") == [-3, -2]

    def test_tokens_first_and_words_then(self) -> None:
        found = scores([-2, -6, -1, -4, -9], MANY, [1, 2, 1, 2, 3], length="mean")
        assert found == pytest.approx([-2.5, -2])


class TestRewards:
    @pytest.mark.parametrize("kind", ["llama", "bloom"])
    @pytest.mark.parametrize("pooling", ["mean", "logsumexp"])
    @pytest.mark.parametrize("length", ["sum", "mean"])
    def test_they_are_those_of_plain_forward_passes(
        self, kind: TinyKind, pooling: str, length: str
    ) -> None:
        lm = tiny_lm(kind)
        words = {"neg": ["bad film", "terrible"], "pos": ["good"]}
        made = task(label_words=words, pooling=pooling, length=length)
        rewards = made.rewards(lm, PROMPTS[:2], TRAIN[:3])
        for p, prompt in enumerate(PROMPTS[:2]):
            for e, one in enumerate(TRAIN[:3]):
                text = one.fields["text"]
                spelt = [" bad film", " terrible", " good"]
                logs = self.log_likelihoods(lm, prompt, text, spelt)
                logs = logs / (np.array([2, 1, 1]) if length == "mean" else 1)
                neg = logs[:2].mean() if pooling == "mean" else np.logaddexp(*logs[:2])
                own, other = (neg, logs[2]) if one.label == "neg" else (logs[2], neg)
                expected = own - np.logaddexp(own, other)
                assert rewards[p, e] == pytest.approx(expected, abs=2e-4)

    @staticmethod
    def log_likelihoods(lm: Any, prompt: Any, text: str, words: list[str]) -> Any:
        """One plain forward pass of transformers a word, nats over the vocabulary."""
        found = []
        for word in words:
            start = [*lm.encode(text), *prompt.ids]
            answer = list(lm.encode(word))
            with torch.no_grad():
                logits = lm.model(input_ids=torch.tensor([start + answer])).logits[0].double()
            places = torch.arange(len(start) - 1, len(start) + len(answer) - 1)
            found.append(float(logits.log_softmax(-1)[places, torch.tensor(answer)].sum()))
        return np.array(found)

    def test_a_list_of_one_is_the_word(self) -> None:
        lm = tiny_lm()
        lists = {label: [word] for label, word in WORDS.items()}
        for options in ({}, {"pooling": "logsumexp"}):
            made = task(label_words=lists, **options)
            assert np.array_equal(
                made.rewards(lm, PROMPTS, TRAIN), task().rewards(lm, PROMPTS, TRAIN)
            )
            assert made.fingerprint == task().fingerprint

    def test_the_order_of_a_classes_words_does_not_matter(self) -> None:
        lm = tiny_lm()
        turned = {label: words[::-1] for label, words in MANY.items()}
        first, second = (task(label_words=words) for words in (MANY, turned))
        assert first.fingerprint == second.fingerprint
        np.testing.assert_allclose(
            first.rewards(lm, PROMPTS, TRAIN), second.rewards(lm, PROMPTS, TRAIN), atol=1e-5
        )

    @pytest.mark.parametrize("options", [{}, {"pooling": "logsumexp"}, {"length": "mean"}])
    def test_the_gradient_is_that_of_finite_differences(self, options: dict[str, str]) -> None:
        lm, step = tiny_lm(), 3e-4
        made = task(label_words={"neg": ["bad film", "terrible"], "pos": ["good"]}, **options)
        prompts = soft(seed=1)
        _, gradients = made.rewards_with_grad(lm, prompts, TRAIN)
        for prompt, gradient in zip(prompts, gradients, strict=True):
            length = np.linalg.norm(gradient)
            ends = [SoftPrompt(prompt.vectors + s * step * gradient / length) for s in (-1, 1)]
            low, high = made.rewards(lm, ends, TRAIN).mean(axis=1)
            assert (high - low) / (2 * step) == pytest.approx(length, rel=0.02)

    @pytest.mark.parametrize("kind", ["bert", "t5"])
    def test_other_kinds_of_models(self, kind: TinyKind) -> None:
        text = "{text} {prompt} {mask} ." if kind == "bert" else CAUSAL
        for length in ("sum", "mean"):
            made = task(label_words=MANY, template=Template(text), length=length)
            assert (made.rewards(tiny_lm(kind), PROMPTS, TRAIN) < 0).all()


class TestFingerprint:
    def test_a_task_without_options_has_one_hash_from_version_to_version(self) -> None:
        """Another one would have everybody pay again."""
        assert task().fingerprint == "3981c043d20071df94b5f919114fc6b1"

    def test_it_changes_with_every_option_that_matters(self) -> None:
        others = [
            task(label_words=MANY),
            task(label_words=MANY, pooling="logsumexp"),
            task(label_words=MANY, length="mean"),
            task(length="mean"),
            task(),
            task(label_words=MANY | {"neg": ["bad"]}),
        ]
        assert len({other.fingerprint for other in others}) == len(others)


class TestFromFile:
    def test_its_options_are_those_of_the_class(self, tmp_path: Path) -> None:
        rows = [f"text {i},{'neg' if i % 2 else 'pos'}" for i in range(10)]
        (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *rows]))
        made = ClassificationTask.from_file(
            str(tmp_path / "reviews.csv"),
            template=CAUSAL,
            label_words=MANY,
            shots=2,
            pooling="logsumexp",
            length="mean",
            calibration="contextual",
        )
        assert made == ClassificationTask(
            "reviews",
            made.splits,
            Template(CAUSAL),
            MANY,
            pooling="logsumexp",
            length="mean",
            calibration="contextual",
        )


class TestReport:
    def test_it_shows_words_as_the_model_gets_them(self) -> None:
        lm = tiny_lm()
        report = task(label_words={"neg": "bad", "pos": ["good", " so"]}).label_word_report(lm)
        assert [(word.label, word.word, word.text) for word in report.words] == [
            ("neg", "bad", " bad"),
            ("pos", "good", " good"),
            ("pos", " so", " so"),
        ]
        assert [word.ids for word in report.words] == [
            lm.encode(text) for text in (" bad", " good", " so")
        ]

    def test_words_that_are_alike_in_everything_need_no_warning(self) -> None:
        assert task().label_word_report(tiny_lm()).warnings == ()
        assert task(label_words=MANY).label_word_report(tiny_lm()).warnings == ()

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            (
                {"label_words": {"neg": "bad film", "pos": "good"}},
                ["label words have 1 to 2 tokens"],
            ),
            ({"label_words": {"neg": "bad film", "pos": "good"}, "length": "mean"}, []),
            (
                {"label_words": {"neg": "xyzzy", "pos": "qwert"}},
                [r"'xyzzy' \(neg\) takes 6 tokens", r"'qwert' \(pos\) takes 6", "same token ' '"],
            ),
            (
                {"label_words": {"neg": "good film", "pos": "good"}},
                ["1 to 2 tokens", r"'good film' \(neg\) begins with all of 'good' \(pos\) and can"],
            ),
            (
                {"label_words": {"neg": "good film", "pos": "good"}, "length": "mean"},
                [r"'good' \(pos\) and 'good film' \(neg\) begin with the same token ' good'"],
            ),
            (
                {"label_words": {"neg": "film bad", "pos": "film good"}},
                [r"'film bad' \(neg\) and 'film good' \(pos\) begin with the same token ' film'"],
            ),
            (
                {"label_words": MANY, "pooling": "logsumexp"},
                ["classes have 2 to 3 label words.*set `pooling: mean`"],
            ),
        ],
    )
    def test_what_may_put_a_class_at_a_disadvantage_is_told(
        self, changes: dict[str, Any], expected: list[str]
    ) -> None:
        warnings = task(**changes).label_word_report(tiny_lm()).warnings
        assert len(warnings) == len(expected)
        for warning, pattern in zip(warnings, expected, strict=True):
            assert re.search(pattern, warning)

    def test_a_word_that_the_tokenizer_does_not_know_is_told(self) -> None:
        lm, words = spelling_lm("wordpiece"), {"neg": "bad", "pos": "☃"}
        report = task(label_words=words, template=Template("{text} {prompt} {mask}"))
        (warning,) = report.label_word_report(lm).warnings
        assert warning.startswith("'☃' (pos) has letters that the tokenizer of wordpiece does not")

    def test_a_longer_word_is_indeed_never_the_likelier(self) -> None:
        """What the warning about 'good' and 'good film' says."""
        kinds: list[TinyKind] = ["llama", "t5"]
        for kind in kinds:
            made = task(label_words={"neg": "good film", "pos": "good"}, reward="accuracy")
            rewards = made.rewards(tiny_lm(kind), PROMPTS, TRAIN)
            assert rewards.tolist() == [[float(one.label == "pos") for one in TRAIN]] * len(PROMPTS)


class TestMistakes:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"label_words": WORDS | {"pos": []}}, "'pos' has no label word"),
            ({"label_words": WORDS | {"pos": ["great", " "]}}, "label word of 'pos' is empty"),
            ({"label_words": WORDS | {"pos": ["great", 3]}}, "of 'pos' is 3, not text"),
            ({"label_words": WORDS | {"pos": ["a", " a"]}}, "'pos' has the label word 'a' twice"),
            (
                {"label_words": MANY | {"mid": ["so", "great"]}},
                "'pos' and 'mid' share the label word 'great'",
            ),
            ({"pooling": "max"}, "pooling is 'max'; give one of mean, logsumexp"),
            ({"length": "tokens"}, "length is 'tokens'; give one of sum, mean"),
        ],
    )
    def test_a_wrong_setting_is_named(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            task(**changes)

    def test_words_that_a_tokenizer_spells_alike_are_named_within_a_class_too(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lm = tiny_lm("llama", seed=6)
        monkeypatch.setattr(
            lm,
            "spell",
            lambda pieces, after, **_: tuple(map(ord, "".join(p.text for p in pieces).lower())),
        )
        made = ClassificationTask("f", SPLITS, Template(CAUSAL), WORDS | {"pos": ["Ok", "ok"]})
        with pytest.raises(ValueError, match="spells the label words ' Ok' and ' ok' alike"):
            made.label_word_report(lm)
