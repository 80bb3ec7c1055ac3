"""What is compared: what an experiment refuses, and what its searches are called."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from small_experiments import N_TRAIN, ONLY, experiment, grid, task
from synthetic import HiddenWords
from tiny import CONTEXT, tiny_lm, tiny_model, tiny_tokenizer

from rlprompt.agents.random_search import RandomSearch
from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import TokenPrompt
from rlprompt.search.selection import Selection
from rlprompt.studies.experiment import Experiment, headed, searches
from rlprompt.tasks.classification import ClassificationTask


class TestGrid:
    def test_all_methods_with_the_first_seed_come_first(self) -> None:
        made = experiment(seeds=(3, 1))
        expected = [("random", 3), ("soft-prompt", 3), ("random", 1), ("soft-prompt", 1)]
        assert made.grid == expected
        assert list(searches([made])) == [f"{name}-seed{seed}" for name, seed in expected]

    def test_a_search_has_what_the_experiment_says(self) -> None:
        made = experiment(seeds=(3,), banned=(" it",), task_title="mine")
        search = searches([made])["random-seed3"]
        assert (search.task, search.lm, search.budget) == (made.task, made.lm, made.budget)
        assert search.optimiser == made.optimisers["random"]
        assert (search.seed, search.length, search.banned) == (3, 3, (" it",))
        assert (search.method, search.task_name, search.heading) == ("random", "mine", "")

    def test_how_its_prompt_is_picked_decides_what_a_search_is(self) -> None:
        usual, fewer = (
            searches([made])["random-seed0"]
            for made in (experiment(), experiment(selection=Selection(8)))
        )
        assert (usual.selection, fewer.selection) == (Selection(), Selection(8))
        assert fewer.spec == usual.spec | {"selection": dataclasses.asdict(Selection(8))}

    def test_a_prompt_costs_a_row_an_example_of_train(self) -> None:
        assert experiment().prompt_rows == N_TRAIN

    def test_several_are_told_by_what_differs(self) -> None:
        one, other = grid()[:2]
        assert headed([one]) == {"": one}
        assert headed([one, other]) == {"16 rows": one, "32 rows": other}


class TestNames:
    @pytest.mark.parametrize(
        ("kept", "names"),
        [
            ([0], ["random-seed0"]),
            ([0, 1], ["16-rows/random-seed0", "32-rows/random-seed0"]),
            ([0, 2], ["films/random-seed0", "books/random-seed0"]),
            ([0, 4], ["tiny-llama/random-seed0", "tiny-gpt2/random-seed0"]),
            (
                [0, 7],
                ["films/tiny-llama/16-rows/random-seed0", "books/tiny-gpt2/32-rows/random-seed0"],
            ),
        ],
    )
    def test_what_is_the_same_for_all_is_left_out(
        self, kept: Sequence[int], names: Sequence[str]
    ) -> None:
        all_ = grid()
        found = list(searches([all_[i] for i in kept]))
        assert found == names

    def test_a_model_is_called_by_the_end_of_its_path_where_that_differs(self) -> None:
        def named(name: str, kind: Any) -> Experiment:
            return experiment(lm=FrozenLM(tiny_model(kind), tiny_tokenizer(kind), name))

        a, b, c = named("x/a", "llama"), named("x/b", "gpt2"), named("y/a", "gpt2")
        assert next(iter(searches([a, b]))) == "a/random-seed0"
        assert next(iter(searches([a, c]))) == "x-a/random-seed0"

    def test_what_cannot_be_told_apart_is_refused(self) -> None:
        one = grid()[0]
        with pytest.raises(ValueError, match="the same task and model are given twice"):
            searches([one, one])
        with pytest.raises(ValueError, match="give at least one experiment"):
            searches([])
        hinge = task(reward="hinge")
        with pytest.raises(ValueError, match="two tasks are called films"):
            searches([one, dataclasses.replace(one, task=hinge)])
        titled = dataclasses.replace(one, task=hinge, task_title="hinge")
        assert list(searches([one, titled])) == ["films/random-seed0", "hinge/random-seed0"]
        gpt2 = FrozenLM(tiny_model("gpt2"), tiny_tokenizer("gpt2"), one.lm.name)
        with pytest.raises(ValueError, match="two models are called tiny-llama"):
            searches([one, dataclasses.replace(one, lm=gpt2)])

    def test_a_fingerprint_that_ignores_the_examples_is_refused(self) -> None:
        @dataclasses.dataclass(frozen=True)
        class Careless:
            name: str
            splits: Splits
            fingerprint: str = "always"

            def rewards(self, *_: object) -> Any: ...

        splits = task().splits
        a = Careless("a", splits)
        b = Careless("b", dataclasses.replace(splits, train=splits.train[:2]))
        both: Any = [experiment(task=one, controls={}, optimisers=ONLY) for one in (a, b)]
        with pytest.raises(ValueError, match="b has the same fingerprint as one with"):
            searches(both)


class TestExperiment:
    """What is refused before the first row is paid for."""

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"budget": N_TRAIN - 1}, "a budget of 3 rows does not cover one prompt"),
            ({"optimisers": {}}, "nothing to run"),
            ({"seeds": ()}, "nothing to run"),
            ({"length": CONTEXT}, "the train example .* is too long: "),
            ({"optimisers": {"a b": RandomSearch(), "a-b": RandomSearch()}}, "same file names"),
        ],
    )
    def test_what_cannot_run(self, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            experiment(**fields)

    def test_a_text_that_is_too_long_is_named_in_any_split(self) -> None:
        long = Example({"text": "x" * CONTEXT}, "positive", "films.csv:7")
        splits = task().splits
        broken = task(splits=replace(splits, test=(*splits.test, long)))
        with pytest.raises(ValueError, match=r"the test example films\.csv:7 is too long: 256"):
            experiment(task=broken)

    def test_a_text_is_cut_for_the_longest_of_the_prompts_written_by_hand(self) -> None:
        lm = tiny_lm()
        long = Example({"text": "x" * CONTEXT}, "positive", "films.csv:7")
        splits = task().splits
        parts = replace(splits, test=(*splits.test, long), on_long_text="truncate-end")
        written = ("it was all in all a film",)
        made = experiment(task=task(splits=parts), controls={}, hand_prompts=written)
        prompts = [p for plan in made.control_plans if plan.required for p in plan.prompts]
        sizes = made.task.lengths(lm, made.task.splits.test[-1:])
        assert sizes is not None
        assert CONTEXT - 2 <= sum(sizes[0]) + max(map(len, prompts)) <= CONTEXT

    def test_a_hand_prompt_that_cannot_be_made_is_named(self) -> None:
        class Broken(ClassificationTask):
            def written(self, lm: FrozenLM, text: str) -> TokenPrompt:
                raise KeyError(text)

        base = task()
        own = (base.name, base.splits, base.template, base.label_words)
        with pytest.raises(ValueError, match=r"'hand-written' cannot be made in the template .*"):
            experiment(task=Broken(*own, hand_prompt="x"))

    def test_a_ban_on_everything(self) -> None:
        everything = range(tiny_lm().n_vocabulary)
        with pytest.raises(ValueError, match="no token is allowed"):
            experiment(banned=everything)

    def test_vectors_are_no_prompts_of_a_task_that_reads_their_text(self) -> None:
        class Reading(HiddenWords):
            tokens_only = True

        with pytest.raises(ValueError, match="vectors that soft-prompt would search have none"):
            experiment(task=Reading(), controls={})
        assert experiment(task=Reading(), controls={}, optimisers=ONLY)
