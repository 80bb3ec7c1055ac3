"""How searches on several machines share one store: a desk that has it, and hands that work.

A file that several machines write is not safe with SQLite, so only the `Desk` opens it, on the
machine where it is. A `Hand` loads the model once, takes one search after another, and asks the
desk whatever a search asks. Each answer is kept there before the search goes on: one that begins
again on another machine is told what it was told before, and goes on where it was.

Both become Ray's actors in `rlprompt.studies.ray_cluster`; nothing here starts anything.
"""

from __future__ import annotations

import dataclasses
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt
from rlprompt.search.evaluation import Finding, Scores
from rlprompt.search.memo import Answer, Answers
from rlprompt.search.result import Result
from rlprompt.store.database import StoreError
from rlprompt.store.store import differences
from rlprompt.studies.study import Job, Study
from rlprompt.types import Ids


class DistantLM(FrozenLM):
    """A model by what tells it from others, to be loaded in the process that needs it.

    Args:
        lm: The model here.
        load: Loads it there, given its name; by default `FrozenLM.load`.
    """

    def __init__(self, lm: FrozenLM, load: Callable[[str], FrozenLM] | None = None) -> None:
        self.name = lm.name
        # In place of the cached property of the class, which would hash weights.
        self.fingerprint = lm.fingerprint
        path = lm.fingerprint.model
        self._place = os.path.abspath(path) if os.path.exists(path) else path
        self._load = load

    def live(self) -> FrozenLM:
        """The model, loaded.

        Raises:
            ValueError: It cannot be loaded here, or is another model here.
        """
        known = self.fingerprint
        if self._load is not None:
            live = self._load(self._place)
        else:  # not in `dtype: auto`, which may choose another here
            revision = known.revision or None
            live = FrozenLM.load(self._place, dtype=known.dtype, revision=revision)
        if live.fingerprint.digest != known.digest:
            there, here = map(dataclasses.asdict, (known, live.fingerprint))
            raise ValueError(
                f"{self.name} is another model on this machine: "
                + "; ".join(differences(there, here))
            )
        live.name = self.name
        return live


@dataclasses.dataclass
class _Attempt:
    """A search that a hand is at; `number` tells it from earlier attempts at the same search."""

    name: str
    number: int
    answers: Answers
    scores: Scores


class Desk:
    """Hands out the searches of a study, and answers what they ask.

    Args:
        folder: As for `Study`.
        jobs: As for `Study`; their models are distant.
        config: As for `Study`.
        cache: As for `Study`.
    """

    def __init__(
        self,
        folder: Path,
        jobs: Mapping[str, Job],
        config: Mapping[str, Any],
        cache: Path | None = None,
    ) -> None:
        self._study = Study(folder, jobs, config, cache)
        self._attempts: dict[int, _Attempt] = {}
        self._tracebacks: dict[str, str] = {}

    def begin(self, hand: int, model: str) -> tuple[int, Job] | None:
        """A search for a hand: the one that it was at, if its machine was lost, or another.

        Args:
            hand: Its number.
            model: Fingerprint of the model that it has loaded, or ""; what needs no other is
                preferred.

        Returns:
            A number for its questions, and the search; None where nothing is left to begin.
        """
        before = self._attempts.get(hand)
        jobs = self._study.jobs.items()
        at_hand = {name for name, job in jobs if job.lm.fingerprint.digest == model}
        name = before.name if before else self._study.claim(at_hand)
        if name is None:
            return None
        number = before.number + 1 if before else 0
        self._attempts[hand] = _Attempt(
            name, number, self._study.answers(name), self._study.scores(name)
        )
        return number, self._study.jobs[name]

    def ask(
        self, hand: int, number: int, whom: str, question: str, *args: Any, **kwargs: Any
    ) -> Any:
        """What a method of the search's `answers` or `scores` gives.

        Raises:
            StoreError: The search was begun again since, or the store cannot be used.
        """
        asked = getattr(self._attempt(hand, number), whom)
        return getattr(asked, question)(*args, **kwargs)

    def end(self, hand: int, number: int, result: Result | None, error: str, details: str) -> None:
        """Keep what came of a search; see `Study.end`. `details` is the traceback of an error."""
        name = self._attempt(hand, number).name
        self._study.end(name, result, error)
        self._tracebacks[name] = details
        del self._attempts[hand]

    def traceback(self, name: str) -> str:
        """Of the error that ended a search; "" where none did, or another worker did it."""
        return self._tracebacks.get(name, "")

    def _attempt(self, hand: int, number: int) -> _Attempt:
        attempt = self._attempts.get(hand)
        if attempt is None or attempt.number != number:
            raise StoreError("the search was begun again on another machine; this one leaves it")
        return attempt


class Questions:
    """Answers that are asked for at the desk (`answers.Answers`).

    Args:
        ask: Puts a question to `Desk.ask` for this search.
    """

    def __init__(self, ask: Callable[..., Any]) -> None:
        self._ask = partial(ask, "answers")

    def find(self, prompts: Sequence[Prompt], *, gradient: bool) -> Answer | None:
        """See `Answers.find`."""
        found: Answer | None = self._ask("find", prompts, gradient=gradient)
        return found

    def keep(self, prompts: Sequence[Prompt], answer: Answer) -> Answer:
        """See `Answers.keep`."""
        kept: Answer = self._ask("keep", prompts, answer)
        return kept

    def find_hidden(self, texts: Sequence[Ids]) -> NDArray[np.float32] | None:
        """See `Answers.find_hidden`."""
        found: NDArray[np.float32] | None = self._ask("find_hidden", texts)
        return found

    def keep_hidden(self, texts: Sequence[Ids], hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Answers.keep_hidden`."""
        kept: NDArray[np.float32] = self._ask("keep_hidden", texts, hidden)
        return kept


class ScoreQuestions:
    """Scores outside the budget that are asked for at the desk (`unmetered.Scores`).

    Args:
        ask: As for `Questions`.
    """

    def __init__(self, ask: Callable[..., Any]) -> None:
        self._ask = partial(ask, "scores")

    def find(
        self, prompts: Sequence[Prompt], split: str, which: Sequence[int] | None = None
    ) -> Finding | None:
        """See `Scores.find`."""
        found: Finding | None = self._ask("find", prompts, split, which)
        return found

    def keep(
        self,
        prompts: Sequence[Prompt],
        split: str,
        finding: Finding,
        which: Sequence[int] | None = None,
    ) -> None:
        """See `Scores.keep`."""
        self._ask("keep", prompts, split, finding, which)


class Hand:
    """Does searches, one after another, in a process of its own.

    Args:
        number: Its own.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._lm: FrozenLM | None = None

    def work(self, call: Callable[..., Any]) -> None:
        """Do searches until none is left.

        Args:
            call: Calls a method of the desk, by its name, and waits for what it gives.

        Raises:
            StoreError: An answer could not be kept.
            ValueError: The model cannot be loaded here.
        """
        while (begun := call("begin", self._number, self._loaded)) is not None:
            self._search(call, *begun)

    @property
    def _loaded(self) -> str:
        return self._lm.fingerprint.digest if self._lm else ""

    def _search(self, call: Callable[..., Any], number: int, job: Job) -> None:
        place, found = (self._number, number), list[Result]()
        ask = partial(call, "ask", *place)
        job = dataclasses.replace(job, lm=self._live(job.lm))
        try:
            result = job.run(Questions(ask), None, found.append, ScoreQuestions(ask))
        except StoreError:
            raise
        # As in `Study.run`: kept with what was found and reported; the other searches go on.
        except Exception as error:
            line = " ".join(f"{type(error).__name__}: {error}".split())
            details = traceback.format_exc()
            call("end", *place, found[0] if found else None, line, details)
        else:
            call("end", *place, result, "", "")

    def _live(self, lm: FrozenLM) -> FrozenLM:
        """The model in the memory of this process."""
        assert isinstance(lm, DistantLM)
        if self._lm is None or self._loaded != lm.fingerprint.digest:
            self._lm = None  # before loading: two may not fit
            self._lm = lm.live()
        return self._lm
