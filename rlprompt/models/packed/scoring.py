"""Runs sequences through a frozen causal model, with everything shared computed once.

`PackedScorer` runs rows of `Tree`s: keys and values of the text before the prompt
are kept from call to call, a leading prompt is computed once for all examples, several prompts
ride side by side on a row, and the output head is applied where an answer is read, to the
candidates' ids only unless a log-softmax over the vocabulary is asked for.

`PlainScorer` answers the same calls for models that cannot be packed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rlprompt.models.memory import split_evenly
from rlprompt.models.packed.layout import PackedRow, Pass, fill, grow, lay_out
from rlprompt.models.packed.model import PackedModel
from rlprompt.models.scorer import (
    Consume,
    Over,
    accumulate_grad,
    behind_prefixes,
    collect,
    holds_keys,
    to_device,
    wants_grad,
)
from rlprompt.template import Query
from rlprompt.types import Ids

# New tokens on one row. Wide rows share a prefix among more prompts, but what the mask throws away
# of the attention between neighbours grows with the square.
ROW_TOKENS = 80
# Rows laid out at a time: enough to sort by length, little enough for memory.
WINDOW = 1024


@dataclass(frozen=True)
class _Call:
    """What one call of `PackedScorer.score` hands down to its passes."""

    vectors: Tensor | None
    over: Over
    consume: Consume
    n_candidates: int

    @property
    def with_grad(self) -> bool:
        return wants_grad(self.vectors)


class PackedScorer:
    """Scores a causal model that can be packed.

    Args:
        packed: The model and what is kept of it.
    """

    def __init__(self, packed: PackedModel) -> None:
        self.packed, self.memory = packed, packed.memory

    def score(
        self,
        prompts: Sequence[Ids],
        vectors: Tensor | None,
        queries: Sequence[Query],
        over: Over,
        consume: Consume,
    ) -> None:
        """See `Scorer.score`."""
        call = _Call(vectors, over, consume, len(queries[0].candidates))
        prefixed = holds_keys(vectors)
        if prefixed:
            queries = behind_prefixes(queries)
        same_head = len({query.head_ids for query in queries}) == 1
        with torch.set_grad_enabled(call.with_grad):
            if prefixed or (
                same_head and len(queries) > 1 and all(query.tail_ids for query in queries)
            ):
                self._prompts_as_prefixes(call, prompts, queries)
            else:
                self._queries_as_prefixes(call, prompts, queries)

    def _queries_as_prefixes(
        self, call: _Call, prompts: Sequence[Ids], queries: Sequence[Query]
    ) -> None:
        """The text before the prompt is the prefix; prompts grow side by side behind it."""
        order = sorted(range(len(prompts)), key=lambda p: prompts[p])  # neighbours share starts
        own = max(map(len, prompts)) + max(len(q.tail_ids) + _n_stem(q) for q in queries)
        chunks = [
            [order[i] for i in part]
            for part in split_evenly(len(prompts), max(1, ROW_TOKENS // max(1, own)))
        ]
        # Where an answer is read right after the text, the text's last token is computed again.
        lead = int(any(not p for p in prompts) and any(not q.tail_ids for q in queries))
        heads = [query.head_ids for query in queries]
        grow_once = lru_cache(maxsize=256)(grow)  # alike for all examples, or for the next few

        def rows(group: Sequence[int]) -> Iterator[PackedRow]:
            for chunk in chunks:
                for i, q in enumerate(group):
                    query, cut = queries[q], max(0, len(heads[q]) - lead)
                    tree = grow_once(
                        tuple(heads[q][cut:] + prompts[p] + query.tail_ids for p in chunk),
                        (query.candidates,) * len(chunk),
                    )
                    yield PackedRow(i, cut, tree, np.array([p * len(queries) + q for p in chunk]))

        for group in self.packed.kept.groups(heads, self.packed.token_bytes):
            self._answer(call, rows(group), self.packed.kept_prefixes([heads[q] for q in group]))

    def _prompts_as_prefixes(
        self, call: _Call, prompts: Sequence[Ids], queries: Sequence[Query]
    ) -> None:
        """All that precedes the examples is the prefix; they grow side by side behind it."""
        head = queries[0].head_ids
        lengths = [len(query.tail_ids) + _n_stem(query) for query in queries]
        trees = [
            (
                np.array(bin_),
                grow([queries[q].tail_ids for q in bin_], [queries[q].candidates for q in bin_]),
            )
            for bin_ in fill(lengths, max(ROW_TOKENS, max(lengths)))
        ]
        root = self.packed.kept_prefixes([head])[0]
        most = self.packed.prompts_at_once(len(head) + max(map(len, prompts)))
        for part in split_evenly(len(prompts), most):
            known = self.packed.extend(root, [prompts[p] for p in part], call.vectors)
            # Leaves: gradients gather here pass by pass and go back through `known` once.
            leaves = [
                None if k is None else k.detach().requires_grad_(call.with_grad) for k in known
            ]
            rows = (
                PackedRow(i, len(head) + len(prompts[p]), tree, p * len(queries) + bin_)
                for i, p in enumerate(part)
                for bin_, tree in trees
            )
            self._answer(call, rows, leaves)
            if call.with_grad:
                _backward(known, leaves)

    def _answer(
        self, call: _Call, rows: Iterator[PackedRow], prefixes: Sequence[Tensor | None]
    ) -> None:
        """Run all rows and hand each pass's answers on."""

        def step(rows: list[PackedRow]) -> None:
            own = [prefixes[row.prefix] for row in rows]
            layout = lay_out(rows, max(0 if k is None else int(k.shape[-2]) for k in own))
            hidden, _ = self.packed.forward(layout, own, call.vectors)
            value = call.consume(*self._read(hidden, layout, call))
            if value is not None:
                leaves = [call.vectors, *{id(k): k for k in own if k is not None}.values()]
                accumulate_grad(value, [leaf for leaf in leaves if leaf is not None])

        while window := list(islice(rows, WINDOW)):
            for rows_ in self.packed.batch(window, call.with_grad):
                self.memory.run(rows_, step)

    def _read(self, hidden: Tensor, layout: Pass, call: _Call) -> tuple[NDArray[np.int64], Tensor]:
        """The pairs answered by a pass (n,) and their log-likelihoods (n, C)."""
        device = hidden.device
        head, weight = self.packed.head, self.packed.head.weight
        bias: Tensor | None = getattr(head.layer, "bias", None)
        n_pairs = len(np.unique(layout.read_outputs))
        if call.over == "candidates" and len(layout.read_nodes) == n_pairs * call.n_candidates:
            # One token each: their normaliser over the vocabulary is the same and cancels.
            which = to_device(layout.read_nodes, device)
            targets = to_device(layout.read_targets, device)
            found = (hidden[which].float() * weight[targets].float()).sum(-1)
            found = head.finish(found if bias is None else found + bias[targets].float())
        else:
            found = hidden.new_empty(len(layout.read_nodes), dtype=torch.float32)
            for part in split_evenly(len(hidden), self.memory.head_rows(len(weight))):
                inside = (layout.read_nodes >= part.start) & (layout.read_nodes < part.stop)
                where = np.flatnonzero(inside)
                which = to_device(layout.read_nodes[where] - part.start, device)
                targets = to_device(layout.read_targets[where], device)
                logits = head.finish(F.linear(hidden[part.start : part.stop], weight, bias))
                logs = logits.float().log_softmax(-1)[which, targets]
                found = found.index_put((to_device(where, device),), logs)
        return collect(
            found, layout.read_outputs, layout.read_candidates, call.n_candidates, call.over
        )


def forgetful(scorer: PackedScorer | None) -> AbstractContextManager[None]:
    """Nothing is kept of texts that are read meanwhile, if a scorer keeps any."""
    return nullcontext() if scorer is None else scorer.packed.forgetful()


def _backward(known: Sequence[Tensor | None], leaves: Sequence[Tensor | None]) -> None:
    """Send the gradients that gathered at the leaves on through what they were cut from."""
    pairs = [
        (k, leaf.grad)
        for k, leaf in zip(known, leaves, strict=True)
        if k is not None and leaf is not None and k.requires_grad
    ]
    torch.autograd.backward([k for k, _ in pairs], [grad for _, grad in pairs])


def _n_stem(query: Query) -> int:
    """Tokens that the query's candidates are fed with, those that differ in the last one merged."""
    return sum(map(len, {candidate[:-1] for candidate in query.candidates}))
