from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprompt.models.memory import split_evenly
from rlprompt.models.packed.layout import PackedRow, Tree, batch, fill, grow, lay_out
from rlprompt.types import Candidates, Ids

ids = st.lists(st.integers(0, 3), min_size=1, max_size=6).map(tuple)
answers = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple), min_size=1, max_size=3
).map(tuple)
forests = st.lists(st.tuples(ids, answers), min_size=1, max_size=6)


def tree_of(forest: list[tuple[Ids, Candidates]]) -> Tree:
    return grow(
        [sequence for sequence, _ in forest], [continuations for _, continuations in forest]
    )


def seen_by(tree: Tree, node: int) -> Ids:
    """The text that a token ends, read off the mask, in the order of positions."""
    seen = np.flatnonzero(tree.ancestors[node])
    assert sorted(tree.depths[seen].tolist()) == list(range(len(seen)))  # one at each position
    return tuple(int(tree.ids[i]) for i in sorted(seen, key=lambda i: tree.depths[i]))


@given(forests)
def test_every_read_sees_its_own_text_and_nothing_else(
    forest: list[tuple[Ids, Candidates]],
) -> None:
    tree, asked = tree_of(forest), set()
    for node, target, s, c in zip(
        tree.read_nodes, tree.read_targets, tree.read_sequences, tree.read_candidates, strict=True
    ):
        sequence, candidate = forest[s][0], forest[s][1][c]
        n_fed = len(seen_by(tree, node)) - len(sequence)
        assert seen_by(tree, node) == sequence + candidate[:n_fed]
        assert target == candidate[n_fed]
        asked.add((s, c, n_fed))
    expected = {
        (s, c, i)
        for s, (_, candidates) in enumerate(forest)
        for c, candidate in enumerate(candidates)
        for i in range(len(candidate))
    }
    assert asked == expected  # every one, once
    assert len(tree.read_nodes) == len(expected)


@given(forests)
def test_nothing_shared_is_there_twice(forest: list[tuple[Ids, Candidates]]) -> None:
    tree = tree_of(forest)
    fed = [s + c[:-1] for s, candidates in forest for c in candidates]
    beginnings = {text[:n] for text in fed for n in range(1, len(text) + 1)}
    assert len(tree) == len(beginnings)
    assert {seen_by(tree, node) for node in range(len(tree))} == beginnings


@given(st.lists(st.tuples(forests, st.integers(0, 5)), min_size=1, max_size=4), st.integers(0, 3))
def test_a_pass_keeps_rows_apart(
    rows: list[tuple[list[tuple[Ids, Candidates]], int]], n_more: int
) -> None:
    n_prefix = max(length for _, length in rows) + n_more
    made, n_outputs = [], 0
    for i, (forest, length) in enumerate(rows):
        outputs = np.arange(n_outputs, n_outputs + len(forest))
        made.append(PackedRow(i, length, tree_of(forest), outputs))
        n_outputs += len(forest)
    layout = lay_out(made, n_prefix)
    n_new = layout.ids.shape[1]
    assert layout.attends.any(-1).all()  # each softmax is defined
    for b, row in enumerate(made):
        size = len(row.tree)
        assert (layout.ids[b, :size] == row.tree.ids).all()
        assert (layout.positions[b, :size] == row.prefix_length + row.tree.depths).all()
        attends = layout.attends[b, :size]
        assert attends[:, : row.prefix_length].all()
        assert not attends[:, row.prefix_length : n_prefix].any()
        assert (attends[:, n_prefix : n_prefix + size] == row.tree.ancestors).all()
        assert not attends[:, n_prefix + size :].any()
    assert (np.diff(layout.nodes) > 0).all()
    places = layout.nodes[layout.read_nodes]
    assert (places % n_new < [len(made[b].tree) for b in places // n_new]).all()
    assert set(layout.read_outputs.tolist()) == set(range(n_outputs))


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 40))
def test_fill_places_each_item_once_within_the_capacity(lengths: list[int], capacity: int) -> None:
    bins = fill(lengths, capacity)
    assert sorted(i for bin_ in bins for i in bin_) == list(range(len(lengths)))
    loads = [sum(lengths[i] for i in bin_) for bin_ in bins]
    assert all(load <= capacity or len(bin_) == 1 for load, bin_ in zip(loads, bins, strict=True))
    # First fit never leaves two bins that would go into one.
    assert sum(2 * load <= capacity for load in loads) <= 1


@given(st.integers(0, 1000), st.integers(1, 100))
def test_split_evenly_is_complete_and_even(count: int, most: int) -> None:
    parts = split_evenly(count, most)
    assert [i for part in parts for i in part] == list(range(count))
    assert len(parts) == -(-count // most)
    sizes = {len(part) for part in parts}
    assert not parts or max(sizes) <= most
    assert not parts or max(sizes) - min(sizes) <= 1


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 90)), min_size=1, max_size=40),
    st.integers(1, 300),
    st.integers(1, 900),
)
def test_passes_are_complete_small_and_little_padded(
    lengths: list[tuple[int, int]], n_tokens: int, n_prefix: int
) -> None:
    rows = [
        PackedRow(0, before, grow([tuple(range(length))], [((1,),)]), np.array([i]))
        for i, (length, before) in enumerate(lengths)
    ]
    passes = batch(rows, n_tokens, n_prefix)
    assert sorted(int(row.outputs[0]) for part in passes for row in part) == list(range(len(rows)))
    for part in passes:
        widths = [len(row.tree) for row in part]
        assert max(widths) * len(part) <= n_tokens or len(part) == 1
        assert max(row.prefix_length for row in part) * len(part) <= n_prefix or len(part) == 1
        assert max(widths) - min(widths) <= max(8, max(widths) // 8)


def test_equal_prompts_and_answers_cost_nothing() -> None:
    once = grow([(1, 2)], [((3,), (4, 5))])
    twice = grow([(1, 2), (1, 2)], [((3,), (4, 5))] * 2)
    assert twice.ids.tolist() == once.ids.tolist() == [1, 2, 4]
    assert twice.read_sequences.tolist() == [0, 0, 0, 1, 1, 1]


def test_an_answer_needs_a_token_to_be_read_from() -> None:
    with pytest.raises(ValueError, match="needs a token"):
        grow([()], [((1,),)])
    assert len(grow([()], [()])) == 0
