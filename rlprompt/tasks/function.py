"""A task whose reward is a person's own function of the prompt alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Unpack

import numpy as np

from rlprompt.data.examples import Example, Splits
from rlprompt.data.load import DataSource
from rlprompt.data.opening import data_name
from rlprompt.data.settings import DrawSettings, draw_splits, draws
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt, TextPrompt, TokenPrompt
from rlprompt.tasks.base import Task
from rlprompt.tasks.reward_function import RewardFunction, in_place, load_reward
from rlprompt.types import Floats, Outputs


@dataclass(frozen=True)
class FunctionTask(Task):
    """Score a prompt's text with a function that never calls our model.

    What such a function may do: ask a model behind an API, count, compare with a list.

    Args:
        name: What results call it.
        splits: The examples that the function is given.
        reward: The function, marked with `@rlprompt.reward`; reads `prompt_text`.
        hand_prompt: A prompt written by hand, the control of every comparison.

    Raises:
        ValueError: The function reads something else.

    >>> from rlprompt import reward
    >>> from rlprompt.check.toy import toy_lm
    >>> @reward
    ... def politeness(prompt_text, examples):
    ...     return [float("please" in prompt_text)] * len(examples)
    >>> splits = Splits(*[(Example({"text": text}, ""),) for text in "abc"])
    >>> task, lm = FunctionTask("polite", splits, politeness), toy_lm()
    >>> task.rewards(lm, [task.written(lm, "Answer, please:")], splits.dev).tolist()
    [[1.0]]
    """

    # A soft prompt has no text that a function could be given.
    tokens_only: ClassVar[bool] = True

    name: str
    splits: Splits
    reward: RewardFunction
    hand_prompt: str = ""

    def __post_init__(self) -> None:
        """Refuse a reward of outputs."""
        if self.reward.reads != "prompt_text":
            raise ValueError(
                f"reward {self.reward.name} reads {self.reward.reads}, which needs the model: use "
                "a GenerationTask, or write it as score(prompt_text, examples)"
            )

    @classmethod
    @draws()
    def from_file(
        cls,
        data: DataSource,
        *,
        reward: RewardFunction | str,
        text: Sequence[str] | Mapping[str, str] = ("text",),
        label: str | None = None,
        hand_prompt: str = "",
        name: str = "",
        **draw: Unpack[DrawSettings],
    ) -> FunctionTask:
        """A task on the examples of a file or folder.

        Args:
            data: As for `load_splits`.
            reward: The function, or where it is, such as `rewards.py:score`.
            text: Columns that the function needs, or a mapping of what it calls them to columns.
            label: Column that is the examples' label, if any.
            hand_prompt: As for the class.
            name: What results call it; the file's name if left out.
            **draw: What is drawn of the data (`DrawSettings`).

        Raises:
            ValueError: The data has a defect, or the function reads something else.
        """
        splits = draw_splits(data, None, draw, text=text, label=label)
        function = load_reward(reward) if isinstance(reward, str) else reward
        return cls(name or data_name(data), splits, function, hand_prompt)

    @property
    def fingerprint(self) -> str:
        """Hash of the function's file and the examples."""
        state = f"{self.reward.fingerprint} {self.splits.digest}"
        return hashlib.blake2b(state.encode(), digest_size=16).hexdigest()

    def written(self, lm: FrozenLM, text: str) -> TokenPrompt:
        """The prompt that a text makes."""
        return TokenPrompt(lm.encode(text))

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        """See `Task.rewards`.

        Raises:
            RewardError: The function raised, or gave no rewards.
            ValueError: A prompt is a soft one.
        """
        texts = self._texts(lm, prompts)
        rows = [self.reward.score(text, examples, text) for text in texts]
        return np.array(rows).reshape(len(prompts), len(examples))

    def feedback(
        self,
        lm: FrozenLM,
        prompts: Sequence[Prompt],
        examples: Sequence[Example],
        outputs: Outputs | None = None,
    ) -> Outputs | None:
        """See `Task.feedback`; errors as for `rewards`."""
        texts = self._texts(lm, prompts)
        said = [self.reward.feedback(text, examples, text) for text in texts]
        return in_place(said, len(examples))

    def _texts(self, lm: FrozenLM, prompts: Sequence[Prompt]) -> list[str]:
        texts = []
        for prompt in prompts:
            if isinstance(prompt, SoftPrompt):
                raise ValueError(
                    f"task {self.name!r} reads a prompt's text, and a soft prompt has none; use a "
                    "method that searches tokens or text"
                )
            texts.append(prompt.text if isinstance(prompt, TextPrompt) else lm.decode(prompt.ids))
        return texts
