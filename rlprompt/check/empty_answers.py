"""Does the model write anything at all? Where it does not, every prompt earns the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rlprompt._utils.text import listed
from rlprompt.tasks.base import Task
from rlprompt.tasks.likelihood import LOG_LIKELIHOOD
from rlprompt.template import Template

# Share of empty answers from which a model writes nothing.
SILENT = 0.9


def empty_answers(answers: Mapping[str, Sequence[str]], task: Task) -> str:
    """What to say where a model writes nothing under any of some prompts, and what may help; or "".

    Args:
        answers: What it wrote under each, by what the prompt is called.
        task: What for.
    """
    if not answers or any(_empty(texts) < SILENT * len(texts) for texts in answers.values()):
        return ""
    n_texts = sum(map(len, answers.values()))
    text = (
        f"under {listed(answers)} the model writes nothing: {sum(map(_empty, answers.values()))} "
        f"of {n_texts} answers end at their first token, or are white space"
    )
    if getattr(task, "reward", "") == LOG_LIKELIHOOD:
        text += f". {LOG_LIKELIHOOD} needs nothing written, but the metric does"
    return f"{text}. What may help: {'; '.join(_remedies(task))}"


def _empty(texts: Sequence[str]) -> int:
    return sum(not text.strip() for text in texts)


def _remedies(task: Task) -> Iterator[str]:
    """What makes a model write, or does without, as far as the task has not got it."""
    template, least = getattr(task, "template", None), getattr(task, "min_new_tokens", None)
    answered = least is not None and any(example.label for example in task.splits.train)
    if answered and getattr(task, "reward", "") != LOG_LIKELIHOOD:
        yield f"`reward: {LOG_LIKELIHOOD}`, which tells prompts apart without an answer"
    yield "a worked example in the template"
    if isinstance(template, Template) and template.fields and template.head_is_fixed:
        yield "the text before the prompt"
    if isinstance(template, Template) and not template.messages:
        yield "a chat as the template, where the model was trained on chats"
    if least == 0:
        yield "`min_new_tokens: 1`"
