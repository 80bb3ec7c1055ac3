from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tiny import HIDDEN

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length, SoftPrompt, TokenPrompt
from rlprompt.search.space import SoftSpace, TokenSpace
from rlprompt.search.vocabulary import typable_tokens


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class TestTokenSpace:
    def test_ids_are_kept_sorted_and_once(self) -> None:
        assert TokenSpace(2, np.array([9, 3, 9, 5])).allowed.tolist() == [3, 5, 9]

    @given(
        length=st.integers(1, 8),
        allowed=st.sets(st.integers(0, 10**5), min_size=1, max_size=20),
        seed=st.integers(0, 100),
    )
    def test_samples_lie_in_it_and_hang_on_the_seed(
        self, length: int, allowed: set[int], seed: int
    ) -> None:
        space = TokenSpace(length, np.array(list(allowed)))
        prompts = [space.sample(generator) for generator in (rng(seed), rng(seed))]
        assert prompts[0] == prompts[1]
        assert len(prompts[0]) == length
        assert set(prompts[0].ids) <= allowed
        assert space.contains(prompts[0])

    def test_samples_are_uniform(self) -> None:
        """A right sampler fails with probability 0.001 over seeds; the seed is fixed."""
        space, generator = TokenSpace(5, np.array([3, 5, 9, 1000])), rng(7)
        drawn = np.array([space.sample(generator).ids for _ in range(2000)])
        for position in drawn.T:
            counts = [int((position == token).sum()) for token in space.allowed]
            assert stats.chisquare(counts).pvalue > 0.001 / 5

    def test_what_lies_outside(self) -> None:
        space = TokenSpace(2, np.array([3, 5]))
        assert space.contains(TokenPrompt((3, 3)))
        assert not space.contains(TokenPrompt((3, 4)))
        assert not space.contains(TokenPrompt((3,)))
        assert not space.contains(SoftPrompt(np.zeros((2, HIDDEN))))

    def test_a_word_bans_each_way_to_spell_it(self, real_tokenizer: FrozenLM) -> None:
        free = TokenSpace.from_lm(real_tokenizer, 3)
        space = TokenSpace.from_lm(real_tokenizer, 3, banned=[" Great ", "terrible"])
        gone = {real_tokenizer.decode([i]) for i in np.setdiff1d(free.allowed, space.allowed)}
        assert {" great", "great", " Great", "Great", " terrible"} <= gone
        assert {text.strip().casefold() for text in gone} == {"great", "terrible"}
        assert set(real_tokenizer.encode(" greater")) <= set(space.allowed.tolist())

    @pytest.mark.parametrize("kind", [int, np.int64])
    def test_an_id_bans_itself(self, lm: FrozenLM, kind: Any) -> None:
        free = TokenSpace.from_lm(lm, 3)
        space = TokenSpace.from_lm(lm, 3, banned=[kind(free.allowed[4])])
        assert np.setdiff1d(free.allowed, space.allowed).tolist() == [free.allowed[4]]

    def test_a_word_that_no_token_spells_is_told(
        self, lm: FrozenLM, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, logger="rlprompt"):
            space = TokenSpace.from_lm(lm, 3, banned=["good", "wonderful"])
        assert "no single token of tiny-llama spells 'wonderful'" in caplog.text
        assert "'good'" not in caplog.text
        assert len(space.allowed) == len(TokenSpace.from_lm(lm, 3).allowed) - 1

    def test_an_exact_length_draws_as_ever(self) -> None:
        space = TokenSpace(4, np.arange(100, 200))
        assert (space.shortest, space.varies) == (4, False)
        drawn = [space.sample(generator).ids for generator in [rng(7)] for _ in range(3)]
        generator = rng(7)
        assert drawn == [tuple(generator.choice(space.allowed, 4).tolist()) for _ in range(3)]

    def test_lengths_of_a_range_are_as_likely_as_each_other(self) -> None:
        """A right sampler fails with probability 0.001 over seeds; the seed is fixed."""
        space, generator = TokenSpace(5, np.array([3, 5, 9]), shortest=2), rng(7)
        drawn = [space.sample(generator) for _ in range(2000)]
        assert all(map(space.contains, drawn))
        counts = np.bincount([len(prompt) for prompt in drawn])
        assert counts[:2].tolist() == [0, 0]
        assert stats.chisquare(counts[2:]).pvalue > 0.001

    def test_what_lies_outside_a_range(self, lm: FrozenLM) -> None:
        space = TokenSpace.from_lm(lm, Length(4, at_least=2))
        token = int(space.allowed[0])
        inside = [space.contains(TokenPrompt([token] * n)) for n in range(6)]
        assert inside == [False, False, True, True, True, False]
        assert (space.length, space.shortest, space.varies) == (4, 2, True)

    def test_everything_is_each_prompt_once(self) -> None:
        found = [prompt.ids for prompt in TokenSpace(2, np.array([5, 3]), shortest=1).everything()]
        assert found == [(3,), (5,), (3, 3), (3, 5), (5, 3), (5, 5)]

    def test_a_shortest_length_is_one_of_the_range(self) -> None:
        with pytest.raises(ValueError, match="no prompt has at least 3 and at most 2 tokens"):
            TokenSpace(2, np.array([1]), shortest=3)
        with pytest.raises(ValueError, match="one token or more, got length -1"):
            TokenSpace(2, np.array([1]), shortest=-1)

    @pytest.mark.parametrize("length", [0, -2])
    def test_a_prompt_has_a_token_at_least(self, length: int) -> None:
        with pytest.raises(ValueError, match=f"one token or more, got length {length}"):
            TokenSpace(length, np.array([1]))

    def test_something_is_allowed(self, lm: FrozenLM) -> None:
        with pytest.raises(ValueError, match="no token is allowed; ban less"):
            TokenSpace.from_lm(lm, 3, banned=range(1000))


class TestSoftSpace:
    def test_it_starts_from_rows_of_the_vocabulary(self, lm: FrozenLM) -> None:
        space = SoftSpace.from_lm(lm, 5, rng())
        table = lm.embeddings()
        assert space.start.shape == (5, HIDDEN)
        rows = [np.flatnonzero((table == vector).all(axis=1)) for vector in space.start]
        typable = typable_tokens(lm)
        assert all(len(row) and row[0] in typable for row in rows)
        assert space.scale == pytest.approx(table.std())
        assert np.array_equal(space.start, SoftSpace.from_lm(lm, 5, rng()).start)
        assert not np.array_equal(space.start, SoftSpace.from_lm(lm, 5, rng(1)).start)

    def test_of_a_range_it_takes_the_longest_length(self, lm: FrozenLM) -> None:
        space = SoftSpace.from_lm(lm, Length(5, at_least=2), rng())
        assert np.array_equal(space.start, SoftSpace.from_lm(lm, 5, rng()).start)

    def test_zero_is_the_start(self, lm: FrozenLM) -> None:
        full = SoftSpace.from_lm(lm, 3, rng())
        for space in (full, full.subspace(4, rng()), full.stepwise(4, rng())):
            assert space.prompt(np.zeros(space.dimension)) == SoftPrompt(full.start)

    def test_by_hand_without_a_basis(self) -> None:
        space = SoftSpace(np.array([[1, 2], [3, 4]], dtype=np.float32), scale=0.5)
        moved = space.prompt(np.array([2.0, 0.0, 0.0, -4.0]))
        assert moved.vectors.tolist() == [[2, 2], [3, 2]]
        assert (space.length, space.dimension, space.step_dimension) == (2, 4, 2)

    def test_by_hand_with_one_subspace(self) -> None:
        basis = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], dtype=np.float32)
        space = SoftSpace(np.ones((2, 2), dtype=np.float32), 9.0, basis)
        assert space.prompt(np.array([2.0, 3.0])).vectors.tolist() == [[3, 4], [6, 1]]
        assert space.dimension == 2
        with pytest.raises(ValueError, match="has no steps; use `stepwise`"):
            _ = space.step_dimension

    def test_by_hand_with_a_subspace_a_step(self) -> None:
        basis = np.array([[[1], [2]], [[3], [4]]], dtype=np.float32)  # two steps, one dimension
        space = SoftSpace(np.zeros((2, 2), dtype=np.float32), 9.0, basis)
        assert space.prompt(np.array([1.0, 10.0])).vectors.tolist() == [[1, 2], [30, 40]]
        assert (space.dimension, space.step_dimension) == (2, 1)

    def test_coordinates_come_in_any_shape_of_their_size(self, lm: FrozenLM) -> None:
        space = SoftSpace.from_lm(lm, 3, rng()).stepwise(4, rng())
        z = rng().standard_normal(12)
        assert space.prompt(z) == space.prompt(z.reshape(3, 4)) == space.prompt(z.reshape(1, 12))
        with pytest.raises(ValueError, match="reshape"):
            space.prompt(np.zeros(11))

    def test_shapes(self, lm: FrozenLM) -> None:
        full = SoftSpace.from_lm(lm, 5, rng())
        joint, stepwise = full.subspace(8, rng()), full.stepwise(8, rng())
        assert (full.dimension, full.step_dimension) == (5 * HIDDEN, HIDDEN)
        assert joint.basis is not None
        assert joint.basis.shape == (5 * HIDDEN, 8)
        assert joint.dimension == 8
        assert stepwise.basis is not None
        assert stepwise.basis.shape == (5, HIDDEN, 8)
        assert (stepwise.dimension, stepwise.step_dimension) == (40, 8)
        assert all(space.length == 5 for space in (full, joint, stepwise))

    def test_the_scale_rule_by_hand(self) -> None:
        """std = alpha * std(embeddings) / (sqrt(d) * sigma) = 2 * 0.1 / (sqrt(16) * 0.5) = 0.1.

        Of 160,000 numbers the sample's standard deviation is off by 2 % with probability 1e-28.
        """
        space = SoftSpace(np.zeros((10, 1000), dtype=np.float32), scale=0.1)
        basis = space.stepwise(16, rng(), sigma=0.5, alpha=2.0).basis
        assert basis is not None
        assert basis.std() == pytest.approx(0.1, rel=0.02)
        assert abs(basis.mean()) < 0.002

    @pytest.mark.parametrize(
        ("form", "sigma", "alpha"),
        [
            ("full", 1.0, 1.0),  # no basis: the unit of z is one spread
            ("subspace", 1.0, 1.0),
            ("subspace", 1.0, 0.5),
            ("stepwise", 1.0, 1.0),
            ("stepwise", 0.2, 0.2),
            ("stepwise", 3.0, 0.5),
        ],
    )
    def test_a_step_of_sigma_moves_a_prompt_by_the_spread_of_embeddings(
        self, form: str, sigma: float, alpha: float
    ) -> None:
        """Given z of d = 400 numbers, Az has independent entries of variance |z|^2 / d.

        |z| / sqrt(d) is off by 15 % with probability 2e-5 (4.2 of its standard deviations, 1 /
        sqrt(2d) = 3.5 %), the spread of 20,000 entries adds 0.5 %. The seed is fixed.
        """
        space = SoftSpace(np.zeros((10, 2000), dtype=np.float32), scale=0.13)
        if form == "subspace":
            space = space.subspace(400, rng(1), alpha=alpha)
        elif form == "stepwise":
            space = space.stepwise(400, rng(1), sigma=sigma, alpha=alpha)
        z = sigma * rng(2).standard_normal(space.dimension)
        assert space.prompt(z).vectors.std() == pytest.approx(alpha * 0.13, rel=0.15)

    def test_a_subspace_hangs_on_the_seed(self, lm: FrozenLM) -> None:
        full = SoftSpace.from_lm(lm, 2, rng())
        bases = [full.subspace(4, rng(seed)).basis for seed in (0, 0, 1)]
        assert np.array_equal(*bases[:2])  # type: ignore[arg-type]
        assert not np.array_equal(*bases[1:])  # type: ignore[arg-type]
        assert full.basis is None

    def test_what_lies_in_it(self, lm: FrozenLM) -> None:
        space = SoftSpace.from_lm(lm, 2, rng())
        assert space.contains(SoftPrompt(np.zeros((2, HIDDEN))))
        assert not space.contains(SoftPrompt(np.zeros((3, HIDDEN))))
        assert not space.contains(TokenPrompt((1, 2)))

    def test_mistakes(self, lm: FrozenLM) -> None:
        space = SoftSpace.from_lm(lm, 2, rng())
        with pytest.raises(ValueError, match="one token or more, got length 0"):
            SoftSpace.from_lm(lm, 0, rng())
        with pytest.raises(ValueError, match=r"start has shape \(length, hidden\), got \(3,\)"):
            SoftSpace(np.zeros(3, dtype=np.float32), 1.0)
        with pytest.raises(ValueError, match="one dimension or more, got 0"):
            space.subspace(0, rng())
        with pytest.raises(ValueError, match="above 0, got 0"):
            space.stepwise(4, rng(), sigma=0.0)
