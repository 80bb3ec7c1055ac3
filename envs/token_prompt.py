"""Choosing a prompt token by token."""

from __future__ import annotations

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from rlprompt.envs.episodes import Array, Flags, PromptEnv, PromptVectorEnv
from rlprompt.envs.growing import GrowingEpisodes
from rlprompt.prompt import Prompt, TokenPrompt
from rlprompt.search.objective import Objective
from rlprompt.search.space import TokenSpace


class TokenEpisodes(GrowingEpisodes):
    """n token prompts. An action is an index into the allowed ids, an observation holds ids.

    The observation is a Box and not the natural MultiDiscrete, which Stable-Baselines3 would
    one-hot encode: 5 tokens of 49,152 as 245,760 numbers.

    Where prompts differ in length, the action after the last token's stops.

    >>> from rlprompt import Budget
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> space = TokenSpace(2, np.arange(10))
    >>> episodes = TokenEpisodes(Objective(ToyTask(), toy_lm(), Budget(40)), space, n=3)
    >>> _, over = episodes.advance(np.array([1, 2, 3]))
    >>> rewards, over = episodes.advance(np.array([4, 5, 6]))  # three prompts, scored in one call
    >>> rewards.shape, over.tolist(), episodes.objective.ledger.used  # on 4 examples
    ((3,), [True, True, True], 12)
    """

    def __init__(self, objective: Objective, space: TokenSpace, n: int) -> None:
        self.check_space(space, TokenSpace)
        high = np.full(space.length + 1, space.allowed[-1])
        high[-1] = space.length
        low = np.zeros_like(high)
        low[-1] = 1 - space.length if space.varies else 0
        super().__init__(
            objective,
            np.zeros((n, space.length), dtype=np.int64),
            Box(low, high, dtype=np.int64),
            Discrete(len(space.allowed) + space.varies),
            space.shortest,
        )
        self.allowed = space.allowed

    def pieces_of(self, actions: Array) -> Array:
        """See `GrowingEpisodes.pieces_of`."""
        last = len(self.allowed) - 1
        stop = f", or {last + 1} to stop" if self.varies else ""
        self.check_known(actions, f"an index into the allowed ids, 0 to {last}{stop}")
        ids: Array = self.allowed[np.minimum(actions, last)]
        return ids

    def stops(self, actions: Array) -> Flags:
        """See `GrowingEpisodes.stops`."""
        return np.asarray(actions == len(self.allowed))

    def masks(self) -> NDArray[np.int8] | None:
        """See `Episodes.masks`; a complete prompt can only stop."""
        if not self.varies:
            return None
        masks = np.repeat(~self.ended[:, None], len(self.allowed) + 1, axis=1).astype(np.int8)
        masks[:, -1] = self.position >= self.shortest
        return masks

    def prompt(self, pieces: Array) -> Prompt:
        """See `Episodes.prompt`."""
        return TokenPrompt(pieces)


class TokenPromptEnv(PromptEnv):
    """A prompt chosen token by token: `rlprompt/TokenPrompt-v0`.

    Observation: Box (L + 1,) int64, the ids so far, zeros for those to come, and last how many
    there are. Action: Discrete(N), an index into the space's allowed ids. Reward: 0, at the last
    token the prompt's mean train reward.

    Where the space has prompts of several lengths: Discrete(N + 1), and action N stops, which
    completes a prompt of the shortest length or more and changes nothing before. At L tokens the
    prompt is complete by itself. The last number of the observation is negative once a stop was
    heard. `info["action_mask"]` (N + 1,) int8 has 1 for what can be done, as
    `Discrete.sample(mask)` takes it.

    >>> from rlprompt import Budget
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> objective = Objective(ToyTask(n_examples=4), toy_lm(), Budget(rows=48))
    >>> space = TokenSpace(length=3, allowed=np.arange(40, 50))
    >>> env = TokenPromptEnv(objective, space, render_mode="ansi")
    >>> observation, _ = env.reset()
    >>> for action in (1, 8, 2):  # indices into the allowed ids
    ...     observation, reward, terminated, _, _ = env.step(action)
    >>> observation.tolist(), terminated, reward == objective.ledger.best_reward
    ([41, 48, 42, 3], True, True)
    >>> env = TokenPromptEnv(objective, TokenSpace(3, np.arange(40, 50), shortest=1))
    >>> _ = env.reset()
    >>> for action in (1, 10):  # the last one stops
    ...     observation, reward, terminated, _, _ = env.step(action)
    >>> observation.tolist(), terminated
    ([41, 0, 0, -1], True)

    Args:
        objective: The only way to a reward; `BudgetExhausted` passes through `step`.
        space: Lengths and allowed ids.
        render_mode: `ansi` to see the text so far.
    """

    def __init__(
        self, objective: Objective, space: TokenSpace, render_mode: str | None = None
    ) -> None:
        super().__init__(TokenEpisodes(objective, space, 1), render_mode)


class TokenPromptVectorEnv(PromptVectorEnv):
    """`num_envs` times `TokenPromptEnv`, scored together.

    Where prompts differ in length, one that stopped waits until all are complete.

    >>> from rlprompt import Budget
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> objective = Objective(ToyTask(n_examples=4), toy_lm(), Budget(rows=48))
    >>> space = TokenSpace(length=3, allowed=np.arange(40, 50))
    >>> envs = TokenPromptVectorEnv(objective, space, num_envs=2)
    >>> observations, _ = envs.reset()
    >>> observations, rewards, terminated, _, _ = envs.step(np.array([1, 8]))
    >>> observations.tolist(), rewards.tolist()
    ([[41, 0, 0, 1], [48, 0, 0, 1]], [0.0, 0.0])

    Args:
        objective: As for `TokenPromptEnv`.
        space: As for `TokenPromptEnv`.
        num_envs: Prompts side by side.
    """

    def __init__(self, objective: Objective, space: TokenSpace, num_envs: int = 1) -> None:
        super().__init__(TokenEpisodes(objective, space, num_envs))
