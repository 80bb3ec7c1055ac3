from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from synthetic import N_EXAMPLES, HiddenVectors, HiddenWords
from tiny import tiny_lm

from rlprompt.agents.cma_es import CMAES
from rlprompt.agents.greedy import Greedy
from rlprompt.agents.random_search import RandomSearch
from rlprompt.agents.soft_prompt import SoftPromptTuning
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.search.objective import Evaluation
from rlprompt.search.optimiser import Optimiser
from rlprompt.search.result import Result
from rlprompt.search.run import search
from rlprompt.search.space import SoftSpace, TokenSpace

RNG = np.random.default_rng


def run(optimiser: Optimiser[Any], n_prompts: int, seed: int = 0) -> Result:
    task = HiddenWords() if optimiser.searches == "tokens" else HiddenVectors()
    rows = n_prompts * N_EXAMPLES
    return search(task, tiny_lm(), optimiser, rows, seed=seed, length=5)


def test_random_search_draws_what_it_would_draw_one_by_one() -> None:
    assert run(RandomSearch(batch=1), 50).points == run(RandomSearch(batch=7), 50).points


def test_greedy_beats_random_search() -> None:
    # One token in ten is hidden. Random's best of 200 has 3 or 4 of 5; greedy meets a hidden one
    # in 81 % of rounds of 16 and has 9 rounds, so falls short of 4 in less than 1 % of runs.
    assert run(Greedy(), 200).trace[-1][1] > 0.79
    assert run(Greedy(), 200).mean_reward > run(RandomSearch(), 200).mean_reward


def test_greedy_changes_one_token_a_round_from_the_last_to_the_first() -> None:
    space = TokenSpace(3, np.arange(50))
    proposals = Greedy(pool=0.25, batch=4).ask(space, 40, RNG(0))
    batch = next(proposals)
    assert len(batch) == 10
    best, height = batch[-1], 1.0
    rewards = np.eye(10)[-1] * height
    for n, position in enumerate([2, 1, 0, 2, 1, 0]):
        batch = proposals.send(Evaluation(tuple(batch), rewards[:, None]))
        assert len(batch) == 4
        assert all(_changed(best, prompt) == [position] for prompt in batch)
        # Every other round holds something better, and the search goes on from there.
        rewards = np.zeros(4)
        if n % 2:
            best, height = batch[1], height + 1
            rewards[1] = height


def _changed(old: Prompt, new: Prompt) -> list[int]:
    assert isinstance(old, TokenPrompt)
    assert isinstance(new, TokenPrompt)
    return [i for i in range(len(old)) if old.ids[i] != new.ids[i]]


def test_greedy_scores_no_prompt_twice_and_ends_when_all_are_scored() -> None:
    space = TokenSpace(2, np.arange(4))
    seen: list[Prompt] = []
    proposals = Greedy(batch=3).ask(space, 3, RNG(0))
    batch: Sequence[Prompt] | None = next(proposals)
    while batch is not None:
        # The best is the first scored: its neighbours run out long before the space.
        rewards = -np.arange(len(seen), len(seen) + len(batch), dtype=float)
        seen += batch
        try:
            batch = proposals.send(Evaluation(tuple(batch), rewards[:, None]))
        except StopIteration:
            batch = None
    assert len(seen) == len(set(seen)) == 4**2


def test_cma_es_climbs() -> None:
    result = run(CMAES(dimension=4), 400)
    first = np.mean([reward for _, reward in result.points[:20]])
    last = np.mean([reward for _, reward in result.points[-20:]])
    # The subspace misses most of the target; what it holds is found.
    assert last > first + 0.3


def test_cma_es_turns_the_sign_and_moves_by_alpha() -> None:
    space = SoftSpace.from_lm(tiny_lm(), 5, RNG(0))
    batch = next(CMAES(dimension=200, alpha=0.5).ask(space, 100, RNG(1)))
    moved = np.array([p.vectors for p in batch if isinstance(p, SoftPrompt)]) - space.start
    assert moved.std() == pytest.approx(0.5 * space.scale, rel=0.1)


@pytest.mark.parametrize(("n_prompts", "diagonal"), [(3999, True), (4000, False)])
def test_cma_es_learns_a_full_covariance_only_where_the_budget_can_teach_it(
    n_prompts: int, diagonal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cma

    made = []

    def spy(x: object, sigma: float, options: dict[str, object]) -> None:
        made.append(options["CMA_diagonal"])
        raise RuntimeError

    monkeypatch.setattr(cma, "CMAEvolutionStrategy", spy)
    space = SoftSpace.from_lm(tiny_lm(), 5, RNG(0))
    with pytest.raises(RuntimeError):
        next(CMAES(dimension=4).ask(space, n_prompts, RNG(0)))
    assert made == [diagonal]


def test_cma_es_begins_again_with_twice_the_population() -> None:
    space = SoftSpace(np.zeros((1, 2), dtype=np.float32), 1.0)
    proposals = CMAES(dimension=2, population=4).ask(space, 100, RNG(0))
    batch = next(proposals)
    for _ in range(1000):
        if len(batch) > 4:
            break
        # It converges on the peak until steps vanish in rounding.
        peak = [-float(np.square(p.vectors).sum()) for p in batch if isinstance(p, SoftPrompt)]
        batch = proposals.send(Evaluation(tuple(batch), np.array(peak)[:, None]))
    assert len(batch) == 8


def test_soft_prompt_tuning_climbs() -> None:
    rewards = [reward for _, reward in run(SoftPromptTuning(), 300).points]
    assert rewards == sorted(rewards)
    assert rewards[-1] > rewards[0] / 10  # rewards are below 0


def test_soft_prompt_tuning_steps_by_its_learning_rate_whatever_the_rewards_scale() -> None:
    settings = SoftPromptTuning(learning_rate=0.2, weight_decay=0)
    result = run(settings, 6)
    first, second = (c.prompt for c in sorted(result.candidates, key=lambda c: c.found_at_rows))
    assert isinstance(first, SoftPrompt)
    assert isinstance(second, SoftPrompt)
    step = 0.2 * tiny_lm().embeddings().std()
    np.testing.assert_allclose(np.abs(second.vectors - first.vectors), step, rtol=1e-2)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (RandomSearch, {"batch": 0}, "1 prompt or more"),
        (Greedy, {"pool": 0}, r"in \(0, 1\]"),
        (Greedy, {"pool": 1.5}, r"in \(0, 1\]"),
        (Greedy, {"batch": 0}, "1 prompt or more"),
        (CMAES, {"dimension": 1}, "2 or more"),
        (CMAES, {"population": 3}, "4 prompts or more"),
        (CMAES, {"alpha": 0}, "above 0"),
        (SoftPromptTuning, {"learning_rate": float("nan")}, "above 0"),
        (SoftPromptTuning, {"weight_decay": -1}, "0 or more"),
    ],
)
def test_settings_out_of_range_are_refused(
    make: type, settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(**settings)
