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
    """Episodes that begin again by themselves; a step is scored in one objective call.

    The environments are rows of one array and have no life of their own: attributes are shared,
    and there is none to set.

    Episodes that may stop early end together, at the horizon or later: rollouts of so many steps
    hold whole ones. What can be done is in the infos (`action_mask`) and, as sb3-contrib asks, in
    `env_method("action_masks")`.

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
        self._steps = 0
        if episodes.varies:
            self.action_masks = episodes.masks
        super().__init__(len(episodes.pieces), episodes.observation_space, episodes.action_space)

    def reset(self) -> Array:
        """Begin all prompts afresh."""
        self._steps = 0
        self._episodes.restart(np.ones(self.num_envs, dtype=np.bool_))
        self.reset_infos = self._infos()
        return self._episodes.observations()

    def step_async(self, actions: Array) -> None:
        """Take the actions of the next step."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Take a step of each; see `Episodes.advance` for what it raises."""
        self._steps += 1
        wait = self._steps < self._episodes.horizon
        rewards, finished = self._episodes.advance(self._actions, wait=wait)
        if finished.all():
            self._steps = 0
        last = self._episodes.observations()
        self._episodes.restart(finished)
        infos = self._infos()
        for i in np.flatnonzero(finished):
            infos[i] |= {"terminal_observation": last[i], "TimeLimit.truncated": False}
        return self._episodes.observations(), rewards.astype(np.float32), finished, infos

    def _infos(self) -> list[dict[str, Any]]:
        masks = self._episodes.masks()
        return [{} if masks is None else {"action_mask": masks[i]} for i in range(self.num_envs)]

    def close(self) -> None:
        """Nothing to free."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The shared attribute, once for each environment asked."""
        value = getattr(self, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refused: there is nothing to set.

        Raises:
            AttributeError: Always.
        """
        raise AttributeError(f"prompt environments have no attribute of their own: {attr_name}")

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """What `action_masks` gives for each environment asked; any other method is refused.

        Raises:
            AttributeError: It is another method, or episodes that do not stop early have no masks.
        """
        masks = self._episodes.masks() if method_name == "action_masks" else None
        if masks is not None:
            return [masks[i] for i in self._get_indices(indices)]
        raise AttributeError(f"prompt environments have no method of their own: {method_name}")

    def env_is_wrapped(
        self,
        wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]],
        indices: VecEnvIndices = None,
    ) -> list[bool]:
        """No environment is wrapped."""
        return [False for _ in self._get_indices(indices)]
