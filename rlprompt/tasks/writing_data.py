"""Texts with reference answers, for `writing`: messages, functions, and word problems.

Messages and functions come out of two published packages (`assets`), of which one file is read and
nothing imported. Word problems are made here, in the form of GSM8K (Cobbe et al. 2021, arXiv
2110.14168): worked steps, then `####` and the number.
"""

from __future__ import annotations

import ast
import re
import struct
from collections.abc import Iterator

from rlprompt._utils.assets import fetch
from rlprompt.tasks.induction_data import Fact

# Words of a message: single ones have no context, and longer ones are few.
MESSAGE_WORDS = range(2, 26)
# Characters of a function, of those that a small model can read at once.
MOST_CODE = 600
# Words of its documentation's first sentence.
MOST_SUMMARY = 25

_NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ida", "Jonas", "Kim")
_THINGS = ("pens", "stamps", "apples", "marbles", "books", "cards", "shells")


def messages() -> list[Fact]:
    """Messages of Django in English and in the French of its translators.

    Those with gaps to fill in, markup or several lines are left out.
    """
    catalogue = fetch("french-messages").read_bytes()
    facts = []
    for english, french in _catalogue(catalogue):
        plain = not re.search(r"[\0\4\n%{<&]", english + french)
        if plain and len(english.split()) in MESSAGE_WORDS and english != french:
            facts.append((english, " ".join(french.split())))
    return facts


def functions() -> list[Fact]:
    """Functions of more-itertools without their documentation, and its first sentence.

    Code and first sentence are how CodeSearchNet pairs them (Husain et al. 2019, arXiv
    1909.09436).
    """
    source = fetch("iterator-functions").read_text("utf-8")
    lines, facts = source.splitlines(), []
    for node in ast.parse(source).body:
        if not isinstance(node, ast.FunctionDef) or not (told := ast.get_docstring(node)):
            continue
        said = node.body[0]
        kept = lines[node.lineno - 1 : said.lineno - 1] + lines[said.end_lineno : node.end_lineno]
        code = "\n".join(line for line in kept if line.strip())
        # Without what marks names in documentation.
        first = re.sub(r":\w+:|[`*]", "", " ".join(told.split("\n\n")[0].split()))
        summary = re.split(r"(?<=\w)[.:](?:\s|$)", first)[0]
        if len(code) <= MOST_CODE and len(summary.split()) <= MOST_SUMMARY:
            facts.append((code, summary))
    return facts


def word_problems() -> list[Fact]:
    """Problems of two steps, and both steps worked.

    >>> word_problems()[0][1]
    '2 * 4 = 8. 5 + 8 = 13. #### 13'
    """
    return list(dict.fromkeys(problem for k in range(60) for problem in _problems(k)))


def _problems(k: int) -> Iterator[Fact]:
    """One problem of each kind, with other numbers for every k."""
    a, b, c = 5 + k % 13, 2 + k % 7, 4 + k % 5
    name, things = _NAMES[k % len(_NAMES)], _THINGS[k % len(_THINGS)]
    yield (
        f"{name} has {a} {things} and buys {b} boxes with {c} {things} in each. How many {things} "
        f"does {name} have now?",
        _worked(f"{b} * {c}", b * c, f"{a} + {b * c}", a + b * c),
    )
    yield (
        f"{name} bakes {a} cakes and cuts each into {c} pieces. Then {b} pieces are eaten. How "
        "many pieces are left?",
        _worked(f"{a} * {c}", a * c, f"{a * c} - {b}", a * c - b),
    )
    yield (
        f"{name} is one of {a + b} passengers on a bus. At a stop {b} others get off and {c} get "
        "on. How many passengers are on the bus then?",
        _worked(f"{a + b} - {b}", a, f"{a} + {c}", a + c),
    )
    yield (
        f"{name} saves {a} dollars a week for {c} weeks and then spends {b} dollars. How many "
        "dollars are left?",
        _worked(f"{a} * {c}", a * c, f"{a * c} - {b}", a * c - b),
    )
    yield (
        f"{c} children share {c * (a + b)} {things} equally. Each of them gives {b} away. How many "
        f"{things} does each child keep?",
        _worked(f"{c * (a + b)} / {c}", a + b, f"{a + b} - {b}", a),
    )
    yield (
        f"The bus takes {a} minutes and the walk after it {b} minutes. {name} makes both {c} "
        "times. How many minutes is that in all?",
        _worked(f"{a} + {b}", a + b, f"{a + b} * {c}", (a + b) * c),
    )


def _worked(first: str, half: int, second: str, whole: int) -> str:
    return f"{first} = {half}. {second} = {whole}. #### {whole}"


def _catalogue(content: bytes) -> Iterator[tuple[str, str]]:
    """Messages and translations of a gettext `.mo` file (GNU gettext manual, section 10.3)."""
    magic, _, count, originals, translations = struct.unpack_from("<5I", content)
    if magic != 0x950412DE:
        raise ValueError("this is not a little-endian gettext catalogue")
    for i in range(count):
        pair = []
        for table in (originals, translations):
            length, start = struct.unpack_from("<2I", content, table + 8 * i)
            pair.append(content[start : start + length].decode())
        yield pair[0], pair[1]
