"""Soft Q-values of the next token: a network between what a model has read and its output head.

    Q(s, a) = head(network(h(s)))[a]
    pi(a | s) = pi_0(a | s) exp(Q(s, a) - V(s))        V(s) = log sum_a pi_0(a | s) exp Q(s, a)

h(s) is the frozen model's last hidden state after the tokens so far, in whose place the head is
given what the network makes of it, as in RLPrompt (Deng et al. 2022, arXiv 2205.12548;
`LMAdaptorModel` of the released code). Tokens that the head holds to be alike so have like values.
The network gives next to nothing at first, whatever the model itself would write, and so the first
policy is pi_0: all tokens are as likely as each other, and where prompts differ in length, one more
action stops as often as `PPO` does at first (`stop_prior`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rlprompt._utils.seeding import seeded
from rlprompt.agents.continuation import read
from rlprompt.agents.policies.stopping import stop_prior
from rlprompt.prompt import TokenPrompt
from rlprompt.search.objective import Objective
from rlprompt.search.space import TokenSpace
from rlprompt.types import Ids

# The released code's: gain of the weights at first (Xavier, uniform).
SMALL = 1e-4

Choose = Callable[[Tensor, Sequence[int]], Tensor]


class Path(NamedTuple):
    """How a prompt is written.

    Attributes:
        prompt: What comes of it.
        hidden: (T, W) float32, what the model has read before each action.
        actions: (T,) tokens, and a stop where it ends before the longest length.
    """

    prompt: TokenPrompt
    hidden: Tensor
    actions: Tensor


class SoftQPolicy:
    """Writes prompts.

    Args:
        objective: Where the frozen model is asked.
        space: Lengths, allowed ids, and starts.
        width: Units of the network's hidden layer.
        rng: Draws the network's first weights.

    Attributes:
        network: From (..., W) to (..., W), and to one more where prompts differ in length.
        stop: The action that ends a prompt, behind all tokens.
        token_prior: (L,) log pi_0 of any token in each place.
        stop_prior: (L,) log pi_0 of a stop.
        device: Where the network is.

    Raises:
        ValueError: The model tells no next token.
    """

    def __init__(
        self, objective: Objective, space: TokenSpace, width: int, rng: np.random.Generator
    ) -> None:
        self._head = objective.lm.head
        self._objective, self._space = objective, space
        self.device = device = self._head.weight.device
        first = read(objective, [()])
        with seeded(int(rng.integers(2**32))):
            made = _network(first.shape[1], width, first.shape[1] + space.varies)
        self.network: nn.Module = made.to(device)
        self.stop = objective.lm.next_logits(first).shape[1]
        stops = stop_prior(space)
        stops[: space.shortest] = 0
        self.stop_prior = stops.log().to(device)
        self.token_prior = ((1 - stops).log() - math.log(len(space.allowed))).to(device)
        barred = torch.full((self.stop,), -math.inf)
        barred[torch.from_numpy(space.allowed)] = 0
        self._barred = barred.to(device)

    def logits(self, network: nn.Module, hidden: Tensor, first: int = 0) -> Tensor:
        """Q + log pi_0 of every action: log pi + V.

        Args:
            network: The policy's own, or one like it.
            hidden: (B, T, W), before T actions one after another.
            first: Tokens before the first of these.

        Returns:
            (B, T, A) float32, minus infinity for what is not allowed.
        """
        n_steps, n_hidden = hidden.shape[1:]
        places = slice(first, first + n_steps)
        moved = network(hidden)
        values = self._head.logits(moved[..., :n_hidden].to(self._head.weight.dtype)).float()
        tokens = values + self._barred + self.token_prior[places, None]
        if not self._space.varies:
            return tokens
        return torch.cat([tokens, moved[..., n_hidden:] + self.stop_prior[places, None]], -1)

    def drawn(
        self, count: int, top_k: int, temperature: float, rng: np.random.Generator
    ) -> list[Path]:
        """Prompts that are drawn.

        Args:
            count: Of them, repeats included.
            top_k: Tokens that each may be drawn from, the likeliest.
            temperature: Of the softmax; `top_k` is multiplied by it as well.
            rng: Draws them.
        """
        kept = min(int(top_k * temperature), len(self._space.allowed))

        def draw(logits: Tensor, which: Sequence[int]) -> Tensor:
            chances = cut(logits / temperature, kept, self.stop).cpu()
            return (chances + torch.from_numpy(rng.gumbel(size=chances.shape))).argmax(1)

        return self._written(count, draw)

    def likeliest(self) -> Path:
        """The prompt of the likeliest action in each place."""
        return self._written(1, lambda logits, which: logits.argmax(1))[0]

    def followed(self, prompts: Sequence[TokenPrompt]) -> list[Path]:
        """How these prompts would be written."""
        scripts = [iter((*prompt.ids, self.stop)) for prompt in prompts]
        return self._written(
            len(scripts), lambda logits, which: torch.tensor([next(scripts[i]) for i in which])
        )

    @torch.no_grad()
    def _written(self, count: int, choose: Choose) -> list[Path]:
        """So many prompts, written side by side.

        `choose` is given the logits (B, A) of some of them, and which those are, and gives B
        actions.
        """
        hidden: list[list[Tensor]] = [[] for _ in range(count)]
        actions: list[list[int]] = [[] for _ in range(count)]
        calls: list[list[Ids]] = []
        for place in range(self._space.length):
            which = [i for i in range(count) if self.stop not in actions[i]]
            if not which:
                break
            calls.append(sorted({tuple(actions[i]) for i in which}))
            states = torch.from_numpy(read(self._objective, calls[-1], calls[:-1]))
            found = dict(zip(calls[-1], states, strict=True))
            now = torch.stack([found[tuple(actions[i])] for i in which])
            logits = self.logits(self.network, now[:, None].to(self.device), place)[:, 0]
            for i, state, action in zip(which, now, choose(logits, which).tolist(), strict=True):
                hidden[i].append(state)
                actions[i].append(action)
        return [
            Path(
                TokenPrompt([a for a in own if a != self.stop]),
                torch.stack(states),
                torch.tensor(own),
            )
            for states, own in zip(hidden, actions, strict=True)
        ]


def cut(logits: Tensor, top_k: int, stop: int) -> Tensor:
    """Log-probabilities of actions with all but the likeliest tokens left out, (B, A).

    Those that are kept share what all tokens had: a stop keeps its probability.

    >>> cut(torch.tensor([[4.0, 3.0, 1.0, 2.0]]).log(), top_k=2, stop=3).exp()
    tensor([[0.4571, 0.3429, 0.0000, 0.2000]])
    """
    chances = logits.log_softmax(1)
    tokens = chances[:, :stop]
    likeliest = tokens.topk(top_k)
    kept = likeliest.values.log_softmax(1) + tokens.logsumexp(1, keepdim=True)
    none = torch.full_like(tokens, -math.inf)
    return torch.cat([none.scatter(1, likeliest.indices, kept), chances[:, stop:]], 1)


def _network(n_in: int, width: int, n_out: int) -> nn.Sequential:
    layers = nn.Linear(n_in, width), nn.Linear(width, n_out)
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight, gain=SMALL)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1])
