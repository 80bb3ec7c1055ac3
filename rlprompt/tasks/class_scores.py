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
from rlprompt.models.scorer import Over
from rlprompt.prompt import Prompt, SoftPrompt
from rlprompt.tasks.calibration import (
    LOG_PRIORS,
    batch_log_prior,
    calibrated,
    check_prior,
    content_free_queries,
    prior_weights,
    tangent,
)
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


def answered(loglik: Tensor) -> Tensor:
    """Index of the class that beats every other, (...); -1 where none does, as in a tie.

    Of scores (..., C). It is the label's where `accuracy` is 1, and depends on no order of the
    classes; whatever a prompt answers, in a search or in use, is told by this.
    """
    first, second = loglik.topk(2, -1).values.unbind(-1)
    return torch.where(first > second, loglik.argmax(-1), -1)


REWARDS: Mapping[str, ClassReward] = {
    "gap": gap,
    "cross_entropy": cross_entropy,
    "hinge": hinge,
    "accuracy": accuracy,
}


def has_slope(reward: str) -> bool:
    """Whether one of `REWARDS` has a gradient: `accuracy` is flat wherever it is not a step."""
    return reward != "accuracy"


def check_slope(reward: str) -> None:
    """Refuse the gradient of a reward that has none.

    Raises:
        ValueError: The reward is `accuracy`.
    """
    if not has_slope(reward):
        raise ValueError(
            f"the reward {reward} has no gradient; set it to one of "
            f"{', '.join(filter(has_slope, REWARDS))}, or set `loss: cross_entropy` of the method"
        )


@dataclass(frozen=True)
class ClassScorer:
    """What a model says of the classes.

    Args:
        lm: The frozen model.
        template: Where text, prompt and answer go.
        verbaliser: How words make classes.
        calibration: `none`, `contextual` or `batch`.
        strength: How many times the log prior is taken out, 0 to 1.
    """

    lm: FrozenLM
    template: Template
    verbaliser: Verbaliser
    calibration: str = "none"
    strength: float = 1.0

    @property
    def candidates(self) -> tuple[Ids, ...]:
        """Ids of all label words, class by class.

        Raises:
            ValueError: The tokenizer spells two words alike.
        """
        words = self.verbaliser.encode(self.lm, self.template)
        return tuple(word.ids for word in words)

    def scores(
        self,
        prompts: Sequence[Prompt],
        queries: Sequence[Query],
        train: Sequence[Query] = (),
        prior: Tensor | None = None,
        told: NDArray[np.bool_] | None = None,
    ) -> Tensor:
        """Scores (P, Q, C) float64, log-probabilities up to a constant, nats.

        Args:
            prompts: (P,) of them.
            queries: (Q,) texts.
            train: Texts whose mean is the prior of batch calibration; without any it is that of
                the queries themselves.
            prior: Log prior (P, C) of the prompts, where it is known.
            told: Which of the texts of batch calibration each prompt answers itself, (P, T).

        Raises:
            ValueError: A class has no part in the prior.
        """
        found = self._classes(self._loglik(prompts, queries))
        return self.taken_out(found, prompts, train, prior, told)

    def taken_out(
        self,
        scores: Tensor,
        prompts: Sequence[Prompt],
        train: Sequence[Query] = (),
        prior: Tensor | None = None,
        told: NDArray[np.bool_] | None = None,
    ) -> Tensor:
        """What `scores` gives, from scores (P, Q, C) without calibration."""
        if self.calibration == "none":
            return scores
        if prior is None and self.calibration == "batch" and not train:
            prior = self._log_prior(scores, told)
        elif prior is None:
            prior = self.prior(prompts, train, told)
        return calibrated(scores, prior[:, None], self.strength)

    def prior(
        self,
        prompts: Sequence[Prompt],
        train: Sequence[Query],
        told: NDArray[np.bool_] | None = None,
    ) -> Tensor:
        """Log prior of the classes under each prompt, (P, C) float64, nats.

        Args:
            prompts: (P,) of them.
            train: As for `scores`, one at least; contextual calibration has texts of its own.
            told: As for `scores`.

        Raises:
            ValueError: A class has no part in it.
        """
        texts, over = self._prior_texts(train)
        return self._log_prior(self._classes(self._loglik(prompts, texts, over)), told)

    def scores_with_grad(
        self,
        prompts: Sequence[SoftPrompt],
        queries: Sequence[Query],
        reward: ClassReward,
        train: Sequence[Query] = (),
        told: NDArray[np.bool_] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Scores (P, Q, C) float64, and the gradient (P, L, H) of each prompt's summed rewards.

        Calibrated, the prior's part of the gradient is in it. The texts that the prior is made of
        run forward once before that: those without content, or in batch calibration the queries
        themselves.
        """
        if self.calibration == "none":
            return self._with_grad(prompts, queries, reward)
        # One by one: a reward is told which query it is for, but not which prompt.
        shown = [None] * len(prompts) if told is None else told
        parts = [
            self._calibrated_with_grad(one, queries, reward, train, own)
            for one, own in zip(prompts, shown, strict=True)
        ]
        scores, grads = zip(*parts, strict=True)
        return torch.cat(scores), torch.cat(grads)

    def _with_grad(
        self,
        prompts: Sequence[SoftPrompt],
        queries: Sequence[Query],
        reward: ClassReward,
        weights: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Scores and gradient; `weights` (Q, W) add what the queries' words do to a prior."""

        def of_words(loglik: Tensor, which: NDArray[np.int64]) -> Tensor:
            places = torch.from_numpy(which)
            rewards = reward(self._classes(loglik), places)
            return rewards if weights is None else rewards + tangent(loglik, weights, places)

        over = self.verbaliser.over
        loglik, grad = self.lm.score_with_grad(prompts, queries, of_words, over=over)
        return self._classes(loglik.double()), grad

    def _calibrated_with_grad(
        self,
        prompt: SoftPrompt,
        queries: Sequence[Query],
        reward: ClassReward,
        train: Sequence[Query],
        told: NDArray[np.bool_] | None,
    ) -> tuple[Tensor, Tensor]:
        """As `scores_with_grad`, for one prompt."""

        def log_prior(scores: Tensor) -> Tensor:
            return self._log_prior(scores, told)

        own = self.calibration == "batch" and not train
        texts, over = self._prior_texts(queries if own else train)
        loglik = self._loglik([prompt], texts, over)[0]
        prior = log_prior(self._classes(loglik))

        def of_scores(scores: Tensor, which: Tensor) -> Tensor:
            return reward(calibrated(scores, prior, self.strength), which)

        if not own:
            scores, grad = self._with_grad([prompt], queries, of_scores)
        # What the queries say: where they make the prior, that is known before the gradient.
        known = self._classes(loglik) if own else scores[0]
        with torch.enable_grad():
            moved = prior.clone().requires_grad_()
            found = calibrated(known, moved, self.strength)
            (slope,) = torch.autograd.grad(reward(found, torch.arange(len(queries))).sum(), moved)
        weights = prior_weights(loglik, self._classes, log_prior, slope)
        if own:
            scores, grad = self._with_grad([prompt], queries, of_scores, weights)
        else:

            def of_words(loglik: Tensor, which: NDArray[np.int64]) -> Tensor:
                return tangent(loglik, weights, torch.from_numpy(which))

            grad = grad + self.lm.score_with_grad([prompt], texts, of_words, over=over)[1]
        return calibrated(scores, prior, self.strength), grad

    def _prior_texts(self, train: Sequence[Query]) -> tuple[Sequence[Query], Over]:
        """Texts that the prior is made of, and what their words are normalised over."""
        if self.calibration == "batch":
            return train, self.verbaliser.over
        return content_free_queries(self.lm, self.template, self.candidates), "vocabulary"

    def _log_prior(self, scores: Tensor, told: NDArray[np.bool_] | None = None) -> Tensor:
        if told is not None and told.any() and self.calibration == "batch":
            found = batch_log_prior(scores, torch.from_numpy(told))
        else:
            found = LOG_PRIORS[self.calibration](scores)
        return check_prior(found, list(self.verbaliser.words))

    def _loglik(
        self, prompts: Sequence[Prompt], queries: Sequence[Query], over: Over | None = None
    ) -> Tensor:
        """Log-likelihoods of all words (P, Q, W) float64."""
        return self.lm.score(prompts, queries, over=over or self.verbaliser.over).double()

    def _classes(self, loglik: Tensor) -> Tensor:
        """Scores (..., C) from log-likelihoods of all words (..., W)."""
        return self.verbaliser.class_scores(loglik, self.candidates)
