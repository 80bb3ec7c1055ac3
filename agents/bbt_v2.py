"""CMA-ES over keys and values, one layer after another."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlprompt.agents.shared.evolution import dimension_for, generations
from rlprompt.agents.shared.ranges import check_ranges
from rlprompt.prompt import PrefixPrompt
from rlprompt.search.optimiser import AskTell, Proposals
from rlprompt.search.space import PrefixSpace
from rlprompt.types import Floats, PromptKind

# Prompts that a block of layers needs at least: three generations of eight, ours. BBTv2's 8,000
# prompts are 16 generations of 20 for each of 24 layers.
PROMPTS_A_BLOCK = 24


@dataclass(frozen=True)
class BBTv2(AskTell[PrefixSpace]):
    """Evolve the keys and values of a prefix prompt in a random subspace a layer, in turns.

    BBTv2 (Sun et al. 2022, arXiv 2205.11200; `deepbbt.py` of its code): each layer has a CMA-ES of
    its own, which takes a generation while the other layers stay as they are, from the lowest layer
    to the highest and around again. There a prompt's hidden states are moved at every layer, and
    nothing of them but the layer's keys and values reaches the text, so here these are moved
    themselves: what PEFT loads, and what `PrefixTuning` trains. Departures besides: where the
    budget is too small for all layers, neighbours share a strategy; a layer stays at the best
    prompt that was scored, and not at the best point of its strategy, whose reward was another when
    the other layers were; the start is what the layers make of real tokens, scored first, and
    theirs zeros; and as for `CMAES` the reward is the task's and not cross-entropy, the prompt is
    not of 50 positions, the covariance is diagonal at such budgets, and a strategy that stops
    begins again with twice the population. Like their last release, and unlike the first, it knows
    no bounds.

    >>> from rlprompt import Evaluation
    >>> scale = np.ones((4, 2, 1, 1), np.float32)
    >>> space = PrefixSpace(np.zeros((3, 4, 2, 1, 8), np.float32), scale)
    >>> proposals = BBTv2().ask(space, 100, np.random.default_rng(0))
    >>> start = next(proposals)
    >>> generation = proposals.send(Evaluation(tuple(start), np.zeros((1, 2))))
    >>> np.flatnonzero((generation[0].vectors != 0).any(axis=(0, 2, 3, 4))).tolist()  # of 4 layers
    [0]

    Args:
        blocks: Groups of neighbouring layers with a strategy each, 1 or more, and no more than
            there are layers. None for one a layer if the budget has `PROMPTS_A_BLOCK` prompts for
            each, else fewer.
        dimension: Coordinates of a block's subspace, 2 or more. BBTv2: 500, for 333 prompts a
            layer. None for a fifth of a block's prompts, as in `CMAES`.
        population: Prompts of a generation, scored together, 4 or more. BBTv2: 20. None for pycma's
            default for the dimension.
        alpha: How far the first generation spreads, in standard deviations of a layer's keys or
            values between tokens, above 0. BBTv2's commands: 0.2, with as much for sigma.

    Raises:
        ValueError: A setting is out of range.
    """

    searches: ClassVar[PromptKind] = "prefix"

    blocks: int | None = None
    dimension: int | None = None
    population: int | None = None
    alpha: float = 0.2

    def __post_init__(self) -> None:
        """Check the settings."""
        check_ranges(self, {"blocks": 1, "dimension": 2, "population": 4}, ("alpha",))

    def ask(self, space: PrefixSpace, n_prompts: int, rng: np.random.Generator) -> Proposals:
        """See `AskTell.ask`."""
        best, start = space.start, PrefixPrompt(space.start)
        reward = space.known[start] if start in space.known else (yield [start]).rewards[0]
        blocks = list(self._blocks(space, n_prompts, rng))
        generation = [next(block.evolving) for block in blocks]
        while True:
            for i, block in enumerate(blocks):
                found = [block.moved(best, space, z) for z in generation[i]]
                evaluation = yield [PrefixPrompt(vectors) for vectors in found]
                generation[i] = block.evolving.send(evaluation.rewards)
                leader = int(evaluation.rewards.argmax())
                if evaluation.rewards[leader] > reward:
                    best, reward = found[leader], evaluation.rewards[leader]

    def _blocks(
        self, space: PrefixSpace, n_prompts: int, rng: np.random.Generator
    ) -> Iterator[_Block]:
        """The layers in groups, the lowest first, each with its strategy."""
        n_layers = space.start.shape[1]
        n_blocks = min(n_layers, self.blocks or max(1, n_prompts // PROMPTS_A_BLOCK))
        share = n_prompts // n_blocks
        dimension = dimension_for(share) if self.dimension is None else self.dimension
        for layers in np.array_split(np.arange(n_layers), n_blocks):
            size = space.start[:, layers].size
            basis = rng.standard_normal((size, dimension), dtype=np.float32)
            # As `SoftSpace.subspace`, with a scale for each layer: see `moved`.
            basis *= self.alpha / math.sqrt(dimension)
            yield _Block(layers, basis, generations(dimension, share, self.population, rng))


class _Block(NamedTuple):
    """Some layers, the subspace that they are moved in, and what is tried there."""

    layers: NDArray[np.int64]
    basis: NDArray[np.float32]
    evolving: Generator[list[NDArray[np.float64]], Floats, None]

    def moved(
        self, vectors: NDArray[np.float32], space: PrefixSpace, z: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """The vectors of a prompt with these layers where the start's are, moved by z."""
        start, found = space.start[:, self.layers], vectors.copy()
        offsets = (self.basis @ z.astype(np.float32)).reshape(start.shape)
        found[:, self.layers] = start + space.scale[self.layers] * offsets
        return found
