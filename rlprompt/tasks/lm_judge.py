"""A language model as judge: how probable it finds it that an answer is right.

The judge reads a question of yours about the answer, and the score is the probability of the first
of some words behind it, among these words: no text of its own is drawn or parsed, so the same
answer has the same score. It is G-Eval's reading of a judge by the probabilities of its tokens
(Liu et al. 2023, arXiv 2303.16634, section 2), of two words in the place of five grades.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from rlprompt.data.examples import Example
from rlprompt.models.conventions import n_positions
from rlprompt.models.lm import FrozenLM, living
from rlprompt.prompt import TokenPrompt
from rlprompt.tasks.fitting import briefly, cut
from rlprompt.template import Query, Template
from rlprompt.types import Piece

OUTPUT, REFERENCE = "output", "reference"
TEMPLATE = (
    "Right answer: {reference}\nGiven answer: {output}\n"
    "Does the given answer say the same as the right one, yes or no? Answer:"
)
WORDS = ("yes", "no")
Question = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class LMJudge:
    """How probable another model finds it that answers are right, a metric of `metrics`.

    Args:
        model: Its name, a folder or a `.gguf` file, as for `FrozenLM.load`; loaded once a process,
            and not at all where it is the model that is searched on, in the same dtype.
        template: What it is asked, with `{output}`, and `{reference}` and fields of the example as
            it likes; one of `words` follows. Of several references all are named.
        words: The first one says that the answer is right, the others that it is not.
        device: Where it runs.
        name: What it is called.
        dtype: What it computes in, and never `auto`: a study that goes on elsewhere has the same
            judge.

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
    dtype: str = "float32"

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
                "judged answer goes, and no {mask} or {prompt}"
            )
        if len({word.strip() for word in self.words} - {""}) != len(self.words) or not (
            len(self.words) >= 2
        ):
            raise ValueError(
                f"{self.name} has the words {list(self.words)}; give two or more that differ, the "
                "first for a right answer"
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
        return _loaded(self.model, self.device, self.dtype)

    @property
    def fingerprint(self) -> str:
        """The model's hash and what it is asked; hashes its weights, once a process."""
        return f"{self.lm.fingerprint.digest} {self.template!r} {self.words!r}"

    @property
    def needs_reference(self) -> bool:
        """Whether it is shown a reference."""
        return REFERENCE in self._asked.fields

    def of(self, outputs: Sequence[str], examples: Sequence[Example]) -> list[float]:
        """Probabilities (E,) in [0, 1] that outputs are right; 0 for an empty one.

        An output that is too long for the judge is cut at its end. What the judge's tokenizer takes
        for a control token whatever one does, such as `<think>` of some models, it does not read,
        in the output and elsewhere.
        """
        questions = self._questions(outputs, examples)
        distinct = tuple(dict.fromkeys(filter(None, questions)))
        # By pairs, for a model that is searched on keeps no questions in the place of its texts.
        pairs = [(TokenPrompt(), one) for one in _queries(self, distinct)]
        scored = self.lm.score_pairs(pairs) if pairs else ()  # all may be empty
        found = (float(logliks.softmax(-1)[0]) for logliks in scored)
        known = dict(zip(distinct, found, strict=True))
        return [known[one] if one else 0.0 for one in questions]

    def check(self, example: Example) -> str:
        """What is wrong with an example: a field of the template that it has not, or ""."""
        there = {*example.fields, OUTPUT, REFERENCE}
        missing = [name for name in self._asked.fields if name not in there]
        if not missing:
            return ""
        return (
            f"no field {missing[0]!r}, which the template of {self.name} needs; its fields are "
            f"{', '.join(sorted(there))}"
        )

    def check_room(self, split: str, examples: Sequence[Example], n_output: int) -> None:
        """See `AnswerMetric.check_room`; `of` cuts what is longer in the judge's own tokens.

        Raises:
            ValueError: An example is too long.
        """
        lm = self.lm
        if lm.context is None:
            return
        texts = [dict(self._question("", example)) for example in examples]
        queries = asked(lm, self._asked, self.words, texts)
        for example, query in zip(examples, queries, strict=True):
            if not self._fits(query, n_output):
                raise ValueError(
                    f"the {split} example {briefly(example)} is too long for {self.name}: "
                    f"{query.n_text} tokens of question + {n_output} of output + {query.n_answer} "
                    f"of answer, and {lm.name} takes {lm.context}; shorten or remove it, lower "
                    "max_new_tokens, or choose another model as judge"
                )

    def _fits(self, query: Query, n_more: int = 0) -> bool:
        """Whether the judge takes a question, with so many tokens more."""
        fed = n_positions(self.lm.kind, query.n_text + n_more, query.n_answer)
        return self.lm.context is None or fed <= self.lm.context

    def tokens(self, outputs: Sequence[str], examples: Sequence[Example]) -> int:
        """Tokens of all different questions about the outputs: what a plain scorer would read."""
        distinct = tuple(dict.fromkeys(filter(None, self._questions(outputs, examples))))
        return sum(query.n_text + query.n_answer for query in _queries(self, distinct))

    def _questions(self, outputs: Sequence[str], examples: Sequence[Example]) -> list[Question]:
        """What the template is filled with for each answer; nothing for an empty answer."""
        return [
            self._question(output, example) if self._reads(output) else ()
            for output, example in zip(outputs, examples, strict=True)
        ]

    def _reads(self, output: str) -> bool:
        """Whether there is anything in an output that it can spell."""
        read = self.lm.spell((Piece(output.strip(), "written"),))
        return bool(self.lm.decode(read).strip())

    def _question(self, output: str, example: Example) -> Question:
        texts = {**example.fields, OUTPUT: output, REFERENCE: " or ".join(example.references)}
        return tuple((name, texts[name]) for name in self._asked.fields)


def verbalised(
    lm: FrozenLM, template: Template, words: Sequence[str], texts: Sequence[Mapping[str, str]]
) -> Tensor:
    """Probability that the first word follows, and none of the others, (n,) float32 in [0, 1].

    Args:
        lm: The model.
        template: Where texts go, and where a prompt would, which is left empty.
        words: The words to choose from.
        texts: (n,) of them, a text for each field of the template.
    """
    queries = asked(lm, template, words, texts)
    return lm.score([TokenPrompt()], queries, over="candidates")[0].softmax(-1)[:, 0]


def asked(
    lm: FrozenLM, template: Template, words: Sequence[str], texts: Sequence[Mapping[str, str]]
) -> list[Query]:
    """What a model is asked in `verbalised`, (n,) with a candidate for each word.

    A model may have written the texts, so that what its tokenizer takes for a control token
    whatever one does is left out.
    """
    own = template.on(lm)
    candidates = [own.answer_ids(lm, own.answer_text(word, lm.kind)) for word in words]
    return [own.query(text, lm, candidates, written=True) for text in texts]


# The answers to some prompts are judged, and then what was read is counted.
@functools.lru_cache(maxsize=64)
def _queries(judge: LMJudge, questions: tuple[Question, ...]) -> list[Query]:
    """What a judge is asked, spelled; of an output that is too long, as much as fits.

    A model's text may have more tokens in a judge's spelling than it was written in.
    """
    spell = functools.partial(asked, judge.lm, judge._asked, judge.words)
    queries = spell([dict(one) for one in questions])
    for i, query in enumerate(queries):
        if not judge._fits(query):
            texts = dict(questions[i])

            def fits(some: Mapping[str, str], texts: Mapping[str, str] = texts) -> bool:
                return judge._fits(spell([{**texts, **some}])[0])

            output = cut({OUTPUT: texts[OUTPUT]}, "truncate-end", fits)
            (queries[i],) = spell([{**texts, **(output or {})}])
    return queries


@functools.cache
def _loaded(name: str, device: str, dtype: str) -> FrozenLM:
    """A judge's model, one for all tasks of a process: a task that travels leaves it behind."""
    lm = living(name, device, dtype) or FrozenLM.load(name, device=device, dtype=dtype)
    if lm.kind == "masked":
        raise ValueError(
            f"the judge {name} is a masked model, which cannot continue a text; use a causal or "
            "encoder-decoder model"
        )
    return lm
