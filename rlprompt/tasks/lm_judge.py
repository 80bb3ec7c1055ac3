"""A language model as judge: how probable it finds it that an answer is right.

The judge reads a question of yours about the answer, and the score is the probability of the first
of some words behind it, among these words: no text of its own is drawn or parsed, so the same
answer has the same score. It is G-Eval's reading of a judge by the probabilities of its tokens
(Liu et al. 2023, arXiv 2303.16634, section 2), of two words in the place of five grades.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rlprompt.data.examples import Example
from rlprompt.models.lm import FrozenLM
from rlprompt.tasks.judges import asked, verbalised
from rlprompt.template import Template

OUTPUT, REFERENCE = "output", "reference"
TEMPLATE = (
    "Right answer: {reference}\nGiven answer: {output}\n"
    "Does the given answer say the same as the right one, yes or no? Answer:"
)
WORDS = ("yes", "no")


@dataclass(frozen=True)
class LMJudge:
    """How probable another model finds it that answers are right, a metric of `metrics`.

    Args:
        model: Its name, a folder or a `.gguf` file, as for `FrozenLM.load`; loaded once a process.
        template: What it is asked, with `{output}`, and `{reference}` and fields of the example as
            it likes; one of `words` follows. Of several references all are named.
        words: The first one says that the answer is right, the others that it is not.
        device: Where it runs.
        name: What it is called.

    Raises:
        ValueError: There is no model, the template has no `{output}`, or there are less than two
            words.

    >>> LMJudge("")
    Traceback (most recent call last):
    ValueError: judge has no model; say which one judges: {name: judge, model: smollm2-135m}
    """

    model: str
    template: str = TEMPLATE
    words: tuple[str, ...] = WORDS
    device: str = "auto"
    name: str = "judge"

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        if not self.model:
            raise ValueError(
                f"{self.name} has no model; say which one judges: {{name: judge, model: "
                "smollm2-135m}"
            )
        if OUTPUT not in self._asked.fields or self._asked.masked:
            raise ValueError(
                f"{self.name} has the template {self.template!r}; it needs {{output}}, where the "
                "answer goes that is judged, and no {mask} or {prompt}"
            )
        if len({word.strip() for word in self.words} - {""}) != len(self.words) or not (
            len(self.words) >= 2
        ):
            raise ValueError(
                f"{self.name} has the words {list(self.words)}; give two or more that differ, the "
                "first one for an answer that is right"
            )

    @property
    def _asked(self) -> Template:
        """The question, with the place of a prompt, which stays empty, at its end."""
        try:
            return Template(self.template + "{prompt}")
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None

    @property
    def lm(self) -> FrozenLM:
        """The model."""
        return _loaded(self.model, self.device)

    @property
    def fingerprint(self) -> str:
        """The model's hash and what it is asked; hashes its weights, once a process."""
        return f"{self.lm.fingerprint.digest} {self.template!r} {self.words!r}"

    @property
    def needs_reference(self) -> bool:
        """Whether it is shown a reference."""
        return REFERENCE in self._asked.fields

    def of(self, outputs: Sequence[str], examples: Sequence[Example]) -> list[float]:
        """Probabilities (E,) in [0, 1] that outputs are right; 0 for an empty one."""
        questions = list(self._questions(outputs, examples))
        distinct = [dict(one) for one in dict.fromkeys(filter(None, questions))]
        if not distinct:
            return [0.0] * len(questions)
        found = verbalised(self.lm, self._asked, self.words, distinct).tolist()
        known = dict(zip((_key(one) for one in distinct), found, strict=True))
        return [known[one] if one else 0.0 for one in questions]

    def check(self, example: Example) -> str:
        """What is wrong with an example: a field of the template that it has not, or ""."""
        there = {*example.fields, OUTPUT, REFERENCE}
        missing = [name for name in self._asked.fields if name not in there]
        if not missing:
            return ""
        return (
            f"no field {missing[0]!r}, which the template of {self.name} has; there are "
            f"{', '.join(sorted(there))}"
        )

    def tokens(self, outputs: Sequence[str], examples: Sequence[Example]) -> int:
        """Tokens of all different questions about the outputs: what a plain scorer would read."""
        distinct = [dict(one) for one in {*self._questions(outputs, examples)} if one]
        queries = asked(self.lm, self._asked, self.words, distinct)
        return sum(query.n_text + query.n_answer for query in queries)

    def _questions(
        self, outputs: Sequence[str], examples: Sequence[Example]
    ) -> Iterator[tuple[tuple[str, str], ...]]:
        """What the template is filled with for each answer; nothing for an empty answer."""
        for output, example in zip(outputs, examples, strict=True):
            texts = {**example.fields, OUTPUT: output, REFERENCE: " or ".join(example.references)}
            asked_of = {name: texts[name] for name in self._asked.fields}
            yield _key(asked_of) if output.strip() else ()


def _key(texts: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(texts.items()))


@functools.cache
def _loaded(name: str, device: str) -> FrozenLM:
    """A judge's model, one for all tasks of a process: a task that travels leaves it behind."""
    lm = FrozenLM.load(name, device=device)
    if lm.kind == "masked":
        raise ValueError(
            f"the judge {name} is a masked model, which does not go on with a text; take a causal "
            "or encoder-decoder model"
        )
    return lm
