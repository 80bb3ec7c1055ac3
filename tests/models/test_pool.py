"""Models that take turns in memory answer as if they were always there."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from synthetic import examples
from tiny import TinyKind, tiny_lm

from rlprompt.data.examples import Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.models.pool import ModelPool, PooledLM
from rlprompt.prompt import SoftPrompt, TokenPrompt
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.template import Template

TASK = ClassificationTask(
    "words",
    Splits(examples("train"), examples("dev"), examples("test")),
    Template("{text} {prompt}"),
    {"good": "great", "bad": "terrible"},
)


class Loads:
    """Loads tiny models, and remembers which and in which dtype."""

    def __init__(self) -> None:
        self.order: list[tuple[str, str]] = []

    def lm(self, kind: TinyKind, pool: ModelPool, seed: int = 0) -> PooledLM:
        def load(dtype: str) -> FrozenLM:
            self.order.append((kind, dtype))
            return tiny_lm(kind, seed=seed)

        return PooledLM(kind, load, "auto", pool)


def test_it_answers_as_the_model_itself() -> None:
    pool, loads = ModelPool(), Loads()
    lm, plain = loads.lm("llama", pool), tiny_lm("llama")
    loads.lm("gpt2", pool)
    prompts = [TokenPrompt((5, 6)), TokenPrompt((7, 8))]
    dev = TASK.splits.dev
    # Up to rounding: the shared model keeps texts that other tests computed in other passes.
    rewards = TASK.rewards(lm, prompts, dev)
    np.testing.assert_allclose(rewards, TASK.rewards(plain, prompts, dev), rtol=1e-5)
    soft = [SoftPrompt(plain.embeddings()[[5, 6]])]
    ours, theirs = (TASK.rewards_with_grad(one, soft, dev) for one in (lm, plain))
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-4, atol=1e-4)
    assert lm.fingerprint == plain.fingerprint
    assert lm.own_noise == plain.own_noise
    assert (lm.kind, lm.context, lm.device) == (plain.kind, plain.context, plain.device)
    assert lm.encode(" it") == plain.encode(" it")
    with pytest.raises(AttributeError, match="nonsense"):
        lm.nonsense  # noqa: B018


def test_one_is_in_memory_and_what_is_remembered_loads_none() -> None:
    pool, loads = ModelPool(), Loads()
    first, second = loads.lm("llama", pool), loads.lm("gpt2", pool)
    assert [first.in_memory, second.in_memory] == [False, True]
    assert [first.fingerprint.kind, str(first.device), first.name] == ["causal", "cpu", "llama"]
    assert copy.copy(first).name == "llama"
    assert loads.order == [("llama", "auto"), ("gpt2", "auto")]
    TASK.rewards(first, [TokenPrompt((5,))], TASK.splits.dev)
    TASK.rewards(first, [TokenPrompt((6,))], TASK.splits.dev)
    assert [first.in_memory, second.in_memory] == [True, False]
    # What `auto` chose on the first day is not chosen again.
    assert loads.order[2:] == [("llama", "float32")]


def test_another_model_in_its_files_is_an_error() -> None:
    pool, seeds = ModelPool(), [0, 1]
    lm = PooledLM("llama", lambda dtype: tiny_lm(seed=seeds.pop(0)), "auto", pool)
    Loads().lm("gpt2", pool)
    with pytest.raises(ValueError, match="llama is another model than it was when this began"):
        TASK.rewards(lm, [TokenPrompt((5,))], TASK.splits.dev)
