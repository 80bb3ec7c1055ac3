"""What one call asks of a model: checked before anything is computed, equal prompts merged.

Prompts become *virtual ids* (see `Scorer`): those of tokens are their own, and the vectors of soft
and of prefix prompts are numbered from the end of the vocabulary.

>>> limits = Limits("small", n_vocabulary=100, hidden_size=8, context=16)
>>> prompts: list[FedPrompt] = [TokenPrompt((5, 6)), TokenPrompt((7,)), TokenPrompt((5, 6))]
>>> prepare(limits, prompts, [Query((1, 2), (), ((3,),))], n_answer=0).inverse
(0, 1, 0)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlprompt._utils.text import listed
from rlprompt.models.conventions import n_positions
from rlprompt.models.scorer import Over
from rlprompt.prompt import FedPrompt, PrefixPrompt, SoftPrompt, TokenPrompt
from rlprompt.template import Query
from rlprompt.types import Ids, ModelKind


@dataclass(frozen=True)
class Limits:
    """What a model takes.

    Attributes:
        name: What messages call it.
        n_vocabulary: Rows of its embedding table.
        hidden_size: Width of its embedding vectors.
        context: Longest sequence in tokens, or None.
        start: Special tokens that begin every text.
        prefix: (layers, 2, heads, width) of a position of prefix prompts, or why it takes none.
        behind_prefix: Longest sequence with a prefix prompt, where that is less than the context.
        kind: How it answers.
    """

    name: str
    n_vocabulary: int
    hidden_size: int
    context: int | None
    start: Ids = ()
    prefix: tuple[int, ...] | str = "it keeps no keys and values"
    behind_prefix: int | None = None
    kind: ModelKind = "causal"

    def check_prompt(self, prompt: FedPrompt) -> None:
        """Refuse ids outside the vocabulary and vectors of another width."""
        if isinstance(prompt, TokenPrompt):
            self.check_ids(prompt.ids)
        elif isinstance(prompt, PrefixPrompt):
            self.check_prefix(prompt.vectors.shape[1:])
        elif prompt.vectors.shape[1] != self.hidden_size:
            raise ValueError(
                f"vectors of width {prompt.vectors.shape[1]}; {self.name} takes {self.hidden_size}"
            )

    @property
    def position_shape(self) -> tuple[int, ...]:
        """That of a position of prefix prompts.

        Raises:
            ValueError: The model takes none.
        """
        if isinstance(self.prefix, str):
            raise ValueError(
                f"{self.name} takes no prefix prompts: {self.prefix}; search tokens or soft prompts"
            )
        return self.prefix

    def check_prefix(self, shape: tuple[int, ...]) -> None:
        """Refuse keys and values on a model that takes none, and those of another shape."""
        if shape != self.position_shape:
            raise ValueError(
                f"keys and values of shape (layers, 2, heads, width) = {shape}; {self.name} takes "
                f"{self.prefix}"
            )

    def check_leading(self, query: Query) -> None:
        """Refuse text that would stand before a prefix prompt, or none behind it."""
        if query.head_ids not in ((), self.start):
            raise ValueError(
                "a prefix prompt stands before all text, and the template has text before it; "
                "begin the template with {prompt}, as in '{prompt} {text}'"
            )
        if not query.n_text:
            raise ValueError("a prefix prompt and no text leave nothing to answer from")

    def check_ids(self, ids: Ids) -> None:
        """Refuse ids outside the vocabulary."""
        if ids and not 0 <= min(ids) <= max(ids) < self.n_vocabulary:
            wrong = next(i for i in ids if not 0 <= i < self.n_vocabulary)
            raise ValueError(
                f"token id {wrong} is outside the vocabulary of {self.name}: "
                f"0 to {self.n_vocabulary - 1}"
            )

    def check_query(self, i: int, query: Query, n_prompt: int, n_answer: int) -> None:
        """Refuse what is longer than the context."""
        for ids in (query.head_ids, query.tail_ids, *query.candidates):
            self.check_ids(ids)
        length = n_positions(self.kind, query.n_text + n_prompt, n_answer)
        if self.context is not None and length > self.context:
            raise ValueError(
                f"example {i} is too long: text {query.n_text} + prompt {n_prompt} + answer "
                f"{n_answer} tokens, and {self.name} takes {self.context}; shorten the text or the "
                "prompt"
            )


@dataclass(frozen=True)
class Request:
    """The distinct prompts of a call.

    Attributes:
        ids: Virtual ids of each.
        vectors: (N, H) float32 that virtual ids from the vocabulary's size on stand for, of prefix
            prompts (N, layers, 2, heads, width); None for token prompts.
        inverse: Which of them each prompt of the call is.
        firsts: The place in the call where each comes first.
    """

    ids: tuple[Ids, ...]
    vectors: NDArray[np.float32] | None
    inverse: tuple[int, ...]
    firsts: tuple[int, ...]

    def on(self, device: torch.device) -> Tensor | None:
        """The vectors on a device."""
        return None if self.vectors is None else torch.tensor(self.vectors, device=device)


def prepare(
    limits: Limits,
    prompts: Sequence[FedPrompt],
    queries: Sequence[Query],
    *,
    n_answer: int | None = None,
    merge: bool = True,
) -> Request:
    """Check a call and number its prompts.

    Args:
        limits: What the model takes.
        prompts: (P,) of one kind.
        queries: (Q,) of them.
        n_answer: Tokens that the model is fed after a query; None for those of its candidates.
        merge: Whether equal prompts are computed once.

    Raises:
        ValueError: See `FrozenLM.score`.
    """
    if not prompts or not queries:
        raise ValueError(
            f"nothing to compute: {len(prompts)} prompts, {len(queries)} queries; one at least"
        )
    if n_answer is None and len({len(query.candidates) for query in queries}) > 1:
        raise ValueError("every query needs the same number of candidates")
    if n_answer is None and not queries[0].candidates:
        raise ValueError(
            "a query without candidates cannot be scored; give it candidates, or let the model "
            "write an answer with `generate`"
        )
    distinct: dict[object, int] = {}
    inverse = [
        distinct.setdefault(prompt.digest if merge else i, len(distinct))
        for i, prompt in enumerate(prompts)
    ]
    places = dict(zip(reversed(inverse), reversed(range(len(inverse))), strict=True))
    firsts = tuple(places[i] for i in range(len(distinct)))
    kept = [prompts[first] for first in firsts]
    kinds = sorted({prompt.kind for prompt in kept})
    if len(kinds) > 1:
        named = listed(f"{kind.removesuffix('s')} prompts" for kind in kinds)
        raise ValueError(f"{named} in one call; make it a call each")
    for prompt in kept:
        limits.check_prompt(prompt)
    longest = max(map(len, kept))
    if kinds == ["prefix"] and limits.behind_prefix is not None:
        limits = replace(
            limits, name=f"{limits.name} with a prefix prompt", context=limits.behind_prefix
        )
    for i, query in enumerate(queries):
        own = query.n_answer if n_answer is None else n_answer
        limits.check_query(i, query, longest, own)
        if kinds == ["prefix"]:
            limits.check_leading(query)
    if any(not q.head_ids and not q.tail_ids for q in queries) and not all(map(len, kept)):
        raise ValueError("an empty prompt in an empty text leaves nothing to answer from")
    soft = [prompt for prompt in kept if isinstance(prompt, SoftPrompt)]
    if not soft:
        ids = tuple(cast(TokenPrompt, prompt).ids for prompt in kept)
        return Request(ids, None, tuple(inverse), firsts)
    ends = np.cumsum([limits.n_vocabulary, *map(len, soft)]).tolist()
    stacked = np.concatenate([prompt.vectors for prompt in soft])
    return Request(
        tuple(tuple(range(a, b)) for a, b in pairwise(ends)), stacked, tuple(inverse), firsts
    )


def prepare_soft(limits: Limits, prompts: Sequence[FedPrompt], queries: Sequence[Query]) -> Request:
    """As `prepare`, for a gradient: each prompt is computed on its own, equal ones too.

    Raises:
        ValueError: See `FrozenLM.score_with_grad`.
    """
    if not all(isinstance(prompt, SoftPrompt) for prompt in prompts):
        raise ValueError(
            "a gradient needs soft prompts or prefix prompts; token prompts are scored with `score`"
        )
    lengths = sorted({len(prompt) for prompt in prompts})
    if len(lengths) > 1:
        raise ValueError(f"prompts of one length, got {lengths}")
    return prepare(limits, prompts, queries, merge=False)


def calls(pairs: Sequence[tuple[FedPrompt, Query]], over: Over = "vocabulary") -> list[list[int]]:
    """Places of the pairs that `join` makes one call of: those of one prefix prompt, or no such.

    Over candidates those of one token each are apart: a call in which all are is computed in
    another way, which in 16 bits makes a difference, and what is said of a pair is to depend on no
    other.
    """
    found: dict[tuple[str, bool], list[int]] = {}
    for i, (prompt, query) in enumerate(pairs):
        apart = over == "candidates" and all(len(ids) == 1 for ids in query.candidates)
        key = prompt.digest if prompt.kind == "prefix" else "", apart
        found.setdefault(key, []).append(i)
    return list(found.values()) or [[]]


def join(
    limits: Limits, pairs: Sequence[tuple[FedPrompt, Query]]
) -> tuple[Request, tuple[Query, ...]]:
    """Pairs of a prompt and its own query as a call of one empty prompt and many queries.

    Each prompt becomes the beginning of its query's tail, where tokens and vectors may stand side
    by side; a prefix prompt stays the prompt of all. Queries with fewer candidates than others have
    their last one again.

    Raises:
        ValueError: See `FrozenLM.score_pairs`.
    """
    if not pairs:
        raise ValueError("nothing to compute: 0 pairs of prompt and query; one at least")
    n_candidates = max(len(query.candidates) for _, query in pairs)
    starts: dict[str, int] = {}
    vectors: list[NDArray[np.float32]] = []
    queries: list[Query] = []
    for i, (prompt, query) in enumerate(pairs):
        if not query.candidates:
            raise ValueError(f"pair {i} has a query without candidates, which cannot be scored")
        if not query.n_text and not len(prompt):
            raise ValueError(
                f"pair {i} is an empty prompt in an empty text: nothing to answer from"
            )
        limits.check_prompt(prompt)
        limits.check_query(i, query, len(prompt), query.n_answer)
        if isinstance(prompt, TokenPrompt):
            ids = prompt.ids
        elif isinstance(prompt, PrefixPrompt):
            ids = ()
        else:
            if prompt.digest not in starts:
                starts[prompt.digest] = limits.n_vocabulary + sum(map(len, vectors))
                vectors.append(prompt.vectors)
            ids = tuple(range(starts[prompt.digest], starts[prompt.digest] + len(prompt)))
        filled = query.candidates + query.candidates[-1:] * (n_candidates - len(query.candidates))
        queries.append(Query(query.head_ids, ids + query.tail_ids, filled))
    if isinstance(pairs[0][0], PrefixPrompt):
        return prepare(limits, [pairs[0][0]], queries), tuple(queries)
    stacked = np.concatenate(vectors) if vectors else None
    return Request(((),), stacked, (0,), (0,)), tuple(queries)
