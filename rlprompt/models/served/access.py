"""How a server is reached, checked before anything is sent; to read it takes no HTTP client."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

DEFAULT_KEY_ENV = "OPENAI_API_KEY"


class ServerError(ValueError):
    """A server does not answer, or not as is needed. The message says why and what to do."""


@dataclass(frozen=True)
class Access:
    """How a server is reached.

    >>> Access("http://127.0.0.1:8000/v1/").url
    'http://127.0.0.1:8000/v1'

    Args:
        url: Where its API begins, mostly with `/v1` at the end.
        key_env: The environment variable that holds the key, if the server wants one.
        concurrency: Requests at a time, 1 or more.
        timeout: Seconds that an answer may take, above 0.
        attempts: How often a request is sent at the most, 1 or more.

    Raises:
        ValueError: The address is none, or holds a name and password; the variable's name is
            none; or a number is out of its range.
    """

    url: str
    key_env: str = DEFAULT_KEY_ENV
    concurrency: int = 8
    timeout: float = 120.0
    attempts: int = 6

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        object.__setattr__(self, "url", checked_url(self.url))
        checked_key_env(self.key_env)
        if self.concurrency < 1 or self.attempts < 1 or not self.timeout > 0:
            raise ValueError(
                "a served model takes concurrency and attempts of 1 or more and a timeout above 0 "
                f"seconds, got {self.concurrency}, {self.attempts} and {self.timeout}"
            )

    @property
    def key(self) -> str:
        """The key, "" where there is none.

        Raises:
            ServerError: It cannot be a key.
        """
        key = os.environ.get(self.key_env, "").strip()
        if not re.fullmatch(r"[\x21-\x7e]*", key):  # a header takes no other, and shows it
            raise ServerError(
                f"the environment variable {self.key_env} holds white space or letters that no key "
                "has; set it to the key alone"
            )
        return key


def checked_url(url: str) -> str:
    """An address without a slash at its end.

    Raises:
        ValueError: It is none, or holds what is secret, which the message does not repeat.
    """
    try:
        parts = urlsplit(url.strip())
        parts.port  # noqa: B018  # is read, and refused, here
    except ValueError:
        raise ValueError("url is no address; give one such as http://127.0.0.1:8000/v1") from None
    if "@" in parts.netloc:
        raise ValueError(
            "url holds a name or a password before the @, which would be kept with the study; "
            "leave them out, and put a key into an environment variable (key_env)"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"url is {url!r}; give an address such as http://127.0.0.1:8000/v1")
    if parts.query or parts.fragment:
        raise ValueError("url has a ? or a #; give what comes before it, and a key by key_env")
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


def checked_key_env(name: str) -> str:
    """The name of an environment variable.

    Raises:
        ValueError: It is none, and may be the key itself: the message does not repeat it.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name or ""):  # YAML's null is no text
        raise ValueError(
            "key_env is the name of an environment variable, letters, digits and _, such as "
            f"{DEFAULT_KEY_ENV}, and not the key itself; leave it out where there is no key"
        )
    return name
