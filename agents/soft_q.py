"""Soft Q-learning of token prompts: RLPrompt's method, for its own budgets and for small ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import count, islice
from typing import ClassVar, Literal

import numpy as np

from rlprompt._utils.suggest import check_choice
from rlprompt.agents.policies.path_consistency import Hyperparameters, Learner
from rlprompt.agents.policies.soft_q_policy import SoftQPolicy
from rlprompt.agents.shared.ranges import check_ranges
from rlprompt.search.allocation import score_new
from rlprompt.search.objective import Objective
from rlprompt.search.space import TokenSpace
from rlprompt.types import Floats, PromptKind

Preset = Literal["small", "paper"]

# Values are divided by no more than this: at it, all that is allowed is about as likely.
HOTTEST = 1024.0

PRESETS: Mapping[Preset, Hyperparameters] = {
    "small": Hyperparameters(
        top_k=10**6,
        scale=20,
        learning_rate=3e-4,
        target_rate=0.05,
        steps=8,
        replay=True,
        relative=True,
        greedy_every=1,
    ),
    "paper": Hyperparameters(
        top_k=256,
        scale=5,
        learning_rate=5e-5,
        target_rate=0.001,
        steps=1,
        replay=False,
        relative=False,
        greedy_every=10,
    ),
}


@dataclass(frozen=True)
class SoftQ:
    """Learn to write a prompt token by token, by soft Q-learning.

    RLPrompt (Deng et al. 2022, arXiv 2205.12548, sections 2.2 and 2.3; `SQLModule` of its code),
    which is the soft Q-learning of Guo et al. (2021, arXiv 2106.07704) on a frozen model with a
    small network in it (`SoftQPolicy`): draw prompts, take steps down two path-consistency losses
    (`consistency_loss`), and once in a while score the prompt that the policy holds to be the
    likeliest. What is learnt from has rewards of mean 0 and standard deviation `scale`.

    `preset: paper` has the settings of the paper and its released code, which are for 12,000 draws
    of 16 prompts. A hundred prompts move nothing with them, so that the default, `small`, learns
    faster, and from all prompts so far again and again: soft Q-learning may learn from what another
    policy wrote, and that costs no rows. Rewards are standardised over these then, and over the
    draw otherwise. On a made-up task, the share of tokens from a hidden tenth of the vocabulary
    (200 prompts of 8 tokens, 3 seeds), the prompts of `small` earned 0.57 on average, those of
    `paper` 0.16, of random search 0.16, and of `PPO` 0.57.

    Departures: the policy is the task's own model, and not a smaller one; what it wrote it goes on
    from token by token, and does not read anew how that would be spelt; tokens are those of the
    space; biases begin at 0, since the released code's -1e-4 leave the hidden layer dead on a model
    whose hidden states are short; a prompt that is drawn again is known, and not paid again, and
    where a draw brings nothing new the next one has twice the temperature and twice as many tokens
    to draw from. Where prompts differ in length the policy also stops, as in `PPO`, and the
    likeliest prompt ends where a stop is likelier than all tokens together. Starts are scored
    first.

    >>> from rlprompt import search
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> found = search(ToyTask(), toy_lm(), SoftQ(prompts=4), budget=64, length=2)
    >>> found.n_prompts, found.n_distinct, len(found.best.prompt)
    (16, 16, 2)

    Args:
        preset: What the settings without a value have, `small` or `paper`. Numbers of `small` are
            ours, by trial on the made-up task.
        prompts: Prompts of a draw, and of a step, 2 or more. RLPrompt: 16.
        width: Units of the network's hidden layer, 1 or more. RLPrompt: 2048.
        top_k: Tokens that may be drawn in each place, the likeliest, 1 or more. The paper: 256,
            which at first are any 256. Small: a million, which is all.
        scale: Standard deviation of rewards as the policy sees them, above 0: the inverse of a
            temperature, for the best policy writes prompts in proportion to exp of such a reward.
            The paper: 5 on classes (100 on style transfer). Small: 20.
        learning_rate: Adam's, which the released code steps with as well (`get_default_train_op`),
            above 0. The paper: 5e-5. Small: 3e-4.
        target_rate: Share of the way that the target network goes towards the network before each
            step, above 0 and up to 1. The paper: 0.001. Small: 0.05.
        steps: Steps after each draw, 1 or more. The paper: 1. Small: 8.
        replay: Whether a step is on prompts out of all that were scored, and not out of the draw.
            The paper: no. Small: yes.
        relative: Whether the likelihood of a prompt counts relative to the first policy's, to which
            all tokens are alike. The paper: no, and so whatever is drawn is made likelier at first,
            by the logarithm of the number of prompts, beside which what it earned is little. Small:
            yes.
        greedy_every: Draws from one look at the likeliest prompt to the next, 1 or more, and one
            with the last draw; it is scored and paid for as any other. The paper: 10, on dev.
            Small: 1.

    Raises:
        ValueError: A setting is out of range.
    """

    searches: ClassVar[PromptKind] = "tokens"
    needs_next_token: ClassVar[bool] = True

    preset: Preset = "small"
    prompts: int = 16
    width: int = 2048
    top_k: int | None = None
    scale: float | None = None
    learning_rate: float | None = None
    target_rate: float | None = None
    steps: int | None = None
    replay: bool | None = None
    relative: bool | None = None
    greedy_every: int | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        check_choice("preset", self.preset, Preset)
        check_ranges(self, {"prompts": 2, "width": 1})
        self.hyperparameters  # noqa: B018  # which checks the others

    def resolved(self) -> SoftQ:
        """See `Optimiser`: a result says what was run, whatever a later version's preset has."""
        return replace(self, **asdict(self.hyperparameters))

    @property
    def hyperparameters(self) -> Hyperparameters:
        """The preset's settings, but for those that are given."""
        usual = PRESETS[self.preset]
        given = {name: getattr(self, name) for name in asdict(usual)}
        return replace(usual, **{name: v for name, v in given.items() if v is not None})

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        """See `Optimiser.run`."""
        settings = self.hyperparameters
        policy = SoftQPolicy(objective, space, self.width, rng)
        learner = Learner(policy, settings)
        rewards = dict(space.known)
        rest = space.everything(rewards)
        known = {path.prompt: path for path in policy.followed(space.starts)}
        score_new(objective, known, rewards)
        temperature = 1.0
        for draws in count():
            last = objective.affordable() <= self.prompts
            looks = draws > 0 and (last or draws % settings.greedy_every == 0)
            if temperature > HOTTEST:
                paths, looks = policy.followed(list(islice(rest, self.prompts))), False
            else:
                paths = policy.drawn(self.prompts, settings.top_k, temperature, rng, looks=looks)
            if not paths:
                return
            drawn = {path.prompt: path for path in paths}
            temperature = 1.0 if score_new(objective, drawn, rewards) else 2 * temperature
            if settings.replay:
                known |= drawn
            pool = list(known.values()) if settings.replay else paths[looks:]
            earned = standardised(np.array([rewards[path.prompt] for path in pool]))
            for _ in range(settings.steps):
                which = rng.permutation(len(pool))[: self.prompts]
                learner.step([pool[i] for i in which], settings.scale * earned[which])


def standardised(rewards: Floats) -> Floats:
    """Rewards (K,) with mean 0 and standard deviation 1, or all 0 where they are equal.

    The released code's, with what it adds to the standard deviation.

    >>> standardised(np.array([1.0, 3.0])).round(3).tolist()
    [-1.0, 1.0]
    """
    found: Floats = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    return found
