"""Makes a task's examples fit a model: texts that are too long, or that cannot be spelt.

What a search would stumble over is found, and settled as the data's settings say, before anything
is paid for: `on_long_text` for texts that leave no room for prompt and answer, `on_bad_rows` for
those that cannot be spelt, as what the tokenizer takes for a control token whatever one does, and
for options that it spells alike. Prompt, template, answer and the options that a text shows are
never cut.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from rlprompt._utils.text import counted
from rlprompt.data.examples import Example, OnLongText, Splits, named, repeats
from rlprompt.data.options import lettered
from rlprompt.models.conventions import n_positions
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length, TokenPrompt
from rlprompt.tasks.base import Task
from rlprompt.types import SpellingError

Measure = Callable[[Sequence[Example]], list[tuple[int, int]]]
"""Of each example: tokens of its text around the prompt, and tokens fed of an answer."""


def fitted(
    task: Task, lm: FrozenLM, length: int | Length, prompts: Sequence[TokenPrompt] = ()
) -> Task:
    """The task with examples that leave room for its prompts.

    Args:
        task: A task of any class.
        lm: The model.
        length: Tokens of a searched prompt, exactly or in a range.
        prompts: Others that are to be scored; the hand-written one is among them.

    Raises:
        ValueError: An example does not fit, and is neither to be cut nor to be left out.
    """
    by_hand = [task.written(lm, task.hand_prompt)] if task.hand_prompt else []
    n_prompt = max(Length.of(length).at_most, *map(len, (*by_hand, *prompts)), 0)
    return task.fitted(lm, n_prompt)


def longest_text(task: Task, lm: FrozenLM) -> int | None:
    """Positions that a prompt has to share with the longest example of any split.

    Those of its answer are among them, but for an encoder-decoder, whose decoder counts for itself.
    None where the task does not say.
    """
    sizes = [task.lengths(lm, part) for part in task.splits.parts().values()]
    every = [size for part in sizes for size in part or ()]
    apart = lm.kind == "encoder-decoder"
    return None if None in sizes else max(text + answer * (not apart) for text, answer in every)


def room(task: Task, lm: FrozenLM) -> int | None:
    """Tokens that the longest example leaves for a prompt; None without a limit that is known."""
    longest = None if lm.context is None else longest_text(task, lm)
    return None if longest is None or lm.context is None else lm.context - longest


def check_room(task: Task, lm: FrozenLM, n_prompt: int) -> None:
    """Refuse an example of any split that leaves no room for a prompt of so many tokens.

    `fitted` has settled that for tasks with a template; others may say their `lengths` alone.

    Raises:
        ValueError: There is one. Test is scored last; a search must not end there.
    """
    for split, examples in task.splits.parts().items():
        sizes = None if lm.context is None else task.lengths(lm, examples)
        for example, size in zip(examples, sizes or (), strict=sizes is not None):
            if problem := _shortage(lm, split, example, size, n_prompt):
                raise ValueError(f"{problem}; shorten or remove it, or choose another model")


def _shortage(
    lm: FrozenLM, split: str, example: Example, size: tuple[int, int], n_prompt: int
) -> str:
    """What to say of an example that leaves no room for a prompt, or ""."""
    n_text, n_answer = size
    fed = n_positions(lm.kind, n_text + n_prompt, n_answer)
    if lm.context is None or fed <= lm.context:
        return ""
    return (
        f"the {split} example {briefly(example)} is too long: {n_text} tokens of text "
        f"+ {n_prompt} of prompt + {n_answer} of answer, and {lm.name} takes {lm.context}"
    )


def briefly(example: Example) -> str:
    """Where an example came from, or how it begins."""
    return example.source or f"{str(dict(example.fields))[:60]}..."


def fit(splits: Splits, lm: FrozenLM, measure: Measure, n_prompt: int) -> Splits:
    """Examples that a model can be given: the same object where all of them are such.

    Args:
        splits: The examples, with what to do about others.
        lm: The model.
        measure: Measures examples; raises `SpellingError` for one that cannot be spelt.
        n_prompt: Tokens of the longest prompt.

    Raises:
        ValueError: As for `fitted`, or none is left of a split.
    """
    fitting = _Fitting(splits, lm, measure, n_prompt)
    parts: dict[str, Any] = {
        name: tuple(fitting.kept(name, part)) for name, part in splits.parts().items()
    }
    if fitting.long and splits.on_leak == "error":
        parts |= fitting.apart(parts)
    notes = fitting.notes()
    if not notes:
        return splits
    return replace(splits, **parts, notes=(*splits.notes, *notes), cut_for=fitting.cut_for)


class _Fitting:
    """One call of `fit`, with account of what is left out and cut."""

    def __init__(self, splits: Splits, lm: FrozenLM, measure: Measure, n_prompt: int) -> None:
        self.splits, self.lm, self.measure, self.n_prompt = splits, lm, measure, n_prompt
        self.bad: list[str] = []
        self.long: list[str] = []
        self.cut_for = splits.cut_for

    def kept(self, split: str, examples: Sequence[Example]) -> Iterator[Example]:
        """The examples as the model can be given them."""
        try:
            sizes = self.measure(examples)
        except SpellingError:
            # One by one it is known which.
            found = (self._example(split, example) for example in examples)
        else:
            pairs = zip(examples, sizes, strict=True)
            found = (self._example(split, example, size) for example, size in pairs)
        yield from (example for example in found if example is not None)

    def _example(
        self, split: str, example: Example, size: tuple[int, int] | None = None
    ) -> Example | None:
        """The example as the model can be given it, or None."""
        try:
            size = size or self.measure([example])[0]
        except SpellingError as error:
            where, what = example.where(split), str(error)
            what = what if where in what else f"{where}: {what}"
            if self.splits.on_bad_rows == "error":
                raise ValueError(
                    f"{what}; mend the text, or set on_bad_rows: skip to leave it out"
                ) from None
            self.bad.append(what)
            return None
        problem = _shortage(self.lm, split, example, size, self.n_prompt)
        if not problem:
            return example
        if self.splits.on_long_text == "error":
            raise ValueError(
                f"{problem}; shorten or remove it, choose another model, or set on_long_text to "
                "skip, truncate-start, truncate-end or truncate-middle"
            )
        self.long.append(briefly(example))
        return None if self.splits.on_long_text == "skip" else self._cut(split, example)

    def _cut(self, split: str, example: Example) -> Example:
        """The example with as much of its longest field, or fields, as fits."""
        self.cut_for = max(self.cut_for, self.n_prompt)

        def fits(fields: Mapping[str, str]) -> bool:
            return self._fits(replace(example, fields=fields))

        # A text without an option would ask for what it does not show.
        shown = lettered(example.options)
        whole = [name for name, text in example.fields.items() if shown and text.strip() == shown]
        if (fields := cut(example.fields, self.splits.on_long_text, fits, whole)) is not None:
            return replace(example, fields=fields)
        parts = ["the template", *["the options"] * bool(whole)]
        raise ValueError(
            f"the {split} example {briefly(example)} is too long even without its text: "
            f"{', '.join(parts)}, {counted(self.n_prompt, 'token')} of prompt and the answer take "
            f"more than the {self.lm.context} tokens of {self.lm.name}; shorten them, or choose "
            "another model"
        )

    def apart(
        self, parts: Mapping[str, Sequence[Example]]
    ) -> Iterator[tuple[str, tuple[Example, ...]]]:
        """The splits, told or rid of examples that nothing but cutting made those of another."""
        left_out = set[int]()
        for (name, example), (first_name, first) in repeats(parts):
            if name == first_name:
                continue
            how = self.splits.on_long_text
            what = (
                f"{briefly(example)} repeats {briefly(first)} ({first_name}) once texts are cut "
                f"({how}) to fit the {self.lm.context} tokens that {self.lm.name} takes"
            )
            if self.splits.on_bad_rows == "error":
                ways = [way for way in get_args(OnLongText) if way not in ("error", how)]
                raise ValueError(
                    f"{what}; set on_long_text: {' or '.join(ways)}, on_bad_rows: skip to leave it "
                    "out, or on_leak: allow; or shorten the text before or after what sets it apart"
                )
            self.bad.append(what)
            left_out.add(id(example))
        for name, examples in parts.items():
            yield name, tuple(one for one in examples if id(one) not in left_out)

    def _fits(self, example: Example) -> bool:
        try:
            size = self.measure([example])[0]
            return not _shortage(self.lm, "", example, size, self.n_prompt)
        except SpellingError:  # where two ends meet
            return False

    def notes(self) -> list[str]:
        """What was done, a sentence each."""
        found = []
        if self.bad:
            found.append(named(self.bad, "row was left out", "rows were left out"))
        if self.long:
            skipped = self.splits.on_long_text == "skip"
            done = "left out" if skipped else f"cut ({self.splits.on_long_text})"
            why = f"to fit the {self.lm.context} tokens that {self.lm.name} takes"
            one, many = f"text too long was {done} {why}", f"texts too long were {done} {why}"
            found.append(named(self.long, one, many))
        return found


def cut(
    fields: Mapping[str, str],
    how: str,
    fits: Callable[[Mapping[str, str]], bool],
    whole: Collection[str] = (),
) -> dict[str, str] | None:
    """Texts with as much of the longest one, or ones, as fits; None where nothing does.

    >>> cut({"text": "abcdef"}, "truncate-end", lambda fields: len(fields["text"]) < 3)
    {'text': 'ab'}

    Args:
        fields: The texts of an example.
        how: As for `shortened`.
        fits: Whether a model can be given such texts.
        whole: Those that are not cut.
    """
    made = dict(fields)
    for name in sorted(made, key=lambda name: -len(made[name])):
        if name in whole:
            continue
        text, shortest, longest = made[name], 0, len(made[name])
        while shortest < longest:  # of characters, the most that fit
            middle = (shortest + longest + 1) // 2
            made[name] = shortened(text, middle, how)
            if fits(dict(made)):
                shortest = middle
            else:
                longest = middle - 1
        made[name] = shortened(text, shortest, how)
        if shortest and fits(dict(made)):
            return made
    return None


def shortened(text: str, n_characters: int, how: str) -> str:
    """So many characters of a text.

    >>> [shortened("abcdef", 3, f"truncate-{where}") for where in ("start", "end", "middle")]
    ['def', 'abc', 'abf']

    Args:
        text: The text.
        n_characters: How many are kept.
        how: Which end goes, or the middle, as in LongBench (Bai et al. 2023, arXiv 2308.14508).
    """
    n_last = n_characters if how == "truncate-start" else 0
    n_last = n_characters // 2 if how == "truncate-middle" else n_last
    first, last = text[: n_characters - n_last], text[len(text) - n_last :]
    return (first + last).strip()
