"""Calibration by train: by hand, against plain numpy, whatever is judged, and through a search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from class_tasks import CAUSAL, LONG, MASKED, PROMPTS, TRAIN, WORDS, check_slopes, soft, task
from fakes import Remembered, timeless
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from tiny import KINDS, TinyKind, tiny_lm
from torch import Tensor

from rlprompt.agents.random_search import RandomSearch
from rlprompt.check.task import check_task
from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import EmbeddedPrompt, Prompt, TextPrompt, TokenPrompt
from rlprompt.search import selection
from rlprompt.search.budget import Budget, Scored
from rlprompt.search.evaluation import Evaluator
from rlprompt.search.objective import Objective
from rlprompt.search.run import search
from rlprompt.search.selection import race_on_dev
from rlprompt.store.store import FILE, Store
from rlprompt.tasks.base import Task, prompt_rows
from rlprompt.tasks.calibration import batch_log_prior, calibrated, check_prior
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.tasks.compression import CompressionTask
from rlprompt.template import Template
from rlprompt.types import DEFAULT_CALIBRATION, Floats, Loss

DEV = (
    Example({"text": "on dev"}, "pos"),
    Example({"text": "the film was great on dev"}, "neg"),
    Example({"text": "it was it"}, "pos"),
)
TEST = (Example({"text": "on test"}, "neg"),)


def batch(**changes: Any) -> ClassificationTask:
    return task(**({"calibration": "batch"} | changes))


def held_out(**changes: Any) -> ClassificationTask:
    """The same train, and a dev split of some texts."""
    return replace(batch(**changes), splits=Splits(TRAIN, DEV, TEST))


def logs(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


class TestByHand:
    """The numbers were worked out on paper."""

    def test_the_prior_is_the_mean_of_the_texts_class_probabilities(self) -> None:
        # 3/4, 2/3 and 1/2 of the first class; unlike in contextual calibration a text that makes
        # both words unlikely counts as much as another.
        found = batch_log_prior(logs((0.09, 0.03), (0.02, 0.01), (0.3, 0.3))).exp()
        mean = (3 / 4 + 2 / 3 + 1 / 2) / 3
        assert found.tolist() == pytest.approx([mean, 1 - mean])
        assert found.tolist() == pytest.approx([0.638888889, 0.361111111])

    def test_a_text_that_the_prompt_answers_is_left_out(self) -> None:
        texts = logs((0.09, 0.03), (0.02, 0.01), (0.3, 0.3))
        told = torch.tensor([[False, True, False], [False, False, False], [True, True, True]])
        found = batch_log_prior(texts.expand(3, -1, -1), told).exp()
        # (3/4 + 1/2) / 2; all three as above; and of nothing left as much of each.
        assert found[:, 0].tolist() == pytest.approx([5 / 8, 0.638888889, 1 / 2])
        assert found.sum(1).tolist() == pytest.approx([1, 1, 1])

    @pytest.mark.parametrize(
        ("strength", "expected"),
        [
            # 0.7 / 0.8 = 0.875 and 0.3 / 0.2 = 1.5; sum 2.375.
            (1.0, [0.368421053, 0.631578947]),
            # 0.7 / sqrt(0.8) = 0.782623792 and 0.3 / sqrt(0.2) = 0.670820393; sum 1.453444185.
            (0.5, [0.538461538, 0.461538462]),
            (0.0, [0.7, 0.3]),
        ],
    )
    def test_a_strength_is_an_exponent_of_the_prior(
        self, strength: float, expected: list[float]
    ) -> None:
        found = calibrated(logs((0.7, 0.3)), logs((0.8, 0.2))[0], strength).exp()
        assert found.tolist()[0] == pytest.approx(expected)

    def test_a_class_of_zero_mass_is_named(self) -> None:
        prior = batch_log_prior(logs((1.0, 0.0, 0.0), (0.5, 0.5, 0.0)))
        with pytest.raises(ValueError, match="the prior of 'c' is 0 under every text"):
            check_prior(prior, ["a", "b", "c"])
        with pytest.raises(ValueError, match="the prior of 'c' is 0 "):
            check_prior(torch.stack([prior, prior]), ["a", "b", "c"])

    def test_a_mass_that_is_tiny_is_none_of_zero(self) -> None:
        scores = torch.tensor([[0.0, -2000.0], [0.0, -3000.0]], dtype=torch.float64)
        prior = check_prior(batch_log_prior(scores), ["a", "b"])
        assert prior.tolist() == pytest.approx([0.0, -2000 - math.log(2)])
        assert calibrated(scores, prior).isfinite().all()


@given(arrays("float64", (4, 3), elements=st.floats(1e-6, 1)), st.floats(-20, 20))
def test_a_constant_in_a_texts_scores_changes_nothing(
    probabilities: NDArray[np.float64], shift: float
) -> None:
    scores = torch.tensor(probabilities).log()
    moved = scores + shift * torch.arange(4)[:, None]
    torch.testing.assert_close(batch_log_prior(moved), batch_log_prior(scores))


def direct(
    made: ClassificationTask, lm: FrozenLM, prompt: Prompt, strength: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log prior (C,), and calibrated log-probabilities of DEV (E, C), by numpy alone."""

    def chances(examples: Sequence[Example]) -> NDArray[np.float64]:
        loglik = lm.score([prompt], made.queries(lm, examples))[0].double().numpy()
        likely = np.exp(loglik - loglik.max(1, keepdims=True))
        normalised: NDArray[np.float64] = likely / likely.sum(1, keepdims=True)
        return normalised

    prior = chances(TRAIN).mean(0)
    weighed = chances(DEV) / prior**strength
    return np.log(prior), np.log(weighed / weighed.sum(1, keepdims=True))


class TestRewards:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("prompts", [PROMPTS, soft()], ids=["tokens", "soft"])
    @pytest.mark.parametrize("strength", [1.0, 0.4])
    def test_dev_is_judged_by_the_prior_of_train(
        self, kind: TinyKind, prompts: list[Prompt], strength: float
    ) -> None:
        lm = tiny_lm(kind)
        text = MASKED if lm.kind == "masked" else CAUSAL
        made = held_out(template=Template(text), calibration_strength=strength)
        rewards = made.rewards(lm, prompts, DEV)
        for prompt, found in zip(prompts, rewards, strict=True):
            prior, scores = direct(made, lm, prompt, strength)
            expected = [scores[e, list(WORDS).index(one.label)] for e, one in enumerate(DEV)]
            assert found == pytest.approx(expected, abs=1e-4)
            kept = made.class_prior(lm, prompt)
            assert kept is not None
            assert list(kept.values()) == pytest.approx(prior.tolist(), abs=1e-4)

    @pytest.mark.parametrize("which", [range(5), (0, 1), (3, 2, 4, 1)])
    def test_on_train_the_prior_is_that_of_exactly_what_is_scored(
        self, which: Sequence[int]
    ) -> None:
        lm, made = tiny_lm(), batch()
        block = [TRAIN[i] for i in which]
        loglik = lm.score(PROMPTS, made.queries(lm, block)).double().numpy()
        chances = np.exp(loglik) / np.exp(loglik).sum(-1, keepdims=True)
        weighed = chances / chances.mean(1, keepdims=True)
        scores = np.log(weighed / weighed.sum(-1, keepdims=True))
        labels = [list(WORDS).index(one.label) for one in block]
        expected = scores[:, range(len(block)), labels]
        np.testing.assert_allclose(made.rewards(lm, PROMPTS, block), expected, atol=1e-4)

    def test_what_else_is_judged_does_not_count(self) -> None:
        lm, made = tiny_lm(), held_out()
        together = made.rewards(lm, PROMPTS, DEV)
        alone = [made.rewards(lm, PROMPTS, [one])[:, 0] for one in DEV]
        np.testing.assert_allclose(together, np.transpose(alone), atol=1e-4)
        mixed = made.rewards(lm, PROMPTS, [DEV[0], *TRAIN])[:, :1]
        np.testing.assert_allclose(mixed, together[:, :1], atol=1e-4)

    def test_dev_that_train_has_too_is_judged_by_the_prior_of_all_of_train(self) -> None:
        """As `on_leak: allow` allows; by itself a text would always be even: log 1/2."""
        lm, prompt = tiny_lm(), PROMPTS[0]
        leaked = tuple(Example(one.fields, one.label, "other file") for one in TRAIN[:2])
        made = replace(
            batch(reward="cross_entropy"), splits=Splits(TRAIN, leaked, TEST, on_leak="allow")
        )
        plain = replace(made, calibration="none")
        texts = [plain.measure(lm, [prompt], [one]).rewards[0, 0] for one in leaked]
        prior = made.class_prior(lm, prompt)
        assert prior is not None
        odds = [
            math.exp(text - prior[one.label])
            / (1 - math.exp(text))
            * (1 - math.exp(prior[one.label]))
            for text, one in zip(texts, leaked, strict=True)
        ]
        expected = [math.log(one / (1 + one)) for one in odds]
        evaluator = Evaluator(made, lm)
        rounds = [evaluator.measure([prompt], "dev", [i]).rewards[0, 0] for i in range(2)]
        assert rounds == pytest.approx(expected, abs=1e-5)
        assert made.rewards(lm, [prompt], leaked)[0].tolist() == pytest.approx(expected, abs=1e-5)
        assert abs(expected[0] - math.log(1 / 2)) > 1e-4

    def test_labels_have_no_part_in_the_prior(self) -> None:
        lm = tiny_lm()
        other = {"neg": "pos", "pos": "neg"}
        turned = tuple(Example(one.fields, other[one.label]) for one in TRAIN)
        priors = [
            ClassificationTask(
                "film", Splits(train, DEV, TEST), Template(CAUSAL), WORDS, calibration="batch"
            ).class_prior(lm, PROMPTS[0])
            for train in (TRAIN, turned)
        ]
        assert priors[0] == priors[1]

    def test_nothing_is_taken_out_at_strength_0(self) -> None:
        lm = tiny_lm()
        found = [
            made.rewards(lm, PROMPTS, TRAIN) for made in (task(), batch(calibration_strength=0))
        ]
        np.testing.assert_allclose(found[0], found[1], atol=1e-6)
        plain, full = task().rewards(lm, PROMPTS, TRAIN), batch().rewards(lm, PROMPTS, TRAIN)
        assert np.abs(plain - full).max() > 0.1

    @pytest.mark.parametrize("options", [{"pooling": "logsumexp"}, {"length": "mean"}, {}])
    def test_several_words_a_class_make_one_probability(self, options: dict[str, str]) -> None:
        lm = tiny_lm()
        made = held_out(label_words={"neg": ["bad film", "terrible"], "pos": ["good"]}, **options)
        plain = task(label_words=made.label_words, **options)
        ends = []
        for label in ("neg", "pos"):
            same = [Example(one.fields, label) for one in (*TRAIN, *DEV)]
            ends.append(plain.rewards(lm, PROMPTS, same))
        chances = np.exp(np.stack(ends, -1))  # cross-entropy is the log-probability of a class
        weighed = chances[:, 5:] / chances[:, :5].mean(1, keepdims=True)
        expected = np.log(weighed / weighed.sum(-1, keepdims=True))
        labels = [("neg", "pos").index(one.label) for one in DEV]
        found = made.rewards(lm, PROMPTS, DEV)
        np.testing.assert_allclose(found, expected[:, range(3), labels], atol=1e-4)


class TestShown:
    """A text that a prompt shows with its answer is no text to calibrate by: it copies that."""

    @pytest.mark.parametrize("kind", ["llama", "bert"])
    @pytest.mark.parametrize("as_text", [False, True])
    def test_the_prior_is_that_of_the_texts_that_are_not_shown(
        self, kind: TinyKind, as_text: bool
    ) -> None:
        lm = tiny_lm(kind)
        template = Template("{prompt}{text} It was" + (" {mask} ." if kind == "bert" else ""))
        made = held_out(template=template, reward="cross_entropy")
        text = made.shown([0, 3])
        prompts: list[Prompt] = [TextPrompt(text) if as_text else TokenPrompt(lm.encode(text))]
        prompts.append(TokenPrompt((40, 50)))
        assert made.shows(lm, prompts, TRAIN).tolist() == [
            [True, False, False, True, False],
            [False] * 5,
        ]
        others = replace(made, splits=Splits((TRAIN[1], TRAIN[2], TRAIN[4]), DEV, TEST))
        found = made.log_priors(lm, prompts)
        np.testing.assert_allclose(found[0], others.log_priors(lm, prompts)[0], atol=1e-5)
        plain = replace(
            made, template=Template(template.text.replace("{prompt}{text}", "{text}{prompt}"))
        )
        assert not plain.shows(lm, prompts, TRAIN).any()
        # On dev, and on a block of train that has some of what is shown.
        np.testing.assert_allclose(
            made.rewards(lm, prompts[:1], DEV), others.rewards(lm, prompts[:1], DEV), atol=1e-4
        )
        block = [TRAIN[0], TRAIN[1], TRAIN[2]]
        rest = replace(made, splits=Splits((TRAIN[1], TRAIN[2]), DEV, TEST))
        expected = rest.rewards(lm, prompts[:1], block)
        np.testing.assert_allclose(made.rewards(lm, prompts[:1], block), expected, atol=1e-4)

    def test_an_example_that_is_the_end_or_a_part_of_another_is_not_shown_with_it(self) -> None:
        lm, texts = tiny_lm(), ("no fun film", "fun film", "unfun film", "film")
        train = tuple(Example({"text": text}, "neg") for text in texts)
        options = {"template": Template("{prompt}{text} It was"), "reward": "cross_entropy"}
        made = replace(held_out(**options), splits=Splits(train, DEV, TEST))

        def shown(*places: int) -> list[bool]:
            """Whether a prompt that shows these shows each."""
            as_text = TextPrompt(made.shown(places, before="Is the film any fun?"))
            found: list[bool]
            (found,) = made.shows(lm, [as_text], train).tolist()
            as_tokens = TokenPrompt(lm.encode(as_text.text))
            assert made.shows(lm, [as_tokens], train).tolist() == [found]
            # A block is told of as all of train is, whose others may be shown.
            assert made.shows(lm, [as_text], train[1:2]).tolist() == [found[1:2]]
            return found

        assert shown(0) == [True, False, False, False]
        assert shown(2) == [False, False, True, False]
        assert shown(0, 1) == shown(1, 0) == [True, True, False, False]
        assert shown(3, 1) == [False, True, False, True]
        # Where a label word begins another, as a word or in one.
        for word in ("badly made", "bad film"):
            own = held_out(**options, label_words={"neg": "bad", "pos": word})
            both = (train[1], Example({"text": "fun film"}, "pos"))
            own = replace(own, splits=Splits(both, DEV, TEST))
            assert own.shows(lm, [TextPrompt(own.shown([1]))], both).tolist() == [[False, True]]

    def test_a_block_that_is_shown_whole_is_not_calibrated(self) -> None:
        lm = tiny_lm()
        made = held_out(template=Template("{prompt}{text} It was"))
        prompts = [TextPrompt(made.shown([0, 3]))]
        block, plain = [TRAIN[0], TRAIN[3]], replace(made, calibration="none")
        expected = plain.rewards(lm, prompts, block)
        np.testing.assert_allclose(made.rewards(lm, prompts, block), expected, atol=1e-4)

    @pytest.mark.parametrize("loss", ["reward", "cross_entropy"])
    @pytest.mark.parametrize("places", [[0, 3], [0, 1, 2, 3, 4]])
    def test_a_gradient_at_its_tokens_has_the_same_rewards(
        self, loss: Loss, places: list[int]
    ) -> None:
        lm, made = tiny_lm(), held_out(template=Template("{prompt}{text} It was"))
        prompts = [TokenPrompt(lm.encode(made.shown(places)))]
        assert made.shows(lm, prompts, TRAIN).sum() == len(places)
        alone, climbed = (Objective(made, lm, Budget(1000)) for _ in range(2))
        expected = alone.evaluate(prompts).per_example
        found = climbed.evaluate_with_grad(prompts, loss=loss)
        np.testing.assert_allclose(found.per_example, expected, atol=1e-3)
        assert np.isfinite(found.gradients).all()
        assert climbed.ledger.best_reward == pytest.approx(expected.mean(), abs=1e-3)

    @pytest.mark.parametrize("examples", [TRAIN, TRAIN[1:4], DEV], ids=["train", "block", "dev"])
    def test_its_gradient_is_that_of_finite_differences(self, examples: Sequence[Example]) -> None:
        lm = tiny_lm()
        made = held_out(template=Template("{prompt}{text} It was"), reward="cross_entropy")
        ids = lm.encode(made.shown([0, 3]))
        vectors = lm.embeddings(ids)
        _, (gradient,) = made.rewards_with_grad(lm, [EmbeddedPrompt(ids, vectors)], examples)
        step = 1e-3 * gradient / np.linalg.norm(gradient)
        ends = [EmbeddedPrompt(ids, vectors + sign * step) for sign in (-1, 1)]
        low, high = made.rewards(lm, ends, examples).mean(axis=1)
        assert high - low == pytest.approx(2e-3 * np.linalg.norm(gradient), rel=0.02)


class TestGradient:
    @pytest.mark.parametrize("name", ["gap", "cross_entropy", "hinge"])
    @pytest.mark.parametrize("words", [WORDS, LONG], ids=["one token", "several tokens"])
    @pytest.mark.parametrize("examples", [TRAIN, TRAIN[1:4], DEV], ids=["train", "block", "dev"])
    def test_it_is_that_of_finite_differences(
        self, name: str, words: dict[str, str], examples: Sequence[Example]
    ) -> None:
        made = held_out(reward=name, label_words=words, template=Template("{prompt} {text}"))
        check_slopes(made, tiny_lm(), examples)

    @pytest.mark.parametrize(
        "options",
        [{"pooling": "logsumexp"}, {"length": "mean"}, {"calibration_strength": 0.5}],
    )
    def test_options_go_together(self, options: dict[str, Any]) -> None:
        words = {"neg": ["bad film", "terrible"], "pos": ["good"]}
        check_slopes(held_out(label_words=words, **options), tiny_lm(), TRAIN)

    @pytest.mark.parametrize("kind", ["gpt2", "bert", "t5"])
    @pytest.mark.parametrize("name", ["gap", "cross_entropy"])
    def test_it_is_that_of_other_kinds_of_models(self, name: str, kind: TinyKind) -> None:
        template = Template(MASKED if kind == "bert" else CAUSAL)
        # T5's layers have kinks, and bend more than the others'.
        check_slopes(
            held_out(reward=name, template=template), tiny_lm(kind), TRAIN, seed=0, step=1e-4
        )

    def test_a_strength_of_contextual_calibration_is_in_it(self) -> None:
        made = task(calibration="contextual", calibration_strength=0.5)
        check_slopes(made, tiny_lm(), TRAIN)


class Spy:
    """Counts the rows of a model, three for a gradient."""

    def __init__(self, lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[int] = []
        for name, price in (("score", 1), ("score_with_grad", 3)):
            monkeypatch.setattr(lm, name, self._counting(getattr(lm, name), price))

    def _counting(self, method: Any, price: int) -> Any:
        def counted(prompts: Any, queries: Any, *rest: Any, **options: Any) -> Any:
            self.rows.append(price * len(prompts) * len(queries))
            return method(prompts, queries, *rest, **options)

        return counted


class TestCost:
    def test_train_costs_no_more_and_other_splits_all_of_train(self) -> None:
        made = held_out()
        assert (made.extra_rows, prompt_rows(made), made.scored_together) == (0, 5, True)
        assert [made.split_rows(*one) for one in (("train", 5), ("train", 2), ("dev", 2))] == [
            5,
            2,
            7,
        ]
        plain, contextual = task(), task(calibration="contextual")
        assert [one.split_rows("dev", 2) for one in (plain, contextual)] == [2, 4]
        assert not plain.scored_together
        shorter = CompressionTask(made, "It was so good", 0.5)
        assert (shorter.split_rows("dev", 2), shorter.scored_together) == (7, True)

    @pytest.mark.parametrize(
        ("split", "which"), [("train", None), ("train", (0, 1)), ("dev", None), ("dev", (2,))]
    )
    def test_what_is_counted_is_what_the_model_scores(
        self, split: str, which: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lm = tiny_lm(seed=11)
        spy, evaluator = Spy(lm, monkeypatch), Evaluator(held_out(), lm)
        evaluator.measure(PROMPTS, split, which)
        assert evaluator.rows == sum(spy.rows)

    @pytest.mark.parametrize(("calibration", "prior_rows"), [("batch", 5), ("contextual", 2)])
    def test_a_prior_is_paid_once_in_a_race_and_after(
        self, calibration: str, prior_rows: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(selection, "FIRST_ROUND", 1)  # two rounds on three dev examples
        lm, made = tiny_lm(seed=11), held_out(calibration=calibration)
        spy = Spy(lm, monkeypatch)
        priors: dict[str, Floats] = {}
        choosing, testing = (Evaluator(made, lm, priors=priors) for _ in range(2))
        entrants = [Scored(prompt, 0.0, 5) for prompt in PROMPTS]
        monkeypatch.setattr(selection, "still_close", lambda rewards: [True] * len(rewards))
        raced = race_on_dev(choosing, entrants)
        assert choosing.rows == sum(spy.rows) == len(PROMPTS) * (prior_rows + 3)
        spy.rows.clear()
        testing.measure(PROMPTS[:1], "dev", [0])
        testing.measure(PROMPTS[:1], "test")
        assert testing.rows == sum(spy.rows) == 1 + 1
        for one in raced:
            alone = made.measure(lm, [one.scored.prompt], DEV).rewards.mean()
            assert one.dev.reward == pytest.approx(alone, abs=1e-3)

    def test_a_search_pays_once_for_each_prior(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lm, made = tiny_lm(seed=12), held_out()
        spy = Spy(lm, monkeypatch)
        found = search(made, lm, RandomSearch(batch=4), 40, length=1)
        assert found.rows + sum(found.outside_rows.values()) == sum(spy.rows)
        # Of eight prompts, each with train and, at the most, all of dev.
        assert found.outside_rows["selection"] == 8 * (5 + 3)
        assert found.outside_rows["final scores"] == 5 + 1  # train and test, its prior is known
        # The empty prompt is what is left without its only token; who led was in the race.
        assert found.outside_rows["curves and analysis"] == 3 * len(found.incumbents) + 5 + 3

    @pytest.mark.parametrize("compressed", [False, True])
    def test_a_kept_prior_is_of_its_classes_in_whatever_order(
        self, compressed: bool, tmp_path: Path
    ) -> None:
        lm, made = tiny_lm(), held_out()
        turned = replace(made, label_words={name: WORDS[name] for name in ("pos", "neg")})
        assert (made.fingerprint, list(turned.class_words)) == (turned.fingerprint, ["pos", "neg"])
        tasks: list[Task] = [made, turned]
        if compressed:
            tasks = [CompressionTask(one, "the film was", 0.0) for one in tasks]
        with Store(tmp_path / FILE) as store:
            first, second = (
                Evaluator(one, lm, store.memo(lm, one)).measure(PROMPTS[:1], "dev", [i])
                for i, one in enumerate(tasks)
            )
        for i, (one, found) in enumerate(zip((made, turned), (first, second), strict=True)):
            expected = one.measure(lm, PROMPTS[:1], DEV[i : i + 1]).rewards
            np.testing.assert_allclose(found.rewards, expected, atol=1e-4)

    def test_the_prior_of_a_search_that_was_killed_is_found_again(self) -> None:
        lm, memo = tiny_lm(seed=12), Remembered()
        first = search(held_out(), lm, RandomSearch(batch=4), 40, length=1, memo=memo)
        asked = len(memo.answers)
        again = search(held_out(), lm, RandomSearch(batch=4), 40, length=1, memo=memo)
        assert timeless(again) == timeless(first)
        assert len(memo.answers) == asked

    def test_a_compressed_prompt_has_the_prior_of_the_task(self) -> None:
        lm = tiny_lm(seed=11)
        shorter = CompressionTask(held_out(), "It was so good", 0.5)
        assert shorter.prior_rows == 5
        prompts = [shorter.written(lm, "It was"), TokenPrompt((shorter.blank(lm), 7))]
        told = shorter.knowing(lm, prompts, shorter.log_priors(lm, prompts))
        for alone, known in zip(
            *(one.measure(lm, prompts, DEV) for one in (shorter, told)), strict=True
        ):
            assert np.array_equal(alone, known)

    @pytest.mark.parametrize("calibration", ["batch", "contextual"])
    def test_the_gradient_of_a_cross_entropy_is_not_calibrated_and_its_rewards_are(
        self, calibration: str
    ) -> None:
        lm, prompts = tiny_lm(seed=12), soft(2)
        made = task(reward="gap", calibration=calibration)
        rewards, gradients = made.cross_entropy_with_grad(lm, prompts, TRAIN)
        assert rewards == pytest.approx(made.rewards(lm, prompts, TRAIN), abs=1e-3)
        plain = task(reward="cross_entropy")
        assert gradients == pytest.approx(plain.rewards_with_grad(lm, prompts, TRAIN)[1], abs=1e-6)

    def test_a_budget_pays_for_train_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lm = tiny_lm(seed=12)
        spy, objective = Spy(lm, monkeypatch), Objective(batch(), lm, Budget(100))
        objective.evaluate(PROMPTS)
        assert objective.ledger.used == sum(spy.rows) == 5 * len(PROMPTS)
        spy.rows.clear()
        objective.evaluate(PROMPTS, [3, 0])  # a block makes its own prior
        assert objective.ledger.used == 7 * len(PROMPTS)
        assert sum(spy.rows) == 2 * len(PROMPTS)

    @pytest.mark.parametrize(
        ("calibration", "loss", "examples", "expected"),
        [
            ("none", "reward", None, [15]),
            ("none", "cross_entropy", [3, 0], [6]),
            # A forward pass for the prior, and then the gradient of the same texts.
            ("batch", "reward", None, [5, 15]),
            ("batch", "reward", [3, 0], [2, 6]),
            # The gradient alone: what calibrates the rewards is known from it.
            ("batch", "cross_entropy", None, [15]),
            ("batch", "cross_entropy", [3, 0], [6]),
            # Two texts without content: forward, and with gradient after the examples.
            ("contextual", "reward", None, [2, 15, 6]),
            ("contextual", "reward", [3, 0], [2, 6, 6]),
            ("contextual", "cross_entropy", [3, 0], [6, 2]),
        ],
    )
    def test_a_gradient_costs_what_is_computed_for_it(
        self,
        calibration: str,
        loss: Loss,
        examples: list[int] | None,
        expected: list[int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        lm = tiny_lm(seed=12)
        spy = Spy(lm, monkeypatch)
        objective = Objective(task(calibration=calibration), lm, Budget(100))
        objective.evaluate_with_grad(soft(1), examples, loss=loss)
        assert spy.rows == expected
        assert objective.ledger.used == sum(expected)
        n_examples = None if examples is None else 2
        assert objective.cost(loss=loss, examples=n_examples) == sum(expected)
        of_all = objective.cost(loss=loss)
        assert objective.affordable(loss=loss) == (100 - sum(expected)) // of_all


class TestSettings:
    def test_a_fingerprint_changes_where_rewards_do(self) -> None:
        made = [
            task(),
            batch(),
            batch(calibration_strength=0.5),
            task(calibration="contextual"),
            task(calibration="contextual", calibration_strength=0.5),
        ]
        assert len({one.fingerprint for one in made}) == len(made)
        assert task(calibration_strength=0.5).fingerprint == task().fingerprint

    def test_a_classification_calibrates_by_its_train_texts(self) -> None:
        made = ClassificationTask("film", task().splits, Template(CAUSAL), WORDS)
        assert made.calibration == DEFAULT_CALIBRATION == "batch"

    @pytest.mark.parametrize("strength", [-0.1, 1.5, math.nan])
    def test_a_strength_has_a_range(self, strength: float) -> None:
        with pytest.raises(ValueError, match=r"calibration_strength is .*; give a number from 0 "):
            batch(calibration_strength=strength)

    def test_tasks_with_another_prior_are_told(self) -> None:
        made = batch()
        plain = made.uncalibrated()
        assert plain == task()
        assert (made.calibrated(), task().uncalibrated()) == (None, None)
        assert task(calibration="contextual").uncalibrated() is None
        assert task().class_prior(tiny_lm(), PROMPTS[0]) is None


class TestCheck:
    @pytest.mark.parametrize("kind", ["llama", "bert", "t5"])
    def test_it_passes(self, kind: TinyKind) -> None:
        lm = tiny_lm(kind)
        text = MASKED if lm.kind == "masked" else CAUSAL
        splits = Splits(_films("train", 8), _films("dev", 8), _films("test", 8))
        made = ClassificationTask("films", splits, Template(text), WORDS, calibration="batch")
        check_task(made, lm).raise_if_failed()


def _films(split: str, n: int) -> tuple[Example, ...]:
    return tuple(Example({"text": f"{split} film {i}"}, ("neg", "pos")[i % 2]) for i in range(n))


class Biased(FrozenLM):
    """A model whose prompts push to a class, and tell texts apart, by their first token.

    A text's first letter tells its class. Token 30 tells it well and pushes hard to `pos`; all
    others push there softly and tell next to nothing.
    """

    def score(self, prompts: Any, queries: Any, *, over: Any = "vocabulary") -> Tensor:
        texts = [self.decode(query.head_ids) for query in queries]
        signs = torch.tensor([1.0 if text.startswith("g") else -1.0 for text in texts])
        rows = []
        for prompt in prompts:
            tell, push = (2.0, 4.0) if prompt.ids[:1] == (30,) else (0.01, 0.5)
            odds = tell * signs + push
            rows.append(torch.stack([torch.zeros_like(odds), odds], -1).log_softmax(-1))
        return torch.stack(rows)


def test_a_search_finds_the_planted_prompt_where_the_plain_reward_takes_a_biased_one() -> None:
    base = tiny_lm(seed=13)
    lm = Biased(base.model, base.tokenizer, "biased")

    def part(name: str, n: int) -> tuple[Example, ...]:
        return tuple(
            Example({"text": f"{'gd'[i % 2]} {name} {i}"}, ("pos", "neg")[i % 2]) for i in range(n)
        )

    plain = task(label_words={"neg": "terrible", "pos": "great"})
    plain = replace(plain, splits=Splits(part("train", 8), part("dev", 8), part("test", 40)))
    banned = [i for i in range(base.n_vocabulary) if i not in range(30, 40)]
    picked = [
        search(made, lm, RandomSearch(), budget=8 * 60, length=1, seed=0, banned=banned).best
        for made in (plain, replace(plain, calibration="batch"))
    ]
    # Cross-entropy of the planted prompt, plain: ln s(6) and ln s(-2) make -1.06 a text, and the
    # others have -0.72. Its prior of `pos` is (s(6) + s(2)) / 2 = 0.94, log odds 2.74, which leaves
    # 3.26 and -0.74: every text is told, and -0.21 a text.
    assert [one.prompt == TokenPrompt((30,)) for one in picked] == [False, True]
    tested = [one.test for one in picked if one.test]
    assert [one.metric for one in tested] == [0.5, 1.0]
    assert [one.reward for one in tested] == pytest.approx([-0.719, -0.213], abs=2e-3)
