from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from fakes import FakeTask
from tiny import HIDDEN, tiny_lm

from rlprompt.agents.greedy import Greedy
from rlprompt.agents.ppo import PPO
from rlprompt.agents.random_search import RandomSearch
from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import SoftPrompt, TokenPrompt
from rlprompt.search.optimiser import Optimiser
from rlprompt.search.run import search
from rlprompt.search.space import TokenSpace
from rlprompt.tasks.base import Task, prompt_rows
from rlprompt.tasks.base import members as task_members
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.tasks.compression import KEPT, CompressionTask
from rlprompt.tasks.generation import GenerationTask
from rlprompt.template import Template

LONG = "the film was great"


def split(name: str, n: int) -> tuple[Example, ...]:
    return tuple(Example({"text": f"{name} {i}"}, ("neg", "pos")[i % 2]) for i in range(n))


BASE = ClassificationTask(
    "film",
    Splits(split("train", 4), split("dev", 3), split("test", 3)),
    Template("{text} {prompt}"),
    {"neg": "bad", "pos": "good"},
    "cross_entropy",
)
TASK = CompressionTask(BASE, LONG, 0.25)
PAD = 0


def test_it_is_all_that_a_task_can_be() -> None:
    assert isinstance(TASK, Task)
    assert all(TASK.has(hook) for hook in ("written", "measure", "tokens"))
    assert (TASK.name, TASK.hand_prompt, TASK.metric) == ("film-compression", LONG, "accuracy")
    assert TASK.splits is BASE.splits
    assert TASK.tokens_only


def test_blanks_count_for_nothing_wherever_they_are() -> None:
    lm = tiny_lm()
    assert TASK.blank(lm) == PAD
    prompts = [TokenPrompt(ids) for ids in [(PAD, 40, PAD, 41), (40, 41, PAD, PAD), (40, 41)]]
    assert {TASK.shortened(lm, prompt) for prompt in prompts} == {TokenPrompt((40, 41))}
    first, *others = TASK.rewards(lm, prompts, BASE.splits.dev)
    assert all(np.array_equal(first, other) for other in others)


def test_every_kept_token_costs_the_penalty() -> None:
    lm = tiny_lm()
    prompts = [TokenPrompt(ids) for ids in [(40, 41, 42), (PAD, 41, PAD), (PAD, PAD, PAD)]]
    short = [TokenPrompt((40, 41, 42)), TokenPrompt((41,)), TokenPrompt()]
    price = [[0.75], [0.25], [0.0]]
    rewards, metric, _ = TASK.measure(lm, prompts, BASE.splits.dev)
    expected, accuracy, _ = BASE.measure(lm, short, BASE.splits.dev)
    np.testing.assert_allclose(rewards, expected - price, atol=1e-6)
    assert np.array_equal(metric, accuracy)
    np.testing.assert_allclose(TASK.rewards(lm, prompts, BASE.splits.dev), rewards, atol=1e-6)


def test_prompts_are_made_of_the_long_one_and_blanks() -> None:
    lm = tiny_lm()
    written = TASK.written(lm, LONG)
    assert lm.decode(written.ids) == f" {LONG}"
    assert TASK.tokens(lm) == sorted({PAD, *written.ids})
    space = TokenSpace.from_lm(lm, 3, banned=["great"], tokens=TASK.tokens(lm))
    assert [lm.decode([i]) for i in space.allowed] == ["<pad>", " film", " the", " was"]


class Counting(FakeTask):
    """Two words are worth something, so that the best prompt of any length is known."""

    hand_prompt = ""

    def written(self, lm: object, text: str) -> TokenPrompt:
        return TokenPrompt(tiny_lm().encode(f" {text}"))

    def worth(self, prompt: object, example: object) -> float:
        assert isinstance(prompt, TokenPrompt)
        return float(len({*prompt.ids} & {*self.written(None, "film great").ids}))


@pytest.mark.parametrize(
    "optimiser", [RandomSearch(), Greedy(), PPO()], ids=lambda one: type(one).__name__
)
def test_every_method_for_tokens_finds_the_short_prompt(optimiser: Optimiser[Any]) -> None:
    lm, task = tiny_lm(), CompressionTask(Counting(), LONG, 0.25)
    result = search(task, lm, optimiser, 3 * 400, length=4, seed=1)
    found = result.candidates[0]
    assert isinstance(found.prompt, TokenPrompt)
    short = task.shortened(lm, found.prompt)
    assert sorted(lm.decode([i]) for i in short.ids) == [" film", " great"]
    assert found.train_reward == 1.5
    assert found.text == lm.decode(short.ids)  # without blanks, as a person would type it


class Dear(Counting):
    extra_rows = 5


def test_what_the_other_task_costs_is_paid_for() -> None:
    assert prompt_rows(TASK) == 4
    assert prompt_rows(CompressionTask(Dear(), LONG, 0.25)) == prompt_rows(Dear()) == 8


def test_all_else_is_the_other_tasks() -> None:
    """Also what `Task` comes to have: each public member is here, or named as left out."""
    members = task_members() | {"has"}
    own = {name for name in members if not isinstance(vars(CompressionTask).get(name), property)}
    passed = members - own - {"hand_prompt", "metric"}
    assert members - set(vars(CompressionTask)) == set(KEPT)
    assert {"read_train", "class_words", "spelling_warnings", "label_word_report"} <= passed
    assert {"lengths", "judge_tokens", "split_rows", "set_metric", "usage"} <= passed
    for name in passed:
        assert getattr(TASK, name) == getattr(BASE, name)


def test_its_classes_and_their_words_are_known() -> None:
    assert TASK.class_words == {"neg": ("bad",), "pos": ("good",)}
    report = TASK.label_word_report(tiny_lm())
    assert report is not None
    assert [word.word for word in report.words] == ["bad", "good"]


def test_its_calibrated_twins_are_compressions_too() -> None:
    plain = CompressionTask(dataclasses.replace(BASE, calibration="none"), LONG, 0.25)
    contextual = plain.calibrated()
    assert isinstance(contextual, CompressionTask)
    assert (contextual.penalty, contextual.split_rows("dev", 3)) == (0.25, 5)  # and 2 texts
    assert plain.uncalibrated() is None
    assert BASE.calibration == "batch"
    assert TASK.calibrated() is None
    assert TASK.uncalibrated() == plain


def test_what_is_written_is_told_and_priced() -> None:
    lm = tiny_lm()
    splits = Splits(split("train", 2), split("dev", 2), split("test", 2))
    writes = GenerationTask("film", splits, Template("{text} {prompt}"), "contains")
    task = CompressionTask(writes, LONG, 0.25)
    prompts = [TokenPrompt((40, PAD, 41)), TokenPrompt((41,))]
    assert task.has("rewards_with_outputs")
    assert not TASK.has("rewards_with_outputs")
    rewards, outputs = task.rewards_with_outputs(lm, prompts, splits.dev)
    short = [TokenPrompt((40, 41)), TokenPrompt((41,))]
    own, written = writes.rewards_with_outputs(lm, short, splits.dev)
    assert outputs == written
    np.testing.assert_allclose(rewards, own - [[0.5], [0.25]])


def test_the_price_and_the_task_decide_the_fingerprint() -> None:
    others = [
        dataclasses.replace(TASK, penalty=0.5),
        dataclasses.replace(TASK, task=dataclasses.replace(BASE, reward="gap")),
    ]
    assert len({TASK.fingerprint, BASE.fingerprint, *(one.fingerprint for one in others)}) == 4
    assert dataclasses.replace(TASK, prompt="the film").fingerprint == TASK.fingerprint


@pytest.mark.parametrize("penalty", [-0.1, float("nan"), float("inf")])
def test_a_penalty_is_a_price(penalty: float) -> None:
    with pytest.raises(ValueError, match="give the price of a token"):
        CompressionTask(BASE, LONG, penalty)


def test_nothing_to_compress_is_refused() -> None:
    with pytest.raises(ValueError, match="the prompt to compress is empty"):
        CompressionTask(BASE, " ", 0.1)


def test_a_task_without_written_prompts_is_refused() -> None:
    with pytest.raises(ValueError, match="task 'fake' cannot place"):
        CompressionTask(FakeTask(), LONG, 0.1)


def test_soft_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="a soft prompt has none"):
        TASK.rewards(tiny_lm(), [SoftPrompt(np.zeros((2, HIDDEN)))], BASE.splits.dev)


@pytest.mark.parametrize(("pad", "end", "blank"), [(7, 2, 7), (None, 2, 2), (0, None, 0)])
def test_the_blank_is_the_pad_or_else_the_end(pad: int | None, end: int | None, blank: int) -> None:
    assert TASK.blank(lm_with(pad, end)) == blank


def test_a_tokenizer_without_a_blank_is_named() -> None:
    with pytest.raises(ValueError, match="bare has neither a pad nor an end token"):
        TASK.blank(lm_with(None, None))


def lm_with(pad: int | None, end: int | None) -> FrozenLM:
    tokenizer = SimpleNamespace(pad_token_id=pad, eos_token_id=end)
    return cast(FrozenLM, SimpleNamespace(name="bare", tokenizer=tokenizer))
