"""A long text is read otherwise than a short one (LongRoPE), and neither changes the other.

What is right is a row alone, as transformers computes it.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from films import LABELS, films
from tiny import randomised, tiny_lm, tiny_tokenizer

from rlprompt.check.model import examine_model
from rlprompt.data.examples import Example
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import PrefixPrompt, Prompt, SoftPrompt, TokenPrompt
from rlprompt.studies.training import class_scores
from rlprompt.template import Query
from rlprompt.types import Ids

ROPE_LIMIT, CONTEXT, HIDDEN = 32, 256, 32
SIZE: dict[str, Any] = {
    "vocab_size": 290,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [1.5, 4.0, 9.0, 20.0],
    "original_max_position_embeddings": ROPE_LIMIT,
}


def phi3(**changes: Any) -> Any:
    config = transformers.Phi3Config(
        **SIZE | {"rope_parameters": LONG, "original_max_position_embeddings": ROPE_LIMIT} | changes
    )
    return randomised(transformers.Phi3ForCausalLM(config), 0)


def llama(**rope: Any) -> Any:
    config = transformers.LlamaConfig(**SIZE | {"rope_parameters": rope})
    return randomised(transformers.LlamaForCausalLM(config), 0)


@lru_cache
def long_lm(kind: str = "packed") -> FrozenLM:
    """A model with a limit; \"plain\" for one that cannot be packed."""
    lm = FrozenLM(phi3(), tiny_tokenizer(), f"phi3 {kind}")
    if kind == "plain":
        lm._engine.packed = None
    return lm


def some(length: int, seed: int = 0) -> Ids:
    return tuple(np.random.default_rng((seed, length)).integers(5, 290, length).tolist())


@torch.no_grad()
def alone(model: Any, text: Ids, answer: Ids, vectors: Any = None) -> float:
    """Log-likelihood of an answer by one forward pass of transformers."""
    ids = torch.tensor([text + answer[:-1]])
    fed: dict[str, Any] = {"input_ids": ids}
    if vectors is not None:
        table = model.get_input_embeddings()(ids)
        fed = {"inputs_embeds": torch.cat([torch.tensor(vectors)[None], table], 1)}
    logs = model(**fed, use_cache=False).logits[0].float().log_softmax(-1)
    return float(sum(logs[-len(answer) + i, token] for i, token in enumerate(answer)))


# Texts on both sides of the limit, and at it: with a prompt of 2 tokens the third is fed 32.
QUERIES = [
    Query(some(length), some(tail, 1), ((7,), (8, 9)))
    for length, tail in ((5, 3), (60, 0), (26, 3), (27, 3), (28, 3), (5, 90), (12, 0))
]
PROMPTS: list[Prompt] = [TokenPrompt((9, 10)), TokenPrompt((11, 12))]


@pytest.mark.parametrize("kind", ["packed", "plain", "llama"])
class TestAScoreIsThatOfTheRowAlone:
    def test_of_tokens(self, kind: str) -> None:
        lm = long_lm(kind)
        for prompts in (PROMPTS, PROMPTS[:1]):
            found = lm.score(prompts, QUERIES)
            for p, prompt in enumerate(prompts):
                for q, query in enumerate(QUERIES):
                    text = query.head_ids + prompt.ids + query.tail_ids  # type: ignore[union-attr]  # tokens
                    expected = [alone(lm.model, text, answer) for answer in query.candidates]
                    assert found[p, q].tolist() == pytest.approx(expected, abs=1e-4), (p, q)

    def test_of_a_prompt_before_texts_that_are_read_behind_it(self, kind: str) -> None:
        lm = long_lm(kind)
        queries = [Query((), some(length), ((7,), (8,))) for length in (3, 29, 30, 31, 80, 9)]
        found = lm.score(PROMPTS, queries, over="candidates")
        for p, prompt in enumerate(PROMPTS):
            for q, query in enumerate(queries):
                text = prompt.ids + query.tail_ids  # type: ignore[union-attr]  # tokens
                own = torch.tensor([alone(lm.model, text, answer) for answer in query.candidates])
                assert found[p, q].tolist() == pytest.approx(own.log_softmax(-1).tolist(), abs=1e-4)

    def test_of_vectors_with_their_gradients(self, kind: str) -> None:
        lm = long_lm(kind)
        vectors = np.random.default_rng(0).normal(size=(2, 2, HIDDEN)).astype(np.float32)
        prompts = [SoftPrompt(own) for own in vectors]
        queries = [Query((), some(length), ((7,), (8,))) for length in (3, 30, 31, 80)]
        found, slopes = lm.score_with_grad(
            prompts, queries, lambda ll, q: ll[:, 0] * torch.tensor(q)
        )
        for p in range(2):
            expected = [alone(lm.model, q.tail_ids, (7,), vectors[p]) for q in queries]
            assert found[p, :, 0].tolist() == pytest.approx(expected, abs=1e-4)
        parts = [
            q * lm.score_with_grad(prompts, [query], lambda ll, _: ll[:, 0])[1]
            for q, query in enumerate(queries)
        ]
        torch.testing.assert_close(slopes, torch.stack(parts).sum(0), rtol=1e-3, atol=1e-4)

    def test_of_pairs(self, kind: str) -> None:
        lm = long_lm(kind)
        found = lm.score_pairs([(PROMPTS[0], query) for query in QUERIES])
        expected = lm.score(PROMPTS[:1], QUERIES)[0]
        torch.testing.assert_close(torch.stack(found), expected, rtol=0, atol=1e-4)

    def test_after_prefixes_were_kept(self, kind: str) -> None:
        lm = long_lm(kind)
        queries = [Query(some(length), (), ((7,), (8,))) for length in (6, 100, 20, 31)]
        lm.keep(queries)
        found = lm.score(PROMPTS, queries)
        for q, query in enumerate(queries):
            expected = alone(lm.model, (*query.head_ids, 9, 10), (7,))
            assert float(found[0, q, 0]) == pytest.approx(expected, abs=1e-4)

    def test_of_last_hidden_states(self, kind: str) -> None:
        lm = long_lm(kind)
        texts = [some(length) for length in (4, 32, 33, 70)]
        found = lm.last_hidden(texts)
        for own, text in zip(found, texts, strict=True):
            np.testing.assert_allclose(own, lm.last_hidden([text])[0], atol=1e-4)
        logits = lm.next_logits(found).log_softmax(-1)
        expected = [alone(lm.model, text, (7,)) for text in texts]
        assert logits[:, 7].tolist() == pytest.approx(expected, abs=1e-4)

    def test_of_last_hidden_states_that_go_on_over_the_limit(self, kind: str) -> None:
        lm, texts = long_lm(kind), [some(36), some(36, 1)]
        calls: list[list[Ids]] = []
        for length in range(30, 36):
            now = [text[:length] for text in texts]
            found = lm.last_hidden(now, calls)
            np.testing.assert_allclose(found, lm.last_hidden(now), atol=1e-4)
            calls.append(now)

    def test_of_a_trained_copy(self, kind: str) -> None:
        lm = long_lm(kind)
        task = films(label_words=dict(zip(LABELS, ("not so well", "good"), strict=True)))
        lengths = (0, 3, 10, 30, 20, 60)
        texts = [Example({"text": "x" * n + " good"}, LABELS[n % 2]) for n in lengths]
        with torch.no_grad():
            together = class_scores(lm.model, task, lm, texts)
            apart = [class_scores(lm.model, task, lm, [text]) for text in texts]
        torch.testing.assert_close(together, torch.cat(apart), rtol=0, atol=1e-4)


@torch.no_grad()
def written_alone(model: Any, text: Ids, n_new: int, vectors: Any = None) -> tuple[int, ...]:
    """Token by token, all read again each time."""
    found: Ids = ()
    while len(found) < n_new:
        ids = torch.tensor([text + found])
        table = model.get_input_embeddings()(ids)
        given = table if vectors is None else torch.cat([torch.tensor(vectors)[None], table], 1)
        logits = model(inputs_embeds=given, use_cache=False).logits[0, -1]
        token = int(logits.argmax())
        if token == 2:
            break
        found = (*found, token)
    return found


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("kind", ["packed", "plain", "llama"])
def test_an_answer_goes_over_the_limit_as_one_that_is_read_anew(kind: str, soft: bool) -> None:
    lm = long_lm(kind)
    queries = [Query((), some(length)) for length in (5, 23, 25, 28, 29, 30, 31, 45)]
    vectors = np.random.default_rng(0).normal(size=(2, HIDDEN)).astype(np.float32)
    prompt: Prompt = SoftPrompt(vectors) if soft else TokenPrompt((9, 10))
    (found,) = lm.generate([prompt], queries, max_new_tokens=6)
    for answer, query in zip(found, queries, strict=True):
        text = query.tail_ids if soft else (9, 10, *query.tail_ids)
        assert answer.ids == written_alone(lm.model, text, 6, vectors if soft else None)


def test_drawn_answers_do_not_depend_on_company() -> None:
    lm, queries = long_lm(), [Query((), some(length)) for length in (5, 28, 60)]
    settings: dict[str, Any] = {"max_new_tokens": 8, "temperature": 1.0, "seed": 3}
    (together,) = lm.generate(PROMPTS[:1], queries, **settings)
    apart = [lm.generate(PROMPTS[:1], [query], **settings)[0][0] for query in queries]
    assert together == apart


class TestShortTexts:
    def test_are_packed(self) -> None:
        lm = long_lm()
        assert (lm.obstacle, lm.rope_limits) == (None, (ROPE_LIMIT,))
        said = examine_model(lm, seconds=0.01).facts["model"]["packed"]
        assert said == "texts of up to 32 tokens: beyond, positions are scaled otherwise"

    def test_are_all_that_a_prefix_prompt_takes(self) -> None:
        lm = long_lm()
        prompt = PrefixPrompt(np.zeros((2, *lm.limits.position_shape), np.float32))
        lm.score([prompt], [Query((), some(28), ((7,), (8,)))])
        with pytest.raises(ValueError, match=r"text 40 .* with a prefix prompt takes 32; shorten"):
            lm.score([prompt], [Query((), some(40), ((7,), (8,)))])


def test_there_is_no_limit_where_no_text_gets_there() -> None:
    within = phi3(
        original_max_position_embeddings=CONTEXT,
        rope_parameters={**LONG, "original_max_position_embeddings": CONTEXT},
    )
    assert FrozenLM(within, tiny_tokenizer(), "within").rope_limits == ()
    assert tiny_lm().rope_limits == ()


def test_dynamic_scaling_begins_where_the_context_ends() -> None:
    model = llama(rope_type="dynamic", factor=4.0, rope_theta=10000.0)
    lm, fresh = FrozenLM(model, tiny_tokenizer(), "dynamic"), copy.deepcopy(model)
    assert lm.rope_limits == ()
    queries = [Query(some(length), (), ((7,), (8,))) for length in (4, CONTEXT - 2, 90)]
    found = lm.score(PROMPTS, queries)
    for q in (1, 0, 2):
        expected = alone(fresh, (*queries[q].head_ids, 9, 10), (7,))
        assert float(found[0, q, 0]) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ValueError, match=f"dynamic takes {CONTEXT}; shorten"):
        lm.score(PROMPTS, [Query(some(CONTEXT - 1), (), ((7,), (8,)))])
