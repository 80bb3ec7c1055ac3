"""A class task with train texts of words that the tiny tokenizer knows, for starts and pools."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from small_experiments import task
from tiny import tiny_lm

from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt
from rlprompt.tasks.classification import ClassificationTask

TEXTS = ("the film it was", "film film it", "it was film", "the film")
LABELS = ("negative", "positive")


def lm() -> FrozenLM:
    return tiny_lm()


def ids(text: str) -> tuple[int, ...]:
    return tuple(lm().encode(text))


def _part(name: str) -> tuple[Example, ...]:
    return tuple(Example({"text": f"{t} {name}"}, LABELS[i % 2]) for i, t in enumerate(TEXTS))


def films(asked: list[Prompt] | None = None) -> ClassificationTask:
    """`film` is there 5 times, `the` and `was` twice; what is asked for is noted in `asked`."""
    made = task(splits=Splits(_part("1"), _part("2"), _part("3")), hand_prompt="it was")
    if asked is None:
        return made
    noted = asked

    class Noted(ClassificationTask):
        def rewards(self, lm: FrozenLM, prompts: Any, examples: Any) -> Any:
            noted.extend(prompts)
            return super().rewards(lm, prompts, examples)

    return Noted(**{field.name: getattr(made, field.name) for field in fields(made)})
