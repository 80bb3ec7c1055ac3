"""How much a score depends on the way it was computed, and which dtype is exact enough.

The same row comes out a little differently in another batch, another order or another layout,
because floating-point sums are rounded differently: by about 1e-5 nats in float32, and by a few
hundredths in bfloat16, which is as much as good prompts differ by.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from rlprompt.models.memory import free_bytes
from rlprompt.models.noise import QUIET, Noise
from rlprompt.prompt import Prompt, TokenPrompt
from rlprompt.template import Query

logger = logging.getLogger(__name__)

Scoring = Callable[[Sequence[Prompt], Sequence[Query]], Tensor]

# How much faster 16-bit products must be to be worth another look.
FASTER = 1.2


def measure_noise(
    score: Scoring,
    score_small: Scoring,
    score_plain: Scoring,
    prompts: Sequence[Prompt],
    queries: Sequence[Query],
) -> Noise:
    """Score the same rows in other ways.

    Args:
        score: (P, Q, C) log-likelihoods as usual, remembering nothing.
        score_small: The same in smaller passes.
        score_plain: The same with nothing shared.
        prompts: (P,), scored P * Q more times.
        queries: (Q,).
    """
    together = score(prompts, queries)
    rng = np.random.default_rng(0)
    p, q = rng.permutation(len(prompts)).tolist(), rng.permutation(len(queries)).tolist()
    shuffled = score([prompts[i] for i in p], [queries[j] for j in q])
    alone = [torch.cat([score([a], [b]) for b in queries], 1) for a in prompts]
    first, second = torch.triu_indices(len(prompts), len(prompts), 1)
    distances = (together[first] - together[second]).abs().flatten()
    return Noise(
        alone=_largest(together, torch.cat(alone)),
        shuffled=_largest(together[p][:, q], shuffled),
        batches=_largest(together, score_small(prompts, queries)),
        plain=_largest(together, score_plain(prompts, queries)),
        spread=float(distances.median()) if len(distances) else 0.0,
    )


def _largest(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def probe_rows(n_vocabulary: int, mask_id: int | None) -> tuple[list[Prompt], list[Query]]:
    """A few prompts and queries of random tokens, to try a model on."""
    rng = np.random.default_rng(0)

    def some(length: int) -> tuple[int, ...]:
        drawn = rng.integers(0, n_vocabulary, length).tolist()
        return tuple((i + 1) % n_vocabulary if i == mask_id else i for i in drawn)

    prompts: list[Prompt] = [TokenPrompt(some(length)) for length in (4, 4, 2)]
    tail = () if mask_id is None else (mask_id,)
    queries = [Query(some(length), tail, (some(1), some(2))) for length in (11, 4)]
    return prompts, [*queries, Query(some(3), some(3) + tail, (some(1), some(1)))]


def disagreement(
    score: Scoring,
    score_plain: Scoring,
    prompts: Sequence[Prompt],
    queries: Sequence[Query],
    *,
    exact: bool,
) -> str | None:
    """A reason not to score packed, if that differs from plain scores on a few rows.

    Args:
        score: (P, Q, C) log-likelihoods, packed.
        score_plain: The same, one padded row a sequence.
        prompts: (P,).
        queries: (Q,).
        exact: Whether the model computes in float32.
    """
    differences = (score(prompts, queries) - score_plain(prompts, queries)).abs()
    # A wrong mask is wrong by a nat; float32 agrees to 1e-5, 16 bits to a tenth on average.
    worst = float(differences.max() if exact else differences.mean())
    tolerance = 1e-3 if exact else 0.3
    return None if worst < tolerance else f"packed and plain scores differ by {worst:.2g} nats"


def choose_dtype(
    model: PreTrainedModel, device: torch.device, noise_of: Callable[[PreTrainedModel], Noise]
) -> tuple[PreTrainedModel, str]:
    """The model on the device in the dtype to score in, and why.

    float32, unless 16 bits are at least `FASTER` times as fast at the model's own shapes *and*
    their measured noise is at most `QUIET` of the usual difference between two prompts, so that
    it cannot decide between any but near ties. Where float32 does not fit into the device's memory
    16 bits are all there is, and a warning says so.

    Args:
        model: In the checkpoint's dtype, anywhere.
        device: Where it is to score.
        noise_of: Measures a model that is on the device.
    """
    wide = model.dtype not in (torch.bfloat16, torch.float16)
    narrow = torch.bfloat16 if wide else model.dtype
    name = str(narrow).removeprefix("torch.")
    needed = sum(4 * parameter.numel() for parameter in model.parameters())
    if not wide and needed > 0.8 * free_bytes(device):
        reason = f"float32 needs {needed / 2**30:.1f} GiB, more than is free"
        logger.warning("scoring in %s: %s; near ties are decided by noise", name, reason)
        return _moved(model, device, narrow), reason
    ratio = _speed_ratio(model, narrow, device)
    if ratio < FASTER:
        return _moved(model, device, torch.float32), f"{name} is {ratio:.1f} times as fast only"
    trial = _moved(copy.deepcopy(model) if wide else model, device, narrow)
    noise = noise_of(trial)
    reason = (
        f"{name} is {ratio:.1f} times as fast, its noise is {noise.largest:.2g} nats where two "
        f"prompts differ by {noise.spread:.2g}"
    )
    if noise.largest <= QUIET * noise.spread:
        return trial, reason
    del trial
    return _moved(model, device, torch.float32), reason


def _moved(model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """The model itself, its weights changed as loading in that dtype would have left them."""
    exempt = {
        *(getattr(model, "_keep_in_fp32_modules", None) or ()),
        *(getattr(model, "_keep_in_fp32_modules_strict", None) or ()),
    }
    # Weight by weight: `Module.to` would round buffers too, such as the rotary frequencies.
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not exempt & set(name.split(".")):
            parameter.data = parameter.data.to(dtype)
    moved: PreTrainedModel = torch.nn.Module.to(model, device)
    return moved


def _speed_ratio(model: PreTrainedModel, narrow: torch.dtype, device: torch.device) -> float:
    """How many times as fast as in float32 the model's largest inner product is, about 0.1 s."""
    n_vocabulary = len(cast(Tensor, model.get_input_embeddings().weight))
    inner = [p for p in model.parameters() if p.ndim == 2 and len(p) < n_vocabulary]
    weight = max(inner, key=Tensor.numel).detach().to(device)
    seconds = {}
    for dtype in (torch.float32, narrow):
        cast_weight = weight.to(dtype)
        rows = torch.ones((512, weight.shape[1]), dtype=dtype, device=device)
        seconds[dtype] = min(_seconds(rows, cast_weight) for _ in range(5))
    return seconds[torch.float32] / seconds[narrow]


def _seconds(rows: Tensor, weight: Tensor) -> float:
    start = time.perf_counter()
    out = F.linear(rows, weight)
    out[0, 0].item()  # waits for a GPU
    return time.perf_counter() - start
