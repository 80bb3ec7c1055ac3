"""What PPO on the environments of prompts shares, whatever is chosen there."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import stable_baselines3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.vec_env import VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn
from torch import nn

from rlprompt._utils.seeding import seeded
from rlprompt.envs.episodes import Array, Episodes
from rlprompt.envs.vec_env import PromptVecEnv
from rlprompt.search.budget import Ledger


class Settings(Protocol):
    """The settings that all have; `PPO` describes them."""

    @property
    def prompts(self) -> int:
        """Prompts in a rollout."""

    @property
    def epochs(self) -> int:
        """Passes over a rollout."""

    @property
    def learning_rate(self) -> float:
        """Adam's."""

    @property
    def clip(self) -> float:
        """Largest relative change of a probability in an update."""


def learn(
    settings: Settings,
    episodes: Episodes,
    rng: np.random.Generator,
    given: Mapping[str, Any],
    *,
    steps: int,
    callback: BaseCallback | None = None,
) -> None:
    """Run Stable-Baselines3's PPO on rollouts of one episode each.

    Args:
        settings: Of the method.
        episodes: As many as a rollout has prompts.
        rng: The only source of randomness.
        given: Further arguments of Stable-Baselines3's PPO; its policy is among them.
        steps: Actions that are taken at most, of all prompts together.
        callback: Called between rollouts.

    Raises:
        BudgetExhausted: The budget came to its end before.
    """
    of_a_rollout = {"n_steps": episodes.horizon, "batch_size": episodes.horizon * settings.prompts}
    ours: dict[str, Any] = {
        "learning_rate": settings.learning_rate,
        "n_epochs": settings.epochs,
        "clip_range": settings.clip,
        "gamma": 1.0,
        "gae_lambda": 1.0,
        "normalize_advantage": False,
    }
    # Stable-Baselines3 shuffles with numpy's global generator and draws actions from torch's.
    with seeded(int(rng.integers(2**32))):
        envs = Relative(PromptVecEnv(episodes), episodes.objective.ledger)
        learner = stable_baselines3.PPO(env=envs, **(ours | of_a_rollout | dict(given)))
        unlogged(learner)
        learner.learn(steps, callback)


def unlogged(learner: BaseAlgorithm) -> None:
    """Have a learner keep no log: its own would leave an empty folder among temporary ones."""
    learner.set_logger(Logger(folder=None, output_formats=[]))


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


class Adapter(nn.Module, ABC):
    """What an actor learns, next to nothing at first: features to logits."""

    @abstractmethod
    def shrink(self) -> None:
        """Go half of the way back to where it began."""


class SmallPolicy(ActorCriticPolicy):
    """A policy with an actor and a critic of its own."""

    @abstractmethod
    def parts(self) -> tuple[Adapter, nn.Module]:
        """The actor, and the critic, features to values (B, 1)."""

    def _build(self, lr_schedule: Schedule) -> None:
        """Replaces the base's, whose output layer has a row of its own for each action."""
        self._build_mlp_extractor()
        self.action_net, self.value_net = self.parts()  # type: ignore[assignment]  # no Linear
        self.optimizer = self.optimizer_class(
            self.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )


class ShrinkOnRepeats(BaseCallback):
    """Has an actor go back towards where it began after a rollout of few new prompts.

    Args:
        ledger: Where prompts are counted.
        enough: New prompts that a rollout must have.
        patience: Rollouts without any, one after the other, that end the search.
    """

    def __init__(self, ledger: Ledger, enough: float, patience: float = math.inf) -> None:
        super().__init__()
        self._ledger, self._enough, self._patience = ledger, enough, patience
        self._before, self._idle = ledger.n_distinct, 0

    def _on_rollout_start(self) -> None:
        new = self._ledger.n_distinct - self._before
        # Nothing was learnt before the first rollout, and nothing is taken back.
        if new < self._enough:
            actor = self.model.policy.action_net
            assert isinstance(actor, Adapter)
            actor.shrink()
        self._before += new
        self._idle = 0 if new else self._idle + 1

    def _on_step(self) -> bool:
        return self._idle <= self._patience
