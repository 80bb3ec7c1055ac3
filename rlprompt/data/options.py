"""Options of a row of multiple choice, and which of them is right.

Options are a list, as text also the JSON of one, or `{"text": [...], "label": [...]}` as ARC has
them. The answer is the label that the row gives an option; or its letter, A for the first; its
place, from 0 or from 1; or its text.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from rlprompt.data.values import class_name, plain, text_of

LETTERS = string.ascii_uppercase
AnswersFrom = Literal[0, 1]
"""The number of the first option, where answers are places."""

# So rarely answers that are spread evenly have no 0: then it is worth a word, of 4 options from 11
# answers on, of 10 from 29.
CHANCE = 0.05


class Options(NamedTuple):
    """The options of a row.

    Attributes:
        texts: What may be answered, two or more, each once, without white space around them.
        labels: What the row calls them; empty where it does not say.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, value: Any, column: str = "choices") -> Options:
        """The options in a cell.

        Raises:
            ValueError: It is no list of two texts or more that differ.

        >>> Options.of('["yes", "no"]').texts
        ('yes', 'no')
        >>> Options.of({"text": ["ice", "salt"], "label": ["1", "2"]}).labels
        ('1', '2')
        """
        found, labels = _decoded(value), None
        if isinstance(found, dict):
            found, labels = plain(found.get("text")), plain(found.get("label"))
        if not isinstance(found, list | tuple):
            raise ValueError(
                f"{_shown(value)} in {column}, which is no list of options; give a list, or its "
                'JSON, such as ["yes", "no"]'
            )
        texts = tuple(text_of(one).strip() for one in found)
        if len(texts) < 2:
            raise ValueError(f"{found!r} in {column}; give two options or more to choose from")
        if "" in texts:
            raise ValueError(f"an empty option in {column}: {_shown(found)}")
        if twice := next((text for text in texts if texts.count(text) > 1), None):
            raise ValueError(f"the option {twice!r} twice in {column}; once is enough")
        named = tuple(map(class_name, labels)) if isinstance(labels, list | tuple) else ()
        if named and len(named) != len(texts):
            raise ValueError(f"{len(texts)} options and {len(named)} labels in {column}")
        return cls(texts, named)

    def right(self, answer: Any, first: int = 0) -> str:
        """The option that an answer names.

        A number is a place. A text is a label of the row, or else a letter, a place or an option,
        whichever it can be.

        Args:
            answer: What a cell has.
            first: The place of the first option.

        Raises:
            ValueError: It names none, or one as a text and another as a letter or place.

        >>> options = Options(("ice", "salt", "tar"))
        >>> options.right("B"), options.right(2), options.right("ice")
        ('salt', 'tar', 'ice')
        >>> options.right(2, first=1)
        'salt'
        """
        given = plain(answer)
        named, number = class_name(given), isinstance(given, int | float)
        if named in self.labels:
            return self.texts[self.labels.index(named)]
        found = {named} & set(self.texts)
        if named.isdecimal() and 0 <= int(named) - first < len(self.texts):
            place = self.texts[int(named) - first]
            found = {place} if number else found | {place}
        if len(named) == 1 and named in LETTERS[: len(self.texts)]:
            found |= {self.texts[LETTERS.index(named)]}
        if len(found) == 1:
            return found.pop()
        if found:
            raise ValueError(
                f"the answer {named!r}, which is the text of one option and the letter or place of "
                "another; give letters that no option is, or places as numbers in a JSON file"
            )
        ways = f"{', '.join(map(repr, self.labels))}, " if self.labels else ""
        n = len(self.texts)
        last = LETTERS[min(n, len(LETTERS)) - 1]
        raise ValueError(
            f"the answer {named!r}, which is none of its {n} options; give {ways}a letter from A "
            f"to {last}, a place from {first} to {n - 1 + first}, or an option's text"
        )


@dataclass
class Places:
    """From where a table's answers count the options of their rows.

    Counted from 1, answers 1 to n - 1 are places from 0 too, of the wrong option each; only n is
    none, and only 0 is none of those from 1. So n is never a bad row like others, unless it was
    said from where they count.

    Args:
        first: What was said; None for 0, where no answer speaks against it.

    >>> options, places = Options(("ice", "salt", "tar")), Places()
    >>> for i, answer in enumerate([1, 3]):
    ...     places.see(options, answer, f"row {i}")
    >>> places.problem()[:57]
    "row 1 has the answer '3' of 3 options, as where they are "
    """

    first: AnswersFrom | None = None
    _n: int = field(default=0, init=False)
    _n_zeros: int = field(default=0, init=False)
    _chance: float = field(default=1.0, init=False)  # of no 0 among so many, counted from 0
    _last: str = field(default="", init=False)  # answers, each the first of its kind
    _by_text: str = field(default="", init=False)
    _by_place: str = field(default="", init=False)

    def see(self, options: Options, answer: Any, where: str) -> None:
        """Look at an answer; of interest are those that are numbers, and no label of the row."""
        given = plain(answer)
        named, n = class_name(given), len(options.texts)
        if not named.isdecimal() or named in options.labels:
            return
        what = f"{where} has the answer {named!r} of {n} options"
        place = int(named) - (self.first or 0)
        inside, is_text = 0 <= place < n, named in options.texts
        if is_text and isinstance(given, int | float):
            if not inside:
                self._by_text = self._by_text or what
            elif options.texts[place] != named:
                self._by_place = self._by_place or what
        if inside or not is_text:
            self._n, self._n_zeros = self._n + 1, self._n_zeros + (int(named) == 0)
            self._chance *= 1 - 1 / n
            if int(named) == n:
                self._last = self._last or what

    def problem(self) -> str:
        """Why the answers so far cannot be read for sure, and what to do; or ""."""
        if self._by_text and self._by_place:
            return (
                f"{self._by_text}, which is the text of one and no place, and {self._by_place}, "
                "which is the text of one and the place of another: give letters in all rows, or "
                "set answers_from: 1 if they are places counted from 1"
            )
        if self.first is not None or not self._last:
            return ""
        if self._n_zeros:
            return (
                f"{self._last}, as where they are counted from 1, but other rows have the answer "
                "0: mend the file, or set answers_from: 0 or 1 to say which are the bad rows"
            )
        return (
            f"{self._last}, as where they are counted from 1, and no row has the answer 0: set "
            "answers_from: 1, or 0 if they are counted from 0 and this is a bad row"
        )

    def remark(self) -> str:
        """What to say of answers that may mean something else, though none shows it; or ""."""
        if self._by_place:
            return (
                f"{self._by_place}, the text of one and the place of another: numbers are read as "
                "places; give letters if they are texts"
            )
        if self.first is not None or self._n_zeros or self._chance >= CHANCE:
            return ""
        return (
            f"none of {self._n} answers is 0, the place of the first option: if they are counted "
            "from 1, set answers_from: 1"
        )


def lettered(texts: Sequence[str]) -> str:
    r"""Options as MMLU shows them, a line each.

    >>> lettered(["ice", "salt"])
    'A. ice\nB. salt'
    """
    return "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False))


def _decoded(value: Any) -> Any:
    """A cell's value; of a text that is the JSON of a list or mapping, that."""
    value = plain(value)
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _shown(value: Any) -> str:
    return repr(value)[:60]
