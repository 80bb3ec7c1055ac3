"""Runs packed layouts through a frozen causal model, and keeps the texts that stay the same.

`PackedModel` turns the arrays of a `Pass` into one forward pass under an ancestor mask, over
prefixes whose keys and values are known already. `PackedScorer` and `PackedGenerator` both stand
on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer

from rlprompt._utils.text import first_line
from rlprompt.models.conventions import SLIDING, sliding_window
from rlprompt.models.examination import agree, some_ids
from rlprompt.models.head import Head
from rlprompt.models.memory import KeptPrefixes, Memory, out_of_memory
from rlprompt.models.packed.kernels import Kernels
from rlprompt.models.packed.layout import PackedRow, Pass, batch, grow, lay_out
from rlprompt.models.scorer import embed, holds_keys, to_device, wants_grad
from rlprompt.models.weights import input_device, quantisation
from rlprompt.types import Ids

# Columns that a text is tried behind: more than any known window that counts them.
FAR = 2048
COLUMNS = "what a token attends to depends on its column, whatever the mask says"


class ForwardError(RuntimeError):
    """A model's own forward pass does not take, or does not give, what packing needs."""


class Read(NamedTuple):
    """What is known of a text that was read to its end.

    Attributes:
        hidden: (H,) last hidden state at its last token.
        known: (layers, 2, heads, tokens, dim) keys and values.
    """

    hidden: Tensor
    known: Tensor


class PackedModel:
    """A causal model whose layers all attend to whatever the mask allows.

    Args:
        model: The frozen model, with a base model.
        head: Its output head.
        memory: Sizes passes and bounds the kept prefixes.
        kernels: Faster ways to compute the model's modules.

    Attributes:
        kept: Keys and values of texts before the prompt.
        n_layers: Layers that have keys and values.
        n_heads: Heads of keys and values that each of them has.
        head_dim: Width of each.
        n_vocabulary: Rows of the embedding table, where virtual ids begin.
        token_bytes: What the keys and values of one token take.

    Raises:
        ForwardError: The model's forward pass cannot be packed.
    """

    def __init__(
        self, model: PreTrainedModel, head: Head, memory: Memory, kernels: Kernels
    ) -> None:
        self.model, self.head, self.memory, self.kernels = model, head, memory, kernels
        self.kept = KeptPrefixes(memory.limit // 4)
        self.config: Any = model.config.get_text_config()
        self.n_layers = int(self.config.num_hidden_layers)
        self.n_vocabulary = len(cast(torch.nn.Embedding, model.get_input_embeddings()).weight)
        self.n_heads, self.head_dim = self._cache_shape()
        self.token_bytes = (
            2 * self.n_layers * self.n_heads * self.head_dim * int(model.dtype.itemsize)
        )

    @property
    def position_shape(self) -> tuple[int, int, int, int]:
        """That of the keys and values of a position, (layers, 2, heads, dim)."""
        return self.n_layers, 2, self.n_heads, self.head_dim

    @torch.no_grad()
    def _cache_shape(self) -> tuple[int, int]:
        """Heads and their width in the keys and values of every layer, as a token has them."""
        one = torch.zeros((1, 1), dtype=torch.int64, device=input_device(self.model))
        layers = [PrefixedLayer(None) for _ in range(self.n_layers)]
        self.hidden(one, one, one[..., None] == 0, one[0], layers, None)
        if not all(hasattr(layer, "grown") for layer in layers):
            raise ForwardError("not every layer keeps keys and values")
        shapes = {tuple(part.shape) for layer in layers for part in layer.grown}
        if len(shapes) > 1 or any(len(shape) != 4 for shape in shapes):
            raise ForwardError(f"keys and values have shapes {sorted(shapes)}")
        ((_, n_heads, _, width),) = shapes
        return n_heads, width

    @contextmanager
    def forgetful(self) -> Iterator[None]:
        """Compute as if nothing were kept yet, and keep nothing of it."""
        kept, self.kept = self.kept, KeptPrefixes(self.kept.limit)
        try:
            yield
        finally:
            self.kept = kept

    def kept_prefixes(self, heads: Sequence[Ids]) -> list[Tensor | None]:
        """Keys and values of texts before the prompt, computed at most once while they are kept."""
        found = {head: self.kept.get(head) for head in heads}
        missing = [head for head, prefix in found.items() if head and prefix is None]
        with torch.no_grad():
            found |= zip(missing, self.extend(None, missing, None), strict=True)
        for head in missing:
            prefix = found[head]
            assert prefix is not None
            self.kept.put(head, prefix)
        return [found[head] for head in heads]

    def keep(self, heads: Sequence[Ids]) -> None:
        """Compute prefixes in the groups in which a call that needs all of them does."""
        for group in self.kept.groups(heads, self.token_bytes):
            self.kept_prefixes([heads[q] for q in group])

    def extend(
        self, root: Tensor | None, chains: Sequence[Ids], vectors: Tensor | None
    ) -> list[Tensor | None]:
        """Keys and values of the root followed by each chain, (layers, 2, heads, tokens, dim).

        Prefix prompts are such already, and have no root.
        """
        if holds_keys(vectors):
            assert root is None
            return [self._own_keys(chain, vectors) for chain in chains]
        known: list[Tensor | None] = [root] * len(chains)
        n_root = 0 if root is None else int(root.shape[-2])
        rows = [
            PackedRow(0, n_root, grow([chain], [()]), np.array([i]))
            for i, chain in enumerate(chains)
            if chain
        ]

        def step(rows: list[PackedRow]) -> None:
            _, layers = self.forward(lay_out(rows, n_root), [root] * len(rows), vectors)
            grown = torch.stack([torch.stack(layer.grown) for layer in layers])
            for b, row in enumerate(rows):
                new = grown[:, :, b, :, : len(row.tree)]
                # Copies, for a view would keep the whole pass alive.
                known[int(row.outputs[0])] = (
                    new.clone() if root is None else torch.cat([root, new], -2)
                )

        for rows_ in self.batch(rows, wants_grad(vectors)):
            self.memory.run(rows_, step)
        return known

    def _own_keys(self, chain: Ids, vectors: Tensor) -> Tensor:
        """Those that the virtual ids of a prefix prompt stand for."""
        places = torch.tensor(chain, dtype=torch.long, device=vectors.device)
        rows = vectors[places - self.n_vocabulary]
        return rows.permute(1, 2, 3, 0, 4).to(self.model.dtype)

    def read_on(self, texts: Sequence[Ids], known: Mapping[Ids, Tensor]) -> dict[Ids, Read]:
        """Read texts to their ends, each from where the longest known beginning of it ends.

        Args:
            texts: One token or more each, none of them known.
            known: Keys and values of texts that were read before.
        """
        distinct, found = list(dict.fromkeys(texts)), dict[Ids, Read]()
        lengths = [
            next((n for n in range(len(text) - 1, 0, -1) if text[:n] in known), 0)
            for text in distinct
        ]
        rows = [
            # A candidate of one token is never fed: it marks the end as the place to read.
            PackedRow(i, n, grow([text[n:]], [((0,),)]), np.array([i]))
            for i, (text, n) in enumerate(zip(distinct, lengths, strict=True))
        ]

        def step(rows: list[PackedRow]) -> None:
            starts = [distinct[row.prefix][: row.prefix_length] for row in rows]
            prefixes = [known[start] if start else None for start in starts]
            layout = lay_out(rows, max(row.prefix_length for row in rows))
            hidden, layers = self.forward(layout, prefixes, None)
            grown = torch.stack([torch.stack(layer.grown) for layer in layers])
            for b, (row, prefix) in enumerate(zip(rows, prefixes, strict=True)):
                new = grown[:, :, b, :, : len(row.tree)]
                # Copies, for a view would keep the whole pass alive.
                new = new.clone() if prefix is None else torch.cat([prefix, new], -2)
                found[distinct[row.prefix]] = Read(hidden[layout.read_nodes[b]], new)

        for rows_ in self.batch(rows, False):
            self.memory.run(rows_, step)
        return found

    def prompts_at_once(self, n_tokens: int) -> int:
        """Prefixes of `n_tokens` whose keys and values may be held together."""
        return max(1, self.memory.limit // 4 // max(1, n_tokens * self.token_bytes))

    def batch(self, rows: Sequence[PackedRow], with_grad: bool) -> list[list[PackedRow]]:
        """Rows grouped into passes that fit."""
        n_prefix = self.memory.prefix_tokens(self.token_bytes)
        return batch(rows, self.memory.tokens(with_grad), n_prefix)

    def forward(
        self, layout: Pass, prefixes: Sequence[Tensor | None], vectors: Tensor | None
    ) -> tuple[Tensor, list[PrefixedLayer]]:
        """Last hidden states where answers are read (n, H), and the layers' keys and values."""
        stacked = _stack(prefixes)
        layers = [
            PrefixedLayer(None if stacked is None else (stacked[:, i, 0], stacked[:, i, 1]))
            for i in range(self.n_layers)
        ]
        device = input_device(self.model)
        arrays = (layout.ids, layout.positions, layout.attends, layout.nodes)
        ids, positions, attends, nodes = (to_device(array, device) for array in arrays)
        return self.hidden(ids, positions, attends, nodes, layers, vectors), layers

    def hidden(
        self,
        ids: Tensor,
        positions: Tensor,
        attends: Tensor,
        nodes: Tensor,
        layers: Sequence[CacheLayerMixin],
        vectors: Tensor | None,
        columns: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states (n, H) at the flat indices `nodes` (n,) into (B, T).

        Args:
            ids: (B, T) int64, virtual ids.
            positions: (B, T) int64.
            attends: (B, T, S + T) bool, S tokens that the layers hold already.
            nodes: (n,) int64.
            layers: Where each layer's keys and values are and go.
            vectors: (N, H) rows that virtual ids stand for.
            columns: (K,) int64, the positions of all keys that the layers have after this, where
                they put the new ones elsewhere than behind those that they hold; `attends` is
                (B, T, K) then.

        Raises:
            ForwardError: The model does not take this, or keeps its keys and values elsewhere.
        """
        masks = self._masks(attends, positions, columns)
        embedded = embed(self.model, ids, vectors)
        with self.kernels.applied(nodes):
            try:
                output = self.model.base_model(
                    inputs_embeds=embedded,
                    attention_mask=masks,
                    position_ids=positions,
                    past_key_values=Cache(layers=list(layers)),
                    use_cache=True,
                )
            except Exception as error:
                if out_of_memory(error):
                    raise
                raise ForwardError(f"{type(error).__name__}: {first_line(error)}") from error
        last: Tensor | None = getattr(output, "last_hidden_state", None)
        if last is None:
            raise ForwardError(f"{type(output).__name__} has no last_hidden_state")
        return last.flatten(0, 1)[nodes]

    def _masks(
        self, attends: Tensor, positions: Tensor, columns: Tensor | None
    ) -> Tensor | dict[str, Tensor]:
        """Additive masks (B, 1, T, S + T), where layers differ those of each type of layer."""
        everything = self._additive(attends)
        window = sliding_window(self.config)
        if window is None:
            return everything
        if columns is None:
            # A row's tokens all attend to its whole prefix, wherever that stands in its columns.
            before = attends[..., : attends.shape[-1] - attends.shape[1]].any(1).cumsum(-1) - 1
            columns = torch.cat([before, positions], 1)[:, None]
        distances = positions[..., None] - columns
        near = self._additive(attends & (distances < window))
        if not getattr(self.config, "layer_types", None):
            return near
        return {"full_attention": everything, SLIDING: near}

    def _additive(self, attends: Tensor) -> Tensor:
        mask = torch.zeros(attends.shape, dtype=self.model.dtype, device=attends.device)
        return mask.masked_fill_(~attends, torch.finfo(mask.dtype).min)[:, None]

    def trials(self) -> Iterator[None]:
        """As the model is, and then with a sliding window of a few tokens, if it has one.

        So that short texts show whether windows are right.
        """
        yield
        window = sliding_window(self.config)
        if window is None:
            return
        try:
            self.config.sliding_window = 4
            with self.forgetful():
                yield
        finally:
            self.config.sliding_window = window

    @torch.no_grad()
    def column_obstacle(self) -> str | None:
        """Why packed texts would not be read as they are, from where their tokens stand, or None.

        A probe's short texts do not show it: GPT-Neo hides what is a window of columns away, or
        beyond its context, and a packed text may stand apart and far to the right.
        """
        ids = some_ids(self.model)
        (first,) = self.extend(None, [tuple(ids[0, :1].tolist())], None)
        assert first is not None
        ids = ids[:, 1:].expand(2, -1)
        nodes = torch.arange(ids.shape[1], device=ids.device)
        # All columns before the text have the same token: one row sees the first, one the last.
        layers = [
            PrefixedLayer((keys, values))
            for keys, values in first[:, :, None].expand(-1, -1, 2, -1, FAR, -1)
        ]
        before = torch.zeros((2, len(nodes), FAR), dtype=torch.bool, device=ids.device)
        before[0, :, 0] = before[1, :, -1] = True
        attends = torch.cat([before, (nodes <= nodes[:, None]).expand(2, -1, -1)], -1)
        places = torch.arange(ids.numel(), device=ids.device)
        with suppress(ForwardError):
            hidden = self.hidden(ids, nodes.expand(2, -1) + 1, attends, places, layers, None)
            far, near = self.head.logits(hidden).view(2, 1, len(nodes), -1)
            if agree(far, near, not quantisation(self.model)):
                return None
        return COLUMNS


class Reader:
    """Reads texts that go on with those of earlier calls, and remembers the last calls."""

    def __init__(self) -> None:
        self._read: list[tuple[tuple[Ids, ...], dict[Ids, Read]]] = []

    def __call__(self, packed: PackedModel, calls: Sequence[tuple[Ids, ...]]) -> Tensor:
        """The last hidden states of the last call's texts, (B, W)."""
        same = 0
        while same < min(len(calls) - 1, len(self._read)) and self._read[same][0] == calls[same]:
            same += 1
        del self._read[same:]
        for call in calls[same:]:
            known = {text: read.known for _, reads in self._read for text, read in reads.items()}
            self._read.append((call, packed.read_on(call, known)))
        reads = self._read[-1][1]
        return torch.stack([reads[text].hidden for text in calls[-1]])


class PrefixedLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # not annotated
    """Keys and values of one layer after a known prefix, neither of which is ever changed."""

    def __init__(self, prefix: tuple[Tensor, Tensor] | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.prefix = prefix
        self.grown: tuple[Tensor, Tensor]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The prefix's keys and values followed by the new ones."""
        self.grown = key_states, value_states
        if self.prefix is None:
            return self.grown
        keys, values = self.prefix
        return torch.cat([keys, key_states], -2), torch.cat([values, value_states], -2)

    def get_seq_length(self) -> int:
        """Tokens of the prefix."""
        return 0 if self.prefix is None else int(self.prefix[0].shape[-2])


def _stack(prefixes: Sequence[Tensor | None]) -> Tensor | None:
    """Prefixes side by side, (B, layers, 2, heads, S, dim), padded on the right."""
    some = next((prefix for prefix in prefixes if prefix is not None), None)
    if some is None:
        return None
    known = [some[..., :0, :] if prefix is None else prefix for prefix in prefixes]
    longest = max(int(prefix.shape[-2]) for prefix in known)
    return torch.stack([F.pad(prefix, (0, 0, 0, longest - prefix.shape[-2])) for prefix in known])
