"""Messages of a chat, and one text that stands for them.

>>> messages_of(as_json({"user": "Hello."}))
(Message(role='user', content='Hello.'),)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Message(NamedTuple):
    """A message of a chat."""

    role: str
    content: str


def as_json(source: Mapping[str, str] | Sequence[Mapping[str, str]]) -> str:
    """Messages as the text of a template."""
    listed: list[dict[str, str]] = []
    for part in [source] if isinstance(source, Mapping) else source:
        if not isinstance(part, Mapping) or not all(
            isinstance(text, str) for pair in part.items() for text in pair
        ):
            raise ValueError(
                f"a message of the template is {part!r}; give role: text, such as "
                "user: '{text}' (quote a text with braces in YAML)"
            )
        if set(part) == {"role", "content"}:
            listed.append({"role": part["role"], "content": part["content"]})
        else:
            listed += [{"role": role, "content": content} for role, content in part.items()]
    if not listed:
        raise ValueError("the template has no messages; give role: text, such as user: '{text}'")
    return json.dumps(listed, ensure_ascii=False)


def messages_of(text: str) -> tuple[Message, ...]:
    """The messages of a chat; none where the text is no chat's."""
    # As a text with fields this would be refused, so nothing else is meant by it.
    if not text.startswith('[{"role": '):
        return ()
    try:
        return tuple(Message(one["role"], one["content"]) for one in json.loads(text))
    except (ValueError, KeyError, TypeError):
        return ()
