"""Which prompts are the best somewhere: parents that know different things."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlprompt.types import Floats


def front(per_example: Floats) -> NDArray[np.int64]:
    """On how many examples each prompt of the front is the best, 0 off the front.

    The front of GEPA (Agrawal et al. 2025, arXiv 2507.19457, algorithm 2), as its released code has
    it: on each example the prompts of the highest reward, several where they tie; then, the worst
    mean first, every prompt is left out without which each example still has one of its best. A
    prompt that is like another on all examples thus counts once.

    >>> front(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 0.0]])).tolist()
    [1, 2, 0]

    Args:
        per_example: (P, E) rewards, P and E 1 or more.

    Returns:
        (P,) counts; one of them at least is above 0.
    """
    best = per_example == per_example.max(axis=0)
    staying = best.any(axis=1)
    # Of equal means the later goes first: what came earlier stays.
    for place in np.lexsort((-np.arange(len(best)), per_example.mean(axis=1))):
        others = staying.copy()
        others[place] = False
        if staying[place] and best[others][:, best[place]].any(axis=0).all():
            staying = others
    return np.where(staying, best.sum(axis=1), 0)
