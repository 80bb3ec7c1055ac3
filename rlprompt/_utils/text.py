r"""Text as sentences, names of files and pages need it.

A found prompt may hold any character of a vocabulary: line breaks, zero-width ones, and marks that
turn the direction of all text after them. Here what cannot be seen is written as an escape; HTML,
LaTeX and the like are escaped elsewhere, after this.

>>> visible("It\u200bwas\n")
'It\\u200bwas\\n'
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
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


def one_line(error: object) -> str:
    r"""What an error says, on one line.

    >>> one_line(ValueError("no\n  spread"))
    'no spread'
    """
    return " ".join(str(error).split())


def error_line(error: object) -> str:
    r"""What an error is and says, on one line.

    >>> error_line(ValueError("no\n  spread"))
    'ValueError: no spread'
    """
    return one_line(f"{type(error).__name__}: {error}")


def first_line(error: Exception) -> str:
    r"""The first line of what an error says, or what it is where it says nothing.

    >>> first_line(ValueError("no\nand more")), first_line(KeyError())
    ('no', 'KeyError()')
    """
    return (str(error).strip() or repr(error)).splitlines()[0]


def cut_short(text: str, most: int) -> str:
    """A text, or so many characters of it and an ellipsis.

    >>> cut_short("It was", 6), cut_short("It was good", 6)
    ('It was', 'It was...')
    """
    return text if len(text) <= most else f"{text[:most]}..."


def listed(names: Iterable[str]) -> str:
    """Names as a sentence lists them; "" for none.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    names = list(names)
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def listed_briefly(names: Iterable[str], most: int = 12) -> str:
    """The same, cut where there are more than so many.

    >>> listed_briefly(["a", "b", "c", "d"], most=2)
    'a, b and 2 more'
    """
    names = list(names)
    return listed([*names[:most], f"{len(names) - most} more"] if len(names) > most else names)


def counted(number: int, what: str) -> str:
    """A number of things whose plural ends in s.

    >>> counted(1, "seed"), counted(3, "seed")
    ('1 seed', '3 seeds')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


def other_format(what: object, found: int, read: int, advice: str) -> str:
    """Why a file of another format is refused, and what to do.

    Args:
        what: The file.
        found: The number of its format.
        read: That of the only one that is read.
        advice: What to do about an older one.

    >>> other_format("a.json", 1, 2, "make it again")
    'a.json was written by an older rlprompt (format 1, this one reads 2); make it again'
    >>> other_format("a.json", 3, 2, "make it again")
    'a.json was written by a newer rlprompt (format 3, this one reads 2); update rlprompt'
    """
    age, advice = ("a newer", "update rlprompt") if found > read else ("an older", advice)
    return f"{what} was written by {age} rlprompt (format {found}, this one reads {read}); {advice}"


def file_part(name: str) -> str:
    """A name as part of a file name: letters, digits and `=.-_` stay. Two may come out alike.

    >>> file_part("SST 2/ppo")
    'SST-2-ppo'
    """
    return "".join(c if c.isalnum() or c in "=.-_" else "-" for c in name)


def slugs(names: Iterable[str], parent: str = "") -> dict[str, str]:
    """A name for files and links for each name, lower-case ASCII, no two alike.

    >>> slugs(["SST 2", "sst/2"], "scores")
    {'SST 2': 'scores-sst-2', 'sst/2': 'scores-sst-2-2'}
    """
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^a-z0-9_]+", "-", f"{parent} {name}".lower()).strip("-") or "x"
        numbered = (f"{plain}-{number}" for number in itertools.count(2))
        free = (slug for slug in itertools.chain([plain], numbered) if slug not in found.values())
        found[name] = next(free)
    return found


def fence(text: str, least: int = 1) -> str:
    """Backticks, so many or more, that a text of Markdown's code cannot close.

    >>> fence("a``b")
    '```'
    """
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))


def _kind(character: str) -> Literal["text", "space", "escape"]:
    if character == " ":
        return "space"
    return "text" if character.isprintable() and character not in _INKLESS else "escape"


def _shown(character: str) -> str:
    if _kind(character) != "escape":
        return character
    return character.encode("unicode_escape").decode("ascii")
