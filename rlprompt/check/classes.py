"""What a reward of classes measures: how often one class is answered, and what train foretells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, spearmanr

from rlprompt.check.report import Finding, verdict
from rlprompt.data.examples import Example, Splits
from rlprompt.tasks.base import Measured
from rlprompt.tasks.class_metrics import COMMON, SET_METRICS

# Share of texts from which one answer to all is what a prompt does, where the labels do not say so.
ONE_SIDED = 0.9
# Share of prompts from which most of what a reward tells apart is that.
MANY = 0.5
# Rank correlation below which a reward is a poor guide: a third of the way to a perfect one.
GUIDES = 1 / 3
# Splits in halves that are averaged, so that few of them do not decide.
HALVES = 50
# Prompts below which an interval is wide whatever is found: at 30 it is about 0.7 wide around 0.
FEW = 30


def check_classes(
    measured: Measured, examples: Sequence[Example], *, can_calibrate: bool
) -> Iterator[Finding]:
    """Whether a reward measures more than a prompt's favourite class, and foretells accuracy.

    Args:
        measured: Of random prompts (P,), 2 or more, on train examples (E,), with their answers.
        examples: (E,) of them.
        can_calibrate: Whether the task could take out what a prompt answers to any text.
    """
    if measured.answers is not None:
        yield _bias(measured.answers, [one.label for one in examples], can_calibrate)
    yield check_foresight(measured, "accuracy")


def largest_class(splits: Splits, metric: str) -> Finding:
    """What always answering the class that test has most of would score."""
    said = []
    share = 0.0
    parts = {name: [one.label for one in part] for name, part in splits.parts().items()}
    label = Counter(parts["test"]).most_common(1)[0][0]
    for name in ("dev", "test"):
        labels = parts[name]
        share = labels.count(label) / len(labels)
        own = (
            ""
            if metric not in SET_METRICS
            else f", {metric} " + (f"{SET_METRICS[metric](labels, [label] * len(labels)):.3f}")
        )
        said.append(f"accuracy {share:.3f}{own} on {name} ({labels.count(label)} of {len(labels)})")
    text = f"always answering `{label}`, the largest class, has {' and '.join(said)}"
    problem = f"{text}. Accuracy says little of the other classes: set metric: balanced_accuracy, "
    problem += "macro_f1 or mcc, and select_by: metric to pick by it"
    rare = share > COMMON and metric == "accuracy"
    return verdict("largest-class", problem if rare else "", text, "warn")


def _bias(answers: Sequence[Sequence[str]], labels: Sequence[str], can_calibrate: bool) -> Finding:
    """How many prompts answer one class whatever the text."""
    usual = Counter(labels)
    top = [one for row in answers for one in Counter(filter(None, row)).most_common(1)]
    sided = [
        (label, n)
        for label, n in top
        if n >= ONE_SIDED * len(labels) and usual[label] <= COMMON * len(labels)
    ]
    if not sided:
        text = f"no one of {len(answers)} random prompts makes the model answer one class for "
        return Finding("bias", "pass", text + f"{100 * ONE_SIDED:.0f} in 100 texts or more")
    favourite, _ = Counter(label for label, _ in sided).most_common(1)[0]
    own = [n for label, n in sided if label == favourite]
    share = 100 * sum(own) / (len(own) * len(labels))
    text = (
        f"under {len(sided)} of {len(answers)} random prompts the model answers one class for "
        f"{100 * ONE_SIDED:.0f} in 100 texts or more; under {len(own)} of them it answers "
        f"`{favourite}` for {share:.0f} in 100, which is the label of "
        f"{100 * usual[favourite] / len(labels):.0f}"
    )
    advice = "calibrate (calibration: batch)" if can_calibrate else "look at the label words"
    problem = f"{text}. The reward mostly measures that bias: {advice}"
    return verdict("bias", problem if len(sided) >= MANY * len(answers) else "", text, "warn")


def check_foresight(measured: Measured, metric: str) -> Finding:
    """How the reward on one half of the examples ranks prompts by the metric on the other."""
    n_prompts, n_examples = measured.rewards.shape
    if n_prompts < 4 or n_examples < 4:
        text = f"{n_prompts} prompts on {n_examples} examples do not tell whether the reward "
        return Finding("foresight", "warn", text + f"predicts the {metric} on other examples")
    found = foresight(np.asarray(measured.rewards), np.asarray(measured.metrics))
    if found is None:
        text = f"all random prompts have the same {metric} on other examples, so that whether the "
        return Finding("foresight", "warn", text + "reward predicts it cannot be told")
    low, high = rank_interval(found, n_prompts)
    text = (
        f"the reward on {n_examples // 2} train examples ranks {n_prompts} random prompts by their "
        f"{metric} on {n_examples - n_examples // 2} others with a Spearman correlation of "
        f"{found:.2f} (95 % interval over prompts {low:.2f} to {high:.2f}"
    )
    text += f"; {n_prompts} prompts are few)" if n_prompts < FEW else ")"
    poor = "; it is a poor guide. Give more examples, or try another reward or calibration"
    return verdict("foresight", text + poor if found < GUIDES else "", text, "warn")


def foresight(rewards: NDArray[np.float64], accuracies: NDArray[np.float64]) -> float | None:
    """Mean Spearman correlation of rewards on a half of the examples and accuracy on the other.

    Both (P, E). The halves are drawn with a seed of their own. It is that of half the examples, and
    so less than all of them would have. None where it is defined for no half.
    """
    rng = np.random.default_rng(0)
    n_examples = rewards.shape[1]
    found = []
    for _ in range(HALVES):
        order = rng.permutation(n_examples)
        here, there = order[: n_examples // 2], order[n_examples // 2 :]
        # Rounded, so that equal means tie whatever the order they were summed in.
        means = rewards[:, here].mean(1).round(12), accuracies[:, there].mean(1).round(12)
        if all(np.ptp(values) > 0 for values in means):
            found.append(float(spearmanr(*means).statistic))
    return float(np.mean(found)) if found else None


def rank_interval(correlation: float, n: int) -> tuple[float, float]:
    """95 % interval of a Spearman correlation of n pairs, 4 or more.

    Fisher's z with the variance 1.06 / (n - 3) of Fieller, Hartley and Pearson 1957
    (https://doi.org/10.1093/biomet/44.3-4.470).
    """
    z = np.arctanh(np.clip(correlation, -0.9999, 0.9999))
    half = norm.isf(0.025) * np.sqrt(1.06 / (n - 3))
    return float(np.tanh(z - half)), float(np.tanh(z + half))
