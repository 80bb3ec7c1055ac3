"""Lets a frozen causal model write many answers side by side, computing what they share once.

As in scoring, keys and values of the text before the prompt are kept from call to call, a leading
prompt is computed once for all examples, and the output head is applied where a token is chosen.
The answers of a batch grow together: their keys and values lie in one block that is written in
place, and an answer that is whole makes room for another row of the block.

`PlainGenerator` answers the same calls for models that cannot be packed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from rlprompt.models.decoding import AnswerEnd, Draws, Generated
from rlprompt.models.kernels import Kernels
from rlprompt.models.memory import split_evenly
from rlprompt.models.packed_model import PackedModel
from rlprompt.models.scorer import behind_prefixes, holds_keys, to_device
from rlprompt.models.weights import input_device
from rlprompt.template import Query
from rlprompt.types import Ids

# Rows that grow together. Matrix products are at their peak from 64 rows on (2 cores); more rows
# are of less even lengths. A GPU wants more.
MOST_ROWS = {"cpu": 256, "cuda": 1024}


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
            for starts in self._batches(group, end.decoding.max_new_tokens):
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

    def _batches(self, starts: Sequence[_Start], n_new: int) -> Iterator[list[_Start]]:
        """Starts of like length together, as many as may grow side by side."""
        device = input_device(self.packed.model).type
        most = MOST_ROWS.get(device, MOST_ROWS["cuda"])
        room = self.memory.limit // 4 // self.packed.token_bytes  # tokens
        part: list[_Start] = []
        n_chain = n_prefix = 0
        for start in sorted(starts, key=lambda s: (-len(s.chain), -s.n_prefix, s.pair)):
            wider = max(n_chain, len(start.chain)) + max(n_prefix, start.n_prefix) + n_new
            if part and (len(part) == most or wider * (len(part) + 1) > room):
                yield part
                part, n_chain, n_prefix = [], 0, 0
            part.append(start)
            n_chain, n_prefix = max(n_chain, len(start.chain)), max(n_prefix, start.n_prefix)
        yield part

    def _write(self, starts: Sequence[_Start], call: _Call) -> dict[int, Generated]:
        """The answers of one batch, by pair."""
        rows = _Rows(self.packed, starts, call.end.decoding.max_new_tokens)
        answers: dict[int, Generated] = {}
        hidden = rows.read(starts, call.vectors)
        growing: list[tuple[int, list[int]]] = [(start.pair, []) for start in starts]
        while True:
            step = len(growing[0][1])
            chosen = self._choose(hidden, call, [pair for pair, _ in growing], step)
            live = []
            for row, ((pair, ids), token) in enumerate(zip(growing, chosen.tolist(), strict=True)):
                ids.append(token)
                answer = call.end.finished(ids)
                if answer is None:
                    live.append(row)
                else:
                    answers[pair] = answer
            if not live:
                return answers
            kept = rows.keep(live)
            growing = [growing[row] for row in kept]
            hidden = rows.grow(chosen[to_device(np.array(kept), chosen.device)])

    def _choose(self, hidden: Tensor, call: _Call, pairs: Sequence[int], step: int) -> Tensor:
        """The next token (n,) of pairs (n,) after each hidden state (n, H)."""
        head, chosen, draws = self.packed.head, [], call.draws[pairs, step]
        for part in split_evenly(len(hidden), self.memory.head_rows(len(head.weight))):
            with self._head.applied():
                logits = head.logits(hidden[part.start : part.stop])
            # Half precision is widened, as transformers does before it chooses.
            logits = logits if logits.dtype == torch.float64 else logits.float()
            chosen.append(call.end.choose(logits, draws[part.start : part.stop], step))
        return torch.cat(chosen)


class _Rows:
    """Keys and values of the answers that grow together, in columns of one block.

    Known prefixes end at one column, the chains begin there, and what is written begins where
    the longest chain ends; what lies between is never attended to.
    """

    def __init__(self, packed: PackedModel, starts: Sequence[_Start], n_new: int) -> None:
        self.packed, self.n_live = packed, len(starts)
        self.n_prefix = max(start.n_prefix for start in starts)
        self.n_columns = self.n_prefix + max(len(start.chain) for start in starts)
        size = self.n_columns + n_new - 1  # the last token is not fed
        shape = (packed.n_layers, 2, len(starts), packed.n_heads, size, packed.head_dim)
        model = packed.model
        # Zeros, for what a mask hides must still be a number.
        self.block = torch.zeros(shape, dtype=model.dtype, device=input_device(model))
        visible = np.zeros((len(starts), size), dtype=bool)
        for row, start in enumerate(starts):
            visible[row, self.n_prefix - start.n_prefix : self.n_prefix + len(start.chain)] = True
            if start.prefix is not None:
                columns = slice(self.n_prefix - start.n_prefix, self.n_prefix)
                self.block[:, :, row, :, columns] = start.prefix[..., : start.n_prefix, :]
        self.visible = to_device(visible, input_device(model))
        self.positions = self.visible.sum(-1)

    def read(self, starts: Sequence[_Start], vectors: Tensor | None) -> Tensor:
        """Compute the chains: the last hidden state of each, (rows, H)."""
        hidden, first = [], 0
        most = self.packed.memory.tokens()
        while first < len(starts):
            part = starts[first : first + max(1, most // len(starts[first].chain))]
            hidden.append(self._read(first, part, vectors))
            first += len(part)
        return torch.cat(hidden)

    def _read(self, first: int, starts: Sequence[_Start], vectors: Tensor | None) -> Tensor:
        n_rows, width = len(starts), max(len(start.chain) for start in starts)
        lengths = np.array([len(start.chain) for start in starts])
        known = np.array([start.n_prefix for start in starts])
        ids = np.zeros((n_rows, width), dtype=np.int64)
        for row, start in enumerate(starts):
            ids[row, : len(start.chain)] = start.chain
        attends = np.zeros((n_rows, width, self.n_prefix + width), dtype=bool)
        before = np.arange(self.n_prefix) >= self.n_prefix - known[:, None]
        attends[:, :, : self.n_prefix] = before[:, None]
        attends[:, :, self.n_prefix :] = np.tri(width, dtype=bool)
        arrays = (
            ids,
            np.minimum(known[:, None] + np.arange(width), (known + lengths - 1)[:, None]),
            attends,
            np.arange(n_rows) * width + lengths - 1,
        )
        fed = [to_device(array, input_device(self.packed.model)) for array in arrays]
        layers = self._layers(slice(first, first + n_rows), self.n_prefix, self.n_prefix + width)
        return self.packed.hidden(fed[0], fed[1], fed[2], fed[3], layers, vectors)

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
            used = self.block[..., : self.n_columns, :]
            used[:, :, free] = used[:, :, moving]
            self.visible[free] = self.visible[moving]
            self.positions[free] = self.positions[moving]
        self.n_live = len(live)
        return order

    def grow(self, tokens: Tensor) -> Tensor:
        """Append a token (live,) to every row: the last hidden states (live, H)."""
        live, column = slice(0, self.n_live), self.n_columns
        self.visible[live, column] = True
        self.n_columns += 1
        hidden = self.packed.hidden(
            tokens[:, None],
            self.positions[live, None],
            self.visible[live, None, : self.n_columns],
            torch.arange(self.n_live, device=tokens.device),
            self._layers(live, column, self.n_columns),
            None,
        )
        self.positions[live] += 1
        return hidden

    def _layers(self, rows: slice, start: int, stop: int) -> list[_BlockLayer]:
        return [_BlockLayer(layer[:, rows], start, stop) for layer in self.block]


class _BlockLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # not annotated
    """One layer's part of the block (2, rows, heads, columns, dim), which is written in place."""

    def __init__(self, block: Tensor, start: int, stop: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.block, self.start, self.stop = block, start, stop

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write columns `start` to `stop`; all up to there."""
        keys, values = self.block[..., : self.stop, :]
        keys[:, :, self.start :], values[:, :, self.start :] = key_states, value_states
        return keys, values

    def get_seq_length(self) -> int:
        """Columns before the new ones."""
        return self.start
