"""Where searches begin: what each start is, what is chosen of several, and what is refused."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from class_tasks import task as led_task
from small_experiments import task as class_task
from worded_films import films, ids, lm

from rlprompt.agents.bbt_v2 import BBTv2
from rlprompt.agents.bdpl import BDPL
from rlprompt.agents.cma_es import CMAES
from rlprompt.agents.differential_evolution import DifferentialEvolution
from rlprompt.agents.gcg import GCG
from rlprompt.agents.genetic import Genetic
from rlprompt.agents.greedy import Greedy
from rlprompt.agents.grow import Grow
from rlprompt.agents.play import Play
from rlprompt.agents.ppo import PPO, SoftPPO
from rlprompt.agents.ppo_edit import EditPPO
from rlprompt.agents.random_search import RandomSearch
from rlprompt.agents.random_soft import RandomSoft
from rlprompt.agents.rl import RL
from rlprompt.agents.soft_prompt import SoftPromptTuning
from rlprompt.agents.soft_q import SoftQ
from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import (
    START_NAMES,
    Length,
    Prompt,
    SoftPrompt,
    Start,
    TokenPrompt,
    checked_starts,
)
from rlprompt.search.budget import Budget
from rlprompt.search.make_space import make_space
from rlprompt.search.objective import BudgetExhausted, Evaluation, Objective
from rlprompt.search.optimiser import Optimiser
from rlprompt.search.run import search
from rlprompt.search.space import SoftSpace, TokenSpace
from rlprompt.search.starts import DRAWN, best_starts
from rlprompt.search.vocabulary import typable_tokens
from rlprompt.tasks.base import Task
from rlprompt.template import Template

UP_TO_3 = Length(3)
RNG = np.random.default_rng

METHODS: tuple[Optimiser[Any], ...] = (
    RandomSearch(),
    RandomSearch(halving=0.5),
    Greedy(),
    Grow(words=20),
    Genetic(population=6, children=3),
    BDPL(words=9, samples=4),
    SoftQ(prompts=4),
    GCG(candidates=4),
    EditPPO(prompts=4),
    SoftPromptTuning(),
)


def played(env: Any) -> None:
    """Prompts of random tokens, or random edits."""
    while True:
        env.reset()
        over = False
        while not over:
            _, _, over, _, _ = env.step(env.action_space.sample())


BY_NAME: tuple[Optimiser[Any], ...] = (
    Play(played),
    Play(played, environment="edits"),
    RL(),
    RL(environment="edits"),
)


def space(kind: Any, start: Any, length: int | Length = 3, **settings: Any) -> Any:
    banned = settings.pop("banned", ())
    return make_space(
        kind,
        lm(),
        length,
        banned,
        RNG(0),
        settings.pop("task", films()),
        start=start,
        **settings,
    )


def token_starts(start: Any, length: int | Length = UP_TO_3, **settings: Any) -> list[Any]:
    found = space("tokens", start, length, **settings)
    assert isinstance(found, TokenSpace)
    return [prompt.ids for prompt in found.starts]


def rows(found: Any) -> list[list[int]]:
    """The tokens whose embeddings the starts are."""
    assert isinstance(found, SoftSpace)
    return [list(lm().nearest_tokens(SoftPrompt(vectors)).ids) for vectors in found.starts]


class TestTokens:
    def test_by_default_there_is_no_start(self) -> None:
        assert token_starts("vocabulary") == []

    def test_the_hand_prompt_is_spelt_as_in_the_template(self) -> None:
        assert token_starts("hand") == [ids(" it was")]

    def test_a_text_is_what_a_person_types(self) -> None:
        assert token_starts("the film") == token_starts(" the film") == [ids(" the film")]

    def test_several_keep_their_order_and_repeats_go(self) -> None:
        found = token_starts(["the film", "hand", "vocabulary", "it was"])
        assert found == [ids(" the film"), ids(" it was")]

    def test_label_words_come_one_after_the_other_as_far_as_they_fit(self) -> None:
        assert token_starts("label-words") == [ids(" terrible great")]
        assert token_starts("label-words", Length(1)) == [ids(" terrible")]

    def test_a_banned_label_word_is_left_out(self) -> None:
        assert token_starts("label-words", banned=["Terrible"]) == [ids(" great")]

    def test_words_are_drawn_of_the_most_common_ones_and_of_the_tasks_own(self) -> None:
        common, own = token_starts("common-words", 3), token_starts("task-words", 3)
        assert len(common) <= DRAWN
        assert all(len(prompt) == 3 for prompt in common + own)
        texts = {lm().decode([i]).strip() for prompt in common for i in prompt}
        assert all(text.isalpha() and len(text) > 2 for text in texts)
        assert {i for prompt in own for i in prompt} <= set(ids(" film the was"))

    def test_what_is_too_short_is_filled_up_before_its_beginning(self) -> None:
        ((filler, *text),) = token_starts("hand", 3)
        assert tuple(text) == ids(" it was")
        assert filler in space("tokens", "hand", 3).allowed

    def test_the_pool_of_auto_lies_in_the_space(self) -> None:
        found = token_starts("auto", Length(3, at_least=2))
        assert found[0] == ids(" it was")
        assert len(found) > 2 * DRAWN

    def test_auto_leaves_out_what_does_not_fit(self) -> None:
        assert ids(" it was") not in token_starts("auto", 1)
        assert ids(" it was") not in token_starts("auto", banned=["was"])

    def test_the_tokens_of_a_start_join_a_smaller_pool(self) -> None:
        start = TokenPrompt(ids("xyz"))
        found = space("tokens", start, Length(5), tokens={"words": 3})
        assert isinstance(found, TokenSpace)
        assert found.ranked[3:] == start.ids
        assert found.starts == (start,)


class TestVectors:
    def test_they_begin_with_the_tokens_that_token_prompts_are_made_of(self) -> None:
        few = {"banned": sorted(typable_tokens(lm()))[3:]}
        for settings in ({"tokens": "words"}, {"tokens": {"words": 3}}, few):
            where = space("tokens", "vocabulary", 3, **settings)
            found = space("soft", "vocabulary", 3, **settings)
            assert set(rows(found)[0]) <= set(where.allowed.tolist())
            assert found.tokens == tuple(where.allowed)

    def test_by_default_they_are_rows_of_the_most_common_tokens(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys.modules[typable_tokens.__module__], "COMMONEST", 2)
        words = [i for i, text in typable_tokens(lm()).items() if len(text.strip()) > 1]
        assert space("soft", "vocabulary", 20).tokens == tuple(sorted(words)[:2])
        assert len(space("soft", "vocabulary", 20, tokens={"words": 3}).tokens) == 3

    def test_starts_past_the_last_come_from_there_too(self) -> None:
        found = space("soft", "vocabulary", 9, tokens={"words": 3})
        _, objective = begun("soft", ["hand"], 400, " the film")
        again = SoftPrompt(SoftPromptTuning().drawn(objective, found, RNG(1)))
        assert set(lm().nearest_tokens(again).ids) <= set(found.tokens)

    def test_the_default_is_as_it_always_was(self) -> None:
        usual = SoftSpace.from_lm(lm(), 3, RNG(0))
        for task in (None, films()):
            found = space("soft", "vocabulary", task=task)
            assert np.array_equal(found.start, usual.start)
            assert found.starts.shape == (1, 3, lm().hidden_size)

    def test_a_text_stands_at_the_end_and_rows_of_the_vocabulary_before_it(self) -> None:
        usual = rows(space("soft", "vocabulary", 4))[0]
        assert rows(space("soft", "hand", 4)) == [[*usual[:2], *ids(" it was")]]
        assert rows(space("soft", "label-words", 2)) == [list(ids(" terrible great"))]

    def test_several_have_the_first_as_the_start(self) -> None:
        found = space("soft", ["vocabulary", "hand", "the film"], 2)
        assert found.starts.shape == (3, 2, lm().hidden_size)
        assert np.array_equal(found.start, found.starts[0])
        assert rows(found)[1:] == [list(ids(" it was")), list(ids(" the film"))]

    def test_clusters_of_the_tasks_words_are_words_far_from_each_other(self) -> None:
        found = rows(space("soft", "task-words", 2))
        assert found == rows(space("soft", "task-words", 2))
        assert len(set(found[0])) == 2

    def test_a_line_break_is_a_fine_vector(self) -> None:
        text = "film\nwas"
        assert rows(space("soft", text, 9))[0][-len(ids(f" {text}")) :] == list(ids(f" {text}"))

    def test_vectors_from_elsewhere_are_taken_as_they_are(self) -> None:
        found = SoftPrompt(np.full((2, lm().hidden_size), 0.25))
        begun = space("soft", found, 3)
        assert np.array_equal(begun.start[1:], found.vectors)

    def test_a_longest_length_is_every_soft_prompts(self) -> None:
        assert space("soft", "auto", Length(4)).starts.shape[1:] == (4, lm().hidden_size)


@pytest.mark.parametrize(
    ("kind", "start", "settings", "said"),
    [
        ("tokens", "the film was it", {}, r"^the start ' the film was it' has 4 tokens, and the "),
        ("soft", "the film was it", {}, "prompt has 3 at most: shorten it, or give `length: 4`"),
        ("tokens", "film", {"banned": ["FILM"]}, "uses ' film', which `banned` forbids"),
        ("soft", "film", {"banned": list(ids(" film"))}, "uses ' film', which `banned` forbids"),
        ("tokens", "a\nb", {"length": 5}, r"uses '\\n', ' ', of which no token prompt is made"),
        ("tokens", "hand", {"task": class_task()}, "has no hand prompt .* give another start"),
        ("soft", "hand", {"task": class_task()}, "has no hand prompt .* give another start"),
        ("soft", "label-words", {"banned": ["great", "terrible"]}, "no label words that are allow"),
        ("tokens", "task-words", {"task": class_task()}, "has no allowed words that its train"),
        ("tokens", "hnad", {}, "start 'hnad': did you mean 'hand'.*write a space before it"),
        ("tokens", " ", {}, "a start is one word or more, got ' '"),
        ("tokens", [], {}, "no start; give a text, or one of vocabulary, hand"),
        ("tokens", TokenPrompt(), {}, "the start '' has no tokens"),
        ("tokens", SoftPrompt(np.ones((1, 32))), {}, "a start of vectors has no text"),
        ("soft", SoftPrompt(np.ones((1, 8))), {}, "width 8, and those of tiny-llama have 32"),
        ("soft", SoftPrompt(np.ones((4, 32))), {}, "the start has 4 vectors, and the prompt has 3"),
    ],
)
def test_what_is_no_start_is_refused_in_a_sentence(
    kind: str, start: Any, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        space(kind, start, **settings)


@pytest.mark.parametrize("optimiser", METHODS[1:], ids=repr)
@pytest.mark.parametrize(
    "start", [*START_NAMES, "the film", ("it was", "the film", "auto")], ids=str
)
def test_every_method_takes_every_start(optimiser: Optimiser[Any], start: Any) -> None:
    objective = Objective(films(), lm(), Budget(78))
    where = space(optimiser.searches, start, UP_TO_3)
    with contextlib.suppress(BudgetExhausted):
        optimiser.run(objective, best_starts(objective, where, checked_starts(start)), RNG(0))
    assert 54 < objective.ledger.used <= 78
    assert all(where.contains(one.prompt) for one in objective.ledger.best(60))


@pytest.mark.parametrize("optimiser", METHODS[:-1], ids=repr)
def test_token_methods_score_their_starts_first(optimiser: Optimiser[Any]) -> None:
    asked: list[Prompt] = []

    search(films(asked), lm(), optimiser, 80, length=Length(3), start=["the film", "hand"])
    assert asked[:2] == [TokenPrompt(ids(" the film")), TokenPrompt(ids(" it was"))]


def test_the_same_seed_is_the_same_search() -> None:
    settings = {"start": "auto", "tokens": "likely", "length": UP_TO_3}
    one, again, other = (
        search(films(), lm(), Greedy(), 200, seed=seed, **settings)  # type: ignore[arg-type]
        for seed in (0, 0, 1)
    )
    assert one.points == again.points
    assert one.points != other.points


@dataclass(frozen=True)
class Near(Task):
    """Prompts that are near the wanted one, token by token from the end or as vectors."""

    wanted: str
    name: str = "near"
    fingerprint: str = "near"
    hand_prompt: str = "it was"
    splits: Splits = field(default_factory=lambda: films().splits)

    def rewards(self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]) -> Any:
        wanted, table = ids(self.wanted), lm.embeddings()
        worth = list[float]()
        for prompt in prompts:
            if isinstance(prompt, TokenPrompt):
                same = [a == b for a, b in zip(prompt.ids[::-1], wanted[::-1], strict=False)]
                worth.append(sum(same) - abs(len(prompt) - len(wanted)))
            elif isinstance(prompt, SoftPrompt):
                worth.append(-float(np.square(prompt.vectors[-2:] - table[list(wanted)]).sum()))
        return np.array(worth, dtype=float)[:, None] + np.zeros(len(examples))

    def written(self, lm: FrozenLM, text: str) -> TokenPrompt:
        return TokenPrompt(lm.encode(f" {text.strip()}"))


def begun(kind: Any, starts: Sequence[Start], budget: int, wanted: str) -> tuple[Any, Objective]:
    """The space after its starts were chosen, and what that cost."""
    task = Near(wanted)
    objective = Objective(task, lm(), Budget(budget))
    made = make_space(kind, lm(), Length(2), (), RNG(0), task, start=tuple(starts))
    return best_starts(objective, made, starts), objective


class TestChoice:
    def test_the_best_of_several_soft_starts_is_found_and_paid(self) -> None:
        found, objective = begun("soft", ["vocabulary", "the film", "hand"], 400, " the film")
        assert rows(found)[0] == list(ids(" the film"))
        assert objective.ledger.used == 3 * 4
        assert found.starts.shape[0] == 3

    @pytest.mark.parametrize(("kind", "paid"), [("soft", 4), ("tokens", 0)])
    def test_one_start_of_vectors_is_scored_and_one_of_tokens_left_to_the_method(
        self, kind: str, paid: int
    ) -> None:
        found, objective = begun(kind, ["hand"], 400, " the film")
        assert objective.ledger.used == paid
        assert len(found.starts) == 1

    @pytest.mark.parametrize(
        "optimiser", [CMAES(), RandomSoft(), SoftPPO(prompts=4), DifferentialEvolution()]
    )
    def test_no_search_of_vectors_ends_below_the_start_that_it_was_given(
        self, optimiser: Optimiser[Any]
    ) -> None:
        found = search(Near(" it was"), lm(), optimiser, 160, start="hand", length=2)
        assert found.n_prompts == 40
        assert found.best.train_reward == pytest.approx(0)  # nothing is nearer than it is itself

    def test_several_texts_are_left_to_a_token_method(self) -> None:
        found, objective = begun("tokens", ["the film", "hand"], 400, " the film")
        assert objective.ledger.used == 0
        assert len(found.starts) == 2

    @pytest.mark.parametrize("kind", ["soft", "tokens"])
    def test_auto_finds_the_planted_start_for_a_fifth_of_the_budget_at_most(
        self, kind: str
    ) -> None:
        found, objective = begun(kind, ["auto"], 400, " it was")
        assert 0 < objective.ledger.used <= 400 / 5
        assert len(found.starts) == 4
        first = found.starts[0].ids if kind == "tokens" else tuple(rows(found)[0])
        assert first == ids(" it was")
        assert objective.ledger.best(1)[0].reward == pytest.approx(2 if kind == "tokens" else 0)

    @pytest.mark.parametrize(
        "optimiser", [*METHODS[:-1], PPO(prompts=4), *BY_NAME], ids=lambda one: type(one).__name__
    )
    def test_what_was_scored_to_choose_is_not_paid_again(self, optimiser: Optimiser[Any]) -> None:
        asked: list[Prompt] = []
        objective = Objective(films(asked), lm(), Budget(400))
        chosen = best_starts(objective, space("tokens", "auto", 3), ["auto"])
        assert len(chosen.starts) > 1
        asked.clear()
        with contextlib.suppress(BudgetExhausted):
            optimiser.run(objective, chosen, RNG(1))
        assert len(asked) > 20
        # PPO writes what it is given to tilt again, and remembers nothing.
        which = asked[:4] if isinstance(optimiser, PPO) else asked
        assert not set(chosen.starts) & set(which)

    def test_nor_is_the_one_start_of_vectors(self) -> None:
        task = led_task(template=Template("{prompt}{text} It was"), hand_prompt="it was")
        found = search(task, lm(), BBTv2(population=4), 90, start="hand", length=3)
        assert found.n_prompts == found.n_distinct == 90 // len(task.splits.train)

    def test_a_start_that_is_known_is_gone_on_from(self) -> None:
        """The best by far, and all that greedy search changes a token of."""
        best = TokenPrompt((30, 40, 50))
        where = TokenSpace(3, np.arange(20, 60), starts=(best,), known={best: 9.0})
        rounds = Greedy(batch=4).ask(where, 6, RNG(0))
        pool = next(rounds)
        near = rounds.send(Evaluation(tuple(pool), np.zeros((len(pool), 1))))
        assert best not in pool
        assert {prompt.ids[:2] for prompt in near if isinstance(prompt, TokenPrompt)} == {(30, 40)}

    def test_auto_of_a_small_budget_is_its_first_start(self) -> None:
        found, objective = begun("soft", ["auto"], 12, " the film")
        assert objective.ledger.used == 4  # that one
        assert rows(found) == [list(ids(" it was"))]
