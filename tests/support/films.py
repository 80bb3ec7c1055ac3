"""Films as examples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rlprompt.data.examples import Example, Splits
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.template import Template

LABELS = ("negative", "positive")


def examples(prefix: str, n: int) -> tuple[Example, ...]:
    return tuple(Example({"text": f"{prefix} {{{i}}}"}, LABELS[i % 2]) for i in range(n))


def films(**fields: Any) -> ClassificationTask:
    splits = Splits(examples("tr", 6), examples("de", 4), examples("te", 6))
    words = {"negative": "terrible", "positive": "great"}
    made = ClassificationTask("films", splits, Template("{text} {prompt}"), words)
    return replace(made, **({"hand_prompt": "it was"} | fields))
