r"""Text of any origin made safe to look at: what cannot be seen is written as an escape.

A found prompt may hold any character of a vocabulary: line breaks, zero-width ones, and marks that
turn the direction of all text after them. HTML, LaTeX and the like are escaped elsewhere, after
this.

>>> visible("It\u200bwas\n")
'It\\u200bwas\\n'
"""

from __future__ import annotations

import itertools
from typing import Literal, NamedTuple

# Letters and marks without ink, which `str.isprintable` takes for printable: fillers of Hangul,
# the empty Braille cell, the grapheme joiner, variation selectors.
_INKLESS = frozenset(
    map(chr, (0x115F, 0x1160, 0x3164, 0xFFA0, 0x2800, 0x34F, *range(0xFE00, 0xFE10)))
)


class Span(NamedTuple):
    """A stretch of text of one kind.

    Attributes:
        kind: `text`, `space` (U+0020 alone), or `escape`: an escape of Python for what cannot be
            seen.
        text: What to show.
    """

    kind: Literal["text", "space", "escape"]
    text: str


def spans(text: str) -> list[Span]:
    r"""A text cut where spaces and invisible characters are.

    >>> [(span.kind, span.text) for span in spans("It was\t")]
    [('text', 'It'), ('space', ' '), ('text', 'was'), ('escape', '\\t')]
    """
    return [
        Span(kind, "".join(map(_shown, run))) for kind, run in itertools.groupby(text, key=_kind)
    ]


def visible(text: str) -> str:
    """A text in one line, with escapes for what cannot be seen; spaces stay."""
    return "".join(map(_shown, text))


def _kind(character: str) -> Literal["text", "space", "escape"]:
    if character == " ":
        return "space"
    return "text" if character.isprintable() and character not in _INKLESS else "escape"


def _shown(character: str) -> str:
    if _kind(character) != "escape":
        return character
    return character.encode("unicode_escape").decode("ascii")
