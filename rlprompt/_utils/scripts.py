"""Where words stand without a space: after brackets, in scripts that write none."""

from __future__ import annotations

import re
import unicodedata

# How the texts of chats end before the assistant speaks.
_HEADER = re.compile(r"(<\|[^|<>]+\|>|\[/INST\])$")
# Scripts that write no spaces between words, by how Unicode calls their characters.
_UNSPACED = (
    *("CJK", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH"),
    *("THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"),
)


def stands_close(before: str) -> bool:
    """Whether a word follows a text, which does not end in a space, without one.

    >>> stands_close("Mood ("), stands_close('He said "'), stands_close("Mood:")
    (True, True, False)
    """
    last, previous = before[-1:], before[-2:-1]
    if not last:
        return False
    if unicodedata.category(last) in ("Ps", "Pi") or _HEADER.search(before):
        return True
    if last in "\"'`":
        opens = not previous or previous.isspace() or previous in "=:"
        return opens or unicodedata.category(previous) in ("Ps", "Pi")
    letters = (c for c in reversed(before) if unicodedata.category(c)[0] in "LMN")
    return is_unspaced(last) or is_unspaced(next(letters, ""))


def is_unspaced(character: str) -> bool:
    """Whether a character, or none, is of a script that writes no spaces between words.

    >>> is_unspaced("\u597d"), is_unspaced("g")
    (True, False)
    """
    return bool(character) and unicodedata.name(character, "").startswith(_UNSPACED)
