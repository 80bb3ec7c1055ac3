"""Multiple choice: every example has options of its own, and the likeliest one is the answer.

An option is scored whole, as the continuation of text and prompt: by the sum of its tokens'
log-likelihoods, nats, or by that sum over the option's length. Both are what
lm-evaluation-harness (`api/task.py`, 0.4.13) does for tasks of `output_type: multiple_choice`, and
the metrics have its names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Unpack, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlprompt._utils.suggest import check_choice
from rlprompt._utils.text import counted
from rlprompt.data.examples import Example, Splits
from rlprompt.data.load import DataSource
from rlprompt.data.opening import data_name
from rlprompt.data.options import LETTERS, AnswersFrom
from rlprompt.data.settings import DrawSettings, draw_splits, draws
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt
from rlprompt.tasks.base import InContextExamples, Measured
from rlprompt.tasks.class_scores import REWARDS
from rlprompt.tasks.showing import MOST_SHOTS, demonstration
from rlprompt.tasks.templated import ChoosingTask, columns_read
from rlprompt.template import Query, Template, TemplateText
from rlprompt.types import AnswerSpace, Floats, Ids, Loss, SelectBy, SpellingError

AnswerBy = Literal["text", "letter"]
"""What the model is asked for: an option's text, or its letter."""
ChoiceMetric = Literal["acc", "acc_norm", "acc_bytes"]
"""Whether the likeliest option is right: as it is, by its characters, or by its UTF-8 bytes."""

LENGTHS: Mapping[str, Callable[[str], int]] = {
    "acc": lambda option: 1,
    "acc_norm": len,
    "acc_bytes": lambda option: len(option.encode()),
}


@dataclass(frozen=True)
class MultipleChoiceTask(ChoosingTask):
    """Choose among the options that each example has of its own.

    Args:
        name: What results call it.
        splits: The examples, with `options`, two or more, one of which is the label.
        template: Where text and prompt go; an option follows, or stands at `{mask}`.
        reward: `cross_entropy` of the right option among the others; `gap`, `hinge` or `accuracy`.
        metric: What reports give, with the values of lm-evaluation-harness: `acc`, or `acc_norm`,
            by which log-likelihoods are divided by the option's number of characters, or
            `acc_bytes`, by its bytes. The reward is made of the same scores.
        select_by: By what a prompt is picked on dev: its `reward`, or the `metric`.
        answer_by: Whether the model answers with an option's `text` or with its `letter`, where the
            template shows the options with letters.
        hand_prompt: A prompt written by hand, the control of every comparison.

    Raises:
        ValueError: An unknown setting, or an example without options or with a label that is none.

    >>> from rlprompt.check.toy import toy_lm
    >>> from rlprompt.data.load import load_splits
    >>> rows = [
    ...     {"question": f"{n} + 1 =", "choices": [f"{n}", f"{n + 1}", f"{n + 2}"][: 2 + n % 2],
    ...      "answer": 1} for n in range(6)
    ... ]
    >>> splits = load_splits(
    ...     rows, None, text=["question"], label="answer", options="choices", shots=2
    ... )
    >>> task = MultipleChoiceTask("sums", splits, Template("{prompt} {question}"))
    >>> lm = toy_lm()
    >>> measured = task.measure(lm, [task.written(lm, "Count:")], splits.test)
    >>> measured.rewards.shape, set(measured.metrics[0].tolist()) <= {0.0, 1.0}
    ((1, 2), True)
    """

    name: str
    splits: Splits
    template: Template
    reward: str = "cross_entropy"
    metric: str = "acc"
    select_by: str = "reward"
    answer_by: str = "text"
    hand_prompt: str = ""

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        if self.reward not in REWARDS:
            raise ValueError(f"reward is {self.reward!r}; give one of {', '.join(REWARDS)}")
        check_choice("metric", self.metric, ChoiceMetric)
        check_choice("select_by", self.select_by, SelectBy)
        check_choice("answer_by", self.answer_by, AnswerBy)
        for split, examples in self.splits.parts().items():
            for example in examples:
                self._check(example, split)

    def _check(self, example: Example, split: str) -> None:
        where, n = example.where(split), len(example.options)
        if n < 2:
            raise ValueError(f"{where} has {counted(n, 'option')}; give two or more")
        if example.label not in example.options:
            raise ValueError(
                f"{where} has the answer {example.label!r}, which is not one of its options: "
                f"{', '.join(map(repr, example.options))}"
            )
        if self.answer_by == "letter" and n > len(LETTERS):
            raise ValueError(
                f"{where} has {n} options, and there are {len(LETTERS)} letters; set "
                "answer_by: text"
            )

    @classmethod
    @draws()
    def from_file(
        cls,
        data: DataSource,
        *,
        template: TemplateText,
        choices: str = "choices",
        label: str = "answer",
        answers_from: AnswersFrom | None = None,
        text: str | Sequence[str] | Mapping[str, str] | None = None,
        reward: str = "cross_entropy",
        metric: str = "acc",
        select_by: str = "reward",
        answer_by: str = "text",
        answer_space: AnswerSpace = "auto",
        calibration: str = "none",
        hand_prompt: str = "",
        name: str = "",
        **draw: Unpack[DrawSettings],
    ) -> MultipleChoiceTask:
        """Choose among the options that each row of a file has of its own.

        Args:
            data: As for `load_splits`.
            template: Where text and prompt go: a text, or the messages of a chat (`Template.of`). A
                field that is called as the column of options shows them with letters, a line each.
            choices: Column of the options: a list, its JSON, or `{"text": [...], "label": [...]}`.
            label: Column of the right one: its letter, its place, its label or its text.
            answers_from: The number of the first option, 0 or 1, where answers are places; left
                out, 0, but for data that look counted from 1, which are refused.
            text: Columns for the template's fields, as for `ClassificationTask.from_file`.
            reward: As for the class.
            metric: As for the class.
            select_by: As for the class.
            answer_by: As for the class.
            answer_space: What stands between text and option (`Template`).
            calibration: `none`: there is no prior of options that are others in every row.
            hand_prompt: As for the class.
            name: What results call it; left out, that of the data.
            **draw: What is drawn of the data (`DrawSettings`).

        Raises:
            ValueError: Something is not there, or has a defect.
        """
        if calibration != "none":
            raise ValueError(
                f"calibration is {calibration!r}: it needs the same classes in every row, and here "
                "each row has its own options; leave it out, or set metric: acc_norm where options "
                "differ in length"
            )
        made = Template.of(template, answer_space)
        with columns_read(made, text) as fields:
            splits = draw_splits(
                data,
                None,
                draw,
                text=fields,
                label=label,
                options=choices,
                answers_from=answers_from,
            )
        return cls(
            name=name or data_name(data),
            splits=splits,
            template=made,
            reward=reward,
            metric=metric,
            select_by=select_by,
            answer_by=answer_by,
            hand_prompt=hand_prompt,
        )

    @property
    def fingerprint(self) -> str:
        """Hash of template, reward, examples, and how options are scored."""
        template = self.template.text, self.template.answer_space
        state = [*template, self.reward, self.metric, self.answer_by, self.splits.digest]
        if self.select_by != "reward":  # which changes no reward, but what a search says
            state.append(f"select by {self.select_by}")
        return hashlib.blake2b(repr(state).encode(), digest_size=16).hexdigest()

    def queries(self, lm: FrozenLM, examples: Sequence[Example]) -> list[Query]:
        """The examples as the model sees them, each with as many candidates as the longest has.

        Those that an example has not itself are its last option again.

        Raises:
            SpellingError: The tokenizer spells an option with no token, or two of a row alike.
            ValueError: A masked model without `{mask}` in the template, or a mask for another.
        """
        self.check_mask(lm)
        own, known = self.template.on(lm), dict[str, Ids]()
        most, queries = max((len(example.options) for example in examples), default=0), []
        for example in examples:
            spelt, answers = list[Ids](), self._answers(example)
            for answer in answers:
                if answer not in known:
                    known[answer] = own.answer_ids(lm, own.answer_text(answer, lm.kind), plain=True)
                ids, row = known[answer], f"of {example.where('given')}"
                if not ids:
                    raise SpellingError(
                        f"the tokenizer of {lm.name} spells the option {answer!r} {row} with no "
                        "token"
                    )
                if ids in spelt:  # which would be a tie under every prompt
                    first = answers[spelt.index(ids)]
                    raise SpellingError(
                        f"the tokenizer of {lm.name} spells the options {first!r} and {answer!r} "
                        f"{row} alike"
                    )
                spelt.append(ids)
            spelt += spelt[-1:] * (most - len(spelt))
            queries.append(own.query(example.fields, lm, spelt))
        return queries

    def measure(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Measured:
        """Rewards, whether the likeliest option is right, and that option's text, (P, E) each."""
        scores = self.scores(lm, prompts, examples)
        answered = scores.argmax(-1)  # of equals the first, as in lm-evaluation-harness
        return Measured(
            self._rewarded(scores, examples),
            (answered == _places(examples)).double().numpy(),
            tuple(
                tuple(example.options[i] for example, i in zip(examples, row, strict=True))
                for row in answered.tolist()
            ),
        )

    def scores(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Tensor:
        """Scores (P, E, C) float64 of the options: nats, or nats a character or byte.

        Minus infinity beyond an example's own options.
        """
        loglik = lm.score(prompts, self.queries(lm, examples)).double()
        return _scaled(loglik, self._sizes(examples))

    def with_grad(
        self,
        loss: Loss,
        lm: FrozenLM,
        prompts: Sequence[SoftPrompt],
        examples: Sequence[Example],
    ) -> tuple[Floats, NDArray[np.float32]]:
        """See `ChoosingTask.with_grad`."""
        climbed = REWARDS[self.reward if loss == "reward" else loss]
        places, sizes = _places(examples), self._sizes(examples)

        def of_options(loglik: Tensor, which: NDArray[np.int64]) -> Tensor:
            own = torch.from_numpy(which)
            scores = _scaled(loglik, sizes[own].to(loglik))
            return climbed(scores, places[own].to(loglik.device))

        loglik, grad = lm.score_with_grad(prompts, self.queries(lm, examples), of_options)
        rewards = self._rewarded(_scaled(loglik.double(), sizes), examples)
        return rewards, cast("NDArray[np.float32]", (grad / len(examples)).numpy())

    def demonstrations(self) -> InContextExamples | None:
        """See `Task.demonstrations`."""
        led = self.leading()
        if led is None:
            return None
        shown = self.splits.train[:MOST_SHOTS]
        texts = [demonstration(led.template, one, self.answer_shown(one)) for one in shown]
        return InContextExamples(led, [[text] for text in texts])

    def answer_shown(self, example: Example) -> str:
        """The right option, or its letter."""
        return self._answers(example)[_place(example)]

    def _answers(self, example: Example) -> Sequence[str]:
        """What the model may answer."""
        letters = self.answer_by == "letter"
        return LETTERS[: len(example.options)] if letters else example.options

    def _sizes(self, examples: Sequence[Example]) -> Tensor:
        """What log-likelihoods are divided by, (E, C) float64; NaN where there is no option."""
        most = max(len(example.options) for example in examples)
        sizes = torch.full((len(examples), most), torch.nan, dtype=torch.float64)
        for own, example in zip(sizes, examples, strict=True):
            length = [LENGTHS[self.metric](answer) for answer in self._answers(example)]
            own[: len(length)] = own.new_tensor(length)
        return sizes

    def _rewarded(self, scores: Tensor, examples: Sequence[Example]) -> Floats:
        """Rewards (P, E) of scores (P, E, C)."""
        places = _places(examples).repeat(len(scores))
        found = REWARDS[self.reward](scores.flatten(0, 1), places)
        return cast(Floats, found.view(scores.shape[:2]).numpy())


def _scaled(loglik: Tensor, sizes: Tensor) -> Tensor:
    """Log-likelihoods (..., C) over the lengths of the options, minus infinity where is none."""
    return (loglik / sizes.nan_to_num(1)).masked_fill(sizes.isnan(), -torch.inf)


def _place(example: Example) -> int:
    return example.options.index(example.label)


def _places(examples: Sequence[Example]) -> Tensor:
    """Places (E,) of the right options."""
    return torch.tensor([_place(example) for example in examples])
