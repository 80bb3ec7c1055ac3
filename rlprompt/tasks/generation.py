"""A task in which the model writes, and what it wrote is scored.

The reward is a metric against a reference, a weighted sum of metrics, or a person's
own function of what was written.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, Unpack

import numpy as np

from rlprompt.data.examples import Example, Splits
from rlprompt.data.load import DataSource
from rlprompt.data.settings import DrawSettings, draw_splits, draws
from rlprompt.models.decoding import Decoding
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, TokenPrompt
from rlprompt.tasks.base import (
    MOST_SHOTS,
    SEPARATOR,
    Demonstrations,
    columns,
    data_name,
    demonstration,
    variant,
)
from rlprompt.tasks.function import RewardFunction, load_reward
from rlprompt.tasks.metrics import METRICS, Metric, metric
from rlprompt.tasks.templated import TemplateTask
from rlprompt.template import Template, TemplateText
from rlprompt.types import Floats, Outputs


@dataclass(frozen=True)
class GenerationTask(TemplateTask):
    """Let the model write an answer to every example, and score the answers.

    Args:
        name: What results call it.
        splits: The examples; the label of each is its reference answer, or "". Where it has
            `others` that are as right, a metric takes the best of them (`metrics`).
        template: Where text and prompt go; the answer follows at the end.
        reward: A metric's name (`metrics.METRICS`), metrics with the weight of each in the sum, or
            a function marked with `@rlprompt.reward` that reads `outputs`. It is given what the
            model wrote without white space around it.
        max_new_tokens: Tokens that the model writes at the most.
        stop: Strings that end an answer.
        temperature: 0 for the likeliest token every time; above, answers are drawn.
        seed: Decides what is drawn, with the content of prompt and example.
        hand_prompt: A prompt written by hand, the control of every comparison.
        length_penalty: Taken off for every token written, in units of the reward, >= 0.

    Raises:
        ValueError: A setting is out of its range, the template has a `{mask}`, there is no such
            metric, or no example has the reference that a metric needs.

    >>> from rlprompt.check.toy import toy_lm
    >>> from rlprompt.data.load import load_splits
    >>> rows = [{"text": word, "label": word[0]} for word in ("ant", "bee", "cow", "dog")]
    >>> splits = load_splits(rows, None, shots=1)
    >>> task = GenerationTask("letters", splits, Template("{prompt} {text}:"), "exact_match")
    >>> lm = toy_lm()
    >>> task.rewards(lm, [task.written(lm, "The first letter?")], splits.test).shape
    (1, 2)
    """

    name: str
    splits: Splits
    template: Template
    reward: str | Mapping[str, float] | RewardFunction
    max_new_tokens: int = 16
    stop: str | Sequence[str] = ("\n",)
    temperature: float = 0.0
    seed: int = 0
    hand_prompt: str = ""
    length_penalty: float = 0.0

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        object.__setattr__(self, "stop", self._decoding.stop)
        if self.template.masked:
            raise ValueError(
                f"template {self.template.text!r} has a {{mask}}; leave it out: what the model "
                "writes follows at the end of the text"
            )
        if not 0 <= self.length_penalty < math.inf:
            raise ValueError(f"length_penalty is {self.length_penalty}; give 0 or above")
        if isinstance(self.reward, RewardFunction):
            if self.reward.reads != "outputs":
                raise ValueError(
                    f"reward {self.reward.name} reads {self.reward.reads} and not what the model "
                    "writes: use a FunctionTask, or write it as score(outputs, examples)"
                )
            return
        examples = [example for part in self.splits.parts().values() for example in part]
        needing = [found.name for found, _ in self._metrics if found.needs_reference]
        if needing and not any(example.label for example in examples):
            raise ValueError(
                f"the metric {needing[0]} compares with a reference answer, and no example has "
                "one; say which column holds it (label), or take another reward"
            )

    @classmethod
    @draws()
    def from_file(
        cls,
        data: DataSource,
        *,
        template: TemplateText,
        reward: str | Mapping[str, float] | RewardFunction,
        text: str | Sequence[str] | Mapping[str, str] | None = None,
        label: str | None = None,
        max_new_tokens: int = 16,
        stop: str | Sequence[str] = ("\n",),
        temperature: float = 0.0,
        sampling_seed: int = 0,
        length_penalty: float = 0.0,
        hand_prompt: str = "",
        name: str = "",
        **draw: Unpack[DrawSettings],
    ) -> GenerationTask:
        """Write an answer for each of a file's rows.

        Args:
            data: As for `load_splits`.
            template: Where text and prompt go: a text, or the messages of a chat (`Template.of`).
            reward: As for the class, or where a function is, such as `rewards.py:score`.
            text: Columns for the template's fields, as for `ClassificationTask.from_file`.
            label: Column that holds the reference answer, or a list of all that are right, if any.
            max_new_tokens: As for the class.
            stop: As for the class.
            temperature: As for the class.
            sampling_seed: The class's `seed`.
            length_penalty: As for the class.
            hand_prompt: As for the class.
            name: What results call it; left out, that of the data.
            **draw: What is drawn of the data (`DrawSettings`).

        Raises:
            ValueError: Something is not there, or has a defect.
        """
        made = Template.of(template)
        splits = draw_splits(data, None, draw, text=columns(made, text), label=label)
        return cls(
            name=name or data_name(data),
            splits=splits,
            template=made,
            reward=load_reward(reward) if _is_place(reward) else reward,
            max_new_tokens=max_new_tokens,
            stop=stop,
            temperature=temperature,
            seed=sampling_seed,
            hand_prompt=hand_prompt,
            length_penalty=length_penalty,
        )

    @property
    def _decoding(self) -> Decoding:
        return Decoding(self.max_new_tokens, self.stop, self.temperature, seed=self.seed)

    @functools.cached_property
    def _metrics(self) -> tuple[tuple[Metric, float], ...]:
        """The metrics and their weights; none where a function is the reward."""
        if isinstance(self.reward, RewardFunction):
            return ()
        weights = {self.reward: 1.0} if isinstance(self.reward, str) else self.reward
        if not weights:
            raise ValueError(f"reward names no metric; give one of {', '.join(METRICS)}")
        for name, weight in weights.items():
            if isinstance(weight, str | bool) or not math.isfinite(weight):
                raise ValueError(f"the weight of {name!r} is {weight!r}; give a number")
        return tuple((metric(name), float(weight)) for name, weight in weights.items())

    @property
    def fingerprint(self) -> str:
        """Hash of template, reward, examples, and how answers are written."""
        if isinstance(self.reward, RewardFunction):
            reward: object = self.reward.fingerprint
        else:
            reward = sorted((found.name, found.fingerprint, w) for found, w in self._metrics)
        state = (self.template.text, reward, self._decoding, self.length_penalty)
        content = f"{state!r} {self.splits.digest}"
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    def lengths(self, lm: FrozenLM, examples: Sequence[Example]) -> list[tuple[int, int]]:
        """See `Task.lengths`."""
        return [(query.n_text, self.max_new_tokens - 1) for query in self.queries(lm, examples)]

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        """See `Task.rewards`."""
        return self.rewards_with_outputs(lm, prompts, examples)[0]

    def rewards_with_outputs(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> tuple[Floats, Outputs]:
        """See `Task.rewards_with_outputs`.

        Raises:
            RewardError: The reward function raised, or gave no rewards.
            ValueError: The model cannot write, or an example is too long for it.
        """
        queries = self.queries(lm, examples)
        answers = lm.generate(prompts, queries, **dataclasses.asdict(self._decoding))
        outputs = tuple(tuple(answer.text.strip() for answer in row) for row in answers)
        rewards = [
            self._scores(row, examples, self._shown(lm, prompt))
            for prompt, row in zip(prompts, outputs, strict=True)
        ]
        lengths = np.array([[len(answer.ids) for answer in row] for row in answers])
        return np.array(rewards) - self.length_penalty * lengths, outputs

    def demonstrations(self) -> Demonstrations | None:
        """See `Task.demonstrations`: examples that have a reference answer."""
        if self.template.messages:
            return None  # of a chat the prompt cannot be moved
        ends = any(stop in SEPARATOR for stop in self.stop)
        stop = (*self.stop, *(() if ends else (SEPARATOR,)))
        led = variant(self, template=self.template.leading(), stop=stop)
        if led is None:
            return None
        answers = [(example, example.label.strip()) for example in self.splits.train]
        texts = [demonstration(led.template, example, text) for example, text in answers if text]
        return Demonstrations(led, [[text] for text in texts[:MOST_SHOTS]])

    def usage(self) -> Mapping[str, Any]:
        """See `Task.usage`."""
        return {"template": self.template.text, "writing": dataclasses.asdict(self._decoding)}

    def _shown(self, lm: FrozenLM, prompt: Prompt) -> str:
        if isinstance(prompt, TokenPrompt):
            return self.template.prompt_shown(lm, prompt.ids)
        return f"({len(prompt)} vectors)"

    def _scores(self, outputs: Sequence[str], examples: Sequence[Example], prompt: str) -> Floats:
        """Rewards of what the model wrote under one prompt, (E,)."""
        if isinstance(self.reward, RewardFunction):
            return self.reward.score(outputs, examples, prompt)
        references = [example.references for example in examples]
        values = np.zeros(len(examples))
        for found, weight in self._metrics:
            values += weight * np.array(found(outputs, references))
        return values


def _is_place(reward: object) -> TypeGuard[str]:
    """Whether this says where a function is, and is no metric's name."""
    return isinstance(reward, str) and ":" in reward and reward.partition(":")[0] not in METRICS
