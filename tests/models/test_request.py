"""Pairs of a prompt and its own query, scored together, are scored as each alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from exports import soft
from tiny import KINDS, TinyKind, tiny_lm

from rlprompt.models.scorer import Over
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.template import Query


@pytest.mark.parametrize("over", ["vocabulary", "candidates"])
@pytest.mark.parametrize("same_head", [False, True], ids=["prompt last", "prompt first"])
@pytest.mark.parametrize("kind", KINDS)
def test_pairs_are_scored_as_each_alone(kind: TinyKind, same_head: bool, over: Over) -> None:
    lm, rng = tiny_lm(kind), np.random.default_rng(0)

    def some(n: int) -> tuple[int, ...]:
        return tuple(rng.integers(10, 90, n).tolist())

    mask = () if lm.mask_id is None else (lm.mask_id,)
    prompts: list[Prompt] = [TokenPrompt(some(3)), soft(lm, 2), TokenPrompt(), soft(lm, 4, seed=1)]
    pairs = [
        (
            prompts[i % 4],
            Query(
                lm.prefix_ids if same_head else some(2 + i),
                some(i % 5 + same_head) + mask,
                tuple(some(1 + (i + j) % 3 * (i % 3 > 0)) for j in range(2 + i % 2)),
            ),
        )
        for i in range(9)
    ]
    together = lm.score_pairs(pairs, over=over)
    for (prompt, query), found in zip(pairs, together, strict=True):
        alone = lm.score([prompt], [query], over=over)[0, 0]
        assert found.shape == alone.shape
        torch.testing.assert_close(found, alone, atol=1e-4, rtol=0)


def test_what_cannot_be_scored_is_named() -> None:
    lm, query = tiny_lm(), Query((5,), (), ((6,),))
    with pytest.raises(ValueError, match="0 pairs of prompt and query"):
        lm.score_pairs([])
    with pytest.raises(ValueError, match="pair 1 has a query without candidates"):
        lm.score_pairs([(TokenPrompt(), query), (TokenPrompt(), Query((5,), ()))])
    with pytest.raises(ValueError, match="pair 0 is an empty prompt in an empty text"):
        lm.score_pairs([(TokenPrompt(), Query((), (), ((6,),)))])
    with pytest.raises(ValueError, match="token id 9999 is outside the vocabulary"):
        lm.score_pairs([(TokenPrompt((9999,)), query)])
    with pytest.raises(ValueError, match="vectors of width 5; tiny-llama takes 32"):
        lm.score_pairs([(soft(tiny_lm("llama"), 1), query), (SoftPrompt(np.zeros((1, 5))), query)])
