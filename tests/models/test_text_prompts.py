"""A text prompt is scored, answered and continued as the tokens of its text are."""

from __future__ import annotations

import pytest
import torch
from exports import class_task
from tiny import CONTEXT, TinyKind, tiny_lm

from rlprompt.prompt import Prompt, SoftPrompt, TextPrompt, TokenPrompt
from rlprompt.template import Query

TEXTS = (" it was", "", " so\n ünd <b>", " it was", " the film</s>")
PLACES: dict[TinyKind, str] = {
    "llama": "{text} {prompt}",
    "bloom": "{text} {prompt}",
    "bert": "{text} {prompt} {mask}",
    "t5": "{prompt} {text}",
}
every = pytest.mark.parametrize("kind", PLACES)


def queries(kind: TinyKind) -> list[Query]:
    task = class_task(PLACES[kind])
    return task.queries(tiny_lm(kind), task.splits.test)


@every
def test_it_scores_as_its_tokens_do(kind: TinyKind) -> None:
    lm, asked = tiny_lm(kind), queries(kind)
    tokens = [TokenPrompt(lm.encode(text)) for text in TEXTS]
    found = lm.score([TextPrompt(text) for text in TEXTS], asked)
    assert torch.equal(found, lm.score(tokens, asked))
    assert torch.equal(found[0], found[3])
    mixed: list[Prompt] = [TextPrompt(TEXTS[0]), tokens[2]]
    assert lm.score(mixed, asked) == pytest.approx(found[[0, 2]], abs=1e-5)


@every
def test_pairs_may_have_it(kind: TinyKind) -> None:
    lm, asked = tiny_lm(kind), queries(kind)
    soft = SoftPrompt(lm.embeddings(lm.encode(TEXTS[0])))
    prompts: list[Prompt] = [TextPrompt(TEXTS[0]), soft, TextPrompt(TEXTS[2])]
    texts = list(zip(prompts, asked, strict=True))
    tokens: list[tuple[Prompt, Query]] = [(lm.fed(prompt), query) for prompt, query in texts]
    for own, other in zip(lm.score_pairs(texts), lm.score_pairs(tokens), strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_what_is_written_is_the_same(temperature: float) -> None:
    lm, asked = tiny_lm(), queries("llama")
    tokens = [TokenPrompt(lm.encode(text)) for text in TEXTS]
    settings = {"max_new_tokens": 4, "temperature": temperature}
    own = lm.generate([TextPrompt(text) for text in TEXTS], asked, **settings)  # type: ignore[arg-type]
    assert own == lm.generate(tokens, asked, **settings)  # type: ignore[arg-type]


def test_one_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match=rf"prompt {CONTEXT} .*tiny-llama takes {CONTEXT}"):
        tiny_lm().score([TextPrompt("x" * CONTEXT)], queries("llama"))


def test_it_is_not_mixed_with_vectors_and_has_no_gradient() -> None:
    lm, asked = tiny_lm(), queries("llama")
    soft = SoftPrompt(lm.embeddings((20, 21)))
    with pytest.raises(ValueError, match="soft prompts and token prompts in one call"):
        lm.score([TextPrompt("x"), soft], asked)
    with pytest.raises(ValueError, match="a gradient needs soft prompts or prefix prompts"):
        lm.score_with_grad([TextPrompt("x")], asked, lambda scores, _: scores[:, 0])  # type: ignore[list-item]
