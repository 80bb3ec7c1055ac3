"""Experiments on a tiny model, made in Python."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tiny import tiny_lm

from rlprompt.agents.random_search import RandomSearch
from rlprompt.agents.soft_prompt import SoftPromptTuning
from rlprompt.data.examples import Example, Splits
from rlprompt.prompt import TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.studies.experiment import Experiment
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.template import Template

N_TRAIN = 4
ONLY = {"random": RandomSearch()}


def examples(prefix: str, n: int = N_TRAIN) -> tuple[Example, ...]:
    labels = ("negative", "positive")
    return tuple(Example({"text": f"{prefix} {i}"}, labels[i % 2]) for i in range(n))


def task(**fields: Any) -> ClassificationTask:
    splits = Splits(examples("train"), examples("dev"), examples("test", 6))
    words = {"negative": "terrible", "positive": "great"}
    made = ClassificationTask("films", splits, Template("{text} {prompt}"), words)
    return replace(made, **fields)


def experiment(**fields: Any) -> Experiment:
    made: dict[str, Any] = {
        "name": "small",
        "task": task(),
        "lm": tiny_lm(),
        "optimisers": {"random": RandomSearch(), "soft-prompt": SoftPromptTuning()},
        "length": 3,
        "controls": {"empty": TokenPrompt(), "hand-written": TokenPrompt(tiny_lm().encode(" it"))},
    }
    budget = fields.pop("budget", 12 * N_TRAIN)
    made["budget"] = budget if isinstance(budget, Budget) else Budget(budget)
    return Experiment(**(made | fields))


def grid(**fields: Any) -> list[Experiment]:
    """Two models, two tasks, two budgets."""
    other = task(name="books", label_words={"negative": "bad", "positive": "good"})
    return [
        experiment(lm=lm, task=one, budget=budget, optimisers=ONLY, **fields)
        for lm in (tiny_lm("llama"), tiny_lm("gpt2"))
        for one in (task(), other)
        for budget in (16, 32)
    ]
