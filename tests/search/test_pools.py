"""Smaller spaces of tokens: which tokens, in which order, for every token method."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import numpy as np
import pytest
from tiny import tiny_lm
from worded_films import films, ids, lm

from rlprompt.agents.bdpl import BDPL
from rlprompt.agents.gcg import GCG
from rlprompt.agents.genetic import Genetic
from rlprompt.agents.greedy import Greedy
from rlprompt.agents.grow import Grow
from rlprompt.agents.ppo import PPO
from rlprompt.agents.ppo_edit import EditPPO
from rlprompt.agents.random_search import RandomSearch
from rlprompt.agents.soft_q import SoftQ
from rlprompt.prompt import Length, Pool, Prompt, TokenPrompt
from rlprompt.search.make_space import make_space
from rlprompt.search.optimiser import Optimiser
from rlprompt.search.pools import likely_tokens, ranked_pool, telling_words
from rlprompt.search.run import search
from rlprompt.search.space import TokenSpace
from rlprompt.search.vocabulary import common_words
from rlprompt.template import Query, Template

RNG = partial(np.random.default_rng, 0)
ALLOWED = TokenSpace.from_lm(lm(), 3).allowed.tolist()


def test_telling_words_are_those_that_other_texts_have_less_often() -> None:
    # Of 11 words `film` is there 5 times, where Zipf's law expects fewer the later a word's id.
    places = common_words(lm(), ALLOWED)
    usual = 10 / (np.log(len(places) + 1) + 0.5772)
    counts = {" film": 5, " the": 2, " was": 2, " it": 0}  # two letters are no word
    expected = {
        text: usual / (places.index(ids(text)[0]) + 1) for text, count in counts.items() if count
    }
    keyness = {t: counts[t] * np.log(counts[t] / expected[t]) for t in expected}
    found = telling_words(lm(), films(), ALLOWED)
    ranked = sorted((t for t in expected if keyness[t] > 0), key=lambda t: -keyness[t])
    assert [lm().decode([i]) for i in found] == ranked
    assert found[0] == ids(" film")[0]


def test_likely_tokens_are_those_that_the_model_scores_highest_after_the_texts() -> None:
    task = films()
    found = likely_tokens(lm(), task, ALLOWED, lm().last_hidden)
    heads = [query.head_ids for query in task.queries(lm(), task.splits.train)]
    queries = [Query(head, (), tuple((i,) for i in ALLOWED)) for head in heads]
    means = lm().score([TokenPrompt()], queries)[0].double().mean(0).numpy()
    assert found is not None
    assert sorted(found) == ALLOWED
    scores = means[[ALLOWED.index(i) for i in found]]
    assert (np.diff(scores) < 1e-5).all()


def test_words_are_of_three_kinds_in_turns() -> None:
    found = ranked_pool(lm(), films(), ALLOWED, Pool("words", 6), lm().last_hidden)
    common, own = common_words(lm(), ALLOWED), telling_words(lm(), films(), ALLOWED)
    likely = likely_tokens(lm(), films(), ALLOWED, lm().last_hidden)
    assert likely is not None
    expected = [token for token in likely if token in common]
    assert found[:3] == list(dict.fromkeys([common[0], own[0], expected[0], common[1]]))[:3]
    assert len(found) == len(set(found)) == 6


def test_a_pool_has_no_banned_word() -> None:
    free = make_space("tokens", lm(), 2, (), RNG(), films(), tokens="words")
    fewer = make_space("tokens", lm(), 2, ["film"], RNG(), films(), tokens="words")
    assert isinstance(free, TokenSpace)
    assert isinstance(fewer, TokenSpace)
    assert set(free.ranked) - set(fewer.ranked) == set(ids(" film"))


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_where_no_next_token_is_told_words_are_left(
    kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    other, task = tiny_lm(kind), films()
    allowed = TokenSpace.from_lm(other, 3).allowed.tolist()
    with caplog.at_level(logging.WARNING):
        likely = ranked_pool(other, task, allowed, Pool("likely", 9), other.last_hidden)
    assert "tells no next token after the train texts of films" in caplog.text
    assert likely == ranked_pool(other, task, allowed, Pool("words", 9), other.last_hidden)


def test_nothing_before_the_prompt_tells_nothing() -> None:
    led = films().__class__(
        "led", films().splits, Template("{prompt} {text}"), {"negative": "bad", "positive": "good"}
    )
    assert likely_tokens(lm(), led, ALLOWED, lm().last_hidden) is None


METHODS = [
    (RandomSearch(), {"words": 4}),
    (Greedy(), "likely"),
    (Grow(), "words"),
    (BDPL(samples=4), "words"),
    (GCG(candidates=4, top_k=4), "likely"),
    (Genetic(population=4, children=3), "words"),
    (PPO(prompts=4), {"likely": 9}),
    (SoftQ(prompts=4), "words"),
    (EditPPO(prompts=4), "words"),
]


@pytest.mark.parametrize(("optimiser", "tokens"), METHODS, ids=str)
def test_every_token_method_keeps_to_the_pool(optimiser: Optimiser[Any], tokens: Any) -> None:
    pool = make_space(
        "tokens", lm(), Length(3), (), RNG(), films(), tokens=tokens, hidden=lm().last_hidden
    )
    found = search(films(), lm(), optimiser, 60, length=Length(3), tokens=tokens)
    assert found.n_prompts > 5
    assert all(pool.contains(one.prompt) for one in found.candidates)


def test_grow_takes_the_first_of_the_order_that_the_space_gives() -> None:
    asked: list[Prompt] = []
    pool = make_space(
        "tokens", lm(), Length(2), (), RNG(), films(), tokens="words", hidden=lm().last_hidden
    )
    assert isinstance(pool, TokenSpace)
    search(films(asked), lm(), Grow(words=5), 160, length=Length(2), tokens="words")
    tried = {token for p in asked if isinstance(p, TokenPrompt) for token in p.ids}
    assert tried == set(pool.ranked[:5])


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (
            "wrods",
            "there are no tokens of the kind 'wrods'; give one of all, words, likely, gradient",
        ),
        ({"words": 0}, "a pool has a whole number of tokens, 1 or more, got 0 words"),
        ({"words": 2.5}, "got 2.5 words"),
        ({"all": 5}, "a pool is one kind with its size"),
        ({"gradient": 0}, "1 or more, got 0 gradient"),
        ({"words": 3, "likely": 3}, "a pool is one kind with its size"),
    ],
)
def test_what_is_no_pool_is_refused(tokens: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        search(films(), lm(), RandomSearch(), 40, tokens=tokens)


def test_without_words_there_is_no_pool_of_words() -> None:
    with pytest.raises(ValueError, match="no allowed token of tiny-llama is a word; ban less"):
        ranked_pool(lm(), films(), ids("x"), Pool("words"), None)
