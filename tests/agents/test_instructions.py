"""Instructions bred by proposers that a test can read."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeTask, timeless
from stored_search import ME, Cut, everybody_dies, open_run
from tiny import tiny_lm
from writers import Diligent, Scripted, Typewriter

from rlprompt.agents.demonstrations import Demonstrations
from rlprompt.agents.instructions import Instructions
from rlprompt.agents.shared.proposer import Proposer
from rlprompt.agents.shared.requests import Shown
from rlprompt.check.toy import Call, ToyTask, toy_lm
from rlprompt.config.registry import make_optimiser
from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length, Prompt, TextPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.objective import Objective
from rlprompt.search.optimiser import Optimiser
from rlprompt.search.result import Result
from rlprompt.search.run import search
from rlprompt.search.space import TextSpace
from rlprompt.store.store import Store
from rlprompt.studies.experiment import Experiment
from rlprompt.tasks.base import Measured, Task
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.tasks.function import FunctionTask
from rlprompt.tasks.reward_function import reward
from rlprompt.template import Template
from rlprompt.types import Floats, Outputs

ANIMALS = ("cat", "dog", "cow", "pig")


def splits(words: Sequence[str]) -> Splits:
    train, dev, test = (
        tuple(Example({"text": f"{part} {i}"}, word) for i, word in enumerate(words))
        for part in ("train", "dev", "test")
    )
    return Splits(train, dev, test)


@dataclass(frozen=True)
class Wanted(Task):
    """Each example wants a word in the instruction, and the model says whether it found it."""

    splits: Splits = field(default_factory=lambda: splits(ANIMALS))
    hand_prompt: str = "Say"
    name: str = "wanted"
    fingerprint: str = "wanted"

    def rewards_with_outputs(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> tuple[Floats, Outputs]:
        outputs = tuple(
            tuple(
                e.label if isinstance(p, TextPrompt) and e.label in p.text.split() else "what?"
                for e in examples
            )
            for p in prompts
        )
        found = [[o == e.label for o, e in zip(row, examples, strict=True)] for row in outputs]
        return np.array(found, dtype=np.float64), outputs

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        return self.rewards_with_outputs(lm, prompts, examples)[0]

    def feedback(
        self,
        lm: FrozenLM,
        prompts: Sequence[Prompt],
        examples: Sequence[Example],
        outputs: Outputs | None,
    ) -> Outputs:
        return tuple(
            tuple("" if a == e.label else "not heard" for a, e in zip(row, examples, strict=True))
            for row in outputs or ()
        )


class Together(Wanted):
    scored_together = True


class Unanswered(Wanted):
    """One whose examples have no right answers, and that has no hand prompt, if none is given."""

    def __init__(self, hand_prompt: str = "") -> None:
        super().__init__(splits=splits(("", "", "", "")), hand_prompt=hand_prompt)


def ran(
    method: Instructions, task: Task, rows: int = 400, space: TextSpace | None = None
) -> Objective:
    objective = Objective(task, tiny_lm(), Budget(rows))
    method.run(objective, space or TextSpace(), np.random.default_rng(0))
    return objective


def test_the_population_is_what_was_proposed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rlprompt.agents.instructions")
    founders = ["Say cat", '"Say dog"']
    children = ["Say cat dog", "", "Say cat", "New instruction: Say cat dog cow", "Say\n\ncat"]
    writer = Scripted(answers=[*founders, *children])
    objective = ran(Instructions(writer, population=3, children=1, shown=2), Wanted())
    assert {one.prompt.text: one.reward for one in objective.ledger.best(9)} == {  # type: ignore[union-attr]
        "Say cat dog cow": 0.75,
        "Say cat dog": 0.5,
        "Say cat": 0.25,
        "Say dog": 0.25,
        "Say": 0.0,
    }
    # Twice known already, once empty, and "Say" alone of the last.
    last = "4 new, 8 empty, 2 repeated; at last ' \\n'"
    assert f"proposals by script ({last})" in caplog.text
    assert "nothing new came of 8 rounds of proposals by script" in caplog.text
    assert "the search ends with" in caplog.text
    asked = [request for _, requests in writer.asked for request in requests]
    assert objective.ledger.proposer_read == sum(len(request.split()) for request in asked)
    assert objective.ledger.proposer_written == sum(
        len(answer.split()) for answer in [*founders, *children]
    )
    assert [request.count("Output: ") for request in asked[:3]] == [2, 2, 0]


@pytest.mark.parametrize(
    "method",
    [Instructions(population=2, max_new_tokens=8), Demonstrations(at_most=2, first=0.02)],
    ids=["instructions", "demonstrations"],
)
class TestRaces:
    @pytest.mark.parametrize("together", [False, True])
    @pytest.mark.parametrize("rows", [300, 315, 331])
    def test_the_last_of_them_is_as_large_as_the_rows_see_through(
        self, method: Optimiser[Any], together: bool, rows: int
    ) -> None:
        """Nobody drops out where all earn the same: who is begun with is scored on all of train."""
        task = ToyTask(16, flat=True, scored_together=together)
        found = search(task, toy_lm(), method, rows, start="Sort it.")
        assert found.n_partial == 0 or together
        assert rows - found.rows < 16

    def test_who_races_is_paid_for_once_on_a_block(self, method: Optimiser[Any]) -> None:
        asked = Counter[tuple[Prompt, tuple[bytes, ...]]]()

        def note(call: Call) -> None:
            prompts, examples, _ = call
            if len(examples) < 16 and examples[0].fields["text"].startswith("train"):
                asked.update((prompt, tuple(e.key for e in examples)) for prompt in prompts)

        task = ToyTask(16, scored_together=True, asked=note)
        search(task, toy_lm(), method, 800, start="Sort it.")
        assert set(asked.values()) == {1}


def proposer(task: Task) -> Proposer:
    objective = Objective(task, tiny_lm(), Budget(100))
    decoding = Instructions().decoding
    return Proposer(Typewriter(), objective, TextSpace(), np.random.default_rng(0), decoding)


def test_what_a_proposer_is_shown_of_failures() -> None:
    asking = proposer(Wanted())
    prompt, rewards = TextPrompt("Say cat"), np.array([1.0, 0.0, 0.0, 0.0])
    shown = asking.failures(prompt, rewards, 2)
    worse = {Shown("train 1", "dog", "what?", "not heard"): 1}
    assert {one: 1 for one in shown} == worse | {Shown("train 2", "cow", "what?", "not heard"): 1}
    assert asking.objective.ledger.used == 2
    asking.failures(prompt, rewards, 2)
    assert asking.objective.ledger.used == 2  # what is known is not asked again
    asking.failures(prompt, np.zeros(4), 4)
    assert asking.objective.ledger.used == 4  # and of others nothing but what is not known


def test_where_examples_are_scored_together_answers_are_paid_once_a_parent() -> None:
    asking = proposer(Together())
    for n_parents, text in enumerate(("Say cat", "Say cat", "Say dog")):
        asking.failures(TextPrompt(text), np.zeros(4), 1)
        assert asking.objective.ledger.used == 4 * (1 + n_parents // 2)


@dataclass
class Unmeasured(FakeTask):
    """One whose `measure` gives no answers."""

    def measure(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Measured:
        rewards = self.rewards(lm, prompts, examples)
        return Measured(rewards, rewards)


@pytest.mark.parametrize(("task", "rows"), [(FakeTask(), 0), (Unmeasured(), 1)])
def test_of_a_task_that_does_not_tell_the_right_answers_are_shown(task: Task, rows: int) -> None:
    asking = proposer(task)
    for _ in range(2):
        (shown,) = asking.failures(TextPrompt("Say"), np.array([0.0, 1.0, 1.0]), 1)
        assert shown == Shown("train 0", "a")
    # It is asked once whether it tells, unless it has nothing that could.
    assert asking.objective.ledger.used == rows


def test_what_a_function_says_of_a_prompts_text_is_shown() -> None:
    def politely(prompt_text: str, examples: Sequence[Example]) -> Any:
        return [0.0] * len(examples), [f"no please in {prompt_text!r}"] * len(examples)

    asking = proposer(FunctionTask("polite", splits(("", "")), reward(politely)))
    (shown,) = asking.failures(TextPrompt("Say"), np.array([0.0, 1.0]), 1)
    assert shown == Shown("train 0", "", "", "no please in 'Say'")
    assert asking.objective.ledger.used == 0


def test_a_function_that_says_nothing_is_asked_once() -> None:
    asked = list[str]()

    def silent(prompt_text: str, examples: Sequence[Example]) -> Any:
        asked.append(prompt_text)
        return [0.0] * len(examples)

    asking = proposer(FunctionTask("silent", splits(("", "")), reward(silent)))
    for text in ("Say", "Tell", "Ask"):
        (shown,) = asking.failures(TextPrompt(text), np.array([0.0, 1.0]), 1)
        assert shown == Shown("train 0", "", "", "")
    assert asked == ["Say"]


def test_a_class_is_shown_by_its_word() -> None:
    words = {"positive": "good", "negative": "bad"}
    task = ClassificationTask("two", splits(tuple(words)), Template("{text} {prompt}"), words)
    asking = proposer(task)
    assert "Input: train 1\nOutput: bad" in asking.guess(2)
    (shown,) = asking.failures(TextPrompt(" So"), np.array([1.0, 0.0]), 1)
    assert shown.right in ("good", "bad")
    assert shown.answer in ("good", "bad")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_learns_where_the_moves_help(seed: int) -> None:
    words = tuple("abcdefghijkl")
    task = Wanted(splits=splits(words))

    def best(writer: Typewriter) -> float:
        method = Instructions(writer, population=4)
        result = search(task, tiny_lm(), method, 40 * len(words), seed=seed)
        return result.best.train_reward

    assert best(Diligent()) == 1
    assert best(Typewriter(words=words)) < 0.6


def searched(writer: Typewriter, task: Task, store: Store | None = None) -> Result:
    memo = None if store is None else store.record("walk", tiny_lm(), task, ME)
    method = Instructions(writer, population=5)
    return search(task, tiny_lm(), method, 120, seed=3, length=Length(64), memo=memo)


@pytest.mark.parametrize("where", ["in the task", "in the proposer"])
def test_a_search_that_is_cut_ends_as_an_undisturbed_one_and_asks_nothing_twice(
    tmp_path: Path, where: str
) -> None:
    def cut(n: int) -> None:
        if n == 6:
            raise Cut

    whole = Typewriter()
    undisturbed = searched(whole, FakeTask())
    path = tmp_path / "study.sqlite"
    first, then = Typewriter(), Typewriter()
    task = FakeTask(before=cut) if where == "in the task" else FakeTask()
    if where == "in the proposer":
        first.before = cut
    with open_run(path) as store, pytest.raises(Cut):
        searched(first, task, store)
    with open_run(path) as store:
        assert timeless(searched(then, FakeTask(), store)) == timeless(undisturbed)
        assert store.run("walk").strayed is None
    assert first.asked
    assert [*first.asked, *then.asked] == whole.asked
    assert set(Counter(whole.asked).values()) == {1}


def test_a_proposer_that_never_says_the_same_is_replayed(tmp_path: Path) -> None:
    class Moody(Typewriter):
        def answer(self, request: str, rng: np.random.Generator) -> str:
            return super().answer(request, np.random.default_rng())

    path = tmp_path / "study.sqlite"
    with open_run(path) as store:
        found = searched(Moody(), FakeTask(), store)
    again = Moody()
    with Store(path) as store:
        store.claim(ME, only={"walk"}, dead=everybody_dies)
        assert timeless(searched(again, FakeTask(), store)) == timeless(found)
    assert not again.asked


def test_two_methods_with_one_proposer_share_what_it_wrote_for_the_same(tmp_path: Path) -> None:
    writer = Typewriter()
    with open_run(tmp_path / "study.sqlite") as store:
        searched(writer, FakeTask(), store)
        n_asked = len(writer.asked)
        memo = store.memo(tiny_lm(), FakeTask())
        search(FakeTask(), tiny_lm(), Instructions(writer, population=5), 120, seed=3, memo=memo)
        assert len(writer.asked) == n_asked
        search(FakeTask(), tiny_lm(), Instructions(writer, population=5), 40, seed=4, memo=memo)
        assert len(writer.asked) > n_asked


def test_proposals_that_are_too_long_are_not_scored(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rlprompt.agents.instructions")
    space = TextSpace((TextPrompt("Say"),), 2, lambda text: len(text.split()))
    writer = Scripted(answers=["Say it at once", "Say cat"])
    objective = ran(Instructions(writer, population=3), Wanted(), space=space)
    assert objective.ledger.n_prompts == 2
    assert "1 too long, 1 new" in caplog.text


def test_what_is_banned_is_not_scored(caplog: pytest.LogCaptureFixture) -> None:
    """Neither as a proposal nor as the hand prompt."""
    caplog.set_level(logging.INFO, "rlprompt.agents.instructions")
    space = TextSpace.from_lm(tiny_lm(), banned=["say", "cow"])
    writer = Scripted(answers=["Say cat", "Name a COW", "Name a cat"])
    objective = ran(Instructions(writer, population=3), Wanted(), space=space)
    assert [one.prompt for one in objective.ledger.best(9)] == [TextPrompt("Name a cat")]
    assert "2 banned, 1 new" in caplog.text


def test_the_start_comes_before_the_hand_prompt() -> None:
    space = TextSpace((TextPrompt("Name a cat"),))
    objective = ran(Instructions(Scripted()), Wanted(), space=space)
    assert [one.prompt for one in objective.ledger.best(9)] == [TextPrompt("Name a cat")]


def test_a_proposer_that_writes_nothing_ends_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"no instruction came of script \(64 empty; at last") as e:
        ran(Instructions(Scripted()), Wanted(hand_prompt=""))
    assert "give `start:` to begin with, or take a larger proposer" in str(e.value)


def test_nothing_to_begin_with_is_an_error() -> None:
    with pytest.raises(ValueError, match="task 'wanted' has no hand prompt to begin with"):
        ran(Instructions(Typewriter()), Unanswered())
    hers = Unanswered(hand_prompt="Name a cow")
    for space, why in (
        (TextSpace.from_lm(tiny_lm(), banned=["COW"]), "uses 'cow', which `banned` forbids"),
        (TextSpace.from_lm(tiny_lm(), 1), "has more tokens than the 1 allowed"),
    ):
        said = f"no hand prompt to begin with (its own {why}), and its train examples no answers"
        with pytest.raises(ValueError, match=re.escape(said)):
            ran(Instructions(Typewriter()), hers, space=space)
    space = TextSpace((TextPrompt("Say"),))
    assert ran(Instructions(Typewriter()), Unanswered(), rows=40, space=space).ledger.n_prompts > 1


def test_a_writer_that_gives_too_few_answers_is_named() -> None:
    class Lazy(Typewriter):
        def write(self, requests: Sequence[str], decoding: Any) -> list[Any]:
            return super().write(requests, decoding)[:-1]

    with pytest.raises(ValueError, match="typewriter gave 7 answers to 8 requests"):
        ran(Instructions(Lazy()), Wanted(hand_prompt=""))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 0}, "population is 1 or more, got 0"),
        ({"children": 0}, "children is 1 or more"),
        ({"failures": -1}, "failures is 1 or more"),
        ({"temperature": -1}, r"temperature is -1; give 0 \(greedy\) or above"),
        ({"top_p": 0}, "top_p is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
    ],
)
def test_settings_out_of_range(settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Instructions(**settings)


@pytest.mark.parametrize(
    ("proposer", "message"),
    [("no/such folder", "no/such folder"), ({"revision": "x"}, "a proposer is a model's name")],
)
def test_a_proposer_that_is_no_model_is_refused_before_a_row_is_paid(
    proposer: Any, message: str
) -> None:
    task, method = FakeTask(), Instructions(proposer)
    with pytest.raises(ValueError, match=message):
        search(task, tiny_lm(), method, 100)
    with pytest.raises(ValueError, match=message):
        Experiment("a", task, tiny_lm(), {"instructions": method}, Budget(100))
    assert not task.calls


@pytest.mark.parametrize(
    "proposer", [None, "smollm2-135m", {"name": "m", "revision": "x"}, {"url": "http://a/v1"}]
)
def test_a_proposer_is_set_in_an_experiment_as_a_model_is(proposer: Any) -> None:
    place = "rlprompt.agents.instructions:Instructions"
    made: Any = make_optimiser(place, {"proposer": proposer, "population": 3})
    assert (made.proposer, made.population) == (proposer, 3)


def test_a_proposer_of_another_type_is_no_setting() -> None:
    with pytest.raises(ValueError, match="Instructions: proposer"):
        make_optimiser("rlprompt.agents.instructions:Instructions", {"proposer": 3})


def test_a_model_that_cannot_write_needs_another_proposer() -> None:
    with pytest.raises(ValueError, match="it fills gaps and cannot write on"):
        search(Wanted(), tiny_lm("bert"), Instructions(), 100)
    assert search(Wanted(), tiny_lm("bert"), Instructions(Typewriter()), 40).rows > 36
