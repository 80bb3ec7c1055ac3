"""Prompt compression: earn what a long prompt earns, with fewer of its tokens.

Prompts of a search have one length, so one id stands for nothing here: the *blank*, the
tokenizer's pad or else its end token, which no text spells. Blanks are dropped before a prompt is
scored, and every token that is left costs `penalty`. The tokens to choose from are those of the
long prompt and the blank, so that what is found is made of the person's own words, as in PCRL
(Jung & Kim 2024, arXiv 2308.08758). Departures from it:

- A search finds one compressed prompt; PCRL trains a policy that compresses any prompt.
- Tokens may change places and come twice: spaces of tokens have one set of ids for all positions.
- The reward is the task's own, less a price a token. PCRL pays the share of dropped tokens as long
  as ROUGE-L to what the model writes under the long prompt stays above a threshold.

How long a prompt may get is the length that is searched (`prompt: {length: ...}`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import ClassVar, Self

import numpy as np

from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, TokenPrompt
from rlprompt.tasks.base import Measured, Task, members
from rlprompt.tasks.completed import as_task
from rlprompt.types import Floats, Outputs


@dataclass(frozen=True)
class CompressionTask(Task):
    """Another task's reward, less a price for every token of the prompt.

    Args:
        task: The other task.
        prompt: The long prompt, as a person writes it; the control of every comparison.
        penalty: Price of a token, in the other task's reward an example, 0 or above. A token stays
            where it earns more than that.

    Raises:
        ValueError: The prompt is empty, the penalty is no price, or the task takes no written
            prompts.

    >>> from rlprompt.check.toy import toy_lm
    >>> from rlprompt.tasks import FunctionTask, RewardFunction
    >>> def politeness(prompt_text, examples):
    ...     return [float("please" in prompt_text)] * len(examples)
    >>> splits = Splits(*[(Example({"text": text}, ""),) for text in "abc"])
    >>> polite = FunctionTask("polite", splits, RewardFunction(politeness))
    >>> task, lm = CompressionTask(polite, "Do answer, please:", penalty=0.01), toy_lm()
    >>> prompts = [task.written(lm, text) for text in (task.prompt, "please")]
    >>> task.rewards(lm, prompts, splits.dev).round(2).tolist()  # a token is a byte here
    [[0.82], [0.94]]
    """

    # A soft prompt has as many vectors as it has.
    tokens_only: ClassVar[bool] = True

    task: Task
    prompt: str
    penalty: float

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        if not self.prompt.strip():
            raise ValueError("the prompt to compress is empty; give a text")
        if not 0 <= self.penalty < math.inf:
            raise ValueError(f"penalty is {self.penalty}; give the price of a token, 0 or above")
        object.__setattr__(self, "task", as_task(self.task))
        if not self.task.has("written"):
            raise ValueError(
                f"task {self.task.name!r} cannot place a written prompt in its template, so none "
                "can be compressed for it; give it hand_prompt and written(lm, text)"
            )

    @property
    def name(self) -> str:
        """What results call it."""
        return f"{self.task.name}-compression"

    @property
    def splits(self) -> Splits:
        """The other task's examples."""
        return self.task.splits

    @property
    def hand_prompt(self) -> str:
        """The long prompt."""
        return self.prompt

    @property
    def metric(self) -> str:
        """What the other task reports: what a shorter prompt costs is seen in it."""
        return "reward of the task" if self.task.metric == "reward" else self.task.metric

    @property
    def metric_range(self) -> tuple[float, float] | None:
        """That of the other task."""
        return self.task.metric_range

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides a reward; the long prompt does not."""
        state = f"compression {self.task.fingerprint} {self.penalty!r}"
        return hashlib.blake2b(state.encode(), digest_size=16).hexdigest()

    @property
    def reward(self) -> object:
        """What the other task's is called, of which a price is taken off; "" where it is not."""
        return getattr(self.task, "reward", "")

    def has(self, hook: str) -> bool:
        """See `Task.has`: what the model writes is told where the other task tells it."""
        return self.task.has(hook) if hook == "rewards_with_outputs" else super().has(hook)

    def class_prior(self, lm: FrozenLM, prompt: Prompt) -> Mapping[str, float] | None:
        """As the other task, of the prompt without blanks."""
        return self.task.class_prior(lm, self.shortened(lm, prompt))

    def log_priors(self, lm: FrozenLM, prompts: Sequence[Prompt]) -> Floats:
        """As the other task, of the prompts without blanks: (P, C) nats."""
        return self.task.log_priors(lm, self._short(lm, prompts))

    def knowing(self, lm: FrozenLM, prompts: Sequence[Prompt], priors: Floats) -> Self:
        """See `Task.knowing`."""
        short = self._short(lm, prompts)
        return replace(self, task=self.task.knowing(lm, short, priors))

    def written(self, lm: FrozenLM, text: str) -> TokenPrompt:
        """The prompt that a text makes; where the text spells the blank, there is none."""
        return self.task.written(lm, text)

    def calibrated(self) -> Self | None:
        """As the other task."""
        return self._of(self.task.calibrated())

    def uncalibrated(self) -> Self | None:
        """As the other task."""
        return self._of(self.task.uncalibrated())

    def fitted(self, lm: FrozenLM, n_prompt: int) -> Self:
        """See `Task.fitted`."""
        task = self.task.fitted(lm, n_prompt)
        return self if task is self.task else replace(self, task=task)

    def _of(self, task: Task | None) -> Self | None:
        """The same, of a variant of the other task."""
        return None if task is None else replace(self, task=task)

    def blank(self, lm: FrozenLM) -> int:
        """The id that stands for nothing.

        Raises:
            ValueError: The tokenizer has neither a pad nor an end token.
        """
        for blank in (lm.tokenizer.pad_token_id, lm.tokenizer.eos_token_id):
            if isinstance(blank, int):
                return blank
        raise ValueError(
            f"the tokenizer of {lm.name} has neither a pad nor an end token to mark dropped tokens "
            "with; choose another model"
        )

    def tokens(self, lm: FrozenLM) -> Sequence[int]:
        """See `Task.tokens`: the blank, and the ids of the long prompt."""
        return sorted({self.blank(lm), *self.written(lm, self.prompt).ids})

    def shortened(self, lm: FrozenLM, prompt: Prompt) -> TokenPrompt:
        """What the model is given: the prompt without blanks, of a text the tokens.

        Raises:
            ValueError: It is a soft prompt.
        """
        read = lm.fed(prompt)
        if not isinstance(read, TokenPrompt):
            raise ValueError(
                f"task {self.name!r} drops tokens of a prompt, and a soft prompt has none; use a "
                "method that searches tokens, or search fewer vectors on the task itself"
            )
        blank = self.blank(lm)
        return TokenPrompt([i for i in read.ids if i != blank])

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        """See `Task.rewards`."""
        short = self._short(lm, prompts)
        return self.task.rewards(lm, short, examples) - self._price(short)

    def rewards_with_outputs(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> tuple[Floats, Outputs]:
        """See `Task.rewards_with_outputs`."""
        short = self._short(lm, prompts)
        rewards, outputs = self.task.rewards_with_outputs(lm, short, examples)
        return rewards - self._price(short), outputs

    def feedback(
        self,
        lm: FrozenLM,
        prompts: Sequence[Prompt],
        examples: Sequence[Example],
        outputs: Outputs | None,
    ) -> Outputs | None:
        """As the other task, of the prompts without blanks."""
        return self.task.feedback(lm, self._short(lm, prompts), examples, outputs)

    def measure(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Measured:
        """Rewards, and the other task's metric and answers, (P, E) each."""
        short = self._short(lm, prompts)
        found = Measured(*self.task.measure(lm, short, examples))
        return found._replace(rewards=found.rewards - self._price(short))

    def _short(self, lm: FrozenLM, prompts: Sequence[Prompt]) -> list[TokenPrompt]:
        return [self.shortened(lm, prompt) for prompt in prompts]

    def _price(self, short: Sequence[TokenPrompt]) -> Floats:
        """What each prompt costs, (P, 1)."""
        return self.penalty * np.array([[len(prompt)] for prompt in short], dtype=np.float64)


# Hooks of `Task` that stay at their defaults. A blank has no vector, so there is no gradient; and
# examples that a prompt shows would be tokens at a price, and no part of the long prompt.
KEPT = (
    *("rewards_with_grad", "cross_entropy_with_grad", "gradient_rows"),
    *("demonstrations", "showable", "shown"),
)
# All else that is not said above is the other task's, also what `Task` comes to have.
for _name in members():
    if _name not in KEPT and _name not in vars(CompressionTask):
        setattr(CompressionTask, _name, property(attrgetter(f"task.{_name}")))
