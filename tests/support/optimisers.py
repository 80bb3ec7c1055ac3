"""Optimisers of a few lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlprompt.prompt import SoftPrompt, TextPrompt
from rlprompt.search.objective import Objective
from rlprompt.search.optimiser import AskTell, Proposals
from rlprompt.search.space import SoftSpace, TextSpace, TokenSpace
from rlprompt.types import PromptKind


@dataclass(frozen=True)
class Walk(AskTell[TokenSpace]):
    """Moves on from the best prompt so far: every answer decides what is asked next."""

    searches: ClassVar[PromptKind] = "tokens"
    batch: int = 5

    def ask(self, space: TokenSpace, n_prompts: int, rng: np.random.Generator) -> Proposals:
        best, reward = space.sample(rng), -np.inf
        while True:
            prompts = [best]
            for _ in range(self.batch):
                token = int(rng.choice(space.allowed))
                prompts.append(best.replaced(int(rng.integers(len(best))), token))
            evaluation = yield prompts
            i = int(evaluation.rewards.argmax())
            if evaluation.rewards[i] > reward:
                best, reward = prompts[i], float(evaluation.rewards[i])


@dataclass(frozen=True)
class Climb:
    """Follows the gradient."""

    searches: ClassVar[PromptKind] = "soft"
    step: float = 0.5

    def run(self, objective: Objective, space: SoftSpace, rng: np.random.Generator) -> None:
        vectors = space.start
        while True:
            evaluation = objective.evaluate_with_grad([SoftPrompt(vectors)])
            vectors = vectors + np.float32(self.step) * evaluation.gradients[0]


@dataclass(frozen=True)
class Rephrase(AskTell[TextSpace]):
    """Puts words behind the best text so far, one more or one less: every answer decides the next.

    Texts differ in length, and one may be empty.
    """

    searches: ClassVar[PromptKind] = "text"
    batch: int = 3
    words: tuple[str, ...] = (" good", " it was", "\n<b>great</b>", " ünd")

    def ask(self, space: TextSpace, n_prompts: int, rng: np.random.Generator) -> Proposals:
        best, reward = TextPrompt(""), -np.inf
        prompts = list(space.starts) or [best]
        while True:
            evaluation = yield prompts
            i = int(evaluation.rewards.argmax())
            if evaluation.rewards[i] > reward:
                best, reward = prompts[i], float(evaluation.rewards[i])
            drawn = (best.text + str(word) for word in rng.choice(self.words, self.batch))
            fitting = [one for one in map(TextPrompt, drawn) if space.contains(one)]
            prompts = fitting or [TextPrompt(str(rng.choice(self.words)))]
