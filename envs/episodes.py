"""The decision process behind every environment: prompts side by side, changed an action a step.

One core for the single environment, Gymnasium's vector form and the one of Stable-Baselines3
(`PromptVecEnv`), so that they cannot differ. What is to be scored at a step is scored in one call;
an episode ends by itself (`terminated`) and is never cut short. Nothing is random once they are
made, so that the seed of a `reset` changes nothing; what edits begin with may be drawn before
(`EditEpisodes`).

Where an episode may stop before the horizon, one more action stops: later ones change nothing until
the episodes beside it have come to an end too. So all end together. What cannot be done changes
nothing either, for algorithms that know no masks.
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
from rlprompt.types import Floats

Array = NDArray[Any]
Flags = NDArray[np.bool_]


class Episodes(ABC):
    """n prompts that change side by side; abstract, see `GrowingEpisodes` and `EditEpisodes`.

    Args:
        objective: The only way to a reward.
        pieces: (n, L, ...), one row a piece of a prompt, zeros behind its last.
        observation_space: Of one prompt.
        action_space: Of what is done to one prompt.
        horizon: Steps of the longest episode.
        varies: Whether episodes may differ in length. Then the last action stops.

    Attributes:
        position: (n,) how many pieces each prompt has.
        finished: (n,) which episodes are over, and wait for `restart`.
    """

    def __init__(
        self,
        objective: Objective,
        pieces: Array,
        observation_space: Box,
        action_space: Space[Any],
        horizon: int,
        varies: bool,
    ) -> None:
        self.objective = objective
        self.pieces = pieces
        self.observation_space = observation_space
        self.action_space = action_space
        self.horizon = horizon
        self.varies = varies
        self.position = np.zeros(len(pieces), dtype=np.int64)
        self.finished = np.zeros(len(pieces), dtype=np.bool_)

    @abstractmethod
    def act(self, actions: Array) -> None:
        """Do one action to every prompt; to those at their end nothing.

        Raises:
            ValueError: An action is outside the action space; nothing is changed.
        """

    @abstractmethod
    def rewards(self) -> Floats:
        """What the last actions earned, (n,).

        Raises:
            BudgetExhausted: Not all that had to be scored was covered.
        """

    @property
    @abstractmethod
    def ended(self) -> Flags:
        """Which prompts nothing more is done to (n,), be their episodes over or not."""

    @abstractmethod
    def observations(self) -> Array:
        """What is seen of every prompt, (n, size of the observation)."""

    @abstractmethod
    def prompt(self, pieces: Array) -> Prompt:
        """The prompt that these pieces, one or more of them, make."""

    def masks(self) -> NDArray[np.int8] | None:
        """Which actions make sense (n, actions), 1 or 0; None where all always do."""
        return None

    @property
    def length(self) -> int:
        """Pieces of the longest prompt, L."""
        return int(self.pieces.shape[1])

    def restart(self, which: Flags) -> None:
        """Begin the episodes in `which` (n,) afresh."""
        self.finished[which] = False

    def advance(self, actions: Array, *, wait: bool = False) -> tuple[Floats, Flags]:
        """Take a step of every episode.

        Args:
            actions: One for each prompt.
            wait: Whether episodes that may stop early wait even if all are at their end.

        Returns:
            Rewards (n,) and which episodes are over now (n,).

        Raises:
            BudgetExhausted: Not all that had to be scored was covered; what was is in the ledger.
                Start the episodes afresh before another step.
            ResetNeeded: An episode was over already.
            ValueError: An action is outside the action space.
        """
        if self.finished.any():
            raise ResetNeeded("an episode has ended; reset it before the next step")
        self.act(actions)
        waits = self.varies and (wait or not self.ended.all())
        self.finished = self.ended & (not waits)
        return self.rewards(), self.finished.copy()

    @staticmethod
    def check_space(space: object, wanted: type[object]) -> None:
        """Refuse a space of prompts that are made of something else.

        Raises:
            ValueError: It is one.
        """
        if not isinstance(space, wanted):
            raise ValueError(
                f"this environment makes the prompts of a {wanted.__name__} piece by piece, and "
                f"got a {type(space).__name__}; give it such a space, or search without it"
            )

    def text(self, i: int) -> str:
        """Prompt i so far as text; vectors as their nearest tokens."""
        if not self.position[i]:
            return ""
        lm = self.objective.lm
        prompt = self.prompt(self.pieces[i, : self.position[i]])
        read = lm.fed(prompt)
        tokens = lm.nearest_tokens(read) if isinstance(read, SoftPrompt) else read
        return lm.decode(tokens.ids)

    def check_known(self, actions: Array, known: str) -> None:
        """Refuse actions outside the action space.

        Raises:
            ValueError: There is one; it says that `known` are to be given.
        """
        wrong = [action for action in actions.tolist() if not self.action_space.contains(action)]
        if wrong:
            raise ValueError(f"action {wrong[0]!r}; give {known}")


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
        """Take a step; see `Episodes.advance` for what it raises."""
        rewards, finished = self._episodes.advance(np.asarray(action)[None])
        observation, info = self._episodes.observations()[0], self._info()
        return observation, float(rewards[0]), bool(finished[0]), False, info

    def render(self) -> str | None:
        """The prompt's text so far."""
        return self._episodes.text(0) if self.render_mode == "ansi" else None


class PromptVectorEnv(VectorEnv[Array, Array, Array]):
    """Prompts side by side in Gymnasium's vector form; abstract, see `TokenPromptVectorEnv`.

    What is to be scored at a step is scored in one objective call, and episodes that may stop early
    end together: who stops waits for the others. Episodes are reset by hand
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
        """Take a step of each; see `Episodes.advance` for what it raises."""
        rewards, finished = self._episodes.advance(np.asarray(actions))
        return (
            self._episodes.observations(),
            rewards,
            finished,
            np.zeros(self.num_envs, dtype=np.bool_),
            self._infos(),
        )
