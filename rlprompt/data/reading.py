"""From rows to examples: every defect is named by its place, and refused or left out."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rlprompt.data.examples import Example, OnBadRows, OnLeak, named, repeats
from rlprompt.data.files import RowTable

logger = logging.getLogger(__name__)

# What the 16-shot files call their one column of text.
TEXT_COLUMNS = ("text", "sentence")
SHOWN = 60  # characters of a wrong label or column in a message


@dataclass
class ExampleReader:
    """Reads tables of one layout and keeps account of what it leaves out.

    Args:
        text: Field of a template to the column that holds it.
        label: Column of the label; None for data without one.
        classes: Label as the data spell it to the class it stands for; None for any text.
        on_bad_rows: Whether a defect is an error or leaves the row out.
        on_leak: Whether an example that two splits share is a defect.
    """

    text: Mapping[str, str]
    label: str | None
    classes: Mapping[str, str] | None
    on_bad_rows: OnBadRows
    on_leak: OnLeak
    skipped: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it needs."""
        return (*self.text.values(), *([] if self.label is None else [self.label]))

    def read(self, table: RowTable) -> list[Example]:
        """The examples of one table.

        Raises:
            ValueError: It has none, or a defect that is not to be skipped.
        """
        examples = list(self._examples(table))
        if not examples:
            raise ValueError(
                f"{table.name} has no examples; {'; '.join(self.notes()) or 'add some'}"
            )
        return examples

    def notes(self) -> tuple[str, ...]:
        """What was left out, and what else a reader of results should know."""
        if not self.skipped:
            return tuple(self.remarks)
        return (
            named(self.skipped, "row was left out", "rows were left out"),
            *self.remarks,
        )

    def without_repeats(
        self, parts: Mapping[str, Sequence[Example]]
    ) -> dict[str, tuple[Example, ...]]:
        """Drop what repeats an earlier split, and texts that are there with two classes.

        Raises:
            ValueError: There are such, and they are not to be skipped, or nothing else.
        """
        dropped = set()
        n_repeats = dict.fromkeys(parts, 0)
        for (name, example), (first_name, first) in repeats(parts):
            what = f"{example.where(name)} repeats {first.where(first_name)}"
            if name != first_name:
                if self.on_leak == "error":
                    self._defect(what)
                    dropped.add(id(example))
            elif example.label != first.label and self.classes is not None:
                self._defect(f"{what} with another label")
                if id(first) not in dropped:
                    self._defect(f"{first.where(name)} is that text with another label")
                dropped |= {id(example), id(first)}
            else:
                n_repeats[name] += 1
        if len(parts) > 1:  # from a single file, `few_shot` uses them once
            self.remarks += [
                f"{name} repeats {n} of its texts" for name, n in n_repeats.items() if n
            ]
        kept = {
            name: tuple(example for example in examples if id(example) not in dropped)
            for name, examples in parts.items()
        }
        for name, examples in kept.items():
            if not examples:
                raise ValueError(f"{name} has no examples; {'; '.join(self.notes())}")
        return kept

    def _defect(self, what: str) -> None:
        if self.on_bad_rows == "error":
            raise ValueError(f"{what}; mend the file, or set on_bad_rows: skip to leave it out")
        logger.info("left out: %s", what)
        self.skipped.append(what)

    def _examples(self, table: RowTable) -> Iterator[Example]:
        columns = self.columns
        for where, row in table.rows:
            if isinstance(row, str):
                self._defect(f"{where} {row}")
                continue
            self._rename(row, table.name)
            if missing := [name for name in columns if name not in row]:
                there = ", ".join(repr(name[:SHOWN]) for name in row)
                what = f"no column {missing[0]!r}; it has {there}"
                if near := difflib.get_close_matches(missing[0], row, 1):
                    what += f" (did you mean {near[0]!r}?)"
                if table.uniform:  # so in every row
                    raise ValueError(f"{table.name} has {what}")
                self._defect(f"{where} has {what}")
            elif fault := self._fault(row):
                self._defect(f"{where} has {fault}")
            else:
                fields = {name: row[column].strip() for name, column in self.text.items()}
                yield Example(fields, self._label(row), where)

    def _fault(self, row: Mapping[str, str]) -> str:
        """What is wrong with a row that has all columns."""
        for column in self.columns if self.classes is None else self.text.values():
            if fault := _text_fault(row[column]):
                return f"{fault} {column}"
        if self.label is None or self.classes is None:
            return ""
        label = row[self.label].strip()
        if label in self.classes:
            return ""
        known = ", ".join(sorted(self.classes))
        return f"the unknown label {label[:SHOWN]!r} (known: {known})"

    def _label(self, row: Mapping[str, str]) -> str:
        if self.label is None:
            return ""
        label = row[self.label].strip()
        return label if self.classes is None else self.classes[label]

    def _rename(self, row: dict[str, str], table: str) -> None:
        """Take `sentence` for `text` and the other way round: the 16-shot files mix the two."""
        (wanted, *others) = self.text.values()
        if others or wanted not in TEXT_COLUMNS or wanted in row:
            return
        (other,) = set(TEXT_COLUMNS) - {wanted}
        if other in row:
            row[wanted] = row.pop(other)
            remark = f"{table} has {other!r} for {wanted!r}"
            if remark not in self.remarks:
                self.remarks.append(remark)


def _text_fault(text: str) -> str:
    if not text.strip():
        return "an empty"
    if "\0" in text:
        return "a NUL character in"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "half a surrogate pair in"
    return ""
