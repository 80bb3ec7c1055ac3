"""How the texts of a task and its prompts are spelt in tokens, and what of them fits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Self

from rlprompt.data.examples import Example
from rlprompt.prompt import Prompt, TokenPrompt

if TYPE_CHECKING:
    from rlprompt.models.lm import FrozenLM


class Wording:
    """What texts make of prompts, and prompts of texts: without a template, a text's own tokens.

    >>> from rlprompt.check import toy_lm
    >>> from rlprompt.tasks import Task
    >>> prompt = Task().written(toy_lm(), " good")
    >>> Task().described(toy_lm(), prompt)
    (' good', True)
    """

    def written(self, lm: FrozenLM, text: str) -> TokenPrompt:
        """The prompt that a text makes: by default its tokens, wherever the prompt may stand."""
        return TokenPrompt(lm.encode(text))

    def spelt(self, lm: FrozenLM, text: str) -> TokenPrompt:
        """The prompt that exactly this text makes, without spaces of a template's."""
        return TokenPrompt(lm.encode(text))

    def placed(self, lm: FrozenLM, text: str) -> str:
        """A text as it stands in the prompt's place once `written`: by default as it is."""
        return text

    def described(self, lm: FrozenLM, prompt: TokenPrompt) -> tuple[str, bool]:
        """A prompt's text, and whether it is the same prompt again once that is typed in."""
        text = lm.decode(prompt.ids)
        return text, self.written(lm, text) == prompt

    def tokens(self, lm: FrozenLM) -> Sequence[int] | None:
        """Ids of the tokens that a prompt is made of; None for all that one can type."""
        return None

    def shortened(self, lm: FrozenLM, prompt: Prompt) -> Prompt:
        """What the model is given, and a person would use, of a prompt that was searched."""
        return prompt

    def lengths(self, lm: FrozenLM, examples: Sequence[Example]) -> list[tuple[int, int]] | None:
        """Of each example: tokens of its text around the prompt, and tokens fed of an answer.

        None where that is not known.
        """
        return None

    def fitted(self, lm: FrozenLM, n_prompt: int) -> Self:
        """The task with examples that leave room for a prompt of so many tokens.

        By default itself: whoever scores an example that is too long is told then.

        Raises:
            ValueError: An example does not fit, and is neither to be cut nor to be left out.
        """
        return self

    def spelling_warnings(self, lm: FrozenLM) -> Iterable[str]:
        """What a person should know of how the model's tokenizer spells texts and prompts."""
        return ()
