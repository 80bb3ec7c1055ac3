"""Text as ids, a character each, and the messages of a chat as one text.

What a server's tokens are is not known, and templates are put together of ids (`Encoder`). So the
characters are these, and come out as the same text, letter by letter. A chat is one text on the
way: roles and contents stand between characters of no script, by which they are told apart again.

>>> read(spelt([Piece("It was"), Piece(" good")]))
'It was good'
>>> parted(joined([Message("user", "Hello.")]))
[Message(role='user', content='Hello.')]
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlprompt._utils.chats import Message
from rlprompt.types import ControlTokenError, Ids, Piece

# Ids of characters lie above those of all tokens, so that tokens of a model are not taken for text.
CHARACTERS = 1 << 24
# Around the role and the content of a message: of the private use area of Unicode.
ROLE, CONTENT, END = "\ue010", "\ue011", "\ue012"
_BORDER = re.compile(f"[{ROLE}{CONTENT}{END}]")
_MESSAGE = re.compile(f"{ROLE}([^{CONTENT}]*){CONTENT}([^{END}]*){END}")


def spelt(pieces: Sequence[Piece]) -> Ids:
    """Ids of the characters of pieces; of what is not known, or borders written, there are none.

    Raises:
        ControlTokenError: A field holds a character that stands for the border of a message.
    """
    for piece in pieces:
        if piece.kind == "field" and _BORDER.search(piece.text):
            raise ControlTokenError(
                "the text holds a character from U+E010 to U+E012, which is of no script and "
                "stands here for the borders of messages"
            )
    text = "".join(
        _BORDER.sub("", piece.text) if piece.kind == "written" else piece.text for piece in pieces
    )
    return tuple(CHARACTERS + ord(character) for character in text)


def are_characters(ids: Sequence[int]) -> bool:
    """Whether ids are those of characters, and not of tokens."""
    return all(0 <= i - CHARACTERS <= 0x10FFFF for i in ids)


def read(ids: Sequence[int]) -> str:
    """The text of characters."""
    return "".join(chr(i - CHARACTERS) for i in ids)


def joined(messages: Sequence[Message]) -> str:
    """The messages of a chat in one text."""
    return "".join(f"{ROLE}{role}{CONTENT}{content}{END}" for role, content in messages)


def parted(text: str) -> list[Message]:
    """The messages of a chat; none of a text that is no chat."""
    return [Message(role, content) for role, content in _MESSAGE.findall(text)]


def plain(text: str) -> str:
    """A text as a person reads it, of a chat its messages."""
    return _MESSAGE.sub(r"\1: \2 ", text)
