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
from dataclasses import dataclass, field
from typing import Any, Self, TypeGuard, Unpack

import numpy as np
from numpy.typing import NDArray

from rlprompt._utils.suggest import check_choice
from rlprompt.data.examples import Example, Splits
from rlprompt.data.load import DataSource
from rlprompt.data.opening import data_name
from rlprompt.data.settings import DrawSettings, draw_splits, draws
from rlprompt.models.decoding import Decoding
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt, TextPrompt, TokenPrompt
from rlprompt.tasks.base import InContextExamples, Measured
from rlprompt.tasks.likelihood import LOG_LIKELIHOOD, Likelihood, Pooling, reference_texts
from rlprompt.tasks.metrics import METRICS, AnswerMetric, metric
from rlprompt.tasks.reward_function import RewardFunction, in_place, load_reward
from rlprompt.tasks.showing import MOST_SHOTS, demonstration
from rlprompt.tasks.templated import TemplateTask, columns_read
from rlprompt.template import SEPARATOR, Template, TemplateText
from rlprompt.types import Floats, Outputs, SelectBy

MetricSettings = str | Mapping[str, Any]
"""A metric's name, or a mapping with its name and settings."""
Reward = MetricSettings | Sequence[Mapping[str, Any]] | RewardFunction

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
        reward: A metric's name (`metrics.METRICS`), metrics with the weight of each in the sum,
            one with settings, such as `{"name": "number", "tolerance": 0.01}`, or a list of such,
            each with a `weight`, 1 if it has none; or a function marked with `@rlprompt.reward`
            that reads `outputs`. It is given what the model wrote without white space around it.
            Or `log_likelihood`, the mean
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
        metric_settings: The settings of that metric, where it has some.
        select_by: By what a prompt is picked on dev: its `reward`, or the `metric` and among equals
            the reward, for which all candidates are scored on all of dev.
        pooling: Of `log_likelihood`, how several references of an example count together: the
            `best` of them, or their `logsumexp` (`References`).

    Raises:
        ValueError: A setting is out of its range, the template has a `{mask}`, there is no such
            metric, or an example lacks the reference that a metric or `log_likelihood` needs.

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
    reward: Reward
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
    metric_settings: Mapping[str, Any] = field(default_factory=dict)

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
        if self._by_likelihood and self.length_penalty:
            raise ValueError(
                f"length_penalty is {self.length_penalty}, and with {LOG_LIKELIHOOD} the model "
                "writes nothing to penalise; leave it out"
            )
        needing = [LOG_LIKELIHOOD] * self._by_likelihood
        needing += [one.name for one in self._all_metrics if one.needs_reference]
        examples = [(split, one) for split, part in self.splits.parts().items() for one in part]
        for split, example in examples if needing else ():
            reference_texts(example, split, needing[0])
        for found in self._all_metrics:
            for split, example in examples:
                if problem := found.check(example):
                    raise ValueError(f"{example.where(split)} has {problem}; change it")

    @classmethod
    @draws()
    def from_file(
        cls,
        data: DataSource,
        *,
        template: TemplateText,
        reward: Reward,
        text: str | Sequence[str] | Mapping[str, str] | None = None,
        label: str | None = None,
        max_new_tokens: int = 16,
        stop: str | Sequence[str] = ("\n",),
        temperature: float = 0.0,
        sampling_seed: int = 0,
        length_penalty: float = 0.0,
        hand_prompt: str = "",
        min_new_tokens: int = 0,
        metric: MetricSettings = "",
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
            metric: As for the class; or a mapping with its name and settings.
            select_by: As for the class.
            pooling: As for the class.
            name: What results call it; left out, that of the data.
            **draw: What is drawn of the data (`DrawSettings`).

        Raises:
            ValueError: Something is not there, or has a defect.
        """
        made = Template.of(template)
        with columns_read(made, text) as fields:
            splits = draw_splits(data, None, draw, text=fields, label=label)
        reported, settings = (metric, {}) if isinstance(metric, str) else _parted(metric)
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
            metric=reported,
            select_by=select_by,
            pooling=pooling,
            metric_settings=settings,
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
    def _metrics(self) -> tuple[tuple[AnswerMetric, float], ...]:
        """The metrics that are the reward and their weights, if it is made of metrics."""
        if isinstance(self.reward, RewardFunction) or self._by_likelihood:
            return ()
        specs = _weighted(self.reward)
        if not specs:
            raise ValueError(f"reward names no metric; give one of {', '.join(METRICS)}")
        if any(LOG_LIKELIHOOD in (spec, _name(spec)) for spec, _ in specs):
            raise ValueError(
                f"{LOG_LIKELIHOOD} is a reward by itself and cannot be added to metrics; give "
                f"`reward: {LOG_LIKELIHOOD}`, and a metric for reports as `metric:`"
            )
        for spec, weight in specs:
            number = isinstance(weight, int | float) and not isinstance(weight, bool)
            if not number or not math.isfinite(weight):
                raise ValueError(f"the weight of {_name(spec)!r} is {weight!r}; give a number")
        return tuple((metric(spec), float(weight)) for spec, weight in specs)

    @functools.cached_property
    def _reported(self) -> AnswerMetric | None:
        """What reports give, where it is not the reward."""
        if self.metric == "reward":
            return None
        return metric({"name": self.metric, **self.metric_settings})

    @property
    def metric_range(self) -> tuple[float, float] | None:
        """See `Task.metric_range`: metrics are from 0 to 1, and what is written may cost."""
        if self._reported is not None:
            return 0.0, 1.0
        weights = [weight for _, weight in self._metrics]
        most = sum(weight for weight in weights if weight > 0)
        lost = self.length_penalty * self.max_new_tokens
        # Rounded, so that weights of 0.6, 0.3 and 0.1 come to 1.
        return (round(sum(weights) - most - lost, 9), round(most, 9)) if weights else None

    @property
    def _all_metrics(self) -> list[AnswerMetric]:
        """Those of the reward, and the reported one."""
        return [*(one for one, _ in self._metrics), *filter(None, (self._reported,))]

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
        # These change no reward, but what a finished search says; left out where they are as usual.
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

    def fitted(self, lm: FrozenLM, n_prompt: int) -> Self:
        """See `Task.fitted`: examples leave room for what is written where that is judged, too."""
        task = super().fitted(lm, n_prompt)
        for split, part in task.splits.parts().items():
            for one in task._all_metrics:
                one.check_room(split, part, task.max_new_tokens)
        return task

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
                f"length_penalty needs the number of tokens in an answer, which {lm.name}, served "
                f"by {lm.where}, does not report; leave it out, or use a model on this machine"
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

    def feedback(
        self,
        lm: FrozenLM,
        prompts: Sequence[Prompt],
        examples: Sequence[Example],
        outputs: Outputs | None,
    ) -> Outputs | None:
        """See `Task.feedback`: what the reward function says of each output."""
        if outputs is None or not isinstance(self.reward, RewardFunction):
            return None
        pairs = zip(prompts, outputs, strict=True)
        said = [self.reward.feedback(o, examples, self._shown(lm, p)) for p, o in pairs]
        return in_place(said, len(examples))

    def judge_tokens(self, examples: Sequence[Example], outputs: Outputs) -> int:
        """See `Task.judge_tokens`: of the reward's judges."""
        judges = [one for one, _ in self._metrics]
        return sum(one.tokens(row, examples) for one in judges for row in outputs)

    def measure(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Measured:
        """Rewards, the reported metric, and what was written, (P, E) each."""
        rewards, outputs = self.rewards_with_outputs(lm, prompts, examples)
        if self._reported is None:
            return Measured(rewards, rewards, outputs)
        metrics = [self._reported.of(row, examples) for row in outputs]
        return Measured(rewards, np.array(metrics, dtype=np.float64), outputs)

    def answer_shown(self, example: Example) -> str:
        """Its reference."""
        return example.label.strip()

    def demonstrations(self) -> InContextExamples | None:
        """See `Task.demonstrations`: examples that have a reference answer."""
        ends = any(stop in SEPARATOR for stop in self.stop)
        stop = (*self.stop, *(() if ends else (SEPARATOR,)))
        led = self.leading(stop=stop)
        if led is None:
            return None
        answers = [(example, self.answer_shown(example)) for example in self.splits.train]
        texts = [demonstration(led.template, example, text) for example, text in answers if text]
        return InContextExamples(led, [[text] for text in texts[:MOST_SHOTS]])

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
        values = np.zeros(len(examples))
        for found, weight in self._metrics:
            values += weight * np.array(found.of(outputs, examples))
        return values


def _is_place(reward: object) -> TypeGuard[str]:
    """Whether this says where a function is, and is no metric's name."""
    return isinstance(reward, str) and ":" in reward and reward.partition(":")[0] not in METRICS


def _weighted(reward: MetricSettings | Sequence[Mapping[str, Any]]) -> list[tuple[Any, Any]]:
    """Metrics, each with its weight."""
    if isinstance(reward, str):
        return [(reward, 1.0)]
    if isinstance(reward, Mapping) and "name" not in reward:
        return list(reward.items())
    specs = [reward] if isinstance(reward, Mapping) else [dict(one) for one in reward]
    return [
        ({key: value for key, value in one.items() if key != "weight"}, one.get("weight", 1.0))
        for one in specs
    ]


def _name(spec: MetricSettings) -> Any:
    return spec if isinstance(spec, str) else spec.get("name")


def _parted(spec: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of a metric, and its settings."""
    settings = dict(spec)
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"metric {dict(spec)!r} has no name; give one of {', '.join(METRICS)}")
    return name, settings
