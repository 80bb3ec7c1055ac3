"""Rewards of a classification: from scores of the classes to a number an example.

Each takes (n, C) scores of the classes, log-likelihoods up to a constant, and (n,) label indices,
and returns (n,), higher is better. All but `accuracy` have a gradient almost everywhere. The rival
is found by its index, so a tie is a gap of 0 and not correct.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

RewardFunction = Callable[[Tensor, Tensor], Tensor]

# RLPrompt (Deng et al. 2022, arXiv 2205.12548, section 3.1): lambda_1 = 180, lambda_2 = 200.
WRONG, CORRECT = 180.0, 200.0
# Black-Box Tuning's hinge loss (Sun et al. 2022) has a margin of 2.
MARGIN = 2.0


def margins(values: Tensor, labels: Tensor) -> Tensor:
    """The label's value minus the highest of the others', (n,)."""
    own = values.gather(1, labels[:, None])[:, 0]
    others = values.scatter(1, labels[:, None], -torch.inf)
    return own - others.max(1).values


def gap(loglik: Tensor, labels: Tensor) -> Tensor:
    """RLPrompt's piecewise reward, in [-180, 200].

    Gap = P(label) - max over other classes; R = 180^(1 - correct) * 200^correct * Gap.
    """
    difference = margins(loglik.softmax(-1), labels)
    return torch.where(difference > 0, CORRECT, WRONG) * difference


def cross_entropy(loglik: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of the label among the candidates, nats, <= 0."""
    return loglik.log_softmax(-1).gather(1, labels[:, None])[:, 0]


def hinge(loglik: Tensor, labels: Tensor) -> Tensor:
    """Minus the sum over rivals of max(0, margin - (label - rival)), <= 0; margin 2 nats."""
    own = loglik.gather(1, labels[:, None])
    losses = (MARGIN - own + loglik).clamp_min(0)
    return -losses.scatter(1, labels[:, None], 0).sum(1)


def accuracy(loglik: Tensor, labels: Tensor) -> Tensor:
    """1 where the label beats every rival, else 0; NaN where a log-likelihood is."""
    difference = margins(loglik, labels)
    return (difference > 0).to(loglik.dtype).masked_fill(difference.isnan(), torch.nan)


REWARDS: Mapping[str, RewardFunction] = {
    "gap": gap,
    "cross_entropy": cross_entropy,
    "hinge": hinge,
    "accuracy": accuracy,
}
