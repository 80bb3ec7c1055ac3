"""Tasks whose prompts stand in a template: how their texts, prompts and answers become tokens."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from rlprompt.data.examples import Example
from rlprompt.data.row_to_example import MissingColumnError
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import EmbeddedPrompt, Prompt, SoftPrompt, TextPrompt, TokenPrompt
from rlprompt.tasks.base import Task, variant
from rlprompt.tasks.class_scores import check_slope, has_slope
from rlprompt.tasks.fitting import fit
from rlprompt.tasks.showing import demonstration
from rlprompt.template import SEPARATOR, Query, Template
from rlprompt.types import Floats, Ids, Loss

# Train examples around which a prompt is typed to see whether that gives its tokens again.
TYPED_EXAMPLES = 32
# Label words that are typed behind each of them, where there are more.
MOST_WORDS = 8


class TemplateTask(Task):
    """A task with a template.

    Attributes:
        template: Where text, prompt and answer go.
    """

    if TYPE_CHECKING:

        @property
        def template(self) -> Template: ...  # noqa: D102

        def lengths(self, lm: FrozenLM, examples: Sequence[Example]) -> list[tuple[int, int]]: ...  # noqa: D102

    def queries(self, lm: FrozenLM, examples: Sequence[Example]) -> list[Query]:
        """The examples as the model sees them."""
        return [self.template.query(example.fields, lm) for example in examples]

    def check_mask(self, lm: FrozenLM) -> None:
        """Refuse a masked model whose answer has no place.

        Raises:
            ValueError: The model is a masked one and the template has no `{mask}`.
        """
        if lm.kind == "masked" and not self.template.masked:
            raise ValueError(
                f"{lm.name} is a masked model: the template needs a {{mask}} where the answer "
                f"goes, such as '{self.template.text} {{mask}} .'"
            )

    def fitted(self, lm: FrozenLM, n_prompt: int) -> Self:
        """See `Task.fitted`."""
        splits = fit(self.splits, lm, partial(self.lengths, lm), n_prompt)
        return self if splits is self.splits else variant(self, splits=splits) or self

    def read_train(self, lm: FrozenLM) -> None:
        """See `Task.read_train`."""
        lm.keep(self.queries(lm, self.splits.train))

    def written(self, lm: FrozenLM, text: str) -> TokenPrompt:
        """The prompt that a text makes in this template."""
        return self.spelt(lm, self.placed(lm, text))

    def placed(self, lm: FrozenLM, text: str) -> str:
        """See `Task.placed`: with the template's space before it."""
        return self.template.on(lm).prompt_text(text)

    def spelt(self, lm: FrozenLM, text: str) -> TokenPrompt:
        """See `Task.spelt`."""
        return TokenPrompt(self.template.prompt_ids(lm, text))

    @property
    def leads(self) -> bool:
        """Whether the prompt stands before all text, where it can show examples."""
        return not self.template.messages and not self.template.sides()[0]

    def leading(self, **changes: object) -> Self | None:
        """The task with the prompt before all text, and other settings with it; maybe itself.

        None where that cannot be: of a chat the prompt stays in its message, and a person's own
        class may not let itself be changed.
        """
        if self.template.messages:
            return None
        changes["template"] = self.template.leading()
        if all(getattr(self, name) == value for name, value in changes.items()):
            return self
        return variant(self, **changes)

    def has(self, hook: str) -> bool:
        """See `Task.has`: examples are shown only with answers."""
        none = type(self).answer_shown is TemplateTask.answer_shown
        return super().has(hook) and not (none and hook in ("showable", "shown"))

    def answer_shown(self, example: Example) -> str:
        """The answer of an example that is shown; "" where it cannot be, which is the default."""
        return ""

    def showable(self) -> Sequence[int]:
        """See `Task.showable`: those with an answer, where the prompt stands before all text."""
        if not self.leads:
            return ()
        return [i for i, one in enumerate(self.splits.train) if self.answer_shown(one)]

    def shown(self, places: Sequence[int], before: str = "") -> str:
        """See `Task.shown`: each in the template, and an empty line behind each."""
        if not places:
            return before
        train = self.splits.train
        pieces = [
            demonstration(self.template, train[i], self.answer_shown(train[i])) for i in places
        ]
        # Line breaks of the template's own that follow the prompt come between examples once.
        rest = self.template.sides()[1]
        own = rest[: len(rest) - len(rest.lstrip("\n"))]
        text = "".join(piece.lstrip("\n") for piece in pieces)
        return (before and before + SEPARATOR) + text.removesuffix(own[: len(SEPARATOR)])

    def shows(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> NDArray[np.bool_]:
        """Which examples of train each prompt shows with their answers, (P, E), whoever made it.

        Told by the text, up to case and white space, which tokenizers do not all keep. An example
        that stands nowhere but inside a longer one is not shown. `examples` are the very ones of
        `splits.train`.
        """
        if not self.leads:
            return np.zeros((len(prompts), len(examples)), bool)
        found = whole_within([_text(lm, prompt) for prompt in prompts], self._demonstrations)
        places = {id(example): i for i, example in enumerate(self.splits.train)}
        return found[:, [places[id(example)] for example in examples]]

    @cached_property
    def _demonstrations(self) -> list[str]:
        """(T,) train examples as they are shown, `_bare`; "" for one without an answer."""
        return [
            _bare(demonstration(self.template, one, answer))[0]
            if (answer := self.answer_shown(one))
            else ""
            for one in self.splits.train
        ]

    def spelling_warnings(self, lm: FrozenLM) -> Iterator[str]:
        """See `Task.spelling_warnings`."""
        own = self.template.on(lm)
        if not own.bare and (frame := own.frame(lm)) != (lm.prefix_ids, lm.suffix_ids):
            wanted = zip((lm.prefix_ids, lm.suffix_ids), frame, strict=True)
            written = lm.decode([i for ids, put in wanted if not put for i in ids])
            yield (
                f"the template writes {written}, which the tokenizer of {lm.name} adds to every "
                "text anyway: it is put there once"
            )
        if self.template.messages and lm.is_dated(self.template.messages):
            yield (
                f"the chat template of {lm.name} writes today's date, so another day's scores are "
                "of another text, in a study that goes on as well: write a system message of your "
                "own where that leaves the date out, or a template without it into the model's "
                "folder"
            )
        text = own.prompt_text(self.hand_prompt or "It was")
        prompt = self.spelt(lm, text).ids
        answers: list[tuple[str, Ids]] = [("", ())]
        if lm.kind == "causal" and (report := self.label_word_report(lm)):
            answers += [(word.text, word.ids) for word in report.words[:MOST_WORDS]]
        joined, examples = [], self.splits.train[:TYPED_EXAMPLES]
        for example in examples:
            query = own.query(example.fields, lm)
            for spelt, ids in answers:
                whole = query.head_ids + prompt + query.tail_ids + ids
                if self.template.typed(example.fields, lm, text, spelt) != whole:
                    joined.append(f"the answer {spelt!r}" if spelt else f"the prompt {text!r}")
                    break
        if joined:
            yield (
                f"in {len(joined)} of {len(examples)} train examples the tokenizer would join "
                f"letters across two parts if the text were typed as one, first at {joined[0]}; "
                "here parts are tokenised apart (as in lm-eval), so put a space or a line break "
                "between them"
            )

    def described(self, lm: FrozenLM, prompt: TokenPrompt) -> tuple[str, bool]:
        """See `Task.described`: typed around the texts of train."""
        text = self.template.prompt_shown(lm, prompt.ids)
        if self.written(lm, text) != prompt:
            return text, False
        own = self.template.on(lm)
        typed = own.prompt_text(text)
        for example in self.splits.train[:TYPED_EXAMPLES]:
            query = own.query(example.fields, lm)
            in_place = query.head_ids + prompt.ids + query.tail_ids
            if self.template.typed(example.fields, lm, typed) != in_place:
                return text, False
        return text, True


class ChoosingTask(TemplateTask):
    """A task with a template in which the model chooses among a query's candidates.

    Attributes:
        reward: What is made of the scores, one of `REWARDS`.
    """

    if TYPE_CHECKING:

        @property
        def reward(self) -> str: ...  # noqa: D102

        def with_grad(
            self,
            loss: Loss,
            lm: FrozenLM,
            prompts: Sequence[SoftPrompt],
            examples: Sequence[Example],
        ) -> tuple[Floats, NDArray[np.float32]]:
            """Rewards (P, E), and the gradient (P, *shape of its vectors) of a mean."""
            ...

    def has(self, hook: str) -> bool:
        """See `Task.has`: of a reward that is flat, no gradient."""
        return super().has(hook) and (hook != "rewards_with_grad" or has_slope(self.reward))

    def lengths(self, lm: FrozenLM, examples: Sequence[Example]) -> list[tuple[int, int]]:
        """See `Task.lengths`."""
        return [(query.n_text, query.n_answer) for query in self.queries(lm, examples)]

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        """See `Task.rewards`."""
        return self.measure(lm, prompts, examples).rewards

    def rewards_with_grad(
        self, lm: FrozenLM, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, NDArray[np.float32]]:
        """See `Task.rewards_with_grad`.

        Raises:
            ValueError: The reward is `accuracy`, which has no gradient.
        """
        check_slope(self.reward)
        return self.with_grad("reward", lm, prompts, examples)

    def cross_entropy_with_grad(
        self, lm: FrozenLM, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, NDArray[np.float32]]:
        """See `Task.cross_entropy_with_grad`: of the right one among the candidates."""
        return self.with_grad("cross_entropy", lm, prompts, examples)


def _text(lm: FrozenLM, prompt: Prompt) -> str:
    """How a prompt reads; vectors as nothing, but for those that tokens are fed as."""
    if isinstance(prompt, TextPrompt):
        return prompt.text
    return lm.decode(prompt.ids) if isinstance(prompt, TokenPrompt | EmbeddedPrompt) else ""


def whole_within(texts: Sequence[str], pieces: Sequence[str]) -> NDArray[np.bool_]:
    """Which pieces stand in each text as a whole, (T, P), whatever its case and white space.

    One does not where it begins or ends inside a word, where it is only part of a longer piece that
    stands there, or where it is empty. Pieces have neither capitals nor white space.

    >>> whole_within(["Such  a film is GOOD"], ["afilm", "film", "fil", "good", ""]).tolist()
    [[True, False, False, True, False]]
    """
    found = np.zeros((len(texts), len(pieces)), bool)
    for row, text in zip(found, texts, strict=True):
        own, borders = _bare(text)
        places = [set(_places(piece, own, borders)) for piece in pieces]
        longest, reach = set(), 0
        for start, end in sorted(set().union(*places), key=lambda place: (place[0], -place[1])):
            if end > reach:  # or it lies inside one that begins no later
                longest.add((start, end))
                reach = end
        row[:] = [bool(here & longest) for here in places]
    return found


def _places(piece: str, text: str, borders: Collection[int]) -> Iterator[tuple[int, int]]:
    """Where a piece begins and ends in a text, both of them borders."""
    start = text.find(piece) if piece else -1
    while start >= 0:
        if start in borders and (end := start + len(piece)) in borders:
            yield start, end
        start = text.find(piece, start + 1)


def _bare(text: str) -> tuple[str, set[int]]:
    """A text without case and white space, and the places in it that are inside no word."""
    bare, borders = "", {0}
    for part in re.findall(r"\w+|[^\w\s]", text.casefold()):
        bare += part
        borders.add(len(bare))
    return bare, borders


@contextmanager
def columns_read(
    template: Template, text: str | Sequence[str] | Mapping[str, str] | None
) -> Iterator[Sequence[str] | Mapping[str, str]]:
    """The column for each field of a template, to read data by.

    Raises:
        ValueError: A field has no column, or a column no field; or, of the data, that a field which
            is to be a column is none, with what to write.
    """
    try:
        yield columns(template, text)
    except MissingColumnError as error:
        row = error.row
        if text is not None or error.column not in template.fields or not row:
            raise
        near = difflib.get_close_matches(error.column, row, 1)
        # Of columns that are there the text is most likely the one that has most of it.
        column = near[0] if near else max(row, key=lambda name: len(str(row[name])))
        ways = [f"write {{{column}}}"] if column.isidentifier() else []
        if len(template.fields) == 1:
            named = column if error.column == "text" else f"{{{error.column}: {column}}}"
            ways.append(f"`text: {named}`")
        else:
            ways.append(f"`text:` with a column for each of {', '.join(template.fields)}")
        raise ValueError(
            f"{error}; the template's {{{error.column}}} asks for it: {', or '.join(ways)}"
        ) from None


def columns(
    template: Template, text: str | Sequence[str] | Mapping[str, str] | None
) -> Sequence[str] | Mapping[str, str]:
    """The column for each field of a template.

    Raises:
        ValueError: A field has no column, or a column no field.
    """
    if text is None:
        return template.fields
    if isinstance(text, str):
        if len(template.fields) != 1:
            raise ValueError(
                f"the template has the fields {', '.join(template.fields) or '(none)'}; say which "
                f"column is which: text: {{field: column}}, not {text!r}"
            )
        (field,) = template.fields
        if field not in ("text", text):
            raise ValueError(
                f"the template has the field {field!r}, and text names the column {text!r}: is one "
                f"of them misspelt? If not, set `text: {{{field}: {text}}}`"
            )
        return {field: text}
    named = dict(text) if isinstance(text, Mapping) else {column: column for column in text}
    if set(named) != set(template.fields):
        raise ValueError(
            f"text names the fields {', '.join(named)} and the template has "
            f"{', '.join(template.fields) or 'none'}; they must be the same"
        )
    return named
