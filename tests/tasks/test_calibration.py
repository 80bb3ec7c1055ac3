from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from class_tasks import CAUSAL, LONG, MASKED, PROMPTS, TRAIN, WORDS, check_slopes, soft, task
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from tiny import TinyKind, tiny_lm, tiny_model, tiny_tokenizer
from torch import Tensor

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.objective import Objective
from rlprompt.tasks.calibration import (
    calibrated,
    content_free_queries,
    content_free_texts,
    log_prior,
)
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.template import Template


def contextual(**changes: Any) -> ClassificationTask:
    return task(calibration="contextual", **changes)


def logs(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


class TestByHand:
    """The numbers were worked out on paper from the paper's formulas and the authors' code."""

    def test_the_prior_is_the_mean_over_texts_normalised_among_the_classes(self) -> None:
        # Means of the columns are 0.06 and 0.02; per text the first class has 3/4, 2/3 and 7/9.
        found = log_prior(logs((0.09, 0.03), (0.02, 0.01), (0.07, 0.02))).exp()
        assert found.tolist() == pytest.approx([0.75, 0.25])

    def test_probabilities_are_divided_by_the_prior(self) -> None:
        # 0.7 / 0.8 = 0.875 and 0.3 / 0.2 = 1.5, of which the sum is 2.375.
        found = calibrated(logs((0.7, 0.3)), logs((0.8, 0.2))[0]).exp()
        assert found.tolist()[0] == pytest.approx([0.875 / 2.375, 1.5 / 2.375])

    def test_three_classes(self) -> None:
        # 0.5 / 0.6, 0.3 / 0.3, 0.2 / 0.1
        found = calibrated(logs((0.5, 0.3, 0.2)), logs((0.6, 0.3, 0.1))[0]).exp()
        total = 0.5 / 0.6 + 1 + 2
        assert found.tolist()[0] == pytest.approx([0.5 / 0.6 / total, 1 / total, 2 / total])


positive = arrays("float64", (3, 4), elements=st.floats(1e-6, 1))


class TestInvariants:
    @given(positive, st.floats(-20, 20))
    def test_a_constant_in_all_scores_changes_nothing(
        self, probabilities: NDArray[np.float64], shift: float
    ) -> None:
        scores = torch.tensor(probabilities).log()
        prior = log_prior(scores)
        torch.testing.assert_close(log_prior(scores + shift), prior)
        torch.testing.assert_close(calibrated(scores + shift, prior), calibrated(scores, prior))

    @given(positive)
    def test_a_prior_without_a_favourite_changes_nothing(
        self, probabilities: NDArray[np.float64]
    ) -> None:
        scores = torch.tensor(probabilities).log()
        even = torch.full((4,), math.log(0.25), dtype=torch.float64)
        torch.testing.assert_close(calibrated(scores, even), scores.log_softmax(-1))

    @given(positive)
    def test_the_winner_is_that_of_the_papers_formula(
        self, probabilities: NDArray[np.float64]
    ) -> None:
        p_cf = probabilities.mean(0) / probabilities.mean(0).sum()
        paper = np.diag(1 / p_cf) @ (probabilities / probabilities.sum(1, keepdims=True)).T
        scores = torch.tensor(probabilities).log()
        found = calibrated(scores, log_prior(scores)).exp().numpy().T
        np.testing.assert_allclose(found, paper / paper.sum(0), rtol=1e-6)


def vocabulary_probabilities(
    lm: FrozenLM, prompt: Prompt, before: list[int], words: list[str]
) -> NDArray[np.float64]:
    """Probabilities of single-token words after these ids and the prompt, by plain transformers."""
    table, prompt = lm.model.get_input_embeddings(), lm.fed(prompt)
    if isinstance(prompt, SoftPrompt):
        vectors = torch.tensor(prompt.vectors)
    else:
        vectors = table(torch.tensor(prompt.ids, dtype=torch.long))
    fed = torch.cat([table(torch.tensor(before, dtype=torch.long)), vectors])
    with torch.no_grad():
        logits = lm.model(inputs_embeds=fed[None]).logits[0, -1].double()
    ids = [lm.encode(f" {word}")[0] for word in words]
    found: NDArray[np.float64] = logits.softmax(-1)[ids].numpy()
    return found


class TestRewards:
    @pytest.mark.parametrize("kind", ["llama", "bloom"])
    @pytest.mark.parametrize("prompts", [PROMPTS, soft()], ids=["tokens", "soft"])
    def test_they_are_those_of_plain_forward_passes(
        self, kind: TinyKind, prompts: list[Prompt]
    ) -> None:
        lm = tiny_lm(kind)
        rewards, metric, _ = contextual().measure(lm, prompts, TRAIN)
        words = list(WORDS.values())
        free = [list(lm.encode("N/A")), list(lm.encode("[MASK]"))]
        for p, prompt in enumerate(prompts):
            mean = np.mean([vocabulary_probabilities(lm, prompt, f, words) for f in free], axis=0)
            for e, one in enumerate(TRAIN):
                text = list(lm.encode(one.fields["text"]))
                own = vocabulary_probabilities(lm, prompt, text, words)
                quotients = (own / own.sum()) / (mean / mean.sum())
                label = list(WORDS).index(one.label)
                expected = np.log(quotients[label] / quotients.sum())
                assert rewards[p, e] == pytest.approx(expected, abs=2e-4)
                assert metric[p, e] == float(quotients.argmax() == label)

    def test_it_changes_what_prompts_earn(self) -> None:
        lm = tiny_lm()
        plain, other = (made.rewards(lm, PROMPTS, TRAIN) for made in (task(), contextual()))
        assert np.abs(plain - other).max() > 0.1

    def test_a_prompt_earns_the_same_whatever_the_other_examples(self) -> None:
        lm, made = tiny_lm(), contextual()
        together = made.rewards(lm, PROMPTS, TRAIN)
        alone = [made.rewards(lm, PROMPTS, [one])[:, 0] for one in TRAIN]
        np.testing.assert_allclose(together, np.transpose(alone), atol=1e-4)

    def test_a_word_that_is_likelier_after_any_text_has_no_head_start(self) -> None:
        """One nat in the bias of a word's output, of which next to nothing is left."""
        models = [tiny_model("bert"), tiny_model("bert")]
        plain, biased = (FrozenLM(model, tiny_tokenizer("bert")) for model in models)
        with torch.no_grad():
            head: Any = models[1].get_output_embeddings()  # type: ignore[no-untyped-call]
            head.bias[list(plain.encode(" great"))] += 1
        template = Template(MASKED)
        changes = [
            np.abs(made.rewards(plain, PROMPTS, TRAIN) - made.rewards(biased, PROMPTS, TRAIN))
            for made in (task(template=template), contextual(template=template))
        ]
        assert changes[0].max() > 0.2
        assert changes[1].max() < 0.1 * changes[0].max()

    @pytest.mark.parametrize("kind", ["bert", "roberta", "t5", "gpt2", "gemma"])
    def test_every_kind_of_model_has_content_free_texts(self, kind: TinyKind) -> None:
        lm = tiny_lm(kind)
        text = MASKED if lm.kind == "masked" else CAUSAL
        rewards = contextual(template=Template(text)).rewards(lm, PROMPTS, TRAIN)
        assert np.isfinite(rewards).all()
        assert (rewards < 0).all()


class TestContentFreeTexts:
    def test_they_stand_in_every_field(self) -> None:
        lm = tiny_lm()
        template = Template("{premise} {prompt} So: {hypothesis}")
        queries = content_free_queries(lm, template, [(5,)])
        assert [lm.decode(query.head_ids) for query in queries] == ["N/A", "[MASK]", ""]
        assert [lm.decode(query.tail_ids) for query in queries] == [
            " So: N/A",
            " So: [MASK]",
            " So:",
        ]

    @pytest.mark.parametrize("text", [CAUSAL, "{prompt} {text}", "{text}\n{prompt}\n{mask}"])
    def test_nothing_at_all_is_no_text(self, text: str) -> None:
        assert content_free_texts(Template(text)) == ("N/A", "[MASK]")

    @pytest.mark.parametrize("text", ["{text} {prompt} it was", "Q: {text} {prompt}"])
    def test_an_empty_text_counts_where_the_template_has_words(self, text: str) -> None:
        assert content_free_texts(Template(text)) == ("N/A", "[MASK]", "")
        rewards = contextual(template=Template(text)).rewards(tiny_lm(), PROMPTS, TRAIN)
        assert np.isfinite(rewards).all()

    def test_a_models_own_mask_is_no_second_place_to_answer_at(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lm = tiny_lm("bert", seed=7)
        encode = lm.encode
        mask = (lm.mask_id,)
        monkeypatch.setattr(lm, "encode", lambda t: mask if t == "[MASK]" else encode(t))
        heads = [query.head_ids for query in content_free_queries(lm, Template(MASKED), [(5,)])]
        assert not any(lm.mask_id in head for head in heads)
        assert heads[1][1:] == encode("[mask]")


class TestGradient:
    @pytest.mark.parametrize("name", ["gap", "cross_entropy", "hinge"])
    @pytest.mark.parametrize("words", [WORDS, LONG], ids=["one token", "several tokens"])
    @pytest.mark.parametrize("template", [CAUSAL, "{prompt} {text}"])
    def test_it_is_that_of_finite_differences(
        self, name: str, words: dict[str, str], template: str
    ) -> None:
        check_slopes(
            contextual(reward=name, template=Template(template), label_words=words), tiny_lm()
        )

    @pytest.mark.parametrize("options", [{"pooling": "logsumexp"}, {"length": "mean"}])
    def test_options_go_together(self, options: dict[str, str]) -> None:
        lm, step = tiny_lm(), 1e-3
        words = {"neg": ["bad film", "terrible"], "pos": ["good"]}
        made = contextual(label_words=words, **options)
        (prompt,) = soft(1)
        _, (gradient,) = made.rewards_with_grad(lm, [prompt], TRAIN)
        direction = gradient / np.linalg.norm(gradient)
        ends = [SoftPrompt(prompt.vectors + s * step * direction) for s in (-1, 1)]
        low, high = made.rewards(lm, ends, TRAIN).mean(axis=1)
        assert (high - low) / (2 * step) == pytest.approx(np.linalg.norm(gradient), rel=0.02)


class TestCost:
    def test_the_texts_without_content_are_rows(self) -> None:
        assert contextual().extra_rows == 2
        assert contextual(template=Template("Q: {text} {prompt}")).extra_rows == 3
        assert task().extra_rows == 0

    def test_the_budget_pays_for_them(self) -> None:
        cost = len(TRAIN) + 2
        objective = Objective(contextual(), tiny_lm(), Budget(7 * cost + 1))
        objective.evaluate([TokenPrompt((i,)) for i in (20, 21)])
        assert objective.ledger.used == 2 * cost
        objective.evaluate_with_grad(soft(1))
        # The texts without content are read once more, forward only, for what the gradient goes by.
        assert objective.ledger.used == 2 * cost + 3 * cost + 2
        assert objective.affordable() == 1

    def test_the_model_scores_no_more_than_that(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lm = tiny_lm(seed=8)
        rows: list[int] = []
        score = lm.score

        def spy(prompts: Any, queries: Any, **options: Any) -> Tensor:
            rows.append(len(prompts) * len(queries))
            return score(prompts, queries, **options)

        monkeypatch.setattr(lm, "score", spy)
        contextual().rewards(lm, PROMPTS, TRAIN)
        assert sum(rows) == len(PROMPTS) * (len(TRAIN) + 2)


class TestMistakes:
    def test_an_unknown_calibration_is_named(self) -> None:
        with pytest.raises(ValueError, match="calibration is 'contxtual'; give one of none"):
            task(calibration="contxtual")

    def test_a_template_without_a_text_cannot_be_calibrated(self) -> None:
        with pytest.raises(ValueError, match="has no field, and calibration needs one"):
            contextual(template=Template("Say {prompt}"))

    def test_a_fingerprint_tells_it(self) -> None:
        assert task().fingerprint == task(calibration="none").fingerprint
        assert task().fingerprint != contextual().fingerprint
