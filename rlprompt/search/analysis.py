"""What a picked prompt is made of: each token's effect, and what a soft prompt is like in words.

All of it is found out after the prompt was picked, beside the budget, and decides nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np

from rlprompt._utils.text import error_line
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import (
    FedPrompt,
    PrefixPrompt,
    Prompt,
    SoftPrompt,
    TextPrompt,
    TokenPrompt,
    vector_prompt,
)
from rlprompt.search.evaluation import Evaluator
from rlprompt.search.result import Analysis, Neighbour, Piece, Projection

logger = logging.getLogger(__name__)

# Parts that a prompt is taken apart into, at most: each costs all of dev.
MOST_PIECES = 16
# How the code of a task, anyone's, says that it does not take a prompt; not a lack of memory or
# disk, which ends a search that can go on later.
REFUSALS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    TypeError,
    ValueError,
)


def analyse(evaluator: Evaluator, prompt: Prompt) -> Analysis:
    """Take a prompt apart; a text is read as a whole, and is not.

    A task that cannot score one of the parts loses this and nothing else: the reason is in the
    analysis.
    """
    if isinstance(prompt, TextPrompt):
        return Analysis()
    try:
        pieces = _pieces(evaluator, prompt)
        if isinstance(prompt, TokenPrompt | PrefixPrompt):
            return Analysis(pieces)
        tokens = evaluator.lm.nearest_tokens(prompt)
        neighbours = tuple(_neighbours(evaluator.lm, prompt, tokens))
        return Analysis(pieces, neighbours, _projection(evaluator, tokens))
    except REFUSALS as error:
        problem = error_line(error)
        logger.warning("the picked prompt was not taken apart: %s", problem)
        return Analysis(problem=problem)


def _pieces(evaluator: Evaluator, prompt: FedPrompt) -> tuple[Piece, ...]:
    """Dev scores of the prompt without each of its parts, leaving one out at a time."""
    spans = list(parts(len(prompt)))
    if not spans:
        return ()
    texts = [_text(evaluator.lm, prompt, start, end) for start, end in spans]
    rests = [_without(prompt, start, end) for start, end in spans]
    scores = evaluator.scores(rests, "dev")
    return tuple(Piece(text, score) for text, score in zip(texts, scores, strict=True))


def parts(length: int) -> Iterator[tuple[int, int]]:
    """Start and end of each part of a prompt: single tokens, or runs of a few in a long one.

    >>> list(parts(3))
    [(0, 1), (1, 2), (2, 3)]
    """
    count = min(length, MOST_PIECES)
    for i in range(count):
        yield i * length // count, (i + 1) * length // count


def _without(prompt: FedPrompt, start: int, end: int) -> FedPrompt:
    if isinstance(prompt, TokenPrompt):
        return TokenPrompt(prompt.ids[:start] + prompt.ids[end:])
    kept = [*range(start), *range(end, len(prompt))]
    return vector_prompt(prompt.vectors[kept]) if kept else TokenPrompt()


def _text(lm: FrozenLM, prompt: FedPrompt, start: int, end: int) -> str:
    """How a part of a prompt reads; keys and values as their positions, the first of which is 1."""
    if isinstance(prompt, TokenPrompt):
        return lm.decode(prompt.ids[start:end])
    if isinstance(prompt, PrefixPrompt):
        return f"#{start + 1}" if end == start + 1 else f"#{start + 1} to #{end}"
    return lm.decode(lm.nearest_tokens(SoftPrompt(prompt.vectors[start:end])).ids)


def _neighbours(lm: FrozenLM, prompt: SoftPrompt, tokens: TokenPrompt) -> Iterator[Neighbour]:
    """The nearest tokens and how near they are."""
    embeddings = lm.embeddings()[list(tokens.ids)]
    distances, norms, token_norms = (
        np.linalg.norm(vectors, axis=1).tolist()
        for vectors in (prompt.vectors - embeddings, prompt.vectors, embeddings)
    )
    for i, token in enumerate(tokens.ids):
        yield Neighbour(lm.decode([token]), distances[i], norms[i], token_norms[i])


def _projection(evaluator: Evaluator, tokens: TokenPrompt) -> Projection:
    lm = evaluator.lm
    (dev,), (test,) = (evaluator.scores([tokens], split) for split in ("dev", "test"))
    return Projection(tokens.ids, *evaluator.task.described(lm, tokens), dev, test)
