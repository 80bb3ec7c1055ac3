"""The types that rooms share: ids, numbers, pieces of text, what a model wrote, kinds of things."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from rlprompt._utils.chats import Message

Ids = tuple[int, ...]
"""Token ids, of a text or of a part of one."""

Candidates = tuple[Ids, ...]
"""The continuations that a model is asked about, each with a token or more."""

Floats = NDArray[np.float64]
"""Rewards, metrics and figures: float64, of the shape that is said where it is used."""

Outputs = tuple[tuple[str, ...], ...]
"""What a model wrote: a text for each example of each prompt, prompts x examples."""


class Written(NamedTuple):
    """An answer to a request, and the tokens that it took, as whoever wrote it counts."""

    text: str
    n_read: int
    n_written: int


def checked_space(space: str) -> str:
    """What is an `AnswerSpace`; ValueError if it is something else."""
    if space != "auto" and space.strip():
        raise ValueError(
            f"answer_space is {space!r}; give auto, ' ' (a space), '' (none) or other white space"
        )
    return space


AnswerSpace = Annotated[str, AfterValidator(checked_space)]
"""What stands between a text and a label word: white space, nothing, or (`auto`) what the
template's end and the word's script ask for."""

PromptKind = Literal["tokens", "soft", "prefix", "text"]
"""Whether a prompt is token ids, embedding vectors, keys and values at every layer, or text."""

StartName = Literal["vocabulary", "hand", "label-words", "common-words", "task-words", "auto"]
"""Where a search may begin, by name: random tokens, the task's hand prompt, the words of its
classes, the most common words, the train texts' own, or the best of all of these."""

PoolKind = Literal["all", "words", "likely", "gradient"]
"""Which tokens a token prompt is made of: all, words worth trying, what the model expects, or what
a gradient finds worth trying."""

ModelKind = Literal["causal", "masked", "encoder-decoder"]
"""Where a model reads its answer: after the text, at a mask, or in a decoder."""

Loss = Literal["reward", "cross_entropy"]
"""What a gradient is of: the task's own reward, or the log-probability of the right answer."""

Calibration = Literal["none", "contextual", "batch"]
"""What is taken out of the scores of classes: nothing, or what the model answers to texts without
content, or on average to the train texts."""

DEFAULT_CALIBRATION: Calibration = "batch"
"""What a classification does where nothing is said."""

ClassMetric = Literal["accuracy", "balanced_accuracy", "macro_f1", "mcc"]
"""What reports give of a task of classes."""

SelectBy = Literal["reward", "metric"]
"""By what a prompt is picked on dev."""

RegistryKind = Literal["optimiser", "task"]
"""What has a short name in an experiment file."""


class SpellingError(ValueError):
    """An example holds what a model's tokenizer cannot spell, or not so that it is told apart."""


class ControlTokenError(SpellingError):
    """A field holds what a tokenizer takes for a control token, whatever one does."""


class Piece(NamedTuple):
    """A piece of a text.

    Attributes:
        text: What it says.
        kind: `own` is the template's, in which control tokens are control tokens; a `field`'s are
            plain text, and so are those of what a model has `written`, without such as cannot be;
            `any` stands for text that is not known, such as a searched prompt.
    """

    text: str
    kind: Literal["own", "field", "written", "any"] = "own"


ANY = Piece("", "any")


class Encoder(Protocol):
    """What a template needs of a tokenizer; `FrozenLM` has it."""

    kind: ModelKind
    prefix_ids: Ids
    suffix_ids: Ids
    mask_id: int | None
    mask_token: str

    def spell(
        self, pieces: Sequence[Piece], after: Sequence[Piece] = (), *, cut: bool = False
    ) -> Ids:
        """Ids that pieces have in a text behind others, without special tokens around it."""
        ...

    def decode(self, ids: Sequence[int], after: Sequence[int] = ()) -> str:
        """Text of ids that stand behind others."""
        ...

    def chat(self, messages: tuple[Message, ...]) -> str:
        """A chat as the tokenizer's own template writes it, up to where the model goes on."""
        ...
