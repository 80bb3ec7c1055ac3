"""Every kind of model gives the numbers of plain transformers: a sequence at a time, no padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import CONTEXT, KINDS, PACKABLE, TinyKind, tiny_lm
from torch import Tensor

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt, TextPrompt, TokenPrompt
from rlprompt.template import Query
from rlprompt.types import Ids

TOLERANCE = 1e-4  # nats, float32


def plain_logliks(lm: FrozenLM, prompt: Prompt | Tensor, query: Query) -> Tensor:
    """(C,) log-likelihoods of the candidates; differentiable where the prompt is a tensor.

    Candidates that the model is fed the same for share a pass, and so do those of which one begins
    as the other: what is fed after a place changes nothing there.
    """
    logs: dict[Ids, Tensor] = {}
    found: dict[Ids, Tensor] = {}
    for answer in sorted(query.candidates, key=len, reverse=True):
        if lm.mask_id is not None:
            fed = begun = (lm.mask_id,) * len(answer)
        else:
            fed = answer[:-1]
            begun = next((longer for longer in logs if longer[: len(fed)] == fed), fed)
        if begun not in logs:
            logs[begun] = plain_logits(lm, prompt, query, begun).log_softmax(-1)
        found[answer] = logs[begun][torch.arange(len(answer)), torch.tensor(answer)].sum()
    return torch.stack([found[candidate] for candidate in query.candidates])


def plain_logits(lm: FrozenLM, prompt: Prompt | Tensor, query: Query, fed: Ids) -> Tensor:
    """(T, V) from where the answer begins; `fed` are its masks, or its tokens but the last."""
    model = cast(Any, lm.model)
    table = model.get_input_embeddings()

    def vectors(ids: Sequence[int]) -> Tensor:
        return cast(Tensor, table(torch.tensor([ids], dtype=torch.long)))

    assert not isinstance(prompt, TextPrompt)
    if isinstance(prompt, TokenPrompt):
        middle = vectors(prompt.ids)
    else:
        given = torch.tensor(prompt.vectors) if isinstance(prompt, SoftPrompt) else prompt
        middle = given[None].reshape(1, -1, lm.hidden_size)
    head, tail = query.head_ids, query.tail_ids
    if lm.kind == "masked":
        assert lm.mask_id is not None
        at = (*head, *tail).index(lm.mask_id)
        more = fed[1:]
        if at < len(head):
            head = (*head[:at], *more, *head[at:])
        else:
            tail = (*tail[: at - len(head)], *more, *tail[at - len(head) :])
            at += middle.shape[1]
        inputs = torch.cat([vectors(head), middle, vectors(tail)], 1)
        return cast(Tensor, model(inputs_embeds=inputs).logits[0, at : at + len(fed)])
    if lm.kind == "encoder-decoder":
        inputs = torch.cat([vectors(head), middle, vectors(tail)], 1)
        start = model.config.decoder_start_token_id
        logits = model(inputs_embeds=inputs, decoder_input_ids=torch.tensor([[start, *fed]])).logits
        return cast(Tensor, logits[0])
    inputs = torch.cat([vectors(head), middle, vectors(tail), vectors(fed)], 1)
    logits = model(inputs_embeds=inputs, use_cache=False).logits
    return cast(Tensor, logits[0, -len(fed) - 1 :])


def plain_scores(lm: FrozenLM, prompts: Sequence[Prompt], queries: Sequence[Query]) -> Tensor:
    distinct = {prompt.digest: prompt for prompt in prompts}
    with torch.no_grad():
        found = {digest: plain_table(lm, prompt, queries) for digest, prompt in distinct.items()}
    return torch.stack([found[prompt.digest] for prompt in prompts])


def plain_table(lm: FrozenLM, prompt: Prompt | Tensor, queries: Sequence[Query]) -> Tensor:
    """(Q, C) log-likelihoods of one prompt."""
    return torch.stack([plain_logliks(lm, prompt, query) for query in queries])


def ids(rng: np.random.Generator, length: int) -> tuple[int, ...]:
    return tuple(rng.integers(5, 290, length).tolist())


def make_queries(lm: FrozenLM, place: str, rng: np.random.Generator) -> list[Query]:
    """Texts of 1 to 60 tokens around the prompt, answers of 1 to 3 tokens that share starts."""
    first, second, third = ids(rng, 3)
    candidates = ((first,), (second, third), (second, third, first), (first, first))
    mask = () if lm.mask_id is None else (lm.mask_id,)
    queries = []
    for length in (1, 17, 18, 60):
        text, other = ids(rng, length), ids(rng, 1 + length // 4)
        before, after = {
            "first": ((), text),
            "middle": (text, other),
            "last": (text, ()),
        }[place]
        on_left = lm.mask_id is not None and length == 17
        head = (*lm.prefix_ids, *(mask if on_left else ()), *before)
        tail = (*after, *(() if on_left else mask), *lm.suffix_ids)
        queries.append(Query(head, tail, candidates))
    return queries


def make_prompts(lm: FrozenLM, soft: bool, rng: np.random.Generator) -> list[Prompt]:
    """Prompts of several lengths; equal ones, and some that share a beginning."""
    if soft:
        table = lm.embeddings()
        rows = [rng.integers(5, 290, length) for length in (4, 4, 1)]
        vectors = [table[row] + rng.normal(size=(len(row), lm.hidden_size)) for row in rows]
        return [SoftPrompt(v) for v in (*vectors, vectors[0])]
    shared = ids(rng, 2)
    some = [ids(rng, 5), (*shared, 7), (*shared, 9, 11), shared, ids(rng, 1)]
    return [TokenPrompt(p) for p in (*some, some[0])]


@pytest.mark.parametrize("soft", [False, True], ids=["tokens", "vectors"])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("kind", KINDS)
class TestScores:
    def test_equal_plain_transformers(self, kind: TinyKind, place: str, soft: bool) -> None:
        lm, rng = tiny_lm(kind), np.random.default_rng(1)
        queries, prompts = make_queries(lm, place, rng), make_prompts(lm, soft, rng)
        scores = lm.score(prompts, queries)
        assert scores.shape == (len(prompts), len(queries), 4)
        assert scores.dtype == torch.float32
        expected = plain_scores(lm, prompts, queries)
        torch.testing.assert_close(scores, expected, rtol=0, atol=TOLERANCE)
        assert float(expected.std(0).max()) > 0.1  # or the test would show nothing

    def test_do_not_depend_on_batch_or_order(self, kind: TinyKind, place: str, soft: bool) -> None:
        lm, rng = tiny_lm(kind), np.random.default_rng(2)
        queries, prompts = make_queries(lm, place, rng), make_prompts(lm, soft, rng)
        scores = lm.score(prompts, queries)
        p, q = rng.permutation(len(prompts)).tolist(), rng.permutation(len(queries)).tolist()
        moved = lm.score([prompts[i] for i in p], [queries[j] for j in q])
        torch.testing.assert_close(moved, scores[p][:, q], rtol=0, atol=TOLERANCE)
        for i, j in ((0, 0), (2, 3)):
            alone = lm.score([prompts[i]], [queries[j]])
            torch.testing.assert_close(alone[0, 0], scores[i, j], rtol=0, atol=TOLERANCE)
        assert torch.equal(scores[0], scores[-1])  # equal prompts


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_an_empty_prompt_is_the_text_alone(self, kind: TinyKind) -> None:
        lm, rng = tiny_lm(kind), np.random.default_rng(3)
        empty: list[Prompt] = [TokenPrompt(), TokenPrompt(ids(rng, 2))]
        for place in ("first", "middle", "last"):
            queries = make_queries(lm, place, rng)
            expected = plain_scores(lm, empty, queries)
            torch.testing.assert_close(lm.score(empty, queries), expected, rtol=0, atol=TOLERANCE)

    def test_over_candidates_is_the_same_renormalised(self, kind: TinyKind) -> None:
        lm, rng = tiny_lm(kind), np.random.default_rng(4)
        queries, prompts = make_queries(lm, "last", rng), make_prompts(lm, False, rng)
        single = [Query(q.head_ids, q.tail_ids, ((5,), (6,), (7,))) for q in queries]
        for some in (queries, single):
            expected = lm.score(prompts, some).log_softmax(-1)
            found = lm.score(prompts, some, over="candidates")
            torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)

    def test_rows_of_the_table_score_as_their_tokens_do(self, kind: TinyKind) -> None:
        lm, rng = tiny_lm(kind), np.random.default_rng(5)
        queries, table = make_queries(lm, "middle", rng), lm.embeddings()
        tokens = TokenPrompt(ids(rng, 4))
        vectors = SoftPrompt(table[list(tokens.ids)])
        difference = lm.score([tokens], queries) - lm.score([vectors], queries)
        assert float(difference.abs().max()) < TOLERANCE
        assert lm.nearest_tokens(vectors) == tokens

    @pytest.mark.parametrize("place", ["first", "middle", "last"])
    def test_gradients_equal_plain_autograd(self, kind: TinyKind, place: str) -> None:
        lm, rng = tiny_lm(kind), np.random.default_rng(6)
        queries = make_queries(lm, place, rng)
        prompts = [SoftPrompt(rng.normal(size=(3, lm.hidden_size))) for _ in range(2)]
        weights = torch.tensor(rng.normal(size=(len(queries), 4)), dtype=torch.float32)

        def reward(loglik: Tensor, which: NDArray[np.int64]) -> Tensor:
            return (loglik * weights[torch.from_numpy(which)]).sum(-1).tanh()

        scores, grad = lm.score_with_grad([*prompts, prompts[0]], queries, reward)
        for prompt, score, found in zip(prompts, scores, grad, strict=False):
            vectors = torch.tensor(prompt.vectors, requires_grad=True)
            logs = plain_table(lm, vectors, queries)
            torch.testing.assert_close(score, logs.detach(), rtol=0, atol=TOLERANCE)
            total = reward(logs, np.arange(len(queries))).sum()
            total.backward()  # type: ignore[no-untyped-call]  # not annotated
            assert vectors.grad is not None
            torch.testing.assert_close(found, vectors.grad, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(grad[0], grad[2], rtol=1e-4, atol=1e-5)

    def test_weights_stay_as_they_are(self, kind: TinyKind) -> None:
        lm, rng = tiny_lm(kind), np.random.default_rng(7)
        before = lm.hash_weights()
        queries = make_queries(lm, "last", rng)
        lm.score(make_prompts(lm, False, rng), queries)
        lm.score_with_grad(
            [SoftPrompt(rng.normal(size=(2, lm.hidden_size)))], queries, lambda ll, _: ll.sum(-1)
        )
        lm.noise(make_prompts(lm, False, rng)[:2], queries[:2])
        assert lm.hash_weights() == before == lm.fingerprint.weights
        assert not any(p.requires_grad or p.grad is not None for p in lm.model.parameters())

    def test_the_longest_text_that_fits_is_scored(self, kind: TinyKind) -> None:
        lm, rng = tiny_lm(kind), np.random.default_rng(8)
        if lm.context is None:
            return
        prompt, query = TokenPrompt(ids(rng, 3)), make_queries(lm, "last", rng)[0]
        # The decoder of an encoder-decoder has positions of its own for the answer.
        n_fed = 0 if lm.kind == "encoder-decoder" else 2
        n_room = lm.context - len(query.tail_ids) - 3 - n_fed
        full = Query(
            (*query.head_ids, *ids(rng, n_room - len(query.head_ids))),
            query.tail_ids,
            query.candidates,
        )
        expected = plain_scores(lm, [prompt], [full])
        torch.testing.assert_close(lm.score([prompt], [full]), expected, rtol=0, atol=TOLERANCE)
        over = Query((*full.head_ids, 5), full.tail_ids, full.candidates)
        with pytest.raises(ValueError, match=r"example 0 is too long: text \d+ \+ prompt 3 \+ ans"):
            lm.score([prompt], [over])

    def test_noise_is_float32s(self, kind: TinyKind) -> None:
        lm, rng = tiny_lm(kind), np.random.default_rng(9)
        noise = lm.noise(make_prompts(lm, False, rng)[:3], make_queries(lm, "last", rng)[:3])
        assert 0 <= noise.largest < TOLERANCE
        assert noise.spread > 0.05


def test_packs_what_can_be_packed() -> None:
    packed = tuple(kind for kind in KINDS if tiny_lm(kind).obstacle is None)
    assert packed == PACKABLE
    assert [tiny_lm(kind).context for kind in ("llama", "bart", "t5", "bloom")] == [
        *(CONTEXT, CONTEXT),
        *(None, None),
    ]
