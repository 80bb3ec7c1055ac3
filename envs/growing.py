"""Prompts that grow a piece a step and are scored when they are complete.

The reward is 0 until then, and then the prompt's mean train reward. Where prompts differ in length,
a stop completes one that is long enough, and changes nothing before.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Space

from rlprompt.envs.episodes import Array, Episodes, Flags
from rlprompt.search.objective import Objective
from rlprompt.types import Floats


class GrowingEpisodes(Episodes):
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
        length = pieces.shape[1]
        self.shortest = shortest or length
        self.stopped = np.zeros(len(pieces), dtype=np.bool_)
        varies = self.shortest < length
        super().__init__(objective, pieces, observation_space, action_space, length, varies)

    @abstractmethod
    def pieces_of(self, actions: Array) -> Array:
        """The pieces (n, ...) that actions stand for.

        Raises:
            ValueError: An action is outside the action space.
        """

    def stops(self, actions: Array) -> Flags:
        """Which actions (n,) stop; none where all prompts have one length."""
        return np.zeros(len(actions), dtype=np.bool_)

    @property
    def ended(self) -> Flags:
        """Which prompts are complete (n,), scored or not yet."""
        return np.asarray(self.stopped | (self.position == self.length))

    def restart(self, which: Flags) -> None:
        """See `Episodes.restart`."""
        super().restart(which)
        self.pieces[which] = 0
        self.position[which] = 0
        self.stopped[which] = False

    def act(self, actions: Array) -> None:
        """Append a piece to every prompt, or stop."""
        pieces, stops = self.pieces_of(actions), self.stops(actions)
        grows = np.flatnonzero(~(stops | self.ended))
        self.pieces[grows, self.position[grows]] = pieces[grows]
        self.position[grows] += 1
        self.stopped |= stops & (self.position >= self.shortest) & ~self.ended

    def rewards(self) -> Floats:
        """See `Episodes.rewards`."""
        rewards = np.zeros(len(self.pieces))
        if self.finished.any():
            prompts = [
                self.prompt(self.pieces[i, : self.position[i]])
                for i in np.flatnonzero(self.finished)
            ]
            rewards[self.finished] = self.objective.evaluate(prompts).rewards
        return rewards

    def observations(self) -> Array:
        """See `Episodes.observations`."""
        flat = self.pieces.reshape(len(self.pieces), -1)
        position = np.where(self.stopped, -self.position, self.position)
        seen: Array = np.column_stack([flat, position]).astype(flat.dtype)
        return seen
