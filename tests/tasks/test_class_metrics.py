"""Figures worked out by hand from the definitions of scikit-learn's user guide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from films import films
from tiny import tiny_lm

from rlprompt.prompt import TokenPrompt
from rlprompt.tasks.base import Measured
from rlprompt.tasks.class_metrics import NO_ANSWER, SET_METRICS, balanced_accuracy, macro_f1, mcc

# Ten texts, of which one class has one: (label, answer) as often as said.
LABELS = ["a"] * 6 + ["b"] * 3 + ["c"]
ANSWERS = [*"aaaaab", *"bba", "a"]


class TestFormulas:
    def test_no_answer_is_wrong_and_no_class(self) -> None:
        """One `yes` of two has none: its F1 is 2 / (2 + 1), that of `no` 1."""
        labels, answers = ["yes", "yes", "no", "no"], ["yes", NO_ANSWER, "no", "no"]
        assert balanced_accuracy(labels, answers) == 0.75
        assert macro_f1(labels, answers) == pytest.approx((2 / 3 + 1) / 2)
        # (3 4 - (1 2 + 2 2)) / sqrt((16 - (1 + 1 + 4)) (16 - (4 + 4)))
        assert mcc(labels, answers) == pytest.approx(6 / 80**0.5)
        assert macro_f1(labels, [NO_ANSWER] * 4) == 0

    def test_balanced_accuracy_is_the_mean_recall(self) -> None:
        assert balanced_accuracy(LABELS, ANSWERS) == pytest.approx((5 / 6 + 2 / 3 + 0) / 3)

    def test_macro_f1_is_the_mean_f1(self) -> None:
        """Of a: 5 right, 2 wrongly a, 1 missed; of b: 2, 1, 1; of c: 0, 0, 1."""
        f1 = [2 * 5 / (2 * 5 + 2 + 1), 2 * 2 / (2 * 2 + 1 + 1), 0]
        assert macro_f1(LABELS, ANSWERS) == pytest.approx(sum(f1) / 3)

    def test_mcc_of_two_classes_is_matthews(self) -> None:
        """(TP TN - FP FN) / sqrt((TP + FP)(TP + FN)(TN + FP)(TN + FN)) of 4, 3, 1, 2."""
        labels = ["yes"] * 6 + ["no"] * 4
        answers = ["yes"] * 4 + ["no"] * 2 + ["no"] * 3 + ["yes"]
        assert mcc(labels, answers) == pytest.approx((4 * 3 - 1 * 2) / (5 * 6 * 4 * 5) ** 0.5)

    def test_mcc_of_several_classes_is_gorodkins(self) -> None:
        """7 of 10 right; answers 7, 3, 0 and labels 6, 3, 1 a class."""
        above = 7 * 10 - (7 * 6 + 3 * 3 + 0 * 1)
        below = ((100 - (49 + 9)) * (100 - (36 + 9 + 1))) ** 0.5
        assert mcc(LABELS, ANSWERS) == pytest.approx(above / below)

    @pytest.mark.parametrize(
        ("answers", "expected"),
        [
            (LABELS, (1.0, 1.0, 1.0)),
            (["a"] * 10, (1 / 3, (2 * 6 / 16) / 3, 0.0)),
            # A class that is no label counts for F1 alone, as an answer.
            ([*["a"] * 6, *["b"] * 3, "d"], (2 / 3, 2 / 4, (90 - 45) / (54 * 54) ** 0.5)),
        ],
    )
    def test_edges(self, answers: Sequence[str], expected: tuple[float, ...]) -> None:
        found = tuple(metric(LABELS, answers) for metric in SET_METRICS.values())
        assert found == pytest.approx(expected)

    def test_they_are_scikit_learns(self) -> None:
        metrics = pytest.importorskip("sklearn.metrics")
        rng = np.random.default_rng(0)
        for n_classes in (2, 3, 5):
            labels, answers = rng.integers(n_classes, size=(2, 40)).astype(str).tolist()
            assert balanced_accuracy(labels, answers) == pytest.approx(
                metrics.balanced_accuracy_score(labels, answers)
            )
            assert macro_f1(labels, answers) == pytest.approx(
                metrics.f1_score(labels, answers, average="macro")
            )
            assert mcc(labels, answers) == pytest.approx(metrics.matthews_corrcoef(labels, answers))


class TestTask:
    def test_the_metric_is_of_all_examples_together(self) -> None:
        task, lm = films(metric="macro_f1"), tiny_lm()
        examples = task.splits.test
        measured = task.measure(lm, [TokenPrompt(), TokenPrompt((5,))], examples)
        assert measured.answers is not None
        labels = [example.label for example in examples]
        found = task.set_metric(measured, examples)
        assert found is not None
        assert found.tolist() == [macro_f1(labels, row) for row in measured.answers]
        assert films().set_metric(measured, examples) is None
        with pytest.raises(ValueError, match="needs the model's answers"):
            task.set_metric(Measured(measured.rewards, measured.metrics), examples)

    def test_results_of_another_metric_are_others(self) -> None:
        tasks = [
            films(),
            films(metric="mcc"),
            films(metric="macro_f1"),
            films(metric="mcc", select_by="metric"),
        ]
        assert len({task.fingerprint for task in tasks}) == 4
        assert replace(tasks[1], metric="accuracy").fingerprint == films().fingerprint

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ({"metric": "f1"}, "metric is 'f1'; give accuracy or balanced_accuracy or macro_f1"),
            ({"select_by": "test"}, "select_by is 'test'; give reward or metric"),
        ],
    )
    def test_others_are_refused(self, setting: dict[str, str], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            films(**setting)
