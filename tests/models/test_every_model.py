"""Every type of model that transformers maps is scored right, or refused with a sentence.

The loops are written out here, a sequence at a time, with nothing padded and nothing kept.
"""

from __future__ import annotations

import re
from typing import Any, cast

import numpy as np
import pytest
import torch
import transformers
from model_table import PAGE, judge, load, tried, types
from torch import Tensor

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.template import Query
from rlprompt.types import Ids, ModelKind

TOLERANCE = 1e-4  # nats
END = 2
CANDIDATES: tuple[Ids, ...] = ((9,), (11, 13), (17,))

# A few of each fate: what each shows is in its name, or beside it.
FEW: dict[tuple[str, ModelKind], str] = {
    ("cohere", "causal"): "packed",  # multiplies logits
    ("granite", "causal"): "packed",  # divides them
    ("gemma2", "causal"): "packed",  # caps them, and has sliding windows
    ("cohere2", "causal"): "packed",
    ("hyperclovax", "causal"): "packed",  # multiplies by what Granite divides by
    ("nanochat", "causal"): "packed",  # caps them
    ("deepseek_v3", "causal"): "packed",  # keys and values of unlike width
    ("gpt2", "causal"): "packed",
    ("mistral", "causal"): "packed",  # a sliding window in every layer
    ("gpt_oss", "causal"): "packed",  # an MLP that says which experts it asked
    ("falcon", "causal"): "packed",  # one head of keys and values
    ("bloom", "causal"): "plain",  # ALiBi
    ("gpt_neo", "causal"): "plain",  # a window of its own, over columns
    ("rwkv", "causal"): "plain",  # recurrent
    ("llama4_text", "causal"): "plain",  # no base model
    ("roberta", "causal"): "plain",  # generate counts positions otherwise
    ("gemma3n_text", "causal"): "plain",  # no soft prompts
    ("fnet", "masked"): "plain",  # nothing can be masked, so nothing is padded
    ("longformer", "masked"): "plain",
    ("ibert", "masked"): "plain",
    ("switch_transformers", "encoder-decoder"): "plain",
    ("m2m_100", "encoder-decoder"): "plain",
    ("xlnet", "causal"): "refused",
    ("fsmt", "encoder-decoder"): "refused",
    ("musicgen", "causal"): "refused",
    ("perceiver", "masked"): "refused",
}


def ids(rng: np.random.Generator, length: int) -> Ids:
    return tuple(rng.integers(5, 290, length).tolist())


def texts(lm: FrozenLM, longest: int = 21) -> tuple[list[TokenPrompt], list[Query]]:
    """Prompts of several lengths, and texts of which some are wider than a window of 8."""
    rng = np.random.default_rng(0)
    mask = (lm.mask_id,) if lm.kind == "masked" and lm.mask_id is not None else ()
    queries = [
        Query(ids(rng, 5), (*mask, *ids(rng, 2)), CANDIDATES),
        Query(ids(rng, longest), (*ids(rng, 1), *mask), CANDIDATES),
        Query(ids(rng, 3), mask, CANDIDATES),
    ]
    return [TokenPrompt(ids(rng, length)) for length in (4, 4, 1)], queries


def start_of(lm: FrozenLM) -> Ids:
    settings = cast(Any, lm.model).generation_config
    return tuple(
        token
        for token in (lm.model.config.decoder_start_token_id, settings.forced_bos_token_id)
        if token is not None
    )


@torch.no_grad()
def next_logits(lm: FrozenLM, text: Ids, fed: Ids) -> Tensor:
    """(T, V) after a text, and after each of the answer's tokens that are fed."""
    model = cast(Any, lm.model)
    if lm.kind == "encoder-decoder":
        start = start_of(lm)
        decoder = torch.tensor([[*start, *fed]])
        given = {"input_ids": torch.tensor([text]), "decoder_input_ids": decoder}
        return cast(Tensor, model(**given, use_cache=False).logits[0, len(start) - 1 :])
    whole = torch.tensor([[*text, *fed]])
    return cast(Tensor, model(input_ids=whole, use_cache=False).logits[0, len(text) - 1 :])


@torch.no_grad()
def loglik(lm: FrozenLM, prompt: TokenPrompt, query: Query, answer: Ids) -> float:
    text = (*query.head_ids, *prompt.ids, *query.tail_ids)
    if lm.kind == "masked":
        assert lm.mask_id is not None
        at = text.index(lm.mask_id)
        hidden = (*text[:at], *(lm.mask_id,) * len(answer), *text[at + 1 :])
        logits = cast(Any, lm.model)(input_ids=torch.tensor([hidden])).logits[0, at:]
    else:
        logits = next_logits(lm, text, answer[:-1])
    logs = logits.float().log_softmax(-1)
    return float(sum(logs[i, token] for i, token in enumerate(answer)))


def check(lm: FrozenLM, longest: int = 21) -> None:
    """All that can be asked of a model is what plain loops give."""
    prompts, queries = texts(lm, longest)
    expected = torch.tensor(
        [[[loglik(lm, p, q, c) for c in q.candidates] for q in queries] for p in prompts]
    )
    found = lm.score(prompts, queries)
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)
    assert float(expected.std(0).max()) > 0.05  # or this would show nothing
    table = lm.embeddings()
    soft: list[Prompt] = [SoftPrompt(table[list(prompt.ids)]) for prompt in prompts]
    if lm._engine.packed is None and lm._engine.plain.obstacle:
        assert lm.gradient_obstacle == lm.vectors_obstacle
        with pytest.raises(ValueError, match=re.escape(f"{lm.name}: {lm._engine.plain.obstacle}")):
            lm.score(soft, queries)
    else:
        torch.testing.assert_close(lm.score(soft, queries), expected, rtol=0, atol=TOLERANCE)
    if lm.kind == "masked":
        return
    for prompt, answers in zip(
        prompts, lm.generate(prompts, queries, max_new_tokens=4), strict=True
    ):
        for query, answer in zip(queries, answers, strict=True):
            text = (*query.head_ids, *prompt.ids, *query.tail_ids)
            # A greedy answer consists of the likeliest tokens: a pass tells them all.
            steps = (*answer.ids, *[END] * (answer.ended == "end token"))
            assert steps == tuple(next_logits(lm, text, steps[:-1]).argmax(-1).tolist())
            assert len(steps) == 4 or steps[-1] == END
    if lm.kind == "causal":
        some = [prompt.ids for prompt in prompts]
        hidden = lm.last_hidden(some)
        after = torch.stack([next_logits(lm, text, ())[-1] for text in some])
        torch.testing.assert_close(
            lm.next_logits(hidden).log_softmax(-1), after.log_softmax(-1), rtol=0, atol=TOLERANCE
        )
        lm.last_hidden([(*text, 5) for text in some], [some])  # as PPO goes on


# transformers' own warnings, of a slower kernel and the like, say nothing here.
@pytest.mark.filterwarnings("ignore")
class TestFew:
    @pytest.mark.parametrize(("name", "kind"), FEW)
    def test_is_scored_right_or_refused(self, name: str, kind: ModelKind) -> None:
        verdict = judge(name, kind)
        assert verdict.fate == FEW[name, kind]
        if verdict.fate != "refused":
            check(load(name, kind))
        else:
            assert re.match(rf"{name} cannot be scored: a model of type \w+ [^\n]+", verdict.why)


@pytest.mark.parametrize("name", ["gpt_neo", "gpt2", "mistral"])
def test_texts_far_longer_than_those_that_a_model_is_tried_on_are_scored_right(name: str) -> None:
    check(load(name, "causal"), longest=150)  # of GPT-Neo's layers, some see 64 tokens


def test_scores_of_a_window_over_columns_that_were_packed_once_are_not_found_again() -> None:
    neo, other = (load(name, "causal").fingerprint.tokenizer for name in ("gpt_neo", "gpt2"))
    assert neo != other  # which tells scores apart, though both have the same tokenizer


@pytest.mark.sweep
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "kind"), tried())
def test_every_type_is_scored_right_or_refused(name: str, kind: ModelKind) -> None:
    verdict = judge(name, kind)
    if verdict.fate != "refused":
        check(load(name, kind))
    else:
        assert re.match(rf"{name} cannot be scored: [^\n]+", verdict.why)


class TestPage:
    def test_names_every_type(self) -> None:
        named = set(re.findall(r"^\| (\S+) \|", PAGE.read_text(), re.MULTILINE))
        assert named - {"type", "---"} >= {name for name, _ in types()}

    def test_says_what_is_true_of_a_few(self) -> None:
        page = PAGE.read_text()
        for (name, _), fate in FEW.items():
            assert re.search(rf"^\| {name} \| [a-z-]+ \| {fate} \|", page, re.MULTILINE)

    def test_is_of_todays_transformers(self) -> None:
        assert f"transformers {transformers.__version__} " in PAGE.read_text()
