from __future__ import annotations

import importlib
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import tiny_lm

from rlprompt.config.registry import settings_of, summary_of
from rlprompt.prompt import TokenPrompt
from rlprompt.tasks import induction
from rlprompt.tasks import induction_data as facts
from rlprompt.tasks.generation import GenerationTask
from rlprompt.tasks.induction import INDUCTIONS
from rlprompt.tasks.metrics import metric

NAMES = {
    "antonyms": "antonyms",
    "plurals": "plurals",
    "past-tense": "past_tense",
    "capitals": "capitals",
    "number-words": "number_words",
    "numerals": "numerals",
    "first-letter": "first_letter",
    "last-letter": "last_letter",
    "spelling": "spelling",
    "larger-animal": "larger_animal",
    "sum": "sum_of_two",
}
every_task = pytest.mark.parametrize("name", NAMES)


def factory(name: str) -> Callable[..., GenerationTask]:
    made: Callable[..., GenerationTask] = getattr(induction, NAMES[name])
    return made


def test_all_of_them_are_entry_points() -> None:
    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    points = pyproject["project"]["entry-points"]["rlprompt.tasks"]
    assert set(NAMES) == set(INDUCTIONS)
    for name, attribute in NAMES.items():
        assert points[name] == f"rlprompt.tasks.induction:{attribute}"
    style = "rlprompt.tasks.style_transfer:StyleTransferTask.from_file"
    assert points["style-transfer"] == style
    assert points["compression"] == "rlprompt.tasks.compression:CompressionTask"
    for module in ("induction", "style_transfer", "compression"):
        importlib.import_module(f"rlprompt.tasks.{module}")


@every_task
def test_splits_have_the_sizes_asked_for_and_share_nothing(name: str) -> None:
    splits = factory(name)(shots=20, test=30, seed=3).splits
    assert [len(part) for part in splits.parts().values()] == [20, 20, 30]
    assert len({e.content for part in splits.parts().values() for e in part}) == 70
    assert splits.notes == ()


def test_a_test_set_that_is_too_small_is_noted_without_demonstrations() -> None:
    shots = (len(INDUCTIONS["antonyms"].facts()) - 60) // 2
    whole = factory("antonyms")(shots=shots).splits
    n_left = len(whole.test)
    shown = factory("antonyms")(shots=shots, test=100, demonstrations=5).splits
    assert shown.notes == (f"test has {n_left - 5} examples, 100 were asked for",)
    assert shown.test == whole.test[5:]
    fewer = factory("antonyms")(shots=shots, test=9, demonstrations=5).splits
    assert (fewer.test, fewer.notes) == (whole.test[5:14], ())
    with pytest.raises(ValueError, match="n_test is 0; give 1 or more"):
        factory("antonyms")(shots=shots, test=0, demonstrations=5)


@every_task
def test_the_seed_decides_the_splits(name: str) -> None:
    make = factory(name)
    assert make(seed=1).splits == make(seed=1).splits
    assert make(seed=1).fingerprint == make(seed=1).fingerprint
    assert make(seed=1).splits != make(seed=2).splits
    assert make(seed=1).fingerprint != make(seed=2).fingerprint


@every_task
def test_test_is_all_that_is_left(name: str) -> None:
    splits = factory(name)(shots=10).splits
    assert len(splits.test) == len(INDUCTIONS[name].facts()) - 20


@every_task
def test_more_than_there_is_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="1000 shots need 2000"):
        factory(name)(shots=1000)


@every_task
def test_it_can_be_set_from_a_file(name: str) -> None:
    """What the registry needs of a factory: keyword settings with defaults, and a summary."""
    made = factory(name)
    settings = settings_of(made)
    assert settings["hand_prompt"] == INDUCTIONS[name].instruction
    assert settings["max_new_tokens"] == INDUCTIONS[name].max_new_tokens
    assert summary_of(made).startswith("Find the instruction: ")
    task = made(hand_prompt="Do it.", template="{prompt} {text} =", max_new_tokens=3, shots=2)
    assert (task.hand_prompt, task.template.text) == ("Do it.", "{prompt} {text} =")
    assert (task.name, task.max_new_tokens) == (name, 3)


@every_task
def test_the_right_answer_is_worth_one_and_others_nothing(name: str) -> None:
    """Also after the metric has normalised them: no answer is or becomes empty."""
    exact_match = metric("exact_match")
    answers = sorted({answer for _, answer in INDUCTIONS[name].facts()})
    shifted = answers[1:] + answers[:1]
    assert list(exact_match([f" {answer}" for answer in answers], answers)) == [1.0] * len(answers)
    assert list(exact_match([""] * len(answers), answers)) == [0.0] * len(answers)
    assert list(exact_match(shifted, answers)) == [0.0] * len(answers)


@every_task
def test_its_references_may_be_the_reward(name: str) -> None:
    lm = tiny_lm(max_position_embeddings=512)
    task = factory(name)(shots=2, test=2, reward="log_likelihood", select_by="metric")
    assert (task.metric, task.select_by) == ("exact_match", "metric")
    assert (task.rewards(lm, [TokenPrompt((20, 30))], task.splits.train) < 0).all()


def test_letters() -> None:
    firsts = dict(INDUCTIONS["first-letter"].facts())
    lasts = dict(INDUCTIONS["last-letter"].facts())
    spelt = dict(INDUCTIONS["spelling"].facts())
    assert (firsts["winter"], lasts["winter"], spelt["winter"]) == ("w", "r", "w i n t e r")
    assert "apple" in facts.words()
    assert "apple" not in firsts
    assert "apple" not in spelt
    assert lasts["apple"] == "e"
    assert all(spelling.replace(" ", "") == word for word, spelling in spelt.items())


def test_numerals_are_number_words_the_other_way_round() -> None:
    assert dict(INDUCTIONS["numerals"].facts())["forty-two thousand"] == "42000"


@every_task
def test_answers_end_before_they_are_cut(name: str) -> None:
    """Even for a tokenizer that spells every letter of a number a token."""
    longest = max(len(answer.split()) for _, answer in INDUCTIONS[name].facts())
    assert longest < INDUCTIONS[name].max_new_tokens


def test_demonstrations_stand_after_the_prompt_and_in_no_split() -> None:
    task = induction.antonyms(shots=10, test=20, demonstrations=2, seed=1)
    lines = task.template.text.split("\n")
    assert (lines[0], lines[5:]) == ("{prompt}", ["Input: {text}", "Output:"])
    shown = {lines[i].removeprefix("Input: "): lines[i + 1] for i in (1, 3)}
    opposites = dict(facts.antonyms())
    assert shown == {word: f"Output: {opposites[word]}" for word in shown}
    assert len(shown) == 2
    parts = task.splits.parts()
    assert [len(part) for part in parts.values()] == [10, 10, 20]
    assert not shown.keys() & {e.fields["text"] for part in parts.values() for e in part}
    plain = induction.antonyms(shots=10, test=20, seed=1)
    assert (plain.splits.train, plain.splits.dev) == (task.splits.train, task.splits.dev)


def test_demonstrations_may_hold_braces() -> None:
    def facts() -> list[tuple[str, str]]:
        return [(f"return {{x: {i}}}", f"yield f'{{prompt}}' {{text}} {{}} {i}") for i in range(9)]

    made = induction.preset("code", induction.Induction(facts, "Say it.", 4))
    task = made(shots=2, test=4, demonstrations=1)
    assert task.template.fields == ("text",)
    shown = task.template.answered({"text": "pass"}, " none")
    (question, answer), *_ = [fact for fact in facts() if fact[0] in shown]
    asked = f"Input: {question}\nOutput: {answer}\nInput: pass\nOutput: none"
    assert shown.strip() == asked


def test_demonstrations_are_a_count() -> None:
    with pytest.raises(ValueError, match="give 0 or more"):
        induction.antonyms(demonstrations=-1)
    with pytest.raises(ValueError, match="the test split is empty"):
        induction.antonyms(demonstrations=1000)


@pytest.mark.parametrize("template", ["{prompt} {word}", "{prompt}", "{text} {prompt} {mask}"])
def test_a_template_that_asks_for_something_else_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"it needs \{prompt\} and \{text\}"):
        induction.antonyms(template=template)


def test_the_model_is_asked_in_the_template() -> None:
    lm = tiny_lm()
    task = induction.capitals(shots=2, test=3)
    prompts = [TokenPrompt(), task.written(lm, task.hand_prompt)]
    rewards, outputs = task.rewards_with_outputs(lm, prompts, task.splits.test)
    assert rewards.shape == (2, 3)
    assert [len(row) for row in outputs] == [3, 3]
    query = task.template.query({"text": "Peru"}, lm)
    text = lm.decode(query.head_ids) + "|" + lm.decode(query.tail_ids)
    assert text == "|\nInput: Peru\nOutput:"
