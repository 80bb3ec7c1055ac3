"""Where the prompt goes: a template turns an example into a `Query` with a gap for the prompt.

The prompt's place is the one `{prompt}`; the other fields are columns of the example. The answer
follows at the end of the text (causal models), stands at `{mask}` (masked models), or is a text of
its own (encoder-decoders; T5 fills a `{mask}`). A space right before `{prompt}` belongs to the
prompt's text and one at the very end to the answer's, as in lm-eval's `_encode_pair`, since most
tokenizers spell a word with the space before it. A line break stays where it is.

A text is tokenised as a whole: `Template.query` gives every piece the ids that it has in its place
in the whole text, where a tokenizer joins nothing across their borders. Text that follows a prompt
in front without a space between, as in `{prompt}{text}`, begins as behind an empty line: such a
prompt shows examples, or is empty. In fields, what looks like a control token is text.

>>> Template("{text} {prompt}").fields
('text',)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from string import Formatter
from typing import Literal

from rlprompt._utils.chats import Message, as_json, messages_of
from rlprompt._utils.scripts import is_unspaced, stands_close
from rlprompt.types import ANY, AnswerSpace, Encoder, Ids, ModelKind, Piece, checked_space

PROMPT, MASK = "prompt", "mask"
ASSISTANT = "assistant"
# Between examples that a prompt shows, as lm-eval's `fewshot_delimiter`; it ends an answer, too.
SEPARATOR = "\n\n"
# Signs that belong to the word before them, and the end.
FOLLOWING = ("", *".,:;!?)]}")

TemplateText = str | Mapping[str, str] | Sequence[Mapping[str, str]]
"""A text with `{prompt}`, or the messages of a chat: role to content, or a list of such."""

_Kind = Literal["field", "written"]

# Stands for a field where a chat template is asked what it makes of a message.
_FIELD = "\ue000{}\ue001"


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
                f"every candidate of a query needs one token or more, got {self.candidates!r}"
            )

    @property
    def n_text(self) -> int:
        """Tokens around the prompt."""
        return len(self.head_ids) + len(self.tail_ids)

    @property
    def n_answer(self) -> int:
        """Tokens that the longest candidate adds to what the model is fed: all but its last."""
        return max(map(len, self.candidates)) - 1


def literal(text: str) -> str:
    """A text as a template holds it: its braces are doubled, and so name no field.

    >>> Template(literal("f'{x}' ") + "{prompt}").answered({}, "")
    "f'{x}'"
    """
    return text.replace("{", "{{").replace("}", "}}")


@dataclass(frozen=True)
class Template:
    """A text with one `{prompt}`, the example's fields, and at most one `{mask}`.

    >>> template = Template("{text} {prompt} Mood:")
    >>> template.fields, template.prompt_text("In short,")
    (('text',), ' In short,')
    >>> template.answered({"text": "Great fun."}, " good")
    'Great fun. Mood: good'

    Of a chat, `Template.of` makes one, whose text is the messages as JSON:

    >>> Template.of({"system": "{prompt}", "user": "{text}"}).messages[0]
    Message(role='system', content='{prompt}')

    Args:
        text: Such as `"{text} {prompt}"` or `"{premise} {prompt} {hypothesis}"`. A literal brace
            is doubled, as in `str.format`.
        answer_space: What stands between the text and a label word that brings no white space:
            `" "`, `""` or other white space, or `auto`. That takes the spaces at the text's end;
            else none after a line break, an opening bracket or quote, the header of a chat's
            answer, in a script that writes no spaces (Chinese, Japanese, Thai, ...) and in a
            decoder, whose text begins with the answer; else one.
        bare: Whether the text holds all special tokens itself, as a rendered chat does.

    Raises:
        ValueError: `{prompt}` is missing or there twice, `{mask}` is there twice, a field has no
            name, the braces do not match, or `answer_space` is something else.
    """

    text: str
    answer_space: AnswerSpace = "auto"
    bare: bool = False
    fields: tuple[str, ...] = field(init=False)
    messages: tuple[Message, ...] = field(init=False, repr=False, compare=False)
    _parts: tuple[tuple[str, str | None], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Split the text at its fields."""
        checked_space(self.answer_space)
        messages = messages_of(self.text)
        parts: list[tuple[str, str | None]] = []
        for text in [message.content for message in messages] or [self.text]:
            parts += _parse(text)
        names = [name for _, name in parts if name is not None]
        if names.count(PROMPT) != 1:
            raise ValueError(
                f"template {self.text!r} has {names.count(PROMPT)} {{prompt}}; "
                "it needs exactly one, where the searched prompt goes"
            )
        if names.count(MASK) > 1:
            raise ValueError(
                f"template {self.text!r} has {names.count(MASK)} {{mask}}; give one at most"
            )
        if parts[-1][1] is not None:
            parts.append(("", None))  # the end of the text, where an answer may follow
        object.__setattr__(self, "messages", messages)
        object.__setattr__(self, "_parts", tuple(parts))
        others = dict.fromkeys(name for name in names if name not in (PROMPT, MASK))
        object.__setattr__(self, "fields", tuple(others))

    @classmethod
    def of(cls, source: TemplateText, answer_space: AnswerSpace = "auto") -> Template:
        """A template of a text, or of the messages of a chat.

        Args:
            source: A text; role to content, such as `{"system": "{prompt}", "user": "{text}"}`; or
                a list of such mappings, or of `{"role": ..., "content": ...}`, for prior turns. A
                last message of the assistant is how its answer begins.
            answer_space: As for the class.

        Raises:
            ValueError: As for the class, or a message is no role with a text.
        """
        return cls(source if isinstance(source, str) else as_json(source), answer_space)

    def on(self, encoder: Encoder) -> Template:
        """The template as a text: a chat as the tokenizer's own template writes it.

        Raises:
            ValueError: The tokenizer has no template for chats, or that refuses this one.
        """
        return _rendered(self, encoder.chat(_marked(self))) if self.messages else self

    @property
    def masked(self) -> bool:
        """Whether the answer stands at `{mask}`."""
        return any(name == MASK for _, name in self._parts)

    @property
    def has_words(self) -> bool:
        """Whether it holds text of its own, and not only fields, prompt and mask."""
        return bool(self.messages) or any(text.strip() for text, _ in self._parts)

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
        """Spaces that an answer in the text takes along: see `answer_space`."""
        if self.answer_space != "auto":
            return self.answer_space
        usual = self._usual_prefix
        return "" if usual == " " and stands_close(self._before_answer) else usual

    @property
    def _before_answer(self) -> str:
        """The template's own text right before the answer."""
        last = len(self._parts) - 1
        end = next((i for i, (_, name) in enumerate(self._parts) if name == MASK), last)
        # What follows a field is told from what begins the text.
        return ("\ufffc" if end else "") + self._parts[end][0]

    @property
    def _usual_prefix(self) -> str:
        """The spaces before the answer, or one, or on a new line none."""
        before = self._before_answer
        text = before.rstrip(" ")
        return before[len(text) :] or ("" if text.endswith("\n") or not text else " ")

    def answer_text(self, word: str, kind: ModelKind = "causal") -> str:
        """A label word as it follows the text, unless it brings its own space.

        >>> Template("{text} {prompt}").answer_text("good")
        ' good'

        Args:
            word: The word, not empty.
            kind: Of the model that answers.
        """
        if word[0].isspace():
            return word.rstrip()
        prefix = self.answer_prefix
        decoded = kind == "encoder-decoder" and not self.masked
        if self.answer_space == "auto" and (decoded or is_unspaced(word[0])):
            prefix = ""
        return (prefix + word).rstrip()

    def changes(self, words: Sequence[str] = ()) -> tuple[str, ...]:
        """What enters hashes besides the text: how answers are spelt, if not as ever before."""
        if self.messages:
            return () if self.answer_space == "auto" else (self.answer_space,)
        usual = [word if word[0].isspace() else self._usual_prefix + word for word in words]
        spelt = [self.answer_text(word) for word in words]
        return () if spelt == [word.rstrip() for word in usual] else tuple(spelt)

    def leading(self) -> Template:
        """The same text with the prompt moved to the front, and no space after it.

        >>> Template("{text} {prompt} Mood:").leading().text
        '{prompt}{text} Mood:'
        """
        rest = ""
        for text, name in self._parts:
            rest += literal(text)
            if name == PROMPT:
                rest = rest.rstrip(" ")
            elif name is not None:
                rest += f"{{{name}}}"
        return Template(f"{{{PROMPT}}}{rest.lstrip(' ')}", self.answer_space)

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
        *,
        written: bool = False,
    ) -> Query:
        """The example's ids around the gap: what they are in the whole text.

        Args:
            example: A value for each of `fields`.
            encoder: The tokenizer, as `FrozenLM` gives it.
            candidates: Ids of each possible answer (`answer_ids`); none where the model is to
                write it.
            written: Whether a model wrote fields: what cannot be spelt of them is left out.

        Raises:
            ValueError: A field is missing, `{mask}` is used with a model that has no mask, or a
                field holds what the tokenizer always takes for a control token.
        """
        own = self.on(encoder)
        head, tail = own._around(encoder, example, "written" if written else "field")
        start, end = own._frame(encoder, head, tail)
        if own.masked and encoder.kind == "encoder-decoder" and encoder.mask_id not in head + tail:
            raise ValueError(
                f"this model's tokenizer loses the {{mask}} of template {self.text!r}; leave "
                "{mask} out, so that the answer follows at the end of the text"
            )
        return Query(start + head, tail + end, tuple(tuple(c) for c in candidates))

    def prompt_ids(self, encoder: Encoder, text: str) -> Ids:
        """Ids of exactly this text, spaces and all, where prompts stand."""
        before, _ = self.on(encoder)._sides(encoder)
        return encoder.spell([Piece(text)], before)

    def prompt_shown(self, encoder: Encoder, ids: Ids) -> str:
        """The text of a prompt's ids where prompts stand."""
        own = self.on(encoder)
        return encoder.decode(ids, encoder.spell(own._sides(encoder)[0]))

    def answer_ids(self, encoder: Encoder, text: str, *, plain: bool = False, end: str = "") -> Ids:
        """Ids of an answer's text (`answer_text`), which are the same for all examples.

        Args:
            encoder: The tokenizer.
            text: The answer.
            plain: Whether what looks like a control token in it is text, as in a field.
            end: What follows it, spelt as a part of it.
        """
        answer = [Piece(text, "field" if plain else "own"), Piece(end)]
        if encoder.kind == "encoder-decoder":
            gap = [Piece(encoder.mask_token)] if self.masked else []
            return encoder.spell(answer, gap)
        before, after = self.on(encoder)._sides(encoder)
        context = [*before, ANY, *after]
        mask = Piece(encoder.mask_token)
        if self.masked and mask in context:
            context = context[: context.index(mask)]
        return encoder.spell(answer, context, cut=True)

    def typed(
        self, example: Mapping[str, str], encoder: Encoder, prompt: str, answer: str = ""
    ) -> Ids:
        """Ids of the whole text with a written prompt and an answer, typed at once.

        Args:
            example: A value for each of `fields`.
            encoder: The tokenizer.
            prompt: Exactly what stands in the prompt's place.
            answer: What follows the text, of a causal model.
        """
        if self.messages:  # the chat template may change what is typed, such as its ends
            chat = re.split(_FIELD.format(r"(\w+)"), encoder.chat(_marked(self, prompt)))
            pieces = [Piece(text) for text in chat]
            pieces[1::2] = [Piece(example[name].strip(), "field") for name in chat[1::2]]
            _strip(pieces)
            return encoder.spell([*pieces, Piece(answer)])
        before, after = self._sides(encoder, example)
        head = encoder.spell(before)
        ids = encoder.spell([*before, Piece(prompt), *after, Piece(answer)])
        start, end = self._frame(encoder, head or ids, ids)
        return start + ids + end

    def frame(self, encoder: Encoder) -> tuple[Ids, Ids]:
        """Special tokens to put around the text: what the tokenizer wants, unless it is there."""
        own = self.on(encoder)
        return own._frame(encoder, *own._around(encoder))

    @property
    def head_is_fixed(self) -> bool:
        """Whether no field of the example stands before the prompt."""
        names = [name for _, name in self._parts]
        return all(name in (None, MASK) for name in names[: names.index(PROMPT)])

    @property
    def begins_anew(self) -> bool:
        """Whether text follows a prompt in front at once, and so begins as behind an empty line.

        Not signs as in `{prompt}: {text}`, which belong to the word that they follow.
        """
        before, after = self.sides()
        return not before and after[:1] not in FOLLOWING and not after[:1].isspace()

    def sides(self) -> tuple[str, str]:
        """What stands before and after the prompt, as format strings that name the `{mask}`."""
        found, side = ["", ""], 0
        for text, name in self._parts:
            found[side] += literal(text)
            if name in (PROMPT, MASK):
                found[side] = found[side].rstrip(" ")
            side = 1 if name == PROMPT else side
            found[side] += f"{{{name}}}" if name not in (None, PROMPT) else ""
        return found[0], found[1].rstrip(" ")

    def _frame(self, encoder: Encoder, head: Ids, tail: Ids) -> tuple[Ids, Ids]:
        """Special tokens to put around a text that begins and ends so: none that is there."""
        start, end = encoder.prefix_ids, encoder.suffix_ids
        if self.bare or head[: len(start)] == start:
            start = ()
        if self.bare or tail[len(tail) - len(end) :] == end:
            end = ()
        return start, end

    def _around(
        self, encoder: Encoder, example: Mapping[str, str] | None = None, kind: _Kind = "field"
    ) -> tuple[Ids, Ids]:
        """Ids before and after the prompt, whatever that is."""
        before, after = self._sides(encoder, example, kind)
        # Behind a letter WordPiece and Unigram would go on with its word.
        prompt = [ANY, Piece(SEPARATOR)] if self.begins_anew else [ANY]
        return encoder.spell(before), encoder.spell(after, prompt)

    def _sides(
        self, encoder: Encoder, example: Mapping[str, str] | None = None, kind: _Kind = "field"
    ) -> tuple[list[Piece], list[Piece]]:
        """The pieces before and after the prompt; without an example, whatever it says."""
        if example is not None and (missing := [f for f in self.fields if f not in example]):
            raise ValueError(
                f"template {self.text!r} needs the field {missing[0]!r}; "
                f"the example has {', '.join(map(repr, example))}"
            )
        if self.masked and encoder.mask_id is None:
            raise ValueError(
                f"template {self.text!r} has a {{mask}} but this model's tokenizer has none; "
                "leave {mask} out, so that the answer follows at the end of the text"
            )
        sides: list[list[Piece]] = [[], []]
        own = sides[0]
        for text, name in self._parts:
            own.append(Piece(text))
            if name == PROMPT:
                _strip(own)
                own = sides[1]
            elif name == MASK:
                _strip(own)
                own.append(Piece(encoder.mask_token))
            elif name is not None:
                own.append(ANY if example is None else Piece(example[name].strip(), kind))
        _strip(own)
        return sides[0], sides[1]


def _parse(text: str) -> list[tuple[str, str | None]]:
    """Literal texts, each with the field after it."""
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"template {text!r}: {error}; write a literal brace twice") from None
    for _, name, spec, conversion in parsed:
        if name is not None and (not name.isidentifier() or spec or conversion):
            raise ValueError(
                f"template {text!r}: a field is a plain name such as {{text}}, got "
                f"{name!r} with conversion {conversion!r} and format {spec!r}"
            )
    return [(before, name) for before, name, _, _ in parsed]


def _strip(pieces: list[Piece]) -> None:
    """Drop the spaces at the end, which belong to what follows."""
    while pieces and pieces[-1].kind != "any":
        last = pieces.pop()
        if text := last.text.rstrip(" "):
            pieces.append(last._replace(text=text))
            return


def _marked(template: Template, prompt: str | None = None) -> tuple[Message, ...]:
    """The messages with marks for fields, or with a prompt, and without doubled braces."""
    known = {} if prompt is None else {PROMPT: prompt}
    return tuple(
        Message(
            role,
            "".join(
                text + ("" if name is None else known.get(name, _FIELD.format(name)))
                for text, name in _parse(content)
            ),
        )
        for role, content in template.messages
    )


@lru_cache(maxsize=256)
def _rendered(template: Template, chat: str) -> Template:
    """The template of a chat that was rendered with marks for its fields."""
    text = literal(chat)
    lost = [name for name in (PROMPT, *template.fields) if _FIELD.format(name) not in text]
    if lost or text.count(_FIELD.format(PROMPT)) > 1:
        what = f"leaves {{{lost[0]}}} out" if lost else "repeats {prompt}"
        raise ValueError(
            f"the tokenizer's chat template {what} when it renders {template.text}; move it to a "
            "message of another role"
        )
    for name in (PROMPT, *template.fields):
        text = text.replace(_FIELD.format(name), f"{{{name}}}")
    space = template.answer_space
    if space == "auto" and template.messages[-1].role != ASSISTANT:
        space = ""  # the answer begins a message
    return Template(text, space, bare=True)
