"""What a policy over tokens learns: a tilt of the proposal, and how often to stop."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprompt.agents.policies.small_policy import Adapter
from rlprompt.agents.policies.stopping import stop_prior
from rlprompt.models.lm import FrozenLM
from rlprompt.search.space import TokenSpace


class Tilt(Adapter):
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

    def entropy(self, proposed: Tensor, position: Tensor) -> Tensor:
        """Entropy of the next action, (B,) nats; arguments as for `log_prob`."""
        tilts = self.tilt @ self.components.T  # (L, N)
        top = tilts.detach().amax(1, keepdim=True)
        weights = (tilts - top).exp()
        mass = proposed @ weights.T  # (B, L)
        logs = torch.xlogy(proposed, proposed) @ weights.T + proposed @ (weights * tilts).T
        return ((mass.log() + top.T - logs / mass) * position).sum(1)

    @torch.no_grad()
    def shrink(self) -> None:
        """Go half of the way back to the proposal."""
        self.tilt.mul_(0.5)


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
        self.prior: Tensor
        self.register_buffer("prior", stop_prior(space).logit(), persistent=False)
        self.stop = nn.Parameter(self.prior.clone())

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

    def entropy(self, proposed: Tensor, position: Tensor) -> Tensor:
        """As for `Tilt`."""
        stop, go = (one.exp() for one in self._stop(position))
        tokens = super().entropy(proposed, position)
        entropy: Tensor = torch.special.entr(stop) + torch.special.entr(go) + go * tokens
        return entropy

    @torch.no_grad()
    def shrink(self) -> None:
        """As for `Tilt`, stops as well."""
        super().shrink()
        self.stop.lerp_(self.prior, 0.5)

    def _stop(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities (B,) of a stop and of a token; a complete prompt can only stop."""
        logits, may = position @ self.stop, position @ self.may_stop > 0
        complete, never = position.sum(1) == 0, -math.inf
        stop = F.logsigmoid(logits).masked_fill(~may, never).masked_fill(complete, 0)
        go = F.logsigmoid(-logits).masked_fill(~may, 0).masked_fill(complete, never)
        return stop, go


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
    # A single token is its own mean, and has no components.
    scaled: Tensor = components / components.square().sum(1).mean().sqrt().clamp(min=1e-12)
    return scaled
