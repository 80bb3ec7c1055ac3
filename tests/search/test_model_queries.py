"""What a model answers is told for its rows, and what a writer writes beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fakes import FakeTask, Remembered
from tiny import tiny_lm
from writers import Typewriter

from rlprompt.models.decoding import Decoding
from rlprompt.prompt import TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.memo import Scope, WritingQuestion
from rlprompt.search.objective import BudgetExhausted, Objective
from rlprompt.tasks.base import Measured

PROMPT = TokenPrompt((5, 6))


class Told(FakeTask):
    """One that says what was answered, beside the rewards."""

    def measure(self, lm: Any, prompts: Any, examples: Any) -> Measured:
        rewards = self.rewards(lm, prompts, examples)
        answers = tuple(tuple(f"to {one.fields['text']}" for one in examples) for _ in prompts)
        return Measured(rewards, rewards, answers)


class Together(Told):
    scored_together = True


def test_answers_cost_the_rows_of_their_examples() -> None:
    task, memo = Told(), Remembered()
    objective = Objective(task, tiny_lm(), Budget(6), memo=memo)
    before = objective.evaluate([PROMPT]).rewards
    assert objective.answers(PROMPT, [2, 0]) == ("to train 2", "to train 0")
    assert (objective.ledger.used, objective.ledger.n_prompts) == (5, 1)
    assert objective.ledger.n_partial == 0  # it is known whole
    with pytest.raises(BudgetExhausted):
        objective.answers(PROMPT, [0, 1])
    # They are remembered apart from rewards alone.
    again = Objective(task, tiny_lm(), Budget(6), memo=memo)
    n_calls = len(task.calls)
    assert again.answers(PROMPT, [0, 2]) == ("to train 0", "to train 2")
    assert again.evaluate([PROMPT]).rewards == before
    assert len(task.calls) == n_calls


def test_answers_may_come_with_rewards_for_the_same_rows() -> None:
    memo, objective = Remembered(), Objective(Told(), tiny_lm(), Budget(9))
    plain = objective.evaluate([PROMPT])
    assert plain.outputs is None
    for task in (Told(), Told()):
        again = Objective(task, tiny_lm(), Budget(9), memo=memo)
        told = again.evaluate([PROMPT], told=True)
        assert told.outputs == (("to train 0", "to train 1", "to train 2"),)
        assert told.rewards == plain.rewards
        assert again.evaluate([PROMPT], [2, 0], told=True).outputs == (
            ("to train 2", "to train 0"),
        )
        assert (again.ledger.used, again.ledger.n_prompts) == (5, 1)
    assert task.calls == []  # remembered


def test_where_examples_are_scored_together_all_of_them_are_paid() -> None:
    objective = Objective(Together(), tiny_lm(), Budget(9))
    assert objective.answers(PROMPT, [2]) == ("to train 2",)
    assert objective.ledger.used == 3


def test_a_task_that_does_not_tell() -> None:
    objective = Objective(FakeTask(), tiny_lm(), Budget(9))
    assert objective.answers(PROMPT, [1]) is None
    assert objective.ledger.used == 0  # it has nothing that could


def test_what_is_written_is_metered_and_asked_once() -> None:
    writer, memo, decoding = Typewriter(), Remembered(), Decoding(8, seed=2)
    for rounds in (1, 2):
        objective = Objective(FakeTask(), tiny_lm(), Budget(9), memo=memo)
        first = objective.written(writer, ["say one", "say it all"], decoding)
        assert [one.n_written for one in first] == [4, 4]
        ledger = objective.ledger
        assert (ledger.used, ledger.proposer_read, ledger.proposer_written) == (0, 5, 8)
        assert ledger.own_tokens == 0
        assert len(writer.asked) == 1, rounds
    objective.written(writer, ["say one"], decoding)
    assert len(writer.asked) == 2


def test_writer_requests_and_decoding_decide_what_is_found() -> None:
    scope = Scope("model", "task", "examples")
    asked = WritingQuestion("a", ("x", "y"), Decoding(8))
    keys = {
        question.key(scope)
        for question in (
            asked,
            WritingQuestion("b", ("x", "y"), Decoding(8)),
            WritingQuestion("a", ("y", "x"), Decoding(8)),
            WritingQuestion("a", ("x", "y"), Decoding(8, seed=1)),
        )
    }
    assert len(keys) == 4
    assert asked.key(Scope("other", "task of others", "")) in keys  # the same in all tasks


def test_seconds_of_an_earlier_process_count() -> None:
    class Slow(Remembered):
        def put(self, question: Any, answer: Any) -> Any:
            return super().put(question, answer._replace(seconds=100.0))

    memo = Slow()
    for _ in range(2):
        objective = Objective(FakeTask(), tiny_lm(), Budget(9), memo=memo)
        objective.written(Typewriter(), ["say"], Decoding(8))
        assert objective.ledger.proposer_seconds == 100
    assert np.isclose(objective.waited, 0, atol=5)
