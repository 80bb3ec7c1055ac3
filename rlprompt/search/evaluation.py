"""Scores outside any budget, counted: of controls, of the selection on dev, and of the one test.

They are kept, so that a search that was killed while it chose does not choose again, and opens
test once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from rlprompt._utils.clock import now
from rlprompt._utils.plugins import told
from rlprompt.data.examples import Example
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import PrefixPrompt, Prompt, TextPrompt, TokenPrompt
from rlprompt.search.memo import Measurement, Memo, SplitQuestion, remembered
from rlprompt.search.result import PREFIX_MARK, SOFT_MARK, Score
from rlprompt.tasks.base import LARGEST, Measured, Task, unusable
from rlprompt.tasks.completed import as_task
from rlprompt.tasks.prior import needs_prior
from rlprompt.tasks.wording import Wording
from rlprompt.types import Floats

# Where priors are kept among scores: in the place of a split.
PRIOR = "prior"
# Of what the model wrote, this many characters are kept with a result.
MOST_CHARACTERS = 400


@dataclass
class Evaluator:
    """Scores prompts without a budget, and counts what that costs.

    Args:
        task: What a prompt is worth.
        lm: The frozen model.
        memo: Where scores are looked up and put.
        priors: Priors of prompts by content hash (`Task.log_priors`): each is found once, and paid
            for by the first of the evaluators that share these.

    Attributes:
        rows: Rows so far, whether computed here or found.
        seconds: Seconds that they took when they were computed.
        opened: When test was scored first, ISO 8601, or "".
        test_prompts: Prompts scored on test.
    """

    task: Task
    lm: FrozenLM
    memo: Memo | None = None
    priors: dict[str, Floats] = field(default_factory=dict)
    rows: int = 0
    seconds: float = 0.0
    opened: str = ""
    test_prompts: int = 0

    def __post_init__(self) -> None:
        """Give the task what it lacks."""
        self.task = as_task(self.task)

    def measure(
        self, prompts: Sequence[Prompt], split: str, which: Sequence[int] | None = None
    ) -> Measured:
        """Rewards, metrics and answers (P, E) of prompts on a split.

        Args:
            prompts: (P,) of them.
            split: `train`, `dev` or `test`.
            which: Places of the examples to score on; None for all.

        Raises:
            ValueError: The task's answer is no number, or of the wrong shape.
        """
        some = None if which is None else tuple(which)
        question, task = SplitQuestion(tuple(prompts), split, some), self.task
        n_known = 0
        if needs_prior(task, split):
            n_known = sum(prompt.digest in self.priors for prompt in prompts)
            task = task.knowing(self.lm, prompts, self._priors(prompts))
        found = remembered(self.memo, question, partial(self._computed, task, question))
        self.rows += len(prompts) * task.split_rows(split, found.measured.rewards.shape[1])
        self.rows -= n_known * task.prior_rows
        self.seconds += found.seconds
        if split == "test":
            self.opened = self.opened or found.at
            self.test_prompts += len(prompts)
        return found.measured

    def scores(self, prompts: Sequence[Prompt], split: str) -> list[Score]:
        """Mean reward and metric of each prompt on a whole split; errors as for `measure`."""
        measured = self.measure(prompts, split)
        return scores_of(self.task, measured, self.task.splits.parts()[split])

    def prior(self, prompt: Prompt) -> dict[str, float] | None:
        """Probability of each class that was taken out of a prompt's scores; None if none was."""
        found = self.priors.get(prompt.digest)
        if found is None or len(found) != len(self.task.class_words):
            return None
        return dict(zip(self.task.class_words, np.exp(found).tolist(), strict=True))

    def _priors(self, prompts: Sequence[Prompt]) -> Floats:
        """Log priors (P, C) of prompts, each found alone, so that its last digit is the same."""
        for prompt in prompts:
            if prompt.digest not in self.priors:
                question = SplitQuestion((prompt,), PRIOR, classes=tuple(self.task.class_words))
                found = remembered(self.memo, question, partial(self._found_prior, prompt))
                self.seconds += found.seconds
                (self.priors[prompt.digest],) = found.measured.rewards
        return np.array([self.priors[prompt.digest] for prompt in prompts])

    def _found_prior(self, prompt: Prompt) -> Measurement:
        at, began = now(), time.perf_counter()
        priors = self.task.log_priors(self.lm, [prompt])
        return Measurement(Measured(priors, priors), at, time.perf_counter() - began)

    def _computed(self, task: Task, question: SplitQuestion) -> Measurement:
        prompts, split, which = question.prompts, question.split, question.which
        part = task.splits.parts()[split]
        examples = part if which is None else [part[i] for i in which]
        at, began = now(), time.perf_counter()
        rewards, metrics, answers = Measured(*task.measure(self.lm, prompts, examples))
        seconds = time.perf_counter() - began
        rewards, metrics = (np.asarray(answer, np.float64) for answer in (rewards, metrics))
        for answer in (rewards, metrics):
            if answer.shape != (len(prompts), len(examples)):
                raise ValueError(
                    f"task {self.task.name!r} gave an answer of shape {answer.shape} for "
                    f"{len(prompts)} prompts on {len(examples)} examples of {split}"
                )
            # Sorted among numbers, a NaN could end up anywhere, first included.
            for p, e in np.argwhere(unusable(answer)):
                raise ValueError(
                    f"task {self.task.name!r} gave {answer[p, e]}, no finite number of {LARGEST:g} "
                    f"at most, for {prompts[p]!r} on one of the examples of {split} "
                    f"({examples[e].source or 'in memory'})"
                )
        return Measurement(Measured(rewards, metrics, answers), at, seconds)


@contextmanager
def naming(task: Task) -> Iterator[None]:
    """Say in an error of a person's own task which it was, and where; around its calls alone.

    Raises:
        ValueError: It raised anything. What a task of ours raises is no mistake of a person's, and
            goes through, and so do errors of this package that say themselves what is wrong.
    """
    try:
        yield
    except Exception as error:
        ours = (task.__class__.__module__, type(error).__module__)
        if isinstance(error, ValueError) or any(one.startswith("rlprompt.") for one in ours):
            raise
        raise ValueError(f"task {task.name!r} raised {told(error)}") from error


def evaluate(
    task: Task, lm: FrozenLM, prompt: Prompt, split: str, memo: Memo | None = None
) -> Score:
    """A prompt's mean reward and metric on a split, outside any budget.

    >>> from rlprompt.check import ToyTask, toy_lm
    >>> score = evaluate(ToyTask(), toy_lm(), TokenPrompt((1, 2)), "dev")
    >>> score == evaluate(ToyTask(), toy_lm(), TokenPrompt((1, 2)), "dev")
    True

    Args:
        task: What the prompt is worth.
        lm: The frozen model.
        prompt: The prompt.
        split: `train`, `dev` or `test`.
        memo: As for `search`.

    Raises:
        ValueError: The task's answer is no number, or of the wrong shape.
    """
    return Evaluator(task, lm, memo).scores([prompt], split)[0]


def describe(task: Wording, lm: FrozenLM, prompt: Prompt) -> tuple[str, bool]:
    """A prompt's text, and whether it is the same prompt again once it is typed in.

    A soft prompt reads as its nearest tokens, which are another prompt: marked and not retypable. A
    prefix prompt is like no tokens, and is told by its size. A text is told as it is, and as the
    same again where it gives the tokens in the template, too, that it has by itself.
    """
    if isinstance(prompt, TextPrompt):
        tokens = task.spelt(lm, prompt.text)
        same = tokens == lm.fed(prompt) == task.written(lm, prompt.text)
        return prompt.text, same and task.described(lm, tokens)[1]
    if isinstance(prompt, TokenPrompt):
        return task.described(lm, prompt)
    if isinstance(prompt, PrefixPrompt):
        length, layers = prompt.vectors.shape[:2]
        return f"{PREFIX_MARK} {length} x {layers} layers of keys and values", False
    return f"{SOFT_MARK}{task.described(lm, lm.nearest_tokens(prompt))[0]}", False


def n_tokens(lm: FrozenLM, prompt: Prompt) -> int:
    """Tokens or vectors of a prompt, of a text those that a model makes of it."""
    return len(lm.fed(prompt) if isinstance(prompt, TextPrompt) else prompt)


def n_read(task: Wording, lm: FrozenLM, prompt: Prompt) -> int:
    """Tokens or vectors of a prompt that the model reads: none of those that the task drops."""
    return n_tokens(lm, task.shortened(lm, prompt))


def scores_of(task: Task, measured: Measured, examples: Sequence[Example]) -> list[Score]:
    """Mean reward of each prompt, and its metric over the examples that were measured."""
    rewards = measured.rewards.mean(axis=1)
    over_all = task.set_metric(measured, examples)
    metrics = measured.metrics.mean(axis=1) if over_all is None else over_all
    pairs = zip(rewards.tolist(), metrics.tolist(), strict=True)
    return [Score(reward, metric) for reward, metric in pairs]


def each_metric(task: Task, measured: Measured, examples: Sequence[Example]) -> tuple[float, ...]:
    """The metric of the only prompt on each example; empty where it is one of a set of them."""
    if task.set_metric(measured, examples) is not None:
        return ()
    return tuple(measured.metrics[0].tolist())


def shown_answers(measured: Measured) -> tuple[str, ...]:
    """What the model answered under the only prompt, cut; empty where the task does not say."""
    if measured.answers is None:
        return ()
    (answers,) = measured.answers
    return tuple(text[:MOST_CHARACTERS] for text in answers)
