"""Prefix prompts give what plain transformers and PEFT give with the same keys and values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from exports import prefix
from tiny import PACKABLE, TinyKind, tiny_lm, tiny_model
from torch import Tensor
from transformers import DynamicCache

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import PrefixPrompt, Prompt, SoftPrompt, TokenPrompt
from rlprompt.template import Query
from rlprompt.types import Ids

TOLERANCE = 1e-5  # nats, float32
CANDIDATES = ((7,), (8, 9), (8, 9, 7))


def ids(rng: np.random.Generator, length: int) -> Ids:
    return tuple(rng.integers(5, 290, length).tolist())


def queries(lm: FrozenLM, seed: int = 0) -> list[Query]:
    """Texts of several lengths, one of which goes beyond a sliding window."""
    rng = np.random.default_rng(seed)
    return [Query(lm.prefix_ids, ids(rng, length), CANDIDATES) for length in (1, 4, 4, 30)]


def plain_model(kind: TinyKind = "llama") -> Any:
    """A model that rlprompt never touched."""
    model: Any = tiny_model(kind)
    return model.eval()


def cache(vectors: Tensor) -> DynamicCache:
    """Keys and values of one row, from (L, layers, 2, heads, width)."""
    return DynamicCache([(k[None], v[None]) for k, v in vectors.permute(1, 2, 3, 0, 4)])


def plain(model: Any, vectors: Tensor, text: Ids) -> Tensor:
    """Log-probabilities (T, V) of plain transformers for one text after keys and values."""
    logits: Tensor = model(torch.tensor([text]), past_key_values=cache(vectors)).logits
    return logits[0].log_softmax(-1)


def plain_logliks(model: Any, vectors: Tensor, query: Query) -> Tensor:
    """(C,), of a prefix prompt's vectors."""
    text, found = query.head_ids + query.tail_ids, []
    for answer in query.candidates:
        logs = plain(model, vectors, text + answer[:-1])[len(text) - 1 :]
        found.append(logs[torch.arange(len(answer)), torch.tensor(answer)].sum())
    return torch.stack(found)


def plain_scores(model: Any, prompt: PrefixPrompt, asked: list[Query]) -> Tensor:
    with torch.no_grad():
        vectors = torch.tensor(prompt.vectors)
        return torch.stack([plain_logliks(model, vectors, query) for query in asked])


@pytest.mark.parametrize("kind", PACKABLE)
class TestEveryKind:
    def test_scores_are_those_of_plain_transformers(self, kind: TinyKind) -> None:
        lm, model = tiny_lm(kind), plain_model(kind)
        prompts = [prefix(lm), prefix(lm, 9, 1), prefix(lm)]
        found = lm.score(prompts, queries(lm))
        for prompt, own in zip(prompts, found, strict=True):
            assert (own - plain_scores(model, prompt, queries(lm))).abs().max() < TOLERANCE
        assert (found[0] - found[1]).abs().max() > 0.1
        among = lm.score(prompts, queries(lm), over="candidates")
        assert torch.allclose(among, found.log_softmax(-1), atol=TOLERANCE)
        # One text alone goes the same way.
        assert torch.allclose(lm.score(prompts, queries(lm)[:1]), found[:, :1], atol=TOLERANCE)

    def test_they_are_those_of_peft(self, kind: TinyKind) -> None:
        peft = pytest.importorskip("peft")
        lm, prompt = tiny_lm(kind), prefix(tiny_lm(kind))
        length, layers, _, heads, width = prompt.vectors.shape
        sizes = {"num_layers": layers, "token_dim": heads * width, "num_attention_heads": heads}
        config = peft.PrefixTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=length, inference_mode=True, **sizes
        )
        with pytest.warns(FutureWarning, match="is_gradient_checkpointing"):
            adapted = peft.get_peft_model(plain_model(kind), config).eval()
        table = adapted.prompt_encoder["default"].embedding.weight
        with torch.no_grad():
            table.copy_(torch.tensor(prompt.vectors).reshape(length, -1))
            for i, query in enumerate(queries(lm)):
                text = torch.tensor([query.head_ids + query.tail_ids])
                logits = adapted(input_ids=text, attention_mask=torch.ones_like(text)).logits
                own = lm.score([prompt], [query])[0, 0, 0]
                assert abs(logits[0, -1].log_softmax(-1)[7] - own) < TOLERANCE, i

    def test_keys_and_values_are_what_the_layers_keep(self, kind: TinyKind) -> None:
        lm, model = tiny_lm(kind), plain_model(kind)
        texts = [ids(np.random.default_rng(seed), 6) for seed in range(2)]
        found = lm.keys_and_values([SoftPrompt(lm.embeddings(text)) for text in texts])
        for text, own in zip(texts, found, strict=True):
            with torch.no_grad():
                layers = model(torch.tensor([text]), use_cache=True).past_key_values.layers
            for i, layer in enumerate(layers):
                for part, kept in enumerate((layer.keys, layer.values)):
                    there = own[:, i, part].swapaxes(0, 1)[None]
                    assert np.abs(there - kept.numpy()).max() < TOLERANCE

    def test_what_was_read_before_is_a_prefix(self, kind: TinyKind) -> None:
        """Read as a prefix, tokens do to a text what they do in front of it."""
        lm, rng = tiny_lm(kind), np.random.default_rng(3)
        text, (tail,) = ids(rng, 5), [ids(rng, 4)]
        (known,) = lm.keys_and_values([SoftPrompt(lm.embeddings(text))])
        query = Query((), tail, CANDIDATES)
        tokens, keys = (
            lm.score([TokenPrompt(text)], [query]),
            lm.score([PrefixPrompt(known)], [query]),
        )
        assert torch.allclose(tokens, keys, atol=TOLERANCE)

    def test_the_gradient_is_that_of_plain_transformers(self, kind: TinyKind) -> None:
        lm, model = tiny_lm(kind), plain_model(kind).requires_grad_(False)
        prompts = [prefix(lm), prefix(lm, seed=1)]
        loglik, grad = lm.score_with_grad(prompts, queries(lm), lambda found, _: found[:, 1])
        assert torch.allclose(loglik, lm.score(prompts, queries(lm)), atol=TOLERANCE)
        for prompt, own in zip(prompts, grad, strict=True):
            assert own.shape == prompt.vectors.shape
            vectors = torch.tensor(prompt.vectors, requires_grad=True)
            rewards = [plain_logliks(model, vectors, query)[1] for query in queries(lm)]
            (there,) = torch.autograd.grad(torch.stack(rewards).sum(), vectors)
            assert (own - there).abs().max() < 1e-4 * there.abs().max()

    def test_answers_are_those_of_plain_transformers(self, kind: TinyKind) -> None:
        lm, model = tiny_lm(kind), plain_model(kind)
        prompts, asked = [prefix(lm), prefix(lm, 5, 1)], queries(lm)[:3]
        for prompt, row in zip(prompts, lm.generate(prompts, asked, max_new_tokens=4), strict=True):
            for query, answer in zip(asked, row, strict=True):
                text, written = query.head_ids + query.tail_ids, list[int]()
                with torch.no_grad():
                    for _ in answer.ids:
                        logs = plain(model, torch.tensor(prompt.vectors), (*text, *written))
                        written.append(int(logs[-1].argmax()))
                assert tuple(written) == answer.ids


def test_in_16_bits_it_differs_by_rounding() -> None:
    exact = tiny_lm()
    rounded = FrozenLM(plain_model().to(torch.bfloat16), exact.tokenizer, "bf16")
    prompt = prefix(exact)
    found = [lm.score([prompt], queries(exact)) for lm in (exact, rounded)]
    assert (found[0] - found[1]).abs().max() < 0.5


def test_pairs_may_mix_kinds() -> None:
    lm = tiny_lm("opt")
    short = Query(lm.prefix_ids, (20, 21), ((7,),))
    soft = SoftPrompt(lm.embeddings((30, 31)))
    prompts: list[Prompt] = [prefix(lm), TokenPrompt((5,)), prefix(lm, 2, 1), soft, prefix(lm)]
    asked = [short, *queries(lm)]
    pairs = list(zip(prompts, asked, strict=True))
    for (prompt, query), found in zip(pairs, lm.score_pairs(pairs), strict=True):
        assert torch.allclose(found, lm.score([prompt], [query])[0, 0], atol=TOLERANCE)


class TestRefusals:
    @pytest.mark.parametrize("kind", ["bloom", "bert", "t5"])
    def test_a_model_that_is_not_packed(self, kind: TinyKind) -> None:
        lm, prompt = tiny_lm(kind), prefix(tiny_lm())
        said = f"tiny-{kind} takes no prefix prompts: it is not packed .*; search tokens or soft"
        mask = () if lm.mask_id is None else (lm.mask_id,)
        query = Query(lm.prefix_ids, (20, *mask), ((7,),))
        with pytest.raises(ValueError, match=said):
            lm.score([prompt], [query])
        with pytest.raises(ValueError, match=said):
            lm.keys_and_values([SoftPrompt(np.zeros((2, lm.hidden_size)))])

    def test_text_before_it(self) -> None:
        lm, prompt = tiny_lm("opt"), prefix(tiny_lm("opt"))
        query = Query((*lm.prefix_ids, 20), (21,), CANDIDATES)
        said = r"stands before all text, .* begin the template with \{prompt\}"
        with pytest.raises(ValueError, match=said):
            lm.score([prompt], [query])
        with pytest.raises(ValueError, match=said):
            lm.score_pairs([(prompt, query)])
        with pytest.raises(ValueError, match=said):
            lm.score_with_grad([prompt], [query], lambda found, _: found[:, 0])
        with pytest.raises(ValueError, match=said):
            lm.generate([prompt], [query], max_new_tokens=2)

    def test_what_does_not_fit(self) -> None:
        lm, prompt = tiny_lm(), prefix(tiny_lm())
        with pytest.raises(ValueError, match="prefix prompts and token prompts in one call"):
            lm.score([prompt, TokenPrompt((5,))], queries(lm))
        with pytest.raises(ValueError, match="leave nothing to answer from"):
            lm.score([prompt], [Query((), (), CANDIDATES)])
        narrow = PrefixPrompt(prompt.vectors[..., :4])
        with pytest.raises(ValueError, match=r"= \(2, 2, 2, 4\); tiny-llama takes \(2, 2, 2, 8\)"):
            lm.score([narrow], queries(lm))
        long = PrefixPrompt(np.zeros((300, *prompt.vectors.shape[1:])))
        with pytest.raises(ValueError, match=r"text 1 \+ prompt 300 \+ answer 2 tokens"):
            lm.score([long], queries(lm))
        with pytest.raises(ValueError, match="noise of prefix prompts"):
            lm.noise([prompt], queries(lm))
