"""What every way of running a model has in common: what it is asked, and how answers are gathered.

`PackedScorer` and `PackedGenerator` compute what sequences share once; `PlainScorer` and
`PlainGenerator` take any model, one padded row a sequence. Prompts come to all of them as virtual
ids: an id of `vocabulary + i` stands for row `i` of a table of vectors, or, in prefix prompts, of
keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeGuard, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlprompt.models.decoding import AnswerEnd, Draws, Generated
from rlprompt.models.weights import input_device
from rlprompt.template import Query
from rlprompt.types import Ids

Over = Literal["vocabulary", "candidates"]


class Consume(Protocol):
    """Takes the answers of one pass as they come."""

    def __call__(self, index: NDArray[np.int64], loglik: Tensor) -> Tensor | None:
        """Take `loglik[i]` (C,) as the answer to pair `index[i]` = prompt * Q + query.

        Under gradients, returns the scalar to differentiate.
        """
        ...


class Scorer(Protocol):
    """How a kind of model is run; prompts come as virtual ids."""

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
            vectors: (N, H) rows that virtual ids from the vocabulary's size on stand for; of prefix
                prompts (N, layers, 2, heads, dim), where the model is packed. Where it requires a
                gradient, that of the sum of what `consume` returned is added to its `.grad`.
            queries: (Q,) of them, each with C candidates.
            over: What log-likelihoods are normalised over.
            consume: Takes the answers.
        """
        ...


class Generator(Protocol):
    """How a kind of model writes; prompts come as virtual ids."""

    def generate(
        self,
        prompts: Sequence[Ids],
        vectors: Tensor | None,
        queries: Sequence[Query],
        draws: Draws,
        end: AnswerEnd,
    ) -> list[Generated]:
        """Continue every pair of prompt and query.

        Args:
            prompts: Virtual ids, (P,) of them.
            vectors: As for `Scorer.score`.
            queries: (Q,) of them.
            draws: (P * Q, max_new_tokens) numbers that decide each answer.
            end: Tells when an answer is whole.

        Returns:
            Answers, that of pair (p, q) at p * Q + q.
        """
        ...


def write(
    generator: Generator,
    prompts: Sequence[Ids],
    digests: Sequence[str],
    vectors: Tensor | None,
    queries: Sequence[Query],
    end: AnswerEnd,
) -> list[list[Generated]]:
    """Answers (P, Q), those to equal queries written once.

    Args:
        generator: Writes them.
        prompts: Virtual ids, (P,) of them, each once.
        digests: Digests of the prompts.
        vectors: As for `Generator.generate`.
        queries: (Q,) of them.
        end: Tells when an answer is whole.
    """
    distinct = {(query.head_ids, query.tail_ids): query for query in queries}
    asked = list(distinct.values())
    draws = np.stack([end.decoding.draws(d, query) for d in digests for query in asked])
    answers = generator.generate(prompts, vectors, asked, draws, end)
    places = {key: i for i, key in enumerate(distinct)}
    columns = [places[query.head_ids, query.tail_ids] for query in queries]
    return [[answers[p * len(asked) + q] for q in columns] for p in range(len(prompts))]


def collect(
    reads: Tensor,
    outputs: NDArray[np.int64],
    candidates: NDArray[np.int64],
    n_candidates: int,
    over: Over,
) -> tuple[NDArray[np.int64], Tensor]:
    """Sum reads (R,) by pair and candidate: the pairs (n,) and their log-likelihoods (n, C)."""
    index, which = np.unique(outputs, return_inverse=True)  # here, for a GPU would be waited for
    zeros = torch.zeros(len(index) * n_candidates, dtype=reads.dtype, device=reads.device)
    places = to_device(which * n_candidates + candidates, reads.device)
    loglik = zeros.index_add(0, places, reads).view(len(index), n_candidates)
    if over == "candidates":
        loglik = loglik.log_softmax(-1)
    return index, loglik


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


def holds_keys(vectors: Tensor | None) -> TypeGuard[Tensor]:
    """Whether rows are the keys and values of prefix prompts, and no input vectors."""
    return vectors is not None and vectors.ndim > 2


def behind_prefixes(queries: Sequence[Query]) -> list[Query]:
    """Queries of which all the text follows the prompt: a prefix stands before special tokens."""
    return [Query((), query.head_ids + query.tail_ids, query.candidates) for query in queries]


def embed(model: PreTrainedModel, ids: Tensor, vectors: Tensor | None) -> Tensor:
    """Input vectors (..., H) of virtual ids (...)."""
    embedding = cast(nn.Embedding, model.get_input_embeddings())
    if holds_keys(vectors):  # they stand before all ids and are none of them
        vectors = None
    n_vocabulary = len(embedding.weight)
    soft = ids >= n_vocabulary
    found: Tensor | tuple[Tensor, ...] = embedding(
        ids if vectors is None else ids.masked_fill(soft, 0)
    )
    words = found[0] if isinstance(found, tuple) else found  # a quantised one gives its scale too
    if vectors is None:
        return words
    places = (ids - n_vocabulary).clamp_min(0)
    return torch.where(soft[..., None], vectors.to(words.dtype)[places], words)


@torch.no_grad()
def token_vectors(model: PreTrainedModel, ids: Sequence[int] | None = None) -> Tensor:
    """The vector that each token is fed as, (V, H) float32 on the model's device; or some of them.

    Through the module: some models (Gemma) scale the rows of the table.
    """
    n_vocabulary = len(cast(nn.Embedding, model.get_input_embeddings()).weight)
    tokens = torch.arange(n_vocabulary) if ids is None else torch.tensor(ids)
    return embed(model, tokens.to(input_device(model)), None).float()


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array on the device; from pinned memory, so that a GPU is not made to wait."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
