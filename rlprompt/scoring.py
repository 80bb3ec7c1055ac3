"""Runs sequences through a frozen causal model, with everything shared computed once.

`PackedScorer` executes the layouts of `packing.py`: keys and values of the text before the prompt
are kept from call to call, a leading prompt is computed once for all examples, several prompts
ride side by side on a row, and the output head is applied where an answer is read, to the
candidates' ids only unless a log-softmax over the vocabulary is asked for.

`plain.py` answers the same calls for models that cannot be packed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from rlprompt.kernels import Kernels
from rlprompt.memory import KeptPrefixes, Memory
from rlprompt.packing import Ids, Pass, Row, batch, fill, grow, lay_out, split_evenly
from rlprompt.template import Query

Over = Literal["vocabulary", "candidates"]

# New tokens on one row. Wide rows share a prefix among more prompts, but what the mask throws away
# of the attention between neighbours grows with the square.
ROW_TOKENS = 80
# Rows laid out at a time: enough to sort by length, little enough for memory.
WINDOW = 1024


class Consume(Protocol):
    """Takes the answers of one pass as they come."""

    def __call__(self, index: Tensor, loglik: Tensor) -> Tensor | None:
        """Take `loglik[i]` (C,) as the answer to pair `index[i]` = prompt * Q + query.

        Under gradients, returns the scalar to differentiate.
        """
        ...


class Scorer(Protocol):
    """How a kind of model is run; prompts come as virtual ids (`packing.py`)."""

    def score(
        self,
        prompts: Sequence[Ids],
        vectors: Tensor | None,
        queries: Sequence[Query],
        over: Over,
        consume: Consume,
    ) -> None:
        """Answer every pair of prompt and query once.

        Args:
            prompts: Virtual ids, (P,) of them.
            vectors: (N, H) rows that virtual ids from the vocabulary's size on stand for. Where
                it requires a gradient, that of the sum of what `consume` returned is added to
                its `.grad`.
            queries: (Q,) of them, each with C candidates.
            over: What log-likelihoods are normalised over.
            consume: Takes the answers.
        """
        ...


class _PrefixedLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # not annotated
    """Keys and values of one layer after a known prefix, neither of which is ever changed."""

    def __init__(self, prefix: tuple[Tensor, Tensor] | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.prefix = prefix
        self.grown: tuple[Tensor, Tensor]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        self.grown = key_states, value_states
        if self.prefix is None:
            return self.grown
        keys, values = self.prefix
        return torch.cat([keys, key_states], -2), torch.cat([values, value_states], -2)

    def get_seq_length(self) -> int:
        return 0 if self.prefix is None else int(self.prefix[0].shape[-2])


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
    """Scores a causal model whose layers all attend to whatever the mask allows.

    Args:
        model: The frozen model, with a base model and a linear output head.
        memory: Sizes passes and bounds the kept prefixes.
        kernels: Faster ways to compute the model's modules.
    """

    def __init__(self, model: PreTrainedModel, memory: Memory, kernels: Kernels) -> None:
        self.model, self.memory, self.kernels = model, memory, kernels
        self.kept = KeptPrefixes(memory.limit // 4)
        self._head = cast(nn.Linear, cast(Any, model).get_output_embeddings())
        config: Any = model.config.get_text_config()
        self._n_layers = int(config.num_hidden_layers)
        n_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or (
            config.hidden_size // config.num_attention_heads
        )
        self._prefix_bytes = int(2 * self._n_layers * n_heads * head_dim * model.dtype.itemsize)

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
        same_head = len({query.head_ids for query in queries}) == 1
        with torch.set_grad_enabled(call.with_grad):
            if same_head and len(queries) > 1 and all(query.tail_ids for query in queries):
                self._prompts_as_prefixes(call, prompts, queries)
            else:
                self._queries_as_prefixes(call, prompts, queries)

    @contextmanager
    def forgetful(self) -> Iterator[None]:
        """Score as if nothing were kept yet, and keep nothing of it."""
        kept, self.kept = self.kept, KeptPrefixes(self.kept.limit)
        try:
            yield
        finally:
            self.kept = kept

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

        def rows(group: Sequence[int]) -> Iterator[Row]:
            for chunk in chunks:
                for i, q in enumerate(group):
                    query, cut = queries[q], len(heads[q]) - lead
                    tree = grow_once(
                        tuple(heads[q][cut:] + prompts[p] + query.tail_ids for p in chunk),
                        (query.candidates,) * len(chunk),
                    )
                    yield Row(i, cut, tree, np.array([p * len(queries) + q for p in chunk]))

        for group in self.kept.groups(heads, self._prefix_bytes):
            self._answer(call, rows(group), self._kept_prefixes([heads[q] for q in group]))

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
        root = self._kept_prefixes([head])[0]
        size = max(1, (len(head) + max(map(len, prompts))) * self._prefix_bytes)
        for part in split_evenly(len(prompts), max(1, self.memory.limit // 4 // size)):
            known = self._extend(root, [prompts[p] for p in part], call.vectors)
            # Leaves: gradients gather here pass by pass and go back through `known` once.
            leaves = [
                None if k is None else k.detach().requires_grad_(call.with_grad) for k in known
            ]
            rows = (
                Row(i, len(head) + len(prompts[p]), tree, p * len(queries) + bin_)
                for i, p in enumerate(part)
                for bin_, tree in trees
            )
            self._answer(call, rows, leaves)
            if call.with_grad:
                _backward(known, leaves)

    def _kept_prefixes(self, heads: Sequence[Ids]) -> list[Tensor | None]:
        """Keys and values of texts before the prompt, computed at most once while they are kept."""
        found = {head: self.kept.get(head) for head in heads}
        missing = [head for head, prefix in found.items() if head and prefix is None]
        with torch.no_grad():
            found |= zip(missing, self._extend(None, missing, None), strict=True)
        for head in missing:
            prefix = found[head]
            assert prefix is not None
            self.kept.put(head, prefix)
        return [found[head] for head in heads]

    def _extend(
        self, root: Tensor | None, chains: Sequence[Ids], vectors: Tensor | None
    ) -> list[Tensor | None]:
        """Keys and values of the root followed by each chain, (layers, 2, heads, tokens, dim)."""
        known: list[Tensor | None] = [root] * len(chains)
        n_root = 0 if root is None else int(root.shape[-2])
        rows = [
            Row(0, n_root, grow([chain], [()]), np.array([i]))
            for i, chain in enumerate(chains)
            if chain
        ]

        def step(rows: list[Row]) -> None:
            _, layers = self._forward(lay_out(rows, n_root), [root] * len(rows), vectors)
            grown = torch.stack([torch.stack(layer.grown) for layer in layers])
            for b, row in enumerate(rows):
                new = grown[:, :, b, :, : len(row.tree)]
                # Copies, for a view would keep the whole pass alive.
                known[int(row.outputs[0])] = (
                    new.clone() if root is None else torch.cat([root, new], -2)
                )

        for rows_ in self._batch(rows, wants_grad(vectors)):
            self.memory.run(rows_, step)
        return known

    def _batch(self, rows: Sequence[Row], with_grad: bool) -> list[list[Row]]:
        n_prefix = self.memory.prefix_tokens(self._prefix_bytes)
        return batch(rows, self.memory.tokens(with_grad), n_prefix)

    def _answer(self, call: _Call, rows: Iterator[Row], prefixes: Sequence[Tensor | None]) -> None:
        """Run all rows and hand each pass's answers on."""

        def step(rows: list[Row]) -> None:
            own = [prefixes[row.prefix] for row in rows]
            layout = lay_out(rows, max(0 if k is None else int(k.shape[-2]) for k in own))
            hidden, _ = self._forward(layout, own, call.vectors)
            value = call.consume(*self._read(hidden, layout, call))
            if value is not None:
                leaves = [call.vectors, *{id(k): k for k in own if k is not None}.values()]
                accumulate_grad(value, [leaf for leaf in leaves if leaf is not None])

        while window := list(islice(rows, WINDOW)):
            for rows_ in self._batch(window, call.with_grad):
                self.memory.run(rows_, step)

    def _forward(
        self, layout: Pass, prefixes: Sequence[Tensor | None], vectors: Tensor | None
    ) -> tuple[Tensor, list[_PrefixedLayer]]:
        """Last hidden states where answers are read (n, H), and the layers' keys and values."""
        device, dtype = self.model.device, self.model.dtype
        stacked = _stack(prefixes)
        layers = [
            _PrefixedLayer(None if stacked is None else (stacked[:, i, 0], stacked[:, i, 1]))
            for i in range(self._n_layers)
        ]
        hidden = to_device(~layout.attends, device)
        mask = torch.zeros(hidden.shape, dtype=dtype, device=device)
        mask.masked_fill_(hidden, torch.finfo(dtype).min)
        nodes = to_device(layout.nodes, device)
        with self.kernels.applied(nodes):
            output = self.model.base_model(
                inputs_embeds=embed(self.model, to_device(layout.ids, device), vectors),
                attention_mask=mask[:, None],
                position_ids=to_device(layout.positions, device),
                past_key_values=Cache(layers=list(layers)),
                use_cache=True,
            )
        return output.last_hidden_state.flatten(0, 1)[nodes], layers

    def _read(self, hidden: Tensor, layout: Pass, call: _Call) -> tuple[Tensor, Tensor]:
        """The pairs answered by a pass (n,) and their log-likelihoods (n, C)."""
        device = hidden.device
        weight, bias = self._head.weight, self._head.bias
        n_pairs = len(np.unique(layout.read_outputs))
        if call.over == "candidates" and len(layout.read_nodes) == n_pairs * call.n_candidates:
            # One token each: their normaliser over the vocabulary is the same and cancels.
            which = to_device(layout.read_nodes, device)
            targets = to_device(layout.read_targets, device)
            found = (hidden[which].float() * weight[targets].float()).sum(-1)
            found = found if bias is None else found + bias[targets].float()
        else:
            found = hidden.new_empty(len(layout.read_nodes), dtype=torch.float32)
            for part in split_evenly(len(hidden), self.memory.head_rows(len(weight))):
                inside = (layout.read_nodes >= part.start) & (layout.read_nodes < part.stop)
                where = np.flatnonzero(inside)
                which = to_device(layout.read_nodes[where] - part.start, device)
                targets = to_device(layout.read_targets[where], device)
                logits = F.linear(hidden[part.start : part.stop], weight, bias).float()
                logs = logits.log_softmax(-1)[which, targets]
                found = found.index_put((to_device(where, device),), logs)
        return collect(
            found, layout.read_outputs, layout.read_candidates, call.n_candidates, call.over
        )


def _backward(known: Sequence[Tensor | None], leaves: Sequence[Tensor | None]) -> None:
    """Send the gradients that gathered at the leaves on through what they were cut from."""
    pairs = [
        (k, leaf.grad)
        for k, leaf in zip(known, leaves, strict=True)
        if k is not None and leaf is not None and k.requires_grad
    ]
    torch.autograd.backward([k for k, _ in pairs], [grad for _, grad in pairs])


def collect(
    reads: Tensor,
    outputs: NDArray[np.int64],
    candidates: NDArray[np.int64],
    n_candidates: int,
    over: Over,
) -> tuple[Tensor, Tensor]:
    """Sum reads (R,) by pair and candidate: the pairs (n,) and their log-likelihoods (n, C)."""
    index, which = np.unique(outputs, return_inverse=True)  # here, for a GPU would be waited for
    zeros = torch.zeros(len(index) * n_candidates, dtype=reads.dtype, device=reads.device)
    places = to_device(which * n_candidates + candidates, reads.device)
    loglik = zeros.index_add(0, places, reads).view(len(index), n_candidates)
    if over == "candidates":
        loglik = loglik.log_softmax(-1)
    return to_device(index, reads.device), loglik


def accumulate_grad(value: Tensor, leaves: Sequence[Tensor]) -> None:
    """Add the gradient of `value` to each leaf's `.grad`, all or nothing."""
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    grads = torch.autograd.grad(value, wanted, allow_unused=True)
    for leaf, grad in zip(wanted, grads, strict=True):
        if grad is not None:
            leaf.grad = grad if leaf.grad is None else leaf.grad + grad


def wants_grad(vectors: Tensor | None) -> bool:
    """Whether the gradient with respect to the soft prompts' vectors is asked for."""
    return vectors is not None and vectors.requires_grad


def embed(model: PreTrainedModel, ids: Tensor, vectors: Tensor | None) -> Tensor:
    """Input vectors (..., H) of virtual ids (...)."""
    embedding = cast(nn.Embedding, model.get_input_embeddings())
    if vectors is None:
        return cast(Tensor, embedding(ids))
    n_vocabulary = len(embedding.weight)
    soft = ids >= n_vocabulary
    words: Tensor = embedding(ids.masked_fill(soft, 0))
    places = (ids - n_vocabulary).clamp_min(0)
    return torch.where(soft[..., None], vectors.to(words.dtype)[places], words)


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array on the device; from pinned memory, so that a GPU is not made to wait."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _stack(prefixes: Sequence[Tensor | None]) -> Tensor | None:
    """Prefixes side by side, (B, layers, 2, heads, S, dim), padded on the right."""
    some = next((prefix for prefix in prefixes if prefix is not None), None)
    if some is None:
        return None
    known = [some[..., :0, :] if prefix is None else prefix for prefix in prefixes]
    longest = max(int(prefix.shape[-2]) for prefix in known)
    return torch.stack([F.pad(prefix, (0, 0, 0, longest - prefix.shape[-2])) for prefix in known])


def _n_stem(query: Query) -> int:
    """Tokens that the query's candidates are fed with, shared beginnings not yet merged."""
    return sum(len(candidate) - 1 for candidate in query.candidates)
