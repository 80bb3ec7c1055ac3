"""What may be done to a prompt in one step, by number."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from rlprompt.envs.episodes import Flags
from rlprompt.prompt import TokenPrompt
from rlprompt.search.space import TokenSpace

EditKind = Literal["replace", "insert", "delete", "swap", "stop"]
KINDS: tuple[EditKind, ...] = get_args(EditKind)


class Edit(NamedTuple):
    """One thing that may be done.

    >>> Edit("insert", 1, 7).applied(TokenPrompt((3, 4)))
    TokenPrompt(ids=(3, 7, 4))
    >>> Edit("swap", 0, 1).applied(TokenPrompt((3, 4)))
    TokenPrompt(ids=(4, 3))

    Attributes:
        kind: What is done.
        place: Where, 0 for the first token; what is inserted comes before the token there.
        other: The token that is put there, or the later place to swap with.
    """

    kind: EditKind
    place: int = 0
    other: int = 0

    def applied(self, prompt: TokenPrompt) -> TokenPrompt:
        """The prompt after the edit, where that is possible."""
        place, other = self.place, self.other
        match self.kind:
            case "replace":
                return prompt.replaced(place, other)
            case "insert":
                return prompt.inserted(place, other)
            case "delete":
                return prompt.without(place)
            case "swap":
                first, second = prompt.ids[place], prompt.ids[other]
                return prompt.replaced(place, second).replaced(other, first)
            case "stop":
                return prompt


@dataclass(frozen=True, eq=False)
class Edits:
    """All edits of the prompts of a space: replace, insert, delete, swap, and last of all stop.

    Within a kind they go place by place, and at a place token by token. Where all prompts have one
    length, nothing is inserted and nothing deleted.

    >>> edits = Edits(TokenSpace(2, [5, 9], shortest=1), np.array([5, 9]))
    >>> [len([edit for edit in edits.every if edit.kind == kind]) for kind in KINDS]
    [4, 4, 2, 1, 1]
    >>> here = edits.possible(np.array([[5, 0]]), np.array([1]))[0]
    >>> [tuple(edits.every[i]) for i in np.flatnonzero(here)[:3]]
    [('replace', 0, 9), ('insert', 0, 5), ('insert', 0, 9)]

    Args:
        space: Lengths.
        tokens: (K,) ids that edits may put in, ascending.
    """

    space: TokenSpace
    tokens: NDArray[np.int64]

    @cached_property
    def pairs(self) -> NDArray[np.int64]:
        """Places that may be swapped, (P, 2), the earlier first."""
        pairs = list(combinations(range(self.space.length), 2))
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)

    @cached_property
    def every(self) -> tuple[Edit, ...]:
        """The edits by their numbers, A of them."""
        places, tokens = range(self.space.length), self.tokens.tolist()
        edits = [Edit("replace", place, token) for place in places for token in tokens]
        if self.space.varies:
            edits += [Edit("insert", place, token) for place in places for token in tokens]
            edits += [Edit("delete", place) for place in places]
        edits += [Edit("swap", first, second) for first, second in self.pairs.tolist()]
        return (*edits, Edit("stop"))

    def possible(self, ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> Flags:
        """Which edits make another prompt of the space, or stop, (B, A).

        Args:
            ids: (B, L) tokens, anything behind the last.
            lengths: (B,) how many there are.
        """
        place, length = np.arange(self.space.length), lengths[:, None]
        there = place < length
        blocks = [there[:, :, None] & (ids[:, :, None] != self.tokens)]
        if self.space.varies:
            room = (place <= length) & (length < self.space.length)
            blocks += [
                np.repeat(room[:, :, None], len(self.tokens), axis=2),
                there & (length > self.space.shortest),
            ]
        first, second = self.pairs.T
        blocks += [
            (second < length) & (ids[:, first] != ids[:, second]),
            np.ones((len(ids), 1), dtype=np.bool_),
        ]
        return np.concatenate([block.reshape(len(ids), -1) for block in blocks], axis=1)
