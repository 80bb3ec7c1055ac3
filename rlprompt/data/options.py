"""Options of a row of multiple choice, and which of them is right.

Options are a list, as text also the JSON of one, or `{"text": [...], "label": [...]}` as ARC has
them. The answer is the label that the row gives an option; or its letter, A for the first; its
place, 0 for the first; or its text.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from typing import Any, NamedTuple

from rlprompt.data.values import class_name, plain, text_of

LETTERS = string.ascii_uppercase


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

    def right(self, answer: Any) -> str:
        """The option that an answer names.

        A number is a place. A text is a label of the row, or else a letter, a place or an option,
        whichever it can be.

        Raises:
            ValueError: It names none, or one as a text and another as a letter or place.

        >>> options = Options(("ice", "salt", "tar"))
        >>> options.right("B"), options.right(2), options.right("ice")
        ('salt', 'tar', 'ice')
        """
        given = plain(answer)
        named, number = class_name(given), isinstance(given, int | float)
        if named in self.labels:
            return self.texts[self.labels.index(named)]
        found = {named} & set(self.texts)
        if named.isdecimal() and int(named) < len(self.texts):
            place = self.texts[int(named)]
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
        last = LETTERS[min(len(self.texts), len(LETTERS)) - 1]
        raise ValueError(
            f"the answer {named!r}, which is none of its {len(self.texts)} options; give {ways}a "
            f"letter from A to {last}, a place from 0 to {len(self.texts) - 1}, or an option's text"
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
