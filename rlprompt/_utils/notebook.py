"""What a notebook and a Python prompt show of an object, and packages that only they need.

>>> print(line("Result", {"method": "greedy", "test": "0.812"}))
<Result: method greedy, test 0.812>
>>> print(card("Result", {"prompt": "<b>"}))
<table><caption>Result</caption><tr><th>prompt</th><td>&lt;b&gt;</td></tr></table>
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup


def line(title: str, facts: Mapping[str, str]) -> str:
    """An object in a line."""
    return f"<{title}: {', '.join(f'{name} {value}' for name, value in facts.items())}>"


def card(title: str, facts: Mapping[str, str]) -> str:
    """An object as a small HTML table, all of it escaped."""
    row = Markup("<tr><th>{}</th><td>{}</td></tr>")
    rows = Markup().join(row.format(name, value) for name, value in facts.items())
    return str(Markup("<table><caption>{}</caption>{}</table>").format(title, rows))


def filled(facts: Mapping[str, object]) -> dict[str, str]:
    """Facts in words, those that say nothing left out; of what has a text, that."""
    told = {name: str(getattr(fact, "text", fact)) for name, fact in facts.items()}
    return {name: fact for name, fact in told.items() if fact}


def by_key(what: str, listed: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """A fact for each key: what it is of that, in a list."""
    return {f"{what} {key}": ", ".join(texts) for key, texts in listed.items()}


def late(module: str) -> Any:
    """A module of the extra `notebook`.

    Raises:
        ValueError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise ValueError(f"this needs {package}: pip install 'rlprompt[notebook]'") from None
