"""Which examples a prompt shows, in which order, and that none is judged by its own answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from exports import class_task, writing_task
from synthetic import HiddenTexts
from tiny import tiny_lm

from rlprompt.agents.demonstrations import Demonstrations, judged
from rlprompt.check.toy import ToyTask
from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length, Prompt, TextPrompt
from rlprompt.search.allocation import race, race_winners
from rlprompt.search.budget import Budget
from rlprompt.search.objective import Evaluation
from rlprompt.search.run import search
from rlprompt.search.selection import FALSE_DROP
from rlprompt.studies.experiment import Experiment
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.tasks.generation import GenerationTask
from rlprompt.tasks.style_transfer import StyleTransferTask
from rlprompt.template import Template
from rlprompt.types import Floats

N = 10


@dataclass(frozen=True)
class Telling(HiddenTexts):
    """Example 3 is worth the most, the last place counts double, and who is shown is told."""

    n_examples: int = N
    told: float = 3.0

    def worth(self, lm: FrozenLM, prompt: Prompt) -> float:
        shown = self.read(prompt)
        values = [{3: 1.0, 7: 0.5}.get(i, 0.0) for i in shown]
        return sum(values) + sum(values[-1:]) - 0.05 * len(shown)

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        rewards = super().rewards(lm, prompts, examples)
        places = [self.splits.train.index(e) if e in self.splits.train else -1 for e in examples]
        shown = np.array([np.isin(places, self.read(prompt)) for prompt in prompts])
        return rewards + self.told * shown


class TestJudged:
    def test_numbers_worked_out_by_hand(self) -> None:
        rewards = np.array([[9.0, 2.0, 3.0], [1.0, 9.0, 5.0], [2.0, 4.0, 1.0]])
        shown = np.array([[True, False, False], [False, True, False], [False, False, False]])
        # Examples are worth 1.5, 3 and 3 to those that do not show them.
        expected = [[1.0, 2.0, 3.0], [1.0, 3.75, 5.0], [2.0, 4.0, 1.0]]
        found = judged(rewards, shown)
        assert np.ma.getdata(found).tolist() == expected
        assert np.ma.getmaskarray(found).tolist() == shown.tolist()

    def test_what_nobody_leaves_out_says_nothing(self) -> None:
        rewards = np.array([[9.0, 2.0], [7.0, 4.0]])
        found = judged(rewards, np.array([[True, False], [True, False]]))
        assert np.ma.getdata(found).tolist() == [[2.0, 2.0], [4.0, 4.0]]
        for shown in (np.ones((2, 2), bool), np.zeros((2, 2), bool)):
            found = judged(rewards, shown)
            assert np.ma.getdata(found).tolist() == rewards.tolist()
            assert (np.ma.getmaskarray(found) == shown).all()


class TestWinners:
    """Example 0 is hard, worth nothing to most; the others are worth 8."""

    def test_an_incumbent_is_judged_by_how_easy_its_examples_are_for_its_rivals(self) -> None:
        """Alone, what it shows would be made up of the easy ones: 8, and no rival beats that."""
        incumbent, rival, worse = (TextPrompt(name) for name in ("shows 0", "shows 1", "shows 2"))
        places: dict[Prompt, int] = {incumbent: 0, rival: 1, worse: 2}

        def criterion(prompts: Sequence[Prompt], rewards: Floats, at: Sequence[int]) -> Floats:
            return judged(rewards, np.array([np.isin(at, places[one]) for one in prompts]))

        # Whoever shows an example is told, which is worth 9; the rival is better by 1.
        best = Evaluation((incumbent,), np.array([[9.0, 8.0, 8.0, 8.0]]))
        stayed = Evaluation(
            (worse, rival), np.array([[0.0, 8.0, 17.0, 8.0], [1.0, 18.0, 9.0, 9.0]])
        )
        alone = criterion(best.prompts, best.per_example, range(4))
        assert np.ma.getdata(alone).mean() == 8
        # Together: to those that do not show them they are worth 1/2, 8, 8 1/2 and 8 1/3. The rival
        # is better than that by (1/2 + 1/2 + 2/3) / 3 = 5/9, the incumbent worse by
        # (0 + 1/2 + 1/3) / 3 = 5/18: what they show counts 8 5/9, and 2/9.
        found = race_winners(best, stayed, criterion=criterion)
        assert found.prompts == (rival, worse)
        assert found.per_example.tolist() == [[1.0, 18.0, 9.0, 9.0], [0.0, 8.0, 17.0, 8.0]]
        every = criterion(
            (incumbent, *stayed.prompts),
            np.vstack([best.per_example, stayed.per_example]),
            range(4),
        )
        assert np.ma.getdata(every)[0] == pytest.approx([2 / 9, 8, 8, 8])
        assert np.ma.getdata(every)[2] == pytest.approx([1, 8 + 5 / 9, 9, 9])


class Rewards:
    """An objective of known rewards by text; who is asked about how many examples is noted."""

    def __init__(self, rewards: dict[str, Floats]) -> None:
        self.rewards = rewards
        self.n_examples = len(next(iter(rewards.values())))
        self.task, self.order = ToyTask(self.n_examples), range(self.n_examples)
        self.asked = Counter[str]()

    def cost(self, *, examples: int | None = None) -> int:
        return self.n_examples if examples is None else examples

    def evaluate(
        self, prompts: Sequence[Prompt], examples: Sequence[int] | None = None
    ) -> Evaluation:
        which = range(self.n_examples) if examples is None else examples
        names = [one.text for one in prompts if isinstance(one, TextPrompt)]
        self.asked.update(dict.fromkeys(names, len(which)))
        found = np.array([self.rewards[name] for name in names])[:, list(which)]
        at = None if examples is None else tuple(examples)
        return Evaluation(tuple(prompts), found, examples=at)


def raced(rewards: Floats, shows: Sequence[Sequence[int]]) -> list[int]:
    """On how many examples each rival of the first was scored, (P - 1,); who shows one is told."""
    names = [str(i) for i in range(len(rewards))]
    told = rewards + 9.0 * np.array([np.isin(range(rewards.shape[1]), one) for one in shows])
    target = Rewards(dict(zip(names, told, strict=True)))

    def criterion(prompts: Sequence[Prompt], found: Floats, at: Sequence[int]) -> Floats:
        own = [shows[int(one.text)] for one in prompts if isinstance(one, TextPrompt)]
        return judged(found, np.array([np.isin(at, some) for some in own]))

    first, *rivals = map(TextPrompt, names)
    race(target, Evaluation((first,), told[:1]), rivals, criterion=criterion)
    return [target.asked[one.text] for one in rivals]


class TestRace:
    def test_a_rival_is_not_told_from_another_by_what_either_shows(self) -> None:
        """Of 8 examples 2 are seen first, and both prompts show the first of them."""
        rewards = np.tile([4.0, 1.0, 5.0, 2.0, 3.0, 0.0, 6.0, 2.0], (2, 1))
        rewards[1, 1] -= 0.25  # and of 4 the rival is as good on the other two
        assert raced(rewards, [[0], [0]]) == [8]
        # On 2 that neither shows, one as far behind as on the other is clearly worse.
        rewards[1, 0] -= 0.25
        assert raced(rewards, [[7], [7]]) == [2]

    @pytest.mark.parametrize(("n_examples", "n_shown"), [(8, 2), (16, 4), (32, 4)])
    def test_an_equal_rival_drops_out_at_a_look_as_seldom_as_is_said(
        self, n_examples: int, n_shown: int
    ) -> None:
        """1,600 rivals that show what the other does, or another one in the place of one.

        Where they all count as one draw for each of 400 races, 5 % has a standard error of 1.1 %.
        """
        rng = np.random.default_rng(0)
        dropped = list[bool]()
        for _ in range(400):
            *some, other = rng.permutation(n_examples)[: n_shown + 1].tolist()
            shows = [some if i % 2 == 0 else [*some[1:], other] for i in range(5)]
            easy = rng.normal(size=n_examples)
            rewards = easy + rng.normal(size=(5, n_examples))
            dropped += [n == n_examples // 4 for n in raced(rewards, shows)]
        assert np.mean(dropped) < FALSE_DROP + 0.022


class TestSearch:
    def test_it_finds_the_examples_and_their_order(self) -> None:
        """Though an example that is shown earns more on itself than any choice on the others."""
        task = Telling()
        found = search(task, tiny_lm(), Demonstrations(at_most=3), budget=200 * N, seed=0)
        assert task.read(found.best.prompt) == [7, 3]

    def test_it_beats_choices_drawn_at_random(self) -> None:
        """Of as many prompts as the rows pay for, the best that were drawn, whatever train says."""
        task, lm, n_prompts = Telling(), tiny_lm(), 20
        for seed in range(3):
            found = search(task, lm, Demonstrations(at_most=4), n_prompts * N, seed=seed)
            rng = np.random.default_rng(seed)
            choices = [rng.permutation(N)[: rng.integers(1, 5)] for _ in range(n_prompts)]
            drawn = [task.worth(lm, TextPrompt(task.shown(some.tolist()))) for some in choices]
            assert task.worth(lm, found.best.prompt) > max(drawn)

    @pytest.mark.parametrize("seed", [1, 2])
    def test_no_prompt_has_more_than_so_many_or_one_twice(self, seed: int) -> None:
        asked = list[Prompt]()
        task = Telling(asked=asked)
        search(task, tiny_lm(), Demonstrations(at_most=2), budget=30 * N, seed=seed)
        shown = [task.read(prompt) for prompt in asked]
        assert {len(one) for one in shown} == {1, 2}
        assert all(len(set(one)) == len(one) for one in shown)

    def test_an_instruction_stands_before_them(self) -> None:
        asked = list[Prompt]()
        task = Telling(asked=asked)
        start = [TextPrompt("Say it."), TextPrompt("Or so.")]
        found = search(task, tiny_lm(), Demonstrations(), budget=30 * N, start=start)
        texts = [one.text for one in asked if isinstance(one, TextPrompt)]
        assert all(text.startswith(("Say it.", "Or so.")) for text in texts)
        assert {"Say it.", "Or so."} < set(texts)
        assert found.rows > 29 * N

    def test_a_search_of_all_that_there_is_ends(self) -> None:
        task = Telling(n_examples=2)
        found = search(task, tiny_lm(), Demonstrations(), budget=1000)
        assert found.n_distinct == 4
        assert found.rows < 20

    def test_no_prompt_is_longer_than_the_space_allows(self) -> None:
        asked = list[Prompt]()
        task = Telling(asked=asked)
        lm = tiny_lm()
        longest = len(lm.encode(task.shown([8, 9])))
        search(task, lm, Demonstrations(), budget=30 * N, length=Length(longest))
        assert max(len(lm.fed(prompt)) for prompt in asked) <= longest


def led(template: str, **settings: Any) -> ClassificationTask:
    return class_task(template, **settings)


class TestShown:
    def test_classes_are_shown_by_the_template_and_their_words(self) -> None:
        task = led("{prompt}{text} It was")
        assert task.showable() == [0, 1, 2]
        text = "the film train it It was good\n\nthe film train It was bad\n\n"
        assert task.shown([1, 0]) == text
        assert task.shown([1, 0], "Sort this.") == f"Sort this.\n\n{text}"
        assert task.shown([], "Sort this.") == "Sort this."

    @pytest.mark.parametrize("template", ["{text} {prompt} It was", "{prompt}{text} It was"])
    def test_it_is_what_the_control_shows(self, template: str) -> None:
        task = led("{prompt}{text} It was")
        found = led(template).demonstrations()
        assert found is not None
        assert found.rounds[0] == (task.shown([0]), task.shown([1]))

    @pytest.mark.parametrize("breaks", ["\n", "\n\n"])
    def test_line_breaks_behind_the_prompt_are_not_doubled(self, breaks: str) -> None:
        task = led(f"{{prompt}}{breaks}{{text}} It was")
        rest = "" if len(breaks) == 2 else "\n"
        assert task.shown([0]) == f"the film train It was bad{rest}"
        assert task.shown([0, 0]).startswith("the film train It was bad\n\nthe film")

    def test_references_are_shown_where_there_are_some(self) -> None:
        task = writing_task("{prompt}{text} ->")
        assert task.shown([1]) == "the film train it -> positive\n\n"
        train = (Example({"text": "a"}, ""), Example({"text": "b"}, "c"))
        some = replace(task, splits=replace(task.splits, train=train), reward="regex:c")
        assert some.showable() == [1]

    @pytest.mark.parametrize(
        "task",
        [
            class_task("{text} {prompt}"),
            class_task("Film: {prompt}{text}"),
            class_task(Template.of({"system": "{prompt}", "user": "{text}"}).text),
        ],
    )
    def test_a_task_without_is_refused_before_anything_is_paid(
        self, task: ClassificationTask
    ) -> None:
        with pytest.raises(ValueError, match=r"begin its template with \{prompt\}"):
            search(task, tiny_lm(), Demonstrations(), budget=99)

    def test_what_is_advised_is_what_is_not_there_yet(self) -> None:
        writing = writing_task("{prompt}{text} ->")
        train, dev, test = ((Example({"text": text}, ""),) for text in "abc")
        splits = Splits(train, dev, test)
        style = StyleTransferTask("film", splits, "positive")
        bare = replace(writing, splits=splits, reward="regex:c")
        kind = "has none to show there: tasks of its kind show none, or take another method$"
        for task, advice in ((bare, "there: give references, or take"), (style, kind)):
            with pytest.raises(ValueError, match=advice):
                search(task, tiny_lm(), Demonstrations(), budget=99)


def test_a_real_task_is_searched_and_told_as_text(lm: FrozenLM) -> None:
    task = led("{prompt}{text} It was", calibration="batch")
    found = search(task, lm, Demonstrations(at_most=2), budget=60, seed=1)
    assert found.best.text.endswith("\n\n")
    assert found.best.tokens == len(lm.encode(found.best.text))


def test_an_example_with_a_control_token_is_not_shown(lm: FrozenLM) -> None:
    task = led("{prompt}{text} It was")
    control = Example({"text": "the end</s>"}, "negative")
    train = (control, Example({"text": "good film"}, "positive"))
    own = replace(task, splits=Splits(train, task.splits.dev, task.splits.test))
    found = search(own, lm, Demonstrations(), budget=20)
    assert found.best.text == "good film It was good\n\n"


def test_examples_that_do_not_fit_are_said(lm: FrozenLM) -> None:
    task: ClassificationTask | GenerationTask = led("{prompt}{text} It was")
    with pytest.raises(
        ValueError, match=r"none of the 3 train examples .* of 2 tokens at most; give"
    ):
        search(task, lm, Demonstrations(), budget=20, length=Length(2))


def test_what_is_banned_is_not_shown(lm: FrozenLM) -> None:
    asked = list[Prompt]()
    search(Telling(asked=asked), lm, Demonstrations(), 30 * N, banned=["GOOD"], start="money")
    assert len(asked) > 3
    with pytest.raises(ValueError, match="'good money' uses 'good', which `banned` forbids"):
        search(Telling(), lm, Demonstrations(), 30 * N, banned=["GOOD"], start="good money")
    task = led("{prompt}{text} It was")
    found = search(task, lm, Demonstrations(), budget=20, banned=["bad"])
    assert found.best.text == "the film train it It was good\n\n"


def test_that_nothing_can_be_shown_is_said_before_controls_are_scored(lm: FrozenLM) -> None:
    task = led("{prompt}{text} It was")
    told = "none of the 3 .* at most, without 'bad', 'good', which `banned` forbids; give"
    wheres: list[tuple[str, dict[str, Any]]] = [
        (told, {"banned": ["good", "bad"]}),
        ("of 2 tokens at most; give", {"length": Length(2)}),
    ]
    for message, where in wheres:
        with pytest.raises(ValueError, match=message):
            Experiment("x", task, lm, {"shows": Demonstrations()}, Budget(20), **where)


@pytest.mark.parametrize("settings", [{"at_most": 0}, {"batch": 0}, {"first": 0}, {"first": 1.5}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Demonstrations(**settings)
