"""What a policy of layers sees of a prompt: its place in it, and its tokens by what they mean."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor


class Position(BaseFeaturesExtractor):
    """Observations to features (B, L): which of the L positions is next."""

    def __init__(self, observation_space: spaces.Box, length: int) -> None:
        super().__init__(observation_space, length)

    def forward(self, observations: Tensor) -> Tensor:
        """See the class."""
        # A complete prompt, seen only where an episode has ended, counts as a new one.
        position = observations[:, -1].long() % self.features_dim
        return F.one_hot(position, self.features_dim).float()


class OpenPosition(Position):
    """As `Position`, but for zeros where a prompt is complete and waits for those beside it."""

    def forward(self, observations: Tensor) -> Tensor:
        """See the class."""
        count = observations[:, -1:]
        going = (count >= 0) & (count < self.features_dim)
        return super().forward(observations) * going


class Written(BaseFeaturesExtractor):
    """Observations to features (B, L * m + L): the tokens so far by their components, and how many.

    Args:
        observation_space: Of `TokenPromptEnv`.
        allowed: (N,) ids in order.
        components: (N, m) of each.
    """

    def __init__(self, observation_space: spaces.Box, allowed: Tensor, components: Tensor) -> None:
        length = observation_space.shape[0] - 1
        super().__init__(observation_space, length * (components.shape[1] + 1))
        self.position = OpenPosition(observation_space, length)
        self.allowed: Tensor
        self.register_buffer("allowed", allowed)
        self.components: Tensor
        self.register_buffer("components", components)

    def forward(self, observations: Tensor) -> Tensor:
        """See the class."""
        ids, count = observations[:, :-1].long(), observations[:, -1:].abs()
        # Zeros stand for what is still to come, and need be no id that is allowed.
        there = torch.arange(ids.shape[1], device=ids.device) < count
        found = torch.searchsorted(self.allowed, ids.contiguous()) * there
        tokens = self.components[found] * there[:, :, None]
        return torch.cat([tokens.flatten(1), self.position(observations)], 1)


class Edited(BaseFeaturesExtractor):
    """Observations to features (B, L * m + L + 1): as `Written`, and the share of edits left.

    Args:
        observation_space: Of `EditPromptEnv`.
        allowed: As for `Written`.
        components: As for `Written`.
    """

    def __init__(self, observation_space: spaces.Box, allowed: Tensor, components: Tensor) -> None:
        low, high = observation_space.low, observation_space.high
        written = Written(spaces.Box(low[:-1], high[:-1], dtype=np.int64), allowed, components)
        super().__init__(observation_space, written.features_dim + 1)
        self.written = written
        self.horizon = int(high[-1])

    def forward(self, observations: Tensor) -> Tensor:
        """See the class."""
        left = observations[:, -1:] / self.horizon
        return torch.cat([self.written(observations[:, :-1]), left], 1)
