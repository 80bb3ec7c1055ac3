"""Asking a server over HTTP: side by side, again where that helps, and never without an end.

A request is tried again where it may be answered the next time: too many of them (429, after the
time that the server says), a fault of the server (5xx), no connection, no answer in time, half an
answer. Waits double, with a random part so that clients do not come back together (Brooker 2015,
"Exponential Backoff And Jitter"). What does not help to ask again ends in one sentence at once, and
so does the last attempt. A key stands in the header of a request and nowhere else.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import json
import logging
import random
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import httpx2

from rlprompt.models.served.access import Access, ServerError

logger = logging.getLogger(__name__)

T = TypeVar("T")
Json = dict[str, Any]

# Statuses that another attempt may mend: the request took too long, came too early, or too many.
PASSING = (408, 425, 429)
# Seconds before the second attempt, on average, and the most that is waited before any.
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
# The most seconds that a server may ask to be left alone for.
PATIENCE = 600.0
# Seconds in which a connection has to stand.
CONNECT = 10.0
# Characters of what a server says of an error that are repeated.
SAID = 200


class NotThereError(ServerError):
    """The server knows no such address, model or setting (404, 400, 405, 422, 501)."""


@dataclass
class Api:
    """A server's API; its methods may be called from several threads.

    Args:
        access: How it is reached.
        transport: What carries requests; None for the network.

    Attributes:
        was_gone: Whether an attempt has failed since this was set to False: what answers now may
            have been started anew.
    """

    access: Access
    transport: httpx2.BaseTransport | None = None
    was_gone: bool = False
    _stopped: threading.Event = field(default_factory=threading.Event, repr=False)

    def __post_init__(self) -> None:
        """Open the connections; none is made before the first request."""
        limit = self.access.concurrency
        self._http = httpx2.Client(
            timeout=httpx2.Timeout(self.access.timeout, connect=min(CONNECT, self.access.timeout)),
            limits=httpx2.Limits(max_connections=limit, max_keepalive_connections=limit),
            transport=self.transport,
            # Certificates take a while to read, and nothing follows a redirect to where they count.
            verify=self.access.url.startswith("https"),
        )
        weakref.finalize(self, self._http.close)

    def get(self, path: str) -> Json:
        """What is at a path; errors as for `post`."""
        return self._asked("GET", path, None)

    def post(self, path: str, content: Mapping[str, Any]) -> Json:
        """The answer to a request, a JSON object.

        Raises:
            NotThereError: There is no such path, model or setting.
            ServerError: It was not answered, after as many attempts as are allowed.
        """
        return self._asked("POST", path, content)

    def each(
        self, do: Callable[[T], Json], asked: Sequence[T], keep: Callable[[T, Json], None]
    ) -> None:
        """Ask, so many at a time as is allowed, and have each answer kept as it arrives.

        Where one ends in an error, or Ctrl-C is pressed, nothing new is sent, and what is under way
        is still waited for and kept: it may have to be paid for.

        Args:
            do: Asks one, in a thread of its own.
            asked: All there are.
            keep: Is given each with its answer, in the thread of the caller.

        Raises:
            ServerError: As for `post`, once all that was under way is kept.
        """
        left, failed = iter(asked), list[BaseException]()
        waiting: dict[Future[Json], T] = {}
        self._stopped.clear()

        def fail(error: BaseException) -> None:
            self._stopped.set()  # others that wait to try again need not
            failed.append(error)

        with ThreadPoolExecutor(self.access.concurrency, "served") as pool:
            while True:
                free = 0 if failed else self.access.concurrency - len(waiting)
                waiting |= {pool.submit(do, one): one for one in islice(left, free)}
                if not waiting:
                    break
                try:
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                except KeyboardInterrupt as interrupt:
                    fail(interrupt)
                    continue
                for future in done:
                    one, error = waiting.pop(future), future.exception()
                    if error is not None:
                        fail(error)
                        continue
                    try:
                        keep(one, future.result())
                    except KeyboardInterrupt as interrupt:
                        fail(interrupt)
                        keep(one, future.result())
                    except Exception as problem:
                        fail(problem)
        if failed:
            # What came first is why; those that were stopped have nothing to add.
            raise failed[0]

    def _asked(self, method: str, path: str, content: Mapping[str, Any] | None) -> Json:
        url, problem = f"{self.access.url}/{path}", ""
        for attempt in range(self.access.attempts):
            pause: float | None = None
            try:
                response = self._http.request(method, url, json=content, headers=self._headers())
                if response.status_code == 200:
                    return _object(response.content)
                self._refuse(response, path)
                problem, pause = f"it answers {self._said(response)}", retry_after(response.headers)
            except httpx2.TimeoutException:
                problem = f"it does not answer within {self.access.timeout:g} s"
            except httpx2.TransportError as error:
                problem = f"there is no connection to it ({_plain(error)})"
            except json.JSONDecodeError:
                problem = "it answers half a JSON object, or none"
            self.was_gone = True
            if pause is not None and pause > PATIENCE:
                problem += f", and asks to wait {pause:,.0f} s"
                break
            if attempt + 1 < self.access.attempts:
                seconds = pause if pause is not None else backoff(attempt)
                logger.info("%s: %s; again in %.1f s", self.access.url, problem, seconds)
                if self._stopped.wait(seconds):
                    break
        raise ServerError(
            f"the server at {self.access.url} gave no answer in {attempt + 1} attempts: {problem}; "
            "see that it runs and has room, and run the same command again: what was answered is "
            "kept"
        )

    def _headers(self) -> dict[str, str]:
        key = self.access.key
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _refuse(self, response: httpx2.Response, path: str) -> None:
        """End what another attempt cannot mend."""
        status, where, key_env = response.status_code, self.access.url, self.access.key_env
        if status in (401, 403):
            # Some repeat the key in what they say.
            raise ServerError(
                f"the server at {where} refuses the key in the environment variable {key_env} "
                f"({status}); set it to a key that may use this model"
                if self.access.key
                else f"the server at {where} wants a key ({status}), and the environment variable "
                f"{key_env} is not set; set it, or name another with key_env"
            )
        if status == 402 or (status == 429 and "insufficient_quota" in response.text):
            raise ServerError(f"the server at {where} wants to be paid: {self._said(response)}")
        # llama.cpp's server calls a setting that it has not a fault of its own, and so does
        # `transformers serve` a list of models on a machine that has none in the hub's cache.
        unknown = status == 500 and (path == "models" or "support" in response.text.lower())
        if unknown or status in (400, 404, 405, 422, 501):
            raise NotThereError(
                f"the server at {where} refuses a request to /{path}: {self._said(response)}"
            )
        if status not in PASSING and status < 500:
            raise ServerError(f"the server at {where} answers {self._said(response)}")

    def _said(self, response: httpx2.Response) -> str:
        """A status and what a server says of it, in a line, without the key."""
        said = response.text
        with contextlib.suppress(ValueError):
            content = json.loads(said)
            error = content.get("error", content) if isinstance(content, dict) else content
            found = error.get("message", error.get("detail")) if isinstance(error, dict) else error
            said = found if isinstance(found, str) else json.dumps(found)
        if key := self.access.key:
            said = said.replace(key, "(the key)")
        said = " ".join(said.split())
        return f"{response.status_code} {said[:SAID]}".strip()


def backoff(attempt: int) -> float:
    """Seconds before the attempt after this one, counted from 0: doubling, and half to all of it.

    >>> 0.25 <= backoff(0) <= 0.5, 15 <= backoff(20) <= 30
    (True, True)
    """
    # Of no result's business, so not of its seed's.
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0**attempt) * random.uniform(0.5, 1)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to be left alone for, or None (RFC 9110, section 10.2.3).

    >>> retry_after({"Retry-After": "2"}), retry_after({}), retry_after({"Retry-After": "soon"})
    (2.0, None, None)
    """
    given = httpx2.Headers(headers).get("retry-after", "")
    with contextlib.suppress(ValueError):
        return max(0.0, float(given))
    try:
        until = email.utils.parsedate_to_datetime(given)
    except ValueError:
        return None
    now = datetime.datetime.now(until.tzinfo)
    return max(0.0, (until - now).total_seconds())


def _object(content: bytes) -> Json:
    """A JSON object; `json.JSONDecodeError` where it is none."""
    try:
        found = json.loads(content)
    except UnicodeDecodeError:
        raise json.JSONDecodeError("no UTF-8", "", 0) from None
    if not isinstance(found, dict):
        raise json.JSONDecodeError("no object", "", 0)
    return found


def _plain(error: httpx2.TransportError) -> str:
    """What went wrong on the way, in words."""
    if isinstance(error, httpx2.ConnectError):
        return "refused, or no such host"
    return "lost" if isinstance(error, httpx2.NetworkError | httpx2.ProtocolError) else "failed"
