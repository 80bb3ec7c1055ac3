"""A plan is near what the searches then take, and costs nothing of theirs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from broken_tasks import GoodTask, split
from slow_tasks import SlowTask, clock_of_sleep
from tiny import tiny_lm

from rlprompt.agents.gcg import GCG
from rlprompt.agents.genetic import Genetic
from rlprompt.agents.random_search import RandomSearch
from rlprompt.agents.soft_prompt import SoftPromptTuning
from rlprompt.cli.check import _remarks
from rlprompt.cli.terminal import opening
from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.objective import Objective
from rlprompt.search.run import search
from rlprompt.search.space import TokenSpace
from rlprompt.studies.dry_run import all_rows, make_plan, raced_rows
from rlprompt.studies.experiment import Experiment
from rlprompt.tasks.base import GRADIENT_ROWS, Measured
from rlprompt.types import Floats, PromptKind

N_TRAIN, N_DEV, N_TEST = 10, 4, 7
SPLITS = Splits(split("train", N_TRAIN), split("dev", N_DEV), split("test", N_TEST))
ROW_SECONDS = 2e-4


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock_of_sleep(monkeypatch)


@dataclass(frozen=True)
class Closed(SlowTask):
    """Whose test examples nobody may look at."""

    splits: Splits = SPLITS
    row_seconds: float = ROW_SECONDS

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        assert not any(example.fields["text"].startswith("test") for example in examples)
        return super().rewards(lm, prompts, examples)


@dataclass(frozen=True)
class Thinks:
    """Random search with a long start, that thinks about each prompt."""

    searches: ClassVar[PromptKind] = "tokens"

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        time.sleep(0.3)
        while True:
            objective.evaluate([space.sample(rng) for _ in range(8)])
            time.sleep(8 * 0.004)


# All of its prompts cost the same, but for the last, which no gradient is taken at: told from a
# trial of 16 prompts, there seems to be one more than there is.
STEPS = SoftPromptTuning(batch=None, loss=None, average=None)


def experiment(**fields: Any) -> Experiment:
    made: dict[str, Any] = {
        "name": "small",
        "task": Closed(),
        "lm": tiny_lm(),
        "optimisers": {"random": RandomSearch(), "soft": STEPS, "thinks": Thinks()},
        "budget": Budget(90 * N_TRAIN + 3),
        "seeds": (0, 1),
        "length": 3,
        "controls": {"empty": TokenPrompt(), "hand-written": TokenPrompt((5, 6))},
    }
    return Experiment(**(made | fields))


def test_rows_are_counted_exactly() -> None:
    plan = make_plan(experiment())
    once = N_TRAIN + N_DEV + N_TEST
    controls = 3 * once + 20 * N_TRAIN  # one of them is the best of 20 words
    assert plan.control_rows == controls
    # Candidates, prompts that led, the picked one without each of its tokens.
    afterwards = (16 + 10 + 3) * N_DEV + N_TRAIN + N_TEST
    projected = N_DEV + N_TEST
    for one in plan.searches:
        assert (one.n_runs, one.rows) == (2, 903)
        is_soft = one.optimiser == "soft"
        assert one.n_prompts == (31 if is_soft else 90)
        assert one.selection_rows == afterwards + (projected if is_soft else 0)
    assert plan.rows == controls + 2 * (3 * (903 + afterwards) + projected)
    assert plan.bytes_now > 10**7
    assert plan.bytes_more == tiny_lm().memory.limit


def test_a_pool_that_a_gradient_ranks_is_seen_in_the_plan() -> None:
    made = experiment(tokens={"gradient": 9})
    plan = make_plan(made)
    paid = GRADIENT_ROWS * N_TRAIN
    # The gradient scores one prompt; vectors take no pool.
    assert {one.optimiser: (one.pool_rows, one.rows, one.n_prompts) for one in plan.searches} == {
        "random": (paid, 903, 88),
        "soft": (0, 903, 31),
        "thinks": (paid, 903, 88),
    }
    said = "`tokens: gradient` takes so many of a search's rows: random 30, thinks 30"
    assert said in _remarks(made, plan)
    usual = experiment()
    assert not any("gradient`" in line for line in _remarks(usual, make_plan(usual)))
    task = SlowTask(splits=SPLITS)
    found = search(task, tiny_lm(), RandomSearch(), 903, length=3, tokens={"gradient": 9})
    assert (found.rows, found.n_prompts) == (900, 88)


def test_what_is_beside_the_budgets_is_known_before_anything_is_measured() -> None:
    first, plan = experiment(), make_plan(experiment())
    rows = all_rows([first, dataclasses.replace(first, budget=Budget(1200))])
    # Controls depend on no budget.
    assert (rows.searched, rows.controls) == (2 * 3 * (903 + 1200), plan.control_rows)
    selection = 2 * sum(one.n_runs * one.selection_rows for one in plan.searches)
    assert rows.chosen + rows.final == selection == rows.outside - rows.controls


def test_that_most_of_the_rows_are_no_search_is_said_with_what_to_turn(tmp_path: Path) -> None:
    def said(n_test: int) -> str:
        splits = Splits(SPLITS.train, SPLITS.dev, split("test", n_test))
        return "\n".join(opening([experiment(task=Closed(splits))], tmp_path))

    assert "most of these rows are not in searches: " not in said(400)
    found = said(1400)
    # 3 searches on 2 seeds score the picked prompt, and one of them its nearest tokens as well.
    assert "rows in all: 5,418 in searches, and at most " in found
    assert f"{6 * (N_TRAIN + 1400) + 2 * (N_DEV + 1400):,} final scores" in found
    assert "has 1,400 test examples; set `test: 400` in a task's section to use that" in found


@pytest.mark.parametrize(("extra", "each", "expected"), [(0, 1, 40), (2, 1, 48), (0, 3, 120)])
def test_a_race_costs_what_its_rounds_cost(extra: int, each: int, expected: int) -> None:
    class Priced(Closed):
        """So many rows an example, and some more whenever it is asked."""

        extra_rows = extra

        def split_rows(self, split: str, n_examples: int) -> int:
            return super().split_rows(split, each * n_examples)

    # Of one class: rounds of 8, 8, 16 and 8.
    dev = tuple(Example({"text": f"dev {i}"}, "yes") for i in range(40))
    assert raced_rows(Priced(Splits(SPLITS.train, dev, SPLITS.test))) == expected


def test_seconds_of_the_task_and_of_the_optimiser_are_told_apart() -> None:
    plan = make_plan(experiment())
    random, soft, thinks = plan.searches
    for one in (random, soft, thinks):
        assert one.lm_seconds == pytest.approx(903 * ROW_SECONDS, rel=0.05)
        assert one.selection_seconds == pytest.approx(one.selection_rows * ROW_SECONDS, rel=0.05)
    assert random.own_seconds == pytest.approx(0, abs=1e-9)
    assert thinks.own_seconds == pytest.approx(0.3 + 90 * 0.004, rel=0.15)
    each = sum(one.seconds for one in plan.searches)
    assert plan.seconds == pytest.approx(plan.control_seconds + 2 * each)
    assert plan.measured_seconds > 0.3


def test_a_search_then_takes_about_as_long() -> None:
    slow = SlowTask(SPLITS, row_seconds=ROW_SECONDS)
    plans = make_plan(experiment(task=slow)).searches
    for plan, optimiser in zip(plans, experiment().optimisers.values(), strict=True):
        began = time.perf_counter()
        result = search(slow, tiny_lm(), optimiser, 903, length=3)
        seconds = time.perf_counter() - began
        assert 0 <= plan.n_prompts - result.n_prompts <= (plan.optimiser == "soft")
        assert result.lm_seconds == pytest.approx(plan.lm_seconds, rel=0.1)
        assert seconds == pytest.approx(plan.seconds, rel=0.1)


def test_a_limit_of_seconds_is_kept_in_mind() -> None:
    plan = make_plan(experiment(budget=Budget(90 * N_TRAIN + 3, seconds=0.01)))
    assert [one.lm_seconds for one in plan.searches] == [0.01] * 3


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_plan(experiment())
    assert not list(tmp_path.iterdir())


def test_in_little_time_less_is_measured() -> None:
    whole, short = make_plan(experiment()), make_plan(experiment(), 0.3)
    assert short.measured_seconds < 0.8 * whole.measured_seconds
    assert short.rows == whole.rows
    for rough, fine in zip(short.searches, whole.searches, strict=True):
        assert rough.lm_seconds == pytest.approx(fine.lm_seconds, rel=0.1)
    # It was ended before it asked again, so that its start counts as its own time a prompt.
    assert make_plan(experiment(), 0.1).searches[2].own_seconds > whole.searches[2].own_seconds


class Plain:
    """What a task needs, and no more."""

    name, fingerprint, splits = "plain", "plain", SPLITS
    rewards = GoodTask.rewards
    worth = GoodTask.worth


def test_a_task_that_tells_no_answers_is_refused_for_those_that_count_them() -> None:
    with pytest.raises(ValueError, match=r"counts what the model answers.*'plain' does not tell"):
        experiment(task=Plain(), optimisers={"mine": Genetic(entropy=0.1)})
    experiment(task=Plain(), optimisers={"mine": Genetic()})


def test_what_counts_answers_is_planned_where_the_task_tells_them() -> None:
    class Tells(Closed):
        def measure(self, lm: FrozenLM, prompts: Any, examples: Any) -> Measured:
            rewards = self.rewards(lm, prompts, examples)
            return Measured(rewards, rewards, (("good",) * len(examples),) * len(prompts))

    plan = make_plan(experiment(task=Tells(), optimisers={"mine": Genetic(entropy=0.1)}))
    (mine,) = plan.searches
    assert (mine.rows, mine.n_prompts) == (903, 90)
    assert mine.lm_seconds == pytest.approx(903 * ROW_SECONDS, rel=0.05)


def test_a_task_without_a_gradient_is_refused_for_those_that_need_one() -> None:
    for climbs in (SoftPromptTuning(), GCG()):
        with pytest.raises(ValueError, match="'plain' has no gradient, which mine would follow"):
            experiment(task=Plain(), optimisers={"mine": climbs})
    make_plan(experiment(task=Plain(), optimisers={"random": RandomSearch()}))
