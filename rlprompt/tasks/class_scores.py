"""Scores of classes under prompts, calibrated or not, the rewards made of them, and gradients.

A reward takes (n, C) scores of the classes, log-likelihoods up to a constant, and (n,) label
indices, and returns (n,), higher is better. All but `accuracy` have a gradient almost everywhere.
The rival is found by its index, so a tie is a gap of 0 and not correct.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt
from rlprompt.tasks.calibration import calibrated, content_free_queries, log_prior, prior_gradient
from rlprompt.tasks.verbaliser import Verbaliser
from rlprompt.template import Query, Template
from rlprompt.types import Ids

ClassReward = Callable[[Tensor, Tensor], Tensor]
"""Scores (n, C) of the classes and (n,) indices, of labels or of queries, to rewards (n,)."""

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


REWARDS: Mapping[str, ClassReward] = {
    "gap": gap,
    "cross_entropy": cross_entropy,
    "hinge": hinge,
    "accuracy": accuracy,
}


@dataclass(frozen=True)
class ClassScorer:
    """What a model says of the classes.

    Args:
        lm: The frozen model.
        template: Where text, prompt and answer go.
        verbaliser: How words make classes.
        calibrating: Whether scores are calibrated by texts without content.
    """

    lm: FrozenLM
    template: Template
    verbaliser: Verbaliser
    calibrating: bool

    @property
    def candidates(self) -> tuple[Ids, ...]:
        """Ids of all label words, class by class.

        Raises:
            ValueError: The tokenizer spells two words alike.
        """
        words = self.verbaliser.encode(self.lm, self.template.answer_prefix)
        return tuple(word.ids for word in words)

    def scores(self, prompts: Sequence[Prompt], queries: Sequence[Query]) -> Tensor:
        """Scores (P, Q, C) float64, log-probabilities up to a constant, nats."""
        loglik = self.lm.score(prompts, queries, over=self.verbaliser.over)
        scores = self._classes(loglik.double())
        if not self.calibrating:
            return scores
        free = self.lm.score(prompts, self._content_free())
        return calibrated(scores, log_prior(self._classes(free.double()))[:, None])

    def scores_with_grad(
        self, prompts: Sequence[SoftPrompt], queries: Sequence[Query], reward: ClassReward
    ) -> tuple[Tensor, Tensor]:
        """Scores (P, Q, C) float64, and the gradient (P, L, H) of each prompt's summed rewards.

        Calibrated, the prior's part of the gradient is in it, and the texts without content run
        forward once more than a gradient is charged for.
        """
        if not self.calibrating:
            return self._with_grad(prompts, queries, reward)
        # One by one: a reward is told which query it is for, but not which prompt.
        parts = [self._calibrated_with_grad(prompt, queries, reward) for prompt in prompts]
        scores, grads = zip(*parts, strict=True)
        return torch.cat(scores), torch.cat(grads)

    def _with_grad(
        self, prompts: Sequence[SoftPrompt], queries: Sequence[Query], reward: ClassReward
    ) -> tuple[Tensor, Tensor]:
        def of_words(loglik: Tensor, which: NDArray[np.int64]) -> Tensor:
            return reward(self._classes(loglik), torch.from_numpy(which))

        over = self.verbaliser.over
        loglik, grad = self.lm.score_with_grad(prompts, queries, of_words, over=over)
        return self._classes(loglik.double()), grad

    def _calibrated_with_grad(
        self, prompt: SoftPrompt, queries: Sequence[Query], reward: ClassReward
    ) -> tuple[Tensor, Tensor]:
        """As `scores_with_grad`, for one prompt."""
        free_queries = self._content_free()
        free = self.lm.score([prompt], free_queries)[0]
        prior = log_prior(self._classes(free.double()))
        scores, grad = self._with_grad(
            [prompt], queries, lambda scores, which: reward(calibrated(scores, prior), which)
        )
        with torch.enable_grad():
            moved = prior.clone().requires_grad_()
            rewards = reward(calibrated(scores[0], moved), torch.arange(len(queries)))
            (slope,) = torch.autograd.grad(rewards.sum(), moved)
        grad = grad + prior_gradient(self.lm, prompt, free_queries, free, self._classes, slope)
        return calibrated(scores, prior), grad

    def _content_free(self) -> list[Query]:
        return content_free_queries(self.lm, self.template, self.candidates)

    def _classes(self, loglik: Tensor) -> Tensor:
        """Scores (..., C) from log-likelihoods of all words (..., W)."""
        return self.verbaliser.class_scores(loglik, self.candidates)
