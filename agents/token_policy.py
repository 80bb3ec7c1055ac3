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

import math
from typing import Any

import torch
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from rlprompt.models.lm import FrozenLM
from rlprompt.search.objective import Objective
from rlprompt.search.space import TokenSpace
from rlprompt.types import Ids

# States whose proposals are remembered from rollout to rollout, 0.2 MB each; those of a rollout,
# which are seen again in every epoch, are in any case.
REMEMBERED = 256
# Probability of a stop where one is allowed, before anything is learnt. Ours: of prompts of 1 to 5
# tokens two in three have 5, and one in ten each other length or a little less.
STOP = 0.1


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


class Proposal(BaseFeaturesExtractor):
    """Observations to features (B, N + L): the model's log-probabilities, and the position.

    Args:
        observation_space: Of `TokenPromptEnv`.
        objective: Where the frozen model is asked. One that is not causal cannot continue a text
            and proposes all tokens alike.
        space: Lengths and allowed ids.
    """

    def __init__(
        self, observation_space: spaces.Box, objective: Objective, space: TokenSpace
    ) -> None:
        super().__init__(observation_space, len(space.allowed) + space.length)
        kind = OpenPosition if space.varies else Position
        self.position = kind(observation_space, space.length)
        self._objective = objective
        lm = objective.lm
        self._allowed = torch.from_numpy(space.allowed).to(lm.device)
        starts = (lm.tokenizer.bos_token_id, lm.tokenizer.eos_token_id, 0)
        self._start = next(token for token in starts if token is not None)
        self._remembered: dict[Ids, Tensor] = {}
        # What the model was asked in this rollout: each call's texts go on with those before.
        self._calls: list[list[Ids]] = []

    def forward(self, observations: Tensor) -> Tensor:
        """See the class."""
        return torch.cat([self.proposed(observations).log(), self.position(observations)], 1)

    def proposed(self, observations: Tensor) -> Tensor:
        """The model's probabilities of each allowed token, (B, N) float32."""
        # Nothing is written after a stop, and the proposal for an empty prompt is there already.
        states = [tuple(state[: max(0, state[-1])]) for state in observations.long().tolist()]
        if not any(states):  # a rollout begins
            del self._calls[1:]
            if len(self._remembered) > REMEMBERED:
                self._remembered.clear()
                self._calls.clear()
        if new := sorted(set(states) - self._remembered.keys()):
            self._remembered |= zip(new, self._propose(new), strict=True)
        return torch.stack([self._remembered[state] for state in states])

    @torch.no_grad()
    def _propose(self, states: list[Ids]) -> Tensor:
        lm, device = self._objective.lm, self._allowed.device
        if lm.kind != "causal":
            n_allowed = len(self._allowed)
            return torch.full((len(states), n_allowed), 1 / n_allowed, device=device)
        texts = [(self._start, *state) for state in states]
        hidden = self._objective.hidden(texts, self._calls)
        self._calls.append(texts)
        model: Any = lm.model  # transformers leaves these methods untyped
        head = model.get_output_embeddings()
        logits: Tensor = head(torch.from_numpy(hidden).to(head.weight))[:, self._allowed]
        return logits.float().softmax(-1)


class Tilt(nn.Module):
    """Features (B, N + L) to logits (B, N).

    Args:
        components: (N, m) of each token.
        length: Positions, L.
    """

    def __init__(self, components: Tensor, length: int) -> None:
        super().__init__()
        self.components: Tensor
        self.register_buffer("components", components, persistent=False)
        self.tilt = nn.Parameter(torch.zeros(length, components.shape[1]))

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        n = len(self.components)
        logits: Tensor = features[:, :n] + features[:, n:] @ (self.tilt @ self.components.T)
        return logits

    def log_prob(self, proposed: Tensor, position: Tensor, actions: Tensor) -> Tensor:
        """Log-probabilities of actions, without the logits of all others.

        A state's normaliser is sum_v p(v) exp(component[v] . tilt), in which the exponentials
        belong to a position and not to a state: one product of matrices gives all of them, in an
        eighth of the time of a softmax over (B, N).

        Args:
            proposed: (B, N) probabilities p.
            position: (B, L), which is next.
            actions: (B,) indices.

        Returns:
            (B,) nats.
        """
        tilts = self.tilt @ self.components.T  # (L, N)
        top = tilts.detach().amax(1, keepdim=True)  # keeps the exponentials below 1
        normaliser = ((proposed @ (tilts - top).exp().T).log() + top.T) * position  # (B, L)
        tilted = (self.components[actions] * (position @ self.tilt)).sum(1)
        return proposed.gather(1, actions[:, None])[:, 0].log() + tilted - normaliser.sum(1)


class StoppingTilt(Tilt):
    """A `Tilt` with a last action that stops: features (B, N + L) to logits (B, N + 1).

    Args:
        components: (N, m) of each token.
        space: Its lengths say where a stop is allowed.
    """

    def __init__(self, components: Tensor, space: TokenSpace) -> None:
        super().__init__(components, space.length)
        self.may_stop: Tensor
        allowed = torch.arange(space.length) >= space.shortest
        self.register_buffer("may_stop", allowed.float(), persistent=False)
        prior = math.log(STOP / (1 - STOP))
        self.stop = nn.Parameter(torch.full((space.length,), prior))

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        stop, go = self._stop(features[:, len(self.components) :])
        return torch.cat([super().forward(features).log_softmax(1) + go[:, None], stop[:, None]], 1)

    def log_prob(self, proposed: Tensor, position: Tensor, actions: Tensor) -> Tensor:
        """As for `Tilt`; action N stops."""
        stop, go = self._stop(position)
        n = len(self.components)
        tokens = super().log_prob(proposed, position, actions.clamp(max=n - 1))
        return torch.where(actions == n, stop, tokens + go)

    def _stop(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities (B,) of a stop and of a token; a complete prompt can only stop."""
        logits, may = position @ self.stop, position @ self.may_stop > 0
        complete, never = position.sum(1) == 0, -math.inf
        stop = F.logsigmoid(logits).masked_fill(~may, never).masked_fill(complete, 0)
        go = F.logsigmoid(-logits).masked_fill(~may, 0).masked_fill(complete, never)
        return stop, go


class TokenPolicy(ActorCriticPolicy):
    """Actor: `Proposal`, and `Tilt` or `StoppingTilt`. Critic: one value a position.

    A critic that saw the tokens would know the few prompts of a search by heart.

    Args:
        observation_space: Of `TokenPromptEnv`.
        action_space: Of `TokenPromptEnv`.
        lr_schedule: Stable-Baselines3's.
        objective: Where the frozen model is asked.
        space: Lengths and allowed ids.
        components: Principal components, m.
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
        **kwargs: Any,
    ) -> None:
        self._components = principal_components(objective.lm, space, components)
        self._space = space
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=[],
            features_extractor_class=Proposal,
            features_extractor_kwargs={"objective": objective, "space": space},
            **kwargs,
        )

    def _build(self, lr_schedule: Schedule) -> None:
        """Replaces the base's, whose output layer has a row of its own for each token."""
        self._build_mlp_extractor()
        space = self._space
        self.action_net = (
            StoppingTilt(self._components, space)
            if space.varies
            else Tilt(self._components, space.length)
        )
        self.value_net = PositionValue(space.length)  # type: ignore[assignment]  # no Linear
        self.optimizer = self.optimizer_class(
            self.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )

    def evaluate_actions(  # type: ignore[override]  # observations are never a dict here
        self, obs: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor, None]:
        """Values, log-probabilities, and no entropy: it would take half the time and has no use."""
        proposal, tilt = self.features_extractor, self.action_net
        assert isinstance(proposal, Proposal)
        assert isinstance(tilt, Tilt)
        position = proposal.position(obs)
        log_prob = tilt.log_prob(proposal.proposed(obs), position, actions)
        return self.value_net(position), log_prob, None

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


def principal_components(lm: FrozenLM, space: TokenSpace, count: int) -> Tensor:
    """Leading components of the allowed tokens' output rows, (N, count) float32.

    Rows of mean square length 1: a tilt of N(0, s^2) spreads logits by s, whatever the model.
    """
    model: Any = lm.model  # transformers leaves these methods untyped
    layer = model.get_output_embeddings() if lm.kind == "causal" else model.get_input_embeddings()
    rows: Tensor = layer.weight[torch.from_numpy(space.allowed).to(lm.device)].float()
    rows = rows - rows.mean(0)
    _, vectors = torch.linalg.eigh(rows.T @ rows)  # ascending
    components = rows @ vectors[:, -count:]
    scaled: Tensor = components / components.square().sum(1).mean().sqrt()
    return scaled
