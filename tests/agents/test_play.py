"""A function in the environment as a search."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C
from stored_search import Counted, goes_on
from synthetic import N_EXAMPLES, HiddenWords, Noted
from tiny import tiny_lm

from rlprompt.agents.play import Play
from rlprompt.check.optimiser import check_optimiser
from rlprompt.envs.token_prompt import TokenPromptEnv
from rlprompt.envs.vec_env import PromptVecEnv
from rlprompt.prompt import Length
from rlprompt.search.run import search

ROWS = 20 * N_EXAMPLES


def at_random(env: TokenPromptEnv) -> None:
    while True:
        env.reset()
        terminated = False
        while not terminated:
            _, _, terminated, _, _ = env.step(env.action_space.sample())


def by_a2c(envs: PromptVecEnv) -> None:
    A2C("MlpPolicy", envs, n_steps=3, learning_rate=0.01, device="cpu").learn(10**9)


every = pytest.mark.parametrize(
    "optimiser",
    [
        Play(at_random),
        Play(by_a2c, prompts=8),
        Play(at_random, environment="edits"),
        Play(by_a2c, prompts=8, environment="edits"),
    ],
)


@every
def test_the_budget_ends_it_and_a_prompt_is_picked_and_tested(optimiser: Play) -> None:
    for length in (3, Length(3, 2)):
        found = search(HiddenWords(), tiny_lm(), optimiser, ROWS, length=length)
        assert (found.status, found.n_prompts, found.rows) == ("finished", 20, ROWS)
        assert found.best.dev is not None
        assert found.best.test is not None
        assert found.settings["function"] == optimiser.function.__name__


@every
def test_it_keeps_the_promises_of_an_optimiser(optimiser: Play) -> None:
    assert not check_optimiser(optimiser, tiny_lm(), n_prompts=20).problems


def test_prompts_side_by_side_are_scored_together() -> None:
    task = Counted()
    search(task, tiny_lm(), Play(by_a2c, prompts=8), ROWS, length=3)
    assert task.counts[:3] == [8, 8, 4]


def test_starts_are_scored_first() -> None:
    task = Noted()
    search(task, tiny_lm(), Play(at_random), ROWS, length=3, start=" good bad film")
    assert task.asked[0].ids == tiny_lm().encode(" good bad film")


@pytest.mark.parametrize("prompts", [None, 4])
def test_edits_are_of_the_start_and_paid_once(prompts: int | None) -> None:
    task, lm = Noted(), tiny_lm()

    def edit(env: Any) -> None:
        env.reset()
        env.step(0 if prompts is None else np.zeros(prompts, dtype=np.int64))

    method = Play(edit, prompts, "edits")
    found = search(task, lm, method, ROWS, length=3, start=" good bad film")
    assert found.n_prompts == 2  # the start and one edit of it, be it of four prompts
    start, edited = task.asked[:2]
    assert start.ids == lm.encode(" good bad film")
    assert edited.ids[1:] == start.ids[1:]


@pytest.mark.parametrize("prompts", [None, 4])
def test_edits_and_what_they_begin_with_hang_on_the_seed(prompts: int | None) -> None:
    def seen(seed: int) -> list[Any]:
        found = list[Any]()

        def look(env: Any) -> None:
            edits = env.edits if prompts is None else env._episodes.edits.every
            found.extend([np.asarray(env.reset()[0]).tolist(), edits])

        search(HiddenWords(), tiny_lm(), Play(look, prompts, "edits"), ROWS, seed=seed)
        return found

    (start, edits), (other_start, other_edits) = seen(0), seen(1)
    assert [start, edits] == seen(0)
    assert start != other_start
    assert edits != other_edits


def test_every_generator_that_it_draws_from_hangs_on_the_seed() -> None:
    def drawn(seed: int) -> list[float]:
        found = list[float]()

        def draw(env: Any) -> None:
            there = (random.random(), np.random.random(), float(torch.rand(1)))
            found.extend((*there, float(env.action_space.sample())))

        search(HiddenWords(), tiny_lm(), Play(draw), ROWS, seed=seed)
        return found

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert first == again
    assert all(a != b for a, b in zip(first[:3], other[:3], strict=True))


def test_a_function_that_returns_ends_the_search() -> None:
    found = search(HiddenWords(), tiny_lm(), Play(lambda env: env.reset()), ROWS)
    assert (found.status, found.n_prompts) == ("finished", 0)


def test_an_error_of_the_function_is_its_own() -> None:
    def broken(env: Any) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        search(HiddenWords(), tiny_lm(), Play(broken), ROWS)


def test_a_search_that_is_cut_goes_on(tmp_path: Path) -> None:
    optimiser = Play(by_a2c, prompts=8)
    lives = Counted(last=15), Counted()
    goes_on(tmp_path / "study.sqlite", optimiser, Counted(), lives, 28 * N_EXAMPLES)


def test_what_cannot_be_played_is_refused() -> None:
    wrong: Any = "A2C"
    with pytest.raises(ValueError, match="'A2C' cannot be called; give a function of the env"):
        Play(wrong)
    with pytest.raises(ValueError, match="prompts is 1 or more, or None for one alone, got 0"):
        Play(at_random, prompts=0)
    other: Any = "words"
    with pytest.raises(ValueError, match="environment is 'words'; give tokens or edits"):
        Play(at_random, environment=other)
