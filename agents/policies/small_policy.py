"""A policy that has little to learn, next to nothing at first, and can go back to that."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from rlprompt.search.budget import Ledger


class Adapter(nn.Module, ABC):
    """What an actor learns, next to nothing at first: features to logits."""

    @abstractmethod
    def shrink(self) -> None:
        """Go half of the way back to where it began."""


class SmallPolicy(ActorCriticPolicy):
    """A policy with an actor and a critic of its own."""

    @abstractmethod
    def parts(self) -> tuple[Adapter, nn.Module]:
        """The actor, and the critic, features to values (B, 1)."""

    def _build(self, lr_schedule: Schedule) -> None:
        """Replaces the base's, whose output layer has a row of its own for each action."""
        self._build_mlp_extractor()
        self.action_net, self.value_net = self.parts()  # type: ignore[assignment]  # no Linear
        self.optimizer = self.optimizer_class(
            self.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )


class ShrinkOnRepeats(BaseCallback):
    """Has an actor go back towards where it began after a rollout of few new prompts.

    Args:
        ledger: Where prompts are counted.
        enough: New prompts that a rollout must have.
        patience: Rollouts without any, one after the other, that end the search.
    """

    def __init__(self, ledger: Ledger, enough: float, patience: float = math.inf) -> None:
        super().__init__()
        self._ledger, self._enough, self._patience = ledger, enough, patience
        self._before, self._idle = ledger.n_distinct, 0

    def _on_rollout_start(self) -> None:
        new = self._ledger.n_distinct - self._before
        # Nothing was learnt before the first rollout, and nothing is taken back.
        if new < self._enough:
            actor = self.model.policy.action_net
            assert isinstance(actor, Adapter)
            actor.shrink()
        self._before += new
        self._idle = 0 if new else self._idle + 1

    def _on_step(self) -> bool:
        return self._idle <= self._patience
