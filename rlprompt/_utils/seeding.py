"""Seeds, and the global random generators: their states, and a while in which they are known."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# What decides with a seed what is drawn (`of_data`). Kept with results, so that none that was drawn
# otherwise is taken for the same.
SEEDED_BY = "examples"


def of_data(seed: int, digest: str) -> np.random.SeedSequence:
    """What a seed starts on some data: independent of what it starts on others.

    Results are compared over several draws of the examples as if each had seeds of its own; were
    the same numbers drawn on all, one lucky start would count as often as there are draws.

    Args:
        seed: 0 or more.
        digest: Of the data, hexadecimal.

    >>> of_data(0, "a0").generate_state(1) == of_data(0, "a1").generate_state(1)
    array([False])
    """
    return np.random.SeedSequence((seed, int(digest, 16)))


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

    What depends on them comes out differently under different seeds.
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
