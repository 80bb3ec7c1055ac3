"""How a policy that writes chooses among its actions: all tokens, and behind them often a stop."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def likeliest(logits: Tensor, stop: int) -> Tensor:
    """The likeliest action of each row of (B, A), (B,): first whether to stop, then which token.

    A stop has to be likelier than all tokens together: against each of them alone it would win the
    more often the more there are.

    >>> likeliest(torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]]).log(), stop=2)
    tensor([0, 2])
    """
    tokens = logits[:, :stop]
    stops = logits[:, stop:].logsumexp(1) > tokens.logsumexp(1)
    return tokens.argmax(1).masked_fill(stops, stop)


def cut(logits: Tensor, top_k: int, stop: int) -> Tensor:
    """Log-probabilities of actions with all but the likeliest tokens left out, (B, A).

    Those that are kept share what all tokens had: a stop keeps its probability.

    >>> cut(torch.tensor([[4.0, 3.0, 1.0, 2.0]]).log(), top_k=2, stop=3).exp()
    tensor([[0.4571, 0.3429, 0.0000, 0.2000]])
    """
    chances = logits.log_softmax(1)
    tokens = chances[:, :stop]
    best = tokens.topk(top_k)  # not `truncated`, whose sort keeps other equals at the k-th place
    kept = best.values.log_softmax(1) + tokens.logsumexp(1, keepdim=True)
    none = torch.full_like(tokens, -math.inf)
    return torch.cat([none.scatter(1, best.indices, kept), chances[:, stop:]], 1)
