"""What a prompt is worth: a task turns prompts and examples into rewards.

A task is pure: no counters, no modes, no randomness, no statistics of the batch. Scaling and
baselines belong to the optimisers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol, cast, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlprompt.calibration import (
    CALIBRATIONS,
    calibrated,
    content_free_queries,
    content_free_texts,
    log_prior,
    prior_gradient,
)
from rlprompt.class_reward import REWARDS, accuracy
from rlprompt.data import Example, Splits
from rlprompt.lm import FrozenLM
from rlprompt.packing import Ids
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.template import Query, Template
from rlprompt.verbaliser import LabelWordReport, LabelWords, Verbaliser

Floats = NDArray[np.float64]
Outputs = tuple[tuple[str, ...], ...]


@runtime_checkable
class Task(Protocol):
    """A reward for prompts, with the examples it is measured on.

    Attributes:
        name: What results call it.
        splits: Its examples.
        fingerprint: Hash of all that decides a reward besides the model and the prompt.
    """

    @property
    def name(self) -> str:
        """What results call the task."""
        ...

    @property
    def splits(self) -> Splits:
        """The task's examples."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides a reward besides the model and the prompt."""
        ...

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        """Reward of each prompt (P,) on each example (E,): (P, E), higher is better."""
        ...


@runtime_checkable
class DifferentiableTask(Task, Protocol):
    """A task whose reward has a gradient with respect to a soft prompt."""

    def rewards_with_grad(
        self, lm: FrozenLM, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, NDArray[np.float32]]:
        """Rewards (P, E) and the gradient (P, L, H) of each prompt's mean reward."""
        ...


@runtime_checkable
class PricedTask(Task, Protocol):
    """A task that has the model do more for a prompt than score it on the examples."""

    @property
    def extra_rows(self) -> int:
        """Rows that each prompt costs beyond one an example, 0 or more."""
        ...


@runtime_checkable
class GeneratingTask(Task, Protocol):
    """A task whose rewards come from texts that the model wrote."""

    def rewards_with_outputs(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> tuple[Floats, Outputs]:
        """Rewards (P, E) and what the model wrote for each, (P, E) texts."""
        ...


@runtime_checkable
class MeasuredTask(Task, Protocol):
    """A task with a metric for reports that is not its reward."""

    def measure(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> tuple[Floats, Floats]:
        """Rewards (P, E) and the reported metric (P, E), from one scoring."""
        ...


def prompt_rows(task: Task) -> int:
    """Rows that one prompt costs on the train split, in the unit of `Budget`.

    Raises:
        ValueError: The task's `extra_rows` is no whole number of 0 or more.
    """
    extra = task.extra_rows if isinstance(task, PricedTask) else 0
    if not isinstance(extra, int) or extra < 0:
        raise ValueError(
            f"task {task.name!r} has extra_rows {extra!r}; give a whole number, 0 or more"
        )
    return len(task.splits.train) + extra


def measure(
    task: Task, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
) -> tuple[Floats, Floats]:
    """Rewards and reported metric, (P, E) each; the reward itself for a task without a metric."""
    if isinstance(task, MeasuredTask):
        return task.measure(lm, prompts, examples)
    rewards = task.rewards(lm, prompts, examples)
    return rewards, rewards


@dataclass(frozen=True)
class ClassificationTask:
    """Tell classes apart by the log-likelihoods of their label words.

    Args:
        name: What results call it.
        splits: The examples, labelled with keys of `label_words`.
        template: Where text, prompt and answer go.
        label_words: Class to label word, or to a list of them. A word of several tokens is scored
            whole. A word that starts with no white space follows the text after one space, or on a
            new line after none (`Template.answer_prefix`).
        reward: `gap`, `cross_entropy`, `hinge` or `accuracy` (`class_reward.py`).
        hand_prompt: A prompt written by hand, the control of every comparison.
        pooling: How several words of a class make one score, `mean` or `logsumexp`
            (`verbaliser.py`).
        length: How the tokens of a word make one log-likelihood, `sum` or `mean`.
        calibration: `contextual` takes out what the model answers to texts without content under
            the same prompt (`calibration.py`), for two or three more rows a prompt; or `none`.

    Raises:
        ValueError: Fewer than two classes, a label word that is empty or given twice, an unknown
            reward, pooling, length or calibration, a template without a text to calibrate by, or an
            example whose label has no word.
    """

    name: str
    splits: Splits
    template: Template
    label_words: LabelWords
    reward: str = "gap"
    hand_prompt: str = ""
    pooling: str = "mean"
    length: str = "sum"
    calibration: str = "none"

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        if self.reward not in REWARDS:
            raise ValueError(f"reward {self.reward!r}; give one of {', '.join(REWARDS)}")
        if self.calibration not in CALIBRATIONS:
            raise ValueError(
                f"calibration {self.calibration!r}; give one of {', '.join(CALIBRATIONS)}"
            )
        if self.calibration != "none" and not self.template.fields:
            raise ValueError(
                f"template {self.template.text!r} has no field, so there is no text whose content "
                "could be left out; calibration needs one"
            )
        for examples in self.splits.parts().values():
            self._labels(examples)

    @cached_property
    def verbaliser(self) -> Verbaliser:
        """How words make classes."""
        return Verbaliser(self.label_words, self.pooling, self.length)

    @property
    def extra_rows(self) -> int:
        """See `PricedTask`: a row for each text without content."""
        return 0 if self.calibration == "none" else len(content_free_texts(self.template))

    @property
    def fingerprint(self) -> str:
        """Hash of template, label words, reward, examples and how words make classes."""
        words = sorted(
            (label, own[0] if len(own) == 1 else sorted(own))
            for label, own in self.verbaliser.words.items()
        )
        state = [self.template.text, words, self.reward, self.splits.digest]
        # What changes no reward is left out, so that answers from before there were options count.
        if any(len(own) > 1 for own in self.verbaliser.words.values()):
            state.append(f"pooling {self.pooling}")
        if self.length != "sum":
            state.append(f"length {self.length}")
        if self.calibration != "none":
            state.append(f"calibration {self.calibration}")
        return hashlib.blake2b(repr(tuple(state)).encode(), digest_size=16).hexdigest()

    def candidates(self, lm: FrozenLM) -> tuple[Ids, ...]:
        """Ids of all label words, class by class in the order of `label_words`.

        Raises:
            ValueError: The tokenizer spells two words alike.
        """
        words = self.verbaliser.encode(lm, self.template.answer_prefix)
        return tuple(word.ids for word in words)

    def label_word_report(self, lm: FrozenLM) -> LabelWordReport:
        """What the model's tokenizer makes of the label words, with warnings.

        Raises:
            ValueError: The tokenizer spells two words alike.
        """
        return self.verbaliser.report(lm, self.template.answer_prefix)

    def queries(self, lm: FrozenLM, examples: Sequence[Example]) -> list[Query]:
        """The examples as the model sees them.

        Raises:
            ValueError: A masked model without `{mask}` in the template, or a mask for another.
        """
        if lm.kind == "masked" and not self.template.masked:
            raise ValueError(
                f"{lm.name} is a masked model: the template needs a {{mask}} where the answer "
                f"goes, such as '{self.template.text} {{mask}} .'"
            )
        candidates = self.candidates(lm)
        return [self.template.query(example.fields, lm, candidates) for example in examples]

    def written(self, lm: FrozenLM, text: str) -> TokenPrompt:
        """The prompt that a text makes in this template."""
        return TokenPrompt(lm.encode(self.template.prompt_text(text)))

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        """See `Task.rewards`."""
        return self.measure(lm, prompts, examples)[0]

    def measure(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> tuple[Floats, Floats]:
        """Rewards and accuracies, (P, E) each."""
        loglik = lm.score(prompts, self.queries(lm, examples), over=self.verbaliser.over)
        scores = self._class_scores(lm, loglik.double())
        if self.calibration != "none":
            free = lm.score(prompts, content_free_queries(lm, self.template, self.candidates(lm)))
            scores = calibrated(scores, log_prior(self._class_scores(lm, free.double()))[:, None])
        labels = self._labels(examples).repeat(len(prompts))
        shape = (len(prompts), len(examples))
        flat = scores.flatten(0, 1)
        rewards, correct = (f(flat, labels) for f in (REWARDS[self.reward], accuracy))
        return rewards.numpy().reshape(shape), correct.numpy().reshape(shape)

    def rewards_with_grad(
        self, lm: FrozenLM, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, NDArray[np.float32]]:
        """See `DifferentiableTask.rewards_with_grad`.

        Calibrated, the gradient is that of the prior too, and the texts without content run once
        more than is charged: forward for the prior, then forward and backward.

        Raises:
            ValueError: The reward is `accuracy`, which has no gradient.
        """
        if self.reward == "accuracy":
            raise ValueError(
                "the reward accuracy has no gradient; a gradient method needs "
                f"{', '.join(name for name in REWARDS if name != 'accuracy')}"
            )
        if self.calibration == "none":
            scores, grad = self._scores_with_grad(lm, prompts, examples, None)
            labels = self._labels(examples).repeat(len(prompts))
            rewards = REWARDS[self.reward](scores.flatten(0, 1), labels)
        else:
            # One by one: a reward knows which example it is for, but not which prompt.
            parts = [self._calibrated_with_grad(lm, prompt, examples) for prompt in prompts]
            rewards, grad = (torch.cat(part) for part in zip(*parts, strict=True))
        return (
            rewards.numpy().reshape(len(prompts), len(examples)),
            cast("NDArray[np.float32]", (grad / len(examples)).numpy()),
        )

    def _calibrated_with_grad(
        self, lm: FrozenLM, prompt: SoftPrompt, examples: Sequence[Example]
    ) -> tuple[Tensor, Tensor]:
        """Rewards (E,) and the gradient (1, L, H) of their sum, the prior's part included."""
        queries = content_free_queries(lm, self.template, self.candidates(lm))
        free = lm.score([prompt], queries)[0]
        prior = log_prior(self._class_scores(lm, free.double()))
        scores, grad = self._scores_with_grad(lm, [prompt], examples, prior)
        with torch.enable_grad():
            prior.requires_grad_()
            function = REWARDS[self.reward]
            rewards = function(calibrated(scores[0], prior), self._labels(examples))
            (slope,) = torch.autograd.grad(rewards.sum(), prior)
        through = partial(self._class_scores, lm)
        return rewards.detach(), grad + prior_gradient(lm, prompt, queries, free, through, slope)

    def _scores_with_grad(
        self,
        lm: FrozenLM,
        prompts: Sequence[SoftPrompt],
        examples: Sequence[Example],
        prior: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Class scores (P, E, C), not calibrated, and the gradient (P, L, H) of the summed rewards.

        Args:
            lm: The model.
            prompts: (P,) of one length.
            examples: (E,) of them.
            prior: (C,), what rewards are calibrated by; as if it were the same for every prompt.
        """
        labels = self._labels(examples)
        function = REWARDS[self.reward]

        def reward(loglik: Tensor, which: NDArray[np.int64]) -> Tensor:
            scores = self._class_scores(lm, loglik)
            scores = scores if prior is None else calibrated(scores, prior)
            return function(scores, labels[torch.from_numpy(which)].to(loglik.device))

        queries = self.queries(lm, examples)
        loglik, grad = lm.score_with_grad(prompts, queries, reward, over=self.verbaliser.over)
        return self._class_scores(lm, loglik.double()), grad

    def _class_scores(self, lm: FrozenLM, loglik: Tensor) -> Tensor:
        """Scores of the classes (..., C) from log-likelihoods of all words (..., W)."""
        return self.verbaliser.class_scores(loglik, self.candidates(lm))

    def _labels(self, examples: Sequence[Example]) -> Tensor:
        places = {label: i for i, label in enumerate(self.verbaliser.words)}
        for example in examples:
            if example.label not in places:
                raise ValueError(
                    f"{example.source or dict(example.fields)} has the label {example.label!r}, "
                    f"which has no label word; known: {', '.join(places)}"
                )
        return torch.tensor([places[example.label] for example in examples])
