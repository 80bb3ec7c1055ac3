"""Metrics of the classes that were answered to a set of texts, which are no means over the texts.

Each takes labels and answers (E,) and gives a number, higher is better, in which a class that is
rare weighs as much as one that is common. They are scikit-learn's, but for `NO_ANSWER`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

# Share of the labels above which a class is rightly answered nearly always, and accuracy says
# little of the other classes.
COMMON = 0.75

# What is answered where no class beats every other: no class, and never right.
NO_ANSWER = ""

SetMetric = Callable[[Sequence[str], Sequence[str]], float]


def balanced_accuracy(labels: Sequence[str], answers: Sequence[str]) -> float:
    """Mean over the classes that occur as labels of the share that is answered right, in [0, 1].

    scikit-learn's `balanced_accuracy_score` (Brodersen et al. 2010).

    >>> balanced_accuracy(["ok", "ok", "ok", "fraud"], ["ok"] * 4)
    0.5
    """
    counts = _confusion(labels, answers)
    own = counts.sum(1)
    return float((counts.diagonal()[own > 0] / own[own > 0]).mean())


def macro_f1(labels: Sequence[str], answers: Sequence[str]) -> float:
    """Mean over classes of 2 TP / (2 TP + FP + FN), in [0, 1].

    scikit-learn's `f1_score(average="macro")`: over the classes that occur as label or answer.

    >>> round(macro_f1(["ok", "ok", "ok", "fraud"], ["ok"] * 4), 4)  # (6 / 7 + 0) / 2
    0.4286
    """
    counts = _confusion(labels, answers)
    each = 2 * counts.diagonal() / (counts.sum(0) + counts.sum(1))
    # Sorted, it is the first of those that occur.
    return float(each[NO_ANSWER in answers :].mean())


def mcc(labels: Sequence[str], answers: Sequence[str]) -> float:
    """Matthews' correlation of labels and answers, in [-1, 1]; 0 where one of them is all alike.

    scikit-learn's `matthews_corrcoef`, of several classes by Gorodkin 2004
    (https://doi.org/10.1016/j.compbiolchem.2004.09.006): (c s - sum p t) / sqrt((s^2 - sum p^2)
    (s^2 - sum t^2)) of s examples, c of them right, p answers and t labels a class.

    >>> mcc(["ok", "ok", "fraud", "fraud"], ["ok", "ok", "fraud", "ok"])
    0.5773502691896258
    """
    counts = _confusion(labels, answers)
    n, right = counts.sum(), counts.trace()
    given, true = counts.sum(0), counts.sum(1)
    spread = float((n**2 - given @ given) * (n**2 - true @ true))
    return float(n * right - given @ true) / spread**0.5 if spread else 0.0


SET_METRICS: Mapping[str, SetMetric] = {
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "mcc": mcc,
}


def _confusion(labels: Sequence[str], answers: Sequence[str]) -> NDArray[np.int64]:
    """How often each class (rows) is answered by each (columns), of those that occur, (C, C)."""
    places = {name: i for i, name in enumerate(sorted({*labels, *answers}))}
    counts = np.zeros((len(places), len(places)), dtype=np.int64)
    for label, answer in zip(labels, answers, strict=True):
        counts[places[label], places[answer]] += 1
    return counts
