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
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from rlprompt._utils.text import one_line
from rlprompt.models.devices import free_bytes
from rlprompt.models.memory import Memory
from rlprompt.models.noise import QUIET, Noise, NotFiniteError
from rlprompt.models.reading import quiet
from rlprompt.models.weights import (
    DTYPES,
    input_device,
    keep_layout,
    quantisation,
    stays_as_loaded,
)
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

    Raises:
        ValueError: They are prefix prompts, which are computed in one way alone.
    """
    if any(prompt.kind == "prefix" for prompt in prompts):
        raise ValueError("the noise of prefix prompts is that of others; measure it on tokens")
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


def check_finite(found: Tensor, name: str, dtype: torch.dtype) -> None:
    """Refuse log-likelihoods that are no numbers: rewards made of them would be none, or a lie.

    Raises:
        NotFiniteError: Some are none.
    """
    broken = found[~found.isfinite()]
    if not len(broken):
        return
    why = "its weights, or the vectors of a prompt, are broken or far too large"
    if dtype == torch.float16:
        why = "numbers beyond 65,504 overflow there: load it with dtype bfloat16 or float32"
    raise NotFiniteError(
        f"{len(broken)} of {found.numel()} log-likelihoods of {name} are no finite number, such as "
        f"{float(broken[0])}, in {str(dtype).removeprefix('torch.')}; {why}"
    )


def check_gradient(grad: Tensor, name: str, model: PreTrainedModel) -> None:
    """Refuse gradients that quantised layers swallowed, with which a search would stand still.

    Raises:
        ValueError: All are zero.
    """
    if bool(grad.any()):
        return  # before a look at every layer: this is asked at every step
    if method := quantisation(model):
        raise ValueError(
            f"the gradient of {name} is zero everywhere: layers quantised by {method} carry none "
            "here, or the reward is the same whatever the model answers; use methods that take no "
            "gradient, such as cma-es, ppo-soft or greedy"
        )


def probe_rows(
    n_vocabulary: int, mask_id: int | None, model: PreTrainedModel
) -> tuple[list[Prompt], list[Query]]:
    """A few prompts and queries of random tokens, to try a model on.

    More of them where weights are quantised: activations often are as well, and then it is a row
    in ten that a rounding turns over.
    """
    times = 4 if quantisation(model) else 1
    rng = np.random.default_rng(0)

    def some(length: int) -> tuple[int, ...]:
        drawn = rng.integers(0, n_vocabulary, length).tolist()
        return tuple((i + 1) % n_vocabulary if i == mask_id else i for i in drawn)

    prompts: list[Prompt] = [TokenPrompt(some(length)) for length in (4, 4, 2) * times]
    tail = () if mask_id is None else (mask_id,)
    queries = [Query(some(length), tail, (some(1), some(2))) for length in (11, 4) * times]
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


def keep_apart(
    memory: Memory,
    score_plain: Scoring,
    prompts: Sequence[Prompt],
    queries: Sequence[Query],
    *,
    exact: bool,
) -> None:
    """Have a pass for each row from now on, where rows change with those beside them.

    They do where activations are quantised by the batch that they are in, as by 8 bits of
    bitsandbytes; a score would depend on what it was asked together with.

    Args:
        memory: Sizes passes.
        score_plain: (P, Q, C) log-likelihoods, one padded row a sequence.
        prompts: (P,).
        queries: (Q,).
        exact: Whether the model computes in float32.
    """

    def alone(prompts: Sequence[Prompt], queries: Sequence[Query]) -> Tensor:
        with memory.at_most(1):
            return score_plain(prompts, queries)

    if disagreement(alone, score_plain, prompts, queries, exact=exact) is not None:
        logger.info("each row is scored in a pass of its own: what is beside it would change it")
        memory.most_tokens = 1


def settle(
    model: PreTrainedModel,
    device: torch.device | None,
    dtype: str,
    noise_of: Callable[[PreTrainedModel], Noise],
) -> tuple[PreTrainedModel, str]:
    """A model that was loaded on the device, in the dtype to score in, and why that.

    Quantised weights, and those that are spread over several devices, stay as they are.

    Args:
        model: As it was loaded, in the checkpoint's dtype or the one that was given.
        device: Where it is to score; None for where it is.
        dtype: A key of `DTYPES`, or `"auto"` (`choose_dtype`).
        noise_of: As for `choose_dtype`.

    Raises:
        ValueError: Quantised weights cannot be computed with in that dtype, or on that device.
    """
    kept = stays_as_loaded(model)
    if kept:
        if device is not None:
            model = torch.nn.Module.to(model, device)
        keep_layout(model)
        if dtype not in ("auto", str(model.dtype).removeprefix("torch.")):
            raise ValueError(
                f"{kept}, and it computes in {str(model.dtype).removeprefix('torch.')} whatever is "
                f"asked for: leave out dtype {dtype}"
            )
        _try(model, kept, dtype)
        return model, f"{kept}: scored as loaded"
    device = device or model.device
    if dtype != "auto":
        return _moved(model, device, DTYPES[dtype]), "given"
    return choose_dtype(model, device, noise_of)


@torch.no_grad()
def _try(model: PreTrainedModel, kept: str, dtype: str) -> None:
    """Compute with weights that stay as they are; some libraries unpack them on the first call."""
    fed = {"input_ids": torch.zeros((1, 2), dtype=torch.long, device=input_device(model))}
    if model.config.is_encoder_decoder:
        fed["decoder_input_ids"] = fed["input_ids"]
    try:
        with quiet():
            cast(Any, model)(**fed)
    # Any error: which it is, is for a library to choose.
    except Exception as error:
        line = one_line(error)[:200]
        given = "leave dtype out" if dtype != "auto" else "another device or library may do"
        raise ValueError(
            f"{kept}, and a forward pass with them fails in dtype {dtype} on {model.device.type}: "
            f"{line}; {given}"
        ) from error


def choose_dtype(
    model: PreTrainedModel, device: torch.device, noise_of: Callable[[PreTrainedModel], Noise]
) -> tuple[PreTrainedModel, str]:
    """The model on the device in the dtype to score in, and why.

    float32, unless 16 bits are at least `FASTER` times as fast at the model's own shapes *and*
    their measured noise is at most `QUIET` of the usual difference between two prompts, so that
    it cannot decide between any but near ties. Where float32 does not fit into the device's memory
    16 bits are all there is, and a warning says so. Never a dtype that overflows.

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
        if narrow == torch.float16 and not _finite(noise_of, _moved(model, device, narrow)):
            narrow, name = torch.bfloat16, "bfloat16"
            reason += ", and float16 overflows"
        logger.warning("scoring in %s: %s; near ties are decided by noise", name, reason)
        return _moved(model, device, narrow), reason
    ratio = _speed_ratio(model, narrow, device)
    if ratio < FASTER:
        return _moved(model, device, torch.float32), f"{name} is {ratio:.1f} times as fast only"
    trial = _moved(copy.deepcopy(model) if wide else model, device, narrow)
    noise = _finite(noise_of, trial)
    if noise is None:
        del trial
        return _moved(model, device, torch.float32), f"{name} overflows: it gives no finite numbers"
    reason = (
        f"{name} is {ratio:.1f} times as fast, its noise is {noise.largest:.2g} nats where two "
        f"prompts differ by {noise.spread:.2g}"
    )
    if noise.largest <= QUIET * noise.spread:
        return trial, reason
    del trial
    return _moved(model, device, torch.float32), reason


def _finite(noise_of: Callable[[PreTrainedModel], Noise], model: PreTrainedModel) -> Noise | None:
    """What is measured, or None where the model's answers are no finite numbers."""
    try:
        return noise_of(model)
    except NotFiniteError:
        return None


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
    """How many times as fast as in float32 the model's largest inner product is, about 0.1 s.

    1 where it has none.
    """
    head = cast(Any, model).get_output_embeddings()
    tables = [m for m in model.modules() if m is head or isinstance(m, torch.nn.Embedding)]
    outer = {id(p) for table in tables for p in table.parameters()}
    inner = [p for p in model.parameters() if p.ndim == 2 and id(p) not in outer]
    if not inner:
        return 1.0
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
