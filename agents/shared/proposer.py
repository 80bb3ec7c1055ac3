"""Whoever proposes instructions: what it is shown of a task, and what becomes of its answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from rlprompt.agents.shared.requests import Shown, induce, instruction_in
from rlprompt.data.examples import Example
from rlprompt.models.decoding import Decoding
from rlprompt.models.writing import Writer
from rlprompt.prompt import TextPrompt
from rlprompt.search.objective import Objective
from rlprompt.search.space import TextSpace
from rlprompt.types import Floats

# How a request shows that the model wrote nothing.
NOTHING = "(nothing)"


@dataclass
class Proposer:
    """A writer that proposes prompts for one search.

    Args:
        writer: Who writes.
        objective: Of the search; what is written is remembered there.
        space: Where proposals have to lie.
        rng: The only source of randomness.
        decoding: How it writes, for a seed.

    Attributes:
        seen: All prompts that were given out or that it was told of.
        tally: Proposals by what became of them: new, repeated, empty, too long, banned.
        last: What it wrote last.
        idle: Times in a row that it was asked and proposed nothing new.
    """

    writer: Writer
    objective: Objective
    space: TextSpace
    rng: np.random.Generator
    decoding: Callable[[int], Decoding]
    seen: set[TextPrompt] = field(default_factory=set)
    tally: Counter[str] = field(default_factory=Counter)
    last: str = ""
    idle: int = 0
    _told: dict[TextPrompt, dict[int, str]] = field(default_factory=dict)
    _tells: bool = True
    _says: bool = True

    def __str__(self) -> str:
        """What became of its proposals, for a message."""
        found = ", ".join(f"{count} {kind}" for kind, count in self.tally.items())
        return f"{self.writer.name} ({found or 'nothing asked'}; at last {self.last[:100]!r})"

    def prompt(self, instruction: str) -> TextPrompt:
        """The prompt of an instruction, with the spaces that it takes along in the task."""
        return TextPrompt(self.objective.task.placed(self.objective.lm, instruction))

    def obstacle(self, prompt: TextPrompt) -> str:
        """Why a prompt is none of the space, said of it, or ""."""
        if found := self.space.banned(prompt.text):
            return f"uses {', '.join(map(repr, found))}, which `banned` forbids"
        if self.space.too_long(prompt.text):
            return f"has more tokens than the {self.space.at_most} allowed"
        return ""

    def proposed(self, requests: Sequence[str]) -> list[TextPrompt]:
        """What comes of requests and was never seen."""
        unseen: list[TextPrompt] = []
        decoding = self.decoding(int(self.rng.integers(2**31)))
        for answer in self.objective.written(self.writer, requests, decoding):
            self.last = answer.text
            instruction = instruction_in(answer.text)
            kind, prompt = "new", self.prompt(instruction)
            if not instruction:
                kind = "empty"
            elif prompt in self.seen:
                kind = "repeated"
            elif not self.space.contains(prompt):
                kind = "banned" if self.space.banned(prompt.text) else "too long"
            else:
                unseen.append(prompt)
                self.seen.add(prompt)
            self.tally[kind] += 1
        self.idle = 0 if unseen else self.idle + 1
        return unseen

    def guess(self, count: int) -> str:
        """A request for the instruction behind so many labelled train examples, drawn anew."""
        labelled = self.labelled
        places = self.rng.choice(len(labelled), min(count, len(labelled)), replace=False)
        return induce([self._shown(labelled[place]) for place in places])

    @property
    def labelled(self) -> list[Example]:
        """Train examples whose right answer is known."""
        return [example for example in self.objective.task.splits.train if example.label]

    def failures(self, prompt: TextPrompt, rewards: Floats, count: int) -> list[Shown]:
        """So many examples of the half of train on which a prompt does worst.

        What the model answered is asked for (`Objective.answers`), and paid, if the task tells.

        Args:
            prompt: The prompt.
            rewards: (E,), of it on all of train.
            count: Examples, or as many as there are.
        """
        worst = np.argsort(rewards, kind="stable")[: max(count, len(rewards) // 2)]
        places = self.rng.choice(worst, min(count, len(worst)), replace=False).tolist()
        task = self.objective.task
        examples = [task.splits.train[place] for place in places]
        answers = self._answers(prompt, places)
        unknown = [""] * len(examples)
        outputs = None if answers is None else (tuple(answers),)
        found = None
        if self._says:
            found = task.feedback(self.objective.lm, [prompt], examples, outputs)
            self._says = found is not None  # a person's function is not called for nothing
        (said,) = found or (unknown,)
        given = unknown if answers is None else [answer or NOTHING for answer in answers]
        return [self._shown(*one) for one in zip(examples, given, said, strict=True)]

    def _answers(self, prompt: TextPrompt, places: Sequence[int]) -> list[str] | None:
        """What the model answered at some places in train, asked once."""
        told = self._told.setdefault(prompt, {})
        missing = [place for place in places if place not in told]
        if self._tells and missing:
            together = self.objective.task.scored_together
            asked = range(self.objective.n_examples) if together else missing
            found = self.objective.answers(prompt, asked)
            self._tells = found is not None
            told.update(zip(asked, found or (), strict=self._tells))
        return [told[place] for place in places] if self._tells else None

    def _shown(self, example: Example, answer: str = "", feedback: str = "") -> Shown:
        """An example as requests show it; a class by the word that the model says for it."""
        words = self.objective.task.class_words
        right, given = (words[a][0] if a in words else a for a in (example.label, answer))
        fields = example.fields
        named = [f"{name}: {text}" for name, text in fields.items()]
        text = "; ".join(named if len(fields) > 1 else fields.values())
        return Shown(text, right, given, feedback)
