"""Train examples that are shown with their answers: demonstrations, or shots."""

from __future__ import annotations

from collections.abc import Sequence

from rlprompt.data.examples import Example
from rlprompt.template import SEPARATOR, Template

# Demonstrations at most, or one a class where there are more classes. They are read anew for every
# prompt scored by models that share no prefix, and are as many as the usual few-shot train set has
# of a class; gains level off beyond (Min et al. 2022, arXiv 2202.12837).
MOST_SHOTS = 16


class Showing:
    """What of train a prompt may show, and how that reads: by default nothing.

    >>> from rlprompt.data.examples import Splits
    >>> from rlprompt.tasks import ClassificationTask
    >>> splits = Splits(*[(Example({"text": text}, "good"),) for text in ("fun", "sad", "odd")])
    >>> words = {"bad": "bad", "good": "good"}
    >>> task = ClassificationTask("films", splits, Template("{prompt} {text} It is"), words)
    >>> task.shown(task.showable()).strip()
    'fun It is good'
    """

    def showable(self) -> Sequence[int]:
        """Places of the train examples that a prompt may show, answered; by default none."""
        return ()

    def shown(self, places: Sequence[int], before: str = "") -> str:
        """The text of a prompt that shows train examples with their answers.

        Args:
            places: Some of `showable`, in the order in which they are shown.
            before: What stands before them, such as an instruction.

        Raises:
            ValueError: None may be shown, which is the default.
        """
        raise ValueError(f"{self.__class__.__name__} has no examples to show (no method shown)")


def demonstration(template: Template, example: Example, answer: str) -> str:
    """An example with its answer, as the model is asked for it, and what ends it."""
    return template.answered(example.fields, template.answer_text(answer)) + SEPARATOR
