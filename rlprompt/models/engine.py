"""How a model is run: packed (`PackedScorer`) where it allows that, else plain (`PlainScorer`).

Both give the same answers; which of the two it is was measured when the model was taken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from rlprompt.models import precision
from rlprompt.models.conventions import (
    context_length,
    decoder_start,
    hashed_limit,
    packing_obstacle,
    rope_limits,
)
from rlprompt.models.devices import free_bytes
from rlprompt.models.examination import SHORT, agree, examine, outputs, some_ids
from rlprompt.models.long_rope import LongRopeGenerator, LongRopeScorer
from rlprompt.models.memory import Memory, out_of_memory
from rlprompt.models.noise import Noise
from rlprompt.models.packed.generation import PackedGenerator
from rlprompt.models.packed.kernels import Kernels
from rlprompt.models.packed.model import ForwardError, PackedModel, Reader
from rlprompt.models.packed.scoring import PackedScorer, forgetful
from rlprompt.models.plain import PlainScorer
from rlprompt.models.plain_generation import PlainGenerator
from rlprompt.models.request import Limits, Request, calls, join, prepare, prepare_soft
from rlprompt.models.scorer import Generator, Over, Scorer, to_device, token_vectors
from rlprompt.models.weights import input_device, quantisation
from rlprompt.prompt import FedPrompt, SoftPrompt
from rlprompt.template import Query
from rlprompt.types import Ids, ModelKind

logger = logging.getLogger(__name__)

PairReward = Callable[[Tensor, NDArray[np.int64]], Tensor]


class Engine:
    """Runs one frozen model.

    Args:
        model: In evaluation mode.
        kind: Where it reads its answer.
        name: What errors call it.
        mask_id: Of the mask, if it has one.
        prefix_ids: Special tokens at the beginning of a text.
        memory_limit: Bytes that scoring may use beyond the weights; None for a quarter of what is
            free now.

    Attributes:
        memory: What of these is left beside the packed weights.
        head: What makes logits of the next token; None where nothing does.
        plain: Row by row.
        packed: Packed, or None.
        obstacle: Why prompts are not packed, or None.
        rope_limits: Lengths that no pass has texts on both sides of (`conventions.rope_limits`);
            beyond the first of them nothing is packed.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        kind: ModelKind,
        name: str,
        mask_id: int | None,
        prefix_ids: Ids,
        memory_limit: int | None,
    ) -> None:
        self.model, self.kind, self.name, self.prefix_ids = model, kind, name, prefix_ids
        limit = free_bytes(self.device) // 4 if memory_limit is None else memory_limit
        start = decoder_start(model, name) if kind == "encoder-decoder" else ()
        self.head, pads = examine(model, kind, name, start)
        kernels = self._kernels(limit // 2)
        self.memory = Memory(model, limit - kernels.packed_bytes)
        self.rope_limits = rope_limits(model, kind)
        made_of = model, kind, mask_id, start, self.memory, kernels, pads
        self.plain = PlainScorer(*made_of, self.rope_limits)
        self.packed: PackedScorer | None = None
        self.probe = precision.probe_rows(self.n_vocabulary, mask_id, model)
        plain, exact = partial(self.score, scorer=self.plain), model.dtype == torch.float32
        self.obstacle = self._pack(kernels, plain, exact)
        if self.obstacle is not None:
            self.packed = None
            logger.info("%s is scored row by row, not packed: %s", name, self.obstacle)
            if quantisation(model):
                precision.keep_apart(self.memory, plain, *self.probe, exact=exact)
        self._reader = Reader()

    @torch.no_grad()
    def _kernels(self, room: int) -> Kernels:
        """Faster ways to compute the model's layers, if it says the same with them.

        After a first pass, in which some types change their weights for good (RWKV).
        """
        kernels = Kernels(self.model.base_model, room)
        if not kernels.packed_bytes:
            return kernels
        # As where it is scored: some have no cache that works.
        options = {} if self.kind == "masked" else {"use_cache": False}
        say = partial(outputs, self.model, some_ids(self.model, SHORT), **options)
        with kernels.applied():
            found = say()
        if not agree(found, say(), not quantisation(self.model)):
            logger.info("%s says something else with packed weights: none are packed", self.name)
            kernels.drop()
        return kernels

    def _pack(self, kernels: Kernels, plain: Any, exact: bool) -> str | None:
        """Score packed from now on; or why that cannot be."""
        obstacle = packing_obstacle(self.model, self.kind)
        if obstacle is not None or self.head is None:
            return obstacle or "its logits are more than a scaled or softly capped linear layer"
        try:
            packed = PackedModel(self.model, self.head, self.memory, kernels)
            self.packed = PackedScorer(packed)
            tell, usual = precision.disagreement, partial(self.score, scorer=self.packed)
            found = [tell(usual, plain, *self.probe, exact=exact) for _ in packed.trials()]
            return next(filter(None, found), None) or packed.column_obstacle()
        except ForwardError as error:
            return f"its forward pass refused a packed input ({error})"

    @property
    def device(self) -> torch.device:
        """Where the model takes its inputs."""
        return input_device(self.model)

    @property
    def n_vocabulary(self) -> int:
        """Rows of the embedding table, V."""
        return int(self._embedding.weight.shape[0])

    @property
    def hidden_size(self) -> int:
        """Width of the embedding vectors, H."""
        return int(self._embedding.weight.shape[1])

    @property
    def _embedding(self) -> torch.nn.Embedding:
        return cast(torch.nn.Embedding, self.model.get_input_embeddings())

    @cached_property
    def context(self) -> int | None:
        """Longest sequence that the model takes, in tokens; None where there is no limit."""
        return context_length(self.model, self.kind)

    @property
    def marks(self) -> list[str]:
        """Ways in which the model is scored that were wrong once."""
        config: Any = self.model.config
        layers = getattr(config, "num_hidden_layers", 0)
        marks = ["in its layers"] * self.plain.kernels.differ
        marks += ["rescaled"] * (0 < (getattr(config, "rescale_every", 0) or 0) < layers)
        marks += ["block sparse"] * bool(self.plain.sparse.limits)
        return marks + ["hashed"] * bool(hashed_limit(config))

    @property
    def limits(self) -> Limits:
        """What the model takes."""
        sizes, packed = (self.n_vocabulary, self.hidden_size, self.context), self.packed
        keys = packed.packed.position_shape if packed else f"it is not packed ({self.obstacle})"
        rope_limit = self.rope_limits[0] if self.rope_limits else None
        return Limits(self.name, *sizes, self.prefix_ids, keys, rope_limit, self.kind)

    @property
    def scorer(self) -> Scorer:
        """What scores."""
        if self.packed is not None and self.rope_limits:
            return LongRopeScorer(self.packed, self.plain, self.rope_limits[0])
        return self.packed or self.plain

    def keep(self, queries: Sequence[Query]) -> None:
        """See `FrozenLM.keep`."""
        if self.packed is not None:
            most = self.rope_limits[0] if self.rope_limits else None
            packed = [query for query in queries if most is None or query.n_text <= most]
            self.packed.packed.keep([query.head_ids for query in packed])

    @property
    def vectors_obstacle(self) -> str | None:
        """Why soft prompts cannot be scored, or None."""
        return None if self.packed is not None else self.plain.obstacle

    @cached_property
    def gradient_obstacle(self) -> str | None:
        """See `FrozenLM.gradient_obstacle`."""
        if self.vectors_obstacle or not quantisation(self.model):
            return self.vectors_obstacle
        # One with text after the prompt, so that the gradient has to pass the layers.
        query = self.probe[1][-1]
        soft = SoftPrompt(token_vectors(self.model, query.head_ids).cpu().numpy())
        try:
            self.score_with_grad([soft], [query], lambda loglik, _: loglik.sum(-1), "vocabulary")
        except (ValueError, RuntimeError) as error:
            if out_of_memory(error):
                raise
            logger.info("%s gives no gradient: %s", self.name, error)
            return f"its weights, quantised by {quantisation(self.model)}, pass none on"
        return None

    def vectors(self, request: Request) -> Tensor | None:
        """The vectors of a call on the device; ValueError where the model takes none for tokens."""
        if request.vectors is not None and self.vectors_obstacle:
            raise ValueError(
                f"soft prompts cannot be scored on {self.name}: {self.vectors_obstacle}"
            )
        return request.on(self.device)

    def score(
        self,
        prompts: Sequence[FedPrompt],
        queries: Sequence[Query],
        over: Over = "vocabulary",
        scorer: Scorer | None = None,
    ) -> Tensor:
        """See `FrozenLM.score`; by the usual scorer, or by another."""
        return self._answer(scorer, over, prepare(self.limits, prompts, queries), queries)

    def _answer(
        self, scorer: Scorer | None, over: Over, request: Request, queries: Sequence[Query]
    ) -> Tensor:
        ids, vectors = request.ids, self.vectors(request)
        shape = (len(ids) * len(queries), len(queries[0].candidates))
        out = torch.empty(shape, dtype=torch.float32, device=self.device)

        def consume(index: NDArray[np.int64], loglik: Tensor) -> None:
            out[to_device(index, out.device)] = loglik.float()

        (scorer or self.scorer).score(ids, vectors, queries, over, consume)
        found = out.cpu().view(len(ids), len(queries), -1)
        precision.check_finite(found, self.name, self.model.dtype)
        return found[list(request.inverse)]

    def score_pairs(
        self, pairs: Sequence[tuple[FedPrompt, Query]], over: Over = "vocabulary"
    ) -> list[Tensor]:
        """See `FrozenLM.score_pairs`."""
        found: dict[int, Tensor] = {}
        for places in calls(pairs, over):
            request, queries = join(self.limits, [pairs[i] for i in places])
            # Texts that are served come once: kept, they would fill the memory.
            with forgetful(self.packed):
                (rows,) = self._answer(None, over, request, queries)
            found |= zip(places, rows, strict=True)
        own = [found[i][: len(query.candidates)] for i, (_, query) in enumerate(pairs)]
        # Again, for those that `join` filled up have been normalised with their last one twice.
        return [one.log_softmax(-1) for one in own] if over == "candidates" else own

    def score_with_grad(
        self,
        prompts: Sequence[SoftPrompt],
        queries: Sequence[Query],
        reward: PairReward,
        over: Over,
    ) -> tuple[Tensor, Tensor]:
        """See `FrozenLM.score_with_grad`."""
        request = prepare_soft(self.limits, prompts, queries)
        vectors, n, n_queries = self.vectors(request), len(prompts), len(queries)
        assert vectors is not None
        vectors.requires_grad_()
        out = torch.empty((n * n_queries, len(queries[0].candidates)), device=self.device)

        def consume(index: NDArray[np.int64], loglik: Tensor) -> Tensor:
            out[to_device(index, out.device)] = loglik.detach().float()
            return reward(loglik, index % n_queries).sum()

        self.scorer.score(request.ids, vectors, queries, over, consume)
        precision.check_finite(out, self.name, self.model.dtype)
        grad = torch.zeros_like(vectors) if vectors.grad is None else vectors.grad
        precision.check_gradient(grad, self.name, self.model)
        return out.cpu().view(n, n_queries, -1), grad.cpu().view(n, -1, *grad.shape[1:])

    def noise(self, prompts: Sequence[FedPrompt], queries: Sequence[Query]) -> Noise:
        """See `FrozenLM.noise`."""

        def usual(prompts: Any, queries: Sequence[Query], most: int = 0) -> Tensor:
            with forgetful(self.packed), self.memory.at_most(most or self.memory.most_tokens):
                return self.score(prompts, queries)

        small, plain = partial(usual, most=48), partial(self.score, scorer=self.plain)
        return precision.measure_noise(usual, small, plain, prompts, queries)

    def last_hidden(self, texts: Sequence[Ids], after: Sequence[Sequence[Ids]]) -> Tensor:
        """See `FrozenLM.last_hidden`; on the device."""
        longest = max(len(text) for call in (*after, texts) for text in call)
        short = not self.rope_limits or longest <= self.rope_limits[0]
        if after and self.packed is not None and short:
            return self._reader(self.packed.packed, [*map(tuple, after), tuple(texts)])
        return self.plain.last_hidden(texts, whole=self.packed is None)

    @cached_property
    def generator(self) -> Generator:
        """What writes."""
        plain = PlainGenerator(self.plain)
        if self.packed is None:
            return plain
        packed = PackedGenerator(self.packed.packed)
        return LongRopeGenerator(packed, plain, self.rope_limits[0]) if self.rope_limits else packed
