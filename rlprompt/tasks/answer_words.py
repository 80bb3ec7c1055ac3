"""The words of answers, as metrics compare them, in any script.

SQuAD's normalisation (Rajpurkar et al. 2016, arXiv 1606.05250, evaluate-v1.1.py) takes away case,
ASCII punctuation, articles and spare white space. Of English text the words here are the same, but
that numbers stay what they are, and that a reference does not vanish: see `words` and `reading`.
"""

from __future__ import annotations

import functools
import re
import string
import unicodedata
from collections.abc import Callable, Iterable

from rlprompt._utils.scripts import is_unspaced

# Quotes and hyphens of print, as a keyboard writes them.
_TYPED = str.maketrans(
    "\u2018\u2019\u201b\u05f3\u201c\u201d\u201e\u201f\u05f4\u2010\u2011\u2012\u2013\u2212",
    '\'\'\'\'"""""-----',
)
# Punctuation without which a number is another one: a sign, as `answer_numbers` has it; a point
# that begins it; what stands between digits and is no hyphen, quote or comma of thousands.
_OF_NUMBERS = re.compile(
    r"(?<![\w.)\]-])-(?=[$\u20ac\u00a3]?\.?\d)"
    r"|(?<![\w.])\.(?=\d)"
    r"|(?<=\d)(?:[./:^*+<=>]|,(?!\d{3}(?!\d)))(?=\d)"
)
# What the characters are called of which Chinese is written.
_CHINESE = ("CJK", "IDEOGRAPHIC", "BOPOMOFO", "FULLWIDTH")


def words(text: str, *, articles: bool = False, cased: bool = False) -> list[str]:
    """The words of a text as SQuAD's `normalize_answer` gives them, and beyond it.

    The sign of a number stays, and so does a point, slash, colon or sign of arithmetic between
    digits, and a comma that parts no thousands: 1.5 is not 15, and 3/4 not 34. Quotes and hyphens
    of print are as those of a keyboard; other punctuation beyond ASCII parts words. In scripts
    without spaces each character is a word.

    >>> words("The  Answer!"), words("-$1,234.50"), words("\u5317\u4eac\u3002")
    (['answer'], ['-1234.50'], ['\u5317', '\u4eac'])

    Args:
        text: What is read.
        articles: Whether `a`, `an` and `the` stay.
        cased: Whether capitals stay.
    """
    text = _typed(text)
    text = text if cased else text.lower()
    kept = {match.start() for match in _OF_NUMBERS.finditer(text)}
    bare = "".join(c for i, c in enumerate(text) if c not in string.punctuation or i in kept)
    if not bare.isascii():
        other = (c for c in bare if c not in string.punctuation)
        bare = bare.translate({ord(c): " " for c in other if unicodedata.category(c)[0] == "P"})
    left = bare if articles else re.sub(r"\b(a|an|the)\b", " ", bare)
    return (left if left.isascii() else _apart(left)).split()


def reading(reference: str, *, cased: bool = False) -> Callable[[str], list[str]]:
    """How a reference and the answers to it are read, both alike: as `words`.

    But articles stay where nothing else is left of the reference or all that is are single
    letters, for A may be the answer; and where it is all punctuation, such as `+` or `<=`, both
    are read as they are written, up to case, white space and quotes and hyphens of print.

    >>> reading("A")("A."), reading("c a t")("C A T"), reading("a cat")("The cat")
    (['a'], ['c', 'a', 't'], ['cat'])
    >>> reading("<=")("<")
    ['<']

    Args:
        reference: A right answer.
        cased: Whether articles that stay have to be written as in the reference.
    """
    usual, whole = words(reference), words(reference, articles=True)
    if not whole and reference.strip():
        return lambda text: _typed(text).casefold().split()
    if usual != whole and all(len(word) == 1 and word.isalpha() for word in usual):
        return functools.partial(words, articles=True, cased=cased)
    return words


def tokens(text: str) -> list[str]:
    """Runs of letters and digits in lower case, and single characters in unspaced scripts.

    Of a text whose letters are ASCII these are the tokens of rouge-score, which knows no others.

    >>> tokens("Don't, 3.5!"), tokens("gr\u00f6\u00dfer"), tokens("\u5317\u4eac")
    (['don', 't', '3', '5'], ['gr\u00f6\u00dfer'], ['\u5317', '\u4eac'])
    """
    text = unicodedata.normalize("NFC", text).lower()
    return _apart(c if _is_token(c) else " " for c in text).split()


def bleu_tokeniser(references: Iterable[str]) -> str:
    """The tokeniser of sacrebleu for the script of some references.

    `zh` where most words are Chinese characters, as sacrebleu advises; `char` for other scripts
    without spaces, such as Japanese and Thai; else `13a`, its default.

    >>> bleu_tokeniser(["Tokyo is a city."]), bleu_tokeniser(["\u5317\u4eac"])
    ('13a', 'zh')
    """
    found = tokens(" ".join(references))
    alone = [one for one in found if _stands_alone(one[0])]
    if not alone or 2 * len(alone) < len(found):
        return "13a"
    names = (unicodedata.name(one[0], "") for one in alone)
    return "zh" if all(name.startswith(_CHINESE) for name in names) else "char"


def _typed(text: str) -> str:
    """A text with the quotes and hyphens of a keyboard, and one spelling of each letter."""
    return unicodedata.normalize("NFC", text).translate(_TYPED)


def _apart(characters: Iterable[str]) -> str:
    """A text with spaces around the characters of unspaced scripts, marks kept at their letter."""
    found, after = [], False
    for c in characters:
        if unicodedata.category(c)[0] != "M":
            alone = _stands_alone(c)
            if alone or after:
                found.append(" ")
            after = alone
        found.append(c)
    return "".join(found)


@functools.lru_cache(maxsize=2**14)
def _stands_alone(character: str) -> bool:
    """Whether a character is a word: of an unspaced script, and no digit or wide Latin letter."""
    return is_unspaced(character) and unicodedata.category(character) not in ("Nd", "Lu", "Ll")


def _is_token(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] in "LM" or category == "Nd"
