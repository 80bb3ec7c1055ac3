"""Labelled examples, and the splits that prompts are searched, picked and reported on."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rlprompt._utils.suggest import check_choice
from rlprompt.data.values import class_name, plain, texts_of

OnLeak = Literal["error", "allow"]
"""What to do about an example that two splits share; `DrawSettings` says what each value does."""
OnBadRows = Literal["error", "skip"]
"""What to do about a row with a defect; `DrawSettings` says what each value does."""
OnLongText = Literal["error", "skip", "truncate-start", "truncate-end", "truncate-middle"]
"""What to do about a text that the model has no room for, as `DrawSettings` says."""
DevFrom = Literal["train", "test"]
# Defects that a note names, of those that there are.
NAMED = 5


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled example.

    >>> example = Example({"text": "Great fun."}, "positive", "films.csv:2")
    >>> example == Example({"text": "Great fun."}, "positive")
    True
    >>> example.key == Example({"text": "GREAT  fun."}, "negative").key  # the same text to a reader
    True
    >>> Example({"text": "The capital of France?"}, ["Paris", "paris"]).references
    ('Paris', 'paris')

    Attributes:
        fields: Text of each field that a template may name.
        label: Its class, or the answer that is expected. A number or a truth value is taken for its
            text, and a list for several answers.
        source: Where it came from, as `file:line`; not part of its value.
        others: Answers that are as right as `label`.
        options: What may be answered, of multiple choice; the label is one of them.
        key: 16 bytes, a hash of `content`: a million texts are compared without keeping a second
            copy of each.
    """

    fields: Mapping[str, str]
    label: str
    source: str = field(default="", compare=False)
    others: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    key: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Take a label for its text, and hash the texts once.

        Raises:
            ValueError: A field is no text.
        """
        if not isinstance(self.label, str):
            several = isinstance(plain(self.label), list | tuple)
            labels = texts_of(self.label) if several else (class_name(self.label),)
            label, *others = labels or ("",)
            object.__setattr__(self, "label", label)
            object.__setattr__(self, "others", (*others, *self.others))
        for name, text in self.fields.items():
            if not isinstance(text, str):
                raise ValueError(f"the field {name!r} of an example is {text!r}; give a text")
        # A text in memory may hold half a surrogate pair, which is no UTF-8.
        content = self.content.encode("utf-8", "surrogatepass")
        object.__setattr__(self, "key", hashlib.blake2b(content, digest_size=16).digest())

    @property
    def content(self) -> str:
        """The texts without case and spacing: equal for what a reader would call a duplicate."""
        # Another question where other options are to choose from, as MMLU has many.
        parts = [*sorted(self.fields.items()), *(("", option) for option in self.options)]
        return "\x1f".join(f"{name}={' '.join(text.casefold().split())}" for name, text in parts)

    @property
    def references(self) -> tuple[str, ...]:
        """All answers that are right; none where there is no label."""
        return tuple(filter(None, (self.label, *self.others)))

    def where(self, split: str) -> str:
        """Where it came from, or else what it says."""
        return self.source or f"the {split} example {dict(self.fields)!r}"


@dataclass(frozen=True)
class Columns:
    """Which columns of some data examples were read from, so that more can be read alike.

    >>> Columns(text={"text": "body"}, label="queue").text["text"]
    'body'

    Attributes:
        text: Field of a template to the column that holds it.
        label: Column of the label; None for data without one.
        aliases: Other spellings of classes in the data, such as `{"0": "negative"}`.
        numbered: Classes in the order of the numbers 0, 1, ... that data without names have.
    """

    text: Mapping[str, str]
    label: str | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    numbered: tuple[str, ...] = ()


@dataclass(frozen=True)
class Splits:
    """Examples to search on, to select on, and to report on.

    >>> fun, dull, long = (Example({"text": text}, "any") for text in ("Fun.", "Dull.", "Long."))
    >>> {name: len(part) for name, part in Splits((fun,), (dull,), (long,)).parts().items()}
    {'train': 1, 'dev': 1, 'test': 1}
    >>> Splits((fun,), (dull,), (fun,))
    Traceback (most recent call last):
    ValueError: train leaks into test: the test example {'text': 'Fun.'} repeats ...

    Attributes:
        train: What optimisers see.
        dev: What the result is picked on.
        test: Opened once, at the end.
        notes: What was done to the data on the way, a sentence each; not part of its value.
        on_leak: What to do about an example that two splits share: `error`, or `allow` and say so
            in the notes; not part of its value.
        origin: The pinned version of a data set that lies elsewhere, such as
            `hub:NAME@COMMIT`; "" for data that is here.
        on_bad_rows: What to do about a text that a model's tokenizer cannot spell: `error`, or
            `skip`; not part of its value.
        on_long_text: What to do about a text that is too long for a model (`DrawSettings`); not
            part of its value.
        cut_for: Tokens of prompt that texts too long for a model were cut for, 0 where none was
            cut; not part of its value.
        columns: What they were read from, where that is known; not part of its value.

    Raises:
        ValueError: A split is empty, or two splits share an example and that is not allowed.
    """

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)
    on_leak: OnLeak = field(default="error", compare=False)
    origin: str = ""
    on_bad_rows: OnBadRows = field(default="error", compare=False)
    on_long_text: OnLongText = field(default="error", compare=False)
    cut_for: int = field(default=0, compare=False)
    columns: Columns | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Refuse leaks, or note them."""
        check_choice("on_leak", self.on_leak, OnLeak)
        check_choice("on_bad_rows", self.on_bad_rows, OnBadRows)
        check_choice("on_long_text", self.on_long_text, OnLongText)
        for name, examples in self.parts().items():
            if not examples:
                raise ValueError(f"the {name} split is empty")
        leaks = []
        for (name, example), (first_name, first) in repeats(self.parts()):
            if name == first_name:
                continue
            what = f"{example.where(name)} repeats {first.where(first_name)}"
            if self.on_leak == "error":
                raise ValueError(
                    copied(self.parts())
                    or f"{first_name} leaks into {name}: {what}; remove one, or set on_leak: allow"
                )
            leaks.append(what)
        if leaks:
            note = named(leaks, "leak between splits was allowed", "leaks between splits")
            if note not in self.notes:  # as in a copy
                object.__setattr__(self, "notes", (*self.notes, note))

    def parts(self) -> dict[str, tuple[Example, ...]]:
        """The three splits by name."""
        return {"train": self.train, "dev": self.dev, "test": self.test}

    @property
    def digest(self) -> str:
        """Hexadecimal hash of all examples in order, and of the origin where there is one."""
        state = hashlib.blake2b(digest_size=16)
        # The JSON of all three lists, made an example at a time: there may be millions.
        for opening, part in zip(("[", ", ", ", "), self.parts().values(), strict=True):
            state.update(opening.encode())
            _read(state, part)
        state.update(b"]" + self.origin.encode())
        return state.hexdigest()

    @property
    def drawn_digest(self) -> str:
        """Hexadecimal hash of train and dev: of a draw, however many are left for test."""
        state = hashlib.blake2b(digest_size=16)
        _read(state, self.train)
        _read(state, self.dev)
        return state.hexdigest()


def _read(state: hashlib.blake2b, examples: Sequence[Example]) -> None:
    """Take in the JSON of a list of examples."""
    state.update(b"[")
    for i, example in enumerate(examples):
        right = [*example.references] if example.others else example.label
        options = [list(example.options)] if example.options else []
        entry = json.dumps([dict(example.fields), right, *options], sort_keys=True)
        state.update((", " * (i > 0) + entry).encode())
    state.update(b"]")


def repeats(
    parts: Mapping[str, Sequence[Example]],
) -> Iterator[tuple[tuple[str, Example], tuple[str, Example]]]:
    """Each example that repeats an earlier one, with that one, and the split of each."""
    seen: dict[str, dict[bytes, Example]] = {}
    for name, examples in parts.items():
        own = seen.setdefault(name, {})
        for example in examples:
            key = example.key
            home = next((split for split, known in seen.items() if key in known), None)
            if home is None:
                own[key] = example
            else:
                yield (name, example), (home, seen[home][key])


def copied(parts: Mapping[str, Sequence[Example]]) -> str:
    """What to say and do of a split that an earlier one has all texts of; "" if there is none.

    >>> same = (Example({"text": "Fun."}, "good"), Example({"text": "Dull."}, "bad"))
    >>> copied({"train": same, "dev": same}).partition(".")[0]
    'dev is a copy of train: 2 of 2 texts are there as well'
    """
    keys = {name: {example.key for example in examples} for name, examples in parts.items()}
    for name, first_name in itertools.permutations(keys, 2):
        later = list(keys).index(name) > list(keys).index(first_name)
        # A single text that is shared is a leak like any other.
        if later and len(keys[name]) > 1 and keys[name] <= keys[first_name]:
            ways = "to keep it, and have it said"
            if name == "dev":
                ways += "; or dev_from: train to split train in two, or dev_from: test to draw dev "
                ways += "from test"
            n = len(keys[name])
            return (
                f"{name} is a copy of {first_name}: {n} of {n} texts are there as well. Give "
                f"on_leak: allow {ways}; or draw all splits anew from the one file that has most "
                "examples (data: FILE, shots: N)"
            )
    return ""


def balanced(examples: Sequence[Example], places: Sequence[int]) -> list[int]:
    """Places in an order of which every beginning has all classes as evenly as can be.

    The classes take turns, in the order in which they come first; one that is used up drops out.
    Where all labels differ, as those of free texts, the order is the one given.

    >>> examples = [Example({"text": text}, label) for text, label in zip("abcde", "xxyxy")]
    >>> balanced(examples, range(5))
    [0, 2, 1, 4, 3]
    """
    classes: dict[str, list[int]] = {}
    for place in places:
        classes.setdefault(examples[place].label, []).append(place)
    turns = ((turn, place) for own in classes.values() for turn, place in enumerate(own))
    return [place for _, place in sorted(turns, key=lambda pair: pair[0])]


def named(defects: Sequence[str], one: str, many: str) -> str:
    """A note that counts defects and names the first.

    >>> named(["a.csv:3"], "row was left out", "rows were left out")
    '1 row was left out: a.csv:3'
    >>> named(["a", "b"], "row was left out", "rows were left out")
    '2 rows were left out, the first: a; b'
    """
    first = "; ".join(defects[:NAMED]) + ("; ..." if len(defects) > NAMED else "")
    n = len(defects)
    return f"1 {one}: {first}" if n == 1 else f"{n} {many}, the first: {first}"
