"""Frozen models of which one at a time is in memory, for grids with several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rlprompt.lm import FrozenLM


class Shelf:
    """Where models are put back when another is needed."""

    def __init__(self) -> None:
        self._user: ShelvedLM | None = None
        self._live: FrozenLM | None = None

    def holds(self, lm: ShelvedLM) -> bool:
        """Whether a model is in memory."""
        return self._user is lm

    def take(self, lm: ShelvedLM) -> FrozenLM:
        """A model in memory, in the place of the one that was there."""
        if self._live is None or self._user is not lm:
            self._user = self._live = None  # before loading: two may not fit
            self._live = lm.load_again()
            self._user = lm
        return self._live


class ShelvedLM(FrozenLM):
    """A frozen model that is loaded whenever it is needed and not there.

    What reports and keys ask for is remembered: a model that was put back is not loaded for that.

    Args:
        name: What results call it.
        load: Loads it.
        shelf: Shared with the models that it takes turns with.
    """

    def __init__(self, name: str, load: Callable[[], FrozenLM], shelf: Shelf) -> None:
        self.name = name
        self.load_again = load
        self._shelf = shelf
        live = shelf.take(self)
        self._device = live.device
        self.kind = live.kind
        # In place of the cached properties of the class, which would be computed again.
        self.fingerprint = live.fingerprint
        self.own_noise = live.own_noise
        self.context = live.context

    def __getattr__(self, name: str) -> Any:
        """Everything else is asked of the model in memory."""
        if name.startswith("__") or "_shelf" not in self.__dict__:
            raise AttributeError(name)  # a copy in the making
        return getattr(self._shelf.take(self), name)

    @property
    def device(self) -> torch.device:
        """Where the weights are when they are in memory."""
        return self._device

    @property
    def in_memory(self) -> bool:
        """Whether its next score needs no loading."""
        return self._shelf.holds(self)
