"""Where optimisers look: tokens, vectors around a start, one a position or many, or text."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length, PrefixPrompt, Prompt, SoftPrompt, TextPrompt, TokenPrompt
from rlprompt.search.vocabulary import banned_in_texts, bans, commonest, typable_tokens

logger = logging.getLogger(__name__)

ReadKeys = Callable[[Sequence[SoftPrompt]], NDArray[np.float32]]
"""What the layers make of soft prompts: `Objective.keys_and_values`, `FrozenLM.keys_and_values`."""

# Prompts of random tokens, and tokens of each, by which the spread of keys and values is told.
SPREAD_OF = (16, 4)


@dataclass(frozen=True, eq=False)
class TokenSpace:
    """Token prompts of one length, or of several, over allowed ids.

    >>> space = TokenSpace(length=3, allowed=[9, 5, 5])
    >>> space.allowed.tolist()
    [5, 9]
    >>> space.contains(space.sample(np.random.default_rng(0)))
    True
    >>> space.shortest, TokenSpace(3, [5, 9], shortest=1).contains(TokenPrompt([9]))
    (3, True)

    Args:
        length: Tokens in the longest prompt, 1 or more.
        allowed: (N,) ids to choose from; kept sorted, each once.
        shortest: Tokens in the shortest prompt, 1 to `length`; 0 stands for `length`, and is read
            as that.
        starts: Prompts to begin with; each lies in the space.
        ranked: The allowed ids again, the most promising first; empty where no order is known.
        known: Mean rewards on train of those starts that were scored there already.

    Raises:
        ValueError: No length, nothing allowed, a start that lies elsewhere, or other ids ranked.
    """

    length: int
    allowed: NDArray[np.int64]
    shortest: int = 0
    starts: tuple[TokenPrompt, ...] = ()
    ranked: tuple[int, ...] = field(default=(), repr=False)
    known: Mapping[TokenPrompt, float] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Sort the ids."""
        lengths = Length(self.length, self.shortest or self.length)
        object.__setattr__(self, "shortest", lengths.at_least)
        allowed = np.unique(np.asarray(self.allowed, dtype=np.int64))
        if not len(allowed):
            raise ValueError("no token is allowed; ban less")
        object.__setattr__(self, "allowed", allowed)
        if self.ranked and sorted(self.ranked) != allowed.tolist():
            raise ValueError("what is ranked are the allowed tokens, each once")
        for start in self.starts:
            if not self.contains(start):
                raise ValueError(f"the start {start!r} is no prompt of the space")

    @classmethod
    def from_lm(
        cls,
        lm: FrozenLM,
        length: int | Length,
        banned: Collection[str | int] = (),
        tokens: Collection[int] | None = None,
    ) -> TokenSpace:
        """The tokens of a model that one can read and type, less what is banned.

        Args:
            lm: The model.
            length: Tokens in a prompt, exactly or from a shortest to a longest.
            banned: Ids, or words; a word bans every token that spells it, in any case and with or
                without a space before it. One that takes several tokens cannot be banned.
            tokens: The ids to choose from instead, such as a task's own (`Task.tokens`).
        """
        ids, words = bans(banned)
        texts = typable_tokens(lm) if tokens is None else {i: lm.decode([i]) for i in tokens}
        spelt = {token: text.strip().casefold() for token, text in texts.items()}
        for word in sorted(words - set(spelt.values())):
            logger.warning("no single token of %s spells %r, so it is not banned", lm.name, word)
        allowed = [token for token, word in spelt.items() if token not in ids and word not in words]
        lengths = Length.of(length)
        return cls(lengths.at_most, np.array(allowed, dtype=np.int64), lengths.at_least)

    def over(self, tokens: Sequence[int] | NDArray[np.int64]) -> TokenSpace:
        """Prompts of the same lengths over these ids, (N,) of them, without starts and order.

        >>> TokenSpace(length=3, allowed=[9, 5], shortest=1).over([7, 5]).allowed.tolist()
        [5, 7]
        """
        return TokenSpace(self.length, np.asarray(tokens), self.shortest)

    @property
    def varies(self) -> bool:
        """Whether prompts may differ in length."""
        return self.shortest < self.length

    def sample(self, rng: np.random.Generator) -> TokenPrompt:
        """A prompt drawn uniformly; of several lengths, the length first, each as likely."""
        length = int(rng.integers(self.shortest, self.length + 1)) if self.varies else self.length
        return TokenPrompt(rng.choice(self.allowed, length))

    @property
    def unscored(self) -> tuple[TokenPrompt, ...]:
        """The starts whose rewards are not known."""
        return tuple(start for start in self.starts if start not in self.known)

    def draws(self, rng: np.random.Generator) -> Iterator[TokenPrompt]:
        """The starts but the known ones, and then prompts drawn uniformly, without an end."""
        yield from self.unscored
        while True:
            yield self.sample(rng)

    def everything(self, known: Container[TokenPrompt] = ()) -> Iterator[TokenPrompt]:
        """All prompts of the space but those that are known once they come up, the shortest first.

        >>> [prompt.ids for prompt in TokenSpace(1, [5, 9]).everything(known={TokenPrompt([5])})]
        [(9,)]
        """
        for length in range(self.shortest, self.length + 1):
            made = map(TokenPrompt, product(self.allowed.tolist(), repeat=length))
            yield from (prompt for prompt in made if prompt not in known)

    def contains(self, prompt: Prompt) -> bool:
        """Whether the prompt lies in the space."""
        return (
            isinstance(prompt, TokenPrompt)
            and self.shortest <= len(prompt) <= self.length
            and bool(np.isin(prompt.ids, self.allowed).all())
        )


class _Around:
    """Prompts of vectors around one start or several."""

    start: NDArray[np.float32]
    others: NDArray[np.float32] | None
    tokens: tuple[int, ...] | None

    def _check_others(self) -> None:
        if self.others is not None and self.others.shape[1:] != self.start.shape:
            raise ValueError(
                f"other starts have the shape (any number, *{self.start.shape}), got "
                f"{self.others.shape}"
            )

    @property
    def starts(self) -> NDArray[np.float32]:
        """All prompts that a search may begin with, (S, *shape of `start`), `start` the first."""
        first = self.start[None]
        return first if self.others is None else np.concatenate([first, self.others])

    @property
    def length(self) -> int:
        """Positions in a prompt, L."""
        return len(self.start)


@dataclass(frozen=True, eq=False)
class SoftSpace(_Around):
    """Soft prompts as coordinates around a start: `start + scale * z`, or `start + basis @ z`.

    >>> space = SoftSpace(np.zeros((2, 4), np.float32), scale=0.5)
    >>> space.length, space.dimension
    (2, 8)
    >>> space.prompt(np.ones(8)).vectors[0].tolist()
    [0.5, 0.5, 0.5, 0.5]
    >>> space.subspace(3, np.random.default_rng(0)).dimension
    3

    Args:
        start: (L, H) float32, the prompt at z = 0.
        scale: Standard deviation of the model's embedding table, the unit of z without a basis.
        basis: None for the full space; (L * H, d) for one subspace of the whole prompt, as in
            Black-Box Tuning (Sun et al. 2022, arXiv 2201.03514); (L, H, d) for one of each vector.
        others: (S - 1, L, H) float32, further prompts that a search may begin with, the best first
            where that is known.
        tokens: Ids that random starts are drawn from; None for the most common (`commonest`).
        known: As for `TokenSpace`, by the prompts of the starts.
    """

    start: NDArray[np.float32]
    scale: float
    basis: NDArray[np.float32] | None = None
    others: NDArray[np.float32] | None = field(default=None, repr=False)
    tokens: tuple[int, ...] | None = field(default=None, repr=False)
    known: Mapping[SoftPrompt, float] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Check the shapes."""
        if self.start.ndim != 2:
            raise ValueError(f"start has shape (length, hidden), got {self.start.shape}")
        Length.of(len(self.start))
        self._check_others()

    @classmethod
    def from_lm(
        cls,
        lm: FrozenLM,
        length: int | Length,
        rng: np.random.Generator,
        tokens: Collection[int] | None = None,
    ) -> SoftSpace:
        """The full space around vectors of randomly drawn tokens.

        All its prompts have the longest length: a soft prompt has no tokens to do without.

        A start at zero or from noise has useless gradients (norm 1e4 and more on SmolLM2), one
        from vocabulary rows has good ones.

        Args:
            lm: The model.
            length: Vectors in a prompt.
            rng: Draws the tokens.
            tokens: Ids to draw from; None for the most common that one can read and type, as in
                Lester et al. (2021, arXiv 2104.08691, section 3.2).
        """
        table = lm.embeddings()
        among = commonest(lm, typable_tokens(lm)) if tokens is None else sorted(tokens)
        drawn = rng.choice(among, Length.of(length).at_most)
        return cls(table[drawn], float(table.std()), tokens=tuple(among))

    @property
    def dimension(self) -> int:
        """Coordinates of a prompt."""
        if self.basis is None:
            return self.start.size
        return int(self.basis.shape[-1]) * (self.length if self.basis.ndim == 3 else 1)

    @property
    def step_dimension(self) -> int:
        """Coordinates of one vector of a prompt.

        Raises:
            ValueError: The subspace is one of the whole prompt, which has no steps.
        """
        if self.basis is not None and self.basis.ndim == 2:
            raise ValueError("a subspace of the whole prompt has no steps; use `stepwise`")
        return self.dimension // self.length

    def subspace(
        self, dimension: int, rng: np.random.Generator, *, alpha: float = 1.0
    ) -> SoftSpace:
        """A random subspace of the whole prompt, A ~ N(0, std^2).

        The scale rule of Black-Box Tuning's released code (`LMForwardAPI.__init__`):
        `std = alpha * std(embeddings) / (sqrt(d) * sigma)`, so that z ~ N(0, sigma^2) moves a
        prompt by `alpha` times the spread of the embeddings; sigma is 1 here.
        """
        return self._projected((self.start.size, dimension), rng, alpha)

    def stepwise(
        self, dimension: int, rng: np.random.Generator, *, sigma: float = 1.0, alpha: float = 1.0
    ) -> SoftSpace:
        """A random subspace of each vector by itself, with the scale rule of `subspace`."""
        return self._projected((*self.start.shape, dimension), rng, alpha, sigma)

    def superposed(
        self,
        dimension: int,
        table: NDArray[np.float32],
        rng: np.random.Generator,
        *,
        alpha: float = 1.0,
    ) -> SoftSpace:
        """A subspace of the whole prompt that real tokens span, with the scale rule of `subspace`.

        Each direction is a prompt of tokens drawn from `table` (N, H), less the mean of all tokens:
        a prompt is the start with a superposition of token prompts on it. After SuperPos
        (arXiv 2406.05279), whose weights are each vector's own and are trained by gradients.

        Args:
            dimension: Directions, 1 or more.
            table: (N, H) float32, the embeddings of the tokens to draw from.
            rng: Draws the tokens.
            alpha: How far z ~ N(0, 1) moves a prompt, in spreads of the model's embeddings.

        Raises:
            ValueError: The tokens are all alike, or there is no direction.
        """
        std = self._std(dimension, alpha)
        centred = table - table.mean(axis=0)
        if not centred.any():
            raise ValueError("one token spans no subspace: allow more `tokens`, or ban fewer")
        drawn = centred[rng.integers(len(table), size=(dimension, self.length))]
        basis = drawn.reshape(dimension, -1).T * (std / centred.std())
        return replace(self, basis=np.ascontiguousarray(basis, dtype=np.float32))

    def _projected(
        self, shape: tuple[int, ...], rng: np.random.Generator, alpha: float, sigma: float = 1.0
    ) -> SoftSpace:
        std = self._std(shape[-1], alpha, sigma)
        return replace(self, basis=(rng.standard_normal(shape) * std).astype(np.float32))

    def _std(self, dimension: int, alpha: float, sigma: float = 1.0) -> float:
        """The standard deviation of a basis's entries, by the rule of `subspace`."""
        if dimension < 1:
            raise ValueError(f"a subspace has one dimension or more, got {dimension}")
        if sigma <= 0:
            raise ValueError(f"sigma, the standard deviation of z, is above 0, got {sigma}")
        return float(alpha * self.scale / (np.sqrt(dimension) * sigma))

    def prompt(self, z: NDArray[np.floating]) -> SoftPrompt:
        """The prompt at coordinates (dimension,), in any shape of that size."""
        z = np.asarray(z, dtype=np.float32)
        if self.basis is None:
            moved = self.scale * z
        elif self.basis.ndim == 2:
            moved = self.basis @ z.reshape(-1)
        else:
            moved = np.einsum("lhd,ld->lh", self.basis, z.reshape(self.length, -1))
        return SoftPrompt(self.start + moved.reshape(self.start.shape))

    def contains(self, prompt: Prompt) -> bool:
        """Whether the prompt has this space's shape."""
        return isinstance(prompt, SoftPrompt) and prompt.vectors.shape == self.start.shape


@dataclass(frozen=True, eq=False)
class PrefixSpace(_Around):
    """Prefix prompts as coordinates around a start: `start + scale * z`.

    >>> scale = np.full((4, 2, 1, 1), 0.5, np.float32)
    >>> space = PrefixSpace(np.zeros((3, 4, 2, 1, 8), np.float32), scale)
    >>> prompt = space.prompt(np.ones(space.start.size))
    >>> space.length, prompt.vectors.shape, float(prompt.vectors.max())
    (3, (3, 4, 2, 1, 8), 0.5)

    Args:
        start: (L, layers, 2, heads, width) float32, the prompt at z = 0.
        scale: (layers, 2, 1, 1) float32, the unit of z: how far the keys of a layer, and its
            values, spread between tokens.
        others: (S - 1, L, layers, 2, heads, width) float32, as for `SoftSpace`.
        tokens: As for `SoftSpace`.
        known: As for `SoftSpace`.
    """

    start: NDArray[np.float32]
    scale: NDArray[np.float32]
    others: NDArray[np.float32] | None = field(default=None, repr=False)
    tokens: tuple[int, ...] | None = field(default=None, repr=False)
    known: Mapping[SoftPrompt, float] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Check the shapes."""
        PrefixPrompt(self.start)
        Length.of(len(self.start))
        self._check_others()

    @classmethod
    def around(cls, lm: FrozenLM, soft: SoftSpace, read: ReadKeys) -> PrefixSpace:
        """The space around what the layers make of soft prompts: its starts are read as texts are.

        From noise, prefixes came out worse and less evenly (Li & Liang 2021). What begins a text,
        such as BOS, is not read with a start, for it follows the prefix.

        Raises:
            ValueError: The model takes no prefix prompts.
        """
        # A seed of its own: the spread is the model's, and not a matter of luck.
        drawn = np.random.default_rng(0).choice(sorted(typable_tokens(lm)), SPREAD_OF)
        # At each position by itself, so that what positions do to keys is no spread.
        spread = read([SoftPrompt(lm.embeddings(ids)) for ids in drawn.tolist()]).var(axis=0)
        scale = np.sqrt(spread.mean(axis=(0, 3, 4), keepdims=True))[0]
        start, *others = read([SoftPrompt(vectors) for vectors in soft.starts])
        return cls(start, scale, np.stack(others) if others else None, soft.tokens)

    def prompt(self, z: NDArray[np.floating]) -> PrefixPrompt:
        """The prompt at coordinates, in any shape of the size of `start`."""
        moved = self.scale * np.asarray(z, dtype=np.float32).reshape(self.start.shape)
        return PrefixPrompt(self.start + moved)

    def contains(self, prompt: Prompt) -> bool:
        """Whether the prompt has this space's shape."""
        return isinstance(prompt, PrefixPrompt) and prompt.vectors.shape == self.start.shape


@dataclass(frozen=True, eq=False)
class TextSpace:
    """Text prompts, of any words: where they come from is a method's own affair.

    >>> start = TextPrompt("What is it about?")
    >>> space = TextSpace((start,), at_most=4, count=lambda text: len(text.split()))
    >>> space.contains(start), space.contains(TextPrompt("In a word, what is it about?"))
    (True, False)

    Args:
        starts: Prompts to begin with, not scored yet; each lies in the space.
        at_most: Tokens in the longest prompt, 1 or more, as `count` counts them; None for no limit.
        count: Tokens of a text on the model that reads it; None where nobody counts.
        used: What a text uses of what is banned; None where nothing is.

    Raises:
        ValueError: The limit is below 1, or there is nothing to count by, or a start is too long or
            uses what is banned.
    """

    starts: tuple[TextPrompt, ...] = ()
    at_most: int | None = None
    count: Callable[[str], int] | None = field(default=None, repr=False)
    used: Callable[[str], Sequence[str]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the limit and the starts."""
        if self.at_most is not None:
            Length.of(self.at_most)
            if self.count is None:
                raise ValueError(
                    f"at_most is {self.at_most} tokens, and nobody counts them here: give `count`, "
                    "or leave the limit out"
                )
        for start in self.starts:
            if found := self.banned(start.text):
                raise ValueError(
                    f"the start {start.text[:60]!r} uses {', '.join(map(repr, found))}, which "
                    "`banned` forbids: change one of the two"
                )
            if self.too_long(start.text):
                raise ValueError(
                    f"the start {start.text[:60]!r} has more tokens than the {self.at_most} that a "
                    "text prompt has at most here: shorten it, or give "
                    "`length: {at_most: N}` with a larger N"
                )

    @classmethod
    def from_lm(
        cls,
        lm: FrozenLM,
        at_most: int | None = None,
        starts: Sequence[TextPrompt] = (),
        banned: Collection[str | int] = (),
    ) -> TextSpace:
        """Texts of so many tokens of a model at most, without what is banned (`banned_in_texts`).

        Raises:
            ValueError: As for the class; or ids are banned where no tokens are known.
        """
        used = banned_in_texts(lm, banned) if banned else None
        return cls(tuple(starts), at_most, lambda text: len(lm.encode(text)), used)

    def too_long(self, text: str) -> bool:
        """Whether a text has more tokens than the longest prompt."""
        if self.at_most is None or self.count is None:
            return False
        return self.count(text) > self.at_most

    def banned(self, text: str) -> Sequence[str]:
        """What a text uses of what is banned."""
        return self.used(text) if self.used else ()

    def contains(self, prompt: Prompt) -> bool:
        """Whether it is a text that is not too long, and uses nothing that is banned."""
        if not isinstance(prompt, TextPrompt):
            return False
        return not self.too_long(prompt.text) and not self.banned(prompt.text)


Space = TokenSpace | SoftSpace | PrefixSpace | TextSpace
