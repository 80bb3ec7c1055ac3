"""Labelled examples: values, files, and few-shot splits that never overlap.

Sources: `"movie-reviews"` (fetched once, see `assets.py`), a `.csv`, `.tsv` or `.jsonl` file that
few-shot splits are drawn from, or a folder that holds `train`, `dev` and `test` files (`test` may
lie one level up, as in the 16-shot layout of Gao et al. 2021). A defect is named by file and line.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from rlprompt.assets import fetch

logger = logging.getLogger(__name__)

OnBadRows = Literal["error", "skip"]
MOVIE_REVIEWS = "movie-reviews"
SUFFIXES = (".csv", ".tsv", ".jsonl")
# Ratings are means of 20 people on [-4, 4]; nearer to 0 people did not agree on the sign.
WEAK_RATING = 1.0


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
                    f"{name} leaks into {first_name}: {_where(example, name)} repeats "
                    f"{_where(first, first_name)}; remove one, or set on_bad_rows: skip"
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
        examples: What to draw from; repeated texts are used once.
        shots: Examples a class, for train and again for dev.
        n_test: Size of test, at most what is left; None for all of it.
        seed: Decides the draw.

    Raises:
        ValueError: A class has fewer than `2 * shots` examples, or nothing is left to test on.
    """
    unique = {example.content: example for example in reversed(examples)}
    pool = list(reversed(unique.values()))
    notes = []
    if len(pool) < len(examples):
        notes.append(f"{len(examples) - len(pool)} repeated examples were used once")
    rng = np.random.default_rng(seed)
    order = [pool[i] for i in rng.permutation(len(pool))]
    train: list[Example] = []
    dev: list[Example] = []
    rest: list[Example] = []
    for label in sorted({example.label for example in pool}):
        own = [example for example in order if example.label == label]
        if shots < 1 or len(own) < 2 * shots:
            raise ValueError(
                f"class {label!r} has {len(own)} examples; {shots} shots need {2 * shots} "
                "(train and dev), and test takes from what is left"
            )
        train += own[:shots]
        dev += own[shots : 2 * shots]
        rest += own[2 * shots :]
    test = [rest[i] for i in rng.permutation(len(rest))[:n_test]]
    if n_test is not None and len(test) < n_test:
        notes.append(f"test has {len(test)} examples, {n_test} were asked for")
    return Splits(tuple(train), tuple(dev), tuple(test), tuple(notes))


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
    splits = few_shot(reader.read(path), shots=shots, n_test=n_test, seed=seed)
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
    if reader.on_bad_rows == "skip":
        parts = reader.without_leaks(parts)
    test = parts["test"]
    if n_test is not None and n_test < len(test):
        chosen = np.random.default_rng(seed).permutation(len(test))[:n_test]
        test = tuple(test[i] for i in sorted(chosen))
    return Splits(parts["train"], parts["dev"], test, reader.notes())


@dataclass
class _Reader:
    """Reads files of one layout and counts what it leaves out."""

    text: tuple[str, ...]
    label: str
    labels: frozenset[str]
    on_bad_rows: OnBadRows
    skipped: list[str] = field(default_factory=list)

    def read(self, path: Path) -> list[Example]:
        """The examples of one file."""
        return list(self._examples(path))

    def notes(self) -> tuple[str, ...]:
        """What was left out."""
        if not self.skipped:
            return ()
        return (f"{len(self.skipped)} rows were left out, the first: {self.skipped[0]}",)

    def without_leaks(
        self, parts: Mapping[str, tuple[Example, ...]]
    ) -> dict[str, tuple[Example, ...]]:
        """Drop what repeats an earlier split."""
        leaks = set()
        for (name, example), (first_name, first) in _repeats(parts):
            if name != first_name:
                leaks.add(id(example))
                self._defect(f"{_where(example, name)} repeats {_where(first, first_name)}")
        return {
            name: tuple(example for example in examples if id(example) not in leaks)
            for name, examples in parts.items()
        }

    def _defect(self, what: str) -> None:
        if self.on_bad_rows == "error":
            raise ValueError(f"{what}; mend the file, or set on_bad_rows: skip to leave it out")
        logger.info("left out: %s", what)
        self.skipped.append(what)

    def _examples(self, path: Path) -> Iterator[Example]:
        for number, row in _rows(path):
            where = f"{path.name}:{number}"
            if row is None:
                self._defect(f"{where} is broken: its columns do not match the header")
                continue
            missing = [name for name in (*self.text, self.label) if name not in row]
            if missing:
                raise ValueError(
                    f"{where} has no column {missing[0]!r}; it has {', '.join(map(repr, row))}"
                )
            empty = [name for name in self.text if not row[name].strip()]
            label = row[self.label].strip()
            if empty:
                self._defect(f"{where} has an empty {empty[0]}")
            elif label not in self.labels:
                known = ", ".join(sorted(self.labels))
                self._defect(f"{where} has the unknown label {label!r} (known: {known})")
            else:
                yield Example({name: row[name].strip() for name in self.text}, label, where)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str] | None]]:
    """Line number and columns of each row; None for a row that does not fit the header."""
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path.name}:{number} is not UTF-8 ({error.reason}); convert it"
        ) from None
    if path.suffix == ".jsonl":
        for number, line in enumerate(content.splitlines(), 1):
            if line.strip():
                yield number, _json_row(line)
        return
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} does not end in {', '.join(SUFFIXES)}")
    tabs = path.suffix == ".tsv"  # where quotes are text, as in the 16-shot files
    reader = csv.reader(
        io.StringIO(content, newline=""),
        delimiter="\t" if tabs else ",",
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
        strict=True,
    )
    csv.field_size_limit(1 << 24)
    try:
        header = next(reader, None)
        if header is None:
            raise ValueError(f"{path.name} is empty; its first line names the columns")
        for cells in reader:
            fits = len(cells) == len(header)
            if cells:
                yield reader.line_num, dict(zip(header, cells, strict=True)) if fits else None
    except csv.Error as error:
        raise ValueError(f"{path.name}:{reader.line_num} cannot be read: {error}") from None


def _json_row(line: str) -> dict[str, str] | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return {str(k): str(v) for k, v in row.items()} if isinstance(row, dict) else None


def _repeats(
    parts: Mapping[str, Sequence[Example]],
) -> Iterator[tuple[tuple[str, Example], tuple[str, Example]]]:
    """Each example that repeats an earlier one, with that one, and the split of each."""
    seen: dict[str, tuple[str, Example]] = {}
    for name, examples in parts.items():
        for example in examples:
            first = seen.setdefault(example.content, (name, example))
            if first[1] is not example:
                yield (name, example), first


def _where(example: Example, split: str) -> str:
    return f"{split} {example.source}" if example.source else f"{split} {dict(example.fields)!r}"
