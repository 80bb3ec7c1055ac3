"""Several exported prompts side by side on one loaded model.

A batch may mix prompts of all kinds, each in its own template, with its own label words: its texts
are scored together, but for those under a prefix prompt, which are by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from rlprompt.export.facts import Facts, Usage, check_model
from rlprompt.models.conventions import n_positions
from rlprompt.models.lm import FrozenLM
from rlprompt.models.scorer import Over
from rlprompt.prompt import Prompt
from rlprompt.search.evaluation import n_tokens
from rlprompt.tasks.calibration import calibrated
from rlprompt.tasks.class_metrics import NO_ANSWER
from rlprompt.tasks.class_scores import answered
from rlprompt.tasks.fitting import cut
from rlprompt.tasks.verbaliser import Verbaliser
from rlprompt.template import Query, Template
from rlprompt.types import ControlTokenError, Ids

Asked = tuple[str, Mapping[str, str] | str]
"""A prompt's name, and the fields of its template: `("mood", {"text": "I loved it."})`.

Where the template has one field, its text alone will do: `("mood", "I loved it.")`.
"""


class Servable(Protocol):
    """What can be served: an `ExportedPrompt`."""

    @property
    def facts(self) -> Facts:
        """What is known of it."""

    @property
    def prompt(self) -> Prompt:
        """The prompt itself."""


@dataclass(frozen=True)
class Classified:
    """The answer of a prompt that tells classes apart.

    >>> Classified("billing", {"billing": 0.75, "shipping": 0.25}).probability
    0.75

    Attributes:
        label: The class that beats every other, as `rlprompt score` counts it; empty where none
            does, as in a tie.
        chances: Probability of each class, among the classes.
    """

    label: str
    chances: Mapping[str, float]

    @property
    def probability(self) -> float:
        """The highest of them."""
        return max(self.chances.values())


Answer = Classified | str
"""A class with probabilities, or what the model wrote, by the kind of the prompt."""


class PromptServer:
    """Answers with exported prompts on one model, which is in memory once.

    Args:
        lm: The model.
        prompts: What is served, by the names that requests use.

    Attributes:
        notes: What else to know, a sentence each: such as that a prompt was found in another dtype.

    Raises:
        ValueError: There is no prompt, one belongs to another model, or it is not known how one is
            put to work.

    >>> import tempfile
    >>> from rlprompt.agents.random_search import RandomSearch
    >>> from rlprompt.check.toy import ToyTask, toy_lm
    >>> from rlprompt.export.export import export_prompt
    >>> from rlprompt.search.run import search
    >>> from rlprompt.tasks.classification import ClassificationTask
    >>> words = {"any": "it", "other": "so"}
    >>> splits, template = ToyTask().splits, Template("{text} {prompt}")
    >>> task, lm = ClassificationTask("toy", splits, template, label_words=words), toy_lm()
    >>> found = search(task, lm, RandomSearch(), budget=8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     server = PromptServer(lm, {"mine": export_prompt(found, folder, lm, task)})
    >>> (answer,) = server.classify([("mine", "I loved it.")])  # or {"text": "I loved it."}
    >>> sorted(answer.chances)
    ['any', 'other']
    >>> round(sum(answer.chances.values()), 6)
    1.0
    """

    def __init__(self, lm: FrozenLM, prompts: Mapping[str, Servable]) -> None:
        if not prompts:
            raise ValueError("nothing to serve: give one prompt or more, by name")
        self.lm = lm
        self._served = {name: _served(name, one, lm) for name, one in prompts.items()}
        self.notes = tuple(
            f"prompt {name!r}: {one.note}" for name, one in self._served.items() if one.note
        )

    def answer(self, requests: Sequence[Asked]) -> list[Answer]:
        """What each prompt answers: classes by `classify`, texts by `generate`.

        Args:
            requests: Names and fields, of any prompts.

        Raises:
            ValueError: As for the two.
        """
        answers: list[Answer] = [""] * len(requests)
        writes = [self._find(name).usage.label_words is None for name, _ in requests]
        for kind in (False, True):
            places = [i for i, one in enumerate(writes) if one is kind]
            own = [requests[i] for i in places]
            found: Sequence[Answer] = ()
            if own:
                found = self.generate(own) if kind else self.classify(own)
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer
        return answers

    def fitted(self, name: str, text: Mapping[str, str] | str) -> Mapping[str, str]:
        """The fields of a request as the model can be given them; nothing is computed.

        A text that is too long is cut where the prompt's task cut such texts.

        Raises:
            ValueError: There is no such prompt, a field is missing, or a text is too long or cannot
                be spelt.
        """
        return self._find(name).fitted(text)

    def classify(self, requests: Sequence[Asked]) -> list[Classified]:
        """The class of each text, all scored together.

        Args:
            requests: Names and fields, of any prompts with label words.

        Raises:
            ValueError: There is no such prompt, it has no label words, a field is missing, or a
                text is too long for the model.
        """
        asked = [(self._find(name), text) for name, text in requests]
        pairs = [(one.prompt, one.query(text)) for one, text in asked]
        found: dict[int, Classified] = {}
        # As the task scores them: in 16 bits it makes a difference.
        overs: list[Over] = [*dict.fromkeys(one.verbaliser.over for one, _ in asked)]
        for over in overs:
            places = [i for i, (one, _) in enumerate(asked) if one.verbaliser.over == over]
            loglik = self.lm.score_pairs([pairs[i] for i in places], over=over)
            found |= {i: asked[i][0].answer(own) for i, own in zip(places, loglik, strict=True)}
        return [found[i] for i in range(len(asked))]

    def generate(self, requests: Sequence[Asked]) -> list[str]:
        """What the model writes after each text, without white space around it.

        Texts under one prompt are written side by side, those under another after them.

        Args:
            requests: Names and fields, of any prompts under which the model writes.

        Raises:
            ValueError: There is no such prompt, it has label words, a field is missing, or a text
                is too long for the model.
        """
        written = [""] * len(requests)
        for name in dict.fromkeys(name for name, _ in requests):
            places = [i for i, (asked, _) in enumerate(requests) if asked == name]
            texts = self._find(name).write([requests[i][1] for i in places])
            for place, text in zip(places, texts, strict=True):
                written[place] = text
        return written

    def _find(self, name: str) -> _Served:
        if name not in self._served:
            raise ValueError(f"no prompt is called {name!r}; there are: {', '.join(self._served)}")
        return self._served[name]


@dataclass(frozen=True)
class _Served:
    """A prompt at work on a model."""

    name: str
    lm: FrozenLM
    prompt: Prompt
    usage: Usage
    note: str

    @cached_property
    def template(self) -> Template:
        return self.usage.made

    @cached_property
    def verbaliser(self) -> Verbaliser:
        found = self.usage.verbaliser
        if found is None:
            raise ValueError(f"prompt {self.name!r} has no label words; ask it with `generate`")
        return found

    @cached_property
    def candidates(self) -> tuple[Ids, ...]:
        words = self.verbaliser.encode(self.lm, self.template)
        return tuple(word.ids for word in words)

    @cached_property
    def prior(self) -> Tensor | None:
        """Log prior of the classes (C,) float64, if that is to be taken out."""
        prior = self.usage.prior
        if self.usage.calibration == "none" or prior is None:
            return None
        return torch.tensor([prior[label] for label in self.verbaliser.words], dtype=torch.float64)

    def fields(self, text: Mapping[str, str] | str) -> Mapping[str, str]:
        """The template's fields; a text alone is that of the only one."""
        if not isinstance(text, str):
            return text
        if len(self.template.fields) != 1:
            raise ValueError(
                f"prompt {self.name!r} has a template with the fields "
                f"{', '.join(self.template.fields) or '(none)'}, so a text alone does not do: give "
                "a mapping with each of them"
            )
        return {self.template.fields[0]: text}

    def query(self, text: Mapping[str, str] | str) -> Query:
        return self.template.query(self.fields(text), self.lm, self.candidates)

    def fitted(self, text: Mapping[str, str] | str) -> Mapping[str, str]:
        """The fields, cut if need be and allowed."""
        fields, how = self.fields(text), self.usage.on_long_text
        most = self.lm.context
        if most is None or (n_tokens := self._n_tokens(fields)) <= most:
            return fields
        if how.startswith("truncate"):
            made = cut(fields, how, lambda some: self._has_room(some, most))
            if made is not None:
                return made
        raise ValueError(
            f"the text is too long: with prompt and answer {n_tokens} tokens, and "
            f"{self.lm.name} takes {most}"
        )

    def _has_room(self, fields: Mapping[str, str], most: int) -> bool:
        try:
            return self._n_tokens(fields) <= most
        except ControlTokenError:  # where two ends meet
            return False

    def _n_tokens(self, fields: Mapping[str, str]) -> int:
        """Positions of text, prompt and answer, as far as the model is fed them.

        The prompt takes as many as the longest one that texts were cut for in the search.
        """
        if (writing := self.usage.writing) is None:
            query = self.query(fields)
            n_answer = query.n_answer
        else:
            query, n_answer = self.template.query(fields, self.lm), writing.max_new_tokens - 1
        fed = query.n_text + max(n_tokens(self.lm, self.prompt), self.usage.cut_for)
        return n_positions(self.lm.kind, fed, n_answer)

    def answer(self, loglik: Tensor) -> Classified:
        """The class from log-likelihoods of all label words (W,)."""
        scores = self.verbaliser.class_scores(loglik.double(), self.candidates)
        if self.prior is not None:
            scores = calibrated(scores, self.prior, self.usage.calibration_strength)
        chances = dict(zip(self.verbaliser.words, scores.softmax(-1).tolist(), strict=True))
        labels = [*chances, NO_ANSWER]  # which is what -1 stands for
        return Classified(labels[int(answered(scores))], chances)

    def write(self, texts: Sequence[Mapping[str, str] | str]) -> list[str]:
        writing = self.usage.writing
        if writing is None:
            raise ValueError(f"prompt {self.name!r} tells classes apart; ask it with `classify`")
        queries = [self.template.query(self.fields(text), self.lm) for text in texts]
        (answers,) = self.lm.generate([self.prompt], queries, **writing.model_dump())
        return [answer.text.strip() for answer in answers]


def used(facts: Facts, name: str) -> Usage:
    """How a prompt is put to work.

    Raises:
        ValueError: It does not say.
    """
    if facts.task.usage is None:
        raise ValueError(
            f"prompt {name!r} does not say how it is put to work: it was exported without its "
            "task, or that does it in a way of its own"
        )
    return facts.task.usage


def _served(name: str, exported: Servable, lm: FrozenLM) -> _Served:
    try:
        note = check_model(exported.facts, lm)
    except ValueError as error:
        raise ValueError(f"prompt {name!r}: {error}") from None
    return _Served(name, lm, exported.prompt, used(exported.facts, name), note)
