"""How much fits: sizes forward passes, backs off when memory runs out, bounds what is kept."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlprompt._utils.text import first_line
from rlprompt.models.weights import input_device
from rlprompt.types import Ids

logger = logging.getLogger(__name__)
T = TypeVar("T")

# New tokens in one forward pass. On a CPU more only spills the caches (2 cores, SmolLM2-135M:
# fastest between 640 and 1024); a GPU wants enough to fill it.
MOST_TOKENS = {"cpu": 768, "cuda": 16_384}

# Prefixes are copied for each pass. On a CPU enough for 150 rows of 30 tokens of SmolLM2-135M: more
# of them (400 make 550 MB) only cost memory. A GPU wants as many rows as fit.
MOST_PREFIX_BYTES = {"cpu": 192 << 20}


def split_evenly(count: int, most: int) -> list[range]:
    """Cut `range(count)` into the fewest runs of at most `most`, as even as can be."""
    n_parts = -(-count // max(most, 1))
    edges = [round(part * count / n_parts) for part in range(n_parts + 1)] if n_parts else [0]
    return [range(a, b) for a, b in pairwise(edges)]


class RowTooLargeError(torch.OutOfMemoryError, ValueError):
    """A pass of one row does not fit into memory, which is for a person to change."""


class Memory:
    """Sizes passes to a limit, and shrinks them where the limit proves too high.

    Args:
        model: The model whose activations are to fit.
        limit: Bytes that a call may use beyond the weights.
    """

    def __init__(self, model: PreTrainedModel, limit: int) -> None:
        config = model.config.get_text_config()
        hidden = getattr(config, "hidden_size", None) or _widest(model)
        n_layers = getattr(config, "num_hidden_layers", None) or 1
        inner = getattr(config, "intermediate_size", None) or 4 * hidden
        inner = max(inner) if isinstance(inner, Sequence) else int(inner)  # or one a layer
        number = model.dtype.itemsize
        self.limit = limit
        self._most_prefix_bytes = MOST_PREFIX_BYTES.get(input_device(model).type, limit)
        self.most_tokens = MOST_TOKENS.get(input_device(model).type, MOST_TOKENS["cuda"])
        # Without gradients one layer's activations live at a time, next to the new keys and values
        # of all; a backward pass keeps every layer's.
        self._per_token = number * (12 * hidden + 4 * inner + 2 * n_layers * hidden)
        self._per_token_grad = number * n_layers * (12 * hidden + 4 * inner)

    def tokens(self, grad: bool = False) -> int:
        """New tokens that one pass may have."""
        per_token = self._per_token_grad if grad else self._per_token
        return max(1, min(self.most_tokens, self.limit // 2 // per_token))

    def prefix_tokens(self, bytes_per_token: int) -> int:
        """Tokens whose keys and values may be laid side by side as the prefixes of one pass."""
        return max(1, min(self.limit // 8, self._most_prefix_bytes) // bytes_per_token)

    def head_rows(self, n_vocabulary: int) -> int:
        """Answers whose logits over the whole vocabulary may be held at a time."""
        # Logits, the same in float32, and their log-softmax.
        return max(1, self.limit // 8 // (12 * n_vocabulary))

    @contextmanager
    def at_most(self, n_tokens: int) -> Iterator[None]:
        """Smaller passes for a while."""
        before, self.most_tokens = self.most_tokens, min(n_tokens, self.most_tokens)
        try:
            yield
        finally:
            self.most_tokens = before

    def run(self, items: list[T], step: Callable[[list[T]], None]) -> None:
        """`step(items)`, in halves where that runs out of memory; later passes stay smaller.

        `step` must change nothing before it has succeeded.

        Raises:
            RowTooLargeError: One item alone does not fit.
        """
        try:
            step(items)
            return
        except RuntimeError as error:
            if isinstance(error, RowTooLargeError) or not out_of_memory(error):
                raise
            if len(items) == 1:
                raise RowTooLargeError(
                    "there is not enough memory for one prompt with one text "
                    f"({first_line(error)}); shorten the longest texts (`on_long_text:` of a "
                    "task), compute in 16 bits (dtype bfloat16), or use a smaller model or a "
                    "device with more memory"
                ) from error
        self.most_tokens = max(1, self.most_tokens // 2)
        logger.warning("out of memory: passes shrink to %d tokens", self.most_tokens)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        middle = len(items) // 2
        self.run(items[:middle], step)
        self.run(items[middle:], step)


def _widest(model: PreTrainedModel) -> int:
    """Most inputs of a matrix, where a config has no one width."""
    return max(parameter.shape[-1] for parameter in model.parameters() if parameter.ndim == 2)


def out_of_memory(error: Exception) -> bool:
    """Whether this is what a device says that has no memory left."""
    # A CPU has no exception of its own: the allocator says "can't allocate memory".
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


class KeptPrefixes:
    """Keys and values of texts before the prompt, the least recently used dropped first.

    Args:
        limit: Bytes kept at the most.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: OrderedDict[Ids, Tensor] = OrderedDict()
        self._bytes = 0

    def get(self, ids: Ids) -> Tensor | None:
        """The prefix of these ids, (layers, 2, heads, tokens, dim), if it is kept."""
        if ids in self._kept:
            self._kept.move_to_end(ids)
        return self._kept.get(ids)

    def put(self, ids: Ids, prefix: Tensor) -> None:
        """Keep a prefix, dropping others until it fits."""
        self._kept[ids] = prefix
        self._bytes += prefix.nbytes
        while self._bytes > self.limit:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.nbytes

    def groups(self, heads: Sequence[Ids], bytes_per_token: int) -> Iterator[list[int]]:
        """Cut `range(len(heads))` into runs whose prefixes fit together."""
        group: list[int] = []
        room = self.limit
        for i, head in enumerate(heads):
            size = len(head) * bytes_per_token
            if group and size > room:
                yield group
                group, room = [], self.limit
            group.append(i)
            room -= size
        yield group
