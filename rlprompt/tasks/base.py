"""What a prompt is worth: a task turns prompts and examples into rewards.

A task is pure: no counters, no modes, no randomness, no statistics of the batch. Scaling and
baselines belong to the optimisers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rlprompt.data.load import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.template import Template
from rlprompt.types import Floats, Outputs


class Measured(NamedTuple):
    """What prompts come to on examples.

    Attributes:
        rewards: (P, E) float64, higher is better.
        metrics: (P, E) float64, the figure that reports give.
        answers: (P, E) texts, what the model answered: a class, or what it wrote. None where a task
            does not say.
    """

    rewards: Floats
    metrics: Floats
    answers: Outputs | None = None


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
class GeneratingTask(Task, Protocol):
    """A task whose rewards come from texts that the model wrote."""

    def rewards_with_outputs(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> tuple[Floats, Outputs]:
        """Rewards (P, E) and what the model wrote for each, (P, E) texts."""
        ...


@runtime_checkable
class WrittenTask(Task, Protocol):
    """A task that knows how a prompt written by hand enters its template."""

    @property
    def hand_prompt(self) -> str:
        """A prompt written by hand, the control of every comparison, or ""."""
        ...

    def written(self, lm: FrozenLM, text: str) -> TokenPrompt:
        """The prompt that a text makes."""
        ...


@runtime_checkable
class SizedTask(Task, Protocol):
    """A task that can say how much of a model's context an example takes."""

    def lengths(self, lm: FrozenLM, examples: Sequence[Example]) -> list[tuple[int, int]]:
        """Of each example: tokens of its text around the prompt, and tokens fed of an answer."""
        ...


@runtime_checkable
class MeasuredTask(Task, Protocol):
    """A task with a metric for reports that is not its reward.

    Attributes:
        metric: What it is called.
    """

    metric: ClassVar[str]

    def measure(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Measured:
        """Rewards and the reported metric, from one scoring, and the answers if there are any."""
        ...


@runtime_checkable
class ChoosyTask(Task, Protocol):
    """A task that says which tokens a prompt is made of, in the place of all that one can type."""

    def tokens(self, lm: FrozenLM) -> Sequence[int]:
        """Their ids."""
        ...


@runtime_checkable
class ShorteningTask(Task, Protocol):
    """A task that gives the model less than the prompt that was searched."""

    def shortened(self, lm: FrozenLM, prompt: Prompt) -> Prompt:
        """What the model is given, which is what a person would use."""
        ...


def columns(
    template: Template, text: str | Sequence[str] | Mapping[str, str] | None
) -> Sequence[str] | Mapping[str, str]:
    """The column for each field of a template.

    Raises:
        ValueError: A field has no column, or a column no field.
    """
    if text is None:
        return template.fields
    if isinstance(text, str):
        if len(template.fields) != 1:
            raise ValueError(
                f"the template has the fields {', '.join(template.fields) or '(none)'}; say which "
                f"column is which: text: {{field: column}}, not {text!r}"
            )
        (field,) = template.fields
        if field not in ("text", text):
            raise ValueError(
                f"the template has the field {field!r}, and text names the column {text!r}: is one "
                f"of them misspelt? If not, say `text: {{{field}: {text}}}`"
            )
        return {field: text}
    named = dict(text) if isinstance(text, Mapping) else {column: column for column in text}
    if set(named) != set(template.fields):
        raise ValueError(
            f"text names the fields {', '.join(named)} and the template has "
            f"{', '.join(template.fields) or 'none'}; they must be the same"
        )
    return named


def data_name(data: str) -> str:
    """What results call data: a file without its ending, a folder with the one above."""
    path = Path(data)
    return "/".join(path.parts[-2:]) if path.is_dir() else path.stem


def metric_name(task: Task) -> str:
    """What the reported figure of a task is called."""
    return task.metric if isinstance(task, MeasuredTask) else "reward"


def measure(
    task: Task, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
) -> Measured:
    """Rewards, reported metric and answers; the metric of a task without one is its reward."""
    if isinstance(task, MeasuredTask):
        return Measured(*task.measure(lm, prompts, examples))
    if isinstance(task, GeneratingTask):
        rewards, outputs = task.rewards_with_outputs(lm, prompts, examples)
        return Measured(rewards, rewards, outputs)
    rewards = task.rewards(lm, prompts, examples)
    return Measured(rewards, rewards)
