"""Searches of text: where they look, what they begin with, and that they go on after a stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import class_task, writing_task
from fakes import FakeTask, Remembered
from optimisers import Rephrase
from stored_search import Cut, goes_on
from tiny import CONTEXT, tiny_lm

from rlprompt.check.optimiser import check_optimiser
from rlprompt.envs import EditPromptEnv, EmbeddingPromptEnv, TokenPromptEnv
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length, SoftPrompt, Start, TextPrompt, TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.evaluation import describe
from rlprompt.search.make_space import make_space
from rlprompt.search.objective import Objective
from rlprompt.search.result import Result, prompt_from_state, prompt_state
from rlprompt.search.run import search
from rlprompt.search.selection import Selection, entrants
from rlprompt.search.space import SoftSpace, TextSpace, TokenSpace
from rlprompt.tasks.base import Task
from rlprompt.tasks.compression import CompressionTask


def space(task: Task | None = None, length: int | Length = 5, **settings: Any) -> TextSpace:
    rng = np.random.default_rng(0)
    banned = settings.pop("banned", ())
    made = make_space("text", tiny_lm(), length, banned, rng, task, **settings)
    assert isinstance(made, TextSpace)
    return made


class TestSpace:
    def test_what_it_contains(self) -> None:
        made = TextSpace.from_lm(tiny_lm(), at_most=2)
        assert made.contains(TextPrompt(" it was"))
        assert made.contains(TextPrompt(""))
        assert not made.contains(TextPrompt(" it was good"))
        assert not made.contains(TokenPrompt((5,)))
        assert TextSpace().contains(TextPrompt("x" * 999))

    def test_what_is_banned_is_in_none(self) -> None:
        made = space(class_task(hand_prompt="it was"), banned=["Good"], start="hand")
        assert made.contains(TextPrompt("Say goodness"))
        assert not made.contains(TextPrompt("Say good"))
        assert list(made.banned("Say GOOD")) == ["good"]
        said = "the start ' it was' uses 'it', which `banned` forbids: change one of the two"
        with pytest.raises(ValueError, match=said):
            space(class_task(hand_prompt="it was"), banned=["good", "it"], start="hand")

    def test_what_makes_none(self) -> None:
        with pytest.raises(ValueError, match="nobody counts them here: give `count`"):
            TextSpace(at_most=3)
        with pytest.raises(ValueError, match="one token or more, got length 0"):
            TextSpace.from_lm(tiny_lm(), at_most=0)
        with pytest.raises(ValueError, match="' it was good' has more tokens than the 2"):
            TextSpace.from_lm(tiny_lm(), 2, [TextPrompt(" it was good")])

    def test_an_exact_length_is_no_limit_and_a_range_is(self) -> None:
        assert space().at_most is None
        assert space(length=Length(7)).at_most == 7

    def test_no_text_is_longer_than_the_longest_example_leaves_room_for(self) -> None:
        task = class_task()
        sizes = [task.lengths(tiny_lm(), part) for part in task.splits.parts().values()]
        longest = max(sum(size) for part in sizes for size in part)
        assert space(task).at_most == CONTEXT - longest
        assert space(task, Length(7)).at_most == 7


class TestStarts:
    @pytest.mark.parametrize(
        ("start", "texts"),
        [
            ("vocabulary", []),
            ("hand", [" it was"]),
            ("auto", [" it was"]),
            (["the film", "hand", "the film"], [" the film", " it was"]),
            (TextPrompt("the film"), ["the film"]),
            (TokenPrompt(tiny_lm().encode(" bad it")), [" bad it"]),
        ],
    )
    def test_they_are_texts_in_the_prompts_place(
        self, start: Start | list[Start], texts: list[str]
    ) -> None:
        made = space(class_task(hand_prompt="it was"), start=start)
        assert [one.text for one in made.starts] == texts

    @pytest.mark.parametrize(
        ("start", "said"),
        [
            ("hand", "has no hand prompt"),
            ("common-words", "a start of common-words is one of tokens"),
            (SoftPrompt(np.zeros((2, 32))), "a start of vectors has no text"),
            (" it was" * 4, "has more tokens than the 7"),
        ],
    )
    def test_what_is_none(self, start: Start, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            space(class_task(), Length(7), start=start)

    def test_a_text_is_a_start_for_tokens_and_vectors_too(self) -> None:
        lm, task, start = tiny_lm(), class_task(), TextPrompt(" it was")
        rng = np.random.default_rng(0)
        tokens = make_space("tokens", lm, 2, (), rng, task, start=start)
        assert isinstance(tokens, TokenSpace)
        assert tokens.starts == (TokenPrompt(lm.encode(" it was")),)
        soft = make_space("soft", lm, 2, (), rng, task, start=start)
        assert isinstance(soft, SoftSpace)
        assert np.array_equal(soft.start, lm.embeddings(lm.encode(" it was")))


def searched(task: Task, **settings: Any) -> Result:
    return search(task, tiny_lm(), Rephrase(), 30 * len(task.splits.train), seed=1, **settings)


@pytest.fixture(scope="module")
def found() -> Result:
    return searched(class_task(calibration="batch", hand_prompt="it was"), start="hand")


class TestSearch:
    def test_a_prompt_is_picked_and_told_as_it_is(self, found: Result) -> None:
        best = found.best
        assert isinstance(best.prompt, TextPrompt)
        assert best.text == best.prompt.text
        assert best.tokens == best.length == len(tiny_lm().encode(best.text))
        assert best.test is not None
        assert found.analysis is not None
        assert found.analysis.pieces == ()
        assert found.test_prompts == 1
        assert found.n_distinct is not None
        assert found.n_distinct > 3
        assert Result.from_json(found.to_json()) == found

    def test_lengths_are_those_of_tokens(self, found: Result) -> None:
        task, lm, memo = class_task(hand_prompt="it was"), tiny_lm(), Remembered()
        result = searched(task, start="hand", memo=memo)
        asked = [p for question in memo.answers for p in getattr(question, "prompts", ())]
        assert {len(lm.encode(p.text)) for p in asked} != {0}
        sizes = [sum(size) for size in task.lengths(lm, task.splits.train)]
        assert result.tokens_per_row is not None
        assert 0 < result.tokens_per_row - np.mean(sizes) < 60

    def test_where_all_prompts_are_empty_a_row_has_no_token_of_a_prompt(self) -> None:
        task, lm = class_task(calibration="none"), tiny_lm()
        result = search(task, lm, Rephrase(), len(task.splits.train))
        assert (result.n_prompts, result.best.text) == (1, "")
        sizes = [sum(size) for size in task.lengths(lm, task.splits.train)]
        assert result.tokens_per_row == pytest.approx(np.mean(sizes))

    def test_its_rewards_are_those_of_its_tokens(self) -> None:
        task, lm = class_task(calibration="batch"), tiny_lm()
        prompts = TextPrompt(" it was"), TokenPrompt(lm.encode(" it was"))
        train = task.splits.train
        own, other = (Objective(task, lm, Budget(99)).evaluate([one]) for one in prompts)
        assert np.array_equal(own.per_example, other.per_example)
        priors = task.log_priors(lm, list(prompts))
        assert priors[0] == pytest.approx(priors[1])
        assert writing_task().rewards(lm, prompts[:1], train).shape == (1, 3)

    def test_a_cut_search_goes_on(self, tmp_path: Path) -> None:
        def cut(call: int) -> None:
            if call > 9:
                raise Cut

        lives = [FakeTask(before=cut), FakeTask()]
        goes_on(tmp_path / "study.sqlite", Rephrase(), FakeTask(), lives, length=Length(12))

    def test_near_copies_differ_by_a_word(self) -> None:
        task = FakeTask()
        objective = Objective(task, tiny_lm(), Budget(3 * 4))
        texts = ["a b c", "a b d", "a b", "x y z"]
        objective.evaluate([TextPrompt(text) for text in texts])
        best, other = entrants(objective.ledger, Selection(candidates=2))
        near = {"a b c", "a b d", "a b"}
        assert isinstance(best.prompt, TextPrompt)
        assert isinstance(other.prompt, TextPrompt)
        assert (best.prompt.text in near) != (other.prompt.text in near)

    def test_a_text_has_no_gradient(self) -> None:
        objective = Objective(class_task(), tiny_lm(), Budget(99))
        with pytest.raises(ValueError, match="a text has no gradient"):
            objective.evaluate_with_grad([TextPrompt("x")])
        assert objective.ledger.used == 0


def test_it_is_the_same_after_a_trip_through_json() -> None:
    prompt = TextPrompt(' <b>"it"\n\u2028')
    assert prompt_from_state(prompt_state(prompt)) == prompt


def test_a_text_that_typed_gives_other_tokens_is_no_retypable_one() -> None:
    task, lm = class_task("{text} {prompt}"), tiny_lm()
    assert describe(task, lm, TextPrompt(" it was")) == (" it was", True)
    assert describe(task, lm, TextPrompt("it was")) == ("it was", False)


def test_compression_reads_its_tokens() -> None:
    task = CompressionTask(class_task(), " it was good", penalty=0.5)
    lm, train = tiny_lm(), task.splits.train
    prompts = TextPrompt(" it was"), TokenPrompt(lm.encode(" it was"))
    own, other = task.rewards(lm, prompts, train)
    assert np.array_equal(own, other)


def test_the_check_of_optimisers_knows_it() -> None:
    report = check_optimiser(Rephrase(), n_prompts=20)
    assert report.problems == ()


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (TokenPromptEnv, "TokenSpace"),
        (EmbeddingPromptEnv, "SoftSpace"),
        (EditPromptEnv, "TokenSpace"),
    ],
)
def test_environments_refuse_it(make: Callable[..., Any], wanted: str, lm: FrozenLM) -> None:
    objective = Objective(class_task(), lm, Budget(99))
    with pytest.raises(ValueError, match=f"of a {wanted} piece by piece, and got a TextSpace"):
        make(objective, TextSpace())
