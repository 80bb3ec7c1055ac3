"""What a policy over tokens starts from: the frozen model's proposals, and a search's starts."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from rlprompt.agents.policies.features import OpenPosition, Position
from rlprompt.agents.policies.stopping import LEAN
from rlprompt.agents.shared.continuation import continued
from rlprompt.models.lm import FrozenLM
from rlprompt.search.objective import Objective
from rlprompt.search.space import TokenSpace
from rlprompt.types import Ids

# Bytes of proposals that are remembered from rollout to rollout, 4 a token; those of a rollout,
# which are seen again in every epoch, are in any case.
REMEMBERED = 2**26


class Proposal(BaseFeaturesExtractor):
    """Observations to features (B, N + L): the proposal's log-probabilities, and the position.

    It is what the model writes, cut to its likeliest tokens if asked for. Where a search has
    starts, half of it are the tokens that these have at the position.

    Args:
        observation_space: Of `TokenPromptEnv`.
        objective: Where the frozen model is asked. One that is not causal cannot continue a text
            and proposes all tokens alike.
        space: Lengths, allowed ids, and starts.
        top_k: As in `PPO`.
        top_p: As in `PPO`.

    Raises:
        ValueError: There is nothing that `top_k` or `top_p` could cut.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        objective: Objective,
        space: TokenSpace,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> None:
        super().__init__(observation_space, len(space.allowed) + space.length)
        kind = OpenPosition if space.varies else Position
        self.position = kind(observation_space, space.length)
        self._objective = objective
        lm = objective.lm
        check_cut(lm, top_k, top_p)
        self._top_k, self._top_p = top_k or len(space.allowed), top_p or 1.0
        self._starts = start_tokens(space).to(lm.device)
        self._allowed = space.allowed
        self._remembered: dict[Ids, Tensor] = {}
        # What the model was asked in this rollout: each call's states go on with those before.
        self._calls: list[list[Ids]] = []

    def forward(self, observations: Tensor) -> Tensor:
        """See the class."""
        return torch.cat([self.proposed(observations).log(), self.position(observations)], 1)

    def proposed(self, observations: Tensor) -> Tensor:
        """Probabilities of each allowed token before anything is learnt, (B, N) float32."""
        # Nothing is written after a stop or a complete prompt, and the proposal for an empty one is
        # there already.
        states = [
            tuple(state[:count]) if 0 <= count < len(self._starts) else ()
            for *state, count in observations.long().tolist()
        ]
        if not any(states):  # a rollout begins
            del self._calls[1:]
            if 4 * len(self._remembered) * len(self._allowed) > REMEMBERED:
                self._remembered.clear()
                self._calls.clear()
        if new := sorted(set(states) - self._remembered.keys()):
            likely = continued(self._objective, new, self._allowed, self._calls)
            self._calls.append(new)
            written = truncated(likely, self._top_k, self._top_p)
            theirs = self._starts[[len(state) for state in new]]
            share = LEAN * theirs.sum(1, keepdim=True)
            self._remembered |= zip(new, (1 - share) * written + LEAN * theirs, strict=True)
        return torch.stack([self._remembered[state] for state in states])


def check_cut(lm: FrozenLM, top_k: int | None, top_p: float | None) -> None:
    """Refuse to cut what a model writes where it writes nothing.

    Raises:
        ValueError: There is nothing that `top_k` or `top_p` could cut.
    """
    if not lm.tells_next and (top_k or top_p):
        raise ValueError(
            f"{lm.name} is {lm.kind} and writes nothing that top_k or top_p could cut; leave "
            "them out, or take another model"
        )


def start_tokens(space: TokenSpace) -> Tensor:
    """Shares of the allowed tokens at each position of the starts, (L, N); zeros behind them."""
    shares = torch.zeros(space.length, len(space.allowed))
    for start in space.starts:
        shares[torch.arange(len(start)), np.searchsorted(space.allowed, start.ids)] += 1
    return shares / shares.sum(1, keepdim=True).clamp(min=1)


def truncated(probabilities: Tensor, top_k: int, top_p: float) -> Tensor:
    """The likeliest tokens alone, renormalised: `top_k`, or so many as hold `top_p`, if fewer.

    >>> truncated(torch.tensor([[0.5, 0.1, 0.4]]), top_k=3, top_p=0.6)
    tensor([[0.5556, 0.0000, 0.4444]])
    """
    if top_k >= probabilities.shape[1] and top_p >= 1:
        return probabilities
    # Neither `Decoding.choose`, which keeps all equals at the k-th place, nor `cut`, whose `topk`
    # keeps others of them than this sort: logits in bfloat16 are often equal.
    ranked, order = probabilities.sort(dim=1, descending=True)
    before = ranked.cumsum(1) - ranked
    ranked = ranked.masked_fill(before >= top_p, 0)
    ranked[:, top_k:] = 0
    return torch.zeros_like(ranked).scatter(1, order, ranked / ranked.sum(1, keepdim=True))
