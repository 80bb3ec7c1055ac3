"""Several exported prompts side by side on one loaded model.

A batch may mix prompts, of both kinds: all its texts are scored together, each under its own
prompt, in its own template, with its own label words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rlprompt.export.folder import ExportedPrompt, Usage, check_model
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt
from rlprompt.tasks.calibration import calibrated, content_free_queries, log_prior
from rlprompt.tasks.verbaliser import Verbaliser
from rlprompt.template import Query, Template
from rlprompt.types import Ids

Asked = tuple[str, Mapping[str, str]]
"""A prompt's name, and the fields of its template: `("mood", {"text": "I loved it."})`."""


@dataclass(frozen=True)
class Classified:
    """The answer of a prompt that tells classes apart.

    Attributes:
        label: The likeliest class.
        chances: Probability of each class, among the classes.
    """

    label: str
    chances: Mapping[str, float]


class PromptServer:
    """Answers with exported prompts on one model, which is in memory once.

    Args:
        lm: The model.
        prompts: What is served, by the names that requests use.

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
    >>> (answer,) = server.classify([("mine", {"text": "I loved it."})])
    >>> sorted(answer.chances)
    ['any', 'other']
    >>> round(sum(answer.chances.values()), 6)
    1.0
    """

    def __init__(self, lm: FrozenLM, prompts: Mapping[str, ExportedPrompt]) -> None:
        if not prompts:
            raise ValueError("nothing to serve: give one prompt or more, by name")
        self.lm = lm
        self._served = {name: _served(name, one, lm) for name, one in prompts.items()}

    def classify(self, requests: Sequence[Asked]) -> list[Classified]:
        """The class of each text, all scored together.

        Args:
            requests: Names and fields, one at least, of any prompts with label words.

        Raises:
            ValueError: There is no such prompt, it has no label words, a field is missing, or a
                text is too long for the model.
        """
        asked = [(self._find(name), fields) for name, fields in requests]
        loglik = self.lm.score_pairs([(one.prompt, one.query(fields)) for one, fields in asked])
        return [one.answer(words) for (one, _), words in zip(asked, loglik, strict=True)]

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
        if self.usage.calibration == "none":
            return None
        if self.usage.prior is not None:
            kept = [self.usage.prior[label] for label in self.verbaliser.words]
            return torch.tensor(kept, dtype=torch.float64)
        # Folders of format 1 keep none, and know no other than that of texts without content.
        queries = content_free_queries(self.lm, self.template, self.candidates)
        return log_prior(self._scores(self.lm.score([self.prompt], queries)[0]))

    def query(self, fields: Mapping[str, str]) -> Query:
        return self.template.query(fields, self.lm, self.candidates)

    def answer(self, loglik: Tensor) -> Classified:
        """The class from log-likelihoods of all label words (W,)."""
        scores = self._scores(loglik)
        if self.prior is not None:
            scores = calibrated(scores, self.prior, self.usage.calibration_strength)
        labels, chances = list(self.verbaliser.words), scores.softmax(-1).tolist()
        return Classified(labels[int(scores.argmax())], dict(zip(labels, chances, strict=True)))

    def write(self, texts: Sequence[Mapping[str, str]]) -> list[str]:
        writing = self.usage.writing
        if writing is None:
            raise ValueError(f"prompt {self.name!r} tells classes apart; ask it with `classify`")
        queries = [self.template.query(fields, self.lm) for fields in texts]
        (answers,) = self.lm.generate([self.prompt], queries, **writing.model_dump())
        return [answer.text.strip() for answer in answers]

    def _scores(self, loglik: Tensor) -> Tensor:
        return self.verbaliser.class_scores(loglik.double(), self.candidates)


def _served(name: str, exported: ExportedPrompt, lm: FrozenLM) -> _Served:
    try:
        check_model(exported.facts, lm)
    except ValueError as error:
        raise ValueError(f"prompt {name!r}: {error}") from None
    usage = exported.facts.task.usage
    if usage is None:
        raise ValueError(
            f"prompt {name!r} does not say how it is put to work: it was exported without its "
            "task, or that does it in a way of its own"
        )
    return _Served(name, lm, exported.prompt, usage)
