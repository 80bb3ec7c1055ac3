"""Code of one's own in the environment, as a search like any other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from rlprompt._utils.seeding import seeded
from rlprompt._utils.suggest import check_choice
from rlprompt.envs.edit_prompt import HORIZON, TOKENS, EditEpisodes, EditPromptEnv
from rlprompt.envs.token_prompt import TokenEpisodes, TokenPromptEnv
from rlprompt.envs.vec_env import PromptVecEnv
from rlprompt.search.objective import Objective
from rlprompt.search.space import TokenSpace
from rlprompt.types import PromptKind

Environment = Literal["tokens", "edits"]


@dataclass(frozen=True)
class Play:
    """Call a function with an environment of token prompts; the budget ends it.

    So a loop over `step`, or another library's `learn`, is an optimiser: `BudgetExhausted` passes
    through the function, and `search` goes on to dev, to test and to a `Result`. What the function
    draws from the global generators, or from the space of actions, depends on the search's seed
    alone. Starts are scored before it is called, or with the first edit of theirs.

    >>> from rlprompt import search
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> def at_random(env):
    ...     while True:
    ...         _, terminated = env.reset(), False
    ...         while not terminated:
    ...             _, reward, terminated, _, _ = env.step(env.action_space.sample())
    >>> found = search(ToyTask(), toy_lm(), Play(at_random), budget=48, length=2)
    >>> found.status, found.n_prompts
    ('finished', 12)

    Args:
        function: It may go on for ever, or return.
        prompts: None for one prompt at a time in Gymnasium's form (`TokenPromptEnv`), or how many
            side by side, scored together, in that of Stable-Baselines3 (`PromptVecEnv`).
        environment: What an action does: write the next of the `tokens`, or make one of the `edits`
            of a prompt (`EditPromptEnv`), where one that is known costs nothing.

    Raises:
        ValueError: There is nothing to call, no prompt, or no such environment.
    """

    searches: ClassVar[PromptKind] = "tokens"

    function: Callable[[Any], object]
    prompts: int | None = None
    environment: Environment = "tokens"

    def __post_init__(self) -> None:
        """Check the settings."""
        if not callable(self.function):
            raise ValueError(
                f"{self.function!r} cannot be called; give a function of the environment"
            )
        if self.prompts is not None and self.prompts < 1:
            raise ValueError(f"prompts is 1 or more, or None for one alone, got {self.prompts}")
        check_choice("environment", self.environment, Environment)

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        """See `Optimiser.run`."""
        n = self.prompts
        env: Any
        if self.environment == "edits" and n is not None:
            env = PromptVecEnv(EditEpisodes(objective, space, n, HORIZON, TOKENS, rng))
        elif self.environment == "edits":
            env = EditPromptEnv(objective, space, rng=rng)
        else:
            if space.unscored:
                objective.evaluate(space.unscored)
            env = TokenPromptEnv(objective, space)
            if n is not None:
                env = PromptVecEnv(TokenEpisodes(objective, space, n))
        env.action_space.seed(int(rng.integers(2**31)))
        with seeded(int(rng.integers(2**32))):
            self.function(env)
