"""Runs sequences through any Hugging Face model, one row a sequence.

The way for masked models, where every token sees the prompt and nothing can be shared, for
encoder-decoders, and for causal models with layers that cannot be packed (`packing_obstacle`).

Rows of like length go together, padded on the right where the model allows it, not over a limit
beyond which positions are scaled otherwise (`rope_limits`) or attention has another block
(`BlockSparse`), and the model's own head is applied at the answers' positions only.
`PlainGenerator` writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlprompt.models.conventions import BlockSparse
from rlprompt.models.examination import vectors_obstacle
from rlprompt.models.memory import Memory
from rlprompt.models.packed.kernels import Kernels
from rlprompt.models.scorer import (
    Consume,
    Over,
    accumulate_grad,
    collect,
    embed,
    to_device,
    wants_grad,
)
from rlprompt.models.weights import input_device
from rlprompt.template import Query
from rlprompt.types import Ids, ModelKind

# Pairs written down and sorted at a time: enough for even lengths, little enough for memory.
WINDOW = 8192


@dataclass(frozen=True)
class _Form:
    """One way of writing a pair down, which answers some of its candidates.

    Attributes:
        ids: What the model (its encoder, if there is one) is fed, virtual ids.
        decoder_ids: What the decoder is fed, for encoder-decoders.
        reads: (position, target id, candidate) of each read.
    """

    ids: Ids
    decoder_ids: Ids
    reads: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class _Pair:
    index: int
    forms: tuple[_Form, ...]

    @property
    def longest(self) -> int:
        return max(len(form.ids) for form in self.forms)


class PlainScorer:
    """Scores any model row by row.

    Args:
        model: The frozen model.
        kind: How it answers.
        mask_id: Id of the mask token; of an encoder-decoder, of the sentinel that stands for a gap.
        start: What the decoder of an encoder-decoder begins with.
        memory: Sizes passes.
        kernels: Faster ways to compute the model's modules.
        pads: Whether texts of unlike length may go together.
        rope_limits: Lengths that no pass has texts on both sides of.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        kind: ModelKind,
        mask_id: int | None,
        start: Ids,
        memory: Memory,
        kernels: Kernels,
        pads: bool = True,
        rope_limits: Sequence[int] = (),
    ) -> None:
        self.model, self.kind, self.mask_id, self.start = model, kind, mask_id, start
        self.memory, self.kernels, self.pads, self.rope_limits = memory, kernels, pads, rope_limits
        self.sparse = BlockSparse(model, kind)

    def score(
        self,
        prompts: Sequence[Ids],
        vectors: Tensor | None,
        queries: Sequence[Query],
        over: Over,
        consume: Consume,
    ) -> None:
        """See `Scorer.score`."""
        n_candidates = len(queries[0].candidates)
        with_grad = wants_grad(vectors)

        def step(pairs: list[_Pair]) -> None:
            value = consume(*self._answer(pairs, vectors, n_candidates, over))
            if value is not None and vectors is not None:
                accumulate_grad(value, [vectors])

        def pairs() -> Iterator[_Pair]:
            for p, prompt in enumerate(prompts):
                for q, query in enumerate(queries):
                    yield _Pair(p * len(queries) + q, tuple(self._forms(prompt, query)))

        with torch.set_grad_enabled(with_grad):
            for part in _passes(pairs(), self.memory.tokens(with_grad)):
                self.memory.run(part, step)

    @cached_property
    def obstacle(self) -> str | None:
        """Why vectors do not stand for tokens, or None."""
        return vectors_obstacle(self.model, self.kind, self.start, self.mask_id)

    def _forms(self, prompt: Ids, query: Query) -> Iterator[_Form]:
        if self.kind == "masked":
            yield from self._masked_forms(prompt, query)
            return
        context = query.head_ids + prompt + query.tail_ids
        decoded = self.kind == "encoder-decoder"
        # Candidates that are fed the same tokens (none, for single-token ones) share a row.
        stems: dict[tuple[Ids, Ids], list[int]] = {}
        for c, candidate in enumerate(query.candidates):
            begun = self.decoder_start(query, candidate) if decoded else context
            stems.setdefault((begun, candidate[:-1]), []).append(c)
        for (begun, stem), which in stems.items():
            fed = begun + stem
            reads = [
                (len(begun) - 1 + i, target, c)
                for c in which
                for i, target in enumerate(query.candidates[c])
            ]
            yield _Form(context if decoded else fed, fed if decoded else (), tuple(reads))

    def decoder_start(self, query: Query, candidate: Ids = ()) -> Ids:
        """What the decoder begins with: of a text with a gap, the gap's sentinel as well.

        A model that was trained to fill gaps says which one it fills (Raffel et al. 2020, arXiv
        1910.10683, section 3.1.4), and a candidate may say so itself.
        """
        gap = self.mask_id is not None and self.mask_id in (*query.head_ids, *query.tail_ids)
        if gap and candidate[:1] != (self.mask_id,):
            return (*self.start, cast(int, self.mask_id))
        return self.start

    def _masked_forms(self, prompt: Ids, query: Query) -> Iterator[_Form]:
        """One row for each length of candidate, with as many masks.

        A longer answer's log-likelihood is the sum over its masks, all hidden at once
        (Schick & Schuetze 2021, arXiv 2009.07118, section 3.1, without the decoding order).
        """
        assert self.mask_id is not None
        n_mask = query.head_ids.count(self.mask_id) + query.tail_ids.count(self.mask_id)
        if n_mask != 1:
            raise ValueError(
                f"a masked model answers at one mask, this query has {n_mask}; "
                'put {mask} into the template, such as "{text} {prompt} {mask} ."'
            )
        context = list(query.head_ids + prompt + query.tail_ids)
        at = (
            query.head_ids.index(self.mask_id)
            if self.mask_id in query.head_ids
            else len(query.head_ids) + len(prompt) + query.tail_ids.index(self.mask_id)
        )
        for length in dict.fromkeys(map(len, query.candidates)):
            ids = context[:at] + [self.mask_id] * length + context[at + 1 :]
            reads = [
                (at + i, target, c)
                for c, candidate in enumerate(query.candidates)
                if len(candidate) == length
                for i, target in enumerate(candidate)
            ]
            yield _Form(tuple(ids), (), tuple(reads))

    def _answer(
        self, pairs: list[_Pair], vectors: Tensor | None, n_candidates: int, over: Over
    ) -> tuple[NDArray[np.int64], Tensor]:
        forms = [form for pair in pairs for form in pair.forms]
        places = [sorted({position for position, _, _ in form.reads}) for form in forms]
        logits = self._logits(forms, vectors, _pad(places)[0])
        rows, columns, targets, outputs, candidates = (
            np.array(column, dtype=np.int64)
            for column in zip(
                *(
                    (row, place.index(position), target, pair_index, candidate)
                    for row, (form, place, pair_index) in enumerate(
                        zip(forms, places, _owners(pairs), strict=True)
                    )
                    for position, target, candidate in form.reads
                ),
                strict=True,
            )
        )
        where = tuple(to_device(index, logits.device) for index in (rows, columns, targets))
        reads = logits.float().log_softmax(-1)[where]
        return collect(reads, outputs, candidates, n_candidates, over)

    def _logits(
        self, forms: Sequence[_Form], vectors: Tensor | None, places: NDArray[np.int64]
    ) -> Tensor:
        """(B, n, V) at `places` (B, n) of each form."""
        lengths = np.array([len(form.ids) for form in forms])
        # No model has limits of both sorts.
        limits = self.sparse.limits or self.rope_limits
        groups = _groups(np.searchsorted(limits, lengths) if self.pads else lengths)
        if len(groups) == 1:
            return self._alike(forms, vectors, places)
        parts = [self._alike([forms[int(i)] for i in own], vectors, places[own]) for own in groups]
        return self._in_order(parts, groups)

    def _in_order(self, parts: Sequence[Tensor], groups: Sequence[NDArray[np.int64]]) -> Tensor:
        """What was computed group by group, in the order of the texts."""
        order = np.argsort(np.concatenate(groups))
        return torch.cat(list(parts))[to_device(order, input_device(self.model))]

    def _alike(
        self, forms: Sequence[_Form], vectors: Tensor | None, places: NDArray[np.int64]
    ) -> Tensor:
        """As `_logits`, in one pass."""
        longest = max(len(form.ids) for form in forms)
        self.sparse.attend_as_alone(longest)
        with self.kernels.applied():
            if self.kind == "encoder-decoder":
                fed = self._fed_decoder(forms, vectors)
            else:
                fed = self._fed([form.ids for form in forms], vectors)
            caching = {} if self.kind == "masked" else {"use_cache": False}
            where = to_device(places, input_device(self.model))
            return logits_at(self.model, where, **fed, **caching)

    def _fed(self, ids: Sequence[Ids], vectors: Tensor | None) -> dict[str, Any]:
        padded, mask = (to_device(array, input_device(self.model)) for array in _pad(ids))
        # Some models derive positions from the ids, so vectors are given only where they must be.
        if vectors is None:
            return {"input_ids": padded, "attention_mask": mask}
        return {"inputs_embeds": embed(self.model, padded, vectors), "attention_mask": mask}

    def _fed_decoder(self, forms: Sequence[_Form], vectors: Tensor | None) -> dict[str, Any]:
        """Every text goes through the encoder once, whatever the number of answers to it."""
        model = cast(Any, self.model)
        texts = {ids: i for i, ids in enumerate(dict.fromkeys(form.ids for form in forms))}
        fed = self._fed(list(texts), vectors)
        encoded = model.get_encoder()(**fed)
        device = input_device(self.model)
        which = to_device(np.array([texts[form.ids] for form in forms]), device)
        decoder_ids = to_device(_pad([form.decoder_ids for form in forms])[0], device)
        encoded.last_hidden_state = encoded.last_hidden_state[which]
        return {
            "encoder_outputs": encoded,
            "attention_mask": fed["attention_mask"][which],
            "decoder_input_ids": decoder_ids,
        }

    def last_hidden(self, texts: Sequence[Ids], *, whole: bool) -> Tensor:
        """What a causal model's output head is given at the end of each text, (B, W).

        Args:
            texts: Token ids, one or more each, computed in one forward pass, or in one on each
                side of a limit.
            whole: Whether to run the model as it is, and not only what is known to come before its
                head.
        """
        groups = _groups(np.searchsorted(self.rope_limits, [*map(len, texts)]))
        parts = [self._last_hidden([texts[int(i)] for i in own], whole) for own in groups]
        return parts[0] if len(parts) == 1 else self._in_order(parts, groups)

    def _last_hidden(self, texts: Sequence[Ids], whole: bool) -> Tensor:
        """As `last_hidden`, in one pass."""
        model: Any = self.model  # transformers leaves these methods untyped
        longest, device = max(map(len, texts)), input_device(self.model)
        # What stands behind a position cannot change what a causal model makes of it: no mask.
        padded = torch.tensor(
            [(*text, *text[-1:] * (longest - len(text))) for text in texts], device=device
        )
        ends = torch.tensor([len(text) - 1 for text in texts], device=device)
        if not whole:
            hidden: Tensor = model.base_model(padded).last_hidden_state
            return hidden[torch.arange(len(texts), device=device), ends]
        given: list[Tensor] = []
        head: nn.Module = model.get_output_embeddings()
        with answers_at(head, ends[:, None]):  # which cuts before this looks
            handle = head.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
            try:
                model(input_ids=padded, use_cache=False)
            finally:
                handle.remove()
        return given[0][:, 0]


def logits_at(model: Any, places: Tensor, **fed: Any) -> Tensor:
    """Logits (B, n, V) at `places` (B, n) of what a model makes of what it is fed."""
    with answers_at(model.get_output_embeddings(), places) as cut:
        logits: Tensor = model(**fed).logits
    if not cut:  # a model whose head is no module of its own
        logits = logits.gather(1, places[..., None].expand(-1, -1, logits.shape[-1]))
    return logits


@contextmanager
def answers_at(head: nn.Module | None, places: Tensor) -> Iterator[list[nn.Module]]:
    """Let the output head see only the hidden states at `places` (B, n); tells whether it did."""
    cut: list[nn.Module] = []

    def trim(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        hidden = inputs[0]
        if hidden.ndim != 3 or not hidden.is_floating_point():
            return None
        cut.append(module)
        where = places.to(hidden.device)[..., None]
        return (hidden.gather(1, where.expand(-1, -1, hidden.shape[-1])),)

    if head is None:
        yield cut
        return
    handle = head.register_forward_pre_hook(trim)
    try:
        yield cut
    finally:
        handle.remove()


def _groups(kinds: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Places of what is of one kind, the lowest first."""
    return [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]


def _owners(pairs: Sequence[_Pair]) -> list[int]:
    return [pair.index for pair in pairs for _ in pair.forms]


def _passes(pairs: Iterator[_Pair], n_tokens: int) -> Iterator[list[_Pair]]:
    """Pairs of like length together, at most `n_tokens` padded tokens a pass or one pair."""
    while window := [pair for _, pair in zip(range(WINDOW), pairs, strict=False)]:
        window.sort(key=lambda pair: -pair.longest)
        part: list[_Pair] = []
        for pair in window:
            widest = part[0].longest if part else 0
            alike = pair.longest >= widest - max(4, widest // 16)
            n_rows = sum(len(other.forms) for other in part) + len(pair.forms)
            if part and (not alike or widest * n_rows > n_tokens):
                yield part
                part = []
            part.append(pair)
        if part:
            yield part


def _pad(rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows padded on the right with 0, and 1 where a number is real."""
    width = max(map(len, rows))
    padded = np.zeros((len(rows), width), dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for row, numbers in enumerate(rows):
        padded[row, : len(numbers)] = numbers
        mask[row, : len(numbers)] = 1
    return padded, mask
