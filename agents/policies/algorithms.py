"""Stable-Baselines3 algorithms (and sb3-contrib's): by what name, and for which prompts."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from rlprompt._utils.plugins import load_object
from rlprompt._utils.suggest import advice
from rlprompt.types import PromptKind

SB3, CONTRIB = "stable_baselines3", "sb3_contrib"
# The packages' own tables of action spaces. ARS is not here: it learns by whole policies, each
# scored over episodes of its own, which leaves nothing to score together.
KNOWN: Mapping[PromptKind, Mapping[str, str]] = {
    "tokens": {
        "A2C": SB3,
        "DQN": SB3,
        "PPO": SB3,
        "MaskablePPO": CONTRIB,
        "QRDQN": CONTRIB,
        "RecurrentPPO": CONTRIB,
        "TRPO": CONTRIB,
    },
    "soft": {
        "A2C": SB3,
        "DDPG": SB3,
        "PPO": SB3,
        "SAC": SB3,
        "TD3": SB3,
        "CrossQ": CONTRIB,
        "RecurrentPPO": CONTRIB,
        "TQC": CONTRIB,
        "TRPO": CONTRIB,
    },
}
# What is said of an algorithm of the other kind: what it does, and which optimiser has it.
INSTEAD: Mapping[PromptKind, str] = {
    "tokens": "chooses numbers and no tokens; the optimiser rl-soft has it for vectors, and rl has",
    "soft": "chooses one of a list and no numbers; the optimiser rl has it for tokens, and rl-soft "
    "has",
}


def find_algorithm(name: str, kind: PromptKind) -> type[BaseAlgorithm]:
    """The class of an algorithm that can choose prompts of a kind.

    >>> find_algorithm("A2C", "tokens").__name__
    'A2C'

    Args:
        name: As in `KNOWN`, or the place of another package's class, `MODULE:NAME` or
            `FILE.py:NAME`.
        kind: Of the prompts.

    Raises:
        ValueError: There is none of that name, it chooses others, or it is not installed.
    """
    found = load_object(name) if ":" in name else _known(name, kind)
    if not (isinstance(found, type) and issubclass(found, BaseAlgorithm)):
        raise ValueError(
            f"{name} is no Stable-Baselines3 algorithm; give a class that inherits from "
            "its BaseAlgorithm"
        )
    for above in inspect.getmro(found):
        if above.__module__.partition(".")[0] in (SB3, CONTRIB) and _is_other(above.__name__, kind):
            raise ValueError(
                f"{name} is {above.__name__}, which {INSTEAD[kind]} {', '.join(KNOWN[kind])}"
            )
    return found


def _is_other(name: str, kind: PromptKind) -> bool:
    """Whether it chooses prompts, and none of this kind."""
    return name not in KNOWN[kind] and any(name in others for others in KNOWN.values())


def _known(name: str, kind: PromptKind) -> Any:
    known = KNOWN[kind]
    if name not in known:
        if _is_other(name, kind):
            raise ValueError(f"{name} {INSTEAD[kind]} {', '.join(known)}")
        raise ValueError(f"no algorithm is called {name!r}{advice(name, known)}")
    if importlib.util.find_spec(known[name]) is None:
        raise ValueError(f"{name} is in sb3-contrib: pip install 'rlprompt[rl]'")
    return getattr(importlib.import_module(known[name]), name)
