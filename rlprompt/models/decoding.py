"""How an answer is written: which token comes next, and where it ends.

Randomness belongs to the answer, not to the batch: the numbers that decide an answer are drawn
from a seed, the prompt and the query, so the same answer comes out in any company.

>>> Decoding(max_new_tokens=2).choose(torch.tensor([[0.0, 3.0, 1.0]]), np.zeros(1)).tolist()
[1]
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlprompt.template import Query
from rlprompt.types import Ids, ModelKind

Ended = Literal["end token", "stop string", "length"]
Draws = NDArray[np.float32]


@dataclass(frozen=True)
class Generated:
    """What the model wrote.

    >>> words = ["<end>", " good", " fun", "!"]
    >>> end = AnswerEnd(lambda ids: "".join(words[i] for i in ids), {0}, Decoding(max_new_tokens=8))
    >>> end.finished([1, 2])  # goes on
    >>> end.finished([1, 2, 3, 0])
    Generated(ids=(1, 2, 3), text=' good fun!', ended='end token')

    Attributes:
        ids: Its tokens; those of an end token or a stop string are not among them.
        text: The same as text, cut right before the stop string.
        ended: What ended it.
    """

    ids: Ids
    text: str
    ended: Ended


@dataclass(frozen=True)
class Decoding:
    """How answers are written.

    >>> Decoding(max_new_tokens=16, stop=["."]).temperature
    0.0
    >>> Decoding(max_new_tokens=0)
    Traceback (most recent call last):
    ValueError: max_new_tokens is 0; give 1 or more

    Args:
        max_new_tokens: Tokens at the most, 1 or more; an end token counts.
        stop: Strings that end an answer where they first appear.
        temperature: 0 for the likeliest token every time; above, logits are divided by it and a
            token is drawn.
        top_k: Drawn from so many of the likeliest tokens (Fan et al. 2018); 0 for all.
        top_p: Drawn from the fewest likeliest tokens that have this probability together
            (Holtzman et al. 2020, arXiv 1904.09751); 1 for all.
        seed: Decides the draws, with prompt and query.
        min_new_tokens: Tokens at the least: as long as there are fewer, an end token is not chosen,
            and a stop string that begins among them ends nothing.

    Raises:
        ValueError: A number out of its range, or a stop string that is empty.
    """

    max_new_tokens: int
    stop: str | Sequence[str] = ()
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    min_new_tokens: int = 0

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; give 1 or more")
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens is {self.min_new_tokens}; give a number from 0 to max_new_tokens, "
                f"{self.max_new_tokens}"
            )
        if isinstance(self.stop, str) or not all(self.stop):
            raise ValueError(
                f"stop is {self.stop!r}; give a list of strings, none of them empty, such as "
                '["\\n"]'
            )
        object.__setattr__(self, "stop", tuple(self.stop))
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}; give 0 (greedy) or above")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}; give 1 or more, or 0 for all tokens")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; give a number above 0, up to 1 (all tokens)")

    def __repr__(self) -> str:
        """What enters fingerprints: a setting that came later is left out where it does nothing."""
        shown = asdict(self)
        if not self.min_new_tokens:
            del shown["min_new_tokens"]
        return f"Decoding({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def draws(self, prompt: str, query: Query) -> Draws:
        """The numbers in [0, 1) that decide one answer, (max_new_tokens,), from its content.

        Args:
            prompt: Digest of the prompt.
            query: The example.
        """
        # In 24 bits: times a sum of probabilities in 53 they stay below the sum.
        if self.temperature == 0:
            return np.zeros(self.max_new_tokens, dtype=np.float32)
        content = repr((self.seed, prompt, query.head_ids, query.tail_ids)).encode()
        digest = hashlib.blake2b(content, digest_size=16, person=b"draws").digest()
        rng = np.random.default_rng(int.from_bytes(digest))
        return rng.random(self.max_new_tokens, dtype=np.float32)

    def choose(self, logits: Tensor, draws: NDArray[np.floating]) -> Tensor:
        """The next token (n,) after logits (n, V), each decided by its draw (n,).

        Raises:
            ValueError: A logit is no number.
        """
        top = logits.max(-1)
        if bool(top.values.isnan().any()):
            raise ValueError(
                "the model's output is not a number (NaN); load it with dtype float32 or bfloat16"
            )
        if self.temperature == 0:
            return top.indices
        logits = logits.double() / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        chances = logits.softmax(-1)
        if self.top_p < 1:
            ordered, places = chances.sort(descending=True, stable=True)
            kept = ordered.masked_fill(ordered.cumsum(-1) - ordered >= self.top_p, 0)
            chances = torch.zeros_like(chances).scatter(-1, places, kept)
        ends = chances.cumsum(-1)
        wanted = torch.from_numpy(draws).to(ends)[:, None] * ends[:, -1:]
        return torch.searchsorted(ends, wanted, right=True)[:, 0]


@dataclass(frozen=True)
class AnswerEnd:
    """Tells when an answer is whole.

    Attributes:
        decode: Text of ids.
        end_ids: Tokens that end an answer.
        decoding: How answers are written.
    """

    decode: Callable[[Sequence[int]], str]
    end_ids: Collection[int]
    decoding: Decoding

    def choose(
        self, logits: Tensor, draws: NDArray[np.floating], steps: int | NDArray[np.int64]
    ) -> Tensor:
        """As `Decoding.choose`, where so many tokens, all or each (n,), are written already."""
        early = np.flatnonzero(
            np.broadcast_to(steps, len(logits)) < self.decoding.min_new_tokens
        ).tolist()
        if early:
            ends = [i for i in self.end_ids if i < logits.shape[-1]]
            logits = logits.clone()
            logits[np.ix_(early, ends)] = -torch.inf
        return self.decoding.choose(logits, draws)

    def finished(self, ids: Sequence[int]) -> Generated | None:
        """The answer, if the last of these ids completes it."""
        if ids[-1] in self.end_ids:
            return Generated(tuple(ids[:-1]), self.decode(ids[:-1]), "end token")
        text = self.decode(ids) if self.decoding.stop else ""
        least = self.decoding.min_new_tokens
        begun = len(self.decode(ids[:least])) if text and least else 0
        starts = [text.find(stop, begun) for stop in self.decoding.stop if stop in text[begun:]]
        if starts:
            text = text[: min(starts)]
            return Generated(self._needed(ids, text), text, "stop string")
        if len(ids) == self.decoding.max_new_tokens:
            return Generated(tuple(ids), self.decode(ids), "length")
        return None

    def _needed(self, ids: Sequence[int], text: str) -> Ids:
        """The first of the ids, as many as it takes to write the text."""
        n_needed = len(ids)
        while n_needed and self.decode(ids[: n_needed - 1]).startswith(text):
            n_needed -= 1
        return tuple(ids[:n_needed])


def check_texts(name: str, kind: ModelKind, texts: Sequence[Ids]) -> None:
    """Refuse texts that a model cannot go on with."""
    if kind != "causal":
        raise ValueError(f"{name} is {kind}; only a causal model goes on with a text")
    if not texts or not all(texts):
        raise ValueError("nothing to go on with: give texts of one token or more")


def check_writes(name: str, kind: ModelKind) -> None:
    """Refuse a model that cannot write."""
    if kind == "masked":
        raise ValueError(
            f"{name} is a masked model: it fills gaps and cannot write on; take a causal or "
            "encoder-decoder model, or a task with label words"
        )
