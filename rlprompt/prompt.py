"""What is searched for: a sequence of tokens, of embedding vectors, of keys and values, or a text.

All kinds are values: frozen, compared and hashed by content, and never tied to a model object.

>>> TokenPrompt((504, 572)) == TokenPrompt([504, 572])
True
>>> len(SoftPrompt(np.zeros((5, 16), dtype=np.float32)))
5
>>> len(PrefixPrompt(np.zeros((5, 30, 2, 3, 64), dtype=np.float32)))
5
>>> TextPrompt("It was").text
'It was'
"""

from __future__ import annotations

import difflib
import hashlib
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlprompt.types import Ids, PoolKind, PromptKind, StartName

START_NAMES: tuple[StartName, ...] = get_args(StartName)
POOL_KINDS: tuple[PoolKind, ...] = get_args(PoolKind)
# The file that makes a folder that of an exported prompt.
FACTS = "prompt.json"


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

    kind: ClassVar[PromptKind] = "tokens"

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

    def replaced(self, place: int, token: int) -> TokenPrompt:
        """The prompt with another token in a place, counted as in a list.

        >>> TokenPrompt([3, 4]).replaced(0, 7).ids
        (7, 4)

        Raises:
            IndexError: There is no such place.
        """
        ids = list(self.ids)
        ids[place] = token
        return TokenPrompt(ids)

    def inserted(self, place: int, token: int) -> TokenPrompt:
        """The prompt with one token more, before the one in a place or, past the last, at the end.

        >>> TokenPrompt([3, 4]).inserted(1, 7).ids, TokenPrompt([3, 4]).inserted(2, 7).ids
        ((3, 7, 4), (3, 4, 7))
        """
        return TokenPrompt((*self.ids[:place], token, *self.ids[place:]))

    def without(self, place: int) -> TokenPrompt:
        """The prompt without the token in a place, counted as in a list.

        >>> TokenPrompt([3, 4]).without(0).ids
        (4,)

        Raises:
            IndexError: There is no such place.
        """
        ids = list(self.ids)
        del ids[place]
        return TokenPrompt(ids)

    @cached_property
    def digest(self) -> str:
        """Hexadecimal content hash, the same in every process."""
        return hashlib.blake2b(
            repr(self.ids).encode(), digest_size=16, person=b"tokens"
        ).hexdigest()


@dataclass(frozen=True, eq=False)
class SoftPrompt:
    """A prompt of vectors: of embeddings, which a model is fed in the place of tokens'.

    >>> prompt = SoftPrompt(np.zeros((5, 16)))
    >>> len(prompt), prompt.vectors.dtype, prompt == SoftPrompt(np.zeros((5, 16)))
    (5, dtype('float32'), True)

    Args:
        vectors: (length, hidden), finite; copied to a read-only float32 array.

    Raises:
        ValueError: Not two-dimensional, or not finite.
    """

    kind: ClassVar[PromptKind] = "soft"
    axes: ClassVar[tuple[str, ...]] = ("length", "hidden")

    vectors: NDArray[np.float32]

    def __init__(self, vectors: ArrayLike) -> None:
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
            # + 0 turns -0 into 0: equal numbers must have equal bytes.
            kept = np.array(vectors, dtype=np.float32) + np.float32(0)
        if kept.ndim != len(self.axes):
            raise ValueError(
                f"a {self.kind} prompt has shape ({', '.join(self.axes)}), got {kept.shape}"
            )
        if not np.isfinite(kept).all():
            raise ValueError(f"a {self.kind} prompt must be finite, got NaN or infinity")
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


class EmbeddedPrompt(SoftPrompt):
    """The vectors that tokens are fed as, for a gradient along these; what it says is known.

    Args:
        ids: The tokens.
        vectors: As for `SoftPrompt`, one a token.
    """

    ids: Ids

    def __init__(self, ids: Ids, vectors: ArrayLike) -> None:
        super().__init__(vectors)
        object.__setattr__(self, "ids", ids)


class PrefixPrompt(SoftPrompt):
    """A prompt of vectors at every layer: the keys and values of tokens that nobody wrote.

    A causal model finds them before all that it reads, special tokens included, as if it had read
    so many tokens already (prefix tuning, Li & Liang 2021, arXiv 2101.00190; P-tuning v2, Liu et
    al. 2022, arXiv 2110.07602). Positions come first, in PEFT's order, so that a part of the prompt
    is a part of the array.

    >>> prompt = PrefixPrompt(np.zeros((5, 30, 2, 3, 64)))  # 30 layers, 3 heads of 64
    >>> len(prompt), prompt.kind, prompt == SoftPrompt(np.zeros((5, 16)))
    (5, 'prefix', False)

    Args:
        vectors: (length, layers, 2, heads, width), keys before values, as the layers keep them:
            where positions turn keys, turned; finite; copied to a read-only float32 array.

    Raises:
        ValueError: Of another shape, or not finite.
    """

    kind = "prefix"
    axes = ("length", "layers", "2", "heads", "width")

    def __init__(self, vectors: ArrayLike) -> None:
        super().__init__(vectors)
        if self.vectors.shape[2] != 2:
            raise ValueError(
                f"a prefix prompt has keys and values, shape ({', '.join(self.axes)}), got "
                f"{self.vectors.shape}"
            )


@dataclass(frozen=True)
class TextPrompt:
    """A prompt of text, which belongs to no tokenizer: each model spells it its own way.

    What a model on this machine reads is the tokens of the text by itself (`FrozenLM.fed`), and
    so it scores as the `TokenPrompt` of these does.

    >>> prompt = TextPrompt(" It was")
    >>> prompt.text, len(prompt), prompt == TextPrompt(" It was"), prompt == TokenPrompt((504, 572))
    (' It was', 7, True, False)

    Args:
        text: Exactly what stands in the prompt's place, spaces and line breaks included. May be
            empty.

    Raises:
        ValueError: It is no text, or holds half a character (a surrogate alone).
    """

    kind: ClassVar[PromptKind] = "text"

    text: str

    def __post_init__(self) -> None:
        """Refuse what is no text."""
        if not isinstance(self.text, str):
            raise ValueError(f"a text prompt takes a text, got {self.text!r}")
        try:
            self.text.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"a text prompt takes whole characters, got {self.text!r}, which holds half of one"
            ) from None

    def __len__(self) -> int:
        """Number of characters; how many tokens they are is each model's own affair."""
        return len(self.text)

    @cached_property
    def digest(self) -> str:
        """Hexadecimal content hash, the same in every process."""
        return hashlib.blake2b(self.text.encode(), digest_size=16, person=b"text").hexdigest()


FedPrompt = TokenPrompt | SoftPrompt
"""What a model is fed: all but text, which is spelt before."""

Prompt = FedPrompt | TextPrompt


def vector_prompt(vectors: NDArray[np.floating]) -> SoftPrompt:
    """The prompt of vectors: what has more axes than embeddings have is keys and values.

    >>> vector_prompt(np.zeros((5, 16))).kind, vector_prompt(np.zeros((5, 30, 2, 3, 64))).kind
    ('soft', 'prefix')
    """
    return (PrefixPrompt if vectors.ndim > len(SoftPrompt.axes) else SoftPrompt)(vectors)


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


Start = str | Prompt
"""Where a search begins: a name of `START_NAMES`, a text, or a prompt."""


def checked_starts(start: Start | Sequence[Start]) -> tuple[Start, ...]:
    """One start or several as a tuple.

    >>> checked_starts("hand"), checked_starts(["auto", "It was"])
    (('hand',), ('auto', 'It was'))

    Raises:
        ValueError: There is none, a text is empty or looks like a name that is misspelt, or a start
            is one of keys and values.
    """
    one = isinstance(start, Start)
    starts: tuple[Start, ...] = (start,) if one else tuple(start)  # type: ignore[arg-type,assignment]
    if not starts:
        raise ValueError(f"no start; give a text, or one of {', '.join(START_NAMES)}")
    if any(isinstance(prompt, PrefixPrompt) for prompt in starts):
        raise ValueError(
            "a prompt of keys and values is no start; give a text, tokens or a soft prompt, and "
            "methods that search them begin with what the model makes of it"
        )
    for text in starts:
        if not isinstance(text, str):
            continue
        if not text.strip():
            raise ValueError(f"a start is one word or more, got {text!r}")
        near = difflib.get_close_matches(text, START_NAMES, 1, 0.75)
        if near and near[0] != text:
            raise ValueError(
                f"start {text!r}: did you mean {near[0]!r}? To begin with that text, write a space "
                f"before it: {' ' + text!r}"
            )
    return starts


@dataclass(frozen=True)
class Pool:
    """Which tokens a token prompt is made of, and how many.

    >>> Pool.of("words"), Pool.of({"likely": 100})
    (Pool(kind='words', size=300), Pool(kind='likely', size=100))
    >>> Pool.of("all").simplest, Pool.of("words").simplest
    ('all', {'words': 300})

    Args:
        kind: `all` that one can type; `words`: common words, words that the train texts have more
            often than other texts, and words that the model expects after them, as many of each;
            `likely`: tokens that the model expects there, whatever they are; or `gradient`: tokens
            that would bring most by the gradient at the hand prompt, paid from the budget, and for
            vectors as `all`.
        size: How many, 1 or more, unless it is all. 300 is ours: 100 common words, as pools of 60
            to 200 were tried.

    Raises:
        ValueError: There is no such kind, or it would be empty.
    """

    kind: PoolKind = "all"
    size: int = 300

    def __post_init__(self) -> None:
        """Refuse a pool of another kind, or of none."""
        if self.kind not in POOL_KINDS:
            raise ValueError(
                f"there are no tokens of the kind {self.kind!r}; give one of "
                f"{', '.join(POOL_KINDS)}, or a number of them, such as {{words: 300}}"
            )
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise ValueError(
                f"a pool has a whole number of tokens, 1 or more, got {self.size!r} {self.kind}"
            )

    @classmethod
    def of(cls, tokens: str | Mapping[str, int] | Pool) -> Pool:
        """The pool that a kind stands for, or a kind with its size."""
        if isinstance(tokens, Pool):
            return tokens
        if not isinstance(tokens, Mapping):
            return cls(tokens)  # type: ignore[arg-type]  # checked there
        if len(tokens) != 1 or "all" in tokens:
            raise ValueError(
                f"a pool is one kind with its size, such as {{words: 300}}, got {dict(tokens)}"
            )
        ((kind, size),) = tokens.items()
        return cls(kind, size)  # type: ignore[arg-type]

    @property
    def simplest(self) -> str | dict[str, int]:
        """As files keep it."""
        return self.kind if self.kind == "all" else {self.kind: self.size}
