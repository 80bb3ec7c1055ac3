"""Writers that stand for a proposer: no model, no time."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from rlprompt.models.decoding import Decoding
from rlprompt.types import Written

# Those in brackets are worth something in `HiddenTexts`.
WORDS = ("say", "the", "word", "once", "more", "now", "<1>", "<2>", "<4>")


@dataclass
class Typewriter:
    """A few words, as the seed has it.

    Attributes:
        before: Called with the number of the call before it is answered; may raise.
        asked: Seed and requests of every call, in order.
        words: Those it knows, of which it writes four.
    """

    before: Callable[[int], None] = lambda n: None
    asked: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    words: Sequence[str] = WORDS
    name: str = "typewriter"
    digest: str = "typewriter"

    def write(self, requests: Sequence[str], decoding: Decoding) -> list[Written]:
        self.before(len(self.asked) + 1)
        self.asked.append((decoding.seed, tuple(requests)))
        rng = np.random.default_rng(decoding.seed)
        answers = [self.answer(request, rng) for request in requests]
        return [
            Written(answer, len(request.split()), len(answer.split()))
            for request, answer in zip(requests, answers, strict=True)
        ]

    def answer(self, request: str, rng: np.random.Generator) -> str:
        return " ".join(rng.choice(self.words, 4))


@dataclass
class Scripted(Typewriter):
    """Answers one after another, and then nothing."""

    answers: Sequence[str] = ()
    name: str = "script"
    written: int = 0

    def answer(self, request: str, rng: np.random.Generator) -> str:
        self.written += 1
        return self.answers[self.written - 1] if self.written <= len(self.answers) else " \n"


class Diligent(Typewriter):
    """Does what it is asked, as far as words go.

    It guesses one word of what the examples have, adds the right answers of what it is shown of
    failures, puts two instructions together, leaves a word out, or turns the words around.
    """

    def answer(self, request: str, rng: np.random.Generator) -> str:
        given = [one.split() for one in re.findall(r"^Instruction(?: \d)?: (.+)$", request, re.M)]
        if not given:
            words = [str(rng.choice(re.findall(r"^Output: (.+)$", request, re.M)))]
        elif "did badly" in request:
            words = given[0] + re.findall(r"^Right answer: (.+)$", request, re.M)
        elif len(given) == 2:
            words = given[0] + given[1]
        elif "fewer" in request:
            words = [*given[0]]
            del words[int(rng.integers(len(words)))]
        else:
            words = given[0][::-1]
        return f"New instruction: {' '.join(dict.fromkeys(words))}"
