"""The check of a task finds every planted fault, and nothing wrong with good tasks."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from broken_tasks import FAULTS, Fault, GoodTask, Measures, Slow, Writes
from fakes import FakeGradientTask, FakeTask
from tiny import TinyKind, tiny_lm, tiny_model, tiny_tokenizer

from rlprompt._utils.seeding import random_states
from rlprompt.check import task as check
from rlprompt.check.task import check_task
from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.tasks.function import FunctionTask
from rlprompt.tasks.generation import GenerationTask
from rlprompt.tasks.reward_function import RewardFunction
from rlprompt.template import Template

LABELS = ("neg", "pos")


def texts(split: str) -> tuple[Example, ...]:
    return tuple(Example({"text": f"{split} film {i}"}, LABELS[i % 2]) for i in range(8))


TEXTS = Splits(texts("train"), texts("dev"), texts("test"))


def fresh_lm() -> FrozenLM:
    """A model that may be broken."""
    return FrozenLM(tiny_model(), tiny_tokenizer(), "tiny")


def shortness(prompt_text: str, examples: Sequence[Example]) -> list[float]:
    return [-float(len(prompt_text))] * len(examples)


def films(template: str, reward: str = "gap") -> ClassificationTask:
    words = {"neg": "terrible", "pos": "great"}
    return ClassificationTask("films", TEXTS, Template(template), words, reward)


def likely(template: str) -> GenerationTask:
    made = Template(template)
    return GenerationTask("likely", TEXTS, made, "log_likelihood", max_new_tokens=2)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.name}: {fault.finding}")
def test_a_planted_fault_is_named(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "time", SimpleNamespace(perf_counter=Slow.clock))
    lm = fresh_lm() if fault.finding == "model-unchanged" else tiny_lm()
    report = check_task(fault.task, lm)
    found = {finding.name: finding.text for finding in report.problems}
    assert fault.words in found[fault.finding]


GOOD: list[tuple[str, Any, TinyKind]] = [
    ("good", GoodTask(), "llama"),
    ("fake", FakeTask(), "llama"),
    ("fake with gradients", FakeGradientTask(), "llama"),
    ("metric", Measures(), "llama"),
    ("texts", Writes(), "llama"),
    ("function", FunctionTask("function", TEXTS, RewardFunction(shortness)), "llama"),
    ("gap", films("{text} {prompt}"), "llama"),
    ("cross-entropy", films("{prompt} {text}", "cross_entropy"), "gpt2"),
    ("hinge", films("So: {text}\n{prompt}\nMood:", "hinge"), "gemma"),
    ("accuracy", films("{text} {prompt}", "accuracy"), "opt"),
    ("unpacked", films("{text} {prompt}"), "bloom"),
    ("masked", films("{text} {prompt} {mask} ."), "bert"),
    ("masked by roberta", films("{text} {prompt} {mask} ."), "roberta"),
    ("encoder-decoder", films("{text} {prompt}", "cross_entropy"), "t5"),
    ("log-likelihood", likely("{text} {prompt}"), "llama"),
    ("log-likelihood by t5", likely("{prompt} {text}"), "t5"),
]


@pytest.mark.parametrize(("task", "kind"), [g[1:] for g in GOOD], ids=[g[0] for g in GOOD])
def test_a_good_task_passes(task: Any, kind: TinyKind) -> None:
    lm, before = tiny_lm(kind), random_states()
    check_task(task, lm).raise_if_failed()
    assert random_states() == before


def test_16_bits_are_no_reason_to_fail() -> None:
    """Good gradients are far from finite differences there, and rewards near each other."""
    narrow = FrozenLM(tiny_model().bfloat16(), tiny_tokenizer(), "tiny")
    report = check_task(films("{text} {prompt}"), narrow)
    report.raise_if_failed()
    (gradient,) = (finding for finding in report.findings if finding.name == "gradient")
    assert "check it in float32" in gradient.text
