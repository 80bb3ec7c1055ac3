"""A task of a function: its reward is one of the prompt's text, and no model is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from fakes import fake_splits
from tiny import tiny_lm

from rlprompt.data.examples import Example
from rlprompt.prompt import SoftPrompt, TokenPrompt
from rlprompt.tasks.function import FunctionTask
from rlprompt.tasks.reward_function import reward

EXAMPLES = fake_splits().train


def politeness(prompt_text: str, examples: Sequence[Example]) -> list[float]:
    return [len(prompt_text) + len(example.fields["text"]) for example in examples]


def test_rewards_are_those_of_the_prompts_text() -> None:
    lm = tiny_lm("llama")
    task = FunctionTask("polite", fake_splits(), reward(politeness), "please")
    prompts = [TokenPrompt((5, 6)), TokenPrompt(), task.written(lm, "please")]
    texts = [lm.decode(prompt.ids) for prompt in prompts]
    rewards = task.rewards(lm, prompts, EXAMPLES)
    assert rewards.tolist() == [politeness(text, EXAMPLES) for text in texts]
    assert texts[2] == "please"


def test_it_may_say_in_words_what_a_prompt_lacks() -> None:
    def politely(prompt_text: str, examples: Sequence[Example]) -> Any:
        return [0.0] * len(examples), [f"no please in {prompt_text!r}"] * len(examples)

    lm = tiny_lm("llama")
    task = FunctionTask("polite", fake_splits(), reward(politely))
    said = task.feedback(lm, [task.written(lm, "do it")], EXAMPLES)
    assert said == (("no please in 'do it'",) * 3,)


def test_what_it_says_of_one_prompt_stays_with_it() -> None:
    def rudely(prompt_text: str, examples: Sequence[Example]) -> Any:
        rewards = [0.0] * len(examples)
        return rewards if "please" in prompt_text else (rewards, ["rude"] * len(examples))

    lm = tiny_lm("llama")
    task = FunctionTask("polite", fake_splits(), reward(rudely))
    prompts = [task.written(lm, text) for text in ("please", "do it")]
    assert task.feedback(lm, prompts, EXAMPLES) == (("",) * 3, ("rude",) * 3)
    assert task.feedback(lm, prompts[:1], EXAMPLES) is None


def test_a_soft_prompt_and_a_reward_of_outputs_are_refused() -> None:
    task = FunctionTask("polite", fake_splits(), reward(politeness))
    with pytest.raises(ValueError, match="use a method that searches tokens"):
        task.rewards(tiny_lm("llama"), [SoftPrompt(np.zeros((1, 32), np.float32))], EXAMPLES)
    with pytest.raises(ValueError, match="which needs the model: use a GenerationTask"):
        FunctionTask("polite", fake_splits(), reward(lambda outputs, examples: [0.0]))
