"""Settings of methods that are out of range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any


def check_ranges(
    settings: object, at_least: Mapping[str, int], above_zero: tuple[str, ...] = ()
) -> None:
    """Refuse numbers out of range, and what is no number; None where a field may not be None.

    >>> from types import SimpleNamespace
    >>> check_ranges(SimpleNamespace(batch=0), {"batch": 1})
    Traceback (most recent call last):
        ...
    ValueError: batch is 1 or more, got 0

    Args:
        settings: Whose attributes they are.
        at_least: Names of whole numbers that have a least value, and that.
        above_zero: Names of numbers that are above 0 and finite.

    Raises:
        ValueError: One is out of range.
    """
    for name, least in at_least.items():
        value = _number(settings, name, Integral, "a whole number")
        if value is not None and value < least:
            raise ValueError(f"{name} is {least} or more, got {value}")
    for name in above_zero:
        value = _number(settings, name, Real, "a number")
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} is above 0, got {value}")


def check_share(settings: object, name: str, *, zero: bool = False, one: bool = True) -> None:
    """Refuse what is no share, and what is no number; None as for `check_ranges`.

    >>> from types import SimpleNamespace
    >>> check_share(SimpleNamespace(first=1.5), "first")
    Traceback (most recent call last):
        ...
    ValueError: first is a share above 0 and up to 1, got 1.5

    Args:
        settings: Whose attribute it is.
        name: Of the attribute.
        zero: Whether it may be 0.
        one: Whether it may be 1.

    Raises:
        ValueError: It is none, or out of range.
    """
    value = _number(settings, name, Real, "a number")
    if value is None or 0 < value < 1 or (zero and value == 0) or (one and value == 1):
        return
    least, most = "from 0" if zero else "above 0 and", "up to 1" if one else "below 1"
    raise ValueError(f"{name} is a share {least} {most}, got {value}")


def check_each(settings: object, name: str) -> None:
    """Refuse numbers to try of which one is not above 0 and finite, or where there is none.

    >>> from types import SimpleNamespace
    >>> check_each(SimpleNamespace(rates=(0.1, 0)), "rates")
    Traceback (most recent call last):
        ...
    ValueError: rates are one or more numbers above 0, got [0.1, 0]

    Args:
        settings: Whose attribute they are.
        name: Of the attribute, a sequence.

    Raises:
        ValueError: One is out of range or no number, or there is none.
    """
    values = list(getattr(settings, name))
    if not values or not all(_is(one, Real) and 0 < one < math.inf for one in values):
        raise ValueError(f"{name} are one or more numbers above 0, got {values}")


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _number(settings: object, name: str, kind: type, what: str) -> Any:
    value = getattr(settings, name)
    fields = getattr(settings, "__dataclass_fields__", {})
    if value is None and (name not in fields or "None" in str(fields[name].type)):
        return None
    if not _is(value, kind):
        raise ValueError(f"{name} is {what}, got {value!r}")
    return value
