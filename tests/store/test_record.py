"""Replays: a run is given again what it was given, and nothing that it did not ask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from optimisers import Climb, Walk
from stored_search import (
    EDITED,
    ME,
    ROWS,
    Counted,
    Cut,
    classification,
    everybody_dies,
    go,
    nobody_dies,
    open_run,
    same,
)
from synthetic import N_EXAMPLES, SPLITS, HiddenVectors, HiddenWords
from tiny import tiny_lm

from rlprompt.data.examples import Example
from rlprompt.prompt import SoftPrompt, TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.memo import Answer, TrainQuestion
from rlprompt.search.run import search
from rlprompt.store.database import StoreError
from rlprompt.store.store import Store
from rlprompt.tasks.base import GRADIENT_ROWS
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.types import Loss


@pytest.mark.parametrize("last", [0, 3, 6, 17, 40, 69])
def test_a_cut_search_goes_on_and_pays_each_prompt_once(path: Path, last: int) -> None:
    whole = search(Counted(), tiny_lm(), Walk(), ROWS, seed=3, length=3)
    counts: list[int] = []
    with open_run(path) as store, pytest.raises(Cut):
        go(store, Counted(counts=counts, last=last), Walk())
    with open_run(path) as store:
        resumed = go(store, Counted(counts=counts), Walk())
        same(resumed, whole)
        # The last is the picked prompt, scored on train once more after the search.
        assert sum(counts) == whole.n_prompts + 1
        state = store.run("walk")
        assert (state.used, state.n_prompts, state.strayed) == (whole.rows, whole.n_prompts, None)
        assert state.best_reward == whole.trace[-1][1]
        assert state.seconds == resumed.lm_seconds


def test_gradients_are_paid_once_and_seconds_are_those_of_the_first_time(path: Path) -> None:
    with open_run(path) as store:
        first = go(store, HiddenVectors(), Climb())
    with open_run(path) as store:
        again = go(store, HiddenVectors(), Climb())
        same(first, again)
        assert again.lm_seconds == first.lm_seconds
        (batch, *_) = store.batches("walk")
        assert batch.gradient
        assert batch.cost == GRADIENT_ROWS * N_EXAMPLES
        assert batch.prompts[0] is not None
        assert batch.prompts[0].digest == batch.digests[0]


@dataclass(frozen=True)
class Dearer(HiddenVectors):
    """What it computes for a gradient beside that is charged."""

    extra: int = 1

    def gradient_rows(self, n_examples: int, loss: Loss = "reward") -> int:
        return super().gradient_rows(n_examples, loss) + self.extra


def test_a_gradient_is_charged_in_the_store_as_in_the_search(path: Path) -> None:
    with open_run(path) as store:
        found = go(store, Dearer(), Climb())
        assert {batch.cost for batch in store.batches("walk")} == {3 * N_EXAMPLES + 1}
        assert store.run("walk").used == found.rows == (ROWS // 13) * 13


def test_a_run_that_was_charged_otherwise_does_not_go_on(path: Path) -> None:
    with open_run(path) as store:
        go(store, HiddenVectors(), Climb())
        with pytest.raises(StoreError, match="12 rows for a gradient on 4 examples, which costs"):
            go(store, Dearer(), Climb())


def test_a_stopped_search_stops_at_the_same_place_when_replayed(path: Path) -> None:
    lm, task = tiny_lm(), HiddenWords()
    budget = Budget(ROWS, seconds=1e-6)
    results = []
    for _ in range(2):
        with open_run(path) as store:
            record = store.record("walk", lm, task, ME)
            results.append(search(task, lm, Walk(), budget, seed=3, length=3, memo=record))
    assert 0 < results[0].rows < ROWS
    same(*results)
    assert results[0].lm_seconds == results[1].lm_seconds


def test_a_question_without_an_answer_is_scored_and_marks_the_run(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_run(path) as store:
        go(store, HiddenWords(), Walk())
    # As if the machine rounded otherwise: another search under the same name.
    with open_run(path) as store:
        result = go(store, HiddenWords(), Walk(batch=7))
        state = store.run("walk")
        assert state.strayed == 0
        assert (state.used, state.n_prompts) == (result.rows, result.n_prompts)
        assert sum(len(batch.digests) for batch in store.batches("walk")) == result.n_prompts
    assert "does not repeat itself" in caplog.text
    same(result, search(HiddenWords(), tiny_lm(), Walk(batch=7), ROWS, seed=3, length=3))


OTHER_LABEL = (Example({"text": "train 0"}, "bad"), *SPLITS.train[1:])


@pytest.mark.parametrize(
    ("lm", "task"),
    [
        ({"seed": 1}, classification()),
        ({"kind": "gpt2"}, classification()),
        ({}, classification(EDITED)),
        ({}, classification(OTHER_LABEL)),
        ({}, classification(word="good")),
        ({}, classification(template="{text}: {prompt}")),
        ({}, classification(reward="hinge")),
    ],
    ids=["weights", "kind", "text", "label", "word", "template", "reward"],
)
def test_the_cache_never_answers_for_another_question(
    path: Path, lm: dict[str, object], task: ClassificationTask
) -> None:
    prompts = (TokenPrompt((10, 11)), TokenPrompt((12, 13)))
    question = TrainQuestion(prompts)
    with open_run(path) as store:
        first = store.record("walk", tiny_lm(), classification(), ME)
        kept = first.put(question, Answer(np.ones((2, N_EXAMPLES)), None, 1.0))
        assert kept.per_example.tolist() == [[1.0] * N_EXAMPLES] * 2
        assert store.record("walk", tiny_lm(), classification(), ME).get(question)
        other = store.record("walk", tiny_lm(**lm), task, ME)
        assert other.get(question) is None
        same_question = store.record("walk", tiny_lm(), classification(), ME)
        assert same_question.get(TrainQuestion(prompts[::-1])) is None
        assert same_question.get(TrainQuestion(prompts, gradient=True)) is None


def test_the_gradient_of_a_reward_never_answers_for_that_of_another_loss(path: Path) -> None:
    prompts, ones = (SoftPrompt(np.ones((1, 2))),), np.ones((1, N_EXAMPLES))
    own = TrainQuestion(prompts, gradient=True)
    other = TrainQuestion(prompts, gradient=True, loss="cross_entropy")
    with open_run(path) as store:
        record = store.record("walk", tiny_lm(), classification(), ME)
        record.put(own, Answer(ones, np.full((1, 1, 2), 3, np.float32), 1.0))
        assert record.get(other) is None
        record.put(other, Answer(ones, np.full((1, 1, 2), 4, np.float32), 1.0))
        kept = [record.get(question) for question in (own, other)]
        assert [float(one.gradients[0, 0, 0]) for one in kept if one] == [3, 4]  # type: ignore[index]


def test_the_gradients_of_token_prompts_are_kept_as_theirs(path: Path) -> None:
    prompts = TokenPrompt((5, 6)), TokenPrompt((7, 8))
    question = TrainQuestion(prompts, gradient=True, loss="cross_entropy")
    gradients = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    with open_run(path) as store:
        record = store.record("walk", tiny_lm(), classification(), ME)
        record.put(question, Answer(np.ones((2, N_EXAMPLES)), gradients, 1.0))
        assert record.get(TrainQuestion(prompts)) is None
        (batch,) = store.batches("walk")
        assert batch.gradient
        assert (batch.prompts, batch.cost) == (prompts, GRADIENT_ROWS * N_EXAMPLES)
    with open_run(path) as store:
        again = store.record("walk", tiny_lm(), classification(), ME).get(question)
        assert again is not None
        assert again.gradients is not None
        assert again.gradients.tolist() == gradients.tolist()


def test_what_two_ask_at_once_has_one_answer(path: Path) -> None:
    question = TrainQuestion((TokenPrompt((10, 11)),))
    with Store(path) as store:
        store.plan({}, {"a": {}, "b": {}})
        records = []
        for name in ("a", "b"):
            store.claim(ME, only={name}, dead=nobody_dies)
            records.append(store.record(name, tiny_lm(), HiddenWords(), ME))
        answers = [
            record.put(question, Answer(np.full((1, N_EXAMPLES), float(i)), None, 1.0))
            for i, record in enumerate(records)
        ]
    assert answers[0].per_example.tolist() == answers[1].per_example.tolist()


QUESTIONS = tuple(TrainQuestion((TokenPrompt((10 + i, 20)),)) for i in range(4))


def answer(value: float) -> Answer:
    return Answer(np.full((1, N_EXAMPLES), value), None, 1.0)


def asked(store: Store, name: str = "walk") -> list[tuple[str, ...]]:
    return [batch.digests for batch in store.batches(name)]


def digests(*questions: TrainQuestion) -> list[tuple[str, ...]]:
    return [tuple(prompt.digest for prompt in question.prompts) for question in questions]


def with_three(path: Path) -> Store:
    """A store whose run was given the answers to three questions."""
    store = open_run(path)
    record = store.record("walk", tiny_lm(), HiddenWords(), ME)
    for i, question in enumerate(QUESTIONS[:3]):
        record.put(question, answer(float(i)))
    return store


def test_a_replay_in_the_same_order_changes_nothing(path: Path) -> None:
    with with_three(path) as store:
        before = store.run("walk")
        again = store.record("walk", tiny_lm(), HiddenWords(), ME)
        for i, question in enumerate(QUESTIONS[:3]):
            found = again.get(question)
            assert found is not None
            assert found.per_example.tolist() == [[float(i)] * N_EXAMPLES]
        assert store.run("walk") == before
        assert asked(store) == digests(*QUESTIONS[:3])


def test_a_replay_in_another_order_is_caught(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second, third, _ = QUESTIONS
    with with_three(path) as store:
        again = store.record("walk", tiny_lm(), HiddenWords(), ME)
        again.get(first)
        again.get(third)
        state = store.run("walk")
        assert (state.strayed, state.n_prompts, state.used) == (1, 2, 2 * N_EXAMPLES)
        assert asked(store) == digests(first, third)
        again.get(second)
        state = store.run("walk")
        assert (state.strayed, state.best_reward, state.seconds) == (1, 2.0, 3.0)
        assert asked(store) == digests(first, third, second)
    assert "walk does not repeat itself: batch 1 asks for other prompts" in caplog.text


def test_a_replay_with_other_prompts_is_caught(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, _, new = QUESTIONS
    with with_three(path) as store:
        again = store.record("walk", tiny_lm(), HiddenWords(), ME)
        again.get(first)
        again.get(second)
        assert again.get(new) is None
        assert store.run("walk").strayed is None  # nothing was given yet
        again.put(new, answer(9.0))
        state = store.run("walk")
        assert (state.strayed, state.best_reward, state.n_prompts) == (2, 9.0, 3)
        assert asked(store) == digests(first, second, new)
    assert "batch 2 asks for other prompts" in caplog.text


def test_who_lost_a_run_writes_nothing_about_it(path: Path) -> None:
    new = QUESTIONS[3]
    with with_three(path) as store:
        lost = store.record("walk", tiny_lm(), HiddenWords(), ME)
        assert store.claim("other", only={"walk"}, dead=everybody_dies) == "walk"
        before = store.run("walk")
        for question in QUESTIONS[:3]:
            assert lost.get(question) is not None  # reading does no harm
        with pytest.raises(StoreError, match="walk was taken over by another worker"):
            lost.put(new, answer(9.0))
        # Another order would be entered, too.
        with pytest.raises(StoreError, match="taken over"):
            store.record("walk", tiny_lm(), HiddenWords(), ME).get(QUESTIONS[1])
        assert store.run("walk") == before
        assert asked(store) == digests(*QUESTIONS[:3])
        # Nor is the answer there, which was part of the same transaction.
        assert store.memo(tiny_lm(), HiddenWords()).get(new) is None
