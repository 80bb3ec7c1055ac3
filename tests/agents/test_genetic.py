"""The genetic algorithm: its operators, and whether it searches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import entropy
from stored_search import Counted, classification, goes_on
from synthetic import N_EXAMPLES, HiddenWords, Noted, searched
from tiny import tiny_lm, tiny_model, tiny_tokenizer

from rlprompt.agents.genetic import Genetic, entropy_of
from rlprompt.agents.random_search import RandomSearch
from rlprompt.agents.shared.breeding import crossed, edited, founders, winner
from rlprompt.agents.shared.continuation import continued
from rlprompt.data.examples import Example
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.objective import Objective
from rlprompt.search.result import Result
from rlprompt.search.run import search
from rlprompt.search.space import TokenSpace
from rlprompt.tasks.base import Measured

RNG = np.random.default_rng


def all_of(draw: Callable[[np.random.Generator], TokenPrompt]) -> set[tuple[int, ...]]:
    """What can come of a draw that has few outcomes."""
    rng = RNG(0)
    return {draw(rng).ids for _ in range(1000)}


def test_parents_of_one_length_are_cut_at_the_same_place() -> None:
    space = TokenSpace(3, np.arange(10))
    mother, father = TokenPrompt((1, 2, 3)), TokenPrompt((4, 5, 6))
    found = all_of(lambda rng: crossed(mother, father, space, rng))
    assert found == {(4, 5, 6), (1, 5, 6), (1, 2, 6), (1, 2, 3)}


def test_parents_of_several_lengths_are_cut_wherever_the_child_fits() -> None:
    space = TokenSpace(3, np.arange(10), shortest=2)
    mother, father = TokenPrompt((1, 2)), TokenPrompt((4, 5, 6))
    found = all_of(lambda rng: crossed(mother, father, space, rng))
    begun_with = {
        0: {(4, 5, 6), (5, 6)},
        1: {(1, 5, 6), (1, 6)},
        2: {(1, 2, 6), (1, 2)},
    }
    assert found == set().union(*begun_with.values())


@pytest.mark.parametrize(("tournament", "shares"), [(1, (1, 1, 1)), (2, (5 / 3, 1, 1 / 3))])
def test_the_best_parent_of_a_tournament_wins(
    tournament: int, shares: tuple[float, float, float]
) -> None:
    """Of two drawn out of three the best is the first in 5 cases of 9, and the third in 1."""
    rng = RNG(0)
    won = Counter(winner(3, tournament, rng) for _ in range(9000))
    assert [won[place] / 3000 for place in range(3)] == pytest.approx(shares, abs=0.05)


def test_edits_delete_swap_and_double_spans() -> None:
    found = all_of(lambda rng: edited(TokenPrompt((1, 2, 3)), rng))
    # Two spans, (1, 2) and (3); or three of a token.
    deleted = {(3,), (1, 2), (2, 3), (1, 3)}
    swapped = {(3, 1, 2), (2, 1, 3), (3, 2, 1), (1, 3, 2)}
    doubled = {(1, 2, 1, 2, 3), (1, 2, 3, 1, 2), (3, 1, 2, 3), (1, 2, 3, 3)}
    doubled |= {(1, 1, 2, 3), (1, 2, 1, 3), (1, 2, 3, 1)}
    doubled |= {(2, 1, 2, 3), (1, 2, 2, 3), (1, 2, 3, 2), (1, 3, 2, 3)}
    assert found == deleted | swapped | doubled


def test_a_generation_begins_with_starts_their_edits_and_random_prompts() -> None:
    start = TokenPrompt((1, 2, 3, 4))
    space = TokenSpace(6, np.arange(1000), 1, starts=(start,))
    first = founders(space, 11, RNG(0))
    assert len(first) == len(set(first)) == 11
    assert first[0] == start
    assert all(set(prompt.ids) <= {1, 2, 3, 4} for prompt in first[1:6])
    assert not any(set(prompt.ids) <= {1, 2, 3, 4} for prompt in first[6:])
    assert founders(TokenSpace(1, np.arange(2)), 11, RNG(0)) in (
        [TokenPrompt((0,)), TokenPrompt((1,))],
        [TokenPrompt((1,)), TokenPrompt((0,))],
    )


def test_all_starts_are_scored_where_they_are_more_than_a_population() -> None:
    starts = tuple(TokenPrompt((i, i)) for i in range(5))
    assert founders(TokenSpace(2, np.arange(9), starts=starts), 3, RNG(0)) == list(starts)


def test_children_are_made_of_the_best_so_far() -> None:
    """Two prompts are all the parents that there are, and next to nothing is drawn anew."""
    task, settings = Noted(share=0.5), Genetic(population=2, children=4, mutation=0.01, guided=0)
    objective = Objective(task, tiny_lm(), Budget(6 * N_EXAMPLES))
    space = TokenSpace.from_lm(tiny_lm(), 12)
    with pytest.raises(Exception, match="budget exhausted"):
        settings.run(objective, space, RNG(0))
    mother, father, *children = task.asked
    assert len(children) == 4
    for child in children:
        pairs = zip(child.ids, mother.ids, father.ids, strict=True)
        assert all(token in parents for token, *parents in pairs)


def test_guided_mutation_writes_what_the_model_would() -> None:
    """Every token is drawn anew, each from what the model says after those before."""
    lm = tiny_lm()
    space = TokenSpace.from_lm(lm, 1)
    objective = Objective(Noted(), lm, Budget(10**6))
    likely = continued(objective, [()], space.allowed)[0].double().numpy()

    def mean_log_likelihood(guided: float) -> float:
        task = Noted(flat=True)
        settings = Genetic(population=2, children=1, guided=guided)
        found: list[int] = []
        for seed in range(60):
            del task.asked[:]
            with pytest.raises(Exception, match="budget exhausted"):
                settings.run(Objective(task, lm, Budget(3 * N_EXAMPLES)), space, RNG(seed))
            found.extend(task.asked[2].ids)
        return float(np.log(likely[np.searchsorted(space.allowed, found)]).mean())

    assert mean_log_likelihood(1.0) > mean_log_likelihood(0.0) + 0.3
    assert objective.ledger.used == 0


def test_the_guide_is_the_models_own_distribution_over_what_is_allowed() -> None:
    import torch

    lm, allowed = tiny_lm(), np.array([5, 9, 200])
    objective = Objective(HiddenWords(), lm, Budget(100))
    found = continued(objective, [(), (7, 8)], allowed)
    model: Any = lm.model
    start = lm.tokenizer.bos_token_id
    with torch.no_grad():
        for row, ids in zip(found, [[start], [start, 7, 8]], strict=True):
            logits = model(torch.tensor([ids])).logits[0, -1, torch.from_numpy(allowed)]
            torch.testing.assert_close(row, logits.softmax(-1), rtol=1e-4, atol=1e-6)
    bert = Objective(HiddenWords(), tiny_lm("bert"), Budget(100))
    assert continued(bert, [()], allowed).tolist() == [pytest.approx([1 / 3] * 3)]


def test_a_model_whose_logits_are_no_heads_tells_no_next_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model: Any = tiny_model()
    forward = model.forward

    def moved(*args: Any, **given: Any) -> Any:
        output = forward(*args, **given)
        output.logits = output.logits + 1
        return output

    monkeypatch.setattr(model, "forward", moved)
    lm = FrozenLM(model, tiny_tokenizer())
    assert not lm.tells_next
    objective = Objective(HiddenWords(), lm, Budget(100))
    assert continued(objective, [(), (7,)], np.array([5, 9])).tolist() == [[0.5, 0.5]] * 2
    found = search(HiddenWords(), lm, Genetic(), 100 * N_EXAMPLES, length=4)
    assert found.n_distinct == 100


def test_no_prompt_is_scored_twice_and_a_small_space_is_scored_out() -> None:
    task = Noted()
    space = TokenSpace(2, np.array([10, 11, 12]), shortest=1)
    objective = Objective(task, tiny_lm(), Budget(1000))
    Genetic(population=4, children=3).run(objective, space, RNG(0))
    assert len(task.asked) == len(set(task.asked)) == 3 + 3**2


def test_crossing_puts_halves_together_that_random_draws_have_apart() -> None:
    """One token in ten is hidden: random's best of 200 has 3 or 4 of 8, by a binomial's tail."""
    for seed in range(2):
        bred, drawn = searched(Genetic(), seed), searched(RandomSearch(), seed)
        assert bred.rows == drawn.rows
        assert bred.trace[-1][1] > drawn.trace[-1][1] + 0.1
        assert bred.mean_reward > drawn.mean_reward + 0.1


@dataclass(frozen=True)
class OneForAll(Noted, Counted):
    """As many examples are called good as there are hidden tokens, and that is what pays."""

    share: float = 0.3

    def answered(self, lm: FrozenLM, prompt: Prompt) -> tuple[str, ...]:
        good = round(self.worth(lm, prompt) * N_EXAMPLES)
        return ("good",) * good + ("bad",) * (N_EXAMPLES - good)

    def measure(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Measured:
        rewards = self.rewards(lm, prompts, examples)
        return Measured(rewards, rewards, tuple(self.answered(lm, prompt) for prompt in prompts))


def test_a_bonus_for_entropy_leads_away_from_one_class_for_all() -> None:
    """Four hidden tokens pay most, and call all examples good; two of them call half so.

    A prompt of k of them is worth k / 4 by itself, and with the bonus 0, 1.37, 1.89, 1.87 and 1.
    """
    lm = tiny_lm()

    def hidden(settings: Genetic) -> tuple[float, Result]:
        """How many there are in the last 50 of 200 prompts, and what was found."""
        found = search(OneForAll(), lm, settings, 200 * N_EXAMPLES, length=4)
        return 4 * float(np.mean([reward for _, reward in found.points[-50:]])), found

    (plain, by_reward), (spread, by_both) = hidden(Genetic()), hidden(Genetic(entropy=2.0))
    assert plain > 3.2
    assert 1.7 < spread < 2.8
    # The bonus is in no figure, and decides no prompt that is reported.
    own = 0.01 * np.mean(range(N_EXAMPLES))
    for found in (by_reward, by_both):
        quarters = 4 * (np.array([reward for _, reward in found.points]) - own)
        np.testing.assert_allclose(quarters, quarters.round(), atol=1e-9)
        assert found.trace[-1][1] == found.points[int(quarters.argmax())][1]
        assert (found.n_prompts, found.n_distinct, found.rows) == (200, 200, 200 * N_EXAMPLES)


def test_the_bonus_is_for_answers_of_many_classes() -> None:
    assert entropy_of(["good"] * 4) == entropy_of([""] * 4) == 0
    assert entropy_of(["good", "bad"] * 2) == pytest.approx(np.log(2))
    assert entropy_of(["good", "", "bad", ""]) == pytest.approx(np.log(2))
    # GrIPS takes scipy's.
    assert entropy_of("abbccc") == pytest.approx(entropy([1, 2, 3]))


def test_a_search_with_a_bonus_that_is_cut_goes_on(tmp_path: Path) -> None:
    lives = OneForAll(last=20), OneForAll(last=30), OneForAll()
    goes_on(tmp_path / "study.sqlite", Genetic(entropy=0.5), OneForAll(), lives)


def test_a_task_that_tells_no_answers_is_refused_unpaid() -> None:
    task, settings = Noted(), Genetic(entropy=0.1)
    message = "Genetic counts what the model answers, as it is set, and task 'synthetic' does not"
    with pytest.raises(ValueError, match=message):
        search(task, tiny_lm(), settings, 200 * N_EXAMPLES, start=[" good", " bad"], length=1)
    assert task.asked == []
    search(task, tiny_lm(), Genetic(), 20 * N_EXAMPLES)

    class Silent(OneForAll):
        def measure(self, lm: FrozenLM, prompts: Any, examples: Any) -> Measured:
            return super().measure(lm, prompts, examples)._replace(answers=None)

    with pytest.raises(ValueError, match="'synthetic' tells no answers whose entropy could count"):
        search(Silent(), tiny_lm(), settings, 200 * N_EXAMPLES)


def test_what_is_chosen_among_classes_is_counted() -> None:
    """A task of classes tells them beside its rewards, for the same rows."""
    made = classification(reward="accuracy", calibration="none")
    found = search(made, tiny_lm(), Genetic(entropy=0.1), 50 * N_EXAMPLES, length=2)
    plain = search(made, tiny_lm(), Genetic(), 50 * N_EXAMPLES, length=2)
    assert found.rows == plain.rows == 50 * N_EXAMPLES
    assert found.settings == {**plain.settings, "entropy": 0.1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"entropy": 0}, "entropy is above 0, got 0"),
        ({"entropy": "0.1"}, "entropy is a number, got '0.1'"),
        ({"population": 1}, "population is 2 or more, got 1"),
        ({"children": 0}, "children is 1 or more, got 0"),
        ({"tournament": 0}, "tournament is 1 or more, got 0"),
        ({"mutation": 0.0}, "mutation is above 0, got 0.0"),
        ({"mutation": float("nan")}, "above 0, got nan"),
        ({"guided": 1.5}, "guided is a share from 0 up to 1, got 1.5"),
        ({"guided": float("nan")}, "guided is a share from 0 up to 1, got nan"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Genetic(**settings)
