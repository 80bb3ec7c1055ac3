"""Where the prompt goes: a template turns an example into a `Query` with a gap for the prompt.

The prompt's place is the one `{prompt}`; the other fields are columns of the example. The answer
follows at the end of the text (causal and encoder-decoder models) or stands at `{mask}` (masked
models). Spaces around the prompt are handled as lm-eval's `_encode_pair` does it: a space right
before `{prompt}` belongs to the prompt's text and one at the very end to the answer's, since
byte-level tokenizers spell a word with the space before it. A line break stays where it is.

>>> Template("{text} {prompt}").fields
('text',)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter
from typing import Protocol

PROMPT, MASK = "prompt", "mask"


class Encoder(Protocol):
    """What a template needs of a tokenizer; `FrozenLM` has it."""

    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    mask_id: int | None

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text, without special tokens."""
        ...


@dataclass(frozen=True)
class Query:
    """An example with a gap where the prompt goes.

    >>> query = Query(head_ids=(1, 30, 31), tail_ids=(40,), candidates=((7,), (8, 9)))
    >>> query.n_text, query.n_answer  # a candidate's last token is predicted, never fed
    (4, 1)

    Attributes:
        head_ids: Ids before the prompt, leading special tokens included.
        tail_ids: Ids after the prompt, trailing special tokens included.
        candidates: Ids of each possible answer, at least one id each, (C,) of them; none where
            the model is to write the answer itself.
    """

    head_ids: tuple[int, ...]
    tail_ids: tuple[int, ...]
    candidates: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        """Refuse an answer of nothing."""
        if not all(self.candidates):
            raise ValueError(
                f"a query needs candidates of one token or more, got {self.candidates!r}"
            )

    @property
    def n_text(self) -> int:
        """Tokens around the prompt."""
        return len(self.head_ids) + len(self.tail_ids)

    @property
    def n_answer(self) -> int:
        """Tokens that the longest candidate adds to what the model is fed: all but its last."""
        return max(map(len, self.candidates)) - 1


@dataclass(frozen=True)
class Template:
    """A text with one `{prompt}`, the example's fields, and at most one `{mask}`.

    >>> template = Template("{text} {prompt} Mood:")
    >>> template.fields, template.prompt_text("In short,")
    (('text',), ' In short,')
    >>> template.answered({"text": "Great fun."}, " good")
    'Great fun. Mood: good'

    Args:
        text: Such as `"{text} {prompt}"` or `"{premise} {prompt} {hypothesis}"`. A literal brace
            is doubled, as in `str.format`.

    Raises:
        ValueError: `{prompt}` is missing or there twice, `{mask}` is there twice, a field has no
            name, or the braces do not match.
    """

    text: str
    fields: tuple[str, ...] = field(init=False)
    _parts: tuple[tuple[str, str | None], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Split the text at its fields."""
        try:
            parsed = list(Formatter().parse(self.text))
        except ValueError as error:
            raise ValueError(f"template {self.text!r}: {error}; double a literal brace") from None
        names = [name for _, name, _, _ in parsed if name is not None]
        for _, name, spec, conversion in parsed:
            if name is not None and (not name.isidentifier() or spec or conversion):
                raise ValueError(
                    f"template {self.text!r}: a field is a plain name such as {{text}}, got "
                    f"{name!r} with conversion {conversion!r} and format {spec!r}"
                )
        if names.count(PROMPT) != 1:
            raise ValueError(
                f"template {self.text!r} has {names.count(PROMPT)} {{prompt}}; "
                "it needs exactly one, where the searched prompt goes"
            )
        if names.count(MASK) > 1:
            raise ValueError(
                f"template {self.text!r} has {names.count(MASK)} {{mask}}; one at most"
            )
        parts = [(text, name) for text, name, _, _ in parsed]
        if parts[-1][1] is not None:
            parts.append(("", None))  # the end of the text, where an answer may follow
        object.__setattr__(self, "_parts", tuple(parts))
        others = dict.fromkeys(name for name in names if name not in (PROMPT, MASK))
        object.__setattr__(self, "fields", tuple(others))

    @property
    def masked(self) -> bool:
        """Whether the answer stands at `{mask}`."""
        return any(name == MASK for _, name in self._parts)

    @property
    def has_words(self) -> bool:
        """Whether it holds text of its own, and not only fields, prompt and mask."""
        return any(text.strip() for text, _ in self._parts)

    @property
    def prompt_prefix(self) -> str:
        """Spaces right before `{prompt}`, which the text of a written prompt takes along."""
        before = next(text for text, name in self._parts if name == PROMPT)
        return before[len(before.rstrip(" ")) :]

    def prompt_text(self, text: str) -> str:
        """A prompt written by hand, with the spaces that it takes along here."""
        text = text.strip() if self.prompt_prefix else text
        return self.prompt_prefix + text if text else ""

    @property
    def answer_prefix(self) -> str:
        """Spaces that the answer takes along: those before it, or one, or on a new line none."""
        last = len(self._parts) - 1
        end = next((i for i, (_, name) in enumerate(self._parts) if name == MASK), last)
        before = self._parts[end][0]
        text = before.rstrip(" ")
        on_new_line = text.endswith("\n") or (end == 0 and not text)
        return before[len(text) :] or ("" if on_new_line else " ")

    def leading(self) -> Template:
        """The same text with the prompt moved to the front, and no space after it.

        >>> Template("{text} {prompt} Mood:").leading().text
        '{prompt}{text} Mood:'
        """
        rest = ""
        for text, name in self._parts:
            rest += text.replace("{", "{{").replace("}", "}}")
            if name == PROMPT:
                rest = rest.rstrip(" ")
            elif name is not None:
                rest += f"{{{name}}}"
        return Template(f"{{{PROMPT}}}{rest.lstrip(' ')}")

    def answered(self, example: Mapping[str, str], answer: str) -> str:
        """The example's text without a prompt and with its answer, spaces before that included.

        >>> Template("{text} {prompt} Mood:").answered({"text": "Fun."}, " good")
        'Fun. Mood: good'
        """
        written = ""
        for text, name in self._parts:
            written += text
            if name in (PROMPT, MASK):
                written = written.rstrip(" ") + (answer if name == MASK else "")
            elif name is not None:
                written += example[name].strip()
        return written if self.masked else written.rstrip(" ") + answer

    def query(
        self,
        example: Mapping[str, str],
        encoder: Encoder,
        candidates: Sequence[Sequence[int]] = (),
    ) -> Query:
        """The example's ids around the gap.

        Args:
            example: A value for each of `fields`.
            encoder: The tokenizer, as `FrozenLM` gives it.
            candidates: Ids of each possible answer; none where the model is to write it.

        Raises:
            ValueError: A field is missing, or `{mask}` is used with a model that has no mask.
        """
        missing = [name for name in self.fields if name not in example]
        if missing:
            raise ValueError(
                f"template {self.text!r} needs the field {missing[0]!r}; "
                f"the example has {', '.join(map(repr, example))}"
            )
        if self.masked and encoder.mask_id is None:
            raise ValueError(
                f"template {self.text!r} has a {{mask}} but this model's tokenizer has none; "
                "leave it out: the answer follows at the end of the text"
            )
        sides: list[list[int]] = [list(encoder.prefix_ids), []]
        side, pending = 0, ""
        for text, name in self._parts:
            pending += text
            if name == PROMPT:
                sides[0].extend(encoder.encode(pending.rstrip(" ")))
                side, pending = 1, ""
            elif name == MASK:
                assert encoder.mask_id is not None
                sides[side].extend((*encoder.encode(pending.rstrip(" ")), encoder.mask_id))
                pending = ""
            elif name is not None:
                pending += example[name].strip()
        sides[side].extend(encoder.encode(pending.rstrip(" ")))
        sides[1].extend(encoder.suffix_ids)
        return Query(tuple(sides[0]), tuple(sides[1]), tuple(tuple(c) for c in candidates))
