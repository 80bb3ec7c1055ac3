from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import psutil
import pytest
import torch
from tiny import TinyKind, tiny_lm, tiny_model, tiny_tokenizer

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.template import Query

QUERY = Query((5, 6, 7), (8,), ((9,), (10,)))
VECTORS = SoftPrompt(np.ones((2, 32)))


class TestBadInput:
    """Each says what was given, what is allowed, and so what to do."""

    @pytest.mark.parametrize(
        ("prompts", "queries", "message"),
        [
            ([], [QUERY], "nothing to compute: 0 prompts, 1 queries; one at least"),
            ([VECTORS], [], "nothing to compute: 1 prompts, 0 queries; one at least"),
            ([VECTORS, TokenPrompt((5,))], [QUERY], "make it a call each"),
            ([TokenPrompt((5, 290))], [QUERY], "token id 290 is outside .*tiny-llama: 0 to 289"),
            ([TokenPrompt((5,))], [Query((5, 999), (), ((9,),))], "token id 999 is outside"),
            ([VECTORS], [Query((5,), (), ((290,),))], "token id 290 is outside"),
            ([SoftPrompt(np.ones((2, 31)))], [QUERY], "width 31; tiny-llama takes 32"),
            ([TokenPrompt((5,) * 253)], [QUERY], r"prompt 253 \+ answer 0 .* takes 256; shorten"),
            (
                [TokenPrompt((5,))],
                [QUERY, Query((5,), (), ((9,), (8,), (7,)))],
                "every query needs the same number of candidates",
            ),
            ([TokenPrompt()], [Query((), (), ((9,),))], "leaves nothing to answer from"),
        ],
    )
    def test_is_a_value_error_that_teaches(
        self, prompts: Sequence[Prompt], queries: Sequence[Query], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            tiny_lm().score(prompts, queries)

    def test_a_gradient_needs_vectors_of_one_length(self) -> None:
        lm = tiny_lm()
        with pytest.raises(
            ValueError, match="needs soft prompts or prefix prompts; token prompts are"
        ):
            lm.score_with_grad([TokenPrompt((5,))], [QUERY], lambda ll, _: ll[:, 0])  # type: ignore[list-item]  # the mistake
        longer = SoftPrompt(np.ones((3, 32)))
        with pytest.raises(ValueError, match=r"prompts of one length, got \[2, 3\]"):
            lm.score_with_grad([VECTORS, longer], [QUERY], lambda ll, _: ll[:, 0])

    def test_nothing_is_scored_where_there_is_no_candidate(self) -> None:
        with pytest.raises(ValueError, match="without candidates cannot be scored; give it"):
            tiny_lm().score([TokenPrompt((5,))], [Query((5,), ())])


@pytest.mark.parametrize("kind", ["llama", "gemma", "t5"])
def test_some_embeddings_are_rows_of_all(kind: TinyKind) -> None:
    lm = tiny_lm(kind)
    assert np.array_equal(lm.embeddings([7, 5, 7]), lm.embeddings()[[7, 5, 7]])


class TestText:
    def test_ids_and_text_go_both_ways(self) -> None:
        lm = tiny_lm()
        assert len(lm.encode(" terrible")) == 1
        assert lm.decode(lm.encode("the film é!")) == "the film é!"
        assert lm.encode("") == ()

    def test_special_tokens_stand_where_the_tokenizer_puts_them(self) -> None:
        kinds: tuple[TinyKind, ...] = ("llama", "opt", "bert", "t5")
        ends = {kind: (tiny_lm(kind).prefix_ids, tiny_lm(kind).suffix_ids) for kind in kinds}
        assert ends == {
            "llama": ((), ()),
            "opt": ((1,), ()),
            "bert": ((1,), (2,)),
            "t5": ((), (2,)),
        }


class TestFingerprint:
    def test_changes_with_what_changes_scores_and_with_nothing_else(self) -> None:
        lm = tiny_lm()
        again = FrozenLM(tiny_model(), tiny_tokenizer(), "another name")
        other = FrozenLM(tiny_model(seed=1), tiny_tokenizer(), "tiny-llama")
        half = FrozenLM(torch.nn.Module.bfloat16(tiny_model()), tiny_tokenizer(), "tiny-llama")
        digests = [m.fingerprint.digest for m in (lm, again, other, half)]
        assert digests[0] == digests[1]
        assert len(set(digests)) == 3
        assert half.fingerprint.dtype == "bfloat16"


def test_two_calls_give_the_same_bits() -> None:
    lm = tiny_lm()
    prompts = [TokenPrompt((i, i + 1)) for i in range(5, 15)]
    assert torch.equal(lm.score(prompts, [QUERY]), lm.score(prompts, [QUERY]))


def test_log_likelihoods_are_those_of_a_distribution() -> None:
    lm = tiny_lm()
    every = Query((5, 6), (), tuple((i,) for i in range(lm.n_vocabulary)))
    scores = lm.score([TokenPrompt((7,))], [every])
    assert math.isclose(float(scores.exp().sum()), 1, abs_tol=1e-4)
    assert float(scores.max()) <= 0


def test_two_hundred_thousand_rows_take_little_memory() -> None:
    """A tenth of what is promised (2 million rows in 4 GiB), in a tenth of that memory."""
    lm = FrozenLM(tiny_model(), tiny_tokenizer(), "tiny", memory_limit=64 << 20)
    rng = np.random.default_rng(0)
    prompts = [TokenPrompt(rng.integers(5, 290, 2)) for _ in range(1000)]
    queries = [Query(tuple(rng.integers(5, 290, 6).tolist()), (), ((7,), (8,))) for _ in range(100)]
    lm.score(prompts[:20], queries)
    before = psutil.Process().memory_info().rss
    scores = lm.score(prompts, queries, over="candidates")
    grown = psutil.Process().memory_info().rss - before
    assert scores.shape == (1000, 100, 2)
    assert grown < 200 << 20
