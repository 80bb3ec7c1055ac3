"""The decision process behind every environment: prompts that grow a piece a step.

One core for the single environment, Gymnasium's vector form and the one of Stable-Baselines3
(`PromptVecEnv`), so that they cannot differ. The reward is 0 until a prompt is complete, then its
mean train reward; an episode ends there (`terminated`) and is never cut short. Nothing is random:
a seed changes nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from rlprompt.prompt import Prompt, SoftPrompt
from rlprompt.search.objective import Objective

Array = NDArray[Any]
Flags = NDArray[np.bool_]


class Episodes(ABC):
    """n prompts that grow side by side; those complete at a step are scored in one call.

    Args:
        objective: The only way to a reward.
        pieces: (n, L, ...) zeros, one row a piece of a prompt.
        observation_space: Of one prompt: its pieces so far, flat, zeros for those to come, and
            last the number of pieces so far.
        action_space: Of one prompt's next piece.
    """

    def __init__(
        self, objective: Objective, pieces: Array, observation_space: Box, action_space: Space[Any]
    ) -> None:
        self.objective = objective
        self.pieces = pieces
        self.position = np.zeros(len(pieces), dtype=np.int64)
        self.observation_space = observation_space
        self.action_space = action_space

    @abstractmethod
    def pieces_of(self, actions: Array) -> Array:
        """The pieces (n, ...) that actions stand for.

        Raises:
            ValueError: An action is outside the action space.
        """

    @abstractmethod
    def prompt(self, pieces: Array) -> Prompt:
        """The prompt that its first pieces, one or more of them, make."""

    @property
    def length(self) -> int:
        """Pieces of a complete prompt, L."""
        return int(self.pieces.shape[1])

    def restart(self, which: Flags) -> None:
        """Begin the episodes in `which` (n,) afresh."""
        self.pieces[which] = 0
        self.position[which] = 0

    def advance(self, actions: Array) -> tuple[NDArray[np.float64], Flags]:
        """Append a piece to every prompt.

        Returns:
            Rewards (n,) and which prompts are now complete (n,).

        Raises:
            BudgetExhausted: Not all complete prompts were covered; those that were are in the
                ledger. Start the episodes afresh before another step.
            ResetNeeded: A prompt was complete already.
            ValueError: An action is outside the action space.
        """
        if (self.position == self.length).any():
            raise ResetNeeded("an episode has ended; reset it before the next step")
        self.pieces[np.arange(len(self.pieces)), self.position] = self.pieces_of(actions)
        self.position += 1
        finished = self.position == self.length
        rewards = np.zeros(len(self.pieces))
        if finished.any():
            prompts = [self.prompt(pieces) for pieces in self.pieces[finished]]
            rewards[finished] = self.objective.evaluate(prompts).rewards
        return rewards, finished

    def observations(self) -> Array:
        """What is seen of every prompt, (n, size of the observation)."""
        flat = self.pieces.reshape(len(self.pieces), -1)
        seen: Array = np.column_stack([flat, self.position]).astype(flat.dtype)
        return seen

    def text(self, i: int) -> str:
        """Prompt i so far as text; vectors as their nearest tokens."""
        if not self.position[i]:
            return ""
        lm = self.objective.lm
        prompt = self.prompt(self.pieces[i, : self.position[i]])
        tokens = lm.nearest_tokens(prompt) if isinstance(prompt, SoftPrompt) else prompt
        return lm.decode(tokens.ids)


class PromptEnv(gymnasium.Env[Array, Any]):
    """One prompt as a Gymnasium environment; abstract, see `TokenPromptEnv`.

    Args:
        episodes: One episode.
        render_mode: `ansi` to see the text so far.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012

    def __init__(self, episodes: Episodes, render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode {render_mode!r}; give 'ansi' or None")
        self.render_mode = render_mode
        self.observation_space = episodes.observation_space
        self.action_space = episodes.action_space
        self._episodes = episodes

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin a prompt; `seed` and `options` change nothing."""
        super().reset(seed=seed)
        self._episodes.restart(np.array([True]))
        return self._episodes.observations()[0], {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Append a piece; see `Episodes.advance` for what it raises."""
        rewards, finished = self._episodes.advance(np.asarray(action)[None])
        return self._episodes.observations()[0], float(rewards[0]), bool(finished[0]), False, {}

    def render(self) -> str | None:
        """The prompt's text so far."""
        return self._episodes.text(0) if self.render_mode == "ansi" else None


class PromptVectorEnv(VectorEnv[Array, Array, Array]):
    """Prompts side by side in Gymnasium's vector form; abstract, see `TokenPromptVectorEnv`.

    All prompts complete at a step are scored in one objective call. Episodes are reset by hand
    (`AutoresetMode.DISABLED`): all, or those of a boolean `options["reset_mask"]`.

    Args:
        episodes: `num_envs` of them.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012

    def __init__(self, episodes: Episodes) -> None:
        self.num_envs = len(episodes.pieces)
        self.single_observation_space = episodes.observation_space
        self.single_action_space = episodes.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._episodes = episodes

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin prompts afresh; `seed` changes nothing."""
        super().reset(seed=seed)
        which = np.ones(self.num_envs, dtype=np.bool_)
        mask = np.asarray((options or {}).get("reset_mask", which))
        if mask.shape != which.shape or mask.dtype != which.dtype:
            raise ValueError(
                f"reset_mask has shape {mask.shape} and dtype {mask.dtype}; give one bool for each "
                f"of {self.num_envs} environments"
            )
        self._episodes.restart(mask)
        return self._episodes.observations(), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Append a piece to each; see `Episodes.advance` for what it raises."""
        rewards, finished = self._episodes.advance(np.asarray(actions))
        return (
            self._episodes.observations(),
            rewards,
            finished,
            np.zeros(self.num_envs, dtype=np.bool_),
            {},
        )
