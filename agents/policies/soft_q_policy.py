"""Soft Q-values of the next token: a network between what a model has read and its output head.

    Q(s, a) = head(network(h(s)))[a]
    pi(a | s) = pi_0(a | s) exp(Q(s, a) - V(s))        V(s) = log sum_a pi_0(a | s) exp Q(s, a)

h(s) is the frozen model's last hidden state after the tokens so far, in whose place the head is
given what the network makes of it, as in RLPrompt (Deng et al. 2022, arXiv 2205.12548, section 2.2
and appendix A.1; `LMAdaptorModel` of the released code). Tokens that the head holds to be alike so
have like values. A bias of the head (GPT-2's has none) is what it gives to zeros and left out: it
is how often the model writes a token anywhere, and no value. The network gives next to nothing at
first, whatever the model itself would write, and so the first policy is pi_0: all tokens are as
likely as each other, and where prompts differ in length, one more action stops as often as `PPO`
does at first (`stop_prior`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rlprompt._utils.seeding import seeded
from rlprompt.agents.policies.choices import cut, likeliest
from rlprompt.agents.policies.stopping import stop_prior
from rlprompt.agents.shared.continuation import read
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
        actions: (T,) places of its tokens among those allowed, and a stop where it ends before the
            longest length.
    """

    prompt: TokenPrompt
    hidden: Tensor
    actions: Tensor


class SoftQPolicy:
    """Writes prompts. An action is a token's place in `space.allowed`, or a stop.

    Args:
        objective: Where the frozen model is asked.
        space: Lengths, allowed ids, and starts.
        width: Units of the network's hidden layer.
        rng: Draws the network's first weights.

    Attributes:
        network: From (..., W) to (..., W), and to one more where prompts differ in length.
        stop: The action that ends a prompt, N, behind all tokens.
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
        n_hidden = self._head.weight.shape[1]
        with seeded(int(rng.integers(2**32))):
            made = _network(n_hidden, width, n_hidden + space.varies)
        self.network: nn.Module = made.to(device)
        self.stop = len(space.allowed)
        self._allowed = torch.from_numpy(space.allowed).to(device)
        self._bias = self._values(torch.zeros(n_hidden, device=device))
        stops = stop_prior(space)
        stops[: space.shortest] = 0
        self.stop_prior = stops.log().to(device)
        self.token_prior = ((1 - stops).log() - math.log(self.stop)).to(device)

    def logits(self, network: nn.Module, hidden: Tensor, first: int = 0) -> Tensor:
        """Q + log pi_0 of every action: log pi + V.

        Args:
            network: The policy's own, or one like it.
            hidden: (B, T, W), before T actions one after another.
            first: Tokens before the first of these.

        Returns:
            (B, T, A) float32, of N tokens and, where prompts differ in length, of a stop, which is
            minus infinity where it is not allowed.
        """
        n_steps, n_hidden = hidden.shape[1:]
        places = slice(first, first + n_steps)
        moved = network(hidden)
        values = self._values(moved[..., :n_hidden]) - self._bias
        tokens = values + self.token_prior[places, None]
        if not self._space.varies:
            return tokens
        return torch.cat([tokens, moved[..., n_hidden:] + self.stop_prior[places, None]], -1)

    def _values(self, given: Tensor) -> Tensor:
        """What the head says of the allowed tokens, (..., N), its bias among it."""
        return self._head.logits(given.to(self._head.weight.dtype), self._allowed).float()

    def drawn(
        self,
        count: int,
        top_k: int,
        temperature: float,
        rng: np.random.Generator,
        *,
        looks: bool = False,
    ) -> list[Path]:
        """Prompts that are drawn.

        Args:
            count: Of them, repeats included.
            top_k: Tokens that each may be drawn from, the likeliest.
            temperature: Of the softmax; `top_k` is multiplied by it as well.
            rng: Draws them.
            looks: Whether one more stands before them, of the `likeliest` action in each place.
        """
        kept = min(int(top_k * temperature), self.stop)

        def choose(logits: Tensor, which: Sequence[int]) -> Tensor:
            chances = cut(logits / temperature, kept, self.stop).cpu()
            chosen = (chances + torch.from_numpy(rng.gumbel(size=chances.shape))).argmax(1)
            if looks and which[0] == 0:
                chosen[:1] = likeliest(logits[:1], self.stop)
            return chosen

        return self._rollout(count + looks, choose)

    def followed(self, prompts: Sequence[TokenPrompt]) -> list[Path]:
        """How these prompts would be written."""
        places = (np.searchsorted(self._space.allowed, prompt.ids) for prompt in prompts)
        scripts = [iter((*own.tolist(), self.stop)) for own in places]
        return self._rollout(
            len(scripts), lambda logits, which: torch.tensor([next(scripts[i]) for i in which])
        )

    @torch.no_grad()
    def _rollout(self, count: int, choose: Choose) -> list[Path]:
        """So many prompts, written side by side.

        `choose` is given the logits (B, A) of some of them, and which those are, and gives B
        actions.
        """
        begun: list[Ids] = [()] * count
        hidden: list[list[Tensor]] = [[] for _ in range(count)]
        actions: list[list[int]] = [[] for _ in range(count)]
        calls: list[list[Ids]] = []
        for place in range(self._space.length):
            which = [i for i in range(count) if len(begun[i]) == place]
            if not which:
                break
            calls.append(sorted({begun[i] for i in which}))
            states = torch.from_numpy(read(self._objective, calls[-1], calls[:-1]))
            found = dict(zip(calls[-1], states, strict=True))
            now = torch.stack([found[begun[i]] for i in which])
            logits = self.logits(self.network, now[:, None].to(self.device), place)[:, 0]
            for i, state, action in zip(which, now, choose(logits, which).tolist(), strict=True):
                hidden[i].append(state)
                actions[i].append(action)
                if action != self.stop:
                    begun[i] += (int(self._space.allowed[action]),)
        return [
            Path(TokenPrompt(ids), torch.stack(states), torch.tensor(own))
            for ids, states, own in zip(begun, hidden, actions, strict=True)
        ]


def _network(n_in: int, width: int, n_out: int) -> nn.Sequential:
    layers = nn.Linear(n_in, width), nn.Linear(width, n_out)
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight, gain=SMALL)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1])
