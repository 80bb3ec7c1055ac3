"""What a proposer is asked, and the instruction in what it answers.

Requests are short and end where the instruction begins, so that a small model that was never
taught to follow requests goes on with one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from rlprompt._utils.text import cut_short

# Characters of an example's text that a request shows.
SHOWN = 400

_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_TAGGED = re.compile(
    r"<(instruction|prompt|start)>(.*?)(</\1>|<end>|\Z)", re.DOTALL | re.IGNORECASE
)
_FENCED = re.compile(r"```\w*\n(.*?)(```|\Z)", re.DOTALL)
_NAMED = re.compile(
    r"(the |a |my )?(new |better |final |shorter )*(instruction|prompt)( is| was)?:", re.I
)
_QUOTES = (("**", "**"), ('"', '"'), ("\u201c", "\u201d"), ("'", "'"), ("`", "`"))


class Shown(NamedTuple):
    """An example as a request shows it; "" for what is not known of it.

    Attributes:
        text: What the model is given.
        right: What it should answer.
        answer: What it answered.
        feedback: What the task says about that.
    """

    text: str
    right: str
    answer: str = ""
    feedback: str = ""

    @property
    def lines(self) -> str:
        """One line for each thing that is known."""
        named = {
            "Input": self.text,
            "Answer given": self.answer,
            "Right answer" if self.answer or self.feedback else "Output": self.right,
            "Feedback": self.feedback,
        }
        known = ((name, " ".join(text.split())) for name, text in named.items() if text)
        return "\n".join(f"{name}: {cut_short(text, SHOWN)}" for name, text in known)


def induce(examples: Sequence[Shown]) -> str:
    """Ask for the instruction behind examples, after APE's forward template (Zhou et al. 2023)."""
    pairs = "\n\n".join(one.lines for one in examples)
    return (
        "I gave a friend an instruction. Following it, the friend wrote an output for every input:"
        f"\n\n{pairs}\n\nWhat was the instruction? Write it in one line and nothing else."
        "\n\nInstruction:"
    )


def rewrite(instruction: str) -> str:
    """Ask for a paraphrase, as APE's resampling (Zhou et al. 2023)."""
    return _changed("Say this instruction in other words. Keep its meaning.", instruction)


def shorten(instruction: str) -> str:
    """Ask for fewer words."""
    return _changed("Say this instruction in fewer words. Keep its meaning.", instruction)


def cross(first: str, second: str) -> str:
    """Ask for a child of two, as the crossover of EvoPrompt (Guo et al. 2024)."""
    return _changed("Combine these two instructions into a new one.", first, second)


def mend(instruction: str, failures: Sequence[Shown]) -> str:
    """Ask for what would prevent failures (ProTeGi, Pryzant et al. 2023; GEPA)."""
    shown = "\n\n".join(one.lines for one in failures)
    wanted = (
        f"A model was given the instruction below, and it did badly here:\n\n{shown}\n\n"
        "Write a better instruction for it."
    )
    return _changed(wanted, instruction)


def instruction_in(answer: str) -> str:
    r"""The one instruction in what a proposer wrote, on one line; "" where there is none.

    What stands in tags or a fenced block, or else the first line that is more than an
    announcement; without its quotes, a label such as `Instruction:`, and what cannot be typed.

    >>> instruction_in('Sure! Here it is:\n\n"Write the plural."\n\nIt is shorter.')
    'Write the plural.'
    >>> instruction_in("I think <prompt>Answer\nin one word.</prompt>")
    'Answer in one word.'
    """
    answer = _THOUGHTS.sub("", answer)
    if found := _TAGGED.search(answer):
        return _clean(found[2])
    if found := _FENCED.search(answer):
        return _clean(found[1])
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    for line in lines:
        # What ends in a colon announces what follows.
        if not line.endswith(":") and (text := _clean(line)):
            return text
    return ""


def _changed(wanted: str, *instructions: str) -> str:
    """A request for one instruction in the place of another, or of several."""
    several = len(instructions) > 1
    given = "\n\n".join(
        f"Instruction {i}: {one}" if several else f"Instruction: {one}"
        for i, one in enumerate(instructions, 1)
    )
    return f"{wanted} Write one line and nothing else.\n\n{given}\n\nNew instruction:"


def _clean(text: str) -> str:
    """A text on one line, without a label, quotes around it, and what cannot be typed."""
    text = " ".join(text.replace("\ufffd", "").split())
    text = "".join(letter for letter in text if letter.isprintable()).strip()
    text = _NAMED.sub("", text, count=1).strip() if _NAMED.match(text) else text
    for opening, closing in _QUOTES:
        inner = text[len(opening) : -len(closing)]
        # Quotes within are of the instruction, and so may be those around it.
        if text.startswith(opening) and text.endswith(closing) and opening not in inner:
            text = inner.strip()
    return text if any(letter.isalnum() for letter in text) else ""
