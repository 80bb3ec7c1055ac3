"""Values of any type as the texts of a file: numbers, truth values, lists, and what is missing."""

from __future__ import annotations

import json
import numbers
import re
from collections.abc import Iterator
from typing import Any

# What pandas, numpy, R, Python, SQL and spreadsheets write for a value that is not there. One who
# means the word writes it otherwise, such as `none`.
MISSING = frozenset({"NaN", "nan", "NA", "<NA>", "NaT", "None", "NULL", "null", "N/A", "#N/A"})

EXACT = 2**53  # below, a float is each whole number, and not others that are near


def plain(value: Any) -> Any:
    """A value of numpy, pandas or torch as Python's own; None for one that is missing.

    >>> import numpy as np
    >>> plain(np.int64(3)), plain(np.bool_(True)), plain(np.array(["a", "b"])), plain(float("nan"))
    (3, True, ['a', 'b'], None)
    """
    if type(value).__name__ in ("NAType", "NaTType"):  # of pandas; neither equals itself
        return None
    if hasattr(value, "tolist"):
        value = value.tolist()
    return None if isinstance(value, numbers.Number) and value != value else value


def text_of(value: Any) -> str:
    """A value as text: "" for what is missing, JSON for what is not text.

    A number that is whole is written so: beside a gap, pandas makes floats of whole numbers.

    >>> text_of("a"), text_of(1), text_of(True), text_of(None), text_of(["b"])
    ('a', '1', 'true', '', '["b"]')
    >>> text_of(44.0), text_of(4.5), text_of("44.0")
    ('44', '4.5', '44.0')

    Raises:
        TypeError: It is bytes.
    """
    value = plain(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes):
        raise TypeError("bytes, not text,")
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        value = int(value)
    if isinstance(value, bool | int | float | list | tuple | dict):
        return json.dumps(value, default=str)
    return "" if value is None else str(value)


def texts_of(value: Any) -> tuple[str, ...]:
    """The texts of a list, each once, without what is missing; or the one that a value is.

    `{"text": [...]}`, as SQuAD has its answers, stands for the list in it.

    >>> texts_of(["Paris", "paris", "Paris", None]), texts_of("Paris"), texts_of(None)
    (('Paris', 'paris'), ('Paris',), ())

    Raises:
        TypeError: There are bytes in it.
    """
    return tuple(dict.fromkeys(text for text in _texts(value) if text))


def _texts(value: Any) -> Iterator[str]:
    value = plain(value)
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        value = value["text"]
    for one in value if isinstance(value, list | tuple) else [value]:
        yield text_of(one).strip()


def is_marker(text: str) -> bool:
    """Whether a text is no text but stands for a value that is missing."""
    return text.strip() in MISSING


def class_name(value: Any) -> str:
    """What a class is called that is given as a number, a truth value or a text; "" if missing.

    >>> class_name(1), class_name(1.0), class_name(True), class_name("1.0")
    ('1', '1', 'true', '1.0')
    """
    return value.strip() if isinstance(value, str) else canonical(text_of(value))


def canonical(label: str) -> str:
    """A label without what the type of a column changes: 1.0 for 1, True for true.

    >>> canonical("1.0"), canonical("TRUE"), canonical("fine")
    ('1', 'true', 'fine')
    """
    if label.casefold() in ("true", "false"):
        return label.casefold()
    whole = re.fullmatch(r"([+-]?\d+)\.0*", label)
    return whole[1] if whole else label


def is_code(label: str) -> bool:
    """Whether a label is a number or a truth value, which says nothing of its meaning."""
    return re.fullmatch(r"true|false|[+-]?\d+", canonical(label)) is not None
