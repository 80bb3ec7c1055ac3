"""Splits from data of any kind: films, files, folders, lists, and data sets of the hub.

Sources: `"movie-reviews"` (fetched once); a `.csv`, `.tsv`, `.jsonl` or `.parquet`
file that few-shot splits are drawn from; a folder that holds `train`, `dev` and `test` files
(`test` may lie one level up, as in the 16-shot layout of Gao et al. 2021) or what `datasets` saved;
`"hub:NAME"` (see `HubName`); or the same in memory: a list of rows or examples, or a mapping of
`train`, `dev` and `test` to such lists. A defect is named by file and line, or by its index.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlprompt._utils.assets import fetch
from rlprompt.data.examples import Example, OnBadRows, OnLeak, Splits, check_choice
from rlprompt.data.few_shot import check_sizes, draw_shots, draw_test, few_shot
from rlprompt.data.files import SUFFIXES, RowTable, TextRow, read_table, text_row
from rlprompt.data.hub import (
    PREFIX,
    DataSets,
    HubName,
    held_out,
    is_saved,
    load_hub,
    load_saved,
    split_table,
)
from rlprompt.data.reading import ExampleReader

__all__ = ["Example", "OnBadRows", "OnLeak", "Splits", "few_shot", "load_splits"]

MOVIE_REVIEWS = "movie-reviews"
# Ratings are means of 20 people on [-4, 4]; nearer to 0 people did not agree on the sign.
WEAK_RATING = 1.0
SPLITS = ("train", "dev", "test")

Item = Example | Mapping[str, Any]
DataSource = str | Path | Sequence[Item] | Mapping[str, Sequence[Item]]


def load_splits(
    source: DataSource,
    labels: Collection[str] | None,
    *,
    text: Sequence[str] | Mapping[str, str] = ("text",),
    label: str | None = "label",
    aliases: Mapping[str, str] | None = None,
    shots: int = 16,
    n_test: int | None = None,
    seed: int = 0,
    on_bad_rows: OnBadRows = "error",
    on_leak: OnLeak = "error",
) -> Splits:
    """Splits from a name, a file, a folder or a list.

    Train and dev are drawn from a single file, list or hub split; test is what is left, or the test
    set that a hub data set has. Where all three are given, only a smaller test is drawn.

    A file, a folder or a name of the hub takes the place of the list:

    >>> films = [{"review": f"Film {i}", "stars": i % 2} for i in range(20)]
    >>> splits = load_splits(
    ...     films, ["bad", "good"], text={"text": "review"}, label="stars",
    ...     aliases={"0": "bad", "1": "good"}, shots=2, n_test=5,
    ... )
    >>> {name: len(part) for name, part in splits.parts().items()}
    {'train': 4, 'dev': 4, 'test': 5}
    >>> sorted({example.label for example in splits.train}), set(splits.train[0].fields)
    (['bad', 'good'], {'text'})

    Args:
        source: As in the module's docstring.
        labels: The classes there are; None where the label is any text, such as the answer that is
            expected.
        text: Columns that hold text, a template's fields; or field to column, where the columns
            have other names.
        label: Column that holds the label; None for data without labels.
        aliases: Other spellings of classes in the data, such as `{"0": "negative"}`.
        shots: Examples a class in train and in dev, where they are drawn; in all, without classes.
        n_test: Size of test; None for all there is.
        seed: Decides what is drawn.
        on_bad_rows: What to do with a defect: name it and stop, or leave the row out, counted.
        on_leak: What to do with an example that two splits share: treat it as a defect, or keep it
            and say so in the notes.

    Raises:
        ValueError: The source does not exist or has a defect.
    """
    check_sizes(shots, n_test)
    check_choice("on_bad_rows", on_bad_rows, OnBadRows)
    check_choice("on_leak", on_leak, OnLeak)
    fields = _fields(text)
    if source == MOVIE_REVIEWS:
        examples = _movie_reviews(labels or (), fields)
        return few_shot(examples, shots=shots, n_test=n_test, seed=seed)
    classes = _classes(labels, label, aliases or {})
    loading = _Loading(
        ExampleReader(fields, label, classes, on_bad_rows, on_leak), shots, n_test, seed
    )
    if isinstance(source, str) and source.startswith(PREFIX):
        parts, pinned = load_hub(HubName.parse(source))
        return loading.data_sets(parts, str(pinned))
    if isinstance(source, str | Path):
        return loading.path(Path(source).expanduser())
    return loading.memory(source)


@dataclass
class _Loading:
    """One call of `load_splits`, whatever the source turns out to be."""

    reader: ExampleReader
    shots: int
    n_test: int | None
    seed: int

    def path(self, path: Path) -> Splits:
        """What a path leads to."""
        if path.is_dir():
            return self.data_sets(load_saved(path)) if is_saved(path) else self.folder(path)
        if not path.is_file():
            raise ValueError(_absent(path))
        return self.drawn(read_table(path, self.reader.columns))

    def folder(self, path: Path) -> Splits:
        """Files called train, dev and test."""
        tables = {}
        for name in SPLITS:
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
            tables[name] = read_table(file, self.reader.columns)
        return self.given(tables)

    def memory(self, source: Sequence[Item] | Mapping[str, Sequence[Item]]) -> Splits:
        """Lists of rows or examples."""
        if isinstance(source, Mapping):
            if set(source) != set(SPLITS):
                raise ValueError(
                    f"data in memory has the splits {', '.join(map(str, source)) or 'none'}; give "
                    f"{', '.join(SPLITS)}, or one list to draw them from"
                )
            return self.given({name: self.list_table(name, source[name]) for name in SPLITS})
        if not isinstance(source, Sequence):
            raise ValueError(
                f"data is a {type(source).__name__}; give a name, a path, a list of rows or of "
                "examples, or a mapping of train, dev and test to such lists"
            )
        return self.drawn(self.list_table("examples", source))

    def list_table(self, name: str, items: Sequence[Item]) -> RowTable:
        """The rows of a list, each named by its index."""

        def rows() -> Iterator[tuple[str, TextRow]]:
            for i, item in enumerate(items):
                if isinstance(item, Example):
                    yield item.source or f"{name}[{i}]", self.example_row(item)
                elif isinstance(item, Mapping):
                    yield f"{name}[{i}]", text_row(item)
                else:
                    yield f"{name}[{i}]", f"is a {type(item).__name__}, no mapping or Example"

        return RowTable(name, rows(), uniform=False)

    def example_row(self, example: Example) -> TextRow:
        """An example as a row with a column for its label."""
        label = self.reader.label
        return {**example.fields, **({} if label is None else {label: example.label})}

    def data_sets(self, parts: DataSets, origin: str = "") -> Splits:
        """Splits as they are where all three are there, else drawn from train, tested on test."""
        columns, label = self.reader.columns, self.reader.label
        if set(SPLITS) <= set(parts):
            splits = self.given({name: split_table(name, parts[name], columns) for name in SPLITS})
            return self.of(splits, origin)
        train = "train" if "train" in parts else next(iter(parts))
        if train != "train" and len(parts) > 1:
            raise ValueError(f"the data set has no split train; it has {', '.join(parts)}")
        test = held_out(parts, label)
        table = split_table(train, parts[train], columns)
        if test is None or test == train:
            return self.of(self.drawn(table), origin)
        splits = self.drawn_and_given(table, split_table(test, parts[test], columns))
        return self.of(
            splits, origin, f"train and dev are drawn from its {train}, test is its {test}"
        )

    def of(self, splits: Splits, origin: str, *notes: str) -> Splits:
        """The splits with where they come from."""
        found = (f"data is {origin}",) if origin else ()
        return replace(splits, origin=origin, notes=(*found, *notes, *splits.notes))

    def given(self, tables: Mapping[str, RowTable]) -> Splits:
        """The three splits as they are, or with fewer examples to test on."""
        read = {name: self.reader.read(table) for name, table in tables.items()}
        return self.apart(read, ())

    def drawn_and_given(self, table: RowTable, test: RowTable) -> Splits:
        """Train and dev from one table, test from another."""
        train, dev, notes = draw_shots(
            self.read_one(table), shots=self.shots, seed=self.seed, by_class=self.by_class
        )
        return self.apart({"train": train, "dev": dev, "test": self.reader.read(test)}, notes)

    def apart(self, parts: Mapping[str, Sequence[Example]], notes: Sequence[str]) -> Splits:
        """Splits of examples that do not repeat each other."""
        kept = self.reader.without_repeats(parts)
        test = draw_test(kept["test"], self.n_test, self.seed)
        notes = (*self.reader.notes(), *notes)
        return Splits(kept["train"], kept["dev"], test, notes, self.reader.on_leak)

    def drawn(self, table: RowTable) -> Splits:
        """All three from one table."""
        splits = few_shot(
            self.read_one(table),
            shots=self.shots,
            n_test=self.n_test,
            seed=self.seed,
            by_class=self.by_class,
        )
        return replace(
            splits, notes=(*self.reader.notes(), *splits.notes), on_leak=self.reader.on_leak
        )

    def read_one(self, table: RowTable) -> Sequence[Example]:
        """Examples to draw from, of every class."""
        examples = self.reader.without_repeats({table.name: self.reader.read(table)})[table.name]
        classes = (self.reader.classes or {}).values()
        for absent in sorted(set(classes) - {example.label for example in examples}):
            raise ValueError(f"{table.name} has no example of the class {absent!r}")
        return examples

    @property
    def by_class(self) -> bool:
        """Whether labels are classes."""
        return self.reader.classes is not None


def _fields(text: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Field to column."""
    if isinstance(text, str):
        raise ValueError(f"text is {text!r}; give a list of columns, such as [{text!r}]")
    if not text:
        raise ValueError("no column of text is named; name those that the template needs")
    return dict(text) if isinstance(text, Mapping) else {name: name for name in text}


def _classes(
    labels: Collection[str] | None, label: str | None, aliases: Mapping[str, str]
) -> dict[str, str] | None:
    """Label as the data may spell it to its class."""
    if labels is None:
        if aliases:
            raise ValueError("aliases are of classes; name these in labels")
        return None
    if label is None:
        raise ValueError("labels are named but no column of theirs; name one in label")
    if unknown := set(aliases.values()) - set(labels):
        raise ValueError(
            f"aliases has the unknown class {min(unknown)!r} (known: {', '.join(labels)})"
        )
    if clash := {alias for alias, name in aliases.items() if alias in labels and alias != name}:
        raise ValueError(f"{min(clash)!r} is a class and an alias of another; drop the alias")
    return {name: name for name in labels} | dict(aliases)


def _absent(path: Path) -> str:
    """What to say of a path that leads nowhere."""
    around = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, [MOVIE_REVIEWS, *around], 1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    return (
        f"data {str(path)!r} does not exist{meant}; give {MOVIE_REVIEWS}, a file that ends in "
        f"{', '.join(SUFFIXES)}, a folder with train, dev and test files, or {PREFIX}NAME"
    )


def _movie_reviews(labels: Collection[str], fields: Mapping[str, str]) -> list[Example]:
    """Film-review sentences with a clear sentiment (Hutto & Gilbert 2014)."""
    if set(labels) != {"negative", "positive"} or dict(fields) != {"text": "text"}:
        raise ValueError(
            f"{MOVIE_REVIEWS} has the field text and the labels negative and positive; "
            f"got the fields {', '.join(fields)} and the labels {', '.join(labels) or 'none'}"
        )
    path = fetch(MOVIE_REVIEWS)
    examples = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        _, rating, sentence = line.split("\t")
        if abs(float(rating)) >= WEAK_RATING:
            sign = "positive" if float(rating) > 0 else "negative"
            examples.append(Example({"text": sentence.strip()}, sign, f"{path.name}:{number}"))
    return examples
