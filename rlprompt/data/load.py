"""Splits from data of any kind: films, files, folders, lists, frames, and data sets of the hub.

Sources: `"movie-reviews"` (fetched once); a file (`.csv`, `.tsv`, `.txt`, `.jsonl`, `.json`,
`.parquet`, packed or not) that few-shot splits are drawn from; a folder that holds `train`, `dev`
and `test` files (`test` may lie one level up, as in the 16-shot layout of Gao et al. 2021) or what
`datasets` saved; `"hub:NAME"` (see `HubName`); or the same in memory: a list of rows or examples, a
frame of pandas, polars, arrow or `datasets`, or a mapping of `train`, `dev` and `test` to such. A
defect is named by file and line, or by its index.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlprompt._utils.assets import fetch
from rlprompt._utils.suggest import check_choice
from rlprompt.data.examples import DevFrom, Example, OnBadRows, OnLeak, Splits
from rlprompt.data.few_shot import (
    check_sizes,
    draw_dev,
    draw_shots,
    draw_test,
    few_shot,
    halved,
    too_few,
    untested,
)
from rlprompt.data.frames import Frame, Item, is_split, memory_table
from rlprompt.data.hub import (
    HUB,
    DataSets,
    HubName,
    held_out,
    is_saved,
    load_hub,
    load_saved,
    split_table,
)
from rlprompt.data.labels import LabelReader
from rlprompt.data.opening import ENDINGS, find_file, near_file
from rlprompt.data.options import AnswersFrom, Places
from rlprompt.data.read_table import read_table
from rlprompt.data.row_table import RowTable
from rlprompt.data.row_to_example import ExampleReader
from rlprompt.data.values import class_name

MOVIE_REVIEWS = "movie-reviews"
# Ratings are means of 20 people on [-4, 4]; nearer to 0 people did not agree on the sign.
WEAK_RATING = 1.0
SPLITS = ("train", "dev", "test")

DataSource = str | Path | Sequence[Item] | Frame | Mapping[str, Sequence[Item] | Frame]


def load_splits(
    source: DataSource,
    labels: Collection[Any] | None,
    *,
    text: Sequence[str] | Mapping[str, str] = ("text",),
    label: str | None = "label",
    options: str | None = None,
    answers_from: AnswersFrom | None = None,
    aliases: Mapping[Any, str] | None = None,
    numbered: Sequence[str] = (),
    shots: int = 16,
    n_test: int | None = None,
    seed: int = 0,
    on_bad_rows: OnBadRows = "error",
    on_leak: OnLeak = "error",
    dev_from: DevFrom | None = None,
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
        labels: The classes there are, texts, numbers or truth values; None where the label is any
            text, or a list of texts, such as the answers that are right.
        text: Columns that hold text, a template's fields; or field to column, where the columns
            have other names.
        label: Column that holds the label; None for data without labels.
        options: Column of the options of multiple choice, of which the label names one: a list (see
            `Options`), of other length in each row if need be. `labels` is None then.
        answers_from: The number of the first option, 0 or 1, where the label is a place; None for
            0, but for data that look counted from 1, which are refused.
        aliases: Other spellings of classes in the data, such as `{0: "negative"}`.
        numbered: Classes in the order of the numbers 0, 1, ... that stand for them where the data
            have no names: neither a list of them, nor a column such as `label_text`, nor an alias.
        shots: Examples a class in train and in dev, where they are drawn; in all, without classes.
        n_test: Size of test; None for all there is.
        seed: Decides what is drawn.
        on_bad_rows: What to do with a defect: name it and stop, or leave the row out, counted.
        on_leak: What to do with an example that two splits share: treat it as a defect, or keep it
            and say so in the notes.
        dev_from: Where dev comes from, of a source with parts of its own: None for its dev part;
            `train` splits train in two by class; `test` draws `shots` a class from test.

    Raises:
        ValueError: The source does not exist or has a defect.
    """
    check_sizes(shots, n_test)
    check_choice("on_bad_rows", on_bad_rows, OnBadRows)
    check_choice("on_leak", on_leak, OnLeak)
    if dev_from is not None:
        check_choice("dev_from", dev_from, DevFrom)
    if answers_from is not None:
        check_choice("answers_from", answers_from, AnswersFrom)
    fields = _fields(text)
    if isinstance(source, str) and source == MOVIE_REVIEWS:
        _refuse_dev_from(dev_from)
        examples = _movie_reviews(labels or (), fields)
        return few_shot(examples, shots=shots, n_test=n_test, seed=seed)
    classes = _label_reader(labels, label, aliases or {}, numbered)
    places = Places(answers_from)
    reader = ExampleReader(fields, label, classes, on_bad_rows, on_leak, options, places)
    loading = _Loading(reader, shots, n_test, seed, dev_from)
    if isinstance(source, str) and source.startswith(HUB):
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
    dev_from: DevFrom | None

    def path(self, path: Path) -> Splits:
        """What a path leads to."""
        if path.is_dir():
            return self.data_sets(load_saved(path)) if is_saved(path) else self.folder(path)
        if not path.is_file():
            raise ValueError(absent(path))
        return self.drawn(read_table(path, self.reader.columns, self.reader.optional))

    def folder(self, path: Path) -> Splits:
        """Files called train, dev and test."""
        tables = {}
        for name in self.needed:
            places = [path, path.parent] if name == "test" else [path]
            file = next(filter(None, (find_file(folder, name) for folder in places)), None)
            if file is None:
                raise ValueError(
                    f"folder {path} has no {name} file; it needs {', '.join(self.needed[:-1])} and "
                    f"test, that end in {ENDINGS}; test may lie one level up"
                )
            if file.parent != path:
                self.reader.remarks.append(f"test is {file.name} of the folder above")
            tables[name] = read_table(file, self.reader.columns, self.reader.optional)
        return self.given(tables)

    def memory(self, source: Any) -> Splits:
        """Lists of rows or examples, or frames."""
        if isinstance(source, Mapping):
            if source and all(map(is_split, source.values())):
                return self.data_sets(dict(source))
            if not set(self.needed) <= set(source) <= set(SPLITS):
                raise ValueError(
                    f"data in memory has the splits {', '.join(map(str, source)) or 'none'}; give "
                    f"{', '.join(self.needed)}, or one list to draw them from"
                )
            return self.given({name: self.table(name, source[name]) for name in self.needed})
        return self.drawn(self.table("examples", source))

    def table(self, name: str, source: Any) -> RowTable:
        """The rows of a list or frame."""
        reader = self.reader
        named = reader.label, reader.options
        table = memory_table(name, source, reader.columns, reader.optional, *named)
        if table is None:
            raise ValueError(
                f"data is a {type(source).__name__}; give a name, a path, a list of rows or of "
                "examples, a frame of pandas, polars, pyarrow or datasets, or a mapping of train, "
                "dev and test to such"
            )
        return table

    @property
    def needed(self) -> tuple[str, ...]:
        """The parts that a source with parts of its own must have."""
        return tuple(name for name in SPLITS if name != "dev" or self.dev_from is None)

    def data_sets(self, parts: DataSets, origin: str = "") -> Splits:
        """Splits as they are where all three are there, else drawn from train, tested on test."""
        columns, label = self.reader.columns, self.reader.label

        def table_of(name: str) -> RowTable:
            return split_table(name, parts[name], columns, self.reader.optional)

        if set(self.needed) <= set(parts):
            return self.of(self.given({name: table_of(name) for name in self.needed}), origin)
        train = "train" if "train" in parts else next(iter(parts))
        if train != "train" and len(parts) > 1:
            raise ValueError(f"the data set has no split train; it has {', '.join(parts)}")
        test = held_out(parts, label)
        table = table_of(train)
        if test is None or test == train:
            return self.of(self.drawn(table), origin)
        splits = self.drawn_and_given(table, table_of(test))
        return self.of(
            splits, origin, f"train and dev are drawn from its {train}, test is its {test}"
        )

    def of(self, splits: Splits, origin: str, *notes: str) -> Splits:
        """The splits with where they come from."""
        found = (f"data is {origin}",) if origin else ()
        return replace(splits, origin=origin, notes=(*found, *notes, *splits.notes))

    def given(self, tables: Mapping[str, RowTable]) -> Splits:
        """The splits as they are, or with fewer examples to test on; dev may be made of another."""
        read = {name: self.reader.read(table) for name, table in tables.items()}
        if self.dev_from is None:
            return self.apart(read, ())
        kept = self.reader.without_repeats(read)
        train, test = kept["train"], kept["test"]
        if self.dev_from == "train":
            first, second, notes = halved(train, seed=self.seed, by_class=self.by_class)
            parts = {"train": first, "dev": second, "test": test}
        else:
            dev, rest, notes = draw_dev(
                test, shots=self.shots, seed=self.seed, by_class=self.by_class
            )
            parts = {"train": train, "dev": dev, "test": rest}
        return self.split(parts, notes)

    def drawn_and_given(self, table: RowTable, test: RowTable) -> Splits:
        """Train and dev from one table, test from another."""
        _refuse_dev_from(self.dev_from)
        train, dev, notes = draw_shots(
            self.read_one(table), shots=self.shots, seed=self.seed, by_class=self.by_class
        )
        return self.apart({"train": train, "dev": dev, "test": self.reader.read(test)}, notes)

    def apart(self, parts: Mapping[str, Sequence[Example]], notes: Sequence[str]) -> Splits:
        """Splits of examples that do not repeat each other."""
        return self.split(self.reader.without_repeats(parts), notes)

    def split(self, parts: Mapping[str, Sequence[Example]], notes: Sequence[str]) -> Splits:
        """Splits of parts that are apart."""
        test = draw_test(parts["test"], self.n_test, self.seed)
        classes = () if self.reader.labels is None else self.reader.labels.classes
        return Splits(
            tuple(parts["train"]),
            tuple(parts["dev"]),
            test,
            notes=(
                *self.reader.notes(),
                *notes,
                *too_few(test, self.n_test),
                *untested(classes, test),
            ),
            on_leak=self.reader.on_leak,
            columns=self.reader.read_from,
        )

    def drawn(self, table: RowTable) -> Splits:
        """All three from one table."""
        _refuse_dev_from(self.dev_from)
        splits = few_shot(
            self.read_one(table),
            shots=self.shots,
            n_test=self.n_test,
            seed=self.seed,
            by_class=self.by_class,
        )
        return replace(
            splits,
            notes=(*self.reader.notes(), *splits.notes),
            on_leak=self.reader.on_leak,
            columns=self.reader.read_from,
        )

    def read_one(self, table: RowTable) -> Sequence[Example]:
        """Examples to draw from, of every class."""
        examples = self.reader.without_repeats({table.name: self.reader.read(table)})[table.name]
        labels = self.reader.labels
        classes = set() if labels is None else set(labels.classes)
        for absent in sorted(classes - {example.label for example in examples}):
            raise ValueError(f"{table.name} has no example of the class {absent!r}")
        return examples

    @property
    def by_class(self) -> bool:
        """Whether labels are classes."""
        return self.reader.labels is not None


def _fields(text: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Field to column."""
    if isinstance(text, str):
        raise ValueError(f"text is {text!r}; give a list of columns, such as [{text!r}]")
    if not text:
        raise ValueError("no column of text is named; name those that the template needs")
    return dict(text) if isinstance(text, Mapping) else {name: name for name in text}


def _label_reader(
    labels: Collection[Any] | None,
    label: str | None,
    aliases: Mapping[Any, str],
    numbered: Sequence[str],
) -> LabelReader | None:
    """What reads the labels of classes."""
    if labels is None:
        if aliases:
            raise ValueError("aliases are of classes; name these in labels")
        return None
    if label is None:
        raise ValueError("labels are named but no column of theirs; name one in label")
    classes = [class_name(one) for one in labels]
    spellings = {class_name(alias): class_name(name) for alias, name in aliases.items()}
    if unknown := set(spellings.values()) - set(classes):
        raise ValueError(
            f"the labels of the data are mapped to the unknown class {min(unknown)!r} (known: "
            f"{', '.join(classes)})"
        )
    clashes = {alias for alias, name in spellings.items() if alias in classes and alias != name}
    if clashes:
        raise ValueError(f"{min(clashes)!r} is a class and an alias of another; drop the alias")
    return LabelReader(classes, spellings, numbered)


def _refuse_dev_from(dev_from: DevFrom | None) -> None:
    """Refuse what is for data with a train and a test part of their own.

    Raises:
        ValueError: It is given.
    """
    if dev_from is not None:
        raise ValueError(
            f"dev_from is {dev_from!r}, and these data are drawn from, dev included; leave it out, "
            "or give a folder or mapping with train and test"
        )


def absent(path: Path) -> str:
    """What to say of a path that leads nowhere."""
    return (
        f"data {str(path)!r} does not exist{near_file(path, [MOVIE_REVIEWS])}; give "
        f"{MOVIE_REVIEWS}, a file that ends in {ENDINGS}, a folder with train, dev and test files, "
        f"or {HUB}NAME"
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
