"""Calibration: takes out of class scores what the model would answer whatever the text.

Under the same prompt, a prior p over the classes is had from texts, and the score of a class is

    log p(class | text) - strength * log p(class),

normalised again. At strength 1 probabilities are divided by the prior; at 0 nothing is taken out.

Contextual: Zhao et al. 2021, "Calibrate Before Use" (arXiv 2102.09690, section 5). The texts have
no content, p_cf is their mean, W = diag(p_cf)^-1, b = 0. The authors' code averages the
probabilities over the vocabulary and normalises the mean among the classes; so does this. Where the
paper takes a softmax of the quotients, here they are divided by their sum: the same class wins, and
a prompt that favours no class is left as it is.

Batch: Zhou et al. 2024, "Batch Calibration" (ICLR, arXiv 2309.17249, section 3). The texts are
real ones without their labels, p(class) = 1/M sum_i p(class | text_i). The paper takes the texts
that are judged, and learns a strength in its few-shot variant. Here the texts are those of train,
so that an answer depends on no other text that is judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor

from rlprompt.models.lm import FrozenLM
from rlprompt.template import Query, Template
from rlprompt.types import Calibration, Ids

CALIBRATIONS: tuple[Calibration, ...] = get_args(Calibration)
# Section 5 of the paper.
CONTENT_FREE = ("N/A", "[MASK]", "")

ClassScores = Callable[[Tensor], Tensor]
"""Log-likelihoods of the label words (..., W) to scores of the classes (..., C)."""

LogPrior = Callable[[Tensor], Tensor]
"""Scores of texts (..., T, C) to the log prior of the classes (..., C)."""


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


def batch_log_prior(scores: Tensor, told: Tensor | None = None) -> Tensor:
    """Log of the mean class probability (..., C) from class scores of texts (..., T, C), nats.

    Args:
        scores: Of the texts.
        told: (..., T), which of the texts the prompt answers itself: they are left out. Where all
            are, there is no prior: all classes have as much.
    """
    chances = scores.log_softmax(-1)
    if told is None:
        return chances.logsumexp(-2) - math.log(scores.shape[-2])
    every = told.all(-1, keepdim=True)
    gone = told & ~every  # for the mean of nothing has no slope
    mean = chances.masked_fill(gone[..., None], -torch.inf).logsumexp(-2)
    mean = mean - (~gone).sum(-1, keepdim=True).to(scores).log()
    return mean.where(~every, -math.log(scores.shape[-1]))


LOG_PRIORS: Mapping[str, LogPrior] = {"contextual": log_prior, "batch": batch_log_prior}


def check_prior(prior: Tensor, classes: Sequence[str]) -> Tensor:
    """A log prior (..., C), if every class has a part in it.

    Raises:
        ValueError: A class has probability 0 in all texts, so that nothing can be divided by it.
    """
    empty = prior.isneginf().flatten(0, -2).any(0) if prior.dim() > 1 else prior.isneginf()
    if empty.any():
        names = ", ".join(repr(name) for name, none in zip(classes, empty, strict=True) if none)
        raise ValueError(
            f"the prior of {names} is 0 under every text that it is taken from, so scores cannot "
            "be divided by it; choose other label words, or set `calibration: none`"
        )
    return prior


def calibrated(scores: Tensor, prior: Tensor, strength: float = 1.0) -> Tensor:
    """Class scores (..., C) less `strength` times the log prior, normalised again, nats."""
    return (scores.log_softmax(-1) - strength * prior.to(scores)).log_softmax(-1)


def prior_weights(
    loglik: Tensor, class_scores: ClassScores, log_prior: LogPrior, slope: Tensor
) -> Tensor:
    """What one nat of each text's words changes in `slope @ log_prior`, (T, W) float64.

    A prior is a mean over texts that may be computed in different passes. Replaced by its tangent
    it is a sum over texts and words, with these weights, and so has the same gradient.

    Args:
        loglik: (T, W), what the model says to the texts.
        class_scores: How words make classes.
        log_prior: How scores of texts make a log prior.
        slope: (C,), what one nat of each class's log prior changes.
    """
    with torch.enable_grad():
        words = loglik.detach().double().requires_grad_()
        total = (log_prior(class_scores(words)) * slope).sum()
        (weights,) = torch.autograd.grad(total, words)
    return weights


def tangent(loglik: Tensor, weights: Tensor, which: Tensor) -> Tensor:
    """The tangent of a prior at texts (n,) with log-likelihoods (n, W), by `prior_weights`."""
    return (loglik * weights[which].to(loglik)).sum(-1)
