"""A policy over a model's whole vocabulary: the frozen model proposes, a small adapter tilts.

    logits(token | tokens so far) = log p(token | tokens so far) + component[token] . tilt[position]

p is the frozen model's own next-token distribution, and `component` holds each token's leading
principal components in the model's output rows. The tilt, a vector a position, is all that is
learnt, and starts at zero: a search begins with what the model itself would write.

Why so little: 300 prompts show 1,500 of 49,152 tokens, most of them once. A policy with an output
of its own for each token learns nothing about the others; through tied components a token that did
well lifts all tokens like it, and few components keep the noise of a few hundred rewards out. The
process is deterministic and always starts alike, so a best prompt needs nothing but the position.

Where prompts differ in length, the policy stops at each position that allows it with a probability
of its own, `STOP` at first, and otherwise writes a token as above.
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from rlprompt.agents.policies.small_policy import Adapter, SmallPolicy
from rlprompt.agents.policies.token_proposal import Proposal
from rlprompt.agents.policies.token_tilt import StoppingTilt, Tilt, principal_components
from rlprompt.search.objective import Objective
from rlprompt.search.space import TokenSpace


class TokenPolicy(SmallPolicy):
    """Actor: `Proposal`, and `Tilt` or `StoppingTilt`. Critic: one value a position.

    A critic that saw the tokens would know the few prompts of a search by heart.

    Args:
        observation_space: Of `TokenPromptEnv`.
        action_space: Of `TokenPromptEnv`.
        lr_schedule: Stable-Baselines3's.
        objective: Where the frozen model is asked.
        space: Lengths and allowed ids.
        components: Principal components, m.
        top_k: As in `PPO`.
        top_p: As in `PPO`.
        with_entropy: Whether `evaluate_actions` gives the entropy.
        **kwargs: For `ActorCriticPolicy`.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        objective: Objective,
        space: TokenSpace,
        components: int,
        top_k: int | None = None,
        top_p: float | None = None,
        with_entropy: bool = False,
        **kwargs: Any,
    ) -> None:
        self._with_entropy = with_entropy
        self._components = principal_components(objective.lm, space, components)
        self._space = space
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=[],
            features_extractor_class=Proposal,
            features_extractor_kwargs={
                "objective": objective,
                "space": space,
                "top_k": top_k,
                "top_p": top_p,
            },
            **kwargs,
        )

    def parts(self) -> tuple[Adapter, nn.Module]:
        """See `SmallPolicy.parts`."""
        space = self._space
        actor = (
            StoppingTilt(self._components, space)
            if space.varies
            else Tilt(self._components, space.length)
        )
        return actor, PositionValue(space.length)

    def evaluate_actions(  # type: ignore[override]  # observations are never a dict here
        self, obs: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values, log-probabilities, and the entropy where a bonus is asked for."""
        proposal, tilt = self.features_extractor, self.action_net
        assert isinstance(proposal, Proposal)
        assert isinstance(tilt, Tilt)
        position = proposal.position(obs)
        proposed = proposal.proposed(obs)
        entropy = tilt.entropy(proposed, position) if self._with_entropy else None
        return self.value_net(position), tilt.log_prob(proposed, position, actions), entropy

    def predict_values(self, obs: Tensor) -> Tensor:  # type: ignore[override]  # as above
        """Values, for which the model need not be asked."""
        proposal = self.features_extractor
        assert isinstance(proposal, Proposal)
        values: Tensor = self.value_net(proposal.position(obs))
        return values


class PositionValue(nn.Module):
    """Features (B, ... + L) to one value a position (B, 1), at first 0."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(length, 1))

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        return features[:, -len(self.values) :] @ self.values
