"""What a task or an optimiser must leave as it found it: global random generators, the model."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch

from rlprompt.lm import FrozenLM


def random_states() -> dict[str, object]:
    """The states of the global generators, by name; equal where nothing was drawn."""
    kind, keys, *rest = np.random.get_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "random": random.getstate(),
        "numpy.random": (kind, np.asarray(keys).tobytes(), *rest),
        "torch": [state.numpy().tobytes() for state in (torch.get_rng_state(), *devices)],
    }


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Global generators in a known state, and as they were afterwards.

    What hangs on them comes out differently under different seeds.
    """
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        try:
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def model_state(lm: FrozenLM) -> dict[str, object]:
    """What is frozen about a model, by name; hashes all weights (0.4 s for 135M in float32)."""
    return {
        "weights": lm.hash_weights(),
        "training mode": [module.training for module in lm.model.modules()],
        "requires_grad": [parameter.requires_grad for parameter in lm.model.parameters()],
    }


def changed(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """The names of what is no longer the same."""
    return [name for name in before if before[name] != after[name]]
