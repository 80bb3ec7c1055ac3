"""From label words to classes: how the words are spelt, and what they say of a class together.

A class has one label word or several. A word's log-likelihood is the sum over its tokens or their
mean, a class's score is pooled from its words', and scores go on to the rewards.

>>> Verbaliser({"negative": "bad", "positive": ["good", "great"]}).words
{'negative': ('bad',), 'positive': ('good', 'great')}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from rlprompt.data.values import class_name
from rlprompt.models.lm import FrozenLM
from rlprompt.models.scorer import Over
from rlprompt.models.spelling import ANCHORS
from rlprompt.template import Template
from rlprompt.types import Ids

LabelWords = Mapping[Any, str | Sequence[str]]
"""Class to its label word, or to a list of them. A class is a text, a number or a truth value."""

POOLINGS = ("mean", "logsumexp")
LENGTHS = ("sum", "mean")
# A word of so many tokens is none that the tokenizer knows.
MANY_TOKENS = 4


@dataclass(frozen=True)
class LabelWord:
    """A label word as the model gets it.

    Attributes:
        label: The class that it stands for.
        word: As it was given.
        text: As it follows the text before it, with the space.
        ids: Its tokens, one or more.
    """

    label: str
    word: str
    text: str
    ids: Ids

    def __str__(self) -> str:
        """The word and its class, for messages."""
        return f"{self.text.strip()!r} ({self.label})"

    def spelt(self, lm: FrozenLM) -> str:
        """The word, how many tokens it has, and each of them with its id."""
        pieces = lm.tokenizer.convert_ids_to_tokens(list(self.ids))
        tokens = ", ".join(f"{piece} {i}" for piece, i in zip(pieces, self.ids, strict=True))
        return f"{self.text!r} {len(self.ids)} ({tokens})"


@dataclass(frozen=True)
class LabelWordReport:
    """What a tokenizer makes of the label words.

    Attributes:
        words: All of them, class by class.
        warnings: What may put a class at a disadvantage, a sentence each.
    """

    words: tuple[LabelWord, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Verbaliser:
    """The label words of each class.

    Args:
        label_words: Class to label word or words. A word that starts with no white space follows
            the text as `Template.answer_space` says.
        pooling: How several words make one score. `mean` of their log-likelihoods (OpenPrompt's
            `ManualVerbalizer`, Ding et al. 2022, arXiv 2111.01998), which is fair to classes with
            unequal numbers of words; `logsumexp`, the log-probability of any of the words, as
            Zhao et al. 2021 (arXiv 2102.09690) sum them, which favours a class with more.
        length: How the tokens of a word make one log-likelihood: their `sum`, the log-probability
            of the word, which favours short words; or their `mean`, as in the `acc_norm` of
            lm-eval (which divides by bytes, not tokens).

    Raises:
        ValueError: Fewer than two classes, two that are the same, a class without words, a word
            that is empty or given twice, or an unknown pooling or length.
    """

    label_words: LabelWords
    pooling: str = "mean"
    length: str = "sum"

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        if len(self.label_words) < 2:
            raise ValueError(f"label_words needs two classes or more, got {dict(self.label_words)}")
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling is {self.pooling!r}; give one of {', '.join(POOLINGS)}")
        if self.length not in LENGTHS:
            raise ValueError(f"length is {self.length!r}; give one of {', '.join(LENGTHS)}")
        seen: dict[str, str] = {}
        for label, words in self.words.items():
            if not words:
                raise ValueError(f"{label!r} has no label word; give one or more")
            for word in words:
                _check_word(label, word)
                _check_new(label, word.strip(), seen)

    @cached_property
    def words(self) -> dict[str, tuple[str, ...]]:
        """Class to its words, as they were given."""
        return {
            label: (words,) if isinstance(words, str) else tuple(words)
            for label, words in named_classes(self.label_words).items()
        }

    @property
    def over(self) -> Over:
        """What log-likelihoods must be normalised over (`FrozenLM.score`).

        A constant added to all words cancels in every reward, but not once it is divided by their
        numbers of tokens.
        """
        return "candidates" if self.length == "sum" else "vocabulary"

    def encode(self, lm: FrozenLM, template: Template) -> tuple[LabelWord, ...]:
        """All words, class by class, as the model gets them where answers stand in a template.

        Raises:
            ValueError: The tokenizer spells two words alike, or one with nothing.
        """
        if lm.served and self.length == "mean":
            raise ValueError(
                f"`length: mean` counts the tokens of label words, which {lm.name}, served by "
                f"{lm.where}, does not report; set `length: sum`, or use a model on this machine"
            )
        own, found = template.on(lm), dict[Ids, LabelWord]()
        for label, words in self.words.items():
            for word in words:
                text = own.answer_text(word, lm.kind)
                new = LabelWord(label, word, text, own.answer_ids(lm, text))
                first = found.setdefault(new.ids, new)
                if first is not new or not new.ids:
                    raise ValueError(
                        f"the tokenizer of {lm.name} spells the label words {first.text!r} and "
                        f"{text!r} alike; choose others"
                    )
        return tuple(found.values())

    def class_scores(self, loglik: Tensor, candidates: Sequence[Ids]) -> Tensor:
        """Scores of the classes (..., C) from log-likelihoods of all their words (..., W), nats.

        Args:
            loglik: As `FrozenLM.score` gives it with `over` and these candidates.
            candidates: Ids of the words in the order of `encode`.
        """
        if self.length == "mean":
            loglik = loglik / loglik.new_tensor([len(ids) for ids in candidates])
        sizes = [len(words) for words in self.words.values()]
        if max(sizes) == 1:
            return loglik
        parts = torch.split(loglik, sizes, -1)
        return torch.stack([pool_words(part, self.pooling) for part in parts], -1)

    def report(self, lm: FrozenLM, template: Template) -> LabelWordReport:
        """What the tokenizer makes of the words, with warnings.

        Raises:
            ValueError: As for `encode`.
        """
        words = self.encode(lm, template)
        # What a server's tokens are is not known.
        return LabelWordReport(words, () if lm.served else tuple(self._warnings(words, lm)))

    def _warnings(self, words: Sequence[LabelWord], lm: FrozenLM) -> Iterator[str]:
        lengths = sorted({len(word.ids) for word in words})
        if self.length == "sum" and len(lengths) > 1:
            yield (
                f"label words have {lengths[0]} to {lengths[-1]} tokens, and a word of more tokens "
                "is less likely: choose words of equal length, or set `length: mean`"
            )
        numbers = sorted({len(own) for own in self.words.values()})
        if self.pooling == "logsumexp" and len(numbers) > 1:
            yield (
                f"classes have {numbers[0]} to {numbers[-1]} label words, and adding up their "
                "probabilities favours a class with more: set `pooling: mean`, or give every class "
                "the same number"
            )
        for word in words:
            if len(word.ids) >= MANY_TOKENS:
                yield f"{word} takes {len(word.ids)} tokens: look for a more common word"
            if lm.tokenizer.unk_token_id in word.ids:
                yield (
                    f"{word} has letters that the tokenizer of {lm.name} does not know, and is "
                    "scored as any word with such: choose another"
                )
        for first, second in combinations(words, 2):
            if first.label != second.label and first.ids[0] == second.ids[0]:
                short, long = sorted((first, second), key=lambda word: len(word.ids))
                yield self._alike(short, long, lm)

    def _alike(self, short: LabelWord, long: LabelWord, lm: FrozenLM) -> str:
        """What it means that two words of different classes begin with the same token."""
        begins = long.ids[: len(short.ids)] == short.ids
        if begins and self.length == "sum" and lm.kind != "masked":
            return f"{long} begins with all of {short} and can never be the likelier of the two"
        piece = lm.decode(short.ids[:1], lm.encode(ANCHORS[0]))
        return (
            f"{short} and {long} begin with the same token {piece!r}, which cannot tell them apart"
        )


def named_classes(label_words: LabelWords) -> dict[str, str | Sequence[str]]:
    """Label words by the texts of their classes.

    >>> named_classes({0: "bad", 1.0: "good"}), named_classes({True: "good", False: "bad"})
    ({'0': 'bad', '1': 'good'}, {'true': 'good', 'false': 'bad'})

    Raises:
        ValueError: A class has no name, or two have the same.
    """
    named: dict[str, str | Sequence[str]] = {}
    for label, words in label_words.items():
        name = class_name(label)
        if not name:
            raise ValueError(f"label_words has the class {label!r}; give it a name")
        if name in named:
            raise ValueError(f"label_words has the class {name!r} twice; once is enough")
        named[name] = words
    return named


def pool_words(loglik: Tensor, pooling: str) -> Tensor:
    """A class's score (...) from its words' log-likelihoods (..., n), by one of `POOLINGS`."""
    return loglik.mean(-1) if pooling == "mean" else loglik.logsumexp(-1)


def _check_word(label: str, word: object) -> None:
    if not isinstance(word, str):
        raise ValueError(f"a label word of {label!r} is {word!r}, not text; put it in quotes")
    if not word.strip():
        raise ValueError(f"the label word of {label!r} is empty; give a word")


def _check_new(label: str, word: str, seen: dict[str, str]) -> None:
    """Enter a word into those seen so far, with their classes."""
    if word in seen and seen[word] == label:
        raise ValueError(f"{label!r} has the label word {word!r} twice; once is enough")
    if word in seen:
        raise ValueError(
            f"{seen[word]!r} and {label!r} share the label word {word!r}; every class needs its own"
        )
    seen[word] = label
