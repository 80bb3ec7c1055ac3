"""The decision process behind every environment: prompts that grow a piece a step.

One core for the single environment, Gymnasium's vector form and the one of Stable-Baselines3
(`PromptVecEnv`), so that they cannot differ. The reward is 0 until a prompt is complete, then its
mean train reward; an episode ends there (`terminated`) and is never cut short. Nothing is random:
a seed changes nothing.

Where prompts differ in length, one more action stops: the prompt is complete, and later actions
change nothing until those beside it are complete too. So all are scored in one call, and end
together. A stop that comes too early changes nothing either, for algorithms that know no masks.
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
        shortest: Pieces of the shortest complete prompt; None for L, where nothing stops.
    """

    def __init__(
        self,
        objective: Objective,
        pieces: Array,
        observation_space: Box,
        action_space: Space[Any],
        shortest: int | None = None,
    ) -> None:
        self.objective = objective
        self.pieces = pieces
        self.shortest = shortest or self.length
        self.position = np.zeros(len(pieces), dtype=np.int64)
        self.stopped, self.finished = np.zeros((2, len(pieces)), dtype=np.bool_)
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

    def stops(self, actions: Array) -> Flags:
        """Which actions (n,) stop; none where all prompts have one length."""
        return np.zeros(len(actions), dtype=np.bool_)

    def masks(self) -> NDArray[np.int8] | None:
        """Which actions make sense (n, actions), 1 or 0; None where all always do."""
        return None

    @property
    def varies(self) -> bool:
        """Whether prompts may differ in length."""
        return self.shortest < self.length

    @property
    def ended(self) -> Flags:
        """Which prompts are complete (n,), scored or not yet."""
        return np.asarray(self.stopped | (self.position == self.length))

    @property
    def length(self) -> int:
        """Pieces of the longest complete prompt, L."""
        return int(self.pieces.shape[1])

    def restart(self, which: Flags) -> None:
        """Begin the episodes in `which` (n,) afresh."""
        self.pieces[which] = 0
        self.position[which] = 0
        self.stopped[which] = self.finished[which] = False

    def advance(self, actions: Array, *, wait: bool = False) -> tuple[NDArray[np.float64], Flags]:
        """Append a piece to every prompt, or stop.

        Args:
            actions: One for each prompt.
            wait: Whether prompts that may differ in length wait even if all are complete.

        Returns:
            Rewards (n,) and which prompts are complete and scored now (n,).

        Raises:
            BudgetExhausted: Not all complete prompts were covered; those that were are in the
                ledger. Start the episodes afresh before another step.
            ResetNeeded: A prompt was scored already.
            ValueError: An action is outside the action space.
        """
        if self.finished.any():
            raise ResetNeeded("an episode has ended; reset it before the next step")
        pieces, stops = self.pieces_of(actions), self.stops(actions)
        grows = np.flatnonzero(~(stops | self.ended))
        self.pieces[grows, self.position[grows]] = pieces[grows]
        self.position[grows] += 1
        self.stopped |= stops & (self.position >= self.shortest) & ~self.ended
        waits = self.varies and (wait or not self.ended.all())
        self.finished = self.ended & (not waits)
        rewards = np.zeros(len(self.pieces))
        if self.finished.any():
            prompts = [
                self.prompt(self.pieces[i, : self.position[i]])
                for i in np.flatnonzero(self.finished)
            ]
            rewards[self.finished] = self.objective.evaluate(prompts).rewards
        return rewards, self.finished.copy()

    def observations(self) -> Array:
        """What is seen of every prompt, (n, size of the observation)."""
        flat = self.pieces.reshape(len(self.pieces), -1)
        position = np.where(self.stopped, -self.position, self.position)
        seen: Array = np.column_stack([flat, position]).astype(flat.dtype)
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

    def _info(self) -> dict[str, Any]:
        masks = self._episodes.masks()
        return {} if masks is None else {"action_mask": masks[0]}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin a prompt; `seed` and `options` change nothing."""
        super().reset(seed=seed)
        self._episodes.restart(np.array([True]))
        return self._episodes.observations()[0], self._info()

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Append a piece, or stop; see `Episodes.advance` for what it raises."""
        rewards, finished = self._episodes.advance(np.asarray(action)[None])
        observation, info = self._episodes.observations()[0], self._info()
        return observation, float(rewards[0]), bool(finished[0]), False, info

    def render(self) -> str | None:
        """The prompt's text so far."""
        return self._episodes.text(0) if self.render_mode == "ansi" else None


class PromptVectorEnv(VectorEnv[Array, Array, Array]):
    """Prompts side by side in Gymnasium's vector form; abstract, see `TokenPromptVectorEnv`.

    All prompts complete at a step are scored in one objective call, and prompts that may differ in
    length are complete together: who stops waits for the others. Episodes are reset by hand
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

    def _infos(self) -> dict[str, Any]:
        masks = self._episodes.masks()
        if masks is None:
            return {}
        return {"action_mask": masks, "_action_mask": np.ones(self.num_envs, dtype=np.bool_)}

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
        return self._episodes.observations(), self._infos()

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Append a piece to each, or stop; see `Episodes.advance` for what it raises."""
        rewards, finished = self._episodes.advance(np.asarray(actions))
        return (
            self._episodes.observations(),
            rewards,
            finished,
            np.zeros(self.num_envs, dtype=np.bool_),
            self._infos(),
        )
