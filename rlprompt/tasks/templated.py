"""Tasks whose prompts stand in a template: how their texts, prompts and answers become tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlprompt.data.examples import Example
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import TokenPrompt
from rlprompt.tasks.base import Task
from rlprompt.template import Query, Template

# Train examples around which a prompt is typed to see whether that gives its tokens again.
TYPED_EXAMPLES = 32


class TemplateTask(Task):
    """A task with a template.

    Attributes:
        template: Where text, prompt and answer go.
    """

    if TYPE_CHECKING:

        @property
        def template(self) -> Template: ...  # noqa: D102

    def queries(self, lm: FrozenLM, examples: Sequence[Example]) -> list[Query]:
        """The examples as the model sees them."""
        return [self.template.query(example.fields, lm) for example in examples]

    def read_train(self, lm: FrozenLM) -> None:
        """See `Task.read_train`."""
        lm.keep(self.queries(lm, self.splits.train))

    def written(self, lm: FrozenLM, text: str) -> TokenPrompt:
        """The prompt that a text makes in this template."""
        return self.spelt(lm, self.template.on(lm).prompt_text(text))

    def spelt(self, lm: FrozenLM, text: str) -> TokenPrompt:
        """See `Task.spelt`."""
        return TokenPrompt(self.template.prompt_ids(lm, text))

    def described(self, lm: FrozenLM, prompt: TokenPrompt) -> tuple[str, bool]:
        """See `Task.described`: typed around the texts of train."""
        text = self.template.prompt_shown(lm, prompt.ids)
        if self.written(lm, text) != prompt:
            return text, False
        own = self.template.on(lm)
        typed = own.prompt_text(text)
        for example in self.splits.train[:TYPED_EXAMPLES]:
            query = own.query(example.fields, lm)
            in_place = query.head_ids + prompt.ids + query.tail_ids
            if own.typed(example.fields, lm, typed) != in_place:
                return text, False
        return text, True
