"""Lays (prompt, query, candidate) sequences out as a forest of shared segments.

Every sequence is `head + prompt + tail + candidate`. What two sequences share from their start is
computed once: a `Tree` merges common beginnings, stands after a *prefix* whose keys and values
are already known, and is laid along one row of a dense forward pass. Tokens of a row attend to the
prefix and to their own ancestors only, so neighbours on a row never see each other.

Pure array code: nothing here knows a model. Soft prompts take part through *virtual ids*: an id
of `vocabulary + i` stands for row `i` of a table of vectors.

>>> tree = grow([(7, 8), (7, 9)], [((1,), (2,))] * 2)
>>> tree.ids.tolist(), tree.depths.tolist()
([7, 8, 9], [0, 1, 1])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlprompt.types import Candidates, Ids


@dataclass(frozen=True)
class Tree:
    """Tokens computed after a prefix, as a tree laid flat; parents come before children.

    Attributes:
        ids: (T,) int64, virtual ids.
        depths: (T,) int64, tokens between the prefix's end and this one.
        ancestors: (T, T) bool, `[i, j]` where token i attends to token j, itself included.
        read_nodes: (R,) int64, the token whose output predicts the target.
        read_targets: (R,) int64, the token id predicted there.
        read_sequences: (R,) int64, which of the grown sequences the read belongs to.
        read_candidates: (R,) int64, which of its candidates.
    """

    ids: NDArray[np.int64]
    depths: NDArray[np.int64]
    ancestors: NDArray[np.bool_]
    read_nodes: NDArray[np.int64]
    read_targets: NDArray[np.int64]
    read_sequences: NDArray[np.int64]
    read_candidates: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of tokens, T."""
        return len(self.ids)


@dataclass(frozen=True)
class PackedRow:
    """One row of a dense pass: a tree after a prefix.

    Attributes:
        prefix: Which of the known prefixes the tree stands on.
        prefix_length: How many of the prefix's tokens the tree sees, from its start.
        tree: The tokens to compute.
        outputs: (sequences of the tree,) int64, where each sequence's answer belongs.
    """

    prefix: int
    prefix_length: int
    tree: Tree
    outputs: NDArray[np.int64]


@dataclass(frozen=True)
class Pass:
    """The arrays of one dense forward pass over B rows, padded to S prefix and T new tokens.

    Attributes:
        ids: (B, T) int64, virtual ids, 0 where padded.
        positions: (B, T) int64, position of each token in its own sequence.
        attends: (B, T, S + T) bool, prefix first. A padded token attends to itself alone, so
            that its softmax is defined.
        nodes: (N,) int64, flat indices into (B, T) of the outputs to read, each once, rising.
        read_nodes: (R,) int64, which of `nodes` a read is from.
        read_targets: (R,) int64, the token id predicted there.
        read_outputs: (R,) int64, which sequence's answer the read belongs to.
        read_candidates: (R,) int64, which candidate of it.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    attends: NDArray[np.bool_]
    nodes: NDArray[np.int64]
    read_nodes: NDArray[np.int64]
    read_targets: NDArray[np.int64]
    read_outputs: NDArray[np.int64]
    read_candidates: NDArray[np.int64]


def grow(sequences: Sequence[Ids], candidates: Sequence[Candidates]) -> Tree:
    """Merge sequences, each with its candidate continuations, into one tree.

    A candidate's last token is only predicted, never fed, so candidates of one token add nothing.

    Args:
        sequences: Virtual ids after the prefix; may be empty only where it has no candidates.
        candidates: For each sequence its candidates; none where only keys and values are wanted.
    """
    ids: list[int] = []
    parents: list[int] = []
    children: dict[tuple[int, int], int] = {}
    reads: list[tuple[int, int, int, int]] = []

    def walk(node: int, tokens: Ids) -> int:
        for token in tokens:
            child = children.get((node, token))
            if child is None:
                child = children[node, token] = len(ids)
                ids.append(token)
                parents.append(node)
            node = child
        return node

    for s, (sequence, continuations) in enumerate(zip(sequences, candidates, strict=True)):
        end = walk(-1, sequence)
        for c, continuation in enumerate(continuations):
            node = end
            for i, target in enumerate(continuation):
                if node < 0:
                    raise ValueError("a sequence with candidates needs a token to read them from")
                reads.append((node, target, s, c))
                if i + 1 < len(continuation):
                    node = walk(node, (target,))
    return _flatten(ids, parents, reads)


def _flatten(ids: list[int], parents: list[int], reads: list[tuple[int, int, int, int]]) -> Tree:
    size = len(ids)
    depths = np.zeros(size, dtype=np.int64)
    ancestors = np.eye(size, dtype=bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            depths[node] = depths[parent] + 1
            ancestors[node] |= ancestors[parent]
    nodes, targets, sequences, candidates = np.array(reads, dtype=np.int64).reshape(-1, 4).T.copy()
    return Tree(
        np.array(ids, dtype=np.int64),
        depths,
        ancestors,
        nodes,
        targets,
        sequences,
        candidates,
    )


def lay_out(rows: Sequence[PackedRow], n_prefix: int) -> Pass:
    """The arrays of one pass over `rows`, the prefixes padded on the right to `n_prefix` tokens."""
    n_new = max(len(row.tree) for row in rows)
    ids = np.zeros((len(rows), n_new), dtype=np.int64)
    positions = np.zeros((len(rows), n_new), dtype=np.int64)
    attends = np.zeros((len(rows), n_new, n_prefix + n_new), dtype=bool)
    attends[:, np.arange(n_new), n_prefix + np.arange(n_new)] = True
    for b, row in enumerate(rows):
        size = len(row.tree)
        ids[b, :size] = row.tree.ids
        positions[b, :size] = row.prefix_length + row.tree.depths
        attends[b, :size, : row.prefix_length] = True
        attends[b, :size, n_prefix : n_prefix + size] = row.tree.ancestors
    places = np.concatenate([b * n_new + row.tree.read_nodes for b, row in enumerate(rows)])
    nodes, read_nodes = np.unique(places, return_inverse=True)
    return Pass(
        ids,
        positions,
        attends,
        nodes,
        read_nodes,
        np.concatenate([row.tree.read_targets for row in rows]),
        np.concatenate([row.outputs[row.tree.read_sequences] for row in rows]),
        np.concatenate([row.tree.read_candidates for row in rows]),
    )


def fill(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Pack items into bins of `capacity` tokens, first fit by falling length.

    An item longer than the capacity gets a bin of its own. Returns the items' indices by bin.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = next((b for b, free in enumerate(room) if free >= lengths[item]), None)
        if place is None:
            bins.append([])
            room.append(capacity)
            place = len(bins) - 1
        bins[place].append(item)
        room[place] -= lengths[item]
    return bins


def batch(rows: Sequence[PackedRow], n_tokens: int, n_prefix: int) -> list[list[PackedRow]]:
    """Group rows into passes, alike rows together.

    Rows of a pass differ by an eighth in length at the most, or by eight tokens: the bucket that
    bounds padding.

    Args:
        rows: What to group.
        n_tokens: New tokens that a pass may have, padding included; a larger row is one by itself.
        n_prefix: The same for the tokens of all its prefixes.
    """
    ordered = sorted(rows, key=lambda row: (len(row.tree), row.prefix_length))
    passes: list[list[PackedRow]] = []
    widest = longest = 0
    for row in reversed(ordered):  # longest first, so a pass's first row sets its width
        n_rows = len(passes[-1]) + 1 if passes else 1
        longest = max(longest, row.prefix_length)
        alike = len(row.tree) >= widest - max(8, widest // 8)
        if passes and alike and widest * n_rows <= n_tokens and longest * n_rows <= n_prefix:
            passes[-1].append(row)
        else:
            passes.append([row])
            widest, longest = len(row.tree), row.prefix_length
    return passes
