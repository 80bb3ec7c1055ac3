r"""The numbers of a written answer.

>>> readings("She pays $1,234.50, not 7."), readings("1 000 000 or 3/4")
([Decimal('1234.50'), Decimal('7')], [Decimal('1000000'), None])
"""

from __future__ import annotations

import re
from decimal import Decimal

# What stands before the answer in GSM8K (Cobbe et al. 2021, arXiv 2110.14168).
ANSWER_MARK = "####"
# A plain, a no-break, a thin, a figure and a narrow no-break space.
_SPACES = " \u00a0\u2009\u2007\u202f"
# A hyphen and a minus, as a keyboard and as print write them.
_SIGNS = "-\u2010\u2011\u2012\u2013\u2212"
# Digits in groups of three, with commas between them or with spaces.
_GROUPS = rf"\d{{1,3}}(?:(?:,\d{{3}})+|(?:[{_SPACES}]\d{{3}})+)(?!\d)"
# A sign, where that is not between words or numbers; a currency; digits, with all that others
# follow, which may be no number that is read, such as 3/4, 1.234.567 or a half behind a 5.
_RUN = re.compile(
    rf"((?:(?<![\w.)])[{_SIGNS}+])?[$\u20ac\u00a3]?)"
    rf"((?:{_GROUPS}|\d+|(?<![\w.])\.\d+)(?:[.,/:^'\u2019\u2044_]\d+)*)"
    r"(?:[eE]([-+]?\d{1,3})(?!\w))?([\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2079\u2150-\u2189]*)"
)
_NUMBER = re.compile(rf"(?:{_GROUPS}|\d+)(?:\.\d+)?|\.\d+")
_LIST = re.compile(r"\d+(?:,\d+)+")


def readings(text: str) -> list[Decimal | None]:
    """All numbers of a text, None for one in a format that is not read.

    A comma or a space before three digits parts thousands, and a point or an e stands before
    others. Other commas are those of a list.
    """
    found: list[Decimal | None] = []
    for run in _RUN.finditer(text):
        before, digits, power, more = run.groups()
        if more or not (_NUMBER.fullmatch(digits) or _LIST.fullmatch(digits)):
            found.append(None)
            continue
        parts = [digits] if _NUMBER.fullmatch(digits) else digits.split(",")
        values = [Decimal(re.sub(rf"[,{_SPACES}]", "", part)) for part in parts]
        values[-1] = values[-1].scaleb(int(power or 0))
        values[0] = -values[0] if before and before[0] in _SIGNS else values[0]
        found += values
    return found


def number_in(text: str, take: str = "last") -> Decimal | None:
    r"""The number that a text gives, or None, also where that is in a format that is not read.

    Behind the last `####`, as in GSM8K, if there is one; else the last or first of the text, as
    lm-evaluation-harness takes the last one of GSM8K's answers (`flexible-extract`).

    >>> number_in("She pays $1,234.50, not 7."), number_in("She pays $1,234.50, not 7.", "first")
    (Decimal('7'), Decimal('1234.50'))
    >>> number_in("3 + 4 = 7\n#### 7 apples, of 12"), number_in("-2e3"), number_in("none")
    (Decimal('7'), Decimal('-2E+3'), None)

    Args:
        text: What is read.
        take: `last` or `first`.
    """
    found = readings(_marked(text))
    if not found:
        return None
    return found[0 if ANSWER_MARK in text or take == "first" else -1]


def is_one_number(text: str) -> bool:
    """Whether a text says which of its numbers counts: by `####`, or because it has one."""
    return ANSWER_MARK in text or len(set(readings(text))) <= 1


def _marked(text: str) -> str:
    return text.rpartition(ANSWER_MARK)[2]
