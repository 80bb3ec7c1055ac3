"""Tells classes apart by the log-likelihoods of their label words."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self, Unpack, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlprompt._utils.suggest import check_choice
from rlprompt._utils.text import listed_briefly
from rlprompt.data.examples import Example, Splits
from rlprompt.data.labels import UnknownLabelsError
from rlprompt.data.load import DataSource
from rlprompt.data.opening import data_name
from rlprompt.data.settings import DrawSettings, draw_splits, draws
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt
from rlprompt.tasks.base import GRADIENT_ROWS, InContextExamples, Measured, variant
from rlprompt.tasks.calibration import CALIBRATIONS, content_free_texts
from rlprompt.tasks.class_metrics import NO_ANSWER, SET_METRICS
from rlprompt.tasks.class_scores import REWARDS, ClassScorer, accuracy, answered
from rlprompt.tasks.prior import needs_prior
from rlprompt.tasks.showing import MOST_SHOTS, demonstration
from rlprompt.tasks.templated import ChoosingTask, columns_read
from rlprompt.tasks.verbaliser import (
    LabelWordReport,
    LabelWords,
    Verbaliser,
    named_classes,
)
from rlprompt.template import Query, Template, TemplateText
from rlprompt.types import (
    DEFAULT_CALIBRATION,
    AnswerSpace,
    ClassMetric,
    Floats,
    Ids,
    Loss,
    SelectBy,
)


@dataclass(frozen=True)
class ClassificationTask(ChoosingTask):
    """Tell classes apart by the log-likelihoods of their label words.

    Args:
        name: What results call it.
        splits: The examples, labelled with keys of `label_words`.
        template: Where text, prompt and answer go.
        label_words: Class to label word, or to a list of them. A class is a text, or a number or
            truth value, which stand for their texts. A word of several tokens is scored whole. A
            word that starts with no white space follows the text as the template's `answer_space`
            says.
        reward: `gap`, `cross_entropy`, `hinge` or `accuracy`.
        hand_prompt: A prompt written by hand, the control of every comparison.
        pooling: How several words of a class make one score, `mean` or `logsumexp` (`Verbaliser`).
        length: How the tokens of a word make one log-likelihood, `sum` or `mean`.
        calibration: What is taken out of a prompt's scores. `contextual`: what the model answers
            to texts without content, for two or three more rows a prompt. `batch`: the mean class
            probability over train, whose labels it does not see, without examples that the prompt
            shows; train itself costs no more rows,
            or each class-balanced block of it, whose own mean is taken then; any other texts cost
            the rows of train once more. `none`.
        calibration_strength: How many times the log prior is taken out, 0 to 1.
        metric: What reports give: `accuracy`; or, where classes are rare, `balanced_accuracy`,
            `macro_f1` or `mcc` over all examples of a split (`class_metrics`). A search goes by
            `reward` whatever it is.
        select_by: By what a prompt is picked on dev: its `reward`, or the `metric`, for which all
            candidates are scored on all of dev.

    Raises:
        ValueError: Fewer than two classes, a label word that is empty or given twice, an unknown
            reward, pooling, length or calibration, a strength outside 0 to 1, a template without a
            text to calibrate by, or an example whose label has no word.

    >>> from rlprompt import TokenPrompt
    >>> from rlprompt.check.toy import toy_lm
    >>> from rlprompt.data.load import load_splits
    >>> lm, labels = toy_lm(), ["bad", "good"]
    >>> rows = [{"text": f"{label} {i}", "label": label} for i in range(6) for label in labels]
    >>> splits = load_splits(rows, labels, shots=2)
    >>> task = ClassificationTask(
    ...     "film", splits, Template("{text} {prompt}"), {"bad": "terrible", "good": "great"}
    ... )
    >>> prompts = [TokenPrompt(), task.written(lm, "It was")]
    >>> task.rewards(lm, prompts, splits.train).shape
    (2, 4)
    """

    # Log priors (C,) that it was told (`knowing`), by the prompt's content hash.
    _known: ClassVar[Mapping[str, Floats]] = {}

    name: str
    splits: Splits
    template: Template
    label_words: LabelWords
    reward: str = "gap"
    hand_prompt: str = ""
    pooling: str = "mean"
    length: str = "sum"
    calibration: str = DEFAULT_CALIBRATION
    calibration_strength: float = 1.0
    metric: str = "accuracy"
    select_by: str = "reward"

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        object.__setattr__(self, "label_words", named_classes(self.label_words))
        if self.reward not in REWARDS:
            raise ValueError(f"reward is {self.reward!r}; give one of {', '.join(REWARDS)}")
        if self.calibration not in CALIBRATIONS:
            raise ValueError(
                f"calibration is {self.calibration!r}; give one of {', '.join(CALIBRATIONS)}"
            )
        check_choice("metric", self.metric, ClassMetric)
        check_choice("select_by", self.select_by, SelectBy)
        if not 0 <= self.calibration_strength <= 1:
            raise ValueError(
                f"calibration_strength is {self.calibration_strength}; give a number from 0 (no "
                "calibration) to 1"
            )
        if self.calibration != "none" and not self.template.fields:
            raise ValueError(
                f"template {self.template.text!r} has no field, and calibration needs one; add a "
                "field such as {text}, or set `calibration: none`"
            )
        for examples in self.splits.parts().values():
            self._labels(examples)

    @cached_property
    def verbaliser(self) -> Verbaliser:
        """How words make classes."""
        return Verbaliser(self.label_words, self.pooling, self.length)

    @property
    def class_words(self) -> Mapping[str, Sequence[str]]:
        """Class to its label words."""
        return self.verbaliser.words

    @property
    def extra_rows(self) -> int:
        """Rows that a prompt costs beyond its examples: one for each text without content."""
        return len(content_free_texts(self.template)) if self.calibration == "contextual" else 0

    @property
    def prior_rows(self) -> int:
        """Rows that a prompt's prior costs: those of train, or of the texts without content."""
        return len(self.splits.train) if self.calibration == "batch" else self.extra_rows

    @property
    def scored_together(self) -> bool:
        """Whether the train texts that are scored make the prior: in batch calibration."""
        return self.calibration == "batch"

    def gradient_rows(self, n_examples: int, loss: Loss = "reward") -> int:
        """See `Task.gradient_rows`: a prior's part of it takes a forward pass more before."""
        if loss == "cross_entropy":
            return GRADIENT_ROWS * n_examples + self.extra_rows
        before = n_examples if self.calibration == "batch" else self.extra_rows
        return super().gradient_rows(n_examples) + before

    def split_rows(self, split: str, n_examples: int) -> int:
        """See `Task.split_rows`: with the prior, where it is not known."""
        return n_examples + (self.prior_rows if needs_prior(self, split) else 0)

    @classmethod
    @draws()
    def from_file(
        cls,
        data: DataSource,
        *,
        template: TemplateText,
        label_words: LabelWords,
        labels: Mapping[Any, str] | None = None,
        text: str | Sequence[str] | Mapping[str, str] | None = None,
        label: str = "label",
        reward: str = "gap",
        hand_prompt: str = "",
        pooling: str = "mean",
        length: str = "sum",
        calibration: str = DEFAULT_CALIBRATION,
        calibration_strength: float = 1.0,
        metric: str = "accuracy",
        select_by: str = "reward",
        answer_space: AnswerSpace = "auto",
        name: str = "",
        **draw: Unpack[DrawSettings],
    ) -> ClassificationTask:
        """Tell the classes of a file's rows apart.

        Args:
            data: As for `load_splits`: a file, list or frame that examples are drawn from, a folder
                with train, dev and test files, or `movie-reviews`.
            template: Where text, prompt and answer go: a text, or the messages of a chat
                (`Template.of`).
            label_words: As for the class.
            labels: What the data call the classes, where that is something else: such as
                `{0: "objective", 1: "subjective"}`.
            text: Columns for the template's fields: a mapping of field to column, or the column of
                the only field. Left out, the fields are columns.
            label: Column that holds the class.
            reward: As for the class.
            hand_prompt: As for the class.
            pooling: As for the class.
            length: As for the class.
            calibration: As for the class.
            calibration_strength: As for the class.
            metric: As for the class.
            select_by: As for the class.
            answer_space: What stands between text and label word (`Template`).
            name: What results call it; left out, the file's name, or those of the folder and the
                one that it is in.
            **draw: What is drawn of the data (`DrawSettings`).

        Raises:
            ValueError: Something is not there, or has a defect.
        """
        made = Template.of(template, answer_space)
        classes = list(named_classes(label_words))
        try:
            with columns_read(made, text) as fields:
                splits = draw_splits(data, classes, draw, text=fields, label=label, aliases=labels)
        except UnknownLabelsError as error:
            strange = listed_briefly(map(repr, error.labels), 3)
            raise ValueError(f"{error}; or give {strange} a word in `label_words`") from None
        return cls(
            name=name or data_name(data),
            splits=splits,
            template=made,
            label_words=label_words,
            reward=reward,
            hand_prompt=hand_prompt,
            pooling=pooling,
            length=length,
            calibration=calibration,
            calibration_strength=calibration_strength,
            metric=metric,
            select_by=select_by,
        )

    @property
    def fingerprint(self) -> str:
        """Hash of template, label words, reward, examples and how words make classes."""
        words = sorted(
            (label, own[0] if len(own) == 1 else sorted(own))
            for label, own in self.verbaliser.words.items()
        )
        state = [self.template.text, words, self.reward, self.splits.digest]
        # What is as usual is left out, so that an option that is added changes no hash there is.
        if any(len(own) > 1 for own in self.verbaliser.words.values()):
            state.append(f"pooling {self.pooling}")
        if self.length != "sum":
            state.append(f"length {self.length}")
        if changes := self.template.changes(
            [w for own in self.verbaliser.words.values() for w in own]
        ):
            state.append(f"answers {changes!r}")
        if self.calibration != "none":
            state.append(f"calibration {self.calibration}")
            if self.calibration_strength != 1:
                state.append(f"strength {float(self.calibration_strength)!r}")
        # These change no reward, but what a finished search says.
        if self.metric != "accuracy":
            state.append(f"metric {self.metric}")
        if self.select_by != "reward":
            state.append(f"select by {self.select_by}")
        return hashlib.blake2b(repr(tuple(state)).encode(), digest_size=16).hexdigest()

    def candidates(self, lm: FrozenLM) -> tuple[Ids, ...]:
        """Ids of all label words, class by class in the order of `label_words`.

        Raises:
            ValueError: The tokenizer spells two words alike.
        """
        return self._scorer(lm).candidates

    def label_word_report(self, lm: FrozenLM) -> LabelWordReport:
        """What the model's tokenizer makes of the label words, with warnings.

        Raises:
            ValueError: The tokenizer spells two words alike.
        """
        return self.verbaliser.report(lm, self.template)

    def queries(self, lm: FrozenLM, examples: Sequence[Example]) -> list[Query]:
        """The examples as the model sees them.

        Raises:
            ValueError: A masked model without `{mask}` in the template, or a mask for another.
        """
        self.check_mask(lm)
        candidates = self.candidates(lm)
        return [self.template.query(example.fields, lm, candidates) for example in examples]

    def measure(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Measured:
        """Rewards, accuracies and the classes that were answered, (P, E) each."""
        queries, train = self.queries(lm, examples), self._prior_texts(lm, examples)
        known = self._known_prior(prompts)
        told = self._told(lm, prompts, examples) if known is None else None
        scores = self._scorer(lm).scores(prompts, queries, train, known, told).flatten(0, 1)
        labels = self._labels(examples).repeat(len(prompts))
        shape = (len(prompts), len(examples))
        rewards, correct = (f(scores, labels) for f in (REWARDS[self.reward], accuracy))
        classes = [*self.verbaliser.words, NO_ANSWER]  # which is what -1 stands for
        answers = answered(scores).reshape(shape).tolist()
        return Measured(
            rewards.numpy().reshape(shape),
            correct.numpy().reshape(shape),
            tuple(tuple(classes[i] for i in row) for row in answers),
        )

    def set_metric(self, measured: Measured, examples: Sequence[Example]) -> Floats | None:
        """See `Task.set_metric`."""
        if self.metric == "accuracy":
            return None
        if measured.answers is None:
            raise ValueError(f"the metric {self.metric} needs the model's answers")
        labels = [example.label for example in examples]
        return np.array([SET_METRICS[self.metric](labels, row) for row in measured.answers])

    def with_grad(
        self,
        loss: Loss,
        lm: FrozenLM,
        prompts: Sequence[SoftPrompt],
        examples: Sequence[Example],
    ) -> tuple[Floats, NDArray[np.float32]]:
        """See `ChoosingTask.with_grad`: of the cross-entropy, not calibrated.

        A gradient learns by itself what calibration takes out, and a small block's prior is noise.
        """
        climbed = REWARDS[self.reward if loss == "reward" else loss]
        labels, scorer = self._labels(examples), self._scorer(lm)
        queries, train = self.queries(lm, examples), self._prior_texts(lm, examples)
        told = self._told(lm, prompts, examples)

        def of_labels(scores: Tensor, which: Tensor) -> Tensor:
            return climbed(scores, labels[which].to(scores.device))

        if loss == "reward":
            scores, grad = scorer.scores_with_grad(prompts, queries, of_labels, train, told)
        else:
            plain = replace(scorer, calibration="none")
            scores, grad = plain.scores_with_grad(prompts, queries, of_labels)
            scores = scorer.taken_out(scores, prompts, train, told=told)
        rewards = REWARDS[self.reward](scores.flatten(0, 1), labels.repeat(len(prompts))).numpy()
        return (
            rewards.reshape(len(prompts), len(examples)),
            cast("NDArray[np.float32]", (grad / len(examples)).numpy()),
        )

    def calibrated(self) -> Self | None:
        """See `Task.calibrated`."""
        if self.calibration != "none" or not self.template.fields:
            return None
        return variant(self, calibration="contextual")

    def uncalibrated(self) -> Self | None:
        """See `Task.uncalibrated`."""
        return variant(self, calibration="none") if self.calibration == "batch" else None

    def class_prior(self, lm: FrozenLM, prompt: Prompt) -> dict[str, float] | None:
        """See `Task.class_prior`.

        Raises:
            ValueError: A class has no part in it.
        """
        if self.calibration == "none":
            return None
        (prior,) = self.log_priors(lm, [prompt]).tolist()
        return dict(zip(self.verbaliser.words, prior, strict=True))

    def log_priors(self, lm: FrozenLM, prompts: Sequence[Prompt]) -> Floats:
        """See `Task.log_priors`.

        Raises:
            ValueError: A class has no part in one.
        """
        train = self.queries(lm, self.splits.train)
        told = self._told(lm, prompts, self.splits.train)
        priors: Floats = self._scorer(lm).prior(prompts, train, told).numpy()
        return priors

    def knowing(self, lm: FrozenLM, prompts: Sequence[Prompt], priors: Floats) -> Self:
        """See `Task.knowing`."""
        made = copy.copy(self)
        known = {one.digest: prior for one, prior in zip(prompts, priors, strict=True)}
        object.__setattr__(made, "_known", known)
        return made

    def answer_shown(self, example: Example) -> str:
        """The first label word of its class."""
        return self.verbaliser.words[example.label][0]

    def demonstrations(self) -> InContextExamples | None:
        """See `Task.demonstrations`: as many of each class, in fixed order.

        To texts that it has before it the model answers as it is told there: a prior of them would
        be one of copying, so in the place of train's are texts without content.
        """
        of_train = self.calibration == "batch"
        free = "contextual" if of_train else self.calibration
        led = self.leading(calibration=free)
        if led is None:
            return None
        words = self.verbaliser.words
        texts = [
            [
                demonstration(led.template, example, self.answer_shown(example))
                for example in self.splits.train
                if example.label == label
            ]
            for label in words
        ]
        rounds = list(zip(*texts, strict=False))
        note = "calibrated by what the model answers to texts without content, since train is shown"
        return InContextExamples(
            led, rounds[: max(1, MOST_SHOTS // len(words))], note if of_train else ""
        )

    def usage(self) -> Mapping[str, Any]:
        """See `Task.usage`."""
        return {
            "template": self.template.text,
            "answer_space": self.template.answer_space,
            "label_words": self.verbaliser.words,
            "pooling": self.pooling,
            "length": self.length,
            "calibration": self.calibration,
            "calibration_strength": self.calibration_strength,
        }

    def _scorer(self, lm: FrozenLM) -> ClassScorer:
        settings = self.calibration, self.calibration_strength
        return ClassScorer(lm, self.template, self.verbaliser, *settings)

    def _known_prior(self, prompts: Sequence[Prompt]) -> Tensor | None:
        """Log priors (P, C) of prompts that are all known."""
        if not self._known or not all(prompt.digest in self._known for prompt in prompts):
            return None
        return torch.from_numpy(np.stack([self._known[prompt.digest] for prompt in prompts]))

    def _prior_texts(self, lm: FrozenLM, examples: Sequence[Example]) -> list[Query]:
        """Train, where that calibrates examples that are not of it; else nothing.

        Train's own are told by identity: dev may share texts with it (`on_leak: allow`), and is no
        less of another split for that.
        """
        apart = self.calibration == "batch" and not self._of_train(examples)
        return self.queries(lm, self.splits.train) if apart else []

    def _of_train(self, examples: Sequence[Example]) -> bool:
        return {id(example) for example in self.splits.train}.issuperset(map(id, examples))

    def _told(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> NDArray[np.bool_] | None:
        """Which of the texts of batch calibration each prompt answers itself, (P, T)."""
        if self.calibration != "batch":
            return None
        of_train = self._of_train(examples)
        return self.shows(lm, prompts, examples if of_train else self.splits.train)

    def _labels(self, examples: Sequence[Example]) -> Tensor:
        places = {label: i for i, label in enumerate(self.verbaliser.words)}
        for example in examples:
            if example.label not in places:
                raise ValueError(
                    f"{example.source or dict(example.fields)} has the label {example.label!r}, "
                    f"which has no label word; known: {', '.join(places)}"
                )
        return torch.tensor([places[example.label] for example in examples])
