"""Proximal policy optimisation of token prompts and of soft prompts, by Stable-Baselines3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from stable_baselines3.common.policies import ActorCriticPolicy

from rlprompt.agents.policies.gaussian import gaussian
from rlprompt.agents.policies.small_policy import ShrinkOnRepeats
from rlprompt.agents.policies.token_policy import TokenPolicy
from rlprompt.agents.policies.token_proposal import check_cut
from rlprompt.agents.policies.training import learn
from rlprompt.agents.shared.ranges import check_ranges, check_share
from rlprompt.envs.token_prompt import TokenEpisodes
from rlprompt.models.lm import FrozenLM
from rlprompt.search.objective import Objective
from rlprompt.search.space import SoftSpace, TokenSpace
from rlprompt.types import PromptKind


@dataclass(frozen=True)
class PPO:
    """Learn to write a prompt token by token.

    PPO (Schulman et al. 2017, arXiv 1707.06347, eq. 7) on RLPrompt's process (Deng et al. 2022,
    arXiv 2205.12548, section 2.2): a frozen language model writes, a small adapter changes what it
    writes. Departures from RLPrompt: PPO and not soft Q-learning; the adapter is a vector a
    position and not an MLP (`TokenPolicy` says why); the policy model is the task's own; top-k is a
    choice.

    A prompt's reward counts relative to its rollout's mean, as in RLPrompt, in units of the spread
    of all rewards so far. Nothing is discounted: an episode has one reward, at its end. A policy
    that settles writes what it wrote before, which is paid for again: the result counts distinct
    prompts, its page warns of few, and `fresh` is against it, as `entropy` may be. The global
    generators that Stable-Baselines3 draws from are seeded from the search's own and put back. In
    an update the critic's error counts half, and gradients are cut to a norm of 0.5: its defaults
    (`vf_coef`, `max_grad_norm`).

    In a space of several lengths the policy also stops, with a probability of 0.1 a token at first
    (`STOP`), and learns for each position how often. Starts are scored first; half of what the
    policy is given to tilt are then their tokens, each at its own position.

    On a task and a model that cost next to nothing:

    >>> from rlprompt import search
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> found = search(ToyTask(), toy_lm(), PPO(prompts=4), budget=48, length=2)
    >>> found.n_prompts, found.rows, len(found.best.prompt)  # three rollouts, on 4 examples
    (12, 48, 2)

    Args:
        prompts: Prompts in a rollout, scored together. RLPrompt's 16; 2 or more.
        epochs: Passes over a rollout, 1 or more. Ours, 8; Schulman et al.: 10 for continuous
            control.
        learning_rate: Adam's, for the tilt, above 0. With the next, ours: half of both (0.05, 0.2)
            got half as far above the start with 300 prompts, in a pilot on film reviews with two
            seeds.
        clip: Largest relative change of a token's probability in an update, above 0. Schulman et
            al. use 0.2 over thousands of updates; a search has about twenty.
        components: Principal components of the tokens that the adapter weighs, 1 or more. Ours: 20
            of the last token's predicted the rewards of 640 random prompts better (cross-validated
            r = 0.27) than whole output rows (0.22).
        entropy: Weight of a bonus for entropy (Schulman et al., 0.01 on Atari), above 0; None for
            no bonus, which pulls the policy away from what the model writes.
        top_k: Tokens of a proposal that may be drawn, 1 or more, the model's likeliest; RLPrompt
            draws from 256 of its own policy's. None for all.
        top_p: Draw from the model's likeliest tokens of so much probability, above 0 and up to 1.
            None for all.
        fresh: Share of a rollout's prompts, above 0 and below 1, that were never scored before.
            After a rollout with less the policy goes half of the way back to the proposal. None
            leaves it alone. Ours: on dev of three data sets, three draws each, 0.5 came to a mean
            accuracy of 0.755, and None to 0.745, with 3,200 rows, and to 0.760 and 0.757 with
            9,600; in 3 of these 18 pairs they differed at all. Far more prompts were distinct.

    Raises:
        ValueError: A setting is out of range.
    """

    searches: ClassVar[PromptKind] = "tokens"

    prompts: int = 16
    epochs: int = 8
    learning_rate: float = 0.1
    clip: float = 0.4
    components: int = 64
    entropy: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    fresh: float | None = 0.5

    def __post_init__(self) -> None:
        """Check the settings."""
        counts = {"prompts": 2, "epochs": 1, "components": 1, "top_k": 1}
        check_ranges(self, counts, ("learning_rate", "clip", "entropy"))
        check_share(self, "top_p")
        check_share(self, "fresh", one=False)

    def prepare(self, lm: FrozenLM) -> None:
        """Refuse a model that writes nothing to cut, before anything is paid (`check_cut`)."""
        check_cut(lm, self.top_k, self.top_p)

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        """See `Optimiser.run`."""
        kwargs = {
            "objective": objective,
            "space": space,
            "components": self.components,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "with_entropy": self.entropy is not None,
        }
        if space.unscored:
            objective.evaluate(space.unscored)
        episodes = TokenEpisodes(objective, space, self.prompts)
        settings = {
            "policy": TokenPolicy,
            "policy_kwargs": kwargs,
            "device": objective.lm.device,
            "learning_rate": self.learning_rate,
            "n_epochs": self.epochs,
            "clip_range": self.clip,
            "ent_coef": self.entropy or 0.0,
        }
        enough = (self.fresh or 0) * self.prompts
        shrinks = ShrinkOnRepeats(objective.ledger, enough) if enough else None
        steps = objective.affordable() * episodes.horizon
        learn(episodes, settings, rng, steps=steps, callback=shrinks)


@dataclass(frozen=True)
class SoftPPO:
    """Learn a Gaussian for each vector of a soft prompt, in random subspaces.

    PPO (Schulman et al. 2017, arXiv 1707.06347, eq. 7) in the subspaces of Black-Box Tuning (Sun et
    al. 2022, arXiv 2201.03514; `LMForwardAPI` of its code), one for each vector. The mean of each
    vector depends on its position alone: the process is deterministic and always starts alike.
    Rewards, randomness, the critic's error and gradients are treated as in `PPO`.

    It beats random search over vectors (`RandomSoft`) on a made-up task, and not on real ones: mean
    test accuracy over nine cells (three tasks, three draws of each) was 0.672, and 0.677 at random
    (3,200 rows). Five or six rollouts of 16 have to tell 100 coordinates apart, those of 5 vectors.

    On a task and a model that cost next to nothing:

    >>> from rlprompt import search
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> found = search(ToyTask(), toy_lm(), SoftPPO(prompts=4), budget=48, length=2)
    >>> found.n_prompts, found.best.prompt.vectors.shape
    (12, (2, 32))

    Args:
        prompts: Prompts in a rollout, scored together. As for `PPO`.
        epochs: Passes over a rollout. As for `PPO`.
        learning_rate: Adam's, above 0. Ours; not tuned.
        clip: As for `PPO`.
        dimension: Coordinates of a vector, 1 or more. Ours: 5 vectors of 20 are a fifth of
            Black-Box Tuning's 500.
        alpha: How far the first prompts spread, in standard deviations of the model's embeddings,
            above 0. 1 in Black-Box Tuning.

    Raises:
        ValueError: A setting is out of range.
    """

    searches: ClassVar[PromptKind] = "soft"

    prompts: int = 16
    epochs: int = 8
    learning_rate: float = 0.03
    clip: float = 0.4
    dimension: int = 20
    alpha: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings."""
        least = {"prompts": 2, "epochs": 1, "dimension": 1}
        check_ranges(self, least, ("learning_rate", "clip", "alpha"))

    def run(self, objective: Objective, space: SoftSpace, rng: np.random.Generator) -> None:
        """See `Optimiser.run`."""
        episodes, kwargs = gaussian(objective, space, rng, self.prompts, self.dimension, self.alpha)
        settings = {
            "policy": ActorCriticPolicy,
            "policy_kwargs": {"net_arch": [], **kwargs},
            "learning_rate": self.learning_rate,
            "n_epochs": self.epochs,
            "clip_range": self.clip,
        }
        learn(episodes, settings, rng, steps=objective.affordable() * episodes.horizon)
