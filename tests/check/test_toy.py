"""A task and a model that cost nothing and still have better and worse prompts."""

from __future__ import annotations

import numpy as np
import pytest

from rlprompt._utils.seeding import random_states
from rlprompt.check.toy import Call, ToyTask, toy_lm
from rlprompt.prompt import SoftPrompt, TokenPrompt


def test_the_toy_model_is_the_same_every_time() -> None:
    before = random_states()
    first, second = toy_lm(), toy_lm()
    assert first.hash_weights() == second.hash_weights()
    assert random_states() == before


def test_prompts_differ_and_where_it_is_flat_they_do_not() -> None:
    prompts = [TokenPrompt((i,)) for i in range(5)]
    for flat in (False, True):
        task = ToyTask(n_examples=3, flat=flat)
        rewards = task.rewards(None, prompts, task.splits.train)
        assert rewards.shape == (5, 3)
        assert (np.ptp(rewards, axis=0).max() == 0) == flat


def test_where_train_is_scored_together_rewards_hang_on_the_others_and_elsewhere_not() -> None:
    task, prompts = ToyTask(scored_together=True), [TokenPrompt((1,)), TokenPrompt((2,))]
    for split, hangs in (("train", True), ("dev", False)):
        examples = task.splits.parts()[split]
        whole, part = (task.rewards(None, prompts, some) for some in (examples, examples[:2]))
        assert (np.abs(whole[:, :2] - part).max() > 1e-3) == hangs


def test_it_answers_by_prompt_and_example_and_where_it_is_flat_by_neither() -> None:
    prompts = [TokenPrompt((i,)) for i in range(9)]
    for flat in (False, True):
        task = ToyTask(flat=flat)
        measured = task.measure(None, prompts, task.splits.train)
        assert measured.answers is not None
        kinds = {tuple(answers) for answers in measured.answers}
        assert (len(kinds) == 1) == flat
        assert any(len(set(answers)) == 2 for answers in kinds) != flat
        rewards = task.rewards(None, prompts, task.splits.train)
        np.testing.assert_array_equal(measured.rewards, rewards)


def test_its_gradient_is_that_of_the_mean_reward() -> None:
    task, rng = ToyTask(), np.random.default_rng(0)
    vectors, step = rng.standard_normal((2, 4)), 1e-3 * rng.standard_normal((2, 4))
    rewards, (slope,) = task.rewards_with_grad(None, [SoftPrompt(vectors)], task.splits.train)
    ends = [SoftPrompt(vectors + step), SoftPrompt(vectors - step)]
    up, down = task.rewards(None, ends, task.splits.train).mean(1)
    assert (up - down) / 2 == pytest.approx(float((slope * step).sum()), rel=1e-2)
    assert rewards.shape == (1, 4)


def test_it_says_what_it_is_asked() -> None:
    calls: list[Call] = []
    task = ToyTask(asked=calls.append)
    task.rewards(None, [TokenPrompt((1,))], task.splits.dev)
    assert calls == [((TokenPrompt((1,)),), task.splits.dev, None)]
