"""Lets a frozen causal model write many answers side by side, computing what they share once.

As in scoring, keys and values of the text before the prompt are kept from call to call, a leading
prompt is computed once for all examples, and the output head is applied where a token is chosen.
Answers grow together, each in a row of one block of keys and values that is written in place. A
whole answer leaves its row, and the rows are filled again with texts that wait, so that a few long
answers keep nobody waiting.

`PlainGenerator` answers the same calls for models that cannot be packed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from rlprompt.models.decoding import AnswerEnd, Draws, Generated
from rlprompt.models.memory import split_evenly
from rlprompt.models.packed.kernels import Kernels
from rlprompt.models.packed.model import PackedModel
from rlprompt.models.scorer import behind_prefixes, holds_keys, to_device
from rlprompt.models.weights import input_device
from rlprompt.template import Query
from rlprompt.types import Ids

# Rows that grow together. Matrix products are at their peak from 160 rows on (2 cores); more rows
# are of less even lengths. A GPU wants more.
MOST_ROWS = {"cpu": 256, "cuda": 1024}
# Of them so many are left, at the most, when those that are free are filled again: sooner, and too
# few texts would be read at once.
REFILLED = 0.75
# Tokens read at once that are worth no padding: from so many on matrix products are at their peak.
ENOUGH_TOKENS = 256


@dataclass(frozen=True)
class _Start:
    """Where an answer begins: a known prefix, and tokens yet to be computed.

    Attributes:
        pair: prompt * Q + query.
        prefix: Keys and values (layers, 2, heads, tokens, dim), or None.
        n_prefix: How many of its tokens count.
        chain: Virtual ids after it, one at least.
    """

    pair: int
    prefix: Tensor | None
    n_prefix: int
    chain: Ids

    def __len__(self) -> int:
        """Tokens before the answer."""
        return self.n_prefix + len(self.chain)


@dataclass(frozen=True)
class _Call:
    vectors: Tensor | None
    draws: Draws
    end: AnswerEnd


class PackedGenerator:
    """Writes with a causal model that can be packed.

    Args:
        packed: The model and what is kept of it.
    """

    def __init__(self, packed: PackedModel) -> None:
        self.packed, self.memory = packed, packed.memory
        self._space = torch.empty(0)

    @cached_property
    def _head(self) -> Kernels:
        """The output head: here it is a fifth of the work or more."""
        return Kernels(self.packed.head.layer, self.memory.limit // 8)

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Ids],
        vectors: Tensor | None,
        queries: Sequence[Query],
        draws: Draws,
        end: AnswerEnd,
    ) -> list[Generated]:
        """See `Generator.generate`."""
        call = _Call(vectors, draws, end)
        answers: dict[int, Generated] = {}

        def step(starts: list[_Start]) -> None:
            answers.update(self._write(starts, call))

        for group in self._starts(prompts, vectors, queries):
            for starts in self._streams(group, end.decoding.max_new_tokens):
                self.memory.run(starts, step)
        return [answers[pair] for pair in range(len(prompts) * len(queries))]

    def _starts(
        self, prompts: Sequence[Ids], vectors: Tensor | None, queries: Sequence[Query]
    ) -> Iterator[list[_Start]]:
        """All pairs, in groups whose prefixes fit together."""
        if prefixed := holds_keys(vectors):
            queries = behind_prefixes(queries)
        heads, n_queries = [query.head_ids for query in queries], len(queries)
        shared = len(set(heads)) == 1 and n_queries > 1 and all(q.tail_ids for q in queries)
        if prefixed or shared:
            root = self.packed.kept_prefixes(heads[:1])[0]
            most = self.packed.prompts_at_once(len(heads[0]) + max(map(len, prompts)))
            for part in split_evenly(len(prompts), most):
                known = self.packed.extend(root, [prompts[p] for p in part], vectors)
                yield [
                    _Start(
                        p * n_queries + q, prefix, len(heads[0]) + len(prompts[p]), query.tail_ids
                    )
                    for p, prefix in zip(part, known, strict=True)
                    for q, query in enumerate(queries)
                ]
            return
        for group in self.packed.kept.groups(heads, self.packed.token_bytes):
            prefixes = self.packed.kept_prefixes([heads[q] for q in group])
            starts = []
            for q, prefix in zip(group, prefixes, strict=True):
                for p, prompt in enumerate(prompts):
                    chain = prompt + queries[q].tail_ids
                    # Where nothing follows the text, its last token is computed again.
                    n_prefix = len(heads[q]) - (not chain)
                    chain = chain or heads[q][n_prefix:]
                    starts.append(_Start(p * n_queries + q, prefix, n_prefix, chain))
            yield starts

    def _room(self) -> int:
        """Tokens whose keys and values the block may hold."""
        return self.memory.limit // 4 // self.packed.token_bytes

    def _most_rows(self) -> int:
        most = MOST_ROWS.get(input_device(self.packed.model).type, MOST_ROWS["cuda"])
        return min(most, self.memory.most_tokens)  # which shrink where memory has run out

    def _streams(self, starts: Sequence[_Start], n_new: int) -> Iterator[list[_Start]]:
        """Starts of falling length that grow in one block.

        Short ones have another block where long ones would leave them fewer rows.
        """
        most, room = self._most_rows(), self._room()
        stream: list[_Start] = []
        widest = 0
        for start in sorted(starts, key=lambda s: (-len(s.chain), -s.n_prefix, s.pair)):
            size = len(start) + n_new
            if stream and most * widest > room and 2 * size < widest:
                yield stream
                stream, widest = [], 0
            stream.append(start)
            widest = max(widest, size)
        yield stream

    def _rows(self, starts: Sequence[_Start], n_new: int) -> _Rows:
        """Empty rows for answers to some or all of the starts."""
        size = max(map(len, starts)) + n_new - 1  # the last token is not fed
        n_rows = max(1, min(len(starts), self._most_rows(), self._room() // size))
        packed = self.packed
        shape = (packed.n_layers, 2, n_rows, packed.n_heads, size, packed.head_dim)
        model, n_numbers = packed.model, math.prod(shape)
        if not n_numbers <= len(self._space) <= 4 * n_numbers:
            # Kept from call to call: to be given pages anew took a CPU a twentieth of all its time.
            # Not where it is far too large, as when passes had to shrink for want of memory.
            self._space = torch.empty(0)
            self._space = torch.empty(n_numbers, dtype=model.dtype, device=input_device(model))
        # Zeros, for what a mask hides must still be a number.
        return _Rows(packed, self._space[:n_numbers].zero_().view(shape))

    def _write(self, starts: Sequence[_Start], call: _Call) -> dict[int, Generated]:
        """The answers of one stream, by pair."""
        rows = self._rows(starts, call.end.decoding.max_new_tokens)
        answers: dict[int, Generated] = {}
        growing: list[tuple[int, list[int]]] = []
        tokens, waiting = torch.empty(0), list(starts)
        while waiting or growing:
            hidden = [rows.grow(tokens)] if growing else []
            if len(growing) <= REFILLED * rows.most:
                while waiting and len(growing) < rows.most:
                    part = self._read_together(waiting, rows.most - len(growing))
                    hidden.append(rows.read(part, call.vectors))
                    growing += [(start.pair, []) for start in part]
                    del waiting[: len(part)]
            chosen = self._choose(torch.cat(hidden), call, growing)
            live = []
            for row, ((pair, ids), token) in enumerate(zip(growing, chosen.tolist(), strict=True)):
                ids.append(token)
                answer = call.end.finished(ids)
                if answer is None:
                    live.append(row)
                else:
                    answers[pair] = answer
            kept = rows.keep(live)
            growing = [growing[row] for row in kept]
            tokens = chosen[to_device(np.array(kept, dtype=np.int64), chosen.device)]
        return answers

    def _read_together(self, waiting: Sequence[_Start], most: int) -> Sequence[_Start]:
        """The first of those that wait, as many as one pass reads with little padding."""
        widest = len(waiting[0].chain)
        most = min(most, max(1, self.memory.tokens() // widest))
        padded = (
            n
            for n, start in enumerate(waiting[:most])
            if n * widest >= ENOUGH_TOKENS and len(start.chain) < widest - widest // 8
        )
        return waiting[: next(padded, most)]

    def _choose(
        self, hidden: Tensor, call: _Call, growing: Sequence[tuple[int, list[int]]]
    ) -> Tensor:
        """The next token (n,) of each answer so far, after its hidden state (n, H)."""
        steps = np.array([len(ids) for _, ids in growing])
        draws = call.draws[[pair for pair, _ in growing], steps]
        head, chosen = self.packed.head, []
        for part in split_evenly(len(hidden), self.memory.head_rows(len(head.weight))):
            own = slice(part.start, part.stop)
            with self._head.applied():
                logits = head.logits(hidden[own])
            # Half precision is widened, as transformers does before it chooses.
            logits = logits if logits.dtype == torch.float64 else logits.float()
            chosen.append(call.end.choose(logits, draws[own], steps[own]))
        return torch.cat(chosen)


class _Rows:
    """Keys and values of the answers that grow together, a row each of one block.

    A row begins with what is known before its text; what is computed is written behind that.

    Args:
        packed: The model.
        block: (layers, 2, rows, heads, tokens, dim), zeros.
    """

    def __init__(self, packed: PackedModel, block: Tensor) -> None:
        self.packed, self.block, self.most = packed, block, block.shape[2]
        self.lengths = np.zeros(0, dtype=np.int64)  # of the rows that are in use

    def read(self, starts: Sequence[_Start], vectors: Tensor | None) -> Tensor:
        """Compute the chains in rows of their own: the last hidden state of each, (rows, H)."""
        first, n_tokens = len(self.lengths), np.array([len(start.chain) for start in starts])
        ids = np.zeros((len(starts), max(n_tokens)), dtype=np.int64)
        for row, start in enumerate(starts):
            ids[row, : len(start.chain)] = start.chain
            if start.prefix is not None:
                known = start.prefix[..., : start.n_prefix, :]
                self.block[:, :, first + row, :, : start.n_prefix] = known
        known_lengths = [start.n_prefix for start in starts]
        self.lengths = np.append(self.lengths, np.array(known_lengths, dtype=np.int64))
        device = input_device(self.packed.model)
        return self._feed(slice(first, None), to_device(ids, device), n_tokens, vectors)

    def grow(self, tokens: Tensor) -> Tensor:
        """Append a token (rows,) to every row: the last hidden states (rows, H)."""
        return self._feed(slice(0, None), tokens[:, None], np.ones(len(tokens), np.int64), None)

    def _feed(
        self, rows: slice, ids: Tensor, n_tokens: NDArray[np.int64], vectors: Tensor | None
    ) -> Tensor:
        """Compute `n_tokens` (n,) of ids (n, W) behind rows: the last hidden states (n, H)."""
        n_rows, width = ids.shape
        known = self.lengths[rows]
        lengths = known + n_tokens
        positions = np.minimum(known[:, None] + np.arange(width), lengths[:, None] - 1)
        places = np.nonzero(np.arange(width) < n_tokens[:, None])
        arrays = (
            positions,
            np.arange(lengths.max()),
            np.arange(n_rows) * width + n_tokens - 1,
            *places,
            positions[places],
        )
        device = input_device(self.packed.model)
        at, columns, nodes, *written = (to_device(array, device) for array in arrays)
        block = self.block[:, :, rows.start : rows.start + n_rows]
        layers = [_BlockLayer(layer, written, len(columns), width) for layer in block]
        attends = columns <= at[..., None]
        hidden = self.packed.hidden(ids, at, attends, nodes, layers, vectors, columns)
        self.lengths[rows] = lengths
        return hidden

    def keep(self, live: Sequence[int]) -> list[int]:
        """Drop all rows but `live` (rising); returns which row each one left was.

        The last rows move into the places that become free, so nothing else is copied.
        """
        staying = set(live)
        free = [row for row in range(len(live)) if row not in staying]
        moving = live[len(live) - len(free) :]
        order = list(range(len(live)))
        for place, row in zip(free, moving, strict=True):
            order[place] = row
        if free:
            used = self.block[..., : self.lengths[moving].max(), :]
            used[:, :, free] = used[:, :, moving]
        self.lengths = self.lengths[order]
        return order


class _BlockLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # not annotated
    """One layer's part of the block (2, rows, heads, tokens, dim), which is written in place.

    Args:
        block: Of the rows that are computed.
        places: Row, token among the new ones, and token in the row of each that is written.
        n_tokens: How many tokens of a row may be attended to.
        n_new: How many of them are new, of the longest row.
    """

    def __init__(self, block: Tensor, places: Sequence[Tensor], n_tokens: int, n_new: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.block, self.places, self.n_tokens, self.n_new = block, places, n_tokens, n_new

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new ones; all of the rows."""
        rows, new, old = self.places
        for block, states in zip(self.block, (key_states, value_states), strict=True):
            block[rows, :, old] = states[rows, :, new]
        keys, values = self.block[..., : self.n_tokens, :]
        return keys, values

    def get_seq_length(self) -> int:
        """Tokens of a row that are not new."""
        return self.n_tokens - self.n_new
