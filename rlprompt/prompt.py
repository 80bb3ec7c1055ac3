"""What is searched for: a short sequence of tokens or of embedding vectors.

Both kinds are values: frozen, compared and hashed by content, and never tied to a model object.

>>> TokenPrompt((504, 572)) == TokenPrompt([504, 572])
True
>>> len(SoftPrompt(np.zeros((5, 16), dtype=np.float32)))
5
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class TokenPrompt:
    """A prompt of vocabulary tokens.

    >>> prompt = TokenPrompt([504, 572])
    >>> prompt.ids, prompt == TokenPrompt((504, 572))
    ((504, 572), True)

    Args:
        ids: Token ids, each >= 0; any sequence of integers, kept as a tuple. May be empty.

    Raises:
        ValueError: An id is negative or no integer.
    """

    ids: tuple[int, ...]

    def __init__(self, ids: Sequence[int] | NDArray[np.integer] = ()) -> None:
        try:
            kept = tuple(int(i) for i in ids)
            exact = all(k == i for k, i in zip(kept, ids, strict=True))
        except (TypeError, ValueError, OverflowError):
            kept, exact = (), False
        if not exact or any(i < 0 for i in kept):
            raise ValueError(
                f"a token prompt takes token ids (integers, 0 or above), got {ids!r}; "
                "use FrozenLM.encode to turn text into ids"
            )
        object.__setattr__(self, "ids", kept)

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.ids)

    @cached_property
    def digest(self) -> str:
        """Hexadecimal content hash, the same in every process."""
        return hashlib.blake2b(
            repr(self.ids).encode(), digest_size=16, person=b"tokens"
        ).hexdigest()


@dataclass(frozen=True, eq=False)
class SoftPrompt:
    """A prompt of embedding vectors.

    >>> prompt = SoftPrompt(np.zeros((5, 16)))
    >>> len(prompt), prompt.vectors.dtype, prompt == SoftPrompt(np.zeros((5, 16)))
    (5, dtype('float32'), True)

    Args:
        vectors: (length, hidden), finite; copied to a read-only float32 array.

    Raises:
        ValueError: Not two-dimensional, or not finite.
    """

    vectors: NDArray[np.float32]

    def __init__(self, vectors: ArrayLike) -> None:
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
            # + 0 turns -0 into 0: equal numbers must have equal bytes.
            kept = np.array(vectors, dtype=np.float32) + np.float32(0)
        if kept.ndim != 2:
            raise ValueError(f"a soft prompt has shape (length, hidden), got {kept.shape}")
        if not np.isfinite(kept).all():
            raise ValueError("a soft prompt must be finite, got NaN or infinity")
        kept.setflags(write=False)
        object.__setattr__(self, "vectors", kept)

    def __len__(self) -> int:
        """Number of vectors."""
        return int(self.vectors.shape[0])

    @cached_property
    def digest(self) -> str:
        """Hexadecimal content hash, the same in every process."""
        content = repr(self.vectors.shape).encode() + self.vectors.tobytes()
        return hashlib.blake2b(content, digest_size=16, person=b"vectors").hexdigest()

    def __eq__(self, other: object) -> bool:
        """Equal when every number is."""
        return isinstance(other, SoftPrompt) and np.array_equal(self.vectors, other.vectors)

    def __hash__(self) -> int:
        """Hash of the content, the same in every process, so that a set keeps its order."""
        return int(self.digest[:15], 16)


Prompt = TokenPrompt | SoftPrompt


@dataclass(frozen=True)
class Length:
    """How long a prompt may be: any number of tokens from `at_least` to `at_most`.

    Wherever a length is asked for, an int stands for exactly that many.

    >>> Length(5)
    Length(at_most=5, at_least=1)
    >>> Length.of(5), Length.of(5).simplest
    (Length(at_most=5, at_least=5), 5)

    Args:
        at_most: Tokens in the longest prompt, and vectors in every soft prompt.
        at_least: Tokens in the shortest, 1 or more.

    Raises:
        ValueError: A length is below 1, or there is none in the range.
    """

    at_most: int
    at_least: int = 1

    def __post_init__(self) -> None:
        """Refuse an empty range."""
        for length in (self.at_most, self.at_least):
            if length < 1:
                raise ValueError(f"a prompt has one token or more, got length {length}")
        if self.at_least > self.at_most:
            raise ValueError(
                f"no prompt has at least {self.at_least} and at most {self.at_most} tokens; give "
                f"at_least from 1 to {self.at_most}"
            )

    @classmethod
    def of(cls, length: int | Length) -> Length:
        """The range that a number, or a range, stands for."""
        if isinstance(length, Length):
            return length
        exactly = operator.index(length)
        return cls(exactly, exactly)

    @property
    def simplest(self) -> int | Length:
        """A number where only one length is allowed, as files keep it."""
        return self.at_most if self.at_least == self.at_most else self
