"""What an experiment will cost, measured on a little of it: rows, seconds, memory.

Each optimiser runs for `TRIAL_PROMPTS` prompts against a reward that costs nothing
(`ToyTask`), which tells its own time and what it asks for; some of those prompts are then
scored on a few train examples by the task itself. Nothing is written, no reward is kept, and test
stays closed.

What cannot be known: how busy the machine will be, and whether an optimiser's own time grows with
its history.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import psutil

from rlprompt.check.toy import Call, ToyTask
from rlprompt.data.examples import Example
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length, Pool, Prompt, SoftPrompt, TokenPrompt
from rlprompt.search.analysis import parts
from rlprompt.search.budget import Budget
from rlprompt.search.evaluation import naming
from rlprompt.search.gradient_pool import narrowed
from rlprompt.search.make_space import make_space
from rlprompt.search.objective import BudgetExhausted, Objective
from rlprompt.search.result import MARKS
from rlprompt.search.selection import rounds
from rlprompt.search.space import TokenSpace
from rlprompt.search.vocabulary import commonest
from rlprompt.studies.controls import ControlPlan
from rlprompt.studies.experiment import Experiment
from rlprompt.tasks.base import GRADIENT_ROWS, Task, prompt_rows, rows_of
from rlprompt.types import Loss

# Three rollouts of PPO and of CMA-ES's two generations: enough to see what comes after the first.
TRIAL_PROMPTS = 48
# Calls of a trial that the task answers, and rows of each: enough to fill a forward pass, as a
# search does.
SCORED_CALLS, SCORED_ROWS = 4, 128
# The least of each.
LEAST_ROWS = 8
# Examples that a single prompt is scored on.
SINGLE_EXAMPLES = 24


@dataclass(frozen=True)
class SearchPlan:
    """What one search of an optimiser is expected to cost.

    Attributes:
        optimiser: Its name in the experiment.
        n_runs: Searches with it, one a seed; the other figures are those of each.
        rows: Budget, of which it may leave a rest.
        n_prompts: Prompts that this covers.
        lm_seconds: Time of rewards and gradients.
        own_seconds: Time of the optimiser itself, such as a policy's.
        selection_rows: Rows of the selection on dev and of the final scores, outside the budget.
        selection_seconds: Their time.
        pool_rows: Of the budget, what its pool of tokens costs.
    """

    optimiser: str
    n_runs: int
    rows: int
    n_prompts: int
    lm_seconds: float
    own_seconds: float
    selection_rows: int
    selection_seconds: float
    pool_rows: int = 0

    @property
    def seconds(self) -> float:
        """Time of one search from start to result."""
        return self.lm_seconds + self.own_seconds + self.selection_seconds


@dataclass(frozen=True)
class Plan:
    """What an experiment is expected to cost, in one process, loading not counted.

    Attributes:
        searches: One an optimiser.
        control_rows: Rows of the controls, outside any budget.
        control_seconds: Their time.
        bytes_now: Memory of this process with the model loaded.
        bytes_more: Memory that scoring keeps to beyond that.
        measured_seconds: How long measuring took.
    """

    searches: tuple[SearchPlan, ...]
    control_rows: int
    control_seconds: float
    bytes_now: int
    bytes_more: int
    measured_seconds: float

    @property
    def rows(self) -> int:
        """All rows, in and outside budgets."""
        each = (plan.n_runs * (plan.rows + plan.selection_rows) for plan in self.searches)
        return self.control_rows + sum(each)

    @property
    def seconds(self) -> float:
        """Time of all searches and controls, one after the other."""
        return self.control_seconds + sum(plan.n_runs * plan.seconds for plan in self.searches)


def make_plan(experiment: Experiment, seconds: float = math.inf) -> Plan:
    """Measure a little of an experiment, and reckon the rest.

    Args:
        experiment: The experiment.
        seconds: That measuring should take at the most; fewer make a rougher plan.

    Raises:
        ValueError: A prompt cannot be scored.
    """
    began = time.perf_counter()
    once = sum(map(len, experiment.task.splits.parts().values()))
    # Dev and test are read for the first time by the first control; later their beginnings are
    # kept.
    cold, warm = _single_rates(experiment)
    beside = _metric_seconds(experiment)
    searches = []
    for i, name in enumerate(experiment.optimisers):
        left = began + seconds - time.perf_counter()
        # The controls' part comes last, and is small.
        found = _measure(experiment, name, left / (len(experiment.optimisers) - i + 1), cold)
        # The pool's gradient scores a prompt, and comes before the optimiser.
        paid = experiment.pool_rows(name)
        n_prompts = int((experiment.budget.rows - paid) * found.prompts_a_row) + bool(paid)
        on_dev, final = selection_rows(experiment, name, n_prompts)
        plan = SearchPlan(
            optimiser=name,
            n_runs=len(experiment.seeds),
            rows=experiment.budget.rows,
            n_prompts=n_prompts,
            lm_seconds=found.lm_seconds * experiment.budget.rows,
            own_seconds=found.own_start + found.own_seconds * n_prompts,
            selection_rows=on_dev + final,
            # Candidates are scored together, as a search's prompts are, and the picked one alone.
            selection_seconds=on_dev * (found.lm_seconds + beside) + final * warm,
            pool_rows=paid,
        )
        limit = experiment.budget.seconds
        searches.append(dataclasses.replace(plan, lm_seconds=min(plan.lm_seconds, limit)))
    return Plan(
        searches=tuple(searches),
        control_rows=sum(plan.rows for plan in experiment.control_plans),
        control_seconds=once * (cold - warm) + _control_seconds(experiment, warm),
        bytes_now=psutil.Process().memory_info().rss,
        bytes_more=experiment.lm.memory.limit,
        measured_seconds=time.perf_counter() - began,
    )


def least_rows(experiment: Experiment) -> int:
    """Rows that measuring scores at the least, gradients not counted."""
    calls = (SCORED_CALLS + 1) * len(experiment.optimisers)
    alone = experiment.task.split_rows("dev", SINGLE_EXAMPLES)
    return calls * LEAST_ROWS + (2 + len(experiment.control_plans)) * alone


def selection_rows(experiment: Experiment, name: str, n_prompts: int) -> tuple[int, int]:
    """Rows outside the budget of one search, at most: to choose on dev, and for final scores.

    Who falls behind on dev is scored on a part of it, and few prompts lead.

    Args:
        experiment: The experiment.
        name: An optimiser of it.
        n_prompts: Prompts that its budget covers.
    """
    task, selection = experiment.task, experiment.selection
    sizes = {split: len(part) for split, part in task.splits.parts().items()}
    dev = task.split_rows("dev", sizes["dev"])
    longest = Length.of(experiment.space(name)["length"]).at_most
    n_parts = 0 if experiment.optimisers[name].searches == "text" else len(list(parts(longest)))
    n_explained = min(MARKS, n_prompts) + n_parts
    on_dev = min(selection.candidates, n_prompts) * raced_rows(task) + n_explained * dev
    if selection.dev_patience:
        on_dev += min(MARKS - 1, n_prompts) * dev
    # The picked prompt's prior is known by then.
    final = rows_of(task, [(split, sizes[split]) for split in ("train", "test")], known=True)
    if experiment.optimisers[name].searches == "soft":  # its nearest tokens, too
        final += rows_of(task, [(split, sizes[split]) for split in ("dev", "test")])
    return on_dev, final


def raced_rows(task: Task) -> int:
    """Rows of a prompt that races on all of dev, round by round."""
    return rows_of(task, (("dev", len(places)) for places in rounds(task.splits.dev)))


@dataclass(frozen=True)
class Rows:
    """What experiments will score, at most, as far as it is known before anything is measured.

    Attributes:
        searched: Rows of all budgets.
        controls: Of the controls.
        chosen: To choose on dev.
        final: To score what was chosen.
    """

    searched: int
    controls: int
    chosen: int
    final: int

    @property
    def outside(self) -> int:
        """Rows outside the budgets."""
        return self.controls + self.chosen + self.final


def all_rows(experiments: Sequence[Experiment]) -> Rows:
    """The rows of all experiments of a study."""
    searched = chosen = final = 0
    for one in experiments:
        n_prompts = one.budget.rows // prompt_rows(one.task)
        searched += one.budget.rows * len(one.optimisers) * len(one.seeds)
        for name in one.optimisers:
            own = selection_rows(one, name, n_prompts)
            chosen += own[0] * len(one.seeds)
            final += own[1] * len(one.seeds)
    return Rows(searched, sum(plan.rows for plan in all_controls(experiments)), chosen, final)


def all_controls(experiments: Sequence[Experiment]) -> list[ControlPlan]:
    """The controls of all experiments of a study: they depend on no budget."""
    cells = {one.cell: one for one in experiments}.values()
    return [plan for one in cells for plan in one.control_plans]


class _EnoughSeen(BaseException):
    """Ends a trial in time; no `except` of an optimiser's keeps it."""


@dataclass(frozen=True)
class _Rates:
    """What a trial of an optimiser tells.

    Attributes:
        prompts_a_row: Prompts that a charged row buys.
        lm_seconds: Of a charged row.
        own_start: Seconds until it first asks.
        own_seconds: Its own, a prompt, from then on.
    """

    prompts_a_row: float
    lm_seconds: float
    own_start: float
    own_seconds: float


def _measure(experiment: Experiment, name: str, seconds: float, row_seconds: float) -> _Rates:
    """Run an optimiser for a while, and score what it asked for.

    Args:
        experiment: The experiment.
        name: An optimiser of it.
        seconds: That this should take at the most, a half of it for each of the two.
        row_seconds: That a row takes, about.
    """
    calls, stamps, begun = _trial(experiment, name, seconds / 2)
    n_prompts = sum(len(prompts) for prompts, _, _ in calls)
    if not n_prompts:
        return _Rates(0.0, 0.0, stamps[-1] - stamps[0], 0.0)
    task = experiment.task
    charged = sum(len(p) * prompt_rows(task, len(e), loss=loss) for p, e, loss in calls)
    # Up to the first call it prepares; after that it learns from one call and makes up the next.
    n_later = n_prompts - len(calls[0][0])
    own = (stamps[-1] - stamps[1]) / n_later if n_later else 0.0
    if not n_later and stamps[1] - begun > seconds / 2:  # it was ended before it asked again
        own = (stamps[1] - begun) / n_prompts
    return _Rates(
        prompts_a_row=n_prompts / charged,
        lm_seconds=_row_seconds(experiment, calls, seconds / 2 / max(1e-9, row_seconds)),
        own_start=stamps[1] - stamps[0],
        own_seconds=own,
    )


def _trial(
    experiment: Experiment, name: str, seconds: float
) -> tuple[list[Call], list[float], float]:
    """What an optimiser asks for, and when: at first, at each call and at its end; and its start.

    Before its start the space is made. It ends with the first call after so many seconds. Which of
    several starts is best is not tried: of a whole budget that is a small part. In the place of
    tokens that a gradient ranks are as many common ones.
    """
    calls: list[Call] = []
    stamps: list[float] = []

    def asked(call: Call) -> None:
        calls.append(call)
        stamps.append(time.perf_counter())
        if stamps[-1] - begun > seconds:
            raise _EnoughSeen

    own = experiment.task
    task = ToyTask(len(own.splits.train), asked=asked, shows=own)
    rows = min(experiment.budget.rows, TRIAL_PROMPTS * task.n_examples)
    objective = Objective(task, experiment.lm, Budget(rows))
    rng = np.random.default_rng(experiment.seeds[0])
    stamps.append(time.perf_counter())
    optimiser, lm, settings = experiment.optimisers[name], experiment.lm, experiment.space(name)
    kind, hidden = optimiser.searches, objective.hidden
    space = make_space(kind, lm, rng=rng, task=experiment.task, hidden=hidden, **settings)
    if experiment.pool_rows(name) and isinstance(space, TokenSpace):
        known = commonest(lm, space.allowed.tolist())
        space = narrowed(space, known[: Pool.of(settings["tokens"]).size])
    begun = time.perf_counter()
    with contextlib.suppress(BudgetExhausted, _EnoughSeen):
        optimiser.run(objective, space, rng)
    stamps.append(time.perf_counter())
    return calls, stamps, begun


def _row_seconds(experiment: Experiment, calls: Sequence[Call], n_rows: float) -> float:
    """Seconds of a charged row: some of these calls, about so many rows, on some train examples."""
    places = np.linspace(0, len(calls) - 1, min(SCORED_CALLS, len(calls))).round().astype(int)
    chosen = [calls[i] for i in places]
    n_prompts = int(np.median([len(prompts) for prompts, _, _ in chosen]))
    task, lm = experiment.task, experiment.lm
    prompts, _, loss = chosen[0]
    a_call = min(n_rows, 1e9) / (len(chosen) + 1) / (GRADIENT_ROWS if loss else 1)
    most = max(1, int(a_call / LEAST_ROWS))
    count = max(LEAST_ROWS, int(min(SCORED_ROWS, a_call)) // min(n_prompts, most))
    examples = _by_length(task.splits.train, count)
    _seconds(task, lm, prompts[:1], examples, loss)  # what is kept is kept from here on
    seconds = charged = 0.0
    for prompts, _, loss in chosen:
        seconds += _seconds(task, lm, prompts[:most], examples, loss)
        charged += len(prompts[:most]) * prompt_rows(task, len(examples), loss=loss)
    return seconds / charged


def _seconds(
    task: Task,
    lm: FrozenLM,
    prompts: Sequence[Prompt],
    examples: Sequence[Example],
    loss: Loss | None = None,
    *,
    measured: bool = False,
) -> float:
    """Seconds that a task needs for one call, of its rewards, a gradient, or what reports give."""
    began = time.perf_counter()
    with naming(task):
        if measured:
            task.measure(lm, prompts, examples)
        elif loss is None:
            task.rewards(lm, prompts, examples)
        elif loss == "cross_entropy" and task.has("cross_entropy_with_grad"):
            task.cross_entropy_with_grad(lm, cast("Sequence[SoftPrompt]", prompts), examples)
        elif task.has("rewards_with_grad"):
            task.rewards_with_grad(lm, cast("Sequence[SoftPrompt]", prompts), examples)
        else:
            raise ValueError(
                f"task {task.name!r} has no gradient; leave out optimisers that need it"
            )
    return time.perf_counter() - began


def _single_rates(experiment: Experiment) -> tuple[float, float]:
    """Seconds a row for one prompt at a time: texts read for the first time, and again."""
    examples = _by_length(experiment.task.splits.dev, SINGLE_EXAMPLES)
    one = TokenPrompt(experiment.lm.encode(" the"))
    task, lm = experiment.task, experiment.lm
    seconds = [
        _seconds(task, lm, [prompt], examples, measured=True) for prompt in (TokenPrompt(), one)
    ]
    rows = task.split_rows("dev", len(examples))
    return seconds[0] / rows, seconds[1] / rows


def _metric_seconds(experiment: Experiment) -> float:
    """Seconds a row that dev takes beside the reward, where only the metric has the model write."""
    task, lm = experiment.task, experiment.lm
    if task.has("rewards_with_outputs") or "writing" not in (task.usage() or {}):
        return 0.0
    examples = _by_length(task.splits.dev, SINGLE_EXAMPLES)
    prompts = [TokenPrompt(lm.encode(" the"))]
    both, reward = (_seconds(task, lm, prompts, examples, measured=own) for own in (True, False))
    return max(0.0, both - reward) / task.split_rows("dev", len(examples))


def _control_seconds(experiment: Experiment, warm: float) -> float:
    """Seconds of the controls where texts were read before; at most, for words go together."""
    seconds = 0.0
    for plan in experiment.control_plans:
        rate = warm
        if plan.task is not experiment.task and plan.prompts:
            examples = _by_length(plan.task.splits.dev, SINGLE_EXAMPLES)
            spent = _seconds(plan.task, experiment.lm, plan.prompts, examples, measured=True)
            rate = spent / plan.task.split_rows("dev", len(examples))
        seconds += plan.rows * rate
    return seconds


def _by_length(examples: Sequence[Example], count: int) -> list[Example]:
    """A few examples of all lengths."""
    ordered = sorted(examples, key=lambda example: sum(map(len, example.fields.values())))
    count = min(count, len(ordered))
    # The middles of equal parts: the shortest and the longest are not typical.
    return [ordered[int((i + 0.5) * len(ordered) / count)] for i in range(count)]
