"""Whether a reward of classes measures a bias, and whether it foretells accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from broken_tasks import GoodTask
from films import films
from tiny import tiny_lm

from rlprompt.check.classes import check_classes, foresight, largest_class, rank_interval
from rlprompt.check.report import Finding
from rlprompt.check.task import check_task
from rlprompt.data.examples import Example, Splits
from rlprompt.tasks.base import Measured
from rlprompt.tasks.compression import CompressionTask

EXAMPLES = [Example({"text": str(i)}, ("neg", "pos")[i % 2]) for i in range(20)]
RNG = np.random.default_rng(0)
NOISE = RNG.normal(size=(16, 20))


def findings(
    answers: Sequence[Sequence[str]] | None,
    examples: Sequence[Example] = EXAMPLES,
    *,
    rewards: Any = NOISE,
    can_calibrate: bool = True,
) -> dict[str, Finding]:
    given = None if answers is None else tuple(map(tuple, answers))
    measured = Measured(rewards, (rewards > 0).astype(np.float64), given)
    found = check_classes(measured, examples, can_calibrate=can_calibrate)
    return {one.name: one for one in found}


def answering(n_pos: int) -> list[str]:
    return ["pos"] * n_pos + ["neg"] * (20 - n_pos)


class TestLargestClass:
    @staticmethod
    def splits(n_rare: int, n: int = 50) -> Splits:
        """Dev half and half, and a test with so many of the rare class."""

        def part(name: str, n_rare: int, n: int) -> tuple[Example, ...]:
            labels = ["fraud"] * n_rare + ["ok"] * (n - n_rare)
            return tuple(Example({"text": f"{name} {i}"}, one) for i, one in enumerate(labels))

        return Splits(part("a", 2, 4), part("b", 2, 4), part("c", n_rare, n))

    def test_what_it_would_score_is_told(self) -> None:
        found = largest_class(self.splits(1), "accuracy")
        assert found.status == "warn"
        assert found.text.startswith(
            "always answering `ok`, the largest class, has accuracy 0.500 on dev (2 of 4) and "
            "accuracy 0.980 on test (49 of 50). Accuracy says little"
        )

    def test_a_metric_that_weighs_classes_alike_is_no_warning(self) -> None:
        found = largest_class(self.splits(1), "balanced_accuracy")
        assert found.status == "pass"
        assert "accuracy 0.980, balanced_accuracy 0.500 on test (49 of 50)" in found.text

    def test_classes_that_are_as_common_are_no_warning(self) -> None:
        found = largest_class(self.splits(20), "accuracy")
        assert found.status == "pass"
        assert found.text.endswith("accuracy 0.600 on test (30 of 50)")

    def test_the_check_of_a_task_tells_it(self) -> None:
        report = check_task(films(splits=films().splits), tiny_lm(), every_example=False)
        assert "largest-class" in {finding.name for finding in report.findings}

    def test_a_leak_that_is_allowed_is_told_and_no_failure(self) -> None:
        part = films().splits
        splits = Splits(part.train, part.train, part.test, on_leak="allow")
        report = check_task(films(splits=splits), tiny_lm(), every_example=False)
        (found,) = [finding for finding in report.findings if finding.name == "splits"]
        assert found.status == "warn"
        assert found.text == (
            "dev is a copy of train: 6 of 6 texts are there as well, which on_leak: allow allows"
        )


class TestBias:
    def test_prompts_that_answer_one_class_are_counted(self) -> None:
        # Ten prompts with 19 or 20 of 20 (97.5 in 100 on average), one with all `neg`, five fair.
        rows = [answering(19 + i % 2) for i in range(10)] + [answering(0)] + [answering(10)] * 5
        found = findings(rows)["bias"]
        assert found.status == "warn"
        assert found.text == (
            "under 11 of 16 random prompts the model answers one class for 90 in 100 texts or "
            "more; under 10 of them it answers `pos` for 98 in 100, which is the label of 50. The "
            "reward mostly measures that bias: calibrate (calibration: batch)"
        )

    def test_a_task_that_cannot_is_not_told_to_calibrate(self) -> None:
        found = findings([answering(20)] * 16, can_calibrate=False)["bias"]
        assert found.text.endswith("measures that bias: look at the label words")

    def test_few_such_prompts_are_told_without_a_warning(self) -> None:
        found = findings([answering(20)] * 7 + [answering(11)] * 9)["bias"]
        assert found.status == "pass"
        assert "under 7 of 16" in found.text

    def test_none_such(self) -> None:
        found = findings([answering(17)] * 16)["bias"]
        assert found.status == "pass"
        assert found.text.startswith("no one of 16 random prompts")

    def test_a_class_that_is_common_is_rightly_answered(self) -> None:
        common = [replace(one, label="pos" if i < 16 else "neg") for i, one in enumerate(EXAMPLES)]
        assert findings([answering(20)] * 16, common)["bias"].status == "pass"
        assert findings([answering(0)] * 16, common)["bias"].status == "warn"

    def test_without_answers_there_is_nothing_to_say(self) -> None:
        assert "bias" not in findings(None)


class TestForesight:
    def test_noise_foretells_nothing(self) -> None:
        found = findings(None)["foresight"]
        assert found.status == "warn"
        assert "the reward on 10 train examples ranks 16 random prompts" in found.text
        assert "16 prompts are few" in found.text

    def test_prompts_that_differ_foretell(self) -> None:
        quality = np.linspace(-2, 2, 40)[:, None]
        rewards = quality + RNG.normal(size=(40, 20))
        found = findings(None, rewards=rewards)["foresight"]
        assert found.status == "pass"
        assert "are few" not in found.text

    def test_the_other_half_decides(self) -> None:
        """A reward that is right where it stands and nowhere else has no foresight."""
        # In each row another half is right; so what one half promises, the other does not hold.
        rights = np.stack([RNG.permutation([1.0] * 10 + [0.0] * 10) for _ in range(200)])
        found = foresight(rights, rights)
        assert found is not None
        assert found < -0.9

    def test_perfect_ranks_have_correlation_1(self) -> None:
        steps = np.repeat(np.arange(5.0)[:, None], 8, axis=1)
        assert foresight(steps, steps) == pytest.approx(1)

    def test_what_cannot_be_told_is_said(self) -> None:
        flat = findings(None, rewards=np.ones((16, 20)))["foresight"]
        assert "cannot be told" in flat.text
        tiny = findings(None, EXAMPLES[:3], rewards=NOISE[:, :3])["foresight"]
        assert tiny.text.startswith("16 prompts on 3 examples do not tell")

    def test_an_interval_worked_out_by_hand(self) -> None:
        # atanh 0.5 = 0.549306; 1.959964 sqrt(1.06 / 13) = 0.559667.
        low, high = rank_interval(0.5, 16)
        assert low == pytest.approx(np.tanh(-0.010361), abs=1e-5)
        assert high == pytest.approx(np.tanh(1.108973), abs=1e-5)
        assert rank_interval(1.0, 16)[1] <= 1

    def test_an_interval_holds_what_it_promises(self) -> None:
        """Of 1,000 samples with true rank correlation 0.48 (Pearson 0.5), 95 % within 4 sd."""
        from scipy.stats import spearmanr

        held = 0
        for _ in range(1000):
            x, y = RNG.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 16).T
            low, high = rank_interval(float(spearmanr(x, y).statistic), 16)
            held += low <= 6 / np.pi * np.arcsin(0.25) <= high
        assert held / 1000 > 0.95 - 4 * np.sqrt(0.95 * 0.05 / 1000)


def test_a_check_of_a_task_tells_both() -> None:
    def part(name: str) -> tuple[Example, ...]:
        return tuple(
            Example({"text": f"{name} film {i}"}, ("negative", "positive")[i % 2]) for i in range(8)
        )

    made = films(splits=Splits(part("train"), part("dev"), part("test")))
    names = [one.name for one in check_task(made, tiny_lm()).findings]
    assert {"bias", "foresight"} <= set(names)
    short = check_task(CompressionTask(made, "It was so", 0.1), tiny_lm())
    assert {"bias", "foresight"} <= {one.name for one in short.findings}
    other = check_task(GoodTask(), tiny_lm())  # which has no classes
    assert not {"bias", "foresight"} & {one.name for one in other.findings}
