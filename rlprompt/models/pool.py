"""Frozen models of which one at a time is in memory, for grids with several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rlprompt.models.lm import FrozenLM


class ModelPool:
    """Where models are put back when another is needed."""

    def __init__(self) -> None:
        self._user: PooledLM | None = None
        self._live: FrozenLM | None = None

    def holds(self, lm: PooledLM) -> bool:
        """Whether a model is in memory."""
        return self._user is lm

    def take(self, lm: PooledLM) -> FrozenLM:
        """A model in memory, in the place of the one that was there."""
        if self._live is None or self._user is not lm:
            self._user = self._live = None  # before loading: two may not fit
            live = lm.load_again()
            if lm.known and live.fingerprint.digest != lm.fingerprint.digest:
                raise ValueError(
                    f"{lm.name} is another model than it was when this began; restore its files"
                )
            self._live, self._user = live, lm
        return self._live


class PooledLM(FrozenLM):
    """A frozen model that is loaded whenever it is needed and not there.

    What reports and keys ask for is remembered: a model that was put back is not loaded for that.

    Args:
        name: What results call it.
        load: Loads it in a dtype.
        dtype: The dtype, or `auto`, which is decided once.
        pool: Shared with the models that it takes turns with.

    Raises:
        ValueError: It cannot be loaded. Later, too: if it is another model by then.
    """

    def __init__(
        self, name: str, load: Callable[[str], FrozenLM], dtype: str, pool: ModelPool
    ) -> None:
        self.name = name
        self.known = False
        self._load = load
        self._dtype = dtype
        self._pool = pool
        live = pool.take(self)
        self._dtype = live.fingerprint.dtype
        self._device = live.device
        self.kind = live.kind
        self.n_parameters = live.n_parameters
        # In place of the cached properties of the class, which would be computed again.
        self.fingerprint = live.fingerprint
        self.own_noise = live.own_noise
        self.context = live.context
        self.known = True

    def load_again(self) -> FrozenLM:
        """The model from its files."""
        return self._load(self._dtype)

    def __getattr__(self, name: str) -> Any:
        """Everything else is asked of the model in memory."""
        if name.startswith("__") or "_pool" not in self.__dict__:
            raise AttributeError(name)  # a copy in the making
        return getattr(self._pool.take(self), name)

    @property
    def device(self) -> torch.device:
        """Where the weights are when they are in memory."""
        return self._device

    @property
    def in_memory(self) -> bool:
        """Whether its next score needs no loading."""
        return self._pool.holds(self)
