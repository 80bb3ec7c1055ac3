"""That nothing is written is said, with what may help, by the check and before a search is paid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from broken_tasks import GoodTask
from fakes import fake_splits
from tiny import tiny_lm

from rlprompt.agents.random_search import RandomSearch
from rlprompt.check.empty_answers import empty_answers
from rlprompt.check.task import check_task
from rlprompt.search.budget import Budget
from rlprompt.studies.experiment import Experiment
from rlprompt.studies.run import compare
from rlprompt.tasks.generation import GenerationTask
from rlprompt.template import Template


class Mute(GenerationTask):
    """A task in which the model has nothing to say."""

    def rewards_with_outputs(self, lm: Any, prompts: Any, examples: Any) -> Any:
        rewards, _ = super().rewards_with_outputs(lm, prompts, examples)
        texts = tuple(tuple("" for _ in examples) for _ in prompts)
        return (rewards if self.reward == "log_likelihood" else 0 * rewards), texts


TASK = Mute("say", fake_splits(), Template("{prompt} {text}:"), "exact_match", max_new_tokens=2)
CHAT = Template.of({"system": "{prompt}", "user": "{text}"})


def test_it_is_said_where_nearly_every_answer_under_every_prompt_is_empty() -> None:
    nothing = ("", " ", "\n") * 10
    both = {"the empty prompt": nothing, "another": (*nothing[:28], "so", "no")}
    text = empty_answers(both, TASK)
    assert text.startswith(
        "under the empty prompt and another the model writes nothing: 58 of 60 answers end at "
        "their first token, or are white space. What may help: `reward: log_likelihood`"
    )
    assert empty_answers({**both, "another": ("a",) * 4 + ("",) * 26}, TASK) == ""
    assert empty_answers({}, TASK) == ""


@pytest.mark.parametrize(
    ("changes", "there", "absent"),
    [
        ({}, "log_likelihood; example; the text before the prompt; chat; min_new_tokens", ""),
        ({"template": Template("{text} {prompt}")}, "example; chat", "the text before the prompt"),
        ({"template": CHAT}, "the text before the prompt", "a chat"),
        ({"min_new_tokens": 1}, "example", "min_new_tokens"),
        ({"splits": replace(fake_splits(), train=fake_splits().train[:1])}, "log_likelihood", ""),
        ({"reward": "log_likelihood"}, "the metric does; example", "`reward: log_likelihood`"),
    ],
)
def test_what_a_task_has_is_not_advised(changes: Any, there: str, absent: str) -> None:
    text = empty_answers({"the empty prompt": ("", "")}, replace(TASK, **changes))
    assert all(word in text for word in there.split("; "))
    assert not absent or absent not in text


def test_a_task_of_ones_own_is_told_what_may_help_any() -> None:
    text = empty_answers({"the empty prompt": ("",)}, GoodTask())
    assert text.endswith("What may help: a worked example in the template")


@pytest.mark.parametrize("reward", ["exact_match", "log_likelihood"])
def test_the_check_says_so(reward: str) -> None:
    report = check_task(replace(TASK, reward=reward, hand_prompt="it was"), tiny_lm())
    (found,) = (finding for finding in report.findings if finding.name == "writing")
    assert found.status == "warn"
    assert "under the empty prompt, the hand-written one and a random one" in found.text


def test_the_check_passes_what_is_written() -> None:
    wordy = GenerationTask("say", TASK.splits, TASK.template, "contains", max_new_tokens=2)
    report = check_task(wordy, tiny_lm())
    assert [one.status for one in report.findings if one.name == "writing"] == ["pass"]


def test_a_comparison_says_so_before_a_search_is_paid_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Begun(Exception):  # noqa: N818
        pass

    class Watcher:
        def begin(self, search: Any) -> None:
            raise Begun

    made = replace(TASK, hand_prompt="it was")
    methods = {"random": RandomSearch()}
    experiment = Experiment("one", made, tiny_lm(), methods, Budget(30), length=2)
    with pytest.raises(Begun):
        compare(experiment, tmp_path / "mute", Watcher())  # type: ignore[arg-type]
    (said,) = (record.message for record in caplog.records if "writes nothing" in record.message)
    assert said.startswith(
        "task say on tiny-llama: under the empty prompt, the hand-written prompt and the best word "
        "the model writes nothing: 15 of 15 answers"
    )
