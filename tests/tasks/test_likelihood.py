"""The log-likelihood of references: its formula, against plain transformers, and what it needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from sayings import Says, says
from spellings import spelling_lm, spelling_tokenizer
from tiny import CONTEXT, TinyKind, tiny_lm, tiny_model, tiny_tokenizer
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from rlprompt.agents.gcg import GCG
from rlprompt.agents.soft_prompt import SoftPromptTuning
from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.objective import Objective
from rlprompt.search.run import search
from rlprompt.studies.experiment import Experiment
from rlprompt.tasks.base import prompt_rows
from rlprompt.tasks.fitting import fitted
from rlprompt.tasks.generation import GenerationTask
from rlprompt.tasks.likelihood import Likelihood, Pooling, References
from rlprompt.template import Template

END, NEWLINE = 2, tiny_tokenizer()("\n")["input_ids"][0]
TEMPLATE = Template("{text} {prompt}")
PROMPTS: list[Prompt] = [TokenPrompt((20, 30)), TokenPrompt((40,)), TokenPrompt()]


def split(name: str) -> tuple[Example, ...]:
    return (
        Example({"text": f"{name} film"}, "good", f"{name}.csv:2"),
        Example({"text": f"{name} it was"}, "bad film", others=("terrible", "so so")),
        Example({"text": f"the {name}"}, "great", others=("good",)),
    )


SPLITS = Splits(split("train"), split("dev"), split("test"))


def task(**changes: Any) -> GenerationTask:
    return GenerationTask("likely", **{"splits": SPLITS, "template": TEMPLATE, **DENSE, **changes})


DENSE: dict[str, Any] = {"reward": "log_likelihood", "max_new_tokens": 4}


def plain_logs(lm: FrozenLM, text: Tensor, answer: Sequence[int]) -> Tensor:
    """Log-probabilities (T,) of an answer's tokens after a text's vectors, by torch alone."""
    model: Any = lm.model
    table = model.get_input_embeddings()
    if lm.kind == "encoder-decoder":
        fed = torch.tensor([[0, *answer[:-1]]])
        logits = model(inputs_embeds=text[None], decoder_input_ids=fed).logits[0]
    else:
        fed = torch.cat([text, table(torch.tensor(answer[:-1], dtype=torch.long))])
        logits = model(inputs_embeds=fed[None]).logits[0, len(text) - 1 :]
    return cast(Tensor, logits.log_softmax(-1)[range(len(answer)), list(answer)])


def plain_reward(lm: FrozenLM, example: Example, prompt: Tensor, pooling: Pooling) -> Tensor:
    """The reward as it is defined, for a prompt of vectors (L, H)."""
    encode: Any = lambda text: lm.tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    decoded = lm.kind == "encoder-decoder"
    table: Any = lm.model.get_input_embeddings()
    head = table(torch.tensor(encode(example.fields["text"])))
    tail = table(torch.tensor([END] if decoded else [], dtype=torch.long))
    text = torch.cat([head, prompt, tail])
    totals, sizes = list[Tensor](), list[int]()
    for reference in example.references:
        ids = encode(reference if decoded else f" {reference}")
        ends = [plain_logs(lm, text, [*ids, end]).sum() for end in (END, NEWLINE)]
        totals.append(torch.stack(ends).logsumexp(0))
        sizes.append(len(ids) + 1)
    if pooling == "best":
        return torch.stack([total / n for total, n in zip(totals, sizes, strict=True)]).max()
    return torch.stack(totals).logsumexp(0) / (sum(sizes) / len(sizes))


def vectors_of(lm: FrozenLM, prompt: Prompt) -> Tensor:
    prompt = lm.fed(prompt)
    if isinstance(prompt, SoftPrompt):
        return torch.tensor(prompt.vectors)
    table: Any = lm.model.get_input_embeddings()
    return cast(Tensor, table(torch.tensor(prompt.ids, dtype=torch.long)))


class TestFormula:
    """Of two references of 2 and 4 tokens with ends of chances 1/4 and 1/4, and 1/16."""

    owners = np.array([[0, 0, 1], [0, 0, -1]])
    sizes = np.array([[2.0, 4.0], [3.0, 1.0]])
    loglik = torch.tensor([[1 / 4, 1 / 4, 1 / 16], [0.1, 0.3, 0.3]], dtype=torch.float64).log()

    @pytest.mark.parametrize(
        ("pooling", "expected"),
        [
            ("best", [-0.34657359, -0.30543024]),  # log(1/2) / 2, log(0.4) / 3
            ("logsumexp", [-0.19178805, -0.30543024]),  # log(9/16) / 3
        ],
    )
    def test_ends_add_up_and_references_count_by_the_token(
        self, pooling: Pooling, expected: list[float]
    ) -> None:
        asked = References([], self.owners, self.sizes, pooling)
        found = asked.rewards(self.loglik, np.array([0, 1]))
        assert found.tolist() == pytest.approx(expected, abs=1e-8)
        again = asked.rewards(self.loglik[[1, 0, 1]], np.array([1, 0, 1]))
        assert again.tolist() == pytest.approx([expected[i] for i in (1, 0, 1)], abs=1e-8)

    @pytest.mark.parametrize("pooling", ["best", "logsumexp"])
    def test_what_is_there_to_make_up_a_number_has_no_slope(self, pooling: Pooling) -> None:
        loglik = self.loglik.clone().requires_grad_()
        asked = References([], self.owners, self.sizes, pooling)
        found = asked.rewards(loglik, np.array([0, 1])).sum()
        (slope,) = torch.autograd.grad(found, loglik)
        # d log(a + b) / d log a = a / (a + b)
        assert slope[1].tolist() == pytest.approx([1 / 12, 3 / 12, 0.0])


@pytest.mark.parametrize("pooling", ["best", "logsumexp"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "bloom", "t5"])
def test_rewards_are_those_of_plain_transformers(kind: TinyKind, pooling: Pooling) -> None:
    lm = tiny_lm(kind)
    rewards = task(pooling=pooling).rewards(lm, PROMPTS, SPLITS.train)
    with torch.no_grad():
        expected = [
            [float(plain_reward(lm, one, vectors_of(lm, prompt), pooling)) for one in SPLITS.train]
            for prompt in PROMPTS
        ]
    assert rewards.dtype == np.float64
    np.testing.assert_allclose(rewards, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["best", "logsumexp"])
@pytest.mark.parametrize("kind", ["llama", "bloom", "t5"])
def test_the_gradient_is_that_of_autograd(kind: TinyKind, pooling: Pooling) -> None:
    lm = tiny_lm(kind)
    rng = np.random.default_rng(1)
    soft = [SoftPrompt(0.3 * rng.standard_normal((2, lm.hidden_size))) for _ in range(2)]
    rewards, gradients = task(pooling=pooling).rewards_with_grad(lm, soft, SPLITS.train)
    np.testing.assert_allclose(
        rewards, task(pooling=pooling).rewards(lm, soft, SPLITS.train), rtol=0, atol=1e-5
    )
    for prompt, gradient in zip(soft, gradients, strict=True):
        vectors = torch.tensor(prompt.vectors, requires_grad=True)
        each = [plain_reward(lm, example, vectors, pooling) for example in SPLITS.train]
        (expected,) = torch.autograd.grad(torch.stack(each).mean(), vectors)
        np.testing.assert_allclose(gradient, expected.numpy(), rtol=1e-3, atol=1e-5)


class TestEnds:
    def candidates(self, lm: FrozenLM, reference: str, *stop: str) -> tuple[int, Any]:
        likelihood = Likelihood(lm, TEMPLATE, stop, "best")
        asked = likelihood.references([Example({"text": "it"}, reference)])
        return int(asked.sizes[0, 0]), asked.queries[0].candidates

    def test_a_reference_ends_as_a_written_answer_does(self) -> None:
        lm = tiny_lm()
        good = lm.encode(" good")
        assert self.candidates(lm, "good", "\n") == (2, ((*good, END), (*good, NEWLINE)))
        assert self.candidates(lm, "good") == (2, ((*good, END),))
        # Three tokens of an end count as one.
        assert self.candidates(lm, "good", "###") == (
            2,
            ((*good, END), (*good, *lm.encode("###"))),
        )

    def test_an_end_that_goes_on_after_another_is_in_it(self) -> None:
        lm = tiny_lm()
        assert self.candidates(lm, "good", "\n", "\n\n") == self.candidates(lm, "good", "\n")

    def test_a_stop_string_without_a_token_is_no_end(self) -> None:
        lm = spelling_lm("unigram")
        size, candidates = self.candidates(lm, "good", "\n")
        assert size == 2
        assert [ids[-1] for ids in candidates] == [END]

    def test_a_stop_string_that_joins_the_reference_is_spelt_with_it(self) -> None:
        """As in cl100k, whose line breaks belong to the sign before them."""
        known: Any = spelling_tokenizer("tiktoken")
        state = json.loads(known.backend_tokenizer.to_str())
        joined = len(state["model"]["vocab"])
        state["model"]["vocab"]["!Ċ"] = joined
        state["model"]["merges"].append(["!", "Ċ"])
        make: Any = PreTrainedTokenizerFast  # not annotated
        tokenizer = make(tokenizer_object=Tokenizer.from_str(json.dumps(state)), eos_token="</s>")
        lm = FrozenLM(tiny_model(vocab_size=len(tokenizer)), tokenizer, "joining")
        good, sign = lm.encode(" good"), lm.encode("!")
        assert self.candidates(lm, "good!", "\n") == (
            3,
            ((*good, *sign, END), (*good, joined)),
        )

    def test_where_nothing_ends_an_answer_the_reference_stands_alone(self) -> None:
        model, tokenizer = tiny_model(), tiny_tokenizer()
        cast(Any, model).generation_config.eos_token_id = None
        cast(Any, tokenizer).eos_token = None
        lm = FrozenLM(model, tokenizer, "endless")
        assert self.candidates(lm, "good") == (1, (lm.encode(" good"),))

    def test_a_control_token_in_a_reference_is_text(self) -> None:
        lm = tiny_lm()
        _, (first, *_) = self.candidates(lm, "good</s>", "\n")
        assert END not in first[:-1]
        assert first[-1] == END

    def test_a_stop_string_may_be_a_control_token(self) -> None:
        lm = spelling_lm("bytes")
        _, candidates = self.candidates(lm, "good", "<|im_end|>")
        (end,) = lm.encode("<|im_end|>")
        assert (*lm.encode(" good"), end) in candidates


class TestTask:
    def test_a_search_pays_a_row_an_example_and_writes_nothing(self) -> None:
        made = task()
        objective = Objective(made, says(), Budget(100))
        found = objective.evaluate(PROMPTS)
        assert objective.ledger.used == 9
        assert (found.per_example < 0).all()
        assert prompt_rows(made) == 3
        assert prompt_rows(made, loss="reward") == 9
        assert made.has("rewards_with_grad")
        assert not made.has("rewards_with_outputs")
        assert not made.has("cross_entropy_with_grad")

    def test_reports_give_the_real_metric_and_what_was_written(self) -> None:
        made = task()
        lm = says("Good", "so  so", "bad")
        found = made.measure(lm, PROMPTS[:1], SPLITS.dev)
        assert made.metric == "exact_match"
        assert found.metrics.tolist() == [[1, 1, 0]]
        assert found.answers == (("Good", "so  so", "bad"),)
        assert np.array_equal(found.rewards, made.rewards(tiny_lm(), PROMPTS[:1], SPLITS.dev))
        other = task(metric="contains").measure(says("it is good", "", ""), PROMPTS[:1], SPLITS.dev)
        assert other.metrics.tolist() == [[1, 0, 0]]
        own = task(metric="reward").measure(lm, PROMPTS[:1], SPLITS.dev)
        assert np.array_equal(own.metrics, own.rewards)

    def test_any_reward_may_have_a_metric_beside_it(self) -> None:
        made = task(reward="contains", metric="exact_match")
        found = made.measure(says("very good", "bad film", ""), PROMPTS[:1], SPLITS.dev)
        assert (found.rewards.tolist(), found.metrics.tolist()) == ([[1, 1, 0]], [[0, 1, 0]])
        assert task(reward="contains").metric == "reward"

    def test_whatever_decides_a_score_is_in_the_fingerprint(self) -> None:
        changes: list[dict[str, Any]] = [
            {},
            {"reward": "exact_match"},
            {"reward": "exact_match", "metric": "contains"},
            {"pooling": "logsumexp"},
            {"metric": "token_f1"},
            {"select_by": "metric"},
            {"stop": ()},
            {"min_new_tokens": 1},
            {"template": Template(TEMPLATE.text, "")},
        ]
        assert len({task(**change).fingerprint for change in changes}) == len(changes)

    def test_settings_that_came_later_change_no_fingerprint_where_they_are_not_used(self) -> None:
        """Stored answers are found by it; what is read otherwise (`WORDS_READ`) changes it, too."""
        one = (Example({"text": "a"}, "x"),), (Example({"text": "b"}, "y"),)
        splits = Splits(*one, (Example({"text": "c"}, "z"),))
        made = GenerationTask("say", splits, Template("{text} {prompt}"), "exact_match")
        assert made.fingerprint == "f91d3d458ff548628480861dbd1dcb7f"
        assert replace(made, pooling="logsumexp").fingerprint == made.fingerprint

    @pytest.mark.parametrize("method", [GCG(candidates=4), SoftPromptTuning()])
    def test_methods_that_climb_a_gradient_search_it(self, method: Any) -> None:
        lm, made = tiny_lm(), task()
        result = search(made, lm, method, budget=120, length=2)
        assert result.status == "finished"
        assert result.best.dev is not None
        assert result.best.dev.reward < 0 <= result.best.dev.metric
        (start, first), *_ = result.points
        assert start > 0
        assert max(reward for _, reward in result.points) > first
        Experiment("one", made, lm, {"climbs": method}, Budget(120), length=2)
        with pytest.raises(ValueError, match="'likely' has no gradient, which climbs would follow"):
            Experiment("one", task(reward="contains"), lm, {"climbs": method}, Budget(120))


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"length_penalty": 0.1},
                "length_penalty is 0.1, and with log_likelihood the model writes",
            ),
            (
                {"reward": {"log_likelihood": 1.0, "bleu": 1.0}},
                "log_likelihood is a reward by itself and cannot be added",
            ),
            ({"pooling": "mean"}, "pooling is 'mean'; give best or logsumexp"),
            ({"select_by": "train"}, "select_by is 'train'; give reward or metric"),
            ({"metric": "accuracy"}, "no metric is called 'accuracy'"),
            ({"min_new_tokens": 5}, "min_new_tokens is 5; give a number from 0 to max_new_tokens"),
        ],
    )
    def test_a_setting_that_cannot_be(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            task(**changes)

    @pytest.mark.parametrize("label", ["", "  \n"])
    def test_an_example_without_a_reference(self, label: str) -> None:
        bare = replace(SPLITS.dev[0], label=label)
        splits = replace(SPLITS, dev=(bare, *SPLITS.dev[1:]))
        with pytest.raises(ValueError, match=r"dev.csv:2 has no reference answer, and log_likel"):
            task(splits=splits)
        assert task(splits=splits, reward="regex:[0-9]").metric == "reward"

    def test_a_reference_that_is_spelt_with_nothing(self) -> None:
        class Mute(Says):
            def spell(self, *_: Any, **__: Any) -> tuple[int, ...]:
                return ()

        lm = cast(FrozenLM, Mute())
        with pytest.raises(ValueError, match=r"spells the reference 'good' of train.csv:2 with no"):
            task().rewards(lm, PROMPTS, SPLITS.train)

    def test_a_reference_that_leaves_no_room(self) -> None:
        long = replace(SPLITS.test[0], label="x" * CONTEXT)
        splits = replace(SPLITS, test=(long, *SPLITS.test[1:]))
        with pytest.raises(ValueError, match=r"test example test.csv:2 is too long: .* of answer"):
            fitted(task(splits=splits), tiny_lm(), 2)
        fitted(task(), tiny_lm(), 2)

    def test_a_masked_model(self) -> None:
        with pytest.raises(ValueError, match="masked model, which fills gaps and cannot write"):
            task().rewards(tiny_lm("bert"), PROMPTS, SPLITS.train)

    def test_a_gradient_of_what_is_written(self) -> None:
        soft = [SoftPrompt(np.zeros((1, 32), np.float32))]
        with pytest.raises(ValueError, match="has no gradient; take `reward: log_likelihood`"):
            task(reward="contains").rewards_with_grad(tiny_lm(), soft, SPLITS.train)
