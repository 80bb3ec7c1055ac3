"""Which class the label of a row stands for, and how to say so.

A label is a class by its name, by another spelling that was given, or by the name that the data
have for a number. A number that nothing says the meaning of is a class by its position, where a
task has such an order; then, as with all numbers, what was read as what is told with an example.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlprompt._utils.suggest import did_you_mean
from rlprompt.data.row_table import RowTable
from rlprompt.data.values import canonical, is_code, plain, text_of, texts_of

SHOWN = 60  # characters of a label, a column or a text in a message
# Characters of an example text in a note.
EXCERPT = 60
OTHER_BOOLEANS = {"true": "1", "false": "0", "1": "true", "0": "false"}


class UnknownLabelsError(ValueError):
    """Rows have labels that are no class, and nothing else is wrong.

    Args:
        message: What is wrong.
        labels: The beginnings of these labels, each once; none is empty.
    """

    def __init__(self, message: str, labels: Sequence[str]) -> None:
        super().__init__(message)
        self.labels = labels


@dataclass
class LabelReader:
    """Reads labels of classes, and keeps account of what their numbers were read as.

    Args:
        classes: The classes.
        spellings: Other spellings of classes in the data, such as `{"0": "negative"}`.
        numbered: Classes in the order of the numbers 0, 1, ... that data without names have.

    Attributes:
        unknown: How often labels were no class, in the order of the rows.
    """

    classes: Sequence[str]
    spellings: Mapping[str, str] = field(default_factory=dict)
    numbered: Sequence[str] = ()
    unknown: Counter[str] = field(default_factory=Counter, init=False)
    _codes: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    _by_position: bool = False

    def read(self, row: Mapping[str, Any], column: str, table: RowTable) -> tuple[str, str]:
        """The class of a row, and the number that it was read from, or "".

        Raises:
            TypeError: It is bytes.
            ValueError: It has none.
        """
        label = self._one(row[column])
        listed = listed_name(row[column], table.names.get(column, ()))
        # What was given for a number settles it, whatever the data call it.
        given = label if canonical(label) in self.spellings else ""
        for spelt in (listed if listed in self.spellings else given, listed, label):
            if spelt and (found := self._known(spelt)):
                return found, label if spelt == label and is_code(label) else ""
        for name in (listed, _beside(row, column, label)):
            if name and not is_code(name):
                if found := self._known(name):
                    return found, ""
                raise ValueError(self._unknown(name))
        if found := self._of_position(canonical(label)):
            self._by_position = True
            return found, label
        raise ValueError(self._unknown(label))

    def remember(self, code: str, found: str, text: str, where: str) -> None:
        """Keep the first text of a number, and the class that it was read as."""
        self._codes.setdefault(code, (found, text, where))

    def notes(self) -> Iterator[str]:
        """What numbers were read as, with an example of each, if there were any."""
        if not self._codes:
            return
        shown = "; ".join(
            f"{code}{'' if code == found else f' is read as {found}'}, such as "
            f"{excerpt(text)!r} ({where})"
            for code, (found, text, where) in sorted(self._codes.items(), key=_order)
        )
        note = f"labels are numbers: {shown}"
        if self._by_position:
            classes = self.numbered[::-1] if len(self.numbered) == 2 else self.numbered
            meant = ", ".join(f"{i}: {name}" for i, name in enumerate(classes[:2]))
            note += (
                ". They were read by their position, as the data have no names; if that is wrong, "
                f"set labels: {{{meant}{', ...' if len(classes) > 2 else ''}}}"
            )
        yield note

    def _one(self, value: Any) -> str:
        """The label that a value is, alone or in a list of one."""
        if isinstance(plain(value), list | tuple) and len(labels := texts_of(value)) != 1:
            given = ", ".join(map(repr, labels)) or "none"
            raise ValueError(f"the labels {given}, and a task of classes takes one a text")
        return next(iter(texts_of(value)), "")

    def _known(self, spelt: str) -> str:
        """The class that is spelt so, or ""."""
        if spelt in self.spellings:
            return self.spellings[spelt]
        if spelt in self.classes:
            return spelt
        whole = canonical(spelt)
        for same in (whole, OTHER_BOOLEANS.get(whole, whole)):
            known = {canonical(name): name for name in (*self.spellings, *self.classes)}
            if same in known:
                name = known[same]
                return self.spellings.get(name, name)
        return ""

    def _of_position(self, whole: str) -> str:
        whole = OTHER_BOOLEANS[whole] if whole in ("true", "false") else whole
        in_range = whole.isdecimal() and int(whole) < len(self.numbered)
        return self.numbered[int(whole)] if in_range else ""

    def _unknown(self, label: str) -> str:
        self.unknown[label] += 1
        known = sorted({*self.classes, *self.spellings})
        return (
            f"the unknown label {label[:SHOWN]!r} (known: {', '.join(known)})"
            f"{_hint(label, known, self.spellings)}"
        )


def excerpt(text: str) -> str:
    """The beginning of a text, in a line.

    >>> excerpt("One  and two")
    'One and two'
    """
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else line[: EXCERPT - 3] + "..."


def name_columns(label: str) -> tuple[str, ...]:
    """Columns that may hold the names of the classes, beside a column of their numbers."""
    return tuple(dict.fromkeys((f"{label}_text", f"{label}_name", "label_text", "label_name")))


def names_in_header(columns: Iterable[str], label: str) -> tuple[str, list[str]] | None:
    """The column of labels whose header says what its numbers mean, and these names by number.

    >>> names_in_header(["text", "label (0 = objective, 1 = subjective)"], "label")
    ('label (0 = objective, 1 = subjective)', ['objective', 'subjective'])
    """
    for column in columns:
        if re.match(rf"{re.escape(label)}\W", column):
            pairs = re.findall(r"(\d{1,3})\s*[=:]\s*([^\W\d_][^,;/|()\[\]{}=:]*)", column)
            found = {int(number): name.strip() for number, name in pairs}
            if len(found) > 1:
                return column, [found.get(i, "") for i in range(max(found) + 1)]
    return None


def listed_name(value: Any, names: Sequence[str]) -> str:
    """The name of a number in the list that its column has, or ""."""
    number = plain(value)
    if isinstance(number, str) and canonical(number.strip()).isdecimal():
        number = int(canonical(number.strip()))
    return names[number] if isinstance(number, int) and 0 <= number < len(names) else ""


def _beside(row: Mapping[str, Any], column: str, label: str) -> str:
    """The name that stands beside a number, or ""."""
    if not is_code(label):
        return ""
    texts = (text_of(row.get(name)).strip() for name in name_columns(column))
    return next(filter(None, texts), "")


def _hint(label: str, known: Sequence[str], spellings: Mapping[str, str]) -> str:
    """Which class was probably meant, and in what the two differ."""
    for name in known:
        for how, same in SAME_BUT_FOR:
            if same(label) == same(name):
                settled = f"labels: {{{label!r}: {spellings.get(name, name)!r}}}"
                return f"; it differs from {name!r} only in {how}: set {settled} if it means that"
    return did_you_mean(label, known)


def _spaceless(text: str) -> str:
    """Without white space and what takes no room, such as a zero-width space."""
    return "".join(c for c in text if not c.isspace() and unicodedata.category(c) != "Cf")


def _composed(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _order(item: tuple[str, object]) -> tuple[float, str]:
    whole = canonical(item[0])
    return (int(whole) if re.fullmatch(r"[+-]?\d+", whole) else 0, whole)


# Ways in which two labels may differ and look alike, the least first.
SAME_BUT_FOR = (
    ("white space", _spaceless),
    ("case", str.casefold),
    ("Unicode form", _composed),
    ("white space and case", lambda text: _spaceless(text).casefold()),
    (
        "white space, case and Unicode form",
        lambda text: _composed(_spaceless(_composed(text)).casefold()),
    ),
)
