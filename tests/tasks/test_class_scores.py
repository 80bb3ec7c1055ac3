from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from rlprompt.models.noise import SLOPES, slope
from rlprompt.tasks.class_scores import (
    REWARDS,
    ClassReward,
    accuracy,
    answered,
    cross_entropy,
    gap,
    has_slope,
    hinge,
    margins,
)

# Of the tasks' rewards the one that is made of log-likelihoods and not of classes.
WRITTEN = "log_likelihood"
DIFFERENTIABLE = [REWARDS[name] for name in ("gap", "cross_entropy", "hinge")]


def logs(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def value(function: ClassReward, loglik: Tensor, label: int) -> float:
    return float(function(loglik, torch.tensor([label]))[0])


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    n, n_classes = draw(st.integers(1, 4)), draw(st.integers(2, 5))
    numbers = draw(arrays("float64", (n, n_classes), elements=st.floats(-50, 0)))
    labels = draw(st.lists(st.integers(0, n_classes - 1), min_size=n, max_size=n))
    return torch.tensor(numbers).log_softmax(-1), torch.tensor(labels)


class TestByHand:
    """The numbers were worked out on paper from the papers' formulas."""

    @pytest.mark.parametrize(
        ("probabilities", "label", "expected"),
        [
            ((0.7, 0.3), 0, 200 * 0.4),  # right
            ((0.7, 0.3), 1, 180 * -0.4),  # wrong
            ((0.5, 0.5), 0, 0.0),  # a tie is worth nothing, for either label
            ((0.5, 0.5), 1, 0.0),
            ((0.5, 0.3, 0.2), 0, 200 * 0.2),  # against the best rival, not their sum
            ((0.5, 0.3, 0.2), 1, 180 * -0.2),
            ((0.5, 0.3, 0.2), 2, 180 * -0.3),
            ((0.4, 0.4, 0.2), 0, 0.0),  # the rival is found by its index, not its value
            ((0.4, 0.4, 0.2), 1, 0.0),
            ((0.4, 0.4, 0.2), 2, 180 * -0.2),
            ((0.25, 0.25, 0.25, 0.25), 3, 0.0),
            ((1.0, 0.0), 0, 200.0),
            ((1.0, 0.0), 1, -180.0),
        ],
    )
    def test_gap(self, probabilities: tuple[float, ...], label: int, expected: float) -> None:
        assert value(gap, logs(*probabilities), label) == pytest.approx(expected, abs=1e-9)

    @pytest.mark.parametrize(
        ("probabilities", "label", "expected"),
        [
            ((0.7, 0.3), 0, -0.356674943938732),
            ((0.7, 0.3), 1, -1.203972804325936),
            ((0.25, 0.25, 0.5), 2, -0.693147180559945),
        ],
    )
    def test_cross_entropy(
        self, probabilities: tuple[float, ...], label: int, expected: float
    ) -> None:
        assert value(cross_entropy, logs(*probabilities), label) == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("loglik", "label", "expected"),
        [
            ((-1.0, -4.0), 0, 0.0),  # 3 nats ahead, 2 are enough
            ((-1.0, -3.0), 0, 0.0),
            ((-1.0, -1.5), 0, -1.5),  # half a nat ahead: 2 - 0.5
            ((-1.0, -1.0), 0, -2.0),  # a tie
            ((-1.0, -4.0), 1, -5.0),  # 3 nats behind: 2 + 3
            ((-1.0, -2.0, -2.5), 0, -1.5),  # summed over rivals: (2 - 1) + (2 - 1.5)
            ((-1.0, -2.0, -9.0), 1, -3.0),  # (2 + 1) + 0
        ],
    )
    def test_hinge(self, loglik: tuple[float, ...], label: int, expected: float) -> None:
        assert value(hinge, torch.tensor([loglik]).double(), label) == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("probabilities", "label", "expected"),
        [((0.7, 0.3), 0, 1.0), ((0.7, 0.3), 1, 0.0), ((0.5, 0.5), 0, 0.0), ((0.5, 0.5), 1, 0.0)],
    )
    def test_accuracy(self, probabilities: tuple[float, ...], label: int, expected: float) -> None:
        assert value(accuracy, logs(*probabilities), label) == expected

    def test_what_is_answered_beats_every_other(self) -> None:
        values = torch.tensor([[3.0, 1.0, 2.0], [5.0, 5.0, 1.0], [1.0, 5.0, 5.0], [0.0, 0.0, 2.0]])
        assert answered(values).tolist() == [0, -1, -1, 2]
        for label in range(3):
            right = accuracy(values, torch.full((4,), label))
            assert right.bool().tolist() == (answered(values) == label).tolist()

    def test_margins(self) -> None:
        values = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [5.0, 5.0, 1.0]])
        assert margins(values, torch.tensor([0, 1, 1])).tolist() == [1.0, -2.0, 0.0]


class TestEveryReward:
    @given(batches())
    def test_it_stays_in_its_range(self, batch: tuple[Tensor, Tensor]) -> None:
        ranges = {
            "gap": (-180, 200),
            "cross_entropy": (-math.inf, 0),
            "hinge": (-math.inf, 0),
            "accuracy": (0, 1),
        }
        assert ranges.keys() == REWARDS.keys()
        for name, function in REWARDS.items():
            rewards = function(*batch)
            low, high = ranges[name]
            assert rewards.shape == batch[1].shape
            assert rewards.dtype == torch.float64
            assert bool(((rewards >= low) & (rewards <= high)).all())

    @given(batches())
    def test_gap_accuracy_and_margin_agree_on_what_is_correct(
        self, batch: tuple[Tensor, Tensor]
    ) -> None:
        assert torch.equal(gap(*batch) > 0, accuracy(*batch) == 1)

    @given(batches(), st.floats(-20, 20))
    def test_only_differences_between_candidates_count(
        self, batch: tuple[Tensor, Tensor], shift: float
    ) -> None:
        for function in DIFFERENTIABLE:
            torch.testing.assert_close(
                function(batch[0] + shift, batch[1]), function(*batch), atol=1e-9, rtol=1e-9
            )

    @pytest.mark.parametrize("function", DIFFERENTIABLE)
    @pytest.mark.parametrize("n_classes", [2, 3, 5])
    def test_its_gradient_is_that_of_finite_differences(
        self, function: ClassReward, n_classes: int
    ) -> None:
        generator = torch.Generator().manual_seed(n_classes)
        noise = torch.randn(8, n_classes, generator=generator, dtype=torch.float64)
        loglik = (2 * noise).log_softmax(-1).requires_grad_()
        labels = torch.arange(8) % n_classes
        correct = accuracy(loglik, labels)
        assert 0 < correct.sum() < 8  # both branches are there
        assert torch.autograd.gradcheck(lambda x: function(x, labels), (loglik,), eps=1e-6)

    @pytest.mark.parametrize("function", DIFFERENTIABLE)
    def test_a_step_up_its_gradient_helps_the_label(self, function: ClassReward) -> None:
        loglik = logs(0.4, 0.35, 0.25).requires_grad_()
        (gradient,) = torch.autograd.grad(function(loglik, torch.tensor([1])).sum(), loglik)
        assert gradient[0, 1] > 0
        assert gradient[0, 0] < 0

    @pytest.mark.parametrize("function", REWARDS.values())
    @pytest.mark.parametrize("label", [0, 1])
    def test_a_broken_log_likelihood_cannot_pass_for_a_reward(
        self, function: ClassReward, label: int
    ) -> None:
        assert math.isnan(value(function, torch.tensor([[-1.0, math.nan]]), label))

    @pytest.mark.parametrize("function", REWARDS.values())
    def test_its_arguments_stay_as_they_are(self, function: Any) -> None:
        loglik, labels = logs(0.2, 0.8), torch.tensor([0])
        before = loglik.clone()
        function(loglik, labels)
        assert torch.equal(loglik, before)
        assert labels.tolist() == [0]


def test_every_reward_that_is_no_answer_says_what_noise_makes_of_it() -> None:
    assert set(SLOPES) == {name for name in REWARDS if has_slope(name)} | {WRITTEN}


@pytest.mark.parametrize("name", [name for name in REWARDS if has_slope(name)])
@given(batch=batches(), size=st.floats(0.01, 1.0))
def test_noise_makes_no_more_of_a_reward_than_its_slope_says(
    name: str, batch: tuple[Tensor, Tensor], size: float
) -> None:
    loglik, labels = batch
    n_classes = loglik.shape[1]
    steep = slope(name, n_classes)
    assert steep is not None
    # The worst that noise can do: the label's score goes one way, and all rivals' the other.
    away = torch.full_like(loglik, size).scatter(1, labels[:, None], -size)
    change = (REWARDS[name](loglik + away, labels) - REWARDS[name](loglik, labels)).abs()
    assert float(change.max()) <= steep * size * (1 + 1e-6)
