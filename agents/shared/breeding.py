"""How prompts of tokens come of others: founders, crossing, and edits of spans."""

from __future__ import annotations

from itertools import chain
from typing import Literal, get_args

import numpy as np

from rlprompt.prompt import TokenPrompt
from rlprompt.search.space import TokenSpace

# Draws for a prompt that is not known yet, after which any unknown one is taken.
TRIES = 20

Edit = Literal["delete", "swap", "add"]


def winner(n_parents: int, tournament: int, rng: np.random.Generator) -> int:
    """The place of a parent among them, the best of so many that are drawn, the best first."""
    return int(rng.integers(n_parents, size=tournament).min())


def crossed(
    first: TokenPrompt, second: TokenPrompt, space: TokenSpace, rng: np.random.Generator
) -> TokenPrompt:
    """The beginning of one prompt and the end of another, which make a prompt of the space.

    Where prompts have one length, both are cut at the same place. Either part may be empty.
    """
    cut = int(rng.integers(len(first) + 1))
    least = max(0, cut + len(second) - space.length)
    most = min(len(second), cut + len(second) - space.shortest)
    return TokenPrompt(first.ids[:cut] + second.ids[int(rng.integers(least, most + 1)) :])


def founders(space: TokenSpace, count: int, rng: np.random.Generator) -> list[TokenPrompt]:
    """The first generation: the starts, edits of theirs, and random prompts, each once."""
    found = dict.fromkeys(space.starts)
    edits = (edited(start, rng) for _ in range(TRIES * count) for start in space.starts)
    draws = (space.sample(rng) for _ in range(TRIES * count))
    n_edited = len(found) + (count - len(found)) // 2
    for source, most in ((edits, n_edited), (draws, count)):
        for prompt in source:
            if len(found) >= most:
                break
            if space.contains(prompt):
                found[prompt] = None
    return list(found)


def edited(prompt: TokenPrompt, rng: np.random.Generator) -> TokenPrompt:
    """The prompt in two to four spans, of which one is deleted or doubled, or two change places."""
    n_spans = min(int(rng.integers(2, 5)), len(prompt))
    spans = [span.tolist() for span in np.array_split(prompt.ids, n_spans)]
    one, other = rng.choice(n_spans, 2, replace=n_spans < 2).tolist()
    edit: Edit = rng.choice(get_args(Edit))
    if edit == "delete":
        del spans[one]
    elif edit == "swap":
        spans[one], spans[other] = spans[other], spans[one]
    else:
        spans.insert(int(rng.integers(n_spans + 1)), spans[one])
    return TokenPrompt(list(chain.from_iterable(spans)))
