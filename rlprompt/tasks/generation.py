"""A task in which the model writes, and what it wrote is scored.

The reward is a metric against a reference, a weighted sum of metrics, a person's own function of
what was written, or how likely the model finds the reference (`likelihood`).
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
from numpy.typing import NDArray

from rlprompt.data.examples import Example, Splits, check_choice
from rlprompt.data.load import DataSource
from rlprompt.data.settings import DrawSettings, draw_splits, draws
from rlprompt.models.decoding import Decoding
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt, TextPrompt, TokenPrompt
from rlprompt.tasks.base import (
    MOST_SHOTS,
    SEPARATOR,
    Demonstrations,
    Measured,
    columns,
    data_name,
    demonstration,
    variant,
)
from rlprompt.tasks.function import RewardFunction, load_reward
from rlprompt.tasks.likelihood import LOG_LIKELIHOOD, Likelihood, Pooling, reference_texts
from rlprompt.tasks.metrics import METRICS, Metric, metric
from rlprompt.tasks.templated import TemplateTask
from rlprompt.template import Template, TemplateText
from rlprompt.types import Floats, Outputs, SelectBy

# What reports give beside a log-likelihood where nothing is said.
USUAL_METRIC = "exact_match"


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
            model wrote without white space around it. Or `log_likelihood`, the mean
            log-probability a token of the reference and its end (`likelihood`): nothing is written
            while a search goes on, and there is a gradient.
        max_new_tokens: Tokens that the model writes at the most.
        stop: Strings that end an answer.
        temperature: 0 for the likeliest token every time; above, answers are drawn.
        seed: Decides what is drawn, with the content of prompt and example.
        hand_prompt: A prompt written by hand, the control of every comparison.
        length_penalty: Taken off for every token written, in units of the reward, >= 0.
        min_new_tokens: Tokens that the model writes at the least (`Decoding`).
        metric: What reports give: a metric's name, or `reward`. "" is the reward, and of
            `log_likelihood` an exact match.
        select_by: By what a prompt is picked on dev: its `reward`, or the `metric` and among equals
            the reward, for which all candidates are scored on all of dev.
        pooling: Of `log_likelihood`, how several references of an example count together: the
            `best` of them, or their `logsumexp` (`References`).

    Raises:
        ValueError: A setting is out of its range, the template has a `{mask}`, there is no such
            metric, or no example has the reference that a metric needs, or some example lacks the
            one that `log_likelihood` needs.

    >>> from rlprompt.check.toy import toy_lm
    >>> from rlprompt.data.load import load_splits
    >>> rows = [{"text": word, "label": word[0]} for word in ("ant", "bee", "cow", "dog")]
    >>> splits = load_splits(rows, None, shots=1)
    >>> task = GenerationTask("letters", splits, Template("{prompt} {text}:"), "exact_match")
    >>> lm = toy_lm()
    >>> prompts = [task.written(lm, "The first letter?")]
    >>> task.rewards(lm, prompts, splits.test).shape
    (1, 2)
    >>> dense = GenerationTask("letters", splits, task.template, "log_likelihood")
    >>> dense.metric, dense.has("rewards_with_grad")
    ('exact_match', True)
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
    min_new_tokens: int = 0
    metric: str = ""
    select_by: str = "reward"
    pooling: Pooling = "best"

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        object.__setattr__(self, "stop", self._decoding.stop)
        usual = USUAL_METRIC if self._by_likelihood else "reward"
        object.__setattr__(self, "metric", self.metric or usual)
        if self.template.masked:
            raise ValueError(
                f"template {self.template.text!r} has a {{mask}}; leave it out: what the model "
                "writes follows at the end of the text"
            )
        if not 0 <= self.length_penalty < math.inf:
            raise ValueError(f"length_penalty is {self.length_penalty}; give 0 or above")
        check_choice("select_by", self.select_by, SelectBy)
        check_choice("pooling", self.pooling, Pooling)
        if isinstance(self.reward, RewardFunction) and self.reward.reads != "outputs":
            raise ValueError(
                f"reward {self.reward.name} reads {self.reward.reads} and not what the model "
                "writes: use a FunctionTask, or write it as score(outputs, examples)"
            )
        self._check_references()

    def _check_references(self) -> None:
        if self._by_likelihood:
            if self.length_penalty:
                raise ValueError(
                    f"length_penalty is {self.length_penalty}, and under {LOG_LIKELIHOOD} nothing "
                    "is written that it could be taken off for; leave it out"
                )
            for split, part in self.splits.parts().items():
                for example in part:
                    reference_texts(example, split)
        found = [one for one, _ in self._metrics] + [one for one in (self._reported,) if one]
        needing = [one.name for one in found if one.needs_reference]
        examples = [example for part in self.splits.parts().values() for example in part]
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
        min_new_tokens: int = 0,
        metric: str = "",
        select_by: str = "reward",
        pooling: Pooling = "best",
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
            min_new_tokens: As for the class.
            metric: As for the class.
            select_by: As for the class.
            pooling: As for the class.
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
            min_new_tokens=min_new_tokens,
            metric=metric,
            select_by=select_by,
            pooling=pooling,
        )

    @property
    def _decoding(self) -> Decoding:
        own = self.max_new_tokens, self.stop, self.temperature
        return Decoding(*own, seed=self.seed, min_new_tokens=self.min_new_tokens)

    @property
    def _by_likelihood(self) -> bool:
        return self.reward == LOG_LIKELIHOOD

    def _likelihood(self, lm: FrozenLM) -> Likelihood:
        return Likelihood(lm, self.template, self.stop, self.pooling)

    @functools.cached_property
    def _metrics(self) -> tuple[tuple[Metric, float], ...]:
        """The metrics that are the reward and their weights, if it is made of metrics."""
        if isinstance(self.reward, RewardFunction) or self._by_likelihood:
            return ()
        weights = {self.reward: 1.0} if isinstance(self.reward, str) else self.reward
        if not weights:
            raise ValueError(f"reward names no metric; give one of {', '.join(METRICS)}")
        if LOG_LIKELIHOOD in weights:
            raise ValueError(
                f"{LOG_LIKELIHOOD} is a reward by itself and cannot be added to metrics; give "
                f"`reward: {LOG_LIKELIHOOD}`, and a metric for reports as `metric:`"
            )
        for name, weight in weights.items():
            if isinstance(weight, str | bool) or not math.isfinite(weight):
                raise ValueError(f"the weight of {name!r} is {weight!r}; give a number")
        return tuple((metric(name), float(weight)) for name, weight in weights.items())

    @functools.cached_property
    def _reported(self) -> Metric | None:
        """What reports give, where it is not the reward."""
        return None if self.metric == "reward" else metric(self.metric)

    @property
    def fingerprint(self) -> str:
        """Hash of template, reward, examples, and how answers are written."""
        if isinstance(self.reward, RewardFunction):
            reward: object = self.reward.fingerprint
        elif self._by_likelihood:
            reward = LOG_LIKELIHOOD, self.pooling, self.template.answer_space
        else:
            reward = sorted((found.name, found.fingerprint, w) for found, w in self._metrics)
        state = [self.template.text, reward, self._decoding, self.length_penalty]
        # These change no reward, but what a finished search says. Left out where they are as they
        # were before there were options, so that its answers count.
        if self._reported is not None:
            state.append(f"metric {self.metric} {self._reported.fingerprint}")
        if self.select_by != "reward":
            state.append(f"select by {self.select_by}")
        content = f"{tuple(state)!r} {self.splits.digest}"
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    @property
    def tokens_only(self) -> bool:
        """Whether the reward is given the text of prompts, which soft ones have not."""
        return isinstance(self.reward, RewardFunction) and self.reward.takes_prompts

    def has(self, hook: str) -> bool:
        """See `Task.has`: a gradient of the log-likelihood alone, which needs nothing written."""
        if hook in ("rewards_with_grad", "rewards_with_outputs"):
            return self._by_likelihood == (hook == "rewards_with_grad")
        return super().has(hook)

    def lengths(self, lm: FrozenLM, examples: Sequence[Example]) -> list[tuple[int, int]]:
        """See `Task.lengths`: an answer may be written, and be a reference."""
        n_written = self.max_new_tokens - 1
        if not self._by_likelihood:
            return [(query.n_text, n_written) for query in self.queries(lm, examples)]
        asked = self._likelihood(lm).references(examples).queries
        return [(query.n_text, max(n_written, query.n_answer)) for query in asked]

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        """See `Task.rewards`."""
        if self._by_likelihood:
            return self._likelihood(lm).rewards(prompts, examples)
        return self.rewards_with_outputs(lm, prompts, examples)[0]

    def rewards_with_grad(
        self, lm: FrozenLM, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, NDArray[np.float32]]:
        """See `Task.rewards_with_grad`.

        Raises:
            ValueError: The reward is of what is written, and has none.
        """
        if not self._by_likelihood:
            raise ValueError(
                "a reward of what the model writes has no gradient; take "
                f"`reward: {LOG_LIKELIHOOD}`, or a method that needs none"
            )
        return self._likelihood(lm).rewards_with_grad(prompts, examples)

    def rewards_with_outputs(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> tuple[Floats, Outputs]:
        """See `Task.rewards_with_outputs`.

        Raises:
            RewardError: The reward function raised, or gave no rewards.
            ValueError: The model cannot write, or an example is too long for it.
        """
        if lm.served and self.length_penalty:
            raise ValueError(
                f"length_penalty is taken off for each token, and {lm.name}, served by {lm.where}, "
                "does not tell the tokens of an answer; leave it out, or take a model on this "
                "machine"
            )
        queries = self.queries(lm, examples)
        answers = lm.generate(prompts, queries, **dataclasses.asdict(self._decoding))
        outputs = tuple(tuple(answer.text.strip() for answer in row) for row in answers)
        if self._by_likelihood:
            return self.rewards(lm, prompts, examples), outputs
        rewards = [
            self._scores(row, examples, self._shown(lm, prompt))
            for prompt, row in zip(prompts, outputs, strict=True)
        ]
        lengths = np.array([[len(answer.ids) for answer in row] for row in answers])
        return np.array(rewards) - self.length_penalty * lengths, outputs

    def measure(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Measured:
        """Rewards, the reported metric, and what was written, (P, E) each."""
        rewards, outputs = self.rewards_with_outputs(lm, prompts, examples)
        if self._reported is None:
            return Measured(rewards, rewards, outputs)
        references = [example.references for example in examples]
        metrics = [self._reported(row, references) for row in outputs]
        return Measured(rewards, np.array(metrics, dtype=np.float64), outputs)

    def answer_shown(self, example: Example) -> str:
        """Its reference."""
        return example.label.strip()

    def demonstrations(self) -> Demonstrations | None:
        """See `Task.demonstrations`: examples that have a reference answer."""
        if self.template.messages:
            return None  # of a chat the prompt cannot be moved
        ends = any(stop in SEPARATOR for stop in self.stop)
        stop = (*self.stop, *(() if ends else (SEPARATOR,)))
        led = variant(self, template=self.template.leading(), stop=stop)
        if led is None:
            return None
        answers = [(example, self.answer_shown(example)) for example in self.splits.train]
        texts = [demonstration(led.template, example, text) for example, text in answers if text]
        return Demonstrations(led, [[text] for text in texts[:MOST_SHOTS]])

    def usage(self) -> Mapping[str, Any]:
        """See `Task.usage`."""
        return {"template": self.template.text, "writing": dataclasses.asdict(self._decoding)}

    def _shown(self, lm: FrozenLM, prompt: Prompt) -> str:
        if isinstance(prompt, TokenPrompt):
            return self.template.prompt_shown(lm, prompt.ids)
        if isinstance(prompt, TextPrompt):
            return prompt.text
        if self.tokens_only:
            raise ValueError(
                f"the reward of task {self.name!r} is given the text of a prompt, and a soft "
                "prompt has none; use a method that searches tokens or text"
            )
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
