from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import PACKABLE, TinyKind, tiny_lm, tiny_model, tiny_tokenizer

from rlprompt.models import memory
from rlprompt.models.lm import FrozenLM
from rlprompt.models.packed.model import PackedModel
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.template import Query

tokens = st.integers(0, 289)


def texts(least: int, most: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(tokens, min_size=least, max_size=most).map(tuple)


@st.composite
def calls(draw: st.DrawFn) -> tuple[list[Prompt], list[Query]]:
    """Prompts and queries of every shape; heads and prompts are drawn from few, so they repeat."""
    heads = draw(st.lists(texts(0, 30), min_size=1, max_size=3))
    n_candidates = draw(st.integers(1, 3))
    answers = st.lists(texts(1, 3), min_size=n_candidates, max_size=n_candidates).map(tuple)
    queries = [
        Query(draw(st.sampled_from(heads)), draw(texts(0, 12)), draw(answers))
        for _ in range(draw(st.integers(1, 5)))
    ]
    least = int(any(not q.head_ids and not q.tail_ids for q in queries))
    prompts = draw(st.lists(texts(least, 6), min_size=1, max_size=6))
    return [TokenPrompt(prompt) for prompt in prompts], queries


@pytest.mark.parametrize("kind", PACKABLE)
class TestPackedEqualsPlain:
    @settings(max_examples=20)
    @given(call=calls())
    def test_for_any_tokens(self, kind: TinyKind, call: tuple[list[Prompt], list[Query]]) -> None:
        lm = tiny_lm(kind)
        prompts, queries = [lm.fed(prompt) for prompt in call[0]], call[1]
        for over in ("vocabulary", "candidates"):
            packed = lm._engine.score(prompts, queries, over)
            plain = lm._engine.score(prompts, queries, over, lm._engine.plain)
            torch.testing.assert_close(packed, plain, rtol=0, atol=1e-4)

    def test_for_a_text_before_an_empty_prompt_beside_one_without(self, kind: TinyKind) -> None:
        lm, candidates = tiny_lm(kind), ((3,), (4,))
        queries = [Query((5,), (), candidates), Query((), (6,), candidates)]
        packed, plain = [
            lm._engine.score([TokenPrompt(())], queries, scorer=way)
            for way in (None, lm._engine.plain)
        ]
        torch.testing.assert_close(packed, plain, rtol=0, atol=1e-4)

    @settings(max_examples=10)
    @given(call=calls(), length=st.integers(1, 4), seed=st.integers(0, 99))
    def test_for_any_vectors_and_their_gradients(
        self, kind: TinyKind, call: tuple[list[Prompt], list[Query]], length: int, seed: int
    ) -> None:
        lm, queries = tiny_lm(kind), call[1]
        noise = torch.randn((3, length, 32), generator=torch.Generator().manual_seed(seed))
        prompts = [SoftPrompt(vectors.numpy()) for vectors in noise]
        found = []
        for scorer in (lm._engine.packed, None):
            kept, lm._engine.packed = lm._engine.packed, scorer
            try:
                found.append(lm.score_with_grad(prompts, queries, lambda ll, _: ll.sum(-1).tanh()))
            finally:
                lm._engine.packed = kept
        torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=1e-4)
        torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-4)


@pytest.fixture
def lm() -> FrozenLM:
    """A model of the test's own, which it may change."""
    return FrozenLM(tiny_model("llama"), tiny_tokenizer("llama"), "tiny")


def queries_of(n: int, length: int = 9) -> list[Query]:
    return [Query(tuple(range(5 + i, 5 + i + length)), (), ((7,), (8,))) for i in range(n)]


@pytest.fixture
def prompts() -> list[Prompt]:
    return [TokenPrompt((10 + i, 20 + i, 30 + i)) for i in range(7)]


@pytest.fixture
def count_tokens(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """New tokens of each forward pass."""
    counted: list[int] = []
    forward = PackedModel.forward

    def counting(self, layout, prefixes, vectors):  # type: ignore[no-untyped-def]
        counted.append(layout.ids.size)
        return forward(self, layout, prefixes, vectors)

    monkeypatch.setattr(PackedModel, "forward", counting)
    return counted


class TestSharing:
    def test_the_text_before_the_prompt_is_computed_once(
        self, lm: FrozenLM, prompts: list[Prompt], count_tokens: list[int]
    ) -> None:
        queries = queries_of(4)
        lm.score(prompts, queries)
        assert sum(count_tokens) == 4 * 9 + 4 * 7 * 3
        count_tokens.clear()
        lm.score(prompts[:2], queries)
        assert sum(count_tokens) == 4 * 2 * 3

    def test_a_leading_prompt_is_computed_once(
        self, lm: FrozenLM, prompts: list[Prompt], count_tokens: list[int]
    ) -> None:
        queries = [Query((), query.head_ids, query.candidates) for query in queries_of(4)]
        lm.score(prompts, queries)
        assert sum(count_tokens) == 7 * (3 + 4 * 9)

    def test_a_common_beginning_of_prompts_is_computed_once(
        self, lm: FrozenLM, count_tokens: list[int]
    ) -> None:
        grown: list[Prompt] = [TokenPrompt((9, 9, 9, last)) for last in range(10, 20)]
        lm.score(grown, queries_of(1))
        assert sum(count_tokens) == 9 + 3 + 10

    def test_the_last_mlp_runs_where_answers_are_read(
        self, lm: FrozenLM, prompts: list[Prompt]
    ) -> None:
        seen: list[int] = []
        mlp = lm.model.get_submodule("model.layers.1.mlp.down_proj")
        mlp.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[-2]))
        lm.score(prompts, queries_of(2))
        assert sum(seen) == 2 * 7


class TestMemory:
    def test_dropped_prefixes_are_built_again(self, prompts: list[Prompt]) -> None:
        queries = queries_of(12, length=30)
        expected = tiny_lm("llama").score(prompts, queries)
        # A prefix takes 30 tokens * 2 layers * 2 * 2 heads * 8 numbers * 4 bytes = 7680 bytes.
        tight = FrozenLM(
            tiny_model("llama"), tiny_tokenizer("llama"), "tight", memory_limit=4 * 3 * 7680
        )
        assert tight._engine.packed is not None
        for _ in range(2):
            torch.testing.assert_close(tight.score(prompts, queries), expected, rtol=0, atol=1e-4)
            assert len(tight._engine.packed.packed.kept._kept) == 3

    def test_halves_the_pass_where_memory_runs_out(
        self,
        lm: FrozenLM,
        prompts: list[Prompt],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        expected = lm.score(prompts, queries_of(6))
        forward = PackedModel.forward

        def small_machine(self, layout, prefixes, vectors):  # type: ignore[no-untyped-def]
            if layout.ids.size > 40:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(self, layout, prefixes, vectors)

        monkeypatch.setattr(PackedModel, "forward", small_machine)
        scores = lm.score(prompts, queries_of(6))
        torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4)
        assert "out of memory: passes shrink to" in caplog.text
        assert lm.memory.most_tokens < memory.MOST_TOKENS["cpu"]

    def test_a_single_row_that_does_not_fit_is_an_error(
        self, lm: FrozenLM, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_machine(self, layout, prefixes, vectors):  # type: ignore[no-untyped-def]
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(PackedModel, "forward", no_machine)
        with pytest.raises(torch.OutOfMemoryError):
            lm.score(prompts, queries_of(1))
