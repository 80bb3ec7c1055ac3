"""Label words for classes by what the classes are called: one token each for the model at hand.

The papers' words where the classes are those of a known data set, else a class's own name, else a
word of it that no other class has. Where names say nothing, as numbers do, `find_label_words` looks
for words on train.

>>> from rlprompt.check.toy import toy_lm
>>> chosen = choose_words(toy_lm(), Template("{text} {prompt}"), ["up", "down"])  # a token a byte
>>> [(label, one.word, one.why) for label, one in chosen.items()]
[('up', 'up', 'tokens'), ('down', 'down', 'tokens')]
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rlprompt.models.lm import FrozenLM
from rlprompt.tasks.benchmarks import alike
from rlprompt.template import Template

# Letters of a part of a name that stands for all of it.
SHORTEST = 3

# How a name says that a class is what another is not.
NOT, IS = frozenset({"not", "non", "no"}), frozenset({"is", "a", "an"})

Why = Literal["usual", "opposite", "name", "part", "tokens"]
"""Why a word is a class's: papers have it for these classes; one class is what the other is not; it
is its name; it is a word of its name; no word of its name is one token, so it is its name all the
same."""


@dataclass(frozen=True)
class ChosenWord:
    """A label word.

    Attributes:
        word: The word.
        why: See `Why`.
    """

    word: str
    why: Why


def choose_words(lm: FrozenLM, template: Template, labels: Sequence[str]) -> dict[str, ChosenWord]:
    """A word for each class, of one token that is no other's where that can be had.

    Args:
        lm: The frozen model.
        template: Where text, prompt and answer go.
        labels: The classes.

    Returns:
        Class to word, in the order of the classes. A `why` of `tokens` is a name of several tokens.

    Raises:
        ValueError: The template is a chat, and the model's tokenizer has no template for it.
    """
    own, taken = template.on(lm), dict[int, str]()

    def take(label: str, words: Iterable[str]) -> str:
        """The first of some words that is one token and free."""
        for word in words:
            ids = own.answer_ids(lm, own.answer_text(word, lm.kind))
            known = len(ids) == 1 and ids[0] != lm.tokenizer.unk_token_id
            if known and taken.setdefault(ids[0], label) == label:
                return word
        return ""

    names = {label: _plain(label) for label in labels}
    _, usual = alike(labels) or (None, {})
    why: Why = "usual"
    if denied(labels):
        usual = {label: "no" if NOT & set(name.split()) else "yes" for label, name in names.items()}
        why = "opposite"
    if usual and all([take(label, [usual[label]]) for label in labels]):
        return {label: ChosenWord(usual[label], why) for label in labels}
    taken.clear()
    found: dict[str, ChosenWord] = {}
    # Names first: a part of one may be all of another.
    for label, name in names.items():
        whole = (word for word in (name, label, label.capitalize()) if " " not in word)
        if word := take(label, whole):
            found[label] = ChosenWord(word, "name")
    for label, name in names.items():
        if label in found:
            continue
        others = {part for other, own in names.items() if other != label for part in own.split()}
        parts = [part for part in name.split() if len(part) >= SHORTEST and part not in others]
        if word := take(label, parts):
            found[label] = ChosenWord(word, "part")
            continue
        used = {one.word for one in found.values()}
        found[label] = ChosenWord(name if name not in used else label, "tokens")
    return {label: found[label] for label in labels}


def denied(labels: Sequence[str]) -> str:
    """What one of two classes is and the other is not; "" where they are no such pair.

    >>> denied(["is_fraud", "not_fraud"]), denied(["toxic", "non-toxic"]), denied(["good", "bad"])
    ('fraud', 'toxic', '')
    """
    parts = [_plain(label).split() for label in labels]
    bare = {" ".join(part for part in own if part not in NOT | IS) for own in parts}
    negative = sum(bool(NOT & set(own)) for own in parts)
    return bare.pop() if len(labels) == 2 and len(bare) == negative == 1 else ""


def _plain(label: str) -> str:
    """A name as a person would say it: `not_entailment` and `TechnicalIssue` as words.

    >>> _plain("TechnicalIssue"), _plain("not_entailment"), _plain("SCI/TECH")
    ('technical issue', 'not entailment', 'sci tech')
    """
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label)
    return " ".join(re.sub(r"[\W_]+", " ", parted).split()).lower() or label
