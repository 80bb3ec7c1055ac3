"""A task whose reward is a person's own function of the prompt's text; the model is never run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlprompt.data.load import Example, OnBadRows, OnLeak, Splits, load_splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, TokenPrompt
from rlprompt.tasks.base import data_name
from rlprompt.tasks.reward_function import RewardFunction, load_reward
from rlprompt.types import Floats


@dataclass(frozen=True)
class FunctionTask:
    """Score a prompt's text with a function that never calls our model.

    What such a function may do: ask a model behind an API, count, compare with a list.

    Args:
        name: What results call it.
        splits: The examples that the function is given.
        reward: The function, marked with `@rlprompt.reward`; reads `prompt_text`.
        hand_prompt: A prompt written by hand, the control of every comparison.

    Raises:
        ValueError: The function reads something else.
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
    def from_file(
        cls,
        data: str,
        *,
        reward: RewardFunction | str,
        text: Sequence[str] | Mapping[str, str] = ("text",),
        label: str | None = None,
        shots: int = 16,
        test: int | None = None,
        seed: int = 0,
        on_bad_rows: OnBadRows = "error",
        on_leak: OnLeak = "error",
        hand_prompt: str = "",
        name: str = "",
    ) -> FunctionTask:
        """A task on the examples of a file or folder.

        Args:
            data: As for `load_splits`.
            reward: The function, or where it is, such as `rewards.py:score`.
            text: Columns that the function needs, or a mapping of what it calls them to columns.
            label: Column that is the examples' label, if any.
            shots: Examples in train and in dev, where they are drawn from one file.
            test: Examples to test on; None for all there are.
            seed: Decides what is drawn.
            on_bad_rows: As for `load_splits`.
            on_leak: As for `load_splits`.
            hand_prompt: As for the class.
            name: What results call it; the file's name if left out.

        Raises:
            ValueError: The data has a defect, or the function reads something else.
        """
        splits = load_splits(
            data,
            None,
            text=text,
            label=label,
            shots=shots,
            n_test=test,
            seed=seed,
            on_bad_rows=on_bad_rows,
            on_leak=on_leak,
        )
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
        rows = []
        for prompt in prompts:
            if not isinstance(prompt, TokenPrompt):
                raise ValueError(
                    f"task {self.name!r} reads a prompt's text, and a soft prompt has none; use a "
                    "method that searches tokens"
                )
            text = lm.decode(prompt.ids)
            rows.append(self.reward.score(text, examples, text))
        return np.array(rows).reshape(len(prompts), len(examples))
