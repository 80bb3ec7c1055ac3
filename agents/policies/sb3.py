"""An algorithm of Stable-Baselines3's kind, trained in the environment of prompts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from rlprompt._utils.seeding import seeded
from rlprompt.agents.policies.algorithms import arguments
from rlprompt.agents.policies.rollouts import Relative, unlogged
from rlprompt.envs.episodes import Array, Episodes
from rlprompt.envs.vec_env import PromptVecEnv
from rlprompt.prompt import Prompt


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


def train(
    algorithm: type[BaseAlgorithm],
    episodes: Episodes,
    settings: Mapping[str, Any],
    policy_kwargs: Mapping[str, Any],
    rng: np.random.Generator,
    starts: Sequence[Prompt] = (),
) -> None:
    """Have an algorithm learn until the budget is spent.

    Args:
        algorithm: Its class.
        episodes: What it learns in.
        settings: Keyword arguments of the algorithm.
        policy_kwargs: What its policy is made with, where the settings do not say.
        rng: The only source of randomness.
        starts: Prompts that are scored first.

    Raises:
        BudgetExhausted: The budget came to its end.
        ValueError: The algorithm refuses its settings.
    """
    objective = episodes.objective
    policy_kwargs = {**policy_kwargs, **settings.get("policy_kwargs", {})}
    # Stable-Baselines3 draws from the global generators, and from that of the space of actions.
    with seeded(int(rng.integers(2**32))):
        episodes.action_space.seed(int(rng.integers(2**31)))
        envs = Standardised(PromptVecEnv(episodes), objective.ledger)
        given = arguments(algorithm, episodes, {**settings, "policy_kwargs": policy_kwargs})
        learner = _made(algorithm, {**given, "env": envs})
        unlogged(learner)
        masks: dict[str, Any] = {}
        if "use_masking" in inspect.signature(learner.learn).parameters:
            masks = {"use_masking": episodes.varies}
        if starts:
            objective.evaluate(starts)
        spent = -1
        # More than once where prompts of several lengths took longer than the longest; and not for
        # ever where a policy has learnt nothing but to stop before it may.
        while objective.affordable() and objective.ledger.used > spent:
            spent = objective.ledger.used
            steps = objective.affordable() * episodes.horizon
            learner.learn(steps, reset_num_timesteps=False, **masks)


def _made(algorithm: type[BaseAlgorithm], given: Mapping[str, Any]) -> BaseAlgorithm:
    try:
        return algorithm(**given)
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(f"{algorithm.__name__} refuses its settings: {error}") from error
