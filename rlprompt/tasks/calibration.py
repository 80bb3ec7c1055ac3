"""Contextual calibration: takes out what the model would answer to no text at all.

Zhao et al. 2021, "Calibrate Before Use" (arXiv 2102.09690, section 5): under the same prompt, texts
without content get class probabilities too. Their mean is p_cf, and a class's probability is
divided by its own p_cf, W = diag(p_cf)^-1, b = 0. The authors' code averages the probabilities
over the vocabulary and normalises the mean among the classes; so does this. Where the paper takes
a softmax of the quotients, here they are divided by their sum: the same class wins, and a prompt
that favours no class is left as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from numpy import int64
from numpy.typing import NDArray
from torch import Tensor

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import SoftPrompt
from rlprompt.template import Query, Template
from rlprompt.types import Ids

CALIBRATIONS = ("none", "contextual")
# Section 5 of the paper.
CONTENT_FREE = ("N/A", "[MASK]", "")

ClassScores = Callable[[Tensor], Tensor]
"""Log-likelihoods of the label words (..., W) to scores of the classes (..., C)."""


def content_free_texts(template: Template) -> tuple[str, ...]:
    """What stands in every field to calibrate, (F,).

    No empty text in a template without words of its own: where nothing at all precedes the prompt
    or the answer, the model speaks of how texts begin, and an empty prompt leaves it nothing to
    speak from.
    """
    return tuple(text for text in CONTENT_FREE if text or template.has_words)


def content_free_queries(
    lm: FrozenLM, template: Template, candidates: Sequence[Ids]
) -> list[Query]:
    """The texts without content, (F,), as the model sees them.

    A masked model's own mask is spelt in small letters: it would be one more place to answer at.
    """
    queries = []
    for text in content_free_texts(template):
        shown = text.lower() if lm.mask_id in lm.encode(text) else text
        queries.append(template.query(dict.fromkeys(template.fields, shown), lm, candidates))
    return queries


def log_prior(scores: Tensor) -> Tensor:
    """Log of p_cf (..., C) from class scores of the content-free texts (..., F, C), nats.

    Scores are log-probabilities over the vocabulary; p_cf is their mean, normalised among the
    classes.
    """
    return (scores.logsumexp(-2) - math.log(scores.shape[-2])).log_softmax(-1)


def calibrated(scores: Tensor, prior: Tensor) -> Tensor:
    """Class scores (..., C) divided by the prior (both as logarithms), normalised again."""
    return (scores.log_softmax(-1) - prior.to(scores)).log_softmax(-1)


def prior_gradient(
    lm: FrozenLM,
    prompt: SoftPrompt,
    queries: Sequence[Query],
    loglik: Tensor,
    class_scores: ClassScores,
    slope: Tensor,
) -> Tensor:
    """Gradient of `slope @ log_prior` with respect to a soft prompt, (L, H) float32.

    The prior is a mean over texts that may be computed in different passes, so it is replaced by
    its tangent: a sum over texts and words, with weights taken at the known log-likelihoods.

    Args:
        lm: The model.
        prompt: The prompt.
        queries: (F,) of `content_free_queries`.
        loglik: (F, W), what the model says to them.
        class_scores: How words make classes.
        slope: (C,), what one nat of each class's log prior changes.
    """
    with torch.enable_grad():
        words = loglik.detach().double().requires_grad_()
        total = (log_prior(class_scores(words)) * slope).sum()
        (weights,) = torch.autograd.grad(total, words)

    def tangent(loglik: Tensor, which: NDArray[int64]) -> Tensor:
        return (loglik * weights[torch.from_numpy(which)].to(loglik)).sum(-1)

    return lm.score_with_grad([prompt], queries, tangent)[1][0]
