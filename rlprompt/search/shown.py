"""Which train examples prompts of text can show."""

from __future__ import annotations

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import TextPrompt
from rlprompt.search.space import TextSpace
from rlprompt.tasks.base import Task
from rlprompt.types import ControlTokenError


def usable_examples(lm: FrozenLM, task: Task, space: TextSpace) -> list[int]:
    """Places in train of the examples that a prompt can show: plain text, and in the space.

    Raises:
        ValueError: There is none.
    """
    shown = {place: task.shown([place]) for place in task.showable()}
    fitting = [place for place, text in shown.items() if space.contains(TextPrompt(text))]
    if usable := [place for place in fitting if _is_plain(lm, shown[place])]:
        return usable
    limit = "" if space.at_most is None else f" of {space.at_most} tokens at most"
    banned = sorted({one for text in shown.values() for one in space.banned(text)})
    without = f", without {', '.join(map(repr, banned))}, which `banned` forbids" if banned else ""
    raise ValueError(
        f"none of the {len(shown)} train examples that task {task.name!r} could show is plain text"
        f"{limit}{without}; give texts more room (`length: {{at_most: N}}`), shorten the examples, "
        "or ban less"
    )


def _is_plain(lm: FrozenLM, text: str) -> bool:
    """Whether an example is nothing but text to the tokenizer, and holds no control token."""
    try:
        return lm.encode(text) == lm.encode(text, plain=True)
    except ControlTokenError:
        return False
