"""How searches on several machines share one store: a server that has it, and workers.

A file that several machines write is not safe with SQLite, so only the `StudyServer` opens it, on
the machine where it is. A `Worker` loads the model once, takes one search after another, and asks
the server whatever a search asks. Each answer is kept there before the search goes on: one that
begins again on another machine is told what it was told before, and goes on where it was.

Both become Ray's actors in `rlprompt.studies.ray_cluster`; nothing here starts anything.
"""

from __future__ import annotations

import dataclasses
import os
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rlprompt._utils.text import error_line
from rlprompt.models.fingerprint import loading
from rlprompt.models.lm import FrozenLM
from rlprompt.models.served.bill import Bill, Usage
from rlprompt.models.served.lm import ServedLM
from rlprompt.search.memo import Memo, Question, V
from rlprompt.search.result import Result
from rlprompt.store.changes import differences
from rlprompt.store.database import StoreError
from rlprompt.studies.planned_search import PlannedSearch
from rlprompt.studies.provenance import here
from rlprompt.studies.search_queue import SearchQueue


class ModelReference(FrozenLM):
    """A model by what tells it from others, to be loaded in the process that needs it.

    Args:
        lm: The model here.
        load: Loads it there, given its name; by default `FrozenLM.load`, or for a model on a server
            what connects to it.
    """

    def __init__(self, lm: FrozenLM, load: Callable[[str], FrozenLM] | None = None) -> None:
        self.name = lm.name
        # In place of the cached property of the class, which would hash weights.
        self.fingerprint = lm.fingerprint
        path = lm.fingerprint.model
        self._place = os.path.abspath(path) if os.path.exists(path) else path
        self._load = lm.again() if isinstance(lm, ServedLM) and load is None else load

    def live(self) -> FrozenLM:
        """The model, loaded.

        Raises:
            ValueError: It cannot be loaded here, or is another model here.
        """
        known = self.fingerprint
        if self._load is not None:
            live = self._load(self._place)
        else:  # not in `dtype: auto`, which may choose another here
            live = FrozenLM.load(self._place, **loading(dataclasses.asdict(known)))
        if live.fingerprint.digest != known.digest:
            there, here = map(dataclasses.asdict, (known, live.fingerprint))
            raise ValueError(
                f"{self.name} is another model on this machine, so the search cannot run here: "
                + "; ".join(differences(there, here, words=("on the first", "here")))
            )
        live.name = self.name
        return live


@dataclasses.dataclass
class _Attempt:
    """A search that a worker is at; `number` tells it from earlier attempts at the same search."""

    name: str
    number: int
    memo: Memo


class StudyServer:
    """Hands out the searches of a study, and answers what they ask.

    Args:
        folder: As for `SearchQueue`.
        searches: As for `SearchQueue`; their models are references.
        config: As for `SearchQueue`.
        cache: As for `SearchQueue`.
    """

    def __init__(
        self,
        folder: Path,
        searches: Mapping[str, PlannedSearch],
        config: Mapping[str, Any],
        cache: Path | None = None,
    ) -> None:
        self._queue = SearchQueue(folder, searches, config, cache)
        self._attempts: dict[int, _Attempt] = {}
        self._tracebacks: dict[str, str] = {}

    def begin(
        self, worker: int, model: str, environment: Mapping[str, Any]
    ) -> tuple[int, PlannedSearch] | None:
        """A search for a worker: the one that it was at, if its machine was lost, or another.

        Args:
            worker: Its number.
            model: Fingerprint of the model that it has loaded, or ""; what needs no other is
                preferred.
            environment: What it runs on (`provenance.here`).

        Returns:
            A number for its questions, and the search; None where nothing is left to begin.
        """
        before = self._attempts.get(worker)
        searches = self._queue.searches.items()
        at_hand = {name for name, one in searches if one.lm.fingerprint.digest == model}
        name = before.name if before else self._queue.claim(at_hand)
        if name is None:
            return None
        self._queue.store.note_environment(environment)
        number = before.number + 1 if before else 0
        self._attempts[worker] = _Attempt(name, number, self._queue.memo(name))
        return number, self._queue.searches[name]

    def ask(self, worker: int, number: int, method: str, *args: Any) -> Any:
        """What a method of the search's memo gives.

        Raises:
            StoreError: The search was begun again since, or the store cannot be used.
        """
        return getattr(self._attempt(worker, number).memo, method)(*args)

    def requests(self, method: str, *args: Any) -> Any:
        """What a method of the study's answers of servers gives (`Answers`)."""
        return getattr(self._queue.store.requests, method)(*args)

    def end(
        self, worker: int, number: int, result: Result | None, error: str, details: str
    ) -> None:
        """Keep what came of a search; see `SearchQueue.end`. `details` is an error's traceback."""
        name = self._attempt(worker, number).name
        self._queue.end(name, result, error)
        self._tracebacks[name] = details
        del self._attempts[worker]

    def traceback(self, name: str) -> str:
        """Of the error that ended a search; "" where none did, or another worker did it."""
        return self._tracebacks.get(name, "")

    def _attempt(self, worker: int, number: int) -> _Attempt:
        attempt = self._attempts.get(worker)
        if attempt is None or attempt.number != number:
            raise StoreError("the search was restarted on another machine; this one leaves it")
        return attempt


class RemoteMemo:
    """Answers that are asked for at the study's server (`Memo`).

    Args:
        ask: Calls `StudyServer.ask` for this search.
    """

    def __init__(self, ask: Callable[..., Any]) -> None:
        self._ask = ask

    def get(self, question: Question[V]) -> V | None:
        """See `Memo.get`."""
        found: V | None = self._ask("get", question)
        return found

    def put(self, question: Question[V], answer: V) -> V:
        """See `Memo.put`."""
        kept: V = self._ask("put", question, answer)
        return kept


class RemoteAnswers:
    """Answers of a server that are kept at the study's (`Answers`).

    Args:
        call: Calls a method of `StudyServer.requests`.
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def get(self, key: bytes) -> Mapping[str, Any] | None:
        """See `Answers.get`."""
        found: Mapping[str, Any] | None = self._call("get", key)
        return found

    def put(self, key: bytes, model: str, answer: Mapping[str, Any], usage: Usage) -> None:
        """See `Answers.put`."""
        self._call("put", key, model, answer, usage)

    def bill(self, model: str) -> Bill:
        """See `Answers.bill`."""
        found: Bill = self._call("bill", model)
        return found


class Worker:
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
            call: Calls a method of the server, by its name, and waits for what it gives.

        Raises:
            StoreError: An answer could not be kept.
            ValueError: The model cannot be loaded here.
        """
        while (begun := call("begin", self._number, self._loaded, here())) is not None:
            self._search(call, *begun)

    @property
    def _loaded(self) -> str:
        return self._lm.fingerprint.digest if self._lm else ""

    def _search(self, call: Callable[..., Any], number: int, search: PlannedSearch) -> None:
        place, found = (self._number, number), list[Result]()
        ask = partial(call, "ask", *place)
        search = dataclasses.replace(search, lm=self._live(search.lm))
        if isinstance(search.lm, ServedLM):
            search.lm.keep_answers(RemoteAnswers(partial(call, "requests")))
        try:
            result = search.run(RemoteMemo(ask), None, found.append)
        except StoreError:
            raise
        # As in `SearchQueue.run`: kept with what was found and reported; the other searches go on.
        except Exception as error:
            line = error_line(error)
            details = traceback.format_exc()
            call("end", *place, found[0] if found else None, line, details)
        else:
            call("end", *place, result, "", "")

    def _live(self, lm: FrozenLM) -> FrozenLM:
        """The model in the memory of this process."""
        assert isinstance(lm, ModelReference)
        if self._lm is None or self._loaded != lm.fingerprint.digest:
            self._lm = None  # before loading: two may not fit
            self._lm = lm.live()
        return self._lm
