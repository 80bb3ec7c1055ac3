"""Any Stable-Baselines3 algorithm (or sb3-contrib's) on token and on soft prompts, by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from rlprompt._utils.suggest import check_choice
from rlprompt.agents.play import Environment
from rlprompt.agents.policies.algorithms import find_algorithm
from rlprompt.agents.policies.arguments import check_arguments
from rlprompt.agents.policies.features import Edited, Written
from rlprompt.agents.policies.gaussian import gaussian
from rlprompt.agents.policies.token_tilt import principal_components
from rlprompt.agents.policies.training import Gains, train
from rlprompt.agents.shared.ranges import check_ranges
from rlprompt.envs.edit_prompt import HORIZON, EditEpisodes
from rlprompt.envs.token_prompt import TokenEpisodes
from rlprompt.models.lm import FrozenLM
from rlprompt.search.objective import Objective
from rlprompt.search.optimiser import LATER
from rlprompt.search.pools import first_words
from rlprompt.search.space import SoftSpace, TokenSpace
from rlprompt.types import PromptKind

# Principal components by which a policy knows a token. As for `PPO`.
COMPONENTS = 64


@dataclass(frozen=True)
class RL:
    """Have an algorithm of Stable-Baselines3 or sb3-contrib choose tokens one after the other.

    Raffin et al. 2021 (JMLR 22(268)), with their own policies: a network of two layers, with an
    output for each token. It sees the tokens so far by the model's principal components, and how
    many there are. Rewards count above the mean of all so far, in standard deviations of these.
    Unlike `PPO` of this library, it knows nothing of what the model would write, so it chooses
    among a few words. What depends on the process is set for it (`arguments`), everything else, its
    learning rate first of all, is as the algorithm has it, for budgets of millions of steps. Where
    prompts differ in length, to stop is one action beside all the words, so that nearly all prompts
    have the greatest length at first.

    With `environment: edits` an action changes a prompt, as in TEMPERA (Zhang et al. 2023, arXiv
    2211.11890; `EditPromptEnv`): episodes of eight edits begin with the starts in turns, and an
    edit earns what it adds, in standard deviations of all rewards so far. A prompt that is known
    costs nothing, and the search ends where as many edits as could spend the budget bring nothing
    new. It learns more slowly: on a made-up task, the share of tokens from a hidden tenth of the
    vocabulary, A2C and PPO of 30 words learnt in 1,000 prompts (learning rate 0.003, 3 seeds), and
    next to nothing in 300.

    On a task and a model that cost next to nothing:

    >>> from rlprompt import search
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> faster = RL("A2C", prompts=4, settings={"learning_rate": 0.01})
    >>> found = search(ToyTask(), toy_lm(), faster, budget=48, length=2)
    >>> found.n_prompts, found.rows, len(found.best.prompt)  # three rollouts, on 4 examples
    (12, 48, 2)

    Args:
        algorithm: `A2C`, `DQN` or `PPO`; of sb3-contrib (`rlprompt[rl]`) `MaskablePPO`, `QRDQN`,
            `RecurrentPPO` or `TRPO`; or `MODULE:NAME` of a class that inherits from one of them, or
            from `BaseAlgorithm`.
        prompts: Prompts side by side, scored together, 1 or more. RLPrompt's 16.
        words: Tokens to choose from, 2 or more: the first of the space's own order
            (`TokenSpace.ranked`), or else its most common words (`first_words`). As for `Grow`.
            None for all.
        settings: Keyword arguments of the algorithm, such as `learning_rate` or `policy_kwargs`.
        environment: What an action does: write the next of the `tokens`, or make one of the `edits`
            of a prompt.

    Raises:
        ValueError: There is no such algorithm, setting or environment, it cannot choose tokens,
            sb3-contrib is not installed, or a number is out of range.
    """

    searches: ClassVar[PromptKind] = "tokens"

    algorithm: str = "A2C"
    prompts: int = 16
    words: int | None = 200
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Environment = field(default="tokens", metadata=LATER)

    def __post_init__(self) -> None:
        """Check the settings."""
        check_arguments(find_algorithm(self.algorithm, "tokens"), self.settings)
        check_ranges(self, {"prompts": 1, "words": 2})
        check_choice("environment", self.environment, Environment)

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        """See `Optimiser.run`."""
        lm, algorithm = objective.lm, find_algorithm(self.algorithm, "tokens")
        first: Callable[[], object] | None
        if self.environment == "edits":
            words = len(space.allowed) if self.words is None else self.words
            edits = EditEpisodes(objective, space, self.prompts, HORIZON, words, rng)
            sees = _sees(Edited, lm, space, edits.edits.tokens)
            first = partial(edits.score, space.starts)
            train(algorithm, edits, self.settings, sees, rng, first, relative=Gains)
            return
        allowed = space.allowed
        if self.words is not None:
            allowed = np.array(first_words(lm, space, self.words, rng))
        few = space.over(allowed)
        episodes = TokenEpisodes(objective, few, self.prompts)
        sees = _sees(Written, lm, space, few.allowed)
        first = partial(objective.evaluate, space.unscored) if space.unscored else None
        train(algorithm, episodes, self.settings, sees, rng, first)


def _sees(
    extractor: type[Written | Edited], lm: FrozenLM, space: TokenSpace, tokens: NDArray[np.int64]
) -> dict[str, Any]:
    """Keyword arguments of a policy that knows these tokens by their components."""
    few = space.over(tokens)
    components = principal_components(lm, few, COMPONENTS).cpu()
    given = {"allowed": torch.from_numpy(few.allowed), "components": components}
    return {"features_extractor_class": extractor, "features_extractor_kwargs": given}


@dataclass(frozen=True)
class SoftRL:
    """Have an algorithm of Stable-Baselines3 or sb3-contrib choose vectors one after the other.

    As `RL`, in the random subspaces of `SoftPPO`, one for each vector; the policy sees how many
    vectors there are, and nothing else: with the coordinates so far before it, none of these learnt
    as much on a made-up task, nearness to hidden vectors (300 prompts, 2 seeds). There A2C and PPO
    learnt with a learning rate of 0.003, SAC a little, and TD3 not.

    On a task and a model that cost next to nothing:

    >>> from rlprompt import search
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> found = search(ToyTask(), toy_lm(), SoftRL("TD3", prompts=4), budget=48, length=2)
    >>> found.n_prompts, found.best.prompt.vectors.shape
    (12, (2, 32))

    Args:
        algorithm: `A2C`, `DDPG`, `PPO`, `SAC` or `TD3`; of sb3-contrib (`rlprompt[rl]`) `CrossQ`,
            `RecurrentPPO`, `TQC` or `TRPO`; or `MODULE:NAME`, as for `RL`.
        prompts: As for `RL`.
        dimension: Coordinates of a vector. As for `SoftPPO`.
        alpha: How far the first prompts spread, above 0. As for `SoftPPO`.
        settings: As for `RL`.

    Raises:
        ValueError: There is no such algorithm or setting, it cannot choose vectors, sb3-contrib is
            not installed, or a number is out of range.
    """

    searches: ClassVar[PromptKind] = "soft"

    algorithm: str = "A2C"
    prompts: int = 16
    dimension: int = 20
    alpha: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the settings."""
        check_arguments(find_algorithm(self.algorithm, "soft"), self.settings)
        check_ranges(self, {"prompts": 1, "dimension": 1}, ("alpha",))

    def run(self, objective: Objective, space: SoftSpace, rng: np.random.Generator) -> None:
        """See `Optimiser.run`."""
        algorithm = find_algorithm(self.algorithm, "soft")
        episodes, kwargs = gaussian(objective, space, rng, self.prompts, self.dimension, self.alpha)
        if not issubclass(algorithm, OnPolicyAlgorithm):  # the others bound their actions
            del kwargs["log_std_init"]
        train(algorithm, episodes, self.settings, kwargs, rng)
