"""How text becomes token ids: as a whole, whatever kind the tokenizer is of.

Some tokenizers begin every text with a space of their own (Llama-2, T5), mark the pieces of a word
that begin none (BERT), or join letters over any border. So the ids of a piece are those it has
behind other text: both are tokenised together, and the ids of the other text are taken off, as
lm-eval does it (`_encode_pair`). Text that is not known, such as a searched prompt, is stood in for
by an *anchor*, a short text that the tokenizer does not join with what follows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from rlprompt._utils.chats import Message
from rlprompt.template import ASSISTANT
from rlprompt.types import ANY, ControlTokenError, Ids, Piece

# Letters first: prompts mostly end in one.
ANCHORS = ("a", "the", "e", "it", "o", "1", ".", ")", "!")
# Texts and what may follow, which tell whether pieces have other ids in a text than alone.
_BORDERS = (("a", " b"), ("a", "\nb"), ("a", ":"))
# In front of a template for chats: dates that differ with the digit, in each of their parts.
ON = (
    "{{% macro strftime_now(form) %}}"
    "{{{{ form | replace('%Y', '200{digit}') | replace('%', '{digit}') }}}}{{% endmacro %}}"
)
# Characters that no small vocabulary knows.
_STRANGE = "\u2603\U000e0041"


class Spelling:
    """A tokenizer's way with pieces of text.

    Args:
        tokenizer: The tokenizer.

    Attributes:
        moves: Whether a piece may have other ids in a text than alone.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.whole = lru_cache(maxsize=1 << 16)(self._whole)
        self.chat = lru_cache(maxsize=1 << 8)(self._chat)
        self.moves = not all(self._joins(*border) for border in _BORDERS)
        # Whether a piece alone is right behind whatever is not known.
        self._free = not self.moves and self._joins("1", "b")

    def _joins(self, first: str, second: str) -> bool:
        return self._ids(first + second) == self._ids(first) + self._ids(second)

    def spell(
        self, pieces: Sequence[Piece], after: Sequence[Piece] = (), *, cut: bool = False
    ) -> Ids:
        """Ids that pieces have in a text behind others.

        Args:
            pieces: What is spelt.
            after: What comes before it in the text; what precedes text that is not known does not
                matter.
            cut: Where the tokenizer joins letters of both, give what the whole has more tokens than
                what comes before, as lm-eval does; else no letter of the pieces is lost.

        Raises:
            ControlTokenError: A field holds what the tokenizer always takes for a control token.
        """
        pieces, after = tuple(pieces), tuple(after)
        if not any(piece.text or piece.kind == "any" for piece in pieces):
            return ()
        unknown = [i for i, piece in enumerate(after) if piece.kind == "any"]
        after = after[unknown[-1] :] if unknown else after
        nothing_known = bool(unknown) and len(after) == 1
        # Line breaks are one token or several by what follows, and cut off from it either way.
        breaks = bool(unknown) and not cut and not any(piece.text.strip("\n") for piece in after)
        if not after or (self._free and (nothing_known or breaks)):
            return self.whole(_filled(pieces, self._anchors[0]))
        for anchor in self._anchors:
            before = self.whole(_filled(after, anchor))
            ids = self.whole(_filled((*after, *pieces), anchor))
            if ids[: len(before)] == before and len(ids) > len(before):
                return ids[len(before) :]
        # The tokenizer joins letters over the border, or makes a space of line breaks.
        if nothing_known or breaks:
            return self.whole(_filled(pieces, self._anchors[0]))
        return (cut and ids[len(before) :]) or self.spell(pieces, (ANY,))

    def decode(self, ids: Sequence[int], after: Sequence[int] = ()) -> str:
        """Text of ids behind others, exactly as the tokenizer spells them."""
        before, text = self._text(after), self._text([*after, *ids])
        return text[len(before) :] if text.startswith(before) else self._text(ids)

    def _text(self, ids: Sequence[int]) -> str:
        if not ids:
            return ""
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    @cached_property
    def _anchors(self) -> tuple[str, ...]:
        """Anchors, those in front that the tokenizer knows."""
        unknown = self.tokenizer.unk_token_id
        known = [a for a in ANCHORS if self._ids(a) and unknown not in self._ids(a)]
        return (*known, *(anchor for anchor in ANCHORS if anchor not in known))

    def _ids(self, text: str, plain: bool = False) -> Ids:
        made: Any = self.tokenizer(text, add_special_tokens=False, split_special_tokens=plain)
        return tuple(made["input_ids"])

    def _whole(self, pieces: tuple[Piece, ...]) -> Ids:
        """Ids of a text, control tokens in fields taken for text."""
        text = "".join(piece.text for piece in pieces)
        if not text:
            return ()
        own = [found for piece, start in _placed(pieces) for found in self._controls(piece, start)]
        ids = self._ids(text)
        if self._are_clean(pieces) and sum(i in self._control_ids for i in ids) == len(own):
            return ids
        ids = self._ids(text, plain=True) if not own else tuple(self._around(text, own))
        if sum(i in self._control_ids for i in ids) > len(own):
            if any(piece.kind == "written" for piece in pieces):
                less = tuple(map(self._unmarked, pieces))
                # Some are spelt in other letters, or made up with what stands beside.
                return (
                    self._whole(less)
                    if less != pieces
                    else tuple(self._around(text, own, self._control_ids))
                )
            texts = (piece.text for piece in pieces if piece.kind == "field")
            names = [repr(found[0]) for field in texts if (found := self._pattern.search(field))]
            raise ControlTokenError(
                f"the text holds {', '.join(names) or 'something'}, which this model's tokenizer "
                "always takes for a control token"
            )
        return ids

    def _unmarked(self, piece: Piece) -> Piece:
        """A piece, without control tokens where a model has written it."""
        written = piece.kind == "written"
        return piece._replace(text=self._pattern.sub("", piece.text)) if written else piece

    def _around(
        self, text: str, own: Sequence[tuple[int, int]], without: Collection[int] = ()
    ) -> Iterator[int]:
        """Ids of a text with control tokens in some places, and text elsewhere `without` some."""
        added = {token.content: token for token in self.tokenizer.added_tokens_decoder.values()}
        end, anchor = 0, self._anchors[0]
        for start, stop in (*own, (len(text), len(text))):
            control, run = text[start:stop], text[end:start]
            before, token = text[:end], added.get(control)
            if token and token.lstrip:
                run = run.rstrip()
            lead = "" if not before or self._begins_anew(before) else anchor
            spelt = self._ids(lead + run, plain=True)[len(self._ids(lead)) :] if run else ()
            yield from (i for i in spelt if i not in without)
            yield from self._ids(control)
            end = stop
            if token and token.rstrip:
                end += len(text[stop:]) - len(text[stop:].lstrip())

    def _begins_anew(self, before: str) -> bool:
        """Whether text behind a control token is spelt as at the beginning."""
        return self._ids(f"{before}a") == self._ids(before) + self._ids("a")

    def _are_clean(self, pieces: Sequence[Piece]) -> bool:
        return not any(p.kind != "own" and self._pattern.search(p.text) for p in pieces)

    def _controls(self, piece: Piece, start: int) -> Iterator[tuple[int, int]]:
        """Where control tokens stand in a piece of the template's own."""
        if piece.kind == "own":
            for found in self._pattern.finditer(piece.text):
                yield start + found.start(), start + found.end()

    @cached_property
    def _special(self) -> dict[str, int]:
        """Control tokens and their ids."""
        tokenizer: Any = self.tokenizer
        special = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        special |= {
            token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        # Some that are not said to be special are so by their look, such as <think>; Gemma's <b>
        # is not.
        special |= {
            token.content: i
            for i, token in tokenizer.added_tokens_decoder.items()
            if re.fullmatch(r"<\|[^<>\s]+\|>|</?(think|\w+_\w+)>", token.content)
        }
        return special

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._special, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    @cached_property
    def _control_ids(self) -> frozenset[int]:
        """Ids that no plain text has."""
        return frozenset(self._special.values()) - set(self._ids(_STRANGE, plain=True))

    def _chat(self, messages: tuple[Message, ...]) -> str:
        """A chat up to where the model goes on, as the tokenizer's own template writes it.

        Raises:
            ValueError: There is no such template, or it refuses these messages.
        """
        return self._rendered(messages)

    def is_dated(self, messages: tuple[Message, ...]) -> bool:
        """Whether a chat reads otherwise on another day, as where the template writes the date.

        Raises:
            ValueError: As for `chat`.
        """
        self.chat(messages)
        tokenizer: Any = self.tokenizer
        if "strftime_now" not in tokenizer.get_chat_template():
            return False
        try:
            days = {self._rendered(messages, ON.format(digit=digit)) for digit in (3, 4)}
        except ValueError:  # it looks into the date, which it did not refuse above
            return True
        return len(days) > 1

    def _rendered(self, messages: tuple[Message, ...], before: str = "") -> str:
        tokenizer: Any = self.tokenizer
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                "the template is a chat, and this model's tokenizer has no chat template: take a "
                "model that was trained on chats, or write the template as one text"
            )
        begun = messages[-1].role == ASSISTANT
        try:
            chat: str = tokenizer.apply_chat_template(
                [message._asdict() for message in messages],
                tokenize=False,
                add_generation_prompt=not begun,
                continue_final_message=begun,
                **({"chat_template": before + tokenizer.get_chat_template()} if before else {}),
            )
        except (TemplateError, ValueError) as error:
            roles = ", ".join(message.role for message in messages)
            raise ValueError(
                f"the chat template of this model's tokenizer refuses messages of {roles}: {error}"
            ) from error
        return chat


def _filled(pieces: tuple[Piece, ...], anchor: str) -> tuple[Piece, ...]:
    """The pieces with an anchor for what is not known."""
    return tuple(Piece(anchor) if piece.kind == "any" else piece for piece in pieces)


def _placed(pieces: Sequence[Piece]) -> Iterator[tuple[Piece, int]]:
    """Each piece and where it begins."""
    start = 0
    for piece in pieces:
        yield piece, start
        start += len(piece.text)
