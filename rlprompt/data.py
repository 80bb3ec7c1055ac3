"""Labelled examples: values, files, and few-shot splits that never overlap.

Sources: `"movie-reviews"` (fetched once, see `assets.py`), a `.csv`, `.tsv` or `.jsonl` file that
few-shot splits are drawn from, or a folder that holds `train`, `dev` and `test` files (`test` may
lie one level up, as in the 16-shot layout of Gao et al. 2021). A defect is named by file and line.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from rlprompt.assets import fetch
from rlprompt.rows import SUFFIXES, read_rows

logger = logging.getLogger(__name__)

OnBadRows = Literal["error", "skip"]
MOVIE_REVIEWS = "movie-reviews"
# Ratings are means of 20 people on [-4, 4]; nearer to 0 people did not agree on the sign.
WEAK_RATING = 1.0
# What the 16-shot files call their one column of text.
TEXT_COLUMNS = ("text", "sentence")
# Rows that a note names, of those that were left out.
NAMED = 5


@dataclass(frozen=True)
class Example:
    """A labelled example.

    Attributes:
        fields: Text of each field that a template may name.
        label: Its class.
        source: Where it came from, as `file:line`; not part of its value.
    """

    fields: Mapping[str, str]
    label: str
    source: str = field(default="", compare=False)

    @property
    def content(self) -> str:
        """The texts without case and spacing: equal for what a reader would call a duplicate."""
        return "\x1f".join(
            f"{name}={' '.join(text.casefold().split())}"
            for name, text in sorted(self.fields.items())
        )


@dataclass(frozen=True)
class Splits:
    """Examples to search on, to select on, and to report on.

    Attributes:
        train: What optimisers see.
        dev: What the result is picked on.
        test: Opened once, at the end.
        notes: What was done to the data on the way, a sentence each; not part of its value.

    Raises:
        ValueError: A split is empty, or two splits share an example.
    """

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        """Refuse leaks."""
        for name, examples in self.parts().items():
            if not examples:
                raise ValueError(f"the {name} split is empty")
        for (name, example), (first_name, first) in _repeats(self.parts()):
            if name != first_name:
                raise ValueError(
                    f"{first_name} leaks into {name}: {_where(example, name)} repeats "
                    f"{_where(first, first_name)}; remove one"
                )

    def parts(self) -> dict[str, tuple[Example, ...]]:
        """The three splits by name."""
        return {"train": self.train, "dev": self.dev, "test": self.test}

    @property
    def digest(self) -> str:
        """Hexadecimal hash of all examples in order."""
        state = [[(dict(e.fields), e.label) for e in part] for part in self.parts().values()]
        content = json.dumps(state, sort_keys=True).encode()
        return hashlib.blake2b(content, digest_size=16).hexdigest()


def few_shot(
    examples: Sequence[Example], *, shots: int, n_test: int | None = None, seed: int = 0
) -> Splits:
    """Draw balanced train and dev splits, and test from the rest.

    Args:
        examples: What to draw from. A repeated text is used once, and one that is there with two
            labels not at all.
        shots: Examples a class, for train and again for dev.
        n_test: Size of test, at most what is left; None for all of it.
        seed: Decides the draw.

    Raises:
        ValueError: A class has fewer than `2 * shots` examples, or nothing is left to test on.
    """
    _check_sizes(shots, n_test)
    pool, notes = _distinct(examples)
    rng = np.random.default_rng(seed)
    order = [pool[i] for i in rng.permutation(len(pool))]
    train: list[Example] = []
    dev: list[Example] = []
    rest: list[Example] = []
    for label in sorted({example.label for example in examples}):
        own = [example for example in order if example.label == label]
        if len(own) < 2 * shots:
            raise ValueError(
                f"class {label!r} has {len(own)} examples; {shots} shots need {2 * shots} "
                "(train and dev), and test takes from what is left"
            )
        train += own[:shots]
        dev += own[shots : 2 * shots]
        rest += own[2 * shots :]
    if not rest:
        raise ValueError(
            f"{len(pool)} examples leave none to test on after {shots} shots a class for train "
            "and for dev; give more examples or fewer shots"
        )
    test = [rest[i] for i in rng.permutation(len(rest))[:n_test]]
    if n_test is not None and len(test) < n_test:
        notes.append(f"test has {len(test)} examples, {n_test} were asked for")
    return Splits(tuple(train), tuple(dev), tuple(test), tuple(notes))


def _distinct(examples: Sequence[Example]) -> tuple[list[Example], list[str]]:
    """Each text once and with one label, in order of first appearance, and what was left out."""
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.content, []).append(example)
    pool = [own[0] for own in groups.values() if len({example.label for example in own}) == 1]
    notes = []
    if n_torn := len(groups) - len(pool):
        notes.append(f"{n_torn} texts that are there with two labels were left out")
    if n_repeats := len(examples) - len(groups):
        notes.append(f"{n_repeats} repeated examples were used once")
    return pool, notes


def _check_sizes(shots: int, n_test: int | None) -> None:
    if shots < 1:
        raise ValueError(f"shots is {shots}; give 1 or more")
    if n_test is not None and n_test < 1:
        raise ValueError(f"n_test is {n_test}; give 1 or more, or None for all there is")


def load_splits(
    source: str,
    labels: Collection[str],
    *,
    text: Sequence[str] = ("text",),
    label: str = "label",
    shots: int = 16,
    n_test: int | None = None,
    seed: int = 0,
    on_bad_rows: OnBadRows = "error",
) -> Splits:
    """Splits from a name, a file or a folder.

    Args:
        source: As in the module's docstring.
        labels: The classes there are.
        text: Columns that hold text, a template's fields.
        label: Column that holds the class.
        shots: Examples a class in train and in dev, where they are drawn.
        n_test: Size of test; None for all there is.
        seed: Decides what is drawn.
        on_bad_rows: What to do with a defect: name it and stop, or leave the row out, counted.

    Raises:
        ValueError: The source does not exist or has a defect.
    """
    _check_sizes(shots, n_test)
    if not text:
        raise ValueError("no column of text is named; name those that the template needs")
    if on_bad_rows not in get_args(OnBadRows):
        raise ValueError(f"on_bad_rows is {on_bad_rows!r}; give {' or '.join(get_args(OnBadRows))}")
    if source == MOVIE_REVIEWS:
        return few_shot(_movie_reviews(labels, text), shots=shots, n_test=n_test, seed=seed)
    path = Path(source).expanduser()
    reader = _Reader(tuple(text), label, frozenset(labels), on_bad_rows)
    if path.is_dir():
        return _folder(path, reader, n_test, seed)
    if not path.is_file():
        raise ValueError(
            f"data {source!r} does not exist; give {MOVIE_REVIEWS}, a file that ends in "
            f"{', '.join(SUFFIXES)}, or a folder with train, dev and test files"
        )
    examples = reader.without_repeats({path.stem: reader.read(path)})[path.stem]
    for absent in sorted(set(labels) - {example.label for example in examples}):
        raise ValueError(f"{path.name} has no example of the class {absent!r}")
    splits = few_shot(examples, shots=shots, n_test=n_test, seed=seed)
    return Splits(splits.train, splits.dev, splits.test, (*reader.notes(), *splits.notes))


def _movie_reviews(labels: Collection[str], text: Sequence[str]) -> list[Example]:
    """Film-review sentences with a clear sentiment (Hutto & Gilbert 2014)."""
    if set(labels) != {"negative", "positive"} or tuple(text) != ("text",):
        raise ValueError(
            f"{MOVIE_REVIEWS} has the field text and the labels negative and positive; "
            f"got the fields {', '.join(text)} and the labels {', '.join(labels)}"
        )
    path = fetch(MOVIE_REVIEWS)
    examples = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        _, rating, sentence = line.split("\t")
        if abs(float(rating)) >= WEAK_RATING:
            sign = "positive" if float(rating) > 0 else "negative"
            examples.append(Example({"text": sentence.strip()}, sign, f"{path.name}:{number}"))
    return examples


def _folder(path: Path, reader: _Reader, n_test: int | None, seed: int) -> Splits:
    parts: dict[str, tuple[Example, ...]] = {}
    for name in ("train", "dev", "test"):
        places = [
            folder / (name + suffix)
            for folder in ([path, path.parent] if name == "test" else [path])
            for suffix in SUFFIXES
        ]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            raise ValueError(
                f"folder {path} has no {name} file; it needs train, dev and test "
                f"({' or '.join(SUFFIXES)}; test may lie one level up)"
            )
        parts[name] = tuple(reader.read(file))
    parts = reader.without_repeats(parts)
    test = parts["test"]
    if n_test is not None and n_test < len(test):
        chosen = np.random.default_rng(seed).permutation(len(test))[:n_test]
        test = tuple(test[i] for i in sorted(chosen))
    return Splits(parts["train"], parts["dev"], test, reader.notes())


@dataclass
class _Reader:
    """Reads files of one layout and keeps account of what it leaves out."""

    text: tuple[str, ...]
    label: str
    labels: frozenset[str]
    on_bad_rows: OnBadRows
    skipped: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def read(self, path: Path) -> list[Example]:
        """The examples of one file."""
        examples = list(self._examples(path))
        if not examples:
            raise ValueError(
                f"{path.name} has no examples; {'; '.join(self.notes()) or 'add some'}"
            )
        return examples

    def notes(self) -> tuple[str, ...]:
        """What was left out, and what else a reader of results should know."""
        if not self.skipped:
            return tuple(self.remarks)
        named = "; ".join(self.skipped[:NAMED]) + ("; ..." if len(self.skipped) > NAMED else "")
        n = len(self.skipped)
        rows = "1 row was left out:" if n == 1 else f"{n} rows were left out, the first:"
        return (f"{rows} {named}", *self.remarks)

    def without_repeats(
        self, parts: Mapping[str, Sequence[Example]]
    ) -> dict[str, tuple[Example, ...]]:
        """Drop what repeats an earlier split, and texts that are there with two labels."""
        dropped = set()
        n_repeats = dict.fromkeys(parts, 0)
        for (name, example), (first_name, first) in _repeats(parts):
            what = f"{_where(example, name)} repeats {_where(first, first_name)}"
            if name != first_name:
                self._defect(what)
                dropped.add(id(example))
            elif example.label != first.label:
                self._defect(f"{what} with another label")
                if id(first) not in dropped:
                    self._defect(f"{_where(first, name)} is that text with another label")
                dropped |= {id(example), id(first)}
            else:
                n_repeats[name] += 1
        if len(parts) > 1:  # from a single file, `few_shot` uses them once
            self.remarks += [
                f"{name} repeats {n} of its texts" for name, n in n_repeats.items() if n
            ]
        return {
            name: tuple(example for example in examples if id(example) not in dropped)
            for name, examples in parts.items()
        }

    def _defect(self, what: str) -> None:
        if self.on_bad_rows == "error":
            raise ValueError(f"{what}; mend the file, or set on_bad_rows: skip to leave it out")
        logger.info("left out: %s", what)
        self.skipped.append(what)

    def _examples(self, path: Path) -> Iterator[Example]:
        for number, row in read_rows(path):
            where = f"{path.name}:{number}"
            if isinstance(row, str):
                self._defect(f"{where} {row}")
                continue
            self._rename(row, path)
            missing = [name for name in (*self.text, self.label) if name not in row]
            empty = [name for name in self.text if name in row and not row[name].strip()]
            if missing:
                what = f"no column {missing[0]!r}; it has {', '.join(map(repr, row))}"
                if path.suffix != ".jsonl":
                    raise ValueError(f"{path.name} has {what}")  # in its header, so in every row
                self._defect(f"{where} has {what}")
            elif empty:
                self._defect(f"{where} has an empty {empty[0]}")
            elif (label := row[self.label].strip()) not in self.labels:
                known = ", ".join(sorted(self.labels))
                self._defect(f"{where} has the unknown label {label!r} (known: {known})")
            else:
                yield Example({name: row[name].strip() for name in self.text}, label, where)

    def _rename(self, row: dict[str, str], path: Path) -> None:
        """Take `sentence` for `text` and the other way round: the 16-shot files mix the two."""
        if len(self.text) != 1 or self.text[0] not in TEXT_COLUMNS or self.text[0] in row:
            return
        (other,) = set(TEXT_COLUMNS) - {self.text[0]}
        if other in row:
            row[self.text[0]] = row.pop(other)
            remark = f"{path.name} has {other!r} for {self.text[0]!r}"
            if remark not in self.remarks:
                self.remarks.append(remark)


def _repeats(
    parts: Mapping[str, Sequence[Example]],
) -> Iterator[tuple[tuple[str, Example], tuple[str, Example]]]:
    """Each example that repeats an earlier one, with that one, and the split of each."""
    seen: dict[str, tuple[str, Example]] = {}
    for name, examples in parts.items():
        for example in examples:
            if (key := example.content) in seen:
                yield (name, example), seen[key]
            else:
                seen[key] = name, example


def _where(example: Example, split: str) -> str:
    return example.source or f"the {split} example {dict(example.fields)!r}"
