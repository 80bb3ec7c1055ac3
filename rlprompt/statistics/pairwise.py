"""Every search against every other: the differences, corrected as one family, and who leads."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlprompt.statistics.nested import LEVEL
from rlprompt.statistics.paired import Difference, compare_runs, holm, seeds_needed
from rlprompt.types import Floats


@dataclass(frozen=True)
class Pair:
    """Two searches, or a search and a control.

    Attributes:
        first: A search.
        second: The other.
        difference: First minus second.
        adjusted_p: Holm's, among all pairs of searches, or all of a search and a control; None
            where nothing was tested.
        seeds_needed: Seeds a task that would settle it, if the difference is what it seems; None
            where that cannot be said or it is settled.
    """

    first: str
    second: str
    difference: Difference
    adjusted_p: float | None
    seeds_needed: int | None

    @property
    def settled(self) -> bool:
        """Whether it may be said which of the two is higher; the interval then excludes 0."""
        return self.adjusted_p is not None and self.adjusted_p < LEVEL

    def flipped(self) -> Pair:
        """The other one first."""
        difference = self.difference.flipped()
        return Pair(self.second, self.first, difference, self.adjusted_p, self.seeds_needed)


def compare_all(
    given: Sequence[tuple[str, str, Floats, Floats]], draws: Sequence[Hashable] | None = None
) -> tuple[Pair, ...]:
    """Comparisons, corrected as one family; those that share no (task, seed) are left out.

    Args:
        given: First, second, and the scores of each, as for `compare_runs`.
        draws: As for `compare_runs`.

    >>> high, low = np.full((6, 1), 0.8), np.full((6, 1), 0.7)
    >>> (pair,) = compare_all([("high", "low", high, low)])
    >>> pair.settled, pair.adjusted_p
    (True, 0.03125)
    """
    shared = [one for one in given if not np.isnan(one[2] - one[3]).all()]
    found = [compare_runs(x, y, draws=draws) for _, _, x, y in shared]
    # What could not be tested was asked all the same.
    adjusted = holm([1.0 if one.p is None else one.p for one in found])
    pairs = []
    for (first, second, x, y), difference, p in zip(shared, found, adjusted, strict=True):
        # At this level it is settled however the other pairs turn out.
        seeds = None
        if p >= LEVEL:
            seeds = seeds_needed(x - y, alpha=LEVEL / len(found), draws=draws)
        pairs.append(Pair(first, second, difference, None if difference.p is None else p, seeds))
    return tuple(pairs)


def pairs_of(pairs: Sequence[Pair], name: str | None) -> tuple[Pair, ...]:
    """Those of one search with every other, itself first; none for None.

    >>> high, low = np.full((6, 1), 0.8), np.full((6, 1), 0.7)
    >>> (pair,) = pairs_of(compare_all([("high", "low", high, low)]), "low")
    >>> pair.first, round(pair.difference.mean, 3)
    ('low', -0.1)
    """
    own = (pair for pair in pairs if name in (pair.first, pair.second))
    return tuple(pair if pair.first == name else pair.flipped() for pair in own)


def highest(scored: Mapping[str, Floats], pairs: Sequence[Pair]) -> str | None:
    """The search whose smallest difference to another is highest; among equals the first.

    Without gaps it has the highest mean. With gaps, means are of different runs, and this finds the
    search that no other is above, if there is one.

    >>> scored = {"low": np.full((6, 1), 0.7), "high": np.full((6, 1), 0.8)}
    >>> highest(scored, compare_all([("low", "high", scored["low"], scored["high"])]))
    'high'
    """
    if len(scored) == 1:
        return next(iter(scored))
    standing = {
        # Rounded: equals may differ in the last digits.
        name: round(min(pair.difference.mean for pair in own), 12)
        for name in scored
        if (own := pairs_of(pairs, name))
    }
    return max(standing, key=standing.__getitem__, default=None)
