"""Models that read a long text in another way than a short one, in which neither changes the other.

What is right is a text alone, as a model computes it that has read nothing else.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import numpy as np
import pytest
import torch
import transformers
from every_model import build
from tiny import randomised, tiny_tokenizer
from torch import Tensor

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.template import Query
from rlprompt.types import Ids, ModelKind

MASK = 3
PROMPT = TokenPrompt((9, 10))
# Attention is full up to (5 + 2 * 1) * 4 = 28 tokens, and sparse in blocks of 4 beyond.
SPARSE = {"attention_type": "block_sparse", "block_size": 4, "num_random_blocks": 1}
FULL = 28


def some(length: int, seed: int = 0) -> Ids:
    return tuple(np.random.default_rng((seed, length)).integers(5, 290, length).tolist())


def big_bird(model_type: str, kind: ModelKind, **changes: Any) -> Any:
    made = build(model_type, kind)
    config = copy.deepcopy(made.config)
    config.update(SPARSE | changes)
    model: Any = type(made)(config)
    model.eval()
    model.load_state_dict(made.state_dict())
    return model


@torch.no_grad()
def alone(fresh: Any, text: Ids) -> Tensor:
    """Log-probabilities (V,) by the first pass of a model."""
    model, ids = copy.deepcopy(fresh), torch.tensor([text])
    if model.config.is_encoder_decoder:
        start = torch.tensor([[model.config.decoder_start_token_id]])
        logits = model(input_ids=ids, decoder_input_ids=start, use_cache=False).logits[0, 0]
    else:
        logits = model(input_ids=ids).logits[0, text.index(MASK)]
    return cast(Tensor, logits).float().log_softmax(-1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("model_type", "kind"), [("big_bird", "masked"), ("bigbird_pegasus", "encoder-decoder")]
)
class TestSparseAttention:
    LENGTHS = (5, FULL - 1, FULL, FULL + 1, FULL + 4, FULL + 5, 60, 61, 90, 12)

    def lm(self, model_type: str, kind: ModelKind) -> tuple[FrozenLM, Any, list[Query]]:
        """A model, another that has read nothing yet, and texts of all lengths."""
        model = big_bird(model_type, kind)
        tail = (MASK,) if kind == "masked" else ()
        queries = [Query(some(n - 2 - len(tail)), tail, ((7,), (8,))) for n in self.LENGTHS]
        fresh = copy.deepcopy(model)
        tokenizer = tiny_tokenizer("bert" if kind == "masked" else "bart")
        return FrozenLM(model, tokenizer, model_type), fresh, queries

    def test_scoring_draws_no_numbers(self, model_type: str, kind: ModelKind) -> None:
        lm, _, queries = self.lm(model_type, kind)
        before = torch.get_rng_state()
        lm.score([PROMPT], queries)
        assert torch.equal(torch.get_rng_state(), before)

    def test_a_score_is_that_of_the_text_alone(self, model_type: str, kind: ModelKind) -> None:
        lm, fresh, queries = self.lm(model_type, kind)
        table = lm.embeddings()
        for prompt in (PROMPT, SoftPrompt(table[list(PROMPT.ids)])):
            for asked in (queries, queries[::-1]):
                found = lm.score(cast(list[Prompt], [prompt]), asked)[0, :, 0]
                texts = [(*query.head_ids, *PROMPT.ids, *query.tail_ids) for query in asked]
                expected = [float(alone(fresh, text)[7]) for text in texts]
                assert found.tolist() == pytest.approx(expected, abs=1e-4)

    def test_a_model_whose_attention_changed_is_marked(
        self, model_type: str, kind: ModelKind
    ) -> None:
        lm, _, _ = self.lm(model_type, kind)
        assert lm._engine.marks == ["block sparse"]
        full = big_bird(model_type, kind, attention_type="original_full")
        assert FrozenLM(full, lm.tokenizer, "full")._engine.marks == []

    def test_sparse_attention_is_not_full(self, model_type: str, kind: ModelKind) -> None:
        _, fresh, queries = self.lm(model_type, kind)
        text = (*queries[-2].head_ids, *queries[-2].tail_ids)
        full = big_bird(model_type, kind, attention_type="original_full")
        assert float((alone(fresh, text) - alone(full, text)).abs().max()) > 1e-2


def test_an_answer_is_written_by_the_attention_of_its_own_text() -> None:
    lm, fresh, queries = TestSparseAttention().lm("bigbird_pegasus", "encoder-decoder")
    queries.append(Query(some(52), ()))  # of which full attention makes something else
    (answers,) = lm.generate([PROMPT], queries, max_new_tokens=1, min_new_tokens=1)
    for query, answer in zip(queries, answers, strict=True):
        logs = alone(fresh, (*query.head_ids, *PROMPT.ids))
        logs[2] = -torch.inf  # one token at the least
        assert answer.ids == (int(logs.argmax()),)


class TestHashedAttention:
    """Reformer, whose hashes are drawn anew at every pass."""

    def lm(self, layers: list[str], **chunks: int) -> FrozenLM:
        fields = build("reformer", "masked").config.to_dict() | {"is_decoder": True}
        fields |= {"attn_layers": layers, "num_hashes": 1, **chunks}
        model = transformers.ReformerModelWithLMHead(transformers.ReformerConfig(**fields))
        return FrozenLM(randomised(model, 0), tiny_tokenizer(), "reformer")

    @pytest.mark.parametrize(
        ("layers", "chunks", "context"),
        [
            (["lsh", "lsh"], {"lsh_attn_chunk_length": 16}, 16),
            (["local", "lsh"], {"lsh_attn_chunk_length": 16, "local_attn_chunk_length": 12}, 12),
            (["local", "local"], {"lsh_attn_chunk_length": 16}, 256),
        ],
    )
    def test_takes_no_text_that_it_would_hash(
        self, layers: list[str], chunks: dict[str, int], context: int
    ) -> None:
        lm = self.lm(layers, **chunks)
        assert lm.context == context
        assert lm._engine.marks == ["hashed"] * ("lsh" in layers)
        text = Query(some(context - 2), (), ((7,), (8,)))
        first = lm.score([PROMPT], [text])
        torch.testing.assert_close(first, lm.score([PROMPT], [text]), rtol=0, atol=0)
        longer = Query(some(context - 1), (), ((7,), (8,)))
        with pytest.raises(ValueError, match=f"reformer takes {context}; shorten"):
            lm.score([PROMPT], [longer])
