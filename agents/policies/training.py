"""Stable-Baselines3 algorithms (and sb3-contrib's), trained in the environments of prompts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from rlprompt._utils.seeding import seeded
from rlprompt.agents.policies.arguments import arguments
from rlprompt.envs.episodes import Array, Episodes
from rlprompt.envs.vec_env import PromptVecEnv
from rlprompt.search.budget import Ledger


def learn(
    episodes: Episodes,
    settings: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    steps: int,
    callback: BaseCallback | None = None,
) -> None:
    """Run Stable-Baselines3's PPO on rollouts of one episode each.

    Args:
        episodes: As many as a rollout has prompts.
        settings: Keyword arguments of Stable-Baselines3's PPO; its policy is among them.
        rng: The only source of randomness.
        steps: Actions that are taken at most, of all prompts together.
        callback: Called between rollouts.

    Raises:
        BudgetExhausted: The budget came to its end before.
    """
    given = arguments(PPO, episodes, {"normalize_advantage": False, **settings})
    with _learner(PPO, given, episodes, Relative, rng) as learner:
        learner.learn(steps, callback)


def train(
    algorithm: type[BaseAlgorithm],
    episodes: Episodes,
    settings: Mapping[str, Any],
    policy_kwargs: Mapping[str, Any],
    rng: np.random.Generator,
    first: Callable[[], object] | None = None,
    *,
    relative: type[Relative] | None = None,
) -> None:
    """Have an algorithm learn until the budget is spent.

    Args:
        algorithm: Its class.
        episodes: What it learns in.
        settings: Keyword arguments of the algorithm.
        policy_kwargs: What its policy is made with, where the settings do not say.
        rng: The only source of randomness.
        first: Called before anything else is paid for, once the algorithm has taken its settings.
        relative: What rewards it is shown; `Standardised` if nothing is said.

    Raises:
        BudgetExhausted: The budget came to its end.
        ValueError: The algorithm refuses its settings.
    """
    objective = episodes.objective
    policy_kwargs = {**policy_kwargs, **settings.get("policy_kwargs", {})}
    given = arguments(algorithm, episodes, {**settings, "policy_kwargs": policy_kwargs})

    def make(**given: Any) -> BaseAlgorithm:
        episodes.action_space.seed(int(rng.integers(2**31)))  # some draw from it
        try:
            learner = algorithm(**given)
        except (AssertionError, TypeError, ValueError) as error:
            raise ValueError(f"{algorithm.__name__} refuses its settings: {error}") from error
        _check_steps(learner)
        return learner

    with _learner(make, given, episodes, relative or Standardised, rng) as learner:
        masks: dict[str, Any] = {}
        if "use_masking" in inspect.signature(learner.learn).parameters:
            masks = {"use_masking": episodes.varies}
        if first is not None:
            first()
        spent = -1
        # More than once where prompts of several lengths took longer than the longest, or edits led
        # to what is known; and not for ever where a policy has learnt nothing but to stop before it
        # may, or nothing new comes up.
        while objective.affordable() and objective.ledger.used > spent:
            spent = objective.ledger.used
            steps = objective.affordable() * episodes.horizon
            learner.learn(steps, reset_num_timesteps=False, **masks)


def _check_steps(learner: BaseAlgorithm) -> None:
    """Refuse a step of one action whose advantage has no deviation: all weights would be NaN.

    Stable-Baselines3's own PPO leaves such a one as it is.
    """
    if isinstance(learner, PPO) or not getattr(learner, "normalize_advantage", False):
        return
    actions = getattr(learner, "n_steps", 0) * learner.n_envs
    sampled = getattr(learner, "sub_sampling_factor", 0)  # of TRPO, whose policy takes one step
    batch = getattr(learner, "batch_size", None) or actions
    if actions and (-(-actions // sampled) if sampled else actions % batch or batch) == 1:
        raise ValueError(
            f"{type(learner).__name__} normalises advantages, and of a rollout of {actions} "
            "actions a step has 1, which has no deviation; set normalize_advantage to false, or "
            "give more prompts or another batch_size"
        )


@contextmanager
def _learner(
    make: Callable[..., BaseAlgorithm],
    given: Mapping[str, Any],
    episodes: Episodes,
    relative: type[Relative],
    rng: np.random.Generator,
) -> Iterator[BaseAlgorithm]:
    """An algorithm in its environment, while the generators that it draws from are seeded."""
    # Stable-Baselines3 shuffles with numpy's global generator and draws actions from torch's.
    with seeded(int(rng.integers(2**32))):
        learner = make(**given, env=relative(PromptVecEnv(episodes), episodes.objective.ledger))
        # It keeps no log: its own would leave an empty folder among temporary ones.
        learner.set_logger(Logger(folder=None, output_formats=[]))
        yield learner


class Relative(VecEnvWrapper):
    """Rewards above the mean of a step's, in standard deviations of all prompts' rewards so far.

    Not in standard deviations of the rollout: those vanish as a policy settles, which blows the
    last differences up until it writes one prompt only.
    """

    def __init__(self, envs: PromptVecEnv, ledger: Ledger) -> None:
        super().__init__(envs)
        self.ledger = ledger

    def reset(self) -> Array:
        """See `PromptVecEnv.reset`."""
        observations = self.venv.reset()
        assert isinstance(observations, np.ndarray)
        return observations

    def step_wait(self) -> VecEnvStepReturn:
        """See `PromptVecEnv.step_wait`."""
        observations, rewards, finished, infos = self.venv.step_wait()
        if self.earned(rewards, finished):
            spread = np.std([reward for _, reward in self.ledger.points])
            rewards = (rewards - self.baseline(rewards)) / (spread or 1.0)
        return observations, rewards, finished, infos

    def earned(self, rewards: Array, finished: Array) -> bool:
        """Whether rewards (n,) are of prompts; where each is 0, none is above another."""
        return bool(rewards.any())

    def baseline(self, rewards: Array) -> float:
        """What a step's rewards (n,) are above."""
        return float(rewards.mean())


class Standardised(Relative):
    """Rewards above the mean of all so far, in their standard deviations.

    Not above the rollout's: a replay buffer holds rewards of many rollouts side by side.
    """

    def earned(self, rewards: Array, finished: Array) -> bool:
        """See `Relative.earned`: a rollout that earns 0 may be worse than those before it."""
        return bool(finished.all())

    def baseline(self, rewards: Array) -> float:
        """See `Relative.baseline`."""
        return float(np.mean([reward for _, reward in self.ledger.points]))


class Gains(Relative):
    """Gains of edits, in standard deviations of all prompts' rewards so far.

    They tell by themselves what is better than before, in whatever rollout.
    """

    def baseline(self, rewards: Array) -> float:
        """See `Relative.baseline`."""
        return 0.0
