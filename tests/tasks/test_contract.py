"""What every task must keep, built in or a user's own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from fakes import FakeGradientTask, FakeTask
from tiny import HIDDEN, TinyKind, tiny_lm

from rlprompt.data.examples import Example, Splits
from rlprompt.models.decoding import Decoding
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.objective import CHUNK, Objective
from rlprompt.tasks.base import Task
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.tasks.compression import CompressionTask
from rlprompt.tasks.generation import GenerationTask
from rlprompt.tasks.multiple_choice import MultipleChoiceTask
from rlprompt.tasks.style_transfer import StyleReward, StyleTransferTask
from rlprompt.template import Template

# What a reward in nats or 1/200ths may differ by when it is computed in another batch (float32).
NOISE = 2e-2
LABELS = ("neg", "pos")


def split(name: str, n: int) -> tuple[Example, ...]:
    return tuple(
        Example(
            {"text": f"{name} {'the film was ' * (i % 3)}{i}"},
            LABELS[i % 2],
            options=(*LABELS, "so it was")[: 2 + i % 2],
        )
        for i in range(n)
    )


SPLITS = Splits(split("train", 6), split("dev", 4), split("test", 5))


def classification(
    template: str, reward: str, pos: str | list[str] = "great", **options: Any
) -> ClassificationTask:
    words = {"neg": "terrible", "pos": pos}
    return ClassificationTask("film", SPLITS, Template(template), words, reward, **options)


def style_transfer(reward: StyleReward = "mean") -> StyleTransferTask:
    words = {"sad": "terrible", "glad": "great"}
    return StyleTransferTask(
        "film", SPLITS, "glad", words, reward=reward, decoding=Decoding(max_new_tokens=6)
    )


def likelihood(template: str) -> GenerationTask:
    return GenerationTask("film", SPLITS, Template(template), "log_likelihood", max_new_tokens=3)


def choice(template: str, **options: Any) -> MultipleChoiceTask:
    return MultipleChoiceTask("film", SPLITS, Template(template), **options)


@dataclass(frozen=True)
class Case:
    """A task, a model for it, and the kind of prompts."""

    name: str
    task: Callable[[], Task]
    kind: TinyKind = "llama"
    soft: bool = False

    @property
    def lm(self) -> FrozenLM:
        return tiny_lm(self.kind)

    def prompts(self, count: int = 5) -> list[Prompt]:
        rng = np.random.default_rng(3)
        if self.soft:
            return [SoftPrompt(0.3 * rng.standard_normal((3, HIDDEN))) for _ in range(count)]
        return [TokenPrompt(rng.integers(10, 280, 3)) for _ in range(count)]


END, START, BOTH = "{text} {prompt}", "{prompt} {text}", "So: {text}\n{prompt}\nMood:"
MASKED = "{text} {prompt} {mask} ."
CASES = [
    Case("gap", lambda: classification(END, "gap")),
    Case("cross-entropy", lambda: classification(START, "cross_entropy")),
    Case("hinge", lambda: classification(BOTH, "hinge")),
    Case("accuracy", lambda: classification(END, "accuracy")),
    Case("long words", lambda: classification(END, "cross_entropy", "so, it was good")),
    Case("more words", lambda: classification(BOTH, "gap", ["great", "so good"], length="mean")),
    Case("any word", lambda: classification(END, "hinge", ["great", "good"], pooling="logsumexp")),
    Case("calibrated", lambda: classification(END, "cross_entropy", calibration="contextual")),
    Case(
        "soft and calibrated",
        lambda: classification(START, "cross_entropy", calibration="contextual"),
        soft=True,
    ),
    Case("batch", lambda: classification(END, "cross_entropy", calibration="batch")),
    Case("batch, masked", lambda: classification(MASKED, "gap", calibration="batch"), "bert"),
    Case("batch, encoder-decoder", lambda: classification(END, "hinge", calibration="batch"), "t5"),
    Case(
        "soft and batch",
        lambda: classification(START, "cross_entropy", calibration="batch"),
        soft=True,
    ),
    Case("soft", lambda: classification(END, "gap"), soft=True),
    Case("soft in front", lambda: classification(START, "hinge"), soft=True),
    Case("unpacked", lambda: classification(BOTH, "cross_entropy"), "bloom"),
    Case("masked", lambda: classification("{text} {prompt} {mask} .", "gap"), "bert"),
    Case("encoder-decoder", lambda: classification(END, "cross_entropy"), "t5"),
    Case("style transfer", style_transfer),
    Case("style product", lambda: style_transfer("product"), "t5"),
    Case("compression", lambda: CompressionTask(classification(END, "gap"), "It was so good", 0.5)),
    Case("log-likelihood", lambda: likelihood(END)),
    Case("log-likelihood, unpacked", lambda: likelihood(START), "bloom"),
    Case("log-likelihood, encoder-decoder", lambda: likelihood(END), "t5"),
    Case("soft, log-likelihood", lambda: likelihood(BOTH), soft=True),
    Case("options", lambda: choice(END)),
    Case("options in front", lambda: choice(START, reward="hinge", metric="acc_norm")),
    Case("options, unpacked", lambda: choice(BOTH, reward="gap"), "bloom"),
    Case("options, masked", lambda: choice(MASKED), "bert"),
    Case("options, encoder-decoder", lambda: choice(END, metric="acc_bytes"), "t5"),
    Case("soft, options", lambda: choice(BOTH, metric="acc_norm"), soft=True),
    Case("function", lambda: FakeTask(SPLITS)),
    Case("function of vectors", lambda: FakeGradientTask(SPLITS), soft=True),
]

pytestmark = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def same(first: object, second: object) -> None:
    np.testing.assert_allclose(first, second, atol=NOISE)  # type: ignore[call-overload]


def test_it_says_what_it_is(case: Case) -> None:
    task = case.task()
    assert isinstance(task, Task)
    assert isinstance(task.name, str)
    assert task.splits == SPLITS
    assert task.fingerprint == case.task().fingerprint


def test_rewards_are_finite_numbers_of_the_stated_shape(case: Case) -> None:
    for n_prompts, examples in [(5, SPLITS.train), (1, SPLITS.dev), (3, SPLITS.test[:1])]:
        rewards = case.task().rewards(case.lm, case.prompts(n_prompts), examples)
        assert rewards.shape == (n_prompts, len(examples))
        assert rewards.dtype == np.float64
        assert np.isfinite(rewards).all()


def test_a_prompt_earns_the_same_in_any_company(case: Case) -> None:
    """Up to float noise: the ledger ranks prompts scored in different batches."""
    task, lm, prompts = case.task(), case.lm, case.prompts()
    together = task.rewards(lm, prompts, SPLITS.train)
    alone = [task.rewards(lm, [prompt], SPLITS.train)[0] for prompt in prompts]
    same(together, alone)
    same(task.rewards(lm, prompts[::-1], SPLITS.train), together[::-1])
    same(task.rewards(lm, [*prompts[:2], *prompts[:2]], SPLITS.train), together[[0, 1, 0, 1]])


def test_an_example_counts_the_same_in_any_company(case: Case) -> None:
    task, lm, prompts = case.task(), case.lm, case.prompts()
    together = task.rewards(lm, prompts, SPLITS.train)
    same(task.rewards(lm, prompts, SPLITS.train[::-1]), together[:, ::-1])
    if task.scored_together:  # then what else is scored counts among train examples alone
        whole = task.rewards(lm, prompts, SPLITS.dev)
        same(task.rewards(lm, prompts, SPLITS.dev[1:3]), whole[:, 1:3])
        return
    same(task.rewards(lm, prompts, SPLITS.train[2:4]), together[:, 2:4])


def test_asking_changes_nothing(case: Case) -> None:
    task, lm, prompts = case.task(), case.lm, case.prompts()
    weights = lm.hash_weights()
    fingerprint, splits = task.fingerprint, copy.deepcopy(task.splits)
    first = task.rewards(lm, prompts, SPLITS.train)
    task.rewards(lm, prompts[:2], SPLITS.test)
    task.measure(lm, prompts[:1], SPLITS.dev)
    assert np.array_equal(task.rewards(lm, prompts, SPLITS.train), first)
    assert np.array_equal(case.task().rewards(lm, prompts, SPLITS.train), first)
    assert (task.fingerprint, task.splits) == (fingerprint, splits)
    assert lm.hash_weights() == weights


def test_global_random_states_neither_matter_nor_change(case: Case) -> None:
    task, lm, prompts = case.task(), case.lm, case.prompts()
    rewards = []
    for seed in (1, 2):
        np.random.seed(seed)
        before = np.random.get_state(legacy=False)["state"]["key"].copy()
        rewards.append(task.rewards(lm, prompts, SPLITS.train))
        assert np.array_equal(before, np.random.get_state(legacy=False)["state"]["key"])
    assert np.array_equal(rewards[0], rewards[1])


def test_prompts_differ_in_what_they_earn(case: Case) -> None:
    means = case.task().rewards(case.lm, case.prompts(12), SPLITS.train).mean(axis=1)
    assert len(np.unique(means.round(6))) > 1


def test_the_objective_takes_it(case: Case) -> None:
    task, prompts = case.task(), case.prompts(CHUNK + 3)
    objective = Objective(task, case.lm, Budget(10**4))
    evaluation = objective.evaluate(prompts)
    same(evaluation.per_example, task.rewards(case.lm, prompts, SPLITS.train))


def test_its_metric_comes_with_the_same_rewards(case: Case) -> None:
    task, lm, prompts = case.task(), case.lm, case.prompts()
    rewards, metric, _ = task.measure(lm, prompts, SPLITS.dev)
    same(rewards, task.rewards(lm, prompts, SPLITS.dev))
    assert metric.shape == rewards.shape
    assert np.isfinite(metric).all()


def test_a_gradient_comes_with_the_same_rewards(case: Case) -> None:
    task, lm, prompts = case.task(), case.lm, case.prompts(2)
    if not case.soft:
        return
    assert task.has("rewards_with_grad")
    soft = [prompt for prompt in prompts if isinstance(prompt, SoftPrompt)]
    rewards, gradients = task.rewards_with_grad(lm, soft, SPLITS.train)
    same(rewards, task.rewards(lm, prompts, SPLITS.train))
    assert gradients.shape == (2, 3, HIDDEN)
    assert gradients.dtype == np.float32
    # A small step along it earns more.
    steps = [1e-3 / np.linalg.norm(gradient) * gradient for gradient in gradients]
    better = [SoftPrompt(prompt.vectors + step) for prompt, step in zip(soft, steps, strict=True)]
    gained = task.rewards(lm, better, SPLITS.train).mean(axis=1) - rewards.mean(axis=1)
    expected = [1e-3 * np.linalg.norm(gradient) for gradient in gradients]
    np.testing.assert_allclose(gained, expected, rtol=0.1, atol=1e-3)
