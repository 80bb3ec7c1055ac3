"""Editing a prompt until it is better."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from rlprompt.envs.edits import Edit, Edits
from rlprompt.envs.episodes import Array, Episodes, Flags, PromptEnv, PromptVectorEnv
from rlprompt.prompt import Prompt, TokenPrompt
from rlprompt.search.allocation import score_new
from rlprompt.search.objective import Objective
from rlprompt.search.pools import first_words
from rlprompt.search.space import TokenSpace
from rlprompt.types import Floats

# Edits of an episode. TEMPERA (Zhang et al. 2023, arXiv 2211.11890): 8.
HORIZON = 8
# Tokens that edits put in, without the starts' own. Ours: as many as in BDPL, so that prompts of
# five tokens have a few hundred edits.
TOKENS = 64


class EditEpisodes(Episodes):
    """n token prompts that are edited side by side; those that a step makes are scored in one call.

    What is earned is how much better the prompt has become, so that an episode earns what its last
    prompt has above its first. What was scored before, in whatever episode, is remembered and not
    paid again: the way back to a prompt is free, and so is a start after its first episode, which
    pays for it together with what its first edit makes.

    Prompts begin with the starts in turns. Where a space has none, one for each is drawn of the
    tokens that edits put in, once and for all.

    >>> from rlprompt import Budget
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> objective, rng = Objective(ToyTask(), toy_lm(), Budget(40)), np.random.default_rng(0)
    >>> space = TokenSpace(2, np.arange(10))
    >>> episodes = EditEpisodes(objective, space, n=2, horizon=1, tokens=5, rng=rng)
    >>> gains, over = episodes.advance(np.array([0, 1]))  # an edit each, and the starts are scored
    >>> gains.shape, over.tolist(), objective.ledger.n_distinct <= 4
    ((2,), [True, True], True)

    Args:
        objective: The only way to a reward.
        space: Lengths, allowed ids, and starts.
        n: Prompts side by side.
        horizon: Edits of an episode, those that change nothing among them; 1 or more.
        tokens: How many tokens edits may put in, 1 or more: the first of the space's own order, or
            common words (`first_words`). The starts' own come on top.
        rng: Draws what is random in these, and the starts where there are none.

    Attributes:
        edits: What may be done, by number.
        starts: What prompts begin with.
        known: What was scored, and its reward.
        left: (n,) edits that each prompt has left; none once it has stopped.

    Raises:
        ValueError: There is nothing to do, or nothing to do it with.
    """

    def __init__(
        self,
        objective: Objective,
        space: TokenSpace,
        n: int,
        horizon: int,
        tokens: int,
        rng: np.random.Generator,
    ) -> None:
        if horizon < 1 or tokens < 1:
            raise ValueError(
                f"an episode has 1 edit or more, of 1 token or more; got horizon {horizon} and "
                f"tokens {tokens}"
            )
        self.check_space(space, TokenSpace)
        words = first_words(objective.lm, space, tokens, rng)
        theirs = [token for start in space.starts for token in start.ids]
        self.edits = Edits(space, np.unique([*words, *theirs]))
        drawn = space.over(self.edits.tokens)
        self.starts = space.starts or tuple(drawn.sample(rng) for _ in range(n))
        self.known = dict(space.known)
        self.left = np.full(n, horizon)
        high = np.full(space.length + 2, self.edits.tokens[-1])
        high[-2:] = space.length, horizon
        super().__init__(
            objective,
            np.zeros((n, space.length), dtype=np.int64),
            Box(np.zeros_like(high), high, dtype=np.int64),
            Discrete(len(self.edits.every)),
            horizon,
            varies=True,
        )
        self.restart(np.ones(n, dtype=np.bool_))
        self._before = self.prompts()

    @property
    def ended(self) -> Flags:
        """See `Episodes.ended`."""
        return np.asarray(self.left == 0)

    def prompts(self) -> list[TokenPrompt]:
        """The prompts as they are now, n of them."""
        return [TokenPrompt(row[:n]) for row, n in zip(self.pieces, self.position, strict=True)]

    def restart(self, which: Flags) -> None:
        """See `Episodes.restart`."""
        super().restart(which)
        self.left[which] = self.horizon
        for i in np.flatnonzero(which).tolist():
            self._write(i, self.starts[i % len(self.starts)])

    def act(self, actions: Array) -> None:
        """Edit every prompt, or stop; what is not possible changes nothing."""
        stop = len(self.edits.every) - 1
        self.check_known(actions, f"the number of an edit, 0 to {stop - 1}, or {stop} to stop")
        self._before = self.prompts()
        possible = np.take_along_axis(self._possible(), actions[:, None], axis=1)[:, 0]
        for i in np.flatnonzero(possible).tolist():
            self._write(i, self.edits.every[actions[i]].applied(self._before[i]))
        self.left = np.where(actions == stop, 0, np.maximum(self.left - 1, 0))

    def rewards(self) -> Floats:
        """See `Episodes.rewards`; nothing is paid for a prompt that stays as it is."""
        moves = list(zip(self._before, self.prompts(), strict=True))
        changed = [(was, now) for was, now in moves if was != now]
        self.score([*(was for was, _ in changed), *(now for _, now in changed)])
        gains = [self.known[now] - self.known[was] if was != now else 0.0 for was, now in moves]
        return np.array(gains)

    def score(self, prompts: Iterable[TokenPrompt]) -> None:
        """Have those scored that were not before, in one call.

        Raises:
            BudgetExhausted: Not all of them were covered.
        """
        score_new(self.objective, prompts, self.known)

    def masks(self) -> NDArray[np.int8]:
        """See `Episodes.masks`; where nothing is left to do, one can only stop."""
        return self._possible().astype(np.int8)

    def observations(self) -> Array:
        """See `Episodes.observations`."""
        return np.column_stack([self.pieces, self.position, self.left])

    def prompt(self, pieces: Array) -> Prompt:
        """See `Episodes.prompt`."""
        return TokenPrompt(pieces)

    def _possible(self) -> Flags:
        possible = self.edits.possible(self.pieces, self.position)
        possible[self.ended, :-1] = False
        return possible

    def _write(self, i: int, prompt: TokenPrompt) -> None:
        self.pieces[i] = 0
        self.pieces[i, : len(prompt)] = prompt.ids
        self.position[i] = len(prompt)


class EditPromptEnv(PromptEnv):
    """A prompt that is edited: `rlprompt/EditPrompt-v0`.

    After TEMPERA (Zhang et al. 2023, arXiv 2211.11890), with edits of tokens and not of examples
    and templates, and without a query: the prompt is one for all texts.

    Observation: Box (L + 2,) int64, the ids, zeros behind the last, how many there are, and how
    many edits are left. Action: Discrete(A), the number of an edit, which `edits[action]` spells
    out: replace a token, insert one before it, leave one out, swap two, and last of all stop.
    Where all prompts have one length, none is inserted or left out. What is not possible, or would
    change nothing, is an edit that is lost. `info["action_mask"]` (A,) int8 has 1 for what is
    possible, as `Discrete.sample(mask)` takes it.

    Reward: by how much the edit has raised the mean train reward, so that an episode earns the last
    prompt's less the first one's. A prompt costs its rows when it comes up for the first time in
    this environment; the start is paid together with the first edit. An episode ends after
    `horizon` edits, which is no truncation since they are counted in the observation, or by a stop.

    >>> from rlprompt import Budget
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> objective = Objective(ToyTask(n_examples=4), toy_lm(), Budget(rows=48))
    >>> space = TokenSpace(3, np.arange(40, 50), shortest=1, starts=(TokenPrompt([41, 48]),))
    >>> env = EditPromptEnv(objective, space, horizon=2)
    >>> env.reset()[0].tolist()
    [41, 48, 0, 2, 2]
    >>> env.edits[39], env.edits[60]
    (Edit(kind='insert', place=0, other=49), Edit(kind='delete', place=0, other=0))
    >>> observation, gain, terminated, _, _ = env.step(60)
    >>> observation.tolist(), terminated, objective.ledger.n_prompts
    ([48, 0, 0, 1, 1], False, 2)

    Args:
        objective: The only way to a reward; `BudgetExhausted` passes through `step`.
        space: Lengths and allowed ids. Episodes begin with the first of its starts, or else all
            with one prompt, drawn when the environment is made.
        horizon: Edits of an episode, 1 or more.
        tokens: How many tokens edits put in, 1 or more, beside those of the starts: the first of
            the space's own order, or common words.
        render_mode: `ansi` to see the text.
        rng: Draws that prompt, and what is random in the tokens that edits put in: give a search's
            own, so that its seed decides them. None draws the same each time.
    """

    def __init__(
        self,
        objective: Objective,
        space: TokenSpace,
        horizon: int = HORIZON,
        tokens: int = TOKENS,
        render_mode: str | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        rng = rng or np.random.default_rng(0)
        episodes = EditEpisodes(objective, space, 1, horizon, tokens, rng)
        super().__init__(episodes, render_mode)
        self.edits: tuple[Edit, ...] = episodes.edits.every


class EditPromptVectorEnv(PromptVectorEnv):
    """`num_envs` times `EditPromptEnv`, scored together, and paid once for what they share.

    They begin with the starts in turns, or where there are none with one drawn for each when they
    are made. One that stopped waits until all have come to an end.

    >>> from rlprompt import Budget
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> objective = Objective(ToyTask(n_examples=4), toy_lm(), Budget(rows=48))
    >>> space = TokenSpace(2, np.arange(40, 50), starts=(TokenPrompt([41, 48]),))
    >>> envs = EditPromptVectorEnv(objective, space, num_envs=2)
    >>> _ = envs.reset()
    >>> observations, gains, _, _, _ = envs.step(np.array([12, 12]))
    >>> observations[0].tolist(), objective.ledger.n_prompts  # the start, and one for both
    ([41, 42, 2, 7], 2)

    Args:
        objective: As for `EditPromptEnv`.
        space: As for `EditPromptEnv`.
        num_envs: Prompts side by side.
        horizon: As for `EditPromptEnv`.
        tokens: As for `EditPromptEnv`.
        rng: As for `EditPromptEnv`.
    """

    def __init__(
        self,
        objective: Objective,
        space: TokenSpace,
        num_envs: int = 1,
        horizon: int = HORIZON,
        tokens: int = TOKENS,
        rng: np.random.Generator | None = None,
    ) -> None:
        rng = rng or np.random.default_rng(0)
        episodes = EditEpisodes(objective, space, num_envs, horizon, tokens, rng)
        super().__init__(episodes)
        self.edits: tuple[Edit, ...] = episodes.edits.every
