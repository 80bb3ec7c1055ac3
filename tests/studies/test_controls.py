"""Controls: which a task has, how they are made and chosen, and that none of them costs a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import write_config
from fakes import FakePricedTask, FakeTask, Remembered
from films import LABELS, examples, films
from tiny import CONTEXT, tiny_lm

from rlprompt.config.tasks import hand_prompts
from rlprompt.config.yaml_file import load_config
from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, TokenPrompt
from rlprompt.store.summary import BEST_WORD, CALIBRATED, EMPTY, HAND, IN_CONTEXT
from rlprompt.studies.controls import WORDS, ControlPlan, plan_controls, score_control
from rlprompt.studies.loading import load_task
from rlprompt.tasks.base import Measured
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.tasks.compression import CompressionTask
from rlprompt.tasks.generation import GenerationTask
from rlprompt.template import Template
from rlprompt.types import Floats


def writing(**fields: Any) -> GenerationTask:
    splits = Splits(examples("tr", 6), examples("de", 4), examples("te", 6))
    made = GenerationTask("say", splits, Template("{text} {prompt} is"), "exact_match")
    return replace(made, **fields)


def plans(task: Any, **own: TokenPrompt) -> dict[str, ControlPlan]:
    return {plan.name: plan for plan in plan_controls(task, tiny_lm(), own)}


def text_of(plan: ControlPlan) -> str:
    ((text, _),) = plan.texts
    return text


class TestWhich:
    def test_one_that_cannot_be_made_is_named_with_its_template(self) -> None:
        class Broken(ClassificationTask):
            def written(self, lm: FrozenLM, text: str) -> TokenPrompt:
                raise KeyError(text)

        base = films()
        broken = Broken(base.name, base.splits, base.template, base.label_words, hand_prompt="x")
        with pytest.raises(ValueError, match=r"'hand-written' cannot be made in .* '.*Key"):
            plans(broken)

    def test_a_classification_has_all(self) -> None:
        found = plans(films(calibration="none"))
        assert list(found) == [EMPTY, HAND, CALIBRATED, BEST_WORD, IN_CONTEXT]
        assert [plan.required for plan in found.values()] == [True, True, False, False, False]
        assert found[EMPTY].prompts == (TokenPrompt(),)
        assert text_of(found[HAND]) == text_of(found[CALIBRATED]) == " it was"
        calibrated = found[CALIBRATED].task
        assert isinstance(calibrated, ClassificationTask)
        assert calibrated == films(calibration="contextual")

    @pytest.mark.parametrize(
        "task",
        [
            films(calibration="contextual"),
            films(hand_prompt=""),
            films(template=Template("{prompt} so"), calibration="none"),
        ],
    )
    def test_calibration_is_left_out_where_it_adds_nothing(self, task: ClassificationTask) -> None:
        assert CALIBRATED not in plans(task)

    def test_a_task_calibrated_by_train_shows_the_hand_prompt_with_and_without(self) -> None:
        task = films(calibration="batch")
        found = plans(task)
        assert list(found) == [EMPTY, HAND, CALIBRATED, BEST_WORD, IN_CONTEXT]
        assert found[HAND].task == films(calibration="none")
        assert found[CALIBRATED].task == task
        assert found[HAND].prompts == found[CALIBRATED].prompts
        # A reward of the plain one is none of a search; that of the calibrated one is.
        assert [name for name, one in found.items() if one.variant] == [HAND, IN_CONTEXT]
        plain = plans(films(calibration="none"))
        assert [name for name, one in plain.items() if one.variant] == [CALIBRATED, IN_CONTEXT]

    def test_a_task_of_ones_own_has_what_needs_no_template(self) -> None:
        found = plans(FakeTask())
        assert list(found) == [EMPTY, BEST_WORD]
        assert found[BEST_WORD].texts[0] == (" the", True)

    def test_words_that_a_task_does_not_take_are_no_candidates(self) -> None:
        task = CompressionTask(films(), "say it was the film", 0.1)
        (long, words) = plans(task)[HAND], plans(task)[BEST_WORD]
        allowed = {*long.prompts[0].ids, task.blank(tiny_lm())}
        assert 0 < len(words.prompts) < len(WORDS)
        assert all(allowed.issuperset(prompt.ids) for prompt in words.prompts)
        none = CompressionTask(films(), "xyz", 0.1)
        assert plans(none)[BEST_WORD].prompts == ()
        assert "allows none of the words" in plans(none)[BEST_WORD].note

    def test_ones_own_come_along(self) -> None:
        mine = TokenPrompt((5, 6))
        found = plans(films(), mine=mine)
        assert list(found)[:3] == [EMPTY, HAND, "mine"]
        assert found["mine"].prompts == (mine,)
        assert found["mine"].required
        plans(films(), **{EMPTY: TokenPrompt()})

    @pytest.mark.parametrize("name", [EMPTY, HAND, CALIBRATED, BEST_WORD, IN_CONTEXT])
    def test_none_can_be_put_in_the_place_of_another(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"a control called '{name}'; give yours another name"):
            plans(films(), **{name: TokenPrompt((5,))})

    def test_a_class_that_cannot_be_varied_is_not(self) -> None:
        class Own(ClassificationTask):
            def __init__(self, base: ClassificationTask) -> None:
                own = (base.name, base.splits, base.template, base.label_words)
                super().__init__(*own, hand_prompt="it was")

        class Careless(ClassificationTask):
            fingerprint = "always the same"

        base = films()
        careless = Careless(base.name, base.splits, base.template, base.label_words)
        assert list(plans(Own(base))) == [EMPTY, HAND, BEST_WORD]
        assert list(plans(careless)) == [EMPTY, BEST_WORD]


class TestInContext:
    def test_demonstrations_stand_before_the_text_with_their_answers(self) -> None:
        plan = plans(films())[IN_CONTEXT]
        assert text_of(plan) == "".join(
            f"tr {{{i}}} {('terrible', 'great')[i % 2]}\n\n" for i in range(6)
        )
        assert isinstance(plan.task, ClassificationTask)
        assert plan.task.template.text == "{prompt}{text}"
        assert "6 train examples, 3 a class" in plan.note

    @pytest.mark.parametrize(
        ("calibration", "own"),
        [("none", "none"), ("contextual", "contextual"), ("batch", "contextual")],
    )
    def test_it_scores_what_a_person_would_write_out(self, calibration: str, own: str) -> None:
        """By texts without content where calibrated by train, whose answers it shows."""
        lm, task = (
            tiny_lm(),
            films(template=Template("On {text} {prompt}"), calibration=calibration),
        )
        plan = plans(task)[IN_CONTEXT]
        shown = "".join(f"On tr {{{{{i}}}}} {('terrible', 'great')[i % 2]}\n\n" for i in range(6))
        written = replace(task, template=Template(shown + "On {text}{prompt}"), calibration=own)
        assert isinstance(plan.task, ClassificationTask)
        assert plan.task.calibration == own
        assert ("calibrated by what the model answers to texts without" in plan.note) == (
            calibration == "batch"
        )
        expected = written.rewards(lm, [TokenPrompt()], task.splits.test)
        found = plan.task.rewards(lm, plan.prompts, task.splits.test)
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)

    @pytest.mark.parametrize(
        ("template", "shown"),
        [
            ("{prompt} {text} so", "tr {0} so terrible"),
            ("{text}\n{prompt}", "tr {0}\nterrible"),
            ("{{{text}}} {prompt} :", "{tr {0}} : terrible"),
            ("{text} {prompt} {mask} .", "tr {0} terrible ."),
        ],
    )
    def test_in_the_task_s_own_template(self, template: str, shown: str) -> None:
        kind: Any = "bert" if "mask" in template else "llama"
        lm = tiny_lm(kind)
        found = plan_controls(films(template=Template(template)), lm, {})
        text = lm.decode(found[-1].prompts[0].ids)
        assert found[-1].name == IN_CONTEXT
        assert text.startswith(shown + "\n\n")

    def test_classes_are_shown_equally_often_and_16_at_most(self) -> None:
        splits = Splits(
            (*examples("tr", 30), Example({"text": "odd"}, "positive")),
            examples("de", 2),
            examples("te", 2),
        )
        roomy = tiny_lm(max_position_embeddings=2048)
        (*_, plan) = plan_controls(films(splits=splits), roomy, {})
        shown = text_of(plan)
        assert shown.count("terrible") == shown.count("great") == 8
        few = replace(splits, train=(*splits.train[:3], splits.train[-1]))
        shown = text_of(plans(films(splits=few))[IN_CONTEXT])
        assert (shown.count("terrible"), shown.count("great")) == (2, 2)

    def test_fewer_where_the_model_has_less_room(self) -> None:
        splits = films().splits
        room = [CONTEXT - 30, CONTEXT - 10]
        for n_tokens, n_shown in zip(room, (2, 0), strict=True):
            long = replace(
                splits, test=(*splits.test, Example({"text": "x" * n_tokens}, "positive"))
            )
            plan = plans(films(splits=long, hand_prompt=""))[IN_CONTEXT]
            if n_shown:
                assert text_of(plan).count("\n\n") == n_shown
                assert score_control(plan, tiny_lm()).scores["test"] is not None
            else:
                assert plan.prompts == ()
                assert plan.rows == 0
                control = score_control(plan, tiny_lm())
                assert control.scores == {"train": None, "dev": None, "test": None}
                assert "takes 256" in control.note

    def test_references_of_a_generation_end_where_the_next_demonstration_begins(self) -> None:
        plan = plans(writing(stop=("!",)))[IN_CONTEXT]
        assert text_of(plan).startswith("tr {0} is negative\n\ntr {1} is positive\n\n")
        assert isinstance(plan.task, GenerationTask)
        assert plan.task.stop == ("!", "\n\n")
        line = plans(writing())[IN_CONTEXT].task
        assert isinstance(line, GenerationTask)
        assert line.stop == ("\n",)

    def test_a_generation_without_references_has_none(self) -> None:
        blank = tuple(replace(one, label="") for one in writing().splits.train)
        task = writing(splits=replace(writing().splits, train=blank), reward="regex:c")
        assert IN_CONTEXT not in plans(task)
        assert IN_CONTEXT in plans(writing(reward="regex:c"))


class TestScores:
    def test_the_best_word_is_chosen_on_train_and_tested_alone(self) -> None:
        task = FakeTask()
        plan = plans(task)[BEST_WORD]
        control = score_control(plan, tiny_lm())
        rewards = [task.mean_reward(prompt) for prompt in plan.prompts]
        best = plan.prompts[int(np.argmax(rewards))]
        assert control.text == tiny_lm().decode(best.ids)
        assert task.splits_seen() == ["train", "train", "dev", "test"]
        assert [len(prompts) for prompts, _ in task.calls] == [len(WORDS), 1, 1, 1]
        test = control.scores["test"]
        assert test is not None
        assert test.reward == pytest.approx(task.mean_reward(best, "test"))
        assert np.mean(control.test_metrics) == pytest.approx(test.metric)
        assert control.rows == plan.rows == 20 * 3 + 3 + 4 + 5

    def test_of_equal_words_the_first_is_taken(self) -> None:
        flat = FakeTask(change=lambda rewards: rewards * 0)
        assert score_control(plans(flat)[BEST_WORD], tiny_lm()).text == " the"

    def test_extra_rows_are_counted(self) -> None:
        task = FakePricedTask()
        found = plans(task)
        for plan, rows in ((found[EMPTY], 5 + 6 + 7), (found[BEST_WORD], 20 * 5 + 5 + 6 + 7)):
            assert plan.rows == score_control(plan, tiny_lm()).rows == rows

    def test_every_planned_row_is_the_row_that_is_counted(self) -> None:
        for calibration in ("none", "batch", "contextual"):
            task = films(calibration=calibration)
            for plan in plan_controls(task, tiny_lm(), {}):
                assert score_control(plan, tiny_lm()).rows == plan.rows

    def test_what_calibration_by_train_costs_is_counted(self) -> None:
        found = plans(films(calibration="batch"))
        # Train once for itself, and again for the prior of dev and test.
        assert found[CALIBRATED].rows == 6 + (4 + 6) + 6
        assert found[HAND].rows == 6 + 4 + 6

    def test_what_was_scored_is_not_scored_again(self) -> None:
        task, memo = FakeTask(), Remembered()
        plan = plans(task)[BEST_WORD]
        first = score_control(plan, tiny_lm(), memo)
        n_calls = len(task.calls)
        assert score_control(plan, tiny_lm(), memo) == first
        assert len(task.calls) == n_calls

    def test_answers_are_kept(self) -> None:
        control = score_control(plans(films())[HAND], tiny_lm())
        assert len(control.test_answers) == 6
        assert set(control.test_answers) <= set(LABELS)

    def test_one_that_was_not_asked_for_is_left_out_where_it_fails(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(number: int) -> None:
            raise KeyError(f"call {number}")

        task = FakeTask(before=fail)
        found = plans(task)
        with pytest.raises(KeyError, match="call 1"):
            score_control(found[EMPTY], tiny_lm())
        control = score_control(found[BEST_WORD], tiny_lm())
        assert control.note == "left out: KeyError: 'call 2'"
        assert control.scores == {"train": None, "dev": None, "test": None}
        assert "the control 'best word' is left out" in caplog.text


def test_a_task_is_asked_as_in_a_search() -> None:
    seen: list[int] = []

    class Counting(ClassificationTask):
        def measure(
            self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
        ) -> Measured:
            seen.append(len(prompts))
            return super().measure(lm, prompts, examples)

        def rewards(
            self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
        ) -> Floats:
            raise AssertionError

    base = films()
    task = Counting(base.name, base.splits, base.template, base.label_words)
    for plan in plan_controls(task, tiny_lm(), {}):
        score_control(plan, tiny_lm())
    assert seen == [1, 1, 1, 20, 1, 1, 1, 1, 1, 1]


class TestSeveralByHand:
    def test_each_has_its_calibrated_twin(self) -> None:
        plain, more = films(calibration="none"), [" so", " all in all"]
        found = {plan.name: plan for plan in plan_controls(plain, tiny_lm(), {}, more)}
        assert list(found) == [
            *(EMPTY, HAND, "hand-written 2", "hand-written 3"),
            *(CALIBRATED, "hand-written 2, calibrated", "hand-written 3, calibrated"),
            *(BEST_WORD, IN_CONTEXT),
        ]
        assert text_of(found["hand-written 2"]) == " so"
        assert text_of(found["hand-written 3, calibrated"]) == " all in all"
        assert found["hand-written 3, calibrated"].task == films(calibration="contextual")

    @pytest.mark.parametrize("more", [["it was"], [" so", " so"], [""]])
    def test_the_same_twice_or_nothing_is_refused(self, more: list[str]) -> None:
        with pytest.raises(ValueError, match="give texts that differ, none of them empty"):
            plan_controls(films(), tiny_lm(), {}, more)

    def test_a_file_may_name_several(self, desk: Path) -> None:
        write_config(desk, model="given", hand_prompt=["it was", "so"])
        section = load_config(desk / "small.yaml").task
        assert section is not None
        assert hand_prompts(section) == ("it was", "so")
        assert load_task(section).hand_prompt == "it was"
