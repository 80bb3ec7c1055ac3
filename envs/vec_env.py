"""Prompts side by side in the vector form of Stable-Baselines3.

Its algorithms refuse Gymnasium's vector environments, and its own wrapper around single ones would
score prompts one at a time.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from rlprompt.envs.episodes import Array, Episodes


class PromptVecEnv(VecEnv):
    """Episodes that begin again by themselves; complete prompts are scored in one objective call.

    The environments are rows of one array and have no life of their own: attributes are shared,
    and there is none to set.

    >>> from rlprompt import Budget, Objective, TokenSpace
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> from rlprompt.envs import TokenEpisodes
    >>> objective = Objective(ToyTask(n_examples=4), toy_lm(), Budget(rows=48))
    >>> envs = PromptVecEnv(TokenEpisodes(objective, TokenSpace(1, np.arange(40, 50)), n=2))
    >>> _ = envs.reset()
    >>> observations, rewards, finished, _ = envs.step(np.array([1, 8]))
    >>> finished.tolist(), observations.tolist()  # whole prompts were scored and begun again
    ([True, True], [[0, 0], [0, 0]])

    Args:
        episodes: As many as there are environments.
    """

    render_mode = None

    def __init__(self, episodes: Episodes) -> None:
        self._episodes = episodes
        self._actions: Array = np.zeros(0)
        super().__init__(len(episodes.pieces), episodes.observation_space, episodes.action_space)

    def reset(self) -> Array:
        """Begin all prompts afresh."""
        self._episodes.restart(np.ones(self.num_envs, dtype=np.bool_))
        return self._episodes.observations()

    def step_async(self, actions: Array) -> None:
        """Take the actions of the next step."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Append a piece to each; see `Episodes.advance` for what it raises."""
        rewards, finished = self._episodes.advance(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        last = self._episodes.observations()
        for i in np.flatnonzero(finished):
            infos[i] = {"terminal_observation": last[i], "TimeLimit.truncated": False}
        self._episodes.restart(finished)
        return self._episodes.observations(), rewards.astype(np.float32), finished, infos

    def close(self) -> None:
        """Nothing to free."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The shared attribute, once for each environment asked."""
        value = getattr(self, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refused."""
        raise AttributeError(f"prompt environments have no attribute of their own: {attr_name}")

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Refused."""
        raise AttributeError(f"prompt environments have no method of their own: {method_name}")

    def env_is_wrapped(
        self,
        wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]],
        indices: VecEnvIndices = None,
    ) -> list[bool]:
        """No environment is wrapped."""
        return [False for _ in self._get_indices(indices)]
