"""Parts of the train examples: asked for by their places, and put together again.

A mean over some examples is no guess at the mean over all that may stand beside it: another part is
harder or easier. So it is kept apart until the same prompt has been scored on all of them.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from rlprompt.data.examples import Example
from rlprompt.prompt import Prompt
from rlprompt.types import Floats, Outputs


@dataclass(frozen=True)
class Block(Sequence[Prompt]):
    """A batch of prompts that are to be scored on some train examples (`AskTell.ask`).

    >>> from rlprompt import TokenPrompt
    >>> block = Block([TokenPrompt((5,)), TokenPrompt((6, 7))], examples=(0, 2))
    >>> len(block), block[1]
    (2, TokenPrompt(ids=(6, 7)))

    Args:
        prompts: (P,) of them.
        examples: Places in train, as for `Objective.evaluate`.
    """

    prompts: Sequence[Prompt]
    examples: Sequence[int]

    def __len__(self) -> int:
        return len(self.prompts)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Prompt]: ...

    def __getitem__(self, index: int | slice) -> Prompt | Sequence[Prompt]:
        return self.prompts[index]


def checked_places(examples: Sequence[int], n_examples: int) -> tuple[int, ...] | None:
    """The places of a block; None where it is all examples in their order.

    >>> checked_places([2, 0], 3)
    (2, 0)
    >>> checked_places([0, 0], 3)
    Traceback (most recent call last):
    ValueError: examples are distinct places, and [0] are given more than once in [0, 0]; ...

    Raises:
        ValueError: There are none, or one is out of range or given twice.
    """
    places = tuple(map(operator.index, examples))
    if not places:
        raise ValueError(
            f"a block has one example or more, got none; give places in 0 to {n_examples - 1}, or "
            "None for all"
        )
    outside = [place for place in places if not 0 <= place < n_examples]
    if outside:
        raise ValueError(
            f"there is no train example at {outside}; {n_examples} examples have the places 0 to "
            f"{n_examples - 1}"
        )
    repeated = sorted({place for place in places if places.count(place) > 1})
    if repeated:
        raise ValueError(
            f"examples are distinct places, and {repeated} are given more than once in "
            f"{list(places)}; give each once"
        )
    return None if places == tuple(range(n_examples)) else places


class PartialRewards:
    """Rewards of prompts on parts of the examples, until all parts of one are there.

    >>> partial = PartialRewards(3)
    >>> partial.add("a prompt", [0, 2], np.array([1.0, 3.0]))
    >>> partial.add("a prompt", [1], np.array([2.0]))
    2.0

    Args:
        n_examples: Train examples, E.
        add_up: Whether parts make up the whole (not where `Task.scored_together`); if not, none
            ever do here.
    """

    def __init__(self, n_examples: int, add_up: bool = True) -> None:
        self._n_examples = n_examples
        self._add_up = add_up
        # By the prompt's content hash; NaN where it has not been scored. Never changed in place.
        self._known: dict[str, Floats] = {}

    def copy(self) -> PartialRewards:
        """Another with the same rewards, which goes its own way."""
        made = PartialRewards(self._n_examples, self._add_up)
        made._known = dict(self._known)
        return made

    def add(self, digest: str, places: Sequence[int], rewards: Floats) -> float | None:
        """Note what a prompt earned on some examples.

        Args:
            digest: The prompt's content hash.
            places: Of the examples.
            rewards: On each of them, finite. What was known of one stays.

        Returns:
            The mean over all E examples, once there is a reward for each: then they are forgotten
            here, and the prompt begins anew. Else None.
        """
        if not self._add_up:
            return None
        known = self._known.pop(digest, np.full(self._n_examples, np.nan)).copy()
        where = np.asarray(places)
        new = np.isnan(known[where])
        known[where[new]] = rewards[new]
        if not np.isnan(known).any():
            return float(known.mean())
        self._known[digest] = known
        return None


class AskedBlock:
    """The examples of one call.

    Args:
        asked: Their places, None for all in their order.
        train: All there are.

    Attributes:
        part: The places in ascending order, as the task is asked and answers are kept: the same
            examples in another order are the same question. None for all.
        examples: In that order.
    """

    def __init__(self, asked: tuple[int, ...] | None, train: tuple[Example, ...]) -> None:
        self.asked = asked
        self.size = len(train if asked is None else asked)
        self.part = None if self.size == len(train) else tuple(sorted(asked or ()))
        self.examples = train if self.part is None else tuple(train[i] for i in self.part)

    def as_asked(self, per_example: Floats) -> Floats:
        """Rewards (P, E) in the order in which the examples were asked for."""
        if self.asked is None:
            return per_example
        # Row by row in memory, see `Objective._ask`.
        return np.ascontiguousarray(per_example[:, self._order])

    def texts_as_asked(self, texts: Sequence[Sequence[str]]) -> Outputs:
        """Texts (P, E) in the order in which the examples were asked for."""
        if self.asked is None:
            return tuple(map(tuple, texts))
        return tuple(tuple(row[i] for i in self._order) for row in texts)

    @property
    def _order(self) -> NDArray[np.int64]:
        """Where each place stands among the ascending ones."""
        return np.argsort(np.argsort(np.array(self.asked)))
