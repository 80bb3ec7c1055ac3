"""Rewards that a person wrote as a function.

The names of the function's arguments say what it is called with:

>>> @reward
... def shortness(outputs, examples):
...     '''What the model wrote for each example.'''
...     return [-float(len(output)) for output in outputs]
>>> shortness.reads
'outputs'
>>> @reward
... def new_words(outputs, examples, prompts):
...     '''The same, beside each output the text of the prompt that it was written under.'''
...     return [float(output not in prompt) for output, prompt in zip(outputs, prompts)]
>>> new_words(["Paris", "so"], [], ["It was so"] * 2)
[1.0, 0.0]
>>> @reward
... def politeness(prompt_text, examples):
...     '''The prompt alone; the model is never run.'''
...     return [float("please" in prompt_text)] * len(examples)
>>> politeness.reads
'prompt_text'
>>> @reward
... def told(outputs, examples):
...     '''Two lists: the numbers, and what there is to say of each output.'''
...     right = [output == example.label for output, example in zip(outputs, examples)]
...     return [float(r) for r in right], ["" if r else "not what was asked for" for r in right]
>>> told.feedback(["7"], [Example({"text": "1 + 1"}, "2")], "Add:")
('not what was asked for',)
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import numbers
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from rlprompt._utils.identity import attributes, identity
from rlprompt._utils.own_source import source_files
from rlprompt._utils.plugins import load_object, told
from rlprompt._utils.text import counted
from rlprompt.data.examples import Example
from rlprompt.tasks.base import LARGEST
from rlprompt.types import Floats, Outputs

Reads = Literal["outputs", "prompt_text"]
Scores = Sequence[float] | tuple[Sequence[float], Sequence[str]]
"""A number an example, or that and a text an example."""

SIGNATURES = (
    "score(outputs, examples), score(outputs, examples, prompts) or score(prompt_text, examples)"
)
# The arguments of each of them.
TAKEN = (
    ("outputs", "examples"),
    ("outputs", "examples", "prompts"),
    ("prompt_text", "examples"),
)


class RewardError(ValueError):
    """A person's reward function raised, or gave no rewards; its traceback is the cause.

    >>> @reward
    ... def broken(outputs, examples):
    ...     return [float(output) for output in outputs]
    >>> try:
    ...     broken.score(["two"], [Example({"text": "1 + 1"}, "2")], "Add:")
    ... except RewardError as error:
    ...     print(type(error.__cause__).__name__)
    ValueError
    """


@dataclass(frozen=True)
class RewardFunction:
    """A reward function and how to call it.

    Calling it calls the function, so that it can be tested like any other.

    Args:
        function: Takes `outputs`, what the model wrote for each example, or `prompt_text`, and the
            `examples`; beside outputs also `prompts`, the text of the prompt for each of them.
            Gives a number an example, higher is better; or two lists, the numbers and a text an
            example, which says what is wrong or right with it to methods that read that
            (`Task.feedback`). It must be pure: the same answer for the same arguments, whatever
            was asked before.

    Raises:
        ValueError: Its arguments are others.

    >>> def shortness(outputs, examples):
    ...     return [-float(len(output)) for output in outputs]
    >>> RewardFunction(shortness).reads
    'outputs'
    >>> RewardFunction(shortness)(["no", "yes"], [])
    [-2.0, -3.0]
    """

    function: Callable[..., Scores]

    def __post_init__(self) -> None:
        """Look at the arguments."""
        try:
            names = tuple(inspect.signature(self.function).parameters)
        except (TypeError, ValueError):
            names = ()
        if names not in TAKEN:
            raise ValueError(
                f"reward {self.name} takes the arguments ({', '.join(names)}); "
                f"write it as {SIGNATURES}"
            )

    def __call__(self, *given: Any) -> Scores:
        """What the function says."""
        return self.function(*given)

    @property
    def name(self) -> str:
        """What the function is called."""
        return getattr(self.function, "__qualname__", None) or repr(self.function)

    @property
    def reads(self) -> Reads:
        """What it is called with, `outputs` or `prompt_text`."""
        return cast(Reads, next(iter(inspect.signature(self.function).parameters)))

    @property
    def takes_prompts(self) -> bool:
        """Whether it is given the text of the prompt beside each output."""
        return "prompts" in inspect.signature(self.function).parameters

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the file that the function is in, and of what that imports of its own folder.

        Or of its own package, if it is in one: what it calls there counts as well, and no other
        library does. Of a function that is in no file, such as a notebook's, its own text alone.
        Of one that others may share the name of, what tells it from them (`identity`): lambdas,
        those that a function makes, and methods of objects.

        Raises:
            ValueError: Its text cannot be found, so scores could not be told from those of another.
        """
        try:
            files = source_files(self.function)
            texts = {module: file.read_text("utf-8") for module, file in files.items()}
            text = texts.pop("", "") or inspect.getsource(self.function)
            text += "".join(f"\n{module}\n{helper}" for module, helper in texts.items())
        except (OSError, TypeError, UnicodeDecodeError):
            raise ValueError(
                f"the source of reward {self.name} cannot be read, and stored scores are found by "
                "it; move it to a file, and wrap an object or a partial in a function there"
            ) from None
        self.__dict__["fingerprint"] = ""  # where the object of a method holds this
        try:
            told, made = identity(self.function), getattr(self.function, "__func__", None)
            if made is not None or not isinstance(told, str):
                # An object's `repr` may not say all that is in it.
                held = getattr(self.function, "__self__", None)
                own = {} if isinstance(held, type) else attributes(held)
                text += json.dumps([told, identity(made), identity(own)])
        finally:
            del self.__dict__["fingerprint"]
        return hashlib.blake2b(f"{self.name}\n{text}".encode(), digest_size=16).hexdigest()

    def score(self, given: Any, examples: Sequence[Example], prompt: str) -> Floats:
        """Rewards of one prompt, (E,) float64, checked.

        Args:
            given: What the function reads: (E,) outputs, or the prompt's text.
            examples: (E,) of them.
            prompt: The text of the prompt, for a function that takes it, and for messages.

        Raises:
            RewardError: The function raised, or gave something else than a finite number for each
                example.
        """
        return self._called(given, examples, prompt)[0]

    def feedback(
        self, given: Any, examples: Sequence[Example], prompt: str
    ) -> tuple[str, ...] | None:
        """What the function says of each example in words, (E,); None where it gives numbers alone.

        The function is called again, as it is pure; arguments and errors as for `score`.
        """
        return self._called(given, examples, prompt)[1]

    def _called(
        self, given: Any, examples: Sequence[Example], prompt: str
    ) -> tuple[Floats, tuple[str, ...] | None]:
        try:
            found = self.function(given, examples, *self._more(examples, prompt))
        except Exception as error:  # whatever a person's function raises; kept as the cause
            raise RewardError(
                f"reward {self.name} raised {told(error)}{self._place(given, examples, prompt)}, "
                f"under the prompt {prompt!r}"
            ) from error
        rewards, texts = _parted(found)
        values = self._checked(rewards, given, examples, prompt)
        if texts is None:
            return values, None
        if len(texts) != len(examples) or not all(isinstance(text, str) for text in texts):
            raise RewardError(
                f"reward {self.name} gave the texts {reprlib.repr(texts)} with its numbers, under "
                f"the prompt {prompt!r}; give a list of {counted(len(examples), 'text')}, one for "
                "each example"
            )
        return values, tuple(texts)

    def _more(self, examples: Sequence[Example], prompt: str) -> tuple[list[str], ...]:
        """What the function is given besides."""
        return ([prompt] * len(examples),) if self.takes_prompts else ()

    def _place(self, given: Any, examples: Sequence[Example], prompt: str) -> str:
        """On which example alone the function raises: it is pure, so it can be asked again."""
        for i, example in enumerate(examples):
            try:
                own = given[i : i + 1] if self.reads == "outputs" else given
                self.function(own, [example], *self._more([example], prompt))
            except Exception:  # the one that is looked for
                wrote = f" where the model wrote {given[i]!r}" if self.reads == "outputs" else ""
                return f" on the example {_example(example, i)}{wrote}"
        return f" on {len(examples)} examples together, though on none of them alone"

    def _checked(
        self, rewards: Any, given: Any, examples: Sequence[Example], prompt: str
    ) -> Floats:
        wanted = f"a list of {counted(len(examples), 'number')}, one for each example"
        if isinstance(rewards, str | bytes) or not hasattr(rewards, "__len__"):
            raise RewardError(
                f"reward {self.name} gave {type(rewards).__name__} {reprlib.repr(rewards)} under "
                f"the prompt {prompt!r}; it must give {wanted}"
            )
        if len(rewards) != len(examples):
            raise RewardError(
                f"reward {self.name} gave {len(rewards)} rewards under the prompt {prompt!r}; it "
                f"must give {wanted}"
            )
        # A mapping or a set has no order that could be that of the examples.
        if not isinstance(rewards, Sequence | np.ndarray):
            raise RewardError(f"reward {self.name} gave a {type(rewards).__name__}, not {wanted}")
        listed = list(rewards)
        for i, value in enumerate(listed):
            if not _is_reward(value):
                wrote = f" for {given[i]!r}" if self.reads == "outputs" else ""
                raise RewardError(
                    f"reward {self.name} gave {type(value).__name__} {reprlib.repr(value)}{wrote} "
                    f"on the example {_example(examples[i], i)}, under the prompt {prompt!r}; a "
                    f"reward is a finite number of {LARGEST:g} at most"
                )
        return np.array([float(value) for value in listed])


def _parted(found: Any) -> tuple[Any, Any]:
    """Numbers, and texts where there are two lists; None where there is one."""
    pair = isinstance(found, tuple) and len(found) == 2
    return found if pair and isinstance(found[1], list | tuple) else (found, None)


def _is_reward(value: Any) -> bool:
    try:
        return isinstance(value, numbers.Real | np.bool) and abs(float(value)) <= LARGEST
    except OverflowError:  # a whole number beyond all floats
        return False


def reward(function: Callable[..., Scores]) -> RewardFunction:
    """Make a reward of a function; see `RewardFunction`.

    Raises:
        ValueError: Its arguments are not those of a reward.

    >>> @reward
    ... def digits(outputs, examples):
    ...     return [float(output.isdigit()) for output in outputs]
    >>> digits.score(["7", "seven"], [Example({"text": "3 + 4"}, "7")] * 2, "Add:").tolist()
    [1.0, 0.0]
    """
    return RewardFunction(function)


def load_reward(spec: str) -> RewardFunction:
    """The reward at `FILE.py:NAME` or `MODULE:NAME`; a function there need not be marked.

    Raises:
        ValueError: It is not there, or no reward.
    """
    found = load_object(spec)
    if isinstance(found, RewardFunction):
        return found
    if not callable(found):
        kind = type(found).__name__
        raise ValueError(f"{spec} is of the type {kind}, not a function; write {SIGNATURES}")
    return RewardFunction(found)


def in_place(said: Sequence[Sequence[str] | None], n_examples: int) -> Outputs | None:
    """What was said of prompts (P,), (P, E) texts; "" for those of which nothing was said.

    >>> in_place([None, ["too long"]], 1), in_place([None, None], 1)
    ((('',), ('too long',)), None)
    """
    if all(texts is None for texts in said):
        return None
    return tuple(("",) * n_examples if texts is None else tuple(texts) for texts in said)


def _example(example: Example, i: int) -> str:
    return example.source or f"{i} ({reprlib.repr(dict(example.fields))})"
