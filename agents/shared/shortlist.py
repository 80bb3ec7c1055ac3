"""Tokens that a gradient and a model hold to be promising."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlprompt.types import Floats


def shortlist(
    gains: NDArray[np.floating], written: NDArray[np.floating], weight: float, top_k: int
) -> NDArray[np.int64]:
    """The most promising tokens at each position, (L, K) columns, the best first.

    By what the gradient says each would bring, (L, N), and the model's log-probabilities, (L, N),
    with their weight, both in standard deviations of their rows. Of equals the earlier is first.
    """
    scores = _standard(gains) + weight * _standard(written)
    return np.argsort(-scores, axis=1, kind="stable")[:, :top_k]


def _standard(rows: NDArray[np.floating]) -> Floats:
    centred = rows - rows.mean(axis=1, keepdims=True, dtype=np.float64)
    spread = centred.std(axis=1, keepdims=True)
    standard: Floats = centred / np.where(spread > 0, spread, 1)
    return standard
