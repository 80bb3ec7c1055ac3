"""Answers of a server that were paid for, and what they come to.

>>> kept = InMemory()
>>> kept.put(b"asked", "model", {"text": "yes"}, Usage(12, 1))
>>> kept.get(b"asked"), kept.bill("model")
({'text': 'yes'}, Bill(requests=1, tokens_in=12, tokens_out=1, untold=0))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol


class Usage(NamedTuple):
    """What a server counts of one request; None where it says nothing.

    Attributes:
        tokens_in: Tokens that the model read.
        tokens_out: Tokens that it wrote.
    """

    tokens_in: int | None
    tokens_out: int | None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Usage:
        """What an answer says of itself."""
        told = answer.get("usage")
        found = [told.get(f"{kind}_tokens") for kind in ("prompt", "completion")] if told else []
        if not all(isinstance(number, int) for number in found) or not found:
            return cls(None, None)
        return cls(*found)


@dataclass(frozen=True)
class Prices:
    """Money for a million tokens, in a currency of one's own.

    >>> Bill(requests=1, tokens_in=12, tokens_out=1).cost(Prices(input=2.0, output=8.0))
    3.2e-05

    Args:
        input: Price of a million tokens that the model reads, 0 or more.
        output: Price of a million tokens that it writes, 0 or more.

    Raises:
        ValueError: One is below 0.
    """

    input: float
    output: float

    def __post_init__(self) -> None:
        """Refuse to be paid."""
        if not (0 <= self.input < float("inf") and 0 <= self.output < float("inf")):
            raise ValueError(f"prices are 0 or more for a million tokens, got {self}")


@dataclass(frozen=True)
class Bill:
    """What requests come to, as the server counts.

    >>> Bill().plus(Usage(12, 1)).plus(Usage(None, None))
    Bill(requests=2, tokens_in=12, tokens_out=1, untold=1)

    Attributes:
        requests: Those that were answered.
        tokens_in: Tokens that the model read for them.
        tokens_out: Tokens that it wrote.
        untold: Requests of which the server did not say how many tokens they took.
    """

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    untold: int = 0

    def plus(self, usage: Usage) -> Bill:
        """The bill with one more request."""
        return Bill(
            self.requests + 1,
            self.tokens_in + (usage.tokens_in or 0),
            self.tokens_out + (usage.tokens_out or 0),
            self.untold + (None in usage),
        )

    def cost(self, prices: Prices) -> float:
        """Money, in the currency of the prices."""
        return (self.tokens_in * prices.input + self.tokens_out * prices.output) / 1e6


class Answers(Protocol):
    """Where answers of a server are kept, so that none is paid for twice."""

    def get(self, key: bytes) -> Mapping[str, Any] | None:
        """What was answered to a request, or None."""
        ...

    def put(self, key: bytes, model: str, answer: Mapping[str, Any], usage: Usage) -> None:
        """Keep an answer, for good once this returns.

        Args:
            key: A hash of the request and of the model that it went to.
            model: The digest of that model.
            answer: JSON values.
            usage: What it took.
        """
        ...

    def bill(self, model: str) -> Bill:
        """What the answers of a model come to."""
        ...


@dataclass
class InMemory:
    """Answers for as long as the process lives (`Answers`)."""

    _answers: dict[bytes, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    _bills: dict[str, Bill] = field(default_factory=dict)

    def get(self, key: bytes) -> Mapping[str, Any] | None:
        """See `Answers.get`."""
        return self._answers.get(key)

    def put(self, key: bytes, model: str, answer: Mapping[str, Any], usage: Usage) -> None:
        """See `Answers.put`."""
        self._answers[key] = answer
        self._bills[model] = self.bill(model).plus(usage)

    def bill(self, model: str) -> Bill:
        """See `Answers.bill`."""
        return self._bills.get(model, Bill())
