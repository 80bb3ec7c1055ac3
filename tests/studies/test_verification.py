"""How far stored answers may be from those of today, by what their rewards are made of."""

from __future__ import annotations

import dataclasses
import json
import math
import sqlite3
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from small_experiments import task
from tiny import tiny_lm

from rlprompt.agents.random_search import RandomSearch
from rlprompt.models.lm import FrozenLM
from rlprompt.search.budget import Budget
from rlprompt.store.store import FILE
from rlprompt.studies.planned_search import PlannedSearch
from rlprompt.studies.search_queue import SearchQueue
from rlprompt.studies.verification import PRIOR, Gap, gap_of, rounding, verify
from rlprompt.tasks.class_scores import REWARDS
from rlprompt.tasks.compression import CompressionTask


@pytest.mark.parametrize(
    ("reward", "dtype", "expected"),
    [
        # Slopes times 2.5e-4 nats, or 0.1 in 16 bits.
        ("gap", "float32", 200 * 2.5e-4),
        ("gap", "bfloat16", 20.0),
        ("cross_entropy", "float32", 5e-4),
        ("cross_entropy", "bfloat16", 0.2),
        ("log_likelihood", "float16", 0.1),
        (PRIOR, "bfloat16", 0.2),
        # One answer in ten, of rewards from 0 to 1.
        ("accuracy", "bfloat16", 0.1),
        ("accuracy", "float32", 1e-3),
    ],
)
def test_rounding_has_the_unit_of_the_reward(reward: str, dtype: str, expected: float) -> None:
    assert rounding(reward, dtype, 1.0, 16) == pytest.approx(expected)


def test_a_score_of_rewards_of_any_size_is_held_against_their_spread() -> None:
    assert rounding("", "bfloat16", 0.02, 50) == pytest.approx(0.002)
    assert rounding("", "bfloat16", 400.0, 4) == pytest.approx(100.0)  # one of four
    assert rounding("", "bfloat16", 0.0, 4) == 0


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("name", ["gap", "cross_entropy", "hinge"])
def test_no_reward_changes_more_than_its_slope_says(name: str, n_classes: int) -> None:
    torch = pytest.importorskip("torch")
    generator, nats = torch.Generator().manual_seed(0), 1e-3
    loglik = torch.randn(500, n_classes, generator=generator, dtype=torch.float64) * 2
    labels = torch.zeros(500, dtype=torch.int64)
    moved = loglik + nats * torch.tensor([1.0, *[-1.0] * (n_classes - 1)])
    change = (REWARDS[name](moved, labels) - REWARDS[name](loglik, labels)).abs().max()
    most = rounding(name, "bfloat16", n_classes=n_classes) * nats / 0.1
    assert most / 2 < float(change) <= most * (1 + 1e-6)


def test_answers_that_turned_are_counted_and_rewards_compared_one_by_one() -> None:
    made, stored = task(reward="accuracy"), np.array([1.0, 1.0, 0.0, 0.0])
    one = gap_of(made, "bfloat16", stored, np.array([1.0, 0.0, 0.0, 0.0]), "a")
    assert one == Gap(0.25, 0.25, "a")
    two = gap_of(made, "bfloat16", stored, np.array([0.0, 0.0, 0.0, 0.0]), "b")
    assert two.excess == 2
    opposite = np.array([5.0, -5.0, 5.0, -5.0])
    assert gap_of(task(), "float32", opposite, -opposite, "c").size == 10  # though means agree
    assert gap_of(task(), "float32", np.array([0.0]), opposite, "d").size == 0  # a mean


def test_a_difference_where_none_can_be_is_too_large() -> None:
    assert (Gap(0.0, 0.0, "").excess, Gap(1e-9, 0.0, "").excess) == (0.0, math.inf)


def test_a_compressed_prompt_is_held_to_the_rewards_of_its_task() -> None:
    made = CompressionTask(task(), "the film", 0.1)
    assert gap_of(made, "bfloat16", np.zeros(2), np.ones(2), "").tolerance == 20


class InBfloat16:
    """The tiny model, which says that it computes in 16 bits."""

    def __init__(self, lm: FrozenLM) -> None:
        self.lm = lm
        self.fingerprint = dataclasses.replace(lm.fingerprint, dtype="bfloat16")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lm, name)


@pytest.mark.parametrize("reward", ["accuracy", "cross_entropy"])
def test_forged_answers_are_found_in_16_bits(reward: str, tmp_path: Path) -> None:
    """Twenty, which suits `gap`, would have let everything pass."""
    lm = cast(FrozenLM, InBfloat16(tiny_lm()))
    one = PlannedSearch(
        task(reward=reward), lm, RandomSearch(), Budget(20), seed=0, length=2, banned=()
    )
    with SearchQueue(tmp_path, {"run": one}, {}) as queue:
        queue.run(next(queue.claimed()))
        good = verify(queue.store, {"run": one}, sample=9)
        assert good.holds
        with sqlite3.connect(tmp_path / FILE) as raw:
            (text,) = raw.execute("SELECT result FROM runs WHERE id = 1").fetchone()
            state = json.loads(text)
            state["candidates"][0]["test"]["reward"] -= 0.6
            raw.execute("UPDATE runs SET result = ? WHERE id = 1", (json.dumps(state),))
        raw.close()
        bad = verify(queue.store, {"run": one}, sample=9)
        assert (bad.holds, bad.where) == (False, "test score")
        assert bad.largest == pytest.approx(0.6)


def test_each_model_has_the_tolerance_of_its_own_dtype(tmp_path: Path) -> None:
    coarse = cast(FrozenLM, InBfloat16(tiny_lm("gpt2")))
    runs = {
        name: PlannedSearch(task(), lm, RandomSearch(), Budget(20), seed=0, length=2, banned=())
        for name, lm in (("coarse", coarse), ("fine", tiny_lm()))
    }
    with SearchQueue(tmp_path, runs, {}) as queue:
        for name in queue.claimed():
            queue.run(name)
        with sqlite3.connect(tmp_path / FILE) as raw:
            (text,) = raw.execute("SELECT result FROM runs WHERE name = 'fine'").fetchone()
            state = json.loads(text)
            state["candidates"][0]["test"]["reward"] += 1  # as much as nothing in 16 bits
            raw.execute("UPDATE runs SET result = ? WHERE name = 'fine'", (json.dumps(state),))
        raw.close()
        bad = verify(queue.store, runs, sample=2)
    assert not bad.holds
    assert bad.tolerance == pytest.approx(0.05)
