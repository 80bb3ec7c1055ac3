"""What to tell a person who mistyped something, in a line.

>>> advice("shot", ["shots", "seed"])
"; did you mean 'shots'?"
>>> advice("x", ["shots", "seed"])
'; known: shots, seed'
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any, get_args

# For the kinds of error that pydantic words for programmers.
PLAIN = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be keys with values",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "model_type": "must be keys with values",
    "string_pattern_mismatch": "must be a plain name of letters, digits, _, - and . that does "
    "not begin with - or .",
    "string_too_short": "must not be empty",
    "string_type": "must be text; put it in quotes",
    "too_short": "must not be empty",
    "tuple_type": "must be a list",
}


def advice(given: str, known: Iterable[str]) -> str:
    """The name that was probably meant, or else all there are."""
    known = list(known)
    return did_you_mean(given, known) or f"; known: {', '.join(known) or 'none'}"


def did_you_mean(given: str, known: Sequence[str], begun: bool = False) -> str:
    """The name that was probably meant, or "".

    Args:
        given: What was typed.
        known: The names that there are.
        begun: Whether a name that begins so goes first. Not for runs, many of which begin alike.

    >>> did_you_mean("smal", ["small.yaml", "snail"])
    "; did you mean 'snail'?"
    >>> did_you_mean("smal", ["small.yaml", "snail"], begun=True)
    "; did you mean 'small.yaml'?"
    """
    first = sorted(one for one in known if begun and one.startswith(given))
    near = first or difflib.get_close_matches(given, known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def reason(error: Any) -> str:
    """What is wrong with a value, from one of pydantic's `ErrorDetails`."""
    message = str(error["msg"])
    if error["type"] == "value_error":
        return message.removeprefix("Value error, ")
    plain = PLAIN.get(error["type"]) or message.replace("Input should", "must")
    return f"{plain}, got {reprlib.repr(error['input'])}"


def check_choice(name: str, given: object, allowed: Any) -> None:
    """Refuse a value that a `Literal` does not list.

    >>> from typing import Literal
    >>> check_choice("on_leak", "warn", Literal["error", "allow"])
    Traceback (most recent call last):
    ValueError: on_leak is 'warn'; give error or allow

    Raises:
        ValueError: It is none of them.
    """
    if given not in get_args(allowed):
        raise ValueError(f"{name} is {given!r}; give {' or '.join(map(str, get_args(allowed)))}")
