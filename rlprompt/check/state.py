"""What a task or an optimiser must leave as it found it: the model, and anything with a state."""

from __future__ import annotations

from collections.abc import Mapping

from rlprompt.models.lm import FrozenLM


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
