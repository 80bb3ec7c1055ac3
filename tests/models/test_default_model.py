"""The default model, loaded once: real words and trained weights, where those may matter."""

from __future__ import annotations

from typing import Any, cast

import torch

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import SoftPrompt, TokenPrompt
from rlprompt.template import Query, Template
from rlprompt.types import Ids

END = 2


def test_its_dtype_is_stated(loaded: tuple[FrozenLM, str]) -> None:
    lm, said = loaded
    assert lm.fingerprint.dtype == "float32"  # bfloat16's noise here is 0.3 nats
    assert lm.dtype_reason in said
    assert "smollm2-135m is scored in float32 on cpu: " in said


def test_packed_equals_plain_and_its_gradient_too(default_lm: FrozenLM) -> None:
    lm = default_lm
    answers = [lm.encode(" terrible"), lm.encode(" great"), lm.encode(" not good")]
    texts = ("a dull , lifeless film .", "moving and funny .")
    template = Template("{text} {prompt}")
    queries = [template.query({"text": text}, lm, answers) for text in texts]
    prompts = [TokenPrompt(lm.encode(text)) for text in (" It was", " All in all , it was")]
    assert lm.obstacle is None
    assert lm.noise(prompts, queries).largest < 1e-4
    scores = lm.score(prompts, queries, over="candidates")
    assert (scores[:, 0, 0] - scores[:, 0, 1] > scores[:, 1, 0] - scores[:, 1, 1]).all()
    soft = [SoftPrompt(lm.embeddings()[list(prompts[0].ids)])]
    _, grad = lm.score_with_grad(soft, queries, lambda ll, _: ll[:, 1])
    packed, lm._engine.packed = lm._engine.packed, None
    _, plain = lm.score_with_grad(soft, queries, lambda ll, _: ll[:, 1])
    lm._engine.packed = packed
    assert float((grad - plain).norm() / plain.norm()) < 1e-4


def test_it_is_frozen_and_says_so(default_lm: FrozenLM) -> None:
    lm = default_lm
    assert lm.fingerprint.weights.startswith("d492b8787c844cdc")
    assert (lm.fingerprint.dtype, lm.kind, lm.context) == ("float32", "causal", 8192)


def test_it_writes_the_likeliest_tokens(default_lm: FrozenLM) -> None:
    """At both places of the prompt; one row at a time on the other side."""
    lm = default_lm
    prompts = [TokenPrompt(lm.encode(text)) for text in (" The capital is", "")]
    for template in ("{text} {prompt}", "{prompt}\nText: {text}\nAnswer:"):
        queries = [
            Template(template).query({"text": text}, lm)
            for text in ("France is in Europe.", "I flew to Rome last week with two friends.")
        ]
        answers = lm.generate(prompts, queries, max_new_tokens=4)
        for prompt, row in zip(prompts, answers, strict=True):
            for query, answer in zip(queries, row, strict=True):
                steps = (*answer.ids, *[END] * (answer.ended == "end token"))
                assert steps == likeliest(lm, prompt, query, steps)
                assert len(steps) == 4 or steps[-1] == END


@torch.no_grad()
def likeliest(lm: FrozenLM, prompt: TokenPrompt, query: Query, steps: Ids) -> Ids:
    """The likeliest token at each place of an answer, which a greedy answer consists of.

    One pass for an answer, where `generate` takes one for each token.
    """
    text = (*query.head_ids, *prompt.ids, *query.tail_ids, *steps[:-1])
    logits = cast(Any, lm.model)(torch.tensor([text]), use_cache=False).logits
    return tuple(logits[0, -len(steps) :].argmax(-1).tolist())
