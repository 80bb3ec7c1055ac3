"""Settings of data that all tasks which read some share: said here once, for Python and files."""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, ParamSpec, TypedDict, TypeVar, Unpack

from pydantic import NonNegativeInt, PositiveInt

from rlprompt.data.examples import DevFrom, OnBadRows, OnLeak, OnLongText, Splits
from rlprompt.data.load import DataSource, load_splits
from rlprompt.data.options import AnswersFrom

P = ParamSpec("P")
Made = TypeVar("Made")


class DrawSettings(TypedDict, total=False):
    """How a task's splits are drawn from its data, and what is done about defects.

    What is left out has the value of `DRAW`, or the task's own.

    >>> few: DrawSettings = {"shots": 4, "on_bad_rows": "skip"}
    >>> {**DRAW, **few}["shots"], {**DRAW, **few}["on_leak"]
    (4, 'error')

    Attributes:
        shots: Examples a class for train and again for dev, where they are drawn; in all, for a
            task without classes. 1 or more. A class that has too few gives fewer, and the notes
            say so.
        test: Examples to test on, 1 or more; None for all there are.
        seed: Decides what is drawn. 0 or more.
        on_bad_rows: `error` stops at an example that is empty, repeated or has no known label, or
            that holds what the model's tokenizer always takes for a control token; `skip` leaves it
            out, and says so in the notes.
        on_leak: `error` takes an example that two splits share for a bad row; `allow` keeps it, and
            says so in the notes.
        on_long_text: `error` stops at a text that leaves no room for prompt and answer in what the
            model takes; `skip` leaves it out, and `truncate-start`, `truncate-end` and
            `truncate-middle` cut what is too much of it there. The notes say how many.
        dev_from: Where dev comes from, of data with files of their own: None for the dev file;
            `train` splits train in two by class, `test` draws `shots` a class from test, and no dev
            file is read.
    """

    shots: PositiveInt
    test: PositiveInt | None
    seed: NonNegativeInt
    on_bad_rows: OnBadRows
    on_leak: OnLeak
    on_long_text: OnLongText
    dev_from: DevFrom | None


DRAW: Final[DrawSettings] = {
    "shots": 16,
    "test": None,
    "seed": 0,
    "on_bad_rows": "error",
    "on_leak": "error",
    "on_long_text": "error",
    "dev_from": None,
}


def draws(**own: Unpack[DrawSettings]) -> Callable[[Callable[P, Made]], Callable[P, Made]]:
    """Mark a function that takes `**draw: Unpack[DrawSettings]`.

    It is called with all of them, and its signature, annotations and docstring show each, so that
    the settings of a task can be listed and checked.

    Args:
        **own: Defaults that are not those of `DRAW`.

    >>> @draws(shots=32)
    ... def read(data: str, **draw: Unpack[DrawSettings]) -> DrawSettings:
    ...     return draw
    >>> read("films.csv", seed=1)["shots"], read("films.csv", seed=1)["seed"]
    (32, 1)
    >>> list(inspect.signature(read).parameters)
    ['data', 'shots', 'test', 'seed', 'on_bad_rows', 'on_leak', 'on_long_text', 'dev_from']
    """
    defaults: dict[str, Any] = {**DRAW, **own}
    hints = typing.get_type_hints(DrawSettings)

    def decorate(make: Callable[P, Made]) -> Callable[P, Made]:
        signature = inspect.signature(make)
        *others, draw = signature.parameters.values()
        known = {*signature.parameters, *defaults} - {draw.name}

        @functools.wraps(make)
        def made(*args: P.args, **settings: P.kwargs) -> Made:
            for unknown in sorted(settings.keys() - known):  # `**draw` would take it
                raise TypeError(f"{make.__name__}() got an unexpected keyword argument {unknown!r}")
            return make(*args, **{**defaults, **settings})

        shown = [
            draw.replace(name=name, kind=draw.KEYWORD_ONLY, default=default, annotation=hints[name])
            for name, default in defaults.items()
        ]
        made.__dict__["__signature__"] = signature.replace(parameters=[*others, *shown])
        made.__annotations__ = {k: v for k, v in make.__annotations__.items() if k != draw.name}
        made.__annotations__ |= hints
        made.__doc__ = described(make.__doc__ or "", draw.name)
        return made

    return decorate


def described(text: str, draw: str = "draw") -> str:
    """A docstring with what each setting means in the place of its line about `**draw`."""
    meanings = (inspect.getdoc(DrawSettings) or "").partition("Attributes:\n")[2].splitlines()

    def lines(found: re.Match[str]) -> str:
        return "\n".join(found["indent"] + line.removeprefix("    ") for line in meanings)

    return re.sub(rf"^(?P<indent> *)\*\*{draw}: .*$", lines, text, flags=re.MULTILINE)


def draw_splits(
    data: DataSource,
    labels: Collection[str] | None,
    draw: DrawSettings,
    *,
    text: Sequence[str] | Mapping[str, str],
    label: str | None,
    options: str | None = None,
    answers_from: AnswersFrom | None = None,
    aliases: Mapping[Any, str] | None = None,
    numbered: Sequence[str] = (),
) -> Splits:
    """Splits of a task's data: `load_splits` by settings.

    Args:
        data: As for `load_splits`, as are the others but `draw`.
        labels: The classes, or None.
        draw: Settings; what is left out is as in `DRAW`.
        text: Columns of text, or field to column.
        label: Column of the label, or None.
        options: Column of the options of multiple choice, or None.
        answers_from: As for `load_splits`.
        aliases: Other spellings of classes.
        numbered: Classes in the order of their numbers.

    Raises:
        ValueError: The data do not exist or have a defect, or a setting is not allowed.
    """
    settings: DrawSettings = {**DRAW, **draw}
    splits = load_splits(
        data,
        labels,
        text=text,
        label=label,
        options=options,
        answers_from=answers_from,
        aliases=aliases,
        numbered=numbered,
        shots=settings["shots"],
        n_test=settings["test"],
        seed=settings["seed"],
        on_bad_rows=settings["on_bad_rows"],
        on_leak=settings["on_leak"],
        dev_from=settings["dev_from"],
    )
    bad, long = settings["on_bad_rows"], settings["on_long_text"]
    if bad == long == "error":
        return splits
    return replace(splits, on_bad_rows=bad, on_long_text=long)
