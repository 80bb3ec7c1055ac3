"""A policy over edits: it guesses what each token is worth, and prefers edits that gain something.

    logit = log(share of the kind / number of its edits here) + kind + worth gained
    worth of a token at a place = component[token] . (anywhere + there[place])

`component` holds each token's leading principal components in the model's output rows, `kind`,
`anywhere` and `there` are all that is learnt, and start at zero: a search begins with edits drawn
kind by kind. What is gained is the worth of the tokens that an edit puts in places, less that of
those that were there; what an insertion or a deletion moves on is left out of account.

Why so little: as for `TokenPolicy`, of which this is the counterpart. A token that did well lifts
all tokens like it, and those at other places too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from rlprompt.agents.policies.small_policy import Adapter, SmallPolicy
from rlprompt.envs.edits import KINDS, EditKind, Edits

# How likely each kind of edit is at first, where all are possible. Ours: most prompts differ from
# the best one by other words, and few by their order. A search keeps the best prompt on the way, so
# it never stops.
SHARES: dict[EditKind, float] = {
    "replace": 0.6,
    "insert": 0.2,
    "delete": 0.1,
    "swap": 0.1,
    "stop": 0.0,
}
# The logit of what is never done, as in sb3-contrib: minus infinity has no entropy.
NEVER = -1e8


class EditPolicy(SmallPolicy):
    """Actor: `Worth`. Critic: none, for rewards are relative to those beside them.

    Args:
        observation_space: Of `EditPromptEnv`.
        action_space: Of `EditPromptEnv`.
        lr_schedule: Stable-Baselines3's.
        edits: What the actions are.
        components: (K, m) of the tokens that edits put in.
        **kwargs: For `ActorCriticPolicy`.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        edits: Edits,
        components: Tensor,
        **kwargs: Any,
    ) -> None:
        self._edits, self._components = edits, components
        super().__init__(observation_space, action_space, lr_schedule, net_arch=[], **kwargs)

    def parts(self) -> tuple[Adapter, nn.Module]:
        """See `SmallPolicy.parts`."""
        return Worth(self._edits, self._components), Nothing()


class Nothing(nn.Module):
    """Features (B, F) to zeros (B, 1)."""

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        return features.new_zeros(len(features), 1)


class Worth(Adapter):
    """Observations (B, L + 2) to logits of edits (B, A).

    Args:
        edits: What the actions are.
        components: (K, m) of the tokens that edits put in.
    """

    def __init__(self, edits: Edits, components: Tensor) -> None:
        super().__init__()
        self._edits = edits
        self._which = torch.tensor([KINDS.index(edit.kind) for edit in edits.every])  # (A,)
        self._shares = torch.tensor([SHARES[kind] for kind in KINDS])
        self._components = components
        self.anywhere = nn.Parameter(torch.zeros(components.shape[1]))
        self.there = nn.Parameter(torch.zeros(edits.space.length, components.shape[1]))
        self.kind = nn.Parameter(torch.zeros(len(KINDS)))

    def forward(self, seen: Tensor) -> Tensor:
        """See the class."""
        ids, lengths = seen[:, :-2].long().numpy(), seen[:, -2].long().numpy()
        possible = torch.from_numpy(self._edits.possible(ids, lengths))
        of_kind = F.one_hot(self._which, len(KINDS)).float()  # (A, kinds)
        counts = (possible.float() @ of_kind).clamp(min=1)
        drawn = (self._shares / counts).log() + self.kind
        logits = drawn[:, self._which] + self.gains(ids)
        return logits.masked_fill(~possible | (self._shares == 0)[self._which], NEVER)

    def gains(self, ids: NDArray[np.int64]) -> Tensor:
        """Worth gained by each edit, (B, A), of prompts (B, L); anything behind their last tokens.

        Blocks of edits come in the order of `Edits`.
        """
        tokens = self._edits.tokens
        at = torch.from_numpy(np.searchsorted(tokens, ids).clip(max=len(tokens) - 1))  # (B, L)
        worth = (self.anywhere + self.there) @ self._components.T  # (L, K)
        now = worth[torch.arange(len(worth)), at]
        blocks = [worth - now[:, :, None]]
        if self._edits.space.varies:
            blocks += [worth.expand(len(at), -1, -1), -now]
        first, second = torch.from_numpy(self._edits.pairs).T
        swapped = worth[first, at[:, second]] + worth[second, at[:, first]]
        blocks += [swapped - now[:, first] - now[:, second], now.new_zeros(len(at), 1)]
        return torch.cat([block.flatten(1) for block in blocks], 1)

    @torch.no_grad()
    def shrink(self) -> None:
        """See `Adapter.shrink`."""
        for parameter in self.parameters():
            parameter.mul_(0.5)
