"""Optimisers that draw at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlprompt.search.objective import Objective
from rlprompt.search.optimiser import AskTell, Proposals
from rlprompt.search.space import SoftSpace, TokenSpace
from rlprompt.types import PromptKind


@dataclass(frozen=True)
class Draw(AskTell[TokenSpace]):
    """Random prompts in batches, without end or `batches` of them."""

    searches: ClassVar[PromptKind] = "tokens"
    size: int = 4
    batches: int = 10**6

    def ask(self, space: TokenSpace, n_prompts: int, rng: np.random.Generator) -> Proposals:
        for _ in range(self.batches):
            yield [space.sample(rng) for _ in range(self.size)]


@dataclass(frozen=True)
class DrawVectors:
    """Random soft prompts, each with its gradient."""

    searches: ClassVar[PromptKind] = "soft"

    def run(self, objective: Objective, space: SoftSpace, rng: np.random.Generator) -> None:
        while True:
            objective.evaluate_with_grad([space.prompt(rng.standard_normal(space.dimension))])
