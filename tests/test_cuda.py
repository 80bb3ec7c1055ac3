"""Proof for a GPU, in one command: `pytest -n 0 -m cuda`.

Each test runs on the CPU as well, in its place where that has no such thing, so that what cannot be
tried everywhere is at least known to run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
from devices import cramped, device_lm, no_waiting, passes
from synthetic import HiddenWords
from tiny import TinyKind, tiny_lm
from torch import Tensor

from rlprompt.agents.ppo import PPO
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.search.run import search
from rlprompt.template import Query

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
# Largest difference of a log-likelihood to the CPU's, nats: rounding of sums in another order.
EXACT = 1e-4
# The same of bfloat16 on average, in these models of random weights.
NARROW = 0.05

pytestmark = pytest.mark.parametrize("device", DEVICES)


def queries_of(count: int, mask: int | None = None) -> list[Query]:
    """Texts of unlike length, each with two answers of one and of two tokens."""
    rng = np.random.default_rng(0)
    tail = () if mask is None else (mask,)
    candidates = ((20,), (21,)) if mask is not None else ((20,), (21, 22))
    return [
        Query(tuple(rng.integers(10, 60, size=3 + i % 7).tolist()), tail, candidates)
        for i in range(count)
    ]


def prompts_of(lm: FrozenLM, count: int, kind: str = "tokens") -> Sequence[Prompt]:
    rng = np.random.default_rng(1)
    ids = rng.integers(10, 60, size=(count, 4))
    if kind == "tokens":
        return [TokenPrompt(tuple(row.tolist())) for row in ids]
    return [SoftPrompt(lm.embeddings(row.tolist())) for row in ids]


def wrote(lm: FrozenLM, **settings: float) -> list[str]:
    answers = lm.generate(prompts_of(lm, 2), queries_of(3), max_new_tokens=6, **settings)  # type: ignore[arg-type]
    return [one.text for row in answers for one in row]


@pytest.mark.parametrize("prompts", ["tokens", "soft"])
@pytest.mark.parametrize(
    "kind", ["llama", "gpt2", "gemma", "mistral-sliding", "bloom", "bert", "t5"]
)
def test_scores_are_those_of_the_cpu(device: str, kind: TinyKind, prompts: str) -> None:
    there, here = device_lm(device, kind), tiny_lm(kind)
    queries = queries_of(9, here.mask_id if here.kind == "masked" else None)
    assert there.device.type == device
    for over in ("vocabulary", "candidates"):
        found = there.score(prompts_of(there, 5, prompts), queries, over=over)
        expected = here.score(prompts_of(here, 5, prompts), queries, over=over)
        torch.testing.assert_close(found, expected, rtol=0, atol=EXACT)


def test_16_bits_are_near_it(device: str) -> None:
    there, here = device_lm(device, dtype="bfloat16"), tiny_lm()
    found = there.score(prompts_of(here, 5), queries_of(9))
    difference = (found - here.score(prompts_of(here, 5), queries_of(9))).abs()
    assert 0 < difference.mean() < NARROW
    assert there.own_noise.largest < 1
    assert there.fingerprint.dtype == "bfloat16"


def test_a_pass_keeps_to_its_memory(device: str) -> None:
    # A GPU's libraries have a few MiB of their own, which are none of a pass.
    lm = device_lm(device, memory_limit=(64 if device == "cuda" else 2) << 20)
    prompts, queries = prompts_of(lm, 16), queries_of(1024 if device == "cuda" else 64)
    expected = tiny_lm().score(prompts, queries)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    with passes(contextlib.nullcontext) as sizes:
        found = lm.score(prompts, queries)
    if device == "cuda":
        assert torch.cuda.max_memory_allocated() - before <= lm.memory.limit
    assert len(sizes) > 2
    torch.testing.assert_close(found, expected, rtol=0, atol=EXACT)


def test_where_memory_runs_out_passes_shrink(device: str, caplog: pytest.LogCaptureFixture) -> None:
    lm = device_lm(device)
    prompts, queries = prompts_of(lm, 64), queries_of(256 if device == "cuda" else 6)
    lm.memory.most_tokens = before = 1 << 20
    with cramped(device):
        found = lm.score(prompts, queries)
    assert "out of memory: passes shrink to" in caplog.text
    assert lm.memory.most_tokens < before
    torch.testing.assert_close(found, tiny_lm().score(prompts, queries), rtol=0, atol=EXACT)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert", "t5"])
def test_gradients_are_those_of_the_cpu(device: str, kind: TinyKind) -> None:
    there, here = device_lm(device, kind), tiny_lm(kind)
    queries = queries_of(5, here.mask_id if here.kind == "masked" else None)
    soft = [one for one in prompts_of(here, 3, "soft") if isinstance(one, SoftPrompt)]

    def gap(loglik: Tensor, which: object) -> Tensor:
        return loglik[:, 0] - loglik[:, 1]

    for found, expected in zip(
        there.score_with_grad(soft, queries, gap),
        here.score_with_grad(soft, queries, gap),
        strict=True,
    ):
        assert found.device.type == "cpu"
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=EXACT)


def test_it_writes_what_the_cpu_writes(device: str) -> None:
    there = device_lm(device)
    assert wrote(there) == wrote(tiny_lm())
    drawn = partial(wrote, there, temperature=1.0, seed=3)
    assert drawn() == drawn() != wrote(there)


@pytest.mark.parametrize("prompts", ["tokens", "soft"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral-sliding"])
def test_nobody_waits_for_the_device_inside_a_pass(
    device: str, kind: TinyKind, prompts: str
) -> None:
    """Of packed models: what is not packed goes through masks that transformers itself looks at."""
    lm = device_lm(device, kind)
    queries = queries_of(9)
    some = prompts_of(lm, 5, prompts)
    expected = lm.score(some, queries)
    with passes(partial(no_waiting, device)) as sizes:
        found = lm.score(some, queries)
        if prompts == "soft":
            soft = [one for one in some if isinstance(one, SoftPrompt)]
            lm.score_with_grad(soft, queries, lambda loglik, _: loglik[:, 0])
    assert sizes
    torch.testing.assert_close(found, expected, rtol=0, atol=EXACT)


def test_that_somebody_waits_is_seen(device: str) -> None:
    one = torch.ones(3, device=device)
    with no_waiting(device):
        total = (one * 2).sum()
        for wait in (total.item, one.tolist, (one > 0).nonzero, lambda: one[one > 0]):
            with pytest.raises(RuntimeError, match="synchronizing"):
                wait()
    assert total.item() == 6


def test_ppo_runs_on_the_device_and_leaves_the_model_alone(device: str) -> None:
    lm, task = device_lm(device), HiddenWords()
    weights = lm.hash_weights()
    found = search(task, lm, PPO(prompts=8, epochs=2), budget=32 * 6, seed=0, length=3)
    assert found.status == "finished"
    assert lm.hash_weights() == weights
    best = found.best
    again = task.rewards(tiny_lm(), [best.prompt], task.splits.train).mean()
    assert best.train_reward == pytest.approx(again, abs=1e-3)
