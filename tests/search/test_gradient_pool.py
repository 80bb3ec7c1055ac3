"""The pool of tokens that a gradient ranks: what it is, what it costs, and what is refused."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from small_experiments import experiment
from small_experiments import task as class_task
from stored_search import Counting, Cut, goes_on
from synthetic import N_EXAMPLES, HiddenWords, SlopedWords, hidden
from tiny import tiny_lm
from worded_films import films, ids, lm

from rlprompt.agents.bdpl import BDPL
from rlprompt.agents.cma_es import CMAES
from rlprompt.agents.gcg import GCG
from rlprompt.agents.genetic import Genetic
from rlprompt.agents.greedy import Greedy
from rlprompt.agents.grow import Grow
from rlprompt.agents.ppo import PPO
from rlprompt.agents.ppo_edit import EditPPO
from rlprompt.agents.prefix import PrefixTuning
from rlprompt.agents.random_search import RandomSearch
from rlprompt.agents.rl import RL
from rlprompt.agents.soft_prompt import SoftPromptTuning
from rlprompt.agents.soft_q import SoftQ
from rlprompt.data.examples import Example
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length, Pool, Prompt, SoftPrompt, TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.gradient_pool import gradient_tokens, narrowed, reference
from rlprompt.search.make_space import make_space
from rlprompt.search.objective import BudgetExhausted, Objective
from rlprompt.search.optimiser import Optimiser
from rlprompt.search.run import search
from rlprompt.search.space import TokenSpace
from rlprompt.search.vocabulary import common_words
from rlprompt.tasks.base import GRADIENT_ROWS
from rlprompt.template import Template
from rlprompt.types import Floats, PromptKind

RNG = partial(np.random.default_rng, 0)
# A gradient on all train examples.
PAID = GRADIENT_ROWS * N_EXAMPLES
NINE = {"gradient": 9}

METHODS: tuple[Optimiser[Any], ...] = (
    RandomSearch(),
    RandomSearch(halving=0.5),
    Greedy(),
    Grow(words=5),
    PPO(prompts=4),
    GCG(candidates=4, top_k=4),
    Genetic(population=4, children=3),
    BDPL(samples=4),
    SoftQ(prompts=4),
    EditPPO(prompts=4),
    RL(prompts=4, settings={"policy_kwargs": {"net_arch": [8]}}),
)


def space(length: int | Length = 3, task: Any = None, **settings: Any) -> TokenSpace:
    banned = settings.pop("banned", ())
    made = make_space(
        "tokens", lm(), length, banned, RNG(), task or films(), tokens="gradient", **settings
    )
    assert isinstance(made, TokenSpace)
    return made


class TestReference:
    def test_it_is_the_hand_prompt(self) -> None:
        assert reference(films(), lm(), space(2)) == TokenPrompt(ids(" it was"))
        assert reference(films(), lm(), space(Length(5))) == TokenPrompt(ids(" it was"))

    def test_a_short_hand_prompt_is_filled_up_with_the_commonest_word(self) -> None:
        first = common_words(lm(), space().allowed)[0]
        assert reference(films(), lm(), space(4)).ids == (first, first, *ids(" it was"))

    @pytest.mark.parametrize(
        ("length", "settings"),
        [(3, {"task": class_task()}), (1, {}), (3, {"banned": ["was"]})],
        ids=["none", "too long", "banned"],
    )
    def test_else_it_is_the_commonest_word(self, length: int, settings: dict[str, Any]) -> None:
        where = space(length, **settings)
        found = reference(settings.get("task", films()), lm(), where)
        assert found.ids == (common_words(lm(), where.allowed)[0],) * length
        assert where.contains(found)

    def test_where_no_word_is_allowed_it_is_another_token(self) -> None:
        where = TokenSpace(2, np.array(ids("x")))
        assert reference(class_task(), lm(), where).ids == ids("x") * 2


class TestRanking:
    def test_tokens_are_ranked_by_the_mean_gradient_at_the_reference(self) -> None:
        task, where = films(), space(4)
        objective = Objective(task, lm(), Budget(100))
        found = gradient_tokens(objective, where, Pool("gradient", 9))
        prompt = reference(task, lm(), where)
        soft = SoftPrompt(lm().embeddings(prompt.ids))
        _, (slope,) = task.cross_entropy_with_grad(lm(), [soft], task.splits.train)
        # What each token would bring, in the place of each of the four.
        table, own = lm().embeddings(), lm().embeddings(prompt.ids)
        gains = [[(table[t] - own[i]) @ slope[i] for i in range(4)] for t in where.allowed]
        best = np.argsort(-np.mean(gains, axis=1), kind="stable")[:9]
        assert found == where.allowed[best].tolist()

    def test_it_is_paid_and_recorded_as_the_prompts_own(self) -> None:
        task, where = films(), space(2)
        objective = Objective(task, lm(), Budget(100))
        gradient_tokens(objective, where, Pool("gradient"))
        (scored,) = objective.ledger.best(9)
        assert (objective.ledger.used, objective.ledger.n_prompts) == (PAID, 1)
        assert scored.prompt == TokenPrompt(ids(" it was"))
        rewards = task.rewards(lm(), [scored.prompt], task.splits.train)
        assert scored.reward == pytest.approx(rewards.mean(), abs=1e-4)

    def test_a_small_step_towards_its_tokens_makes_the_right_answers_likelier(self) -> None:
        task = class_task(reward="cross_entropy", calibration="none")
        where = space(2, task)
        found = gradient_tokens(Objective(task, lm(), Budget(100)), where, Pool("gradient", 20))
        table, begun = lm().embeddings(), lm().embeddings(reference(task, lm(), where).ids)
        steps = [begun + 0.02 * (table[token] - begun) for token in where.allowed]
        soft = [SoftPrompt(vectors) for vectors in steps]
        worth = task.rewards(lm(), soft, task.splits.train).mean(axis=1)
        highest = where.allowed[np.argsort(-worth)[:20]]
        assert len({*found} & {*highest.tolist()}) >= 18

    def test_where_only_the_reward_has_a_gradient_it_is_of_that(self) -> None:
        @dataclass(frozen=True)
        class Reward(HiddenWords):
            def rewards_with_grad(
                self, lm: FrozenLM, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
            ) -> tuple[Floats, NDArray[np.float32]]:
                return SlopedWords().cross_entropy_with_grad(lm, prompts, examples)

        where, pool = space(task=Reward()), Pool("gradient", 9)
        found = gradient_tokens(Objective(Reward(), lm(), Budget(100)), where, pool)
        sloped = Objective(SlopedWords(), lm(), Budget(100))
        assert found == gradient_tokens(sloped, where, pool)

    def test_a_gradient_of_zero_leaves_no_token_out(self, caplog: pytest.LogCaptureFixture) -> None:
        flat = SlopedWords(flat=True)
        with caplog.at_level(logging.WARNING):
            found = search(flat, lm(), RandomSearch(), 30 * N_EXAMPLES, length=3, tokens=NINE)
        assert "the gradient of synthetic is zero at the prompt ' goo goo goo'" in caplog.text
        tokens = {t for one in found.candidates for t in one.prompt.ids}  # type: ignore[union-attr]
        assert len(tokens) > 9 + 1


class TestSearch:
    def test_the_planted_tokens_are_in_it_and_luck_in_it_beats_luck_in_all(self) -> None:
        planted = np.flatnonzero(hidden(tiny_lm(), 0, 0.1))
        where = make_space("tokens", tiny_lm(), 3, (), RNG(), SlopedWords())
        assert isinstance(where, TokenSpace)
        useful = set(planted.tolist()) & set(where.allowed.tolist())
        objective = Objective(SlopedWords(), tiny_lm(), Budget(100))
        pool = Pool("gradient", len(useful))
        assert set(gradient_tokens(objective, where, pool)) == useful
        for seed in range(3):
            go = partial(search, SlopedWords(), tiny_lm(), RandomSearch(), 13 * N_EXAMPLES)
            found, other = (go(seed=seed, length=3, tokens=t) for t in ("gradient", "all"))
            pruned = go(seed=seed, length=3, tokens={"gradient": len(useful)})
            assert found.rows == other.rows == pruned.rows == 13 * N_EXAMPLES
            assert pruned.n_prompts == other.n_prompts - 2  # of three, the gradient scores one
            assert pruned.best.train_reward > other.best.train_reward

    @pytest.mark.parametrize("optimiser", METHODS, ids=repr)
    def test_every_token_method_pays_for_it_and_keeps_to_it(self, optimiser: Any) -> None:
        task = SlopedWords()
        found = search(task, lm(), optimiser, 30 * N_EXAMPLES, length=Length(3), tokens=NINE)
        known = make_space("tokens", lm(), Length(3), (), RNG(), task)
        assert isinstance(known, TokenSpace)
        pool = gradient_tokens(Objective(task, lm(), Budget(100)), known, Pool.of(NINE))
        first = reference(task, lm(), known)
        assert found.points[0][0] == PAID
        assert found.rows <= 30 * N_EXAMPLES
        for one in found.candidates:
            assert isinstance(one.prompt, TokenPrompt)
            assert one.prompt == first or set(one.prompt.ids) <= set(pool)

    def test_grow_takes_the_first_of_it(self) -> None:
        asked: list[Prompt] = []
        search(films(asked), lm(), Grow(words=5), 160, length=Length(2), tokens=NINE)
        where, objective = space(Length(2)), Objective(films(), lm(), Budget(100))
        pool = gradient_tokens(objective, where, Pool.of(NINE))
        tried = {token for p in asked if isinstance(p, TokenPrompt) for token in p.ids}
        assert tried == set(pool[:5])

    def test_tokens_of_a_start_come_along(self) -> None:
        where = space(Length(3), start="the film")
        found = narrowed(where, ids(" was"))
        assert isinstance(found, TokenSpace)
        assert found.ranked == ids(" was the film")
        assert found.starts == where.starts
        asked: list[Prompt] = []
        search(films(asked), lm(), Greedy(), 80, length=Length(3), start="the film", tokens=NINE)
        assert asked[0] == TokenPrompt(ids(" the film"))

    def test_of_auto_the_starts_that_come_through_bring_their_tokens(self) -> None:
        given: list[TokenSpace] = []

        @dataclass(frozen=True)
        class Look:
            searches: ClassVar[PromptKind] = "tokens"

            def run(self, objective: Objective, space: TokenSpace, rng: object) -> None:
                given.append(space)

        settings: dict[str, Any] = {"length": Length(3), "start": "auto", "tokens": NINE}
        found = search(SlopedWords(), lm(), Look(), 400, **settings)
        assert found.points[0][0] == PAID < found.rows <= PAID + 400 / 5
        where = space(Length(3), SlopedWords())
        pool = gradient_tokens(Objective(SlopedWords(), lm(), Budget(100)), where, Pool.of(NINE))
        (begun,) = given
        assert begun.starts
        assert begun.ranked[:9] == tuple(pool)
        assert {*begun.ranked[9:]} == {t for one in begun.starts for t in one.ids} - {*pool}

    @pytest.mark.parametrize("optimiser", [SoftPromptTuning(), CMAES(dimension=4, population=4)])
    def test_for_vectors_it_is_all_and_free(self, optimiser: Any) -> None:
        found, usual = (
            search(films(), lm(), optimiser, 60, length=3, tokens=tokens)
            for tokens in ("gradient", "all")
        )
        assert found.points == usual.points
        assert found.best.prompt == usual.best.prompt

    def test_the_budget_may_end_with_it(self) -> None:
        objective = Objective(films(), lm(), Budget(PAID - 1))
        with pytest.raises(BudgetExhausted):
            gradient_tokens(objective, space(), Pool("gradient"))
        least = PAID + N_EXAMPLES
        found = search(SlopedWords(), lm(), RandomSearch(), least, length=3, tokens="gradient")
        assert (found.rows, found.n_prompts) == (least, 2)


@dataclass(frozen=True)
class Mortal(Counting, SlopedWords):
    """Counts gradients as well, and may end the process at one."""

    fingerprint: str = "mortal"
    steep: int = 10**9

    def cross_entropy_with_grad(
        self, lm: FrozenLM, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, NDArray[np.float32]]:
        if not self.steep:
            raise Cut
        return super().cross_entropy_with_grad(lm, prompts, examples)


@pytest.mark.parametrize("optimiser", [RandomSearch(), Greedy(), GCG(candidates=4)], ids=repr)
def test_a_search_that_is_cut_goes_on(optimiser: Any, tmp_path: Path) -> None:
    """At the gradient, right after it, and on the way."""
    whole, counts = Mortal(), list[int]()
    lives = [
        Mortal(counts=counts, steep=0),
        *(Mortal(counts=counts, last=last) for last in (1, 4)),
        Mortal(counts=counts),
    ]
    goes_on(tmp_path / "a.sqlite", optimiser, whole, lives, 24 * N_EXAMPLES, tokens=NINE)
    assert sum(counts) == sum(whole.counts), "nothing was scored twice"


class Steep(SlopedWords):
    """Nobody may ask it for anything."""

    def rewards(self, *given: Any) -> Floats:
        raise AssertionError(given)


class TestRefused:
    """In a sentence, before anything is paid."""

    def refused(self, said: str, task: Any, rows: int = 100) -> None:
        with pytest.raises(ValueError, match=said):
            search(task, lm(), RandomSearch(), rows, tokens="gradient")

    def test_a_task_without_a_gradient(self) -> None:
        self.refused("task 'synthetic' has no gradient, which `tokens: gradient`", HiddenWords())
        alone = {"random": RandomSearch()}
        with pytest.raises(ValueError, match=r"^random: task 'synthetic' has no gradient, "):
            experiment(task=HiddenWords(), optimisers=alone, own={"random": {"tokens": "gradient"}})

    @pytest.mark.parametrize("optimiser", [SoftPromptTuning(), PrefixTuning()])
    def test_not_where_the_method_does_not_take_it(self, optimiser: Any) -> None:
        task = class_task(template=Template("{prompt} {text}"), reward="accuracy")
        made = experiment(task=task, optimisers={"vectors": optimiser}, tokens="gradient")
        assert made.pool_rows("vectors") == 0

    def test_a_model_whose_vectors_cannot_be_had(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(FrozenLM, "gradient_obstacle", "it sees ids")
        said = r"^tiny-llama gives no gradient, which `tokens: gradient` .* \(it sees ids\); give"
        self.refused(said, Steep())
        with pytest.raises(ValueError, match=said):
            experiment(optimisers={"random": RandomSearch()}, tokens="gradient")

    def test_too_small_a_budget(self) -> None:
        said = r"a budget of 15 rows does not cover the gradient of .* 12 rows, and one prompt; "
        self.refused(f"{said}give 16 rows or more", Steep(), rows=15)
