"""Exported prompts without a search: results as a search would leave them, on tiny tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlprompt.data.examples import Example, Splits
from rlprompt.export.export import export_prompt
from rlprompt.export.folder import ExportedPrompt
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import PrefixPrompt, Prompt, SoftPrompt, TextPrompt, TokenPrompt
from rlprompt.search.evaluation import Evaluator, describe, evaluate
from rlprompt.search.result import Candidate, Result
from rlprompt.tasks.base import Task
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.tasks.generation import GenerationTask
from rlprompt.template import Template

WORDS = {"negative": "bad", "positive": "good"}
TOKENS = TokenPrompt((20, 30, 40))


def splits(labels: Sequence[str] = tuple(WORDS)) -> Splits:
    """Three examples each."""
    train, dev, test = (
        tuple(Example({"text": f"the film {name} {'it' * i}"}, labels[i % 2]) for i in range(3))
        for name in ("train", "dev", "test")
    )
    return Splits(train, dev, test)


def class_task(
    template: str = "{text} {prompt}", label_words: Mapping[str, Any] = WORDS, **settings: Any
) -> ClassificationTask:
    examples = splits(list(label_words))
    words = label_words
    settings = {"calibration": "none", **settings}
    return ClassificationTask("films", examples, Template(template), words, **settings)


def writing_task(template: str = "{text} {prompt}") -> GenerationTask:
    return GenerationTask("echo", splits(), Template(template), "contains", max_new_tokens=4)


def soft(lm: FrozenLM, length: int = 3, seed: int = 0) -> SoftPrompt:
    noise = np.random.default_rng(seed).normal(size=(length, lm.hidden_size))
    return SoftPrompt(0.3 * noise)


def prefix(lm: FrozenLM, length: int = 3, seed: int = 0) -> PrefixPrompt:
    """Keys and values as wide as the model's own."""
    known = lm.keys_and_values([soft(lm, length, seed)])[0]
    noise = np.random.default_rng(seed).normal(size=known.shape)
    return PrefixPrompt(known + known.std() * noise)


def result(lm: FrozenLM, task: Task, prompt: Prompt, **changes: Any) -> Result:
    """What a search would say that had found this prompt."""
    text, retypable = describe(task, lm, prompt)
    train, dev, test = (evaluate(task, lm, prompt, split) for split in ("train", "dev", "test"))
    tested = Evaluator(task, lm).measure([prompt], "test").metrics[0]
    tokens = len(lm.fed(prompt)) if isinstance(prompt, TextPrompt) else None
    candidate = Candidate(
        prompt, text, retypable, train.reward, 8, train, dev, test, dev_examples=3, tokens=tokens
    )
    found = Result(
        task=task.name,
        task_fingerprint=task.fingerprint,
        model=lm.name,
        fingerprint=dataclasses.asdict(lm.fingerprint),
        noise={},
        optimiser="Greedy",
        settings={"pool": 0.5},
        seed=7,
        length=len(prompt),
        status="finished",
        budget_rows=100,
        rows=96,
        n_prompts=32,
        n_distinct=32,
        lm_seconds=1.0,
        total_seconds=2.0,
        points=((3, 0.1),),
        candidates=(candidate,),
        test_metrics=tuple(tested.tolist()),
        test_prompts=1,
    )
    return dataclasses.replace(found, **changes)


def export(
    folder: Path, lm: FrozenLM, prompt: Prompt = TOKENS, task: Task | None = None
) -> ExportedPrompt:
    task = task or class_task()
    return export_prompt(result(lm, task, prompt), folder, lm, task, run="greedy-seed7")
