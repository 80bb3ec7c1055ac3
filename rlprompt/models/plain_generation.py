"""Lets any causal or encoder-decoder model write, by way of transformers' own `generate`.

Rows of one length go together, so that nothing is padded: that holds for layers of every kind,
recurrent ones and sliding windows too. Settings that a checkpoint brings along (sampling,
penalties, forced or suppressed tokens) are left out; what an answer is, `sampling.py` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from rlprompt.models.decoding import Draws, Generated, Reader
from rlprompt.models.kernels import Kernels
from rlprompt.models.memory import Memory
from rlprompt.models.packed_model import embed, to_device
from rlprompt.models.packing import split_evenly
from rlprompt.template import Query
from rlprompt.types import Ids, ModelKind


class PlainGenerator:
    """Writes with any causal or encoder-decoder model.

    Args:
        model: The frozen model.
        kind: How it answers.
        memory: Sizes batches.
        kernels: Faster ways to compute the model's modules.
    """

    def __init__(
        self, model: PreTrainedModel, kind: ModelKind, memory: Memory, kernels: Kernels
    ) -> None:
        self.model, self.kind, self.memory, self.kernels = model, kind, memory, kernels

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Ids],
        vectors: Tensor | None,
        queries: Sequence[Query],
        draws: Draws,
        reader: Reader,
    ) -> list[Generated]:
        """See `Generator.generate`."""
        texts = [
            query.head_ids + prompt + query.tail_ids for prompt in prompts for query in queries
        ]
        answers: dict[int, Generated] = {}

        def step(pairs: list[int]) -> None:
            writing = _Writing(reader, draws[pairs], len(pairs))
            self._run([texts[pair] for pair in pairs], vectors, writing)
            answers.update(zip(pairs, writing.whole(), strict=True))

        alike: dict[int, list[int]] = {}
        for pair, text in enumerate(texts):
            alike.setdefault(len(text), []).append(pair)
        for length, pairs in alike.items():
            most = self.memory.tokens() // (length + reader.decoding.max_new_tokens)
            for part in split_evenly(len(pairs), most):
                self.memory.run(pairs[part.start : part.stop], step)
        return [answers[pair] for pair in range(len(texts))]

    def _run(self, texts: Sequence[Ids], vectors: Tensor | None, writing: _Writing) -> None:
        ids = to_device(np.array(texts), self.model.device)
        fed = (
            {"input_ids": ids}
            if vectors is None
            else {"inputs_embeds": embed(self.model, ids, vectors)}
        )
        # What `generate` hands on begins with the text's ids, if it was fed ids, or with the
        # decoder's first token.
        if self.kind == "encoder-decoder":
            writing.n_before = 1
        elif vectors is None:
            writing.n_before = ids.shape[1]
        with self.kernels.applied(), _bare(self.model):
            cast(Any, self.model).generate(
                **fed,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=writing.reader.decoding.max_new_tokens,
                do_sample=False,
                logits_processor=LogitsProcessorList([_Choice(writing)]),
                stopping_criteria=StoppingCriteriaList([_End(writing)]),
            )


@contextmanager
def _bare(model: PreTrainedModel) -> Iterator[None]:
    """Without the checkpoint's own settings, which `generate` takes for all that is not said."""
    holder = cast(Any, model)
    before = holder.generation_config
    config = model.config
    make: Any = GenerationConfig  # not annotated
    holder.generation_config = make(
        pad_token_id=getattr(config, "pad_token_id", None) or 0,
        decoder_start_token_id=getattr(config, "decoder_start_token_id", None),
    )
    try:
        yield
    finally:
        holder.generation_config = before


class _Writing:
    """The answers of one batch as they grow."""

    def __init__(self, reader: Reader, draws: Draws, n_rows: int) -> None:
        self.reader, self.draws = reader, draws
        self.answers: list[Generated | None] = [None] * n_rows
        self.n_before = 0

    def whole(self) -> list[Generated]:
        """All answers; the length ends the last of them."""
        return [answer for answer in self.answers if answer is not None]


class _Choice(LogitsProcessor):
    """Leaves nothing to choose but the token that `Decoding.choose` takes."""

    def __init__(self, writing: _Writing) -> None:
        self.writing = writing

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.shape[1] - self.writing.n_before
        chosen = self.writing.reader.decoding.choose(scores, self.writing.draws[:, step])
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen[:, None], 0)


class _End(StoppingCriteria):
    """Ends the rows whose answers are whole."""

    def __init__(self, writing: _Writing) -> None:
        self.writing = writing

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        answers = self.writing.answers
        for row, ids in enumerate(input_ids[:, self.writing.n_before :].tolist()):
            if answers[row] is None:
                answers[row] = self.writing.reader.finished(ids)
        return torch.tensor([answer is not None for answer in answers], device=input_ids.device)
