"""Choosing a soft prompt vector by vector."""

from __future__ import annotations

import numpy as np
from gymnasium.spaces import Box

from rlprompt.envs.episodes import Array, PromptEnv, PromptVectorEnv
from rlprompt.envs.growing import GrowingEpisodes
from rlprompt.prompt import Prompt, SoftPrompt
from rlprompt.search.objective import Objective
from rlprompt.search.space import SoftSpace


class EmbeddingEpisodes(GrowingEpisodes):
    """n soft prompts. An action holds the coordinates of the next vector, an observation all.

    Coordinates lie in [-1, 1], the range that Gaussian policies expect. How far that reaches is
    the space's affair: the `scale` of a full space, the `sigma` of a subspace.

    >>> from rlprompt import Budget
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> space = SoftSpace(start=np.zeros((1, 32), np.float32), scale=1.0)
    >>> episodes = EmbeddingEpisodes(Objective(ToyTask(), toy_lm(), Budget(40)), space, n=3)
    >>> rewards, over = episodes.advance(np.zeros((3, 32)))
    >>> rewards.shape, over.tolist()
    ((3,), [True, True, True])
    """

    def __init__(self, objective: Objective, space: SoftSpace, n: int) -> None:
        self.check_space(space, SoftSpace)
        high = np.ones(space.dimension + 1, dtype=np.float32)
        high[-1] = space.length
        low = -high
        low[-1] = 0
        super().__init__(
            objective,
            np.zeros((n, space.length, space.step_dimension), dtype=np.float32),
            Box(low, high, dtype=np.float32),
            Box(-1, 1, (space.step_dimension,), dtype=np.float32),
        )
        self.space = space

    def pieces_of(self, actions: Array) -> Array:
        """See `GrowingEpisodes.pieces_of`."""
        actions = actions.astype(np.float32)
        shape = (len(self.pieces), self.space.step_dimension)
        if actions.shape != shape or not (np.abs(actions) <= 1).all():
            raise ValueError(
                f"actions have shape {shape} and numbers from -1 to 1; got shape {actions.shape}, "
                f"from {actions.min()} to {actions.max()}"
            )
        return actions

    def prompt(self, pieces: Array) -> Prompt:
        """See `Episodes.prompt`."""
        coordinates = np.zeros((self.length, self.space.step_dimension), dtype=np.float32)
        coordinates[: len(pieces)] = pieces
        return SoftPrompt(self.space.prompt(coordinates).vectors[: len(pieces)])


class EmbeddingPromptEnv(PromptEnv):
    """A soft prompt chosen vector by vector: `rlprompt/EmbeddingPrompt-v0`.

    Observation: Box (L * d + 1,) float32, the coordinates so far, zeros for those to come, and
    last how many vectors there are. Action: Box (d,) in [-1, 1], the coordinates of the next
    vector. Reward: 0, at the last vector the prompt's mean train reward.

    >>> from rlprompt import Budget
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> objective = Objective(ToyTask(n_examples=4), toy_lm(), Budget(rows=48))
    >>> space = SoftSpace(start=np.zeros((2, 32), dtype=np.float32), scale=1.0)
    >>> env = EmbeddingPromptEnv(objective, space)
    >>> observation, _ = env.reset()
    >>> for vector in np.zeros((2, 32), dtype=np.float32):
    ...     observation, reward, terminated, _, _ = env.step(vector)
    >>> observation.shape, terminated, reward == objective.ledger.best_reward
    ((65,), True, True)

    Args:
        objective: The only way to a reward; `BudgetExhausted` passes through `step`.
        space: A full space or one made by `stepwise`.
        render_mode: `ansi` to see the nearest tokens so far.

    Raises:
        ValueError: The space is a subspace of the whole prompt, which has no steps.
    """

    def __init__(
        self, objective: Objective, space: SoftSpace, render_mode: str | None = None
    ) -> None:
        super().__init__(EmbeddingEpisodes(objective, space, 1), render_mode)


class EmbeddingPromptVectorEnv(PromptVectorEnv):
    """`num_envs` times `EmbeddingPromptEnv`, scored together.

    >>> from rlprompt import Budget
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> objective = Objective(ToyTask(n_examples=4), toy_lm(), Budget(rows=48))
    >>> space = SoftSpace(start=np.zeros((2, 32), dtype=np.float32), scale=1.0)
    >>> envs = EmbeddingPromptVectorEnv(objective, space, num_envs=3)
    >>> observations, _ = envs.reset()
    >>> observations.shape, envs.single_action_space.shape
    ((3, 65), (32,))

    Args:
        objective: As for `EmbeddingPromptEnv`.
        space: As for `EmbeddingPromptEnv`.
        num_envs: Prompts side by side.
    """

    def __init__(self, objective: Objective, space: SoftSpace, num_envs: int = 1) -> None:
        super().__init__(EmbeddingEpisodes(objective, space, num_envs))
