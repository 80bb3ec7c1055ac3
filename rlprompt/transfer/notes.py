"""What is noted beside the score of a prompt on another task than its own."""

from __future__ import annotations

from collections.abc import Iterator

from rlprompt.tasks.base import Task


def notes_on(own: Task, there: Task, split: str) -> tuple[str, ...]:
    """What makes a split of a task more than new examples for a prompt that was found on another.

    Args:
        own: Where it was found.
        there: Where it goes.
        split: What it is scored on there.
    """
    return (*_other_words(own, there), *_known_examples(own, there, split))


def _other_words(own: Task, there: Task) -> Iterator[str]:
    """Whether another answer is asked for."""
    if not own.class_words or not there.class_words:
        if own.__class__ is not there.__class__:
            yield "found on a task of another kind"
        return
    # Classes may have other names: what the model answers is a word.
    words, own_words = (sorted(map(tuple, task.class_words.values())) for task in (there, own))
    if words != own_words:
        yield f"found with other label words ({'; '.join(', '.join(one) for one in own_words)})"


def _known_examples(own: Task, there: Task, split: str) -> Iterator[str]:
    """How many examples the search had on train, or picked by on dev."""
    if own.splits.digest == there.splits.digest:  # whose leaks the study tells
        return
    examples = there.splits.parts()[split]
    known = {
        part: {example.key for example in own.splits.parts()[part]} for part in ("train", "dev")
    }
    found = {part: sum(one.key in keys for one in examples) for part, keys in known.items()}
    n = sum(any(one.key in keys for keys in known.values()) for one in examples)
    if n:
        of = " and ".join(f"{count} in its {part}" for part, count in found.items() if count)
        yield (
            f"found on {n} of the {len(examples)} {split} examples ({of}), so the score there is "
            "too good"
        )
