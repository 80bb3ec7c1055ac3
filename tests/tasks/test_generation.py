from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import fake_splits
from hypothesis import given, settings
from hypothesis import strategies as st
from sayings import says
from tiny import TinyKind, tiny_lm

from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.tasks.generation import GenerationTask
from rlprompt.tasks.reward_function import RewardError, reward
from rlprompt.template import Template

PROMPTS: list[Prompt] = [TokenPrompt((20, 30)), TokenPrompt((40,)), TokenPrompt()]
SPLITS = fake_splits()
ASKED = tuple(
    replace(example, label=label)
    for example, label in zip(SPLITS.train, ("yes", "no", "no"), strict=True)
)


@reward
def length(outputs: Sequence[str], examples: Sequence[Example]) -> list[float]:
    return [float(len(output)) for output in outputs]


@reward
def told(outputs: Sequence[str], examples: Sequence[Example]) -> tuple[list[float], list[str]]:
    lengths = [len(output) for output in outputs]
    return [float(n) for n in lengths], [f"{n} letters" for n in lengths]


@reward
def told_of_long_ones(outputs: Sequence[str], examples: Sequence[Example]) -> Any:
    """Says something of all, or of none."""
    rewards = [float(len(output)) for output in outputs]
    return (rewards, ["long"] * len(outputs)) if max(map(len, outputs)) > 3 else rewards


@reward
def of_the_prompt(prompt_text: str, examples: Sequence[Example]) -> list[float]:
    return [0.0] * len(examples)


@reward
def fails_on_one(outputs: Sequence[str], examples: Sequence[Example]) -> list[float]:
    return [1 / (example.fields["text"] != "train 1") for example in examples]


@reward
def new_to_the_prompt(
    outputs: Sequence[str], examples: Sequence[Example], prompts: Sequence[str]
) -> list[float]:
    return [float(output not in prompt) for output, prompt in zip(outputs, prompts, strict=True)]


@reward
def one_too_few(outputs: Sequence[str], examples: Sequence[Example]) -> list[float]:
    return [0.0] * (len(outputs) - 1)


def numbered() -> Splits:
    """The examples with numbers for references."""
    train, dev, test = (
        tuple(replace(one, label="2") for one in part) for part in SPLITS.parts().values()
    )
    return Splits(train, dev, test)


def task(**changes: Any) -> GenerationTask:
    made = GenerationTask(
        "written", SPLITS, Template("{text} {prompt}"), length, max_new_tokens=5, stop=()
    )
    return replace(made, **changes)


def test_is_a_task_that_writes_and_that_people_can_write_for(lm: FrozenLM) -> None:
    assert task().has("rewards_with_outputs")
    assert task().has("written")
    assert task().written(lm, " good ").ids == lm.encode(" good")


@pytest.mark.parametrize("kind", ["llama", "t5", "bloom"])
def test_rewards_are_those_of_what_the_model_writes(kind: TinyKind) -> None:
    lm, examples = tiny_lm(kind), SPLITS.train
    rewards, outputs = task().rewards_with_outputs(lm, PROMPTS, examples)
    queries = [Template("{text} {prompt}").query(e.fields, lm) for e in examples]
    answers = lm.generate(PROMPTS, queries, max_new_tokens=5)
    assert outputs == tuple(tuple(a.text.strip() for a in row) for row in answers)
    assert rewards.tolist() == [[len(text) for text in row] for row in outputs]
    assert rewards.shape == (3, 3)
    assert np.array_equal(task().rewards(lm, PROMPTS, examples), rewards)


def test_soft_prompts_are_rewarded_too(lm: FrozenLM) -> None:
    vectors = SoftPrompt(lm.embeddings()[[20, 30]])
    soft = task().rewards_with_outputs(lm, [vectors], SPLITS.train)
    tokens = task().rewards_with_outputs(lm, PROMPTS[:1], SPLITS.train)
    assert soft[1] == tokens[1]
    assert np.array_equal(soft[0], tokens[0])


class TestReward:
    def test_a_metric_compares_with_the_label(self) -> None:
        made = task(reward="exact_match")
        assert made.rewards(says(" Yes\n", "no", "yes"), PROMPTS, ASKED).tolist() == [[1, 1, 0]] * 3

    def test_metrics_add_up_by_their_weights(self) -> None:
        mixed = task(reward={"contains": 2.0, "regex:^[a-z]+$": -0.5})
        rewards = mixed.rewards(says("oh yes", "no", "x"), PROMPTS[:1], ASKED)
        assert rewards.tolist() == [[2.0, 1.5, -0.5]]

    def test_every_token_written_costs_the_penalty(self) -> None:
        rewards = task(length_penalty=0.25).rewards(says("x", "xyz", ""), PROMPTS[:1], SPLITS.train)
        assert rewards.tolist() == [[0.75, 2.25, 0.0]]

    def test_a_function_may_see_the_text_of_the_prompt(self, lm: FrozenLM) -> None:
        made = task(reward=new_to_the_prompt)
        prompts: list[Prompt] = [made.written(lm, "it was"), made.written(lm, "good")]
        rewards = made.rewards(says("good", "was", ""), prompts, SPLITS.train)
        assert rewards.tolist() == [[1, 0, 0], [0, 1, 0]]
        assert made.tokens_only
        assert not task().tokens_only
        with pytest.raises(ValueError, match="a soft prompt has none; use a method that searches"):
            made.rewards(lm, [SoftPrompt(lm.embeddings()[[20]])], SPLITS.train)

    def test_a_metric_may_have_settings_and_a_list_has_weights(self) -> None:
        close = {"name": "number", "tolerance": 0.5}
        asked = tuple(replace(one, label="2") for one in ASKED)
        lm = says("about 2.5", "3", "2")
        assert task(reward=close, splits=numbered()).rewards(lm, PROMPTS[:1], asked).tolist() == [
            [1, 0, 1]
        ]
        both = [close | {"weight": 2}, {"name": "exact_match"}]
        rewards = task(reward=both, splits=numbered()).rewards(lm, PROMPTS[:1], asked)
        assert rewards.tolist() == [[2, 0, 3]]

    def test_a_reported_metric_may_have_settings(self, lm: FrozenLM) -> None:
        made = GenerationTask.from_file(
            [{"text": f"so {i}", "label": i} for i in range(4)],
            template="{text} {prompt}",
            label="label",
            reward="log_likelihood",
            metric={"name": "number", "tolerance": 9},
            shots=1,
        )
        assert (made.metric, made.metric_settings) == ("number", {"tolerance": 9})
        plain = replace(made, metric_settings={})
        assert plain.fingerprint != made.fingerprint
        assert replace(made, name="x").fingerprint == made.fingerprint

    def test_what_a_function_says_in_words_is_had_without_the_model(self, lm: FrozenLM) -> None:
        made = task(reward=told)
        rewards, outputs = made.rewards_with_outputs(lm, PROMPTS, SPLITS.train)
        assert rewards.tolist() == [[len(text) for text in row] for row in outputs]
        said = made.feedback(says(), PROMPTS, SPLITS.train, outputs)
        assert said == tuple(tuple(f"{len(text)} letters" for text in row) for row in outputs)
        assert made.feedback(lm, PROMPTS, SPLITS.train, None) is None
        assert task().feedback(lm, PROMPTS, SPLITS.train, outputs) is None

    def test_what_is_said_of_one_prompt_stays_with_it(self, lm: FrozenLM) -> None:
        made = task(reward=told_of_long_ones)
        n = len(SPLITS.train)
        outputs = (("no",) * n, ("much",) * n)
        said = made.feedback(lm, PROMPTS[:2], SPLITS.train, outputs)
        assert said == (("",) * n, ("long",) * n)
        assert made.feedback(lm, PROMPTS[:1], SPLITS.train, outputs[:1]) is None

    def test_a_function_that_fails_is_told_with_prompt_and_example(self, lm: FrozenLM) -> None:
        with pytest.raises(RewardError, match=r"ZeroDivisionError.*train.csv:3.*under the prompt"):
            task(reward=fails_on_one).rewards(lm, PROMPTS, SPLITS.train)
        with pytest.raises(RewardError, match="gave 2 rewards under the prompt"):
            task(reward=one_too_few).rewards(lm, PROMPTS, SPLITS.train)


@settings(max_examples=15)
@given(st.data())
def test_a_reward_hangs_on_its_own_prompt_and_example(data: st.DataObject) -> None:
    temperature = data.draw(st.sampled_from([0.0, 0.9]))
    lm, made = tiny_lm(), task(temperature=temperature, stop=("e",))
    examples = SPLITS.train + SPLITS.dev
    whole, outputs = made.rewards_with_outputs(lm, PROMPTS, examples)
    p = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=4))
    e = data.draw(st.lists(st.integers(0, len(examples) - 1), min_size=1, max_size=4))
    some, texts = made.rewards_with_outputs(lm, [PROMPTS[i] for i in p], [examples[i] for i in e])
    assert np.array_equal(some, whole[np.ix_(p, e)])
    assert texts == tuple(tuple(outputs[i][j] for j in e) for i in p)


def test_whatever_decides_a_reward_is_in_the_fingerprint() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"template": Template("{text}: {prompt}")},
        {"reward": "exact_match"},
        {"reward": {"exact_match": 0.5}},
        {"reward": {"name": "number"}, "splits": numbered()},
        {"reward": {"name": "number", "tolerance": 1}, "splits": numbered()},
        {"reward": fails_on_one},
        {"max_new_tokens": 6},
        {"stop": ("\n",)},
        {"temperature": 0.5},
        {"seed": 1},
        {"length_penalty": 0.1},
        {"splits": fake_splits(2)},
    ]
    assert len({task(**change).fingerprint for change in changes}) == len(changes)
    assert task(name="x", hand_prompt="y").fingerprint == task().fingerprint
    assert task(stop=[]).fingerprint == task().fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"template": Template("{text} {prompt} {mask}")}, r"has a \{mask\}; leave it out"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"stop": "\n"}, "give a list of strings"),
        ({"length_penalty": -1.0}, "length_penalty is -1.0; give 0 or above"),
        ({"reward": "rouge"}, "no metric is called 'rouge'; did you mean 'rouge"),
        ({"reward": {}}, "reward names no metric; give one of exact_match"),
        ({"reward": {"bleu": float("nan")}}, "the weight of 'bleu' is nan; give a number"),
        ({"reward": [{"name": "bleu", "weight": "1"}]}, "the weight of 'bleu' is '1'; give a num"),
        ({"reward": []}, "reward names no metric"),
        ({"reward": [{"weight": 1}]}, "a metric has a name"),
        ({"reward": {"name": "log_likelihood"}}, "log_likelihood is a reward by itself"),
        ({"reward": "number"}, "train.csv:2 has the reference 'a', which the metric number cannot"),
        (
            {"reward": "exact_match", "metric_settings": {"x": 1}, "metric": "bleu"},
            "no setting 'x'",
        ),
        ({"reward": of_the_prompt}, "not what the model writes: use a FunctionTask"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(**changes)


def test_a_metric_that_compares_needs_references() -> None:
    train, dev, test = (
        tuple(replace(e, label="") for e in part) for part in SPLITS.parts().values()
    )
    bare = Splits(train, dev, test)
    with pytest.raises(ValueError, match=r"exact_match needs one for every.*\(label\)"):
        task(splits=bare, reward="exact_match")
    task(splits=bare, reward="regex:[0-9]")
    # Each example is compared: where nothing is right, everything or nothing would be.
    for label in ("", " \n"):
        some = replace(SPLITS, dev=(replace(SPLITS.dev[0], label=label), *SPLITS.dev[1:]))
        for metrics in ({"reward": "contains"}, {"reward": length, "metric": "contains"}):
            with pytest.raises(ValueError, match=r"csv:2 has no reference answer, and contains"):
                task(splits=some, **metrics)
        task(splits=some, reward="regex:[0-9]")


class TestFromFile:
    @pytest.fixture
    def data(self, tmp_path: Path) -> str:
        path = tmp_path / "sums.csv"
        rows = [f"what is {i} plus {i},{2 * i}" for i in range(12)]
        path.write_text("\n".join(["question,sum", *rows]))
        (tmp_path / "rewards.py").write_text(
            "def digits(outputs, examples):\n"
            "    return [sum(map(str.isdigit, output)) for output in outputs]\n"
        )
        return str(path)

    def test_the_label_is_the_reference(self, data: str, lm: FrozenLM) -> None:
        made = GenerationTask.from_file(
            data, template="{question}? {prompt}", label="sum", reward="token_f1", shots=3
        )
        assert made.name == "sums"
        assert [len(part) for part in made.splits.parts().values()] == [3, 3, 6]
        assert all(int(e.label) % 2 == 0 for e in made.splits.train)
        assert made.rewards(lm, PROMPTS, made.splits.train).shape == (3, 3)

    def test_a_reward_may_be_a_function_in_a_file(self, data: str, tmp_path: Path) -> None:
        made = GenerationTask.from_file(
            data,
            template="{question}? {prompt}",
            reward=f"{tmp_path / 'rewards.py'}:digits",
            shots=2,
        )
        rewards = made.rewards(says("12 or 3", "none"), PROMPTS[:1], made.splits.train[:2])
        assert rewards.tolist() == [[3.0, 0.0]]


def test_a_masked_model_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match="cannot write on; take a causal or encoder-decoder"):
        task().rewards(tiny_lm("bert"), PROMPTS, SPLITS.train)


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        ({"reward": {"exact_match": 0.75, "contains": 0.25}}, (0, 1)),
        ({"reward": {"exact_match": 0.6, "contains": 0.3, "token_f1": 0.1}}, (0, 1)),
        ({"reward": [{"name": "exact_match"}, {"name": "contains", "weight": -0.5}]}, (-0.5, 1)),
        ({"reward": "exact_match", "length_penalty": 0.01, "max_new_tokens": 20}, (-0.2, 1)),
        ({"reward": length}, None),
        ({"reward": length, "metric": "exact_match"}, (0, 1)),
        ({"reward": "log_likelihood"}, (0, 1)),  # and an exact match in reports
        ({"reward": "log_likelihood", "metric": "reward"}, None),
    ],
)
def test_what_its_metric_lies_between_is_known_of_metrics_alone(
    settings: dict[str, Any], known: tuple[float, float] | None
) -> None:
    task = GenerationTask("t", numbered(), Template("{text} {prompt}"), **settings)
    assert task.metric_range == known
