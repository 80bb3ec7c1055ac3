"""What a prompt is worth: a task turns prompts and examples into rewards.

A task is pure: no counters, no modes, no randomness, no statistics of the batch. Scaling and
baselines belong to the optimisers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from rlprompt._utils.notebook import by_key, card, filled
from rlprompt.data.examples import Example, Splits
from rlprompt.prompt import Prompt, SoftPrompt
from rlprompt.tasks.prior import Prior, needs_prior
from rlprompt.tasks.showing import Showing
from rlprompt.tasks.wording import Wording
from rlprompt.types import Floats, Loss, Outputs

if TYPE_CHECKING:
    from rlprompt.models.lm import FrozenLM
    from rlprompt.tasks.verbaliser import LabelWordReport

T = TypeVar("T", bound="Task")


# Forward pass 1, backward pass 2: it multiplies by the weights for the activations' gradient what
# the forward did once, and frozen weights need none of their own; measured about 3 with attention.
GRADIENT_ROWS = 3
# The largest reward: sums of many, and their squares, are finite, in float32 the sums as well.
LARGEST = 1e35


class Measured(NamedTuple):
    """What prompts come to on examples.

    >>> measured = Measured(np.array([[0.5, -2.0]]), np.array([[1.0, 0.0]]))
    >>> measured.metrics.mean(axis=1).tolist(), measured.answers
    ([0.5], None)

    Attributes:
        rewards: (P, E) float64, higher is better.
        metrics: (P, E) float64, the figure that reports give.
        answers: (P, E) texts, what the model answered: a class, or what it wrote. None where a task
            does not say.
    """

    rewards: Floats
    metrics: Floats
    answers: Outputs | None = None


class InContextExamples(NamedTuple):
    """Train examples with their answers, for the control that shows them before every text.

    >>> from rlprompt.data.examples import Splits
    >>> from rlprompt.tasks import ClassificationTask
    >>> from rlprompt.template import Template
    >>> few = tuple(Example({"text": text}, text) for text in ("bad", "good"))
    >>> words = {"bad": "bad", "good": "good"}
    >>> splits = Splits(few, *[(Example({"text": text}, "bad"),) for text in ("dull", "long")])
    >>> task = ClassificationTask("films", splits, Template("{text} {prompt}"), words)
    >>> len(task.demonstrations().rounds[0])  # one of each class
    2

    Attributes:
        task: The task with the prompt before the text, and answers that end before another example.
        rounds: Texts to show, in rounds of one a class, or of one; the last are left out first.
        note: What else of the task is not as it was, or "".
    """

    task: Task
    rounds: Sequence[Sequence[str]]
    note: str = ""


class Task(Wording, Prior, Showing):
    """A reward for prompts, with the examples it is measured on.

    `name`, `splits`, `fingerprint` and `rewards` are required; all else has a default. An object of
    any class that has these four is a task too, with the defaults for what it lacks (`as_task`).
    How texts are spelt is in `Wording`, what calibration takes out in `Prior`, and what of train a
    prompt may show in `Showing`.

    Attributes:
        name: What results call it.
        splits: Its examples.
        fingerprint: Hash of all that decides a reward besides the model and the prompt.
        hand_prompt: A prompt written by hand, the control of every comparison, or "".
        metric: What the figure is called that reports give (`measure`, `set_metric`).
        metric_range: The least and the greatest that it can be, None where that is unknown. Of a
            metric from 0 to 1 intervals end inside; means over tasks are of tasks of one range.
            The names of the library's own metrics say theirs (`range_of` in `store.summary`).
        select_by: By what a prompt is picked on dev, `reward` or `metric`.
        extra_rows: Rows that each prompt costs beyond one an example whenever it is scored, be it
            on one example or on all; 0 or more. Where they grow with the examples, see
            `split_rows`.
        tokens_only: Whether soft prompts are refused.
        class_words: Of a task that tells classes apart by label words: class to its words.

    Reports also show the attributes `template`, a `Template`, and `reward`, a text, if there are.

    >>> from rlprompt.prompt import TokenPrompt
    >>> class Short(Task):
    ...     name, fingerprint = "short", "short 1"
    ...     splits = Splits(*[(Example({"text": text}, ""),) for text in ("one", "two", "three")])
    ...
    ...     def rewards(self, lm, prompts, examples):
    ...         return np.array([[1 / (1 + len(prompt))] * len(examples) for prompt in prompts])
    >>> task = Short()
    >>> task.measure(None, [TokenPrompt((5,)), TokenPrompt()], task.splits.dev).metrics.tolist()
    [[0.5], [1.0]]
    >>> task.metric, task.has("rewards_with_grad")
    ('reward', False)
    """

    if TYPE_CHECKING:  # read-only to users, and for a subclass fields or properties as it likes

        @property
        def name(self) -> str: ...  # noqa: D102
        @property
        def splits(self) -> Splits: ...  # noqa: D102
        @property
        def fingerprint(self) -> str: ...  # noqa: D102
        @property
        def hand_prompt(self) -> str: ...  # noqa: D102
        @property
        def metric(self) -> str: ...  # noqa: D102
        @property
        def metric_range(self) -> tuple[float, float] | None: ...  # noqa: D102
        @property
        def select_by(self) -> str: ...  # noqa: D102
        @property
        def extra_rows(self) -> int: ...  # noqa: D102
        @property
        def tokens_only(self) -> bool: ...  # noqa: D102
        @property
        def class_words(self) -> Mapping[str, Sequence[str]]: ...  # noqa: D102

        def rewards(
            self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
        ) -> Floats:
            """Reward of each prompt (P,) on each example (E,): (P, E), higher is better."""
            ...

    else:
        hand_prompt, metric, class_words = "", "reward", {}
        extra_rows, tokens_only, select_by, metric_range = 0, False, "reward", None

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        sizes = (f"{len(part):,} {name}" for name, part in self.splits.parts().items())
        told = {name: getattr(self, name, "") for name in ("template", "reward", "hand_prompt")}
        facts = {"examples": ", ".join(sizes), "metric": self.metric, **filled(told)}
        return card(f"Task {self.name}", {**facts, **by_key("words of", self.class_words)})

    def has(self, hook: str) -> bool:
        """Whether the task has a method of that name of its own, in the place of the default.

        A task that has one with some of its settings alone overrides this.
        """
        own = getattr(self, hook)
        return getattr(own, "__func__", own) is not getattr(Task, hook)

    def measure(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Measured:
        """Rewards and the reported metric, from one scoring, and the answers if there are any.

        By default the metric is the reward, and the answers are what the model wrote.
        """
        if self.has("rewards_with_outputs"):
            rewards, outputs = self.rewards_with_outputs(lm, prompts, examples)
            return Measured(rewards, rewards, outputs)
        rewards = self.rewards(lm, prompts, examples)
        return Measured(rewards, rewards)

    def set_metric(self, measured: Measured, examples: Sequence[Example]) -> Floats | None:
        """The metric of each prompt (P,) over a set of examples (E,), where it is no mean of them.

        None, the default, where it is the mean of the `metrics`.
        """
        return None

    def read_train(self, lm: FrozenLM) -> None:
        """Have the model read all of train, before some of it is scored alone: `FrozenLM.keep`.

        By default nothing: where the model keeps nothing, the order of calls decides nothing.
        """

    def rewards_with_grad(
        self, lm: FrozenLM, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, NDArray[np.float32]]:
        """Rewards (P, E) and the gradient (P, L, H) of each prompt's mean reward.

        Of other vectors than embeddings (`PrefixPrompt`) it has their shape.

        Raises:
            ValueError: There is none, which is the default.
        """
        raise ValueError(f"task {self.name!r} has no gradient (no method rewards_with_grad)")

    def cross_entropy_with_grad(
        self, lm: FrozenLM, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, NDArray[np.float32]]:
        """Rewards (P, E), and another gradient: of the mean log-probability of the right answers.

        The rewards are the task's own, as from `rewards_with_grad`; the gradient as there. It
        is of what the model itself answers, also where the task calibrates that.

        Raises:
            ValueError: There is none, which is the default.
        """
        raise ValueError(
            f"task {self.name!r} has no gradient of a cross-entropy (no method "
            "cross_entropy_with_grad)"
        )

    def rewards_with_outputs(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> tuple[Floats, Outputs]:
        """Rewards (P, E) and what the model wrote for each, (P, E) texts.

        Raises:
            ValueError: The model writes nothing, which is the default.
        """
        raise ValueError(f"in task {self.name!r} the model writes nothing")

    def feedback(
        self,
        lm: FrozenLM,
        prompts: Sequence[Prompt],
        examples: Sequence[Example],
        outputs: Outputs | None,
    ) -> Outputs | None:
        """What there is to say in words of prompts on examples, (P, E) texts, "" for nothing.

        For methods that read why a prompt earned what it did. Pure, and without the model: made of
        what it wrote before, so that it costs no rows and is the same in a replay.

        Args:
            lm: The model that wrote.
            prompts: (P,) of them.
            examples: (E,) of them.
            outputs: (P, E) texts that it wrote under these prompts (`Evaluation.outputs`); None
                where it writes nothing.

        Returns:
            None where the task says nothing, which is the default.
        """
        return None

    def judge_tokens(self, examples: Sequence[Example], outputs: Outputs) -> int:
        """Tokens that models which judge answers read of them, beside the rows: 0 by default.

        Args:
            examples: (E,) of them.
            outputs: (P, E) texts that the frozen model wrote.
        """
        return 0

    def gradient_rows(self, n_examples: int, loss: Loss = "reward") -> int:
        """Rows that a prompt costs whose gradient is taken on so many train examples.

        By default three times what its rewards cost, whatever the gradient is of.
        """
        return GRADIENT_ROWS * prompt_rows(self, n_examples)

    def split_rows(self, split: str, n_examples: int) -> int:
        """Rows that a prompt costs on so many examples of `train`, `dev` or `test`.

        By default one an example, and `extra_rows` once.

        Raises:
            ValueError: `extra_rows` is no whole number of 0 or more.
        """
        extra = self.extra_rows
        if not isinstance(extra, int) or extra < 0:
            raise ValueError(
                f"task {self.name!r} has extra_rows {extra!r}; give a whole number, 0 or more"
            )
        return n_examples + extra

    def demonstrations(self) -> InContextExamples | None:
        """Train examples to show before every text, or None where there is no such thing."""
        return None

    def label_word_report(self, lm: FrozenLM) -> LabelWordReport | None:
        """What the model's tokenizer makes of the label words, or None where there are none."""
        return None

    def usage(self) -> Mapping[str, Any] | None:
        """What an exported prompt says of its use (`Usage`); None where only the task knows."""
        return None


def members() -> set[str]:
    """What an object may have in the place of a default: the public names of `Task`, but `has`."""
    parts = (vars(part) for part in Task.__mro__ if part is not object)
    return {name for part in parts for name in part if not name.startswith("_")} - {"has"}


def prompt_rows(task: Task, n_examples: int | None = None, *, loss: Loss | None = None) -> int:
    """Rows that one prompt costs on train, in the unit of `Budget`: what every bill is made of.

    Args:
        task: What the prompt is for.
        n_examples: Train examples that it is scored on; None for all.
        loss: What its gradient is taken of; None without one.

    Raises:
        ValueError: The task's `extra_rows` is no whole number of 0 or more.
    """
    count = len(task.splits.train) if n_examples is None else n_examples
    if loss is not None:
        return task.gradient_rows(count, loss)
    return task.split_rows("train", count)


def tells_answers(task: Task) -> bool:
    """Whether a task has a method that could say what the model answers (`Task.measure`)."""
    return task.has("measure") or task.has("rewards_with_outputs")


def what_it_writes(
    task: Task, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
) -> Outputs | None:
    """What the model writes under prompts (P,) for examples (E,); None where it chooses a class."""
    if task.has("rewards_with_outputs"):
        return task.rewards_with_outputs(lm, prompts, examples)[1]
    if "writing" in (task.usage() or {}):
        return Measured(*task.measure(lm, prompts, examples)).answers
    return None


def unusable(rewards: Floats) -> NDArray[np.bool]:
    """Which rewards are no finite number, or too large to be added up."""
    found: NDArray[np.bool] = ~(np.abs(rewards) <= LARGEST)
    return found


def rows_of(task: Task, parts: Iterable[tuple[str, int]], *, known: bool = False) -> int:
    """Rows that a prompt costs on parts of splits, one after the other; its prior is found once.

    Args:
        task: What the prompt is for.
        parts: A split and a number of its examples each, in the order in which they are scored.
        known: Whether its prior is known before.
    """
    rows = 0
    for split, n_examples in parts:
        needed = needs_prior(task, split)
        rows += task.split_rows(split, n_examples) - needed * known * task.prior_rows
        known = known or needed
    return rows


def variant(task: T, **changes: object) -> T | None:
    """A dataclass task with some settings changed; None where a person's own class forbids that."""
    try:
        made: T = replace(task, **changes)  # type: ignore[type-var]
    except TypeError:  # a constructor of its own
        return None
    # Scores are kept by fingerprint: one that does not tell them apart would mix them up.
    return None if made.fingerprint == task.fingerprint else made
