"""Where prefix prompts are looked for: around what the layers make of real tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
from exports import class_task
from fakes import Remembered
from numpy.typing import NDArray
from tiny import tiny_lm

from rlprompt.agents.random_search import RandomSearch
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import PrefixPrompt, SoftPrompt, TokenPrompt, checked_starts
from rlprompt.search.budget import Budget
from rlprompt.search.make_space import make_space
from rlprompt.search.memo import KeysQuestion, Scope, TrainQuestion
from rlprompt.search.objective import Objective
from rlprompt.search.result import prompt_from_state, prompt_state
from rlprompt.search.run import search
from rlprompt.search.space import PrefixSpace
from rlprompt.tasks.base import Task
from rlprompt.types import PromptKind

LED = "{prompt} {text}"


def space(lm: FrozenLM, task: Task | None = None, **settings: Any) -> PrefixSpace:
    made = make_space("prefix", lm, 4, (), np.random.default_rng(0), task, **settings)
    assert isinstance(made, PrefixSpace)
    return made


def test_a_start_is_what_the_layers_make_of_its_tokens(lm: FrozenLM) -> None:
    ids = lm.encode(" the film was great")
    made = space(lm, class_task(LED), start=TokenPrompt(ids))
    expected = lm.keys_and_values([SoftPrompt(lm.embeddings(ids))])[0]
    assert made.start == pytest.approx(expected, abs=1e-5)
    several = space(lm, class_task(LED), start=[TokenPrompt(ids), "vocabulary"])
    assert several.starts.shape == (2, *made.start.shape)
    assert several.start == pytest.approx(expected, abs=1e-5)


def test_the_unit_is_what_a_layer_differs_by_between_tokens(lm: FrozenLM) -> None:
    """Twice as wide values of a layer have twice the unit, and nothing else has another."""
    before = space(lm).scale
    assert before.shape == (2, 2, 1, 1)
    assert (before > 0).all()

    def doubled(prompts: Sequence[SoftPrompt]) -> NDArray[np.float32]:
        known = lm.keys_and_values(prompts)
        known[:, :, 1, 1] *= 2
        return known

    factors = space(lm, read_keys=doubled).scale / before
    assert factors[..., 0, 0] == pytest.approx(np.array([[1, 1], [1, 2]]), rel=1e-5)
    # What a bias adds to all tokens alike is no difference.
    shifted = space(lm, read_keys=lambda prompts: lm.keys_and_values(prompts) + 7)
    assert shifted.scale == pytest.approx(before, rel=1e-2)


def test_the_best_of_several_starts_is_chosen_on_train(lm: FrozenLM) -> None:
    class Nearest(RandomSearch):
        searches: ClassVar[PromptKind] = "prefix"
        seen: ClassVar[list[PrefixSpace]] = []

        def run(self, objective: Any, space: Any, rng: Any) -> None:
            self.seen.append(space)
            objective.evaluate([PrefixPrompt(space.start)])

    task, starts = class_task(LED), [TokenPrompt(lm.encode(t)) for t in (" good film", " bad film")]
    found = search(task, lm, Nearest(), 60, length=4, start=starts)
    (made,) = Nearest.seen
    rewards = [
        task.rewards(lm, [PrefixPrompt(one)], task.splits.train).mean() for one in made.starts
    ]
    assert rewards[0] == pytest.approx(max(rewards), abs=1e-4)
    assert found.rows >= 9


@pytest.mark.parametrize("template", ["{text} {prompt}", "Film: {prompt} {text}"])
def test_a_template_with_text_before_the_prompt_is_refused(lm: FrozenLM, template: str) -> None:
    with pytest.raises(ValueError, match=r"begin the template with \{prompt\}"):
        space(lm, class_task(template))


def test_a_model_that_is_not_packed_is_refused() -> None:
    with pytest.raises(ValueError, match="tiny-t5 takes no prefix prompts"):
        space(tiny_lm("t5"), class_task(LED))


def test_a_prefix_is_no_start(lm: FrozenLM) -> None:
    prompt = PrefixPrompt(space(lm).start)
    with pytest.raises(ValueError, match="keys and values is no start; give a text"):
        checked_starts(prompt)
    with pytest.raises(ValueError, match="keys and values is no start; give a text"):
        checked_starts(["hand", prompt])


class TestKept:
    def test_what_the_layers_make_is_found_again(self, lm: FrozenLM) -> None:
        memo, soft = Remembered(), [SoftPrompt(lm.embeddings((20, 21)))]
        asked = [Objective(class_task(), lm, Budget(99), memo=memo) for _ in range(2)]
        first, second = (one.keys_and_values(soft) for one in asked)
        assert len(memo.answers) == 1
        assert first is second
        (question,) = memo.answers
        assert isinstance(question, KeysQuestion)
        row = question.encoded(memo.answers[question])
        again = question.decoded([row[name] for name in question.columns])
        np.testing.assert_array_equal(again.vectors, first)
        scope = Scope("model", "task", "examples")
        other = KeysQuestion((SoftPrompt(lm.embeddings((20, 22))),), question.position)
        assert question.key(scope) != other.key(scope)

    def test_a_prompt_is_the_same_after_a_trip_through_json(self, lm: FrozenLM) -> None:
        prompt = PrefixPrompt(space(lm).start)
        again = prompt_from_state(prompt_state(prompt))
        assert again == prompt
        assert isinstance(again, PrefixPrompt)
        assert again.digest == prompt.digest

    def test_gradients_have_their_shape_again(self, lm: FrozenLM) -> None:
        task, made = class_task(LED), space(lm)
        objective = Objective(task, lm, Budget(99), memo=(memo := Remembered()))
        given = objective.evaluate_with_grad([PrefixPrompt(made.start)], examples=[0, 1])
        assert given.gradients.shape == (1, *made.start.shape)
        ((question, answer),) = memo.answers.items()
        assert isinstance(question, TrainQuestion)
        row = question.encoded(answer)
        again = question.decoded([row[name] for name in question.columns])
        np.testing.assert_array_equal(again.gradients, answer.gradients)
        # Large as they are, prompts of a part of the examples are not kept whole.
        assert row["prompts"] == "[null]"
        objective.evaluate([PrefixPrompt(made.start)])
        whole = list(memo.answers)[-1]
        assert isinstance(whole, TrainQuestion)
        assert prompt_from_state(prompt_state(whole.prompts[0])) == whole.prompts[0]
        assert whole.encoded(memo.answers[whole])["prompts"] != "[null]"


def test_prompts_of_other_shapes_are_no_prefixes() -> None:
    with pytest.raises(
        ValueError, match=r"a prefix prompt has shape \(length, layers, 2, heads, w"
    ):
        PrefixPrompt(np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"has keys and values, .* got \(3, 4, 3, 1, 8\)"):
        PrefixPrompt(np.zeros((3, 4, 3, 1, 8)))
    with pytest.raises(ValueError, match="a prefix prompt must be finite"):
        PrefixPrompt(np.full((1, 1, 2, 1, 1), np.inf))
    zeros = PrefixPrompt(np.zeros((3, 4, 2, 1, 8)))
    assert zeros == PrefixPrompt(-np.zeros((3, 4, 2, 1, 8)))
    assert len({zeros, PrefixPrompt(np.zeros((3, 4, 2, 1, 8)))}) == 1
    assert zeros != TokenPrompt((3,))
    assert zeros.digest != PrefixPrompt(np.zeros((3, 4, 2, 8, 1))).digest
