"""The frozen model writes what transformers' own greedy `generate` writes, one by one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from itertools import chain
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CONTEXT, TinyKind, tiny_lm, tiny_model, tiny_tokenizer
from transformers import GenerationConfig

from rlprompt.models.decoding import Generated
from rlprompt.models.lm import FrozenLM
from rlprompt.models.packed import generation
from rlprompt.models.packed.model import PackedModel
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.template import Query

KINDS: tuple[TinyKind, ...] = ("llama", "gpt2", "opt", "gemma", "mistral-sliding", "bloom", "t5")
END = 2
N_NEW = 4


def ids(rng: np.random.Generator, n: int) -> tuple[int, ...]:
    return tuple(int(i) for i in rng.integers(4, 290, n))


def make_queries(place: str, rng: np.random.Generator, n: int = 4) -> list[Query]:
    """Queries of uneven lengths, the second like the last, with the prompt at that place."""
    lengths = [3, 9, 1, 14, 6, 11, 2][:n]
    made = []
    for length in lengths:
        before = () if place == "first" else ids(rng, length)
        after = () if place == "last" else ids(rng, length)
        made.append(Query((1, *before), after))
    return [*made, made[1]]


def make_prompts(lm: FrozenLM, rng: np.random.Generator, *, soft: bool = False) -> list[Prompt]:
    if soft:
        rows = [rng.normal(size=(n, lm.hidden_size)) for n in (3, 1, 4)]
        return [SoftPrompt(0.3 * row) for row in (*rows, rows[0])]
    some = [ids(rng, n) for n in (3, 1, 0, 4)]
    return [TokenPrompt(i) for i in (*some, some[0])]


def plainly(
    lm: FrozenLM, prompt: Prompt, query: Query, n_new: int = N_NEW, least: int = 0
) -> tuple[int, ...]:
    """What plain `generate` writes: one row, no padding, greedy."""
    model = cast(Any, lm.model)
    table = model.get_input_embeddings()
    parts = []
    for part in (query.head_ids, prompt, query.tail_ids):
        if isinstance(part, SoftPrompt):
            parts.append(torch.tensor(part.vectors, dtype=lm.model.dtype))
        else:
            own = part.ids if isinstance(part, TokenPrompt) else part
            parts.append(table(torch.tensor(own, dtype=torch.long)))
    vectors = torch.cat(parts)[None]
    written = model.generate(
        inputs_embeds=vectors,
        attention_mask=torch.ones(vectors.shape[:2], dtype=torch.long),
        max_new_tokens=n_new,
        min_new_tokens=least,
        do_sample=False,
    )[0].tolist()
    if lm.kind == "encoder-decoder":
        written = written[1:]
    ends = np.atleast_1d(model.generation_config.eos_token_id).tolist()
    return tuple(itertools.takewhile(lambda token: token not in ends, written))


def written(answers: Sequence[Sequence[Generated]]) -> list[list[tuple[int, ...]]]:
    return [[answer.ids for answer in row] for row in answers]


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    @pytest.mark.parametrize(
        ("place", "soft"), [("first", False), ("middle", True), ("last", False)]
    )
    def test_writes_what_plain_generate_writes(
        self, kind: TinyKind, place: str, soft: bool
    ) -> None:
        lm, rng = tiny_lm(kind), np.random.default_rng(1)
        prompts, queries = make_prompts(lm, rng, soft=soft), make_queries(place, rng)
        # The last of each is one that was there before.
        expected = [[plainly(lm, prompt, q) for q in queries[:-1]] for prompt in prompts[:-1]]
        expected = [[*row, row[1]] for row in (*expected, expected[0])]
        assert written(lm.generate(prompts, queries, max_new_tokens=N_NEW)) == expected
        assert len({answer for row in expected for answer in row}) > 3

    def test_an_end_token_ends_an_answer_and_is_no_part_of_it(self, kind: TinyKind) -> None:
        lm, rng = tiny_lm(kind, seed=3), np.random.default_rng(2)
        prompts, queries = make_prompts(lm, rng), make_queries("middle", rng)
        free = lm.generate(prompts, queries, max_new_tokens=N_NEW)
        end = free[0][0].ids[2]
        config = cast(Any, lm.model).generation_config
        before, config.eos_token_id = config.eos_token_id, [END, end]
        try:
            ended = lm.generate(prompts, queries, max_new_tokens=N_NEW)
        finally:
            config.eos_token_id = before
        for old, new in zip(chain(*free), chain(*ended), strict=True):
            n = old.ids.index(end) if end in old.ids else len(old.ids)
            assert new.ids == old.ids[:n]
            assert new.ended == ("end token" if end in old.ids else old.ended)
        assert "end token" in {answer.ended for row in ended for answer in row}

    def test_no_answer_ends_before_so_many_tokens(self, kind: TinyKind) -> None:
        lm, rng = tiny_lm(kind, seed=3), np.random.default_rng(2)
        prompts, queries = make_prompts(lm, rng)[:3], make_queries("middle", rng)[:3]
        end = lm.generate(prompts, queries, max_new_tokens=1)[0][0].ids[0]
        config = cast(Any, lm.model).generation_config
        before, config.eos_token_id = config.eos_token_id, [END, end]
        try:
            longer = lm.generate(prompts, queries, max_new_tokens=N_NEW, min_new_tokens=2)
            expected = [[plainly(lm, prompt, q, least=2) for q in queries] for prompt in prompts]
        finally:
            config.eos_token_id = before
        assert written(longer) == expected
        assert len(longer[0][0].ids) >= 2

    def test_a_stop_string_cuts_the_answer(self, kind: TinyKind) -> None:
        lm, rng = tiny_lm(kind), np.random.default_rng(3)
        prompts, queries = make_prompts(lm, rng), make_queries("last", rng)
        free = lm.generate(prompts, queries, max_new_tokens=N_NEW)
        stop = next(c for c in free[0][0].text[1:] if c != "\ufffd")
        cut = lm.generate(prompts, queries, max_new_tokens=N_NEW, stop=[stop])
        for old, new in zip(chain(*free), chain(*cut), strict=True):
            assert stop not in new.text
            if stop in old.text:
                assert new.text == old.text.partition(stop)[0]
                assert new.ended == "stop string"
                assert new.ids == old.ids[: len(new.ids)]
            else:
                assert new == old

    def test_draws_belong_to_prompt_and_query_not_to_the_batch(self, kind: TinyKind) -> None:
        lm, rng = tiny_lm(kind), np.random.default_rng(4)
        prompts, queries = make_prompts(lm, rng), make_queries("middle", rng)
        settings = {"max_new_tokens": N_NEW, "temperature": 0.7}
        answers = lm.generate(prompts, queries, **settings)  # type: ignore[arg-type]
        p, q = rng.permutation(len(prompts)).tolist(), rng.permutation(len(queries)).tolist()
        moved = lm.generate(
            [prompts[i] for i in p], [queries[i] for i in q], max_new_tokens=N_NEW, temperature=0.7
        )
        assert moved == [[answers[i][j] for j in q] for i in p]
        alone = lm.generate([prompts[1]], [queries[2]], max_new_tokens=N_NEW, temperature=0.7)
        assert alone == [[answers[1][2]]]
        other = lm.generate(prompts, queries, max_new_tokens=N_NEW, temperature=0.7, seed=1)
        assert other != answers

    def test_what_a_checkpoint_recommends_is_left_out(self, kind: TinyKind) -> None:
        lm, rng = tiny_lm(kind, seed=4), np.random.default_rng(5)
        prompts, queries = make_prompts(lm, rng), make_queries("last", rng)
        expected = lm.generate(prompts, queries, max_new_tokens=N_NEW)
        model = cast(Any, lm.model)
        model.generation_config, before = (
            GenerationConfig(  # type: ignore[no-untyped-call]
                do_sample=True,
                repetition_penalty=5.0,
                forced_eos_token_id=END,
                suppress_tokens=[expected[0][0].ids[0]],
                num_beams=2,
                eos_token_id=END,
                max_length=3,
            ),
            model.generation_config,
        )
        try:
            assert lm.generate(prompts, queries, max_new_tokens=N_NEW) == expected
        finally:
            model.generation_config = before


@settings(max_examples=25)
@given(st.data())
def test_an_answer_does_not_depend_on_its_company(data: st.DataObject) -> None:
    """In float64, where rounding turns nothing around."""
    lm = double()
    tokens = st.lists(st.integers(4, 280), max_size=9).map(tuple)
    prompts = [TokenPrompt(p) for p in data.draw(st.lists(tokens, min_size=1, max_size=4))]
    texts = data.draw(st.lists(st.tuples(tokens, tokens), min_size=1, max_size=4))
    queries = [Query((1, *head), tail) for head, tail in texts]
    most = data.draw(st.integers(1, 5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(generation.MOST_ROWS, "cpu", data.draw(st.sampled_from([1, 3, 256])))
        answers = lm.generate(prompts, queries, max_new_tokens=most)
    p = data.draw(st.integers(0, len(prompts) - 1))
    q = data.draw(st.integers(0, len(queries) - 1))
    assert answers[p][q].ids == plainly(lm, prompts[p], queries[q], most)


def double() -> FrozenLM:
    if not DOUBLE:
        model = torch.nn.Module.to(tiny_model("llama", seed=5), torch.float64)
        DOUBLE.append(FrozenLM(model, tiny_tokenizer(), "double"))
    return DOUBLE[0]


DOUBLE: list[FrozenLM] = []


def steps(lm: FrozenLM, free: Generated, stop: str) -> int:
    """Tokens written until the stop string is there."""
    lengths = range(1, len(free.ids) + 1)
    n_free = len(free.ids) + (free.ended == "end token")
    return next((n for n in lengths if stop in lm.decode(free.ids[:n])), n_free)


class TestPacked:
    def test_a_leading_prompt_and_a_text_are_computed_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fed: list[int] = []
        hidden = PackedModel.hidden

        def counting(self, ids, *rest):  # type: ignore[no-untyped-def]
            fed.append(ids.numel())
            return hidden(self, ids, *rest)

        monkeypatch.setattr(PackedModel, "hidden", counting)
        lm = FrozenLM(tiny_model(), tiny_tokenizer(), "counted")
        prompts: list[Prompt] = [TokenPrompt((10 + i, 11, 12, 13)) for i in range(6)]
        fed.clear()
        texts = [Query((1,), (20 + i, 21)) for i in range(8)]
        lm.generate(prompts, texts, max_new_tokens=1)
        assert sum(fed) == 1 + 6 * 4 + 48 * 2  # <s>, the prompts, the texts
        fed.clear()
        texts = [Query((1, *range(30, 40), 50 + i), ()) for i in range(8)]
        answers = lm.generate(prompts, texts, max_new_tokens=3)
        n_written = sum(len(a.ids) + (a.ended == "end token") for a in chain(*answers))
        assert sum(fed) == 8 * 12 + 48 * 4 + n_written - 48  # texts, prompts, all but last tokens
        fed.clear()
        lm.generate(prompts, texts, max_new_tokens=1)
        assert sum(fed) == 48 * 4  # the texts are kept

    def test_a_whole_answer_leaves_the_batch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lm, rng = tiny_lm("llama"), np.random.default_rng(6)
        prompts, queries = make_prompts(lm, rng)[:4], make_queries("last", rng)[:4]
        free = lm.generate(prompts, queries, max_new_tokens=N_NEW)
        stop = next(c for c in free[0][0].text if c != "\ufffd")
        fed: list[int] = []
        grow = generation._Rows.grow

        def counting(self, tokens):  # type: ignore[no-untyped-def]
            fed.append(len(tokens))
            return grow(self, tokens)

        monkeypatch.setattr(generation._Rows, "grow", counting)
        answers = lm.generate(prompts, queries, max_new_tokens=N_NEW, stop=[stop])
        # One token is fed for each that was written after the first.
        n_written = [steps(lm, answer, stop) for answer in chain(*free)]
        assert sum(fed) == sum(n - 1 for n in n_written)
        assert "stop string" in {answer.ended for answer in chain(*answers)}
        assert min(fed) < 20

    def test_rows_that_are_free_are_filled_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lm, rng = tiny_lm("llama"), np.random.default_rng(6)
        prompts, queries = make_prompts(lm, rng)[:4], make_queries("first", rng, 7)[:7]
        free = lm.generate(prompts, queries, max_new_tokens=8)
        stop = next(c for c in free[0][0].text if c != "\ufffd")
        expected = lm.generate(prompts, queries, max_new_tokens=8, stop=[stop])
        grown: list[int] = []
        grow = generation._Rows.grow

        def counting(self, tokens):  # type: ignore[no-untyped-def]
            grown.append(len(tokens))
            return grow(self, tokens)

        monkeypatch.setattr(generation._Rows, "grow", counting)
        monkeypatch.setitem(generation.MOST_ROWS, "cpu", 8)
        assert lm.generate(prompts, queries, max_new_tokens=8, stop=[stop]) == expected
        lengths = [steps(lm, answer, stop) for answer in chain(*free)]
        assert sum(grown) == sum(n - 1 for n in lengths)
        # 28 answers in 4 batches would wait for the longest of each, 7 steps.
        assert max(grown) == 8
        assert len(grown) < 4 * 7

    def test_halves_the_batch_where_memory_runs_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lm, rng = FrozenLM(tiny_model(), tiny_tokenizer(), "crowded"), np.random.default_rng(7)
        prompts, queries = make_prompts(lm, rng), make_queries("last", rng)
        expected = lm.generate(prompts, queries, max_new_tokens=N_NEW)
        grow = generation._Rows.grow

        def small(self, tokens):  # type: ignore[no-untyped-def]
            if len(tokens) > 5:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return grow(self, tokens)

        monkeypatch.setattr(generation._Rows, "grow", small)
        assert lm.generate(prompts, queries, max_new_tokens=N_NEW) == expected

    def test_little_memory_means_small_batches_and_the_same_answers(self) -> None:
        lm, rng = tiny_lm("llama"), np.random.default_rng(8)
        tight = tiny_lm("llama", memory_limit=60_000)
        prompts, queries = make_prompts(lm, rng), make_queries("middle", rng)
        expected = lm.generate(prompts, queries, max_new_tokens=N_NEW)
        assert tight.generate(prompts, queries, max_new_tokens=N_NEW) == expected


class TestBadInput:
    def test_a_masked_model_cannot_write(self) -> None:
        with pytest.raises(ValueError, match="fills gaps and cannot write on; take a causal"):
            tiny_lm("bert").generate([TokenPrompt((5,))], [Query((1,), (3, 2))], max_new_tokens=1)

    def test_an_answer_that_does_not_fit_is_refused_before_anything_is_computed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lm = tiny_lm("llama")
        text = Query(tuple([5] * (CONTEXT - 10)), ())
        assert len(lm.generate([TokenPrompt()], [text], max_new_tokens=11)[0][0].ids) <= 11
        monkeypatch.setattr(PackedModel, "hidden", None)
        with pytest.raises(ValueError, match=r"example 1 is too long: text 246 \+ prompt 0 \+ ans"):
            lm.generate([TokenPrompt()], [Query((5,), ()), text], max_new_tokens=12)

    def test_numbers_that_are_none_are_an_error(self) -> None:
        model = tiny_model(seed=9)
        lm = FrozenLM(model, tiny_tokenizer(), "broken")
        with torch.no_grad():
            model.get_input_embeddings().weight[7] = torch.nan  # type: ignore[operator]
        with pytest.raises(ValueError, match=r"not a number \(NaN\)"):
            lm.generate([TokenPrompt((7,))], [Query((1, 5), ())], max_new_tokens=2)
