"""Which tokens are worth trying in a prompt, ranked: a smaller space for every token method.

No row is paid for it: what the model expects after the train texts comes of one pass over them,
from which no reward is computed.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain, zip_longest

import numpy as np
import torch
from numpy.typing import NDArray

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Pool
from rlprompt.search.space import TokenSpace
from rlprompt.search.vocabulary import common_words, typable_tokens
from rlprompt.tasks.base import Task
from rlprompt.template import Template
from rlprompt.types import Ids

logger = logging.getLogger(__name__)

# What the model makes of texts: `FrozenLM.last_hidden`, or `Objective.hidden`, which a replay is
# told again.
Hidden = Callable[[Sequence[Ids]], NDArray[np.float32]]

# Train texts in a forward pass.
CHUNK = 8


def ranked_pool(
    lm: FrozenLM, task: Task, allowed: Collection[int], pool: Pool, hidden: Hidden | None
) -> list[int]:
    """The allowed tokens of a pool, the most promising first.

    Of `words` the three rankings take turns: common words alone are a poor pool for a task about
    topics, and words of the texts alone miss what makes a phrase of them.

    Args:
        lm: The frozen model.
        task: What prompts are for.
        allowed: Ids to choose from.
        pool: `words` or `likely`.
        hidden: What the model makes of texts; None leaves out what it expects.

    Returns:
        At most `pool.size` ids. `likely` is `words` without what the model expects where it tells
        no next token, which is logged.

    Raises:
        ValueError: No token is left.
    """
    likely = likely_tokens(lm, task, allowed, hidden)
    if likely is None and hidden is not None:
        logger.warning(
            "%s tells no next token after the train texts of %s, so the pool of tokens is common "
            "words and the texts' own",
            *(lm.name, task.name),
        )
    if pool.kind == "likely" and likely is not None:
        ranked: Iterable[int] = likely
    else:
        common = common_words(lm, allowed)
        words = set(common)
        expected = [token for token in likely or () if token in words]
        turns = zip_longest(common, telling_words(lm, task, allowed), expected)
        ranked = (token for token in chain.from_iterable(turns) if token is not None)
    found = list(dict.fromkeys(ranked))[: pool.size]
    if not found:
        raise ValueError(
            f"no allowed token of {lm.name} is a word; ban less, or search all: `tokens: all`"
        )
    return found


def telling_words(lm: FrozenLM, task: Task, allowed: Collection[int]) -> list[int]:
    """Allowed words that the train texts have more often than texts do, the most telling first.

    By the log-likelihood ratio of a word's count (Dunning 1993; "keyness", Rayson and Garside
    2000). How often other texts have a word is guessed from its place among the common ones, by
    Zipf's law. Labels are not looked at.
    """
    places = {token: place for place, token in enumerate(common_words(lm, typable_tokens(lm)))}
    texts = (text for example in task.splits.train for text in example.fields.values())
    counts = Counter(
        token for text in texts for token in lm.encode(f" {text.strip()}") if token in places
    )
    harmonic = math.log(len(places) + 1) + 0.5772
    usual = counts.total() / harmonic

    def keyness(token: int) -> float:
        return counts[token] * math.log(counts[token] * (places[token] + 1) / usual)

    telling = [t for t in counts if counts[t] * (places[t] + 1) > usual]
    among = set(allowed)
    return sorted((t for t in telling if t in among), key=lambda t: (-keyness(t), t))


@torch.no_grad()
def likely_tokens(
    lm: FrozenLM, task: Task, allowed: Collection[int], hidden: Hidden | None
) -> list[int] | None:
    """Allowed tokens by how likely the model finds them where the prompt begins, over train.

    By the mean of log-probabilities over the train texts, each as far as the prompt in the task's
    template. None where there is no such thing: a model that is not causal, a task without a
    template, a template with nothing before the prompt.
    """
    template = getattr(task, "template", None)
    if hidden is None or lm.kind != "causal" or not isinstance(template, Template):
        return None
    queries = (template.query(example.fields, lm) for example in task.splits.train)
    # By length: a pass is as wide as its longest text.
    heads = sorted((h for h in dict.fromkeys(q.head_ids for q in queries) if h), key=len)
    if not heads:
        return None
    # Of equals the commoner token comes first. What the softmax of a text subtracts is the same
    # for all tokens, so logits rank as log-probabilities do.
    ids = np.sort(np.fromiter(allowed, np.int64))
    logits = np.zeros(len(ids))
    for start in range(0, len(heads), CHUNK):
        last = hidden(heads[start : start + CHUNK])
        logits += lm.next_logits(last, ids).double().sum(0).cpu().numpy()
    return [int(token) for token in ids[np.argsort(-logits, kind="stable")]]


def first_words(lm: FrozenLM, space: TokenSpace, count: int, rng: np.random.Generator) -> list[int]:
    """So many tokens of a space that are the most worth trying, in random order.

    The first of the space's own order (`TokenSpace.ranked`), or else the most common of its words;
    where there are few words, or none, other tokens behind them. Fewer where the space has fewer.

    >>> from rlprompt.check import toy_lm
    >>> space = TokenSpace(3, range(10, 30))
    >>> words = first_words(toy_lm(), space, 5, np.random.default_rng(0))
    >>> len(words), set(words) <= set(space.allowed)
    (5, True)

    Args:
        lm: The frozen model.
        space: Where they are from.
        count: How many.
        rng: Decides the order, and which others are taken where there are few words.
    """
    words: list[int] = rng.permutation(
        (space.ranked or common_words(lm, space.allowed))[:count]
    ).tolist()
    others: list[int] = rng.permutation(np.setdiff1d(space.allowed, words)).tolist()
    return words + others[: count - len(words)]
