"""The global random generators: their states, and a while in which they are known."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


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
