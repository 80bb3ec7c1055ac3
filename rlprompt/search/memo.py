"""What the model said, and where that may be remembered: the seam between a search and a store.

A question says what is asked, how its answer is written down, and in which table; a `Memo` keeps
answers and knows nothing of what they mean. Questions are whole batches, as the model gets them:
the last bit of a score depends on what it was computed together with.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from rlprompt.prompt import PrefixPrompt, Prompt, SoftPrompt
from rlprompt.search.result import prompt_state
from rlprompt.tasks.base import Measured, Task, unusable
from rlprompt.types import Floats, Ids, Loss, Outputs, Written

if TYPE_CHECKING:
    from rlprompt.models.decoding import Decoding
    from rlprompt.models.lm import FrozenLM

V = TypeVar("V")

# Part of every key. Raise it when a change to scoring changes scores by more than rounding.
SCORING = 1


@dataclass(frozen=True)
class Answer:
    """What the model said to one batch of prompts.

    Attributes:
        per_example: (P, E) float64.
        gradients: (P, *shape of the prompts' vectors) float32, or None where none were asked for.
        seconds: Wall time that it took when it was computed, be that now or in an earlier process.
        outputs: (P, E) texts that the model wrote, or None where a reward is no matter of texts.
        judge_tokens: Tokens that models which judge answers read of these.
    """

    per_example: Floats
    gradients: NDArray[np.float32] | None
    seconds: float
    outputs: Outputs | None = None
    judge_tokens: int = 0

    @property
    def usable(self) -> bool:
        """Whether all of it is numbers, and no reward too large."""
        gradients = self.gradients
        return not unusable(self.per_example).any() and (
            gradients is None or bool(np.isfinite(gradients).all())
        )


class Measurement(NamedTuple):
    """What prompts came to on a split.

    Attributes:
        measured: On each example.
        at: When it was computed, ISO 8601 with the time zone.
        seconds: How long that took.
    """

    measured: Measured
    at: str
    seconds: float


class Reading(NamedTuple):
    """What the model made of what it read for a method.

    Attributes:
        vectors: float32, a text or prompt along the first axis.
        seconds: Wall time that it took when it was read, be that now or in an earlier process.
    """

    vectors: NDArray[np.float32]
    seconds: float


class Writing(NamedTuple):
    """What a writer wrote.

    Attributes:
        answers: To each request.
        seconds: Wall time that it took when it was written, be that now or in an earlier process.
    """

    answers: tuple[Written, ...]
    seconds: float


class Scope(NamedTuple):
    """What decides an answer beside the question.

    Attributes:
        model: The model, and the version of scoring.
        task: The task.
        examples: The examples of all splits, and what keeps answers apart from others.
    """

    model: str
    task: str
    examples: str

    @classmethod
    def of(cls, lm: FrozenLM, task: Task, apart: str = "") -> Scope:
        """The scope of a task on a model; `apart` tells it from those of other purposes."""
        model = f"{SCORING} {lm.fingerprint.digest}"
        return cls(model, task.fingerprint, f"{task.splits.digest}{apart}")


class Question(ABC, Generic[V]):
    """Something that the model is asked, and may have been asked before.

    Attributes:
        table: Where its answers are kept.
        columns: Those that an answer is read from.
    """

    table: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]

    @abstractmethod
    def key(self, scope: Scope) -> bytes:
        """What an answer is found by: a hash of all that decides it."""

    @abstractmethod
    def encoded(self, answer: V) -> Mapping[str, Any]:
        """An answer as a row, by column; what is not in `columns` is for other readers."""

    @abstractmethod
    def decoded(self, row: Sequence[Any]) -> V:
        """The answer in a row of `columns`."""


@dataclass(frozen=True)
class TrainQuestion(Question[Answer]):
    """What a batch of prompts earns on train, within a budget.

    Attributes:
        prompts: (P,) of them.
        gradient: Whether gradients are asked for.
        examples: Places of the train examples to score on, ascending; None for all.
        loss: What the gradients are of.
        told: Whether what the model answers is asked for, where the task tells that.
        read: How a person reads a prompt that is tokens, None for another; no part of what is
            asked. Called only when an answer is put away, and when it goes to another
            machine, for decoding takes time.
    """

    table: ClassVar[str] = "answers"
    columns: ClassVar[tuple[str, ...]] = (
        *("rewards", "gradients", "seconds", "outputs", "judge_tokens"),
    )

    prompts: tuple[Prompt, ...]
    gradient: bool = False
    examples: tuple[int, ...] | None = None
    loss: Loss = "reward"
    told: bool = False
    read: Callable[[Prompt], str | None] | None = field(default=None, compare=False, repr=False)

    @property
    def climbed(self) -> Loss | None:
        """What a gradient is taken of; None without one."""
        return self.loss if self.gradient else None

    @cached_property
    def _texts(self) -> list[str | None]:
        """(P,) texts of the prompts, read once where an answer goes into two files."""
        return [] if self.read is None else [self.read(prompt) for prompt in self.prompts]

    def __getstate__(self) -> dict[str, Any]:
        """As it goes to another machine: with the texts, without what reads them and its model."""
        return vars(self) | {"read": None, "_texts": self._texts}

    def key(self, scope: Scope) -> bytes:
        """See `Question.key`."""
        some = "" if self.examples is None else f" {list(self.examples)}"
        of = f"{self.gradient} {self.loss}{' told' if self.told else ''}"
        return _key(f"{scope.model} {scope.task} {of}{some}", self.prompts)

    def encoded(self, answer: Answer) -> Mapping[str, Any]:
        """See `Question.encoded`."""
        gradients = answer.gradients
        return {
            "prompts": json.dumps(_states(self, answer)),
            "texts": json.dumps(self._texts) if any(self._texts) else None,
            "digests": bytes.fromhex("".join(prompt.digest for prompt in self.prompts)),
            "rewards": answer.per_example.astype("<f8").tobytes(),
            "gradients": None if gradients is None else gradients.astype("<f4").tobytes(),
            "seconds": answer.seconds,
            "outputs": _packed(answer.outputs),
            "judge_tokens": answer.judge_tokens,
            "examples": None if self.examples is None else json.dumps(self.examples),
        }

    def decoded(self, row: Sequence[Any]) -> Answer:
        """See `Question.decoded`."""
        rewards, gradients, seconds, outputs, judged = row
        if gradients is not None:
            flat = np.frombuffer(gradients, dtype="<f4")
            first = self.prompts[0]
            shape = first.vectors.shape if isinstance(first, SoftPrompt) else (len(first), -1)
            gradients = flat.reshape(len(self.prompts), *shape).astype(np.float32)
        return Answer(_floats(rewards, self.prompts), gradients, seconds, texts(outputs), judged)


@dataclass(frozen=True)
class SplitQuestion(Question[Measurement]):
    """What prompts come to on a split, outside any budget.

    Attributes:
        prompts: (P,) of them.
        split: `train`, `dev` or `test`, or `prior` for what their scores are calibrated by.
        which: Places of the examples to score on; None for all.
        classes: Of a prior, those that its figures stand for, in their order: a task is the same
            whatever the order of its label words.
    """

    table: ClassVar[str] = "scores"
    columns: ClassVar[tuple[str, ...]] = ("at", "seconds", "rewards", "metrics", "answers")

    prompts: tuple[Prompt, ...]
    split: str
    which: tuple[int, ...] | None = None
    classes: tuple[str, ...] = ()

    def key(self, scope: Scope) -> bytes:
        """See `Question.key`."""
        some = "" if self.which is None else f" {list(self.which)}"
        some += f" of {list(self.classes)}" if self.classes else ""
        return _key(f"{' '.join(scope)} {self.split}{some}", self.prompts)

    def encoded(self, answer: Measurement) -> Mapping[str, Any]:
        """See `Question.encoded`."""
        rewards, metrics, answers = answer.measured
        return {
            "split": self.split,
            "at": answer.at,
            "seconds": answer.seconds,
            "rewards": rewards.astype("<f8").tobytes(),
            "metrics": metrics.astype("<f8").tobytes(),
            "answers": _packed(answers),
        }

    def decoded(self, row: Sequence[Any]) -> Measurement:
        """See `Question.decoded`."""
        at, seconds, rewards, metrics, answers = row
        rewards, metrics = (_floats(content, self.prompts) for content in (rewards, metrics))
        return Measurement(Measured(rewards, metrics, texts(answers)), at, seconds)


class ReadingQuestion(Question[Reading]):
    """What the model is to read for a method, at no row; the same in all tasks."""

    table: ClassVar[str] = "hidden"
    columns: ClassVar[tuple[str, ...]] = ("vectors", "seconds")

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of the answer's vectors; -1 where it is not known."""

    def encoded(self, answer: Reading) -> Mapping[str, Any]:
        """See `Question.encoded`."""
        return {"vectors": answer.vectors.astype("<f4").tobytes(), "seconds": answer.seconds}

    def decoded(self, row: Sequence[Any]) -> Reading:
        """See `Question.decoded`."""
        vectors, seconds = row
        flat = np.frombuffer(vectors, dtype="<f4").astype(np.float32)
        # Stores did not always keep the seconds: NULL is unknown.
        return Reading(flat.reshape(self.shape), seconds or 0.0)


@dataclass(frozen=True)
class HiddenQuestion(ReadingQuestion):
    """What the model makes of texts (`Objective.hidden`).

    Attributes:
        texts: (B,) token ids.
        after: What was asked before, call by call: it decides the last bit.
    """

    texts: tuple[Ids, ...]
    after: tuple[tuple[Ids, ...], ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """See `ReadingQuestion.shape`."""
        return len(self.texts), -1

    def key(self, scope: Scope) -> bytes:
        """See `Question.key`."""
        after = f" after {list(self.after)}" if self.after else ""
        return _key(f"{scope.model} hidden {list(self.texts)}{after}", ())


@dataclass(frozen=True)
class KeysQuestion(ReadingQuestion):
    """What the model's layers make of soft prompts (`Objective.keys_and_values`).

    Attributes:
        prompts: (P,) soft prompts of one length.
        position: Shape of the keys and values of a position.
    """

    prompts: tuple[SoftPrompt, ...]
    position: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """See `ReadingQuestion.shape`."""
        return len(self.prompts), len(self.prompts[0]), *self.position

    def key(self, scope: Scope) -> bytes:
        """See `Question.key`."""
        return _key(f"{scope.model} keys", self.prompts)


@dataclass(frozen=True)
class WritingQuestion(Question[Writing]):
    """What a writer is asked to write (`Objective.written`); the same in all tasks.

    Attributes:
        writer: Its digest.
        requests: (R,) texts.
        decoding: How it is to write.
    """

    table: ClassVar[str] = "writings"
    columns: ClassVar[tuple[str, ...]] = ("answers", "seconds")

    writer: str
    requests: tuple[str, ...]
    decoding: Decoding

    def key(self, scope: Scope) -> bytes:
        """See `Question.key`."""
        return _key(f"writing {self.writer} {self.decoding!r} {list(self.requests)}", ())

    def encoded(self, answer: Writing) -> Mapping[str, Any]:
        """See `Question.encoded`."""
        written = zlib.compress(json.dumps(answer.answers).encode())
        return {"answers": written, "seconds": answer.seconds}

    def decoded(self, row: Sequence[Any]) -> Writing:
        """See `Question.decoded`."""
        answers, seconds = row
        return Writing(
            tuple(Written(*one) for one in json.loads(zlib.decompress(answers))), seconds
        )


class Memo(Protocol):
    """Answers of one task and model that were computed before, such as by a run that was killed."""

    def get(self, question: Question[V]) -> V | None:
        """The answer to a question, or None: then the model is asked, and `put` called."""
        ...

    def put(self, question: Question[V], answer: V) -> V:
        """Put away a new answer, for good once this returns, and return what counts from now on."""
        ...


def remembered(memo: Memo | None, question: Question[V], compute: Callable[[], V]) -> V:
    """The answer to a question, computed where it is not remembered."""
    if memo is None:
        return compute()
    found = memo.get(question)
    return memo.put(question, compute()) if found is None else found


def texts(content: bytes | None) -> Outputs | None:
    """The texts in a column, None where a task has none."""
    return None if content is None else tuple(map(tuple, json.loads(zlib.decompress(content))))


def _packed(written: Outputs | None) -> bytes | None:
    # What a model wrote repeats itself: it shrinks to a third.
    return None if written is None else zlib.compress(json.dumps(written).encode())


def _floats(content: bytes, prompts: Sequence[Prompt]) -> Floats:
    # A copy: what is read from the file cannot be written to, and PyTorch refuses that.
    return np.frombuffer(content, dtype="<f8").reshape(len(prompts), -1).copy()


def _key(scope: str, prompts: Sequence[Prompt]) -> bytes:
    digest = hashlib.blake2b(scope.encode(), digest_size=16)
    for prompt in prompts:
        digest.update(prompt.digest.encode())
    return digest.digest()


def _states(question: TrainQuestion, answer: Answer) -> list[dict[str, Any] | None]:
    """The prompts as JSON values; of soft prompts, which are large, the best alone.

    Of prefix prompts, which are larger by the number of layers, none of a part of the examples.
    """
    best = int(answer.per_example.mean(axis=1).argmax())

    def kept(i: int, prompt: Prompt) -> bool:
        if isinstance(prompt, PrefixPrompt) and question.examples is not None:
            return False
        return not isinstance(prompt, SoftPrompt) or i == best

    return [prompt_state(p) if kept(i, p) else None for i, p in enumerate(question.prompts)]
