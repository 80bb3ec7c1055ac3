"""Arguments of Stable-Baselines3 algorithms (and sb3-contrib's): a person's settings, and ours.

Each is made for millions of steps; a search has hundreds. What depends on the process is set for it
(`arguments`), and the rest is as the algorithm has it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydantic
from stable_baselines3 import TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from rlprompt._utils.suggest import advice, reason
from rlprompt.agents.shared.ranges import check_ranges, check_share
from rlprompt.envs.episodes import Episodes

# Arguments of a constructor that a search gives, or has no use for.
OWN = ("env", "seed", "tensorboard_log", "verbose", "_init_setup_model")
# Ranges of what is left to say: out of them an algorithm learns nothing and does not say so, or
# ends when prompts are paid for. Whole numbers with their least values, numbers above 0, shares.
LEAST = {
    "batch_size": 1,
    "buffer_size": 1,
    "learning_starts": 0,
    "n_epochs": 1,
    "n_steps": 1,
    "policy_delay": 1,
    "target_update_interval": 1,
    "train_freq": 1,
}
ABOVE_ZERO = ("clip_range", "clip_range_vf", "learning_rate", "tau")
SHARES = ("exploration_final_eps", "exploration_fraction", "gae_lambda", "gamma", "tau")


def parameters_of(algorithm: type[BaseAlgorithm]) -> dict[str, inspect.Parameter]:
    """Keyword arguments of its constructor, with those that `**kwargs` hands on."""
    found = dict[str, inspect.Parameter]()
    for one in inspect.getmro(algorithm):
        made_by = vars(one).get("__init__")
        own = inspect.signature(made_by).parameters.values() if made_by else ()
        for parameter in own:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                found.setdefault(parameter.name, parameter)
        if made_by and all(p.kind is not p.VAR_KEYWORD for p in own):
            break
    return found


def check_arguments(algorithm: type[BaseAlgorithm], settings: Mapping[str, Any]) -> None:
    """Refuse what the algorithm does not take.

    Raises:
        ValueError: It has no such setting, a search sets that itself, or a value is of another type
            than the algorithm says or out of range.
    """
    known = {n: p for n, p in parameters_of(algorithm).items() if n not in ("self", *OWN)}
    plain = {n: v.item() if isinstance(v, np.generic) else v for n, v in settings.items()}
    for name, value in plain.items():
        if name in OWN:
            raise ValueError(f"{name} is no setting of a search: leave it out")
        if name not in known:
            raise ValueError(f"{algorithm.__name__} has no setting {name!r}{advice(name, known)}")
        kind = known[name].annotation
        if kind is inspect.Parameter.empty or isinstance(kind, str):
            continue  # an algorithm of one's own need not say
        config = pydantic.ConfigDict(arbitrary_types_allowed=True, strict=True)
        try:
            pydantic.TypeAdapter(kind, config=config).validate_python(value)
        except pydantic.errors.PydanticUserError:
            continue  # it names what is not there to look at
        except pydantic.ValidationError as error:
            problem = reason(error.errors()[0])
            raise ValueError(f"{algorithm.__name__}: {name} {problem}") from None
    try:
        _check_ranges(plain)
    except ValueError as error:
        raise ValueError(f"{algorithm.__name__}: {error}") from None


def _check_ranges(settings: Mapping[str, Any]) -> None:
    # A frequency may have a unit, a rate be a function of what is left.
    numbers = {n: v[0] if isinstance(v, tuple) and v else v for n, v in settings.items()}
    numbers = {n: v for n, v in numbers.items() if isinstance(v, int | float)}
    least = {n: LEAST[n] for n in numbers if n in LEAST}
    given = SimpleNamespace(**numbers)
    check_ranges(given, least, tuple(n for n in ABOVE_ZERO if n in numbers))
    for name in SHARES:
        if name in numbers:
            check_share(given, name, zero=True)
    steps = numbers.get("gradient_steps", 1)
    if steps < 1 and steps != -1:
        raise ValueError(f"gradient_steps is 1 or more, or -1 for one an action, got {steps}")


def arguments(
    algorithm: type[BaseAlgorithm], episodes: Episodes, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What the algorithm is made with: the settings, and before them what depends on the process.

    Rollouts are whole episodes, with one reward at the end of each, so nothing is discounted and
    returns go to the end. Algorithms with a replay buffer keep all, and after each rollout take a
    step for every fourth action, as DQN does, and renew their target network, where they keep one
    for long. A greedy one chooses alike for all prompts, so that without random actions they would
    be one prompt: at least one token in L + 1 is drawn, as is noise for TD3 and DDPG.
    """
    length, prompts = episodes.horizon, len(episodes.pieces)
    ours: dict[str, Any] = {
        "policy": next(iter(algorithm.policy_aliases), "MlpPolicy"),
        "device": "cpu",
    }
    ours |= {"gamma": 1.0, "n_steps": length}
    taken = parameters_of(algorithm)
    if issubclass(algorithm, OnPolicyAlgorithm):
        ours |= {"gae_lambda": 1.0, "batch_size": settings.get("n_steps", length) * prompts}
    else:
        rollouts = episodes.objective.affordable() // prompts + 1
        ours |= {"train_freq": length, "gradient_steps": max(1, length * prompts // 4)}
        ours |= {"buffer_size": rollouts * length * prompts}
    if "exploration_final_eps" in taken:
        ours |= {"exploration_fraction": 0.5, "exploration_final_eps": 1 / (length + 1)}
        ours |= {"target_update_interval": length * prompts}
    if issubclass(algorithm, TD3):  # and DDPG, which is one without its tricks
        # Fujimoto et al. 2018 (arXiv 1802.09477), section 6.1.
        (size,) = episodes.action_space.shape or (1,)
        ours |= {"action_noise": NormalActionNoise(np.zeros(size), np.full(size, 0.1))}
    return {name: value for name, value in ours.items() if name in taken} | dict(settings)
