"""A categorical distribution for each position: its estimator, and whether it searches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import N_EXAMPLES, Noted, searched
from tiny import tiny_lm

from rlprompt.agents.bdpl import BDPL, Categoricals, above_the_others
from rlprompt.agents.random_search import RandomSearch
from rlprompt.prompt import TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.objective import BudgetExhausted, Objective
from rlprompt.search.pools import first_words
from rlprompt.search.space import TokenSpace
from rlprompt.search.vocabulary import common_words

RNG = np.random.default_rng


def policy(words: Sequence[int], length: int = 1, shortest: int = 0, **space: Any) -> Categoricals:
    return Categoricals(TokenSpace(length, np.arange(100), shortest, **space), words, 0.1)


def chances(logits: torch.Tensor) -> list[float]:
    found: list[float] = logits.detach().softmax(-1).tolist()
    return found


def test_a_step_is_the_one_worked_out_by_hand() -> None:
    """Three prompts of the tokens 7, 8 and 8 earn 1, 2 and 6; 9 is not drawn.

    Against the mean of the others they earn -3, -1.5 and 4.5. All tokens have a chance of 1/3, so
    the gradient at 7 is (-3 x 2/3 - (-1.5 + 4.5) / 3) / 3 = -1, at 8 it is 1, and at 9 it is 0.
    The first step of Adam has the length of the learning rate, 0.1, whatever the gradient's.
    """
    made = policy([7, 8, 9])
    made.learn([TokenPrompt((i,)) for i in (7, 8, 8)], np.array([1.0, 2.0, 6.0]))
    assert made.logits.grad is not None
    assert (-made.logits.grad[0]).tolist() == pytest.approx([-1, 1, 0])
    assert made.logits[0].tolist() == pytest.approx([-0.1 - np.log(3), 0.1 - np.log(3), -np.log(3)])
    assert chances(made.logits[0]) == pytest.approx([0.3006, 0.3672, 0.3322], abs=1e-4)
    assert made.likeliest() == TokenPrompt((8,))


def test_it_is_the_papers_estimator() -> None:
    """1 / (K - 1) times the sum of (reward - mean) x gradient of the log-probability."""
    rewards, drawn = RNG(0).normal(size=5), RNG(1).integers(3, size=5)
    made = policy([7, 8, 9])
    made.learn([TokenPrompt((7 + i,)) for i in drawn], rewards)
    scores = np.eye(3)[drawn] - 1 / 3
    expected = (rewards - rewards.mean()) @ scores / 4
    assert made.logits.grad is not None
    np.testing.assert_allclose(-made.logits.grad[0], expected, rtol=1e-9)
    np.testing.assert_allclose(above_the_others(rewards) / 5, (rewards - rewards.mean()) / 4)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_what_was_not_drawn_stays_where_it_is_whatever_the_rewards_scale(scale: float) -> None:
    made = policy(range(50), length=2)
    made.learn([TokenPrompt((i, i + 1)) for i in range(7)], scale * RNG(0).normal(size=7))
    before = -np.log(50)
    moved = np.abs(made.logits.detach().numpy() - before)
    assert moved[0, 7:].max() < 1e-4
    assert moved[0, :7].min() > 0.09


def test_where_lengths_differ_they_are_learnt_by_themselves() -> None:
    """The long ones earn less, whatever they are of; the better of the long ones is 5, 7."""
    made = policy([5, 6, 7], length=2, shortest=1)
    prompts = [TokenPrompt(ids) for ids in ((5,), (6,), (5, 6), (5, 7))]
    made.learn(prompts, np.array([10.0, 10.0, 1.0, 3.0]))
    short, long = chances(made.lengths)
    assert short > 0.5 > long
    five, six, seven = chances(made.logits[1])
    assert seven > five > six
    assert made.likeliest().ids in ((5,), (6,))
    lengths = Counter(len(prompt) for prompt in made.draw(4000, RNG(0)))
    assert lengths[1] / 4000 == pytest.approx(short, abs=0.03)


def test_draws_follow_the_distribution_of_each_position() -> None:
    made = policy([7, 8], length=2)
    with torch.no_grad():
        made.logits.copy_(torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log())
    found = Counter(prompt.ids for prompt in made.draw(10_000, RNG(0)))
    shares = {ids: count / 10_000 for ids, count in found.items()}
    expected = {(7, 7): 0.18, (7, 8): 0.72, (8, 7): 0.02, (8, 8): 0.08}
    assert shares == pytest.approx(expected, abs=0.02)
    made.flatten()
    # The square roots, normalised: 3 to 1 and 1 to 2.
    assert chances(made.logits) == [pytest.approx([0.75, 0.25]), pytest.approx([1 / 3, 2 / 3])]


def test_half_is_on_the_tokens_of_the_starts_where_they_reach() -> None:
    made = policy([7, 8], length=2, shortest=1, starts=(TokenPrompt((9,)), TokenPrompt((7,))))
    assert made.words == [7, 8, 9]
    assert chances(made.logits[0]) == pytest.approx([1 / 6 + 1 / 4, 1 / 6, 1 / 6 + 1 / 4])
    assert chances(made.logits[1]) == pytest.approx([1 / 3] * 3)
    assert made.n_prompts == 3 + 9


def test_the_first_words_are_the_spaces_own_order_or_common_ones_or_what_there_is() -> None:
    lm = tiny_lm()
    space = TokenSpace.from_lm(lm, 2)
    common = common_words(lm, space.allowed)
    assert set(first_words(lm, space, 3, RNG(0))) == set(common[:3])
    more = first_words(lm, space, len(common) + 5, RNG(0))
    assert len(more) == len(set(more)) == len(common) + 5
    assert set(more[: len(common)]) == set(common)
    ranked = TokenSpace(2, np.array([9, 5, 7]), ranked=(7, 9, 5))
    assert set(first_words(lm, ranked, 2, RNG(0))) == {7, 9}
    assert set(first_words(lm, ranked, 8, RNG(0))) == {5, 7, 9}


def test_a_prompt_is_paid_once_and_a_small_space_is_scored_out() -> None:
    task = Noted()
    space = TokenSpace(2, np.array([10, 11, 12]), shortest=1)
    BDPL(samples=4).run(Objective(task, tiny_lm(), Budget(1000)), space, RNG(0))
    assert len(task.asked) == len(set(task.asked)) == 3 + 3**2


@pytest.mark.parametrize("n_prompts", [1, 2, 9, 24])
def test_the_likeliest_prompt_is_scored_before_the_budget_ends(
    n_prompts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    likeliest: list[TokenPrompt] = []
    own = Categoricals.likeliest

    def noted(self: Categoricals) -> TokenPrompt:
        likeliest.append(own(self))
        return likeliest[-1]

    monkeypatch.setattr(Categoricals, "likeliest", noted)
    task = Noted()
    with pytest.raises(BudgetExhausted):
        BDPL().run(
            Objective(task, tiny_lm(), Budget(n_prompts * N_EXAMPLES)),
            TokenSpace.from_lm(tiny_lm(), 5),
            RNG(0),
        )
    assert len(task.asked) == n_prompts
    assert likeliest[-1] in task.asked


def test_it_learns_token_by_token_what_random_draws_find_by_luck() -> None:
    """One token in ten is hidden, and each counts by itself: what independent positions can say."""
    for seed in range(2):
        learnt, drawn = searched(BDPL(), seed), searched(RandomSearch(), seed)
        assert learnt.rows == drawn.rows
        assert learnt.trace[-1][1] > drawn.trace[-1][1] + 0.1
        late = [np.mean([reward for _, reward in one.points[-50:]]) for one in (learnt, drawn)]
        assert late[0] > late[1] + 0.2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"words": 1}, "words is 2 or more, got 1"),
        ({"samples": 1}, "samples is 2 or more, got 1"),
        ({"learning_rate": 0.0}, "learning_rate is above 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate is above 0, got nan"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BDPL(**settings)
