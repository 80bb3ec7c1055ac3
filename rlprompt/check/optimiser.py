"""Does an optimiser keep its promises?

For pytest:

    check_optimiser(MyOptimiser()).raise_if_failed()

It searches on a task that costs nothing (`ToyTask`). What it cannot see is an optimiser that
never calls the objective again and never returns: that hangs here as it would in a search.
"""

from __future__ import annotations

import dataclasses
import json
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np

from rlprompt._utils.identity import identity, is_told
from rlprompt._utils.seeding import random_states, seeded
from rlprompt.check.report import Finding, Report, Stop, collect, verdict
from rlprompt.check.state import changed, model_state
from rlprompt.check.toy import Call, ToyTask, toy_lm
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length, Prompt
from rlprompt.search.budget import Budget
from rlprompt.search.make_space import make_space
from rlprompt.search.objective import (
    BudgetExhausted,
    Evaluation,
    GradientEvaluation,
    Objective,
)
from rlprompt.search.optimiser import Optimiser
from rlprompt.search.space import Space
from rlprompt.tasks.base import prompt_rows
from rlprompt.types import Loss, PromptKind

# What a method that searches text may begin with, and tokens that it has room for.
TEXTS = ("What is it about?", "In a word")
TEXT_TOKENS = 64
# Calls of the objective that bring nothing, after which a search will not end by itself.
MOST_REFUSALS = 50

# What the task was asked, prompt by prompt: its digest, the examples' keys, and what a gradient was
# of. Not the ledger's points, which tell nothing of a prompt that was scored on a part alone.
Asked = list[tuple[str, tuple[bytes, ...], Loss | None]]
# The search in which rewards on parts of the examples make up none on all of them.
TOGETHER = "where examples are scored together, as in batch calibration"


class _Endless(BaseException):
    """Ends an optimiser that does not heed `BudgetExhausted`; no `except Exception` stops it."""


class _Objective(Objective):
    """An objective that keeps a record of what it is asked, and loses patience."""

    asked: list[Prompt]
    refusals: int

    def evaluate(
        self,
        prompts: Sequence[Prompt],
        examples: Sequence[int] | None = None,
        *,
        told: bool = False,
    ) -> Evaluation:
        with self._noted(prompts):
            return super().evaluate(prompts, examples, told=told)

    def evaluate_with_grad(
        self,
        prompts: Sequence[Prompt],
        examples: Sequence[int] | None = None,
        *,
        loss: Loss = "reward",
    ) -> GradientEvaluation:
        with self._noted(prompts):
            return super().evaluate_with_grad(prompts, examples, loss=loss)

    @contextmanager
    def _noted(self, prompts: Sequence[Prompt]) -> Iterator[None]:
        self.asked.extend(prompts)
        self.refusals += not prompts
        try:
            yield
        except BudgetExhausted:
            self.refusals += 1
            raise
        finally:
            if self.refusals > MOST_REFUSALS:
                raise _Endless


@dataclass
class _Search:
    """One search of an optimiser, and what can be said of it afterwards."""

    space: Space
    objective: _Objective
    calls: list[Call] = field(default_factory=list)
    endless: bool = False

    @property
    def asked(self) -> Asked:
        return [
            (prompt.digest, tuple(example.key for example in examples), loss)
            for prompts, examples, loss in self.calls
            for prompt in prompts
        ]

    @property
    def rows(self) -> int:
        """What the task was really asked, in rows."""
        return sum(
            len(prompts) * prompt_rows(self.objective.task, len(examples), loss=loss)
            for prompts, examples, loss in self.calls
        )

    @property
    def left_over(self) -> bool:
        """Whether another prompt of the dearer kind could have been paid for."""
        losses = [loss for _, _, loss in self.calls if loss is not None]
        return bool(self.objective.affordable(loss=losses[0] if losses else None))


def check_optimiser(
    optimiser: Optimiser[Any],
    lm: FrozenLM | None = None,
    *,
    seed: int = 0,
    n_prompts: int = 70,
    length: int | Length = 3,
) -> Report:
    """Try an optimiser on a task that costs nothing.

    Args:
        optimiser: The method.
        lm: A model for its spaces; None for a tiny one with random weights.
        seed: Decides the searches.
        n_prompts: Prompts that the budget of a search covers.
        length: Tokens of a prompt, exactly or in a range; see `search`.

    >>> from rlprompt.agents.random_search import RandomSearch
    >>> check_optimiser(RandomSearch()).problems
    ()
    """
    check = _Check(optimiser, lm or toy_lm(), seed, n_prompts, length)
    protocol = collect(check.protocol)
    subject = type(optimiser).__name__
    if any(finding.status == "fail" for finding in protocol):
        return Report(subject, protocol)
    series = (check.settings, check.searches, check.hard_cases)
    return Report(subject, protocol + collect(*series))


@dataclass
class _Check:
    optimiser: Optimiser[Any]
    lm: FrozenLM
    seed: int
    n_prompts: int
    length: int | Length

    def protocol(self) -> Iterator[Finding]:
        """Whether there is something to run."""
        kinds = get_args(PromptKind)
        problem = ""
        if getattr(self.optimiser, "searches", None) not in kinds:
            problem = f"`searches` is {getattr(self.optimiser, 'searches', 'not there')!r}; "
            problem += f"say {' or '.join(map(repr, kinds))}"
        elif not callable(getattr(self.optimiser, "run", None)):
            problem = "there is no method `run(objective, space, rng)`; see `search.Optimiser`"
        elif isinstance(self.optimiser, type):
            problem = "this is a class; give an optimiser, such as an instance of it"
        yield verdict("protocol", problem, f"searches {getattr(self.optimiser, 'searches', '')}")

    def settings(self) -> Iterator[Finding]:
        """Whether a result can say how the search was set."""
        if not dataclasses.is_dataclass(self.optimiser):
            text = "no dataclass, so results cannot record its settings; make it a frozen one"
            yield Finding("settings", "warn", text)
            return
        fields = [f for f in dataclasses.fields(self.optimiser) if f.init]
        values = {f.name: getattr(self.optimiser, f.name) for f in fields}
        lost = [name for name, value in values.items() if not _is_recorded(value)]
        problem = f"{', '.join(lost)}: nothing that can be written down tells it from another, so "
        problem += "neither a result nor a study that goes on knows it; use finite numbers, texts, "
        problem += "functions, classes, and lists or dataclasses of them"
        yield verdict("settings", problem if lost else "", f"{len(values)} settings are recorded")

    def searches(self) -> Iterator[Finding]:
        """What every search must keep to, and whether its seed decides it."""
        model = model_state(self.lm)
        with seeded(1):
            states = random_states()
            one = self._search(self.seed, self.n_prompts)
            drawn = changed(states, random_states())
        touched = changed(model, model_state(self.lm))
        yield from _ledger(one)
        outside = [repr(p) for p in one.objective.asked if not one.space.contains(p)]
        problem = f"{len(outside)} prompts lie outside the space it was given, such as "
        fine = f"all {len(one.objective.asked)} prompts lie in the space"
        yield verdict("in-space", problem + outside[0] if outside else "", fine, "warn")
        problem = f"it changed the global generator of {', '.join(drawn)}; draw from `rng` alone"
        fine = "the global random generators are as they were"
        yield verdict("random-state", problem if drawn else "", fine)
        problem = f"it changed the model's {', '.join(touched)}"
        yield verdict("model-unchanged", problem if touched else "", "the model is as it was")
        # What others draw from the global generators in between must change nothing.
        with seeded(2):
            again = self._search(self.seed, self.n_prompts)
        with seeded(3):
            other = self._search(self.seed + 1, self.n_prompts)
        yield from _reproducible(one.asked, again.asked, other.asked)

    def hard_cases(self) -> Iterator[Finding]:
        """What breaks many methods."""
        flat = self._search(self.seed, self.n_prompts, flat=True)
        problem = f"where every prompt earns the same it ended with {flat.objective.remaining:,} "
        problem += "rows unspent: a coarse reward is no reason to stop"
        fine = "it goes on where every prompt earns the same"
        yield verdict("flat", problem if flat.left_over else "", fine, "warn")
        together = self._search(self.seed, self.n_prompts, together=True)
        for finding in _ledger(together):
            yield replace(finding, text=f"{finding.text} ({TOGETHER})")
        self._search(self.seed, 1)
        yield Finding("one-prompt", "pass", "it takes a budget of one prompt")

    def _search(
        self, seed: int, n_prompts: int, *, flat: bool = False, together: bool = False
    ) -> _Search:
        """Search without `search`, so that nothing is scored but what the optimiser asks for.

        Raises:
            Stop: The optimiser raised an error.
        """
        calls: list[Call] = []
        task = ToyTask(flat=flat, scored_together=together, asked=calls.append)
        # No multiple of what a prompt costs, as few budgets are.
        rows = (n_prompts + 1) * task.n_examples - 1
        objective = _Objective(task, self.lm, Budget(rows))
        objective.asked, objective.refusals = [], 0
        rng = np.random.default_rng(seed)
        kind = self.optimiser.searches
        start = TEXTS if kind == "text" else ("vocabulary",)
        length = Length(TEXT_TOKENS) if kind == "text" else self.length
        space = make_space(kind, self.lm, length, (), rng, start=start)
        search = _Search(space, objective, calls)
        try:
            self.optimiser.run(objective, space, rng)
        except BudgetExhausted:
            pass
        except _Endless:
            search.endless = True
        # Any error: an optimiser may come from anyone. It is reported with its traceback.
        except Exception as error:
            where = f"with a budget of {rows:,} rows" + (", all rewards equal" if flat else "")
            where += f", {TOGETHER}" if together else ""
            text = f"it raised {type(error).__name__}: {error} ({where})"
            raise Stop(Finding("raises", "fail", text, traceback.format_exc())) from error
        return search


def _ledger(search: _Search) -> Iterator[Finding]:
    """Whether a search paid for what it got, and got what it paid for."""
    objective = search.objective
    budget, charged = objective.budget.rows, objective.ledger.used
    problem = (
        f"it asked {MOST_REFUSALS} times more when nothing was left; let `BudgetExhausted` through"
    )
    yield verdict("ends", problem if search.endless else "", "it ends with the budget")
    train = {example.key for example in objective.task.splits.train}
    others = sum(not {one.key for one in examples} <= train for _, examples, _ in search.calls)
    problem = f"{others} calls scored other examples than those of train; dev and test are not for "
    problem += "the search"
    yield verdict("train-only", problem if others else "", "dev and test stayed closed")
    problem = (
        f"the task scored {search.rows:,} rows and {charged:,} were charged; get rewards from "
    )
    problem += "`objective.evaluate` alone"
    fine = "every reward came through the objective"
    yield verdict("objective-only", problem if search.rows != charged else "", fine)
    problem = f"{search.rows:,} rows were scored with a budget of {budget:,}"
    fine = f"{charged:,} of {budget:,} rows were spent"
    yield verdict("budget", problem if search.rows > budget else "", fine)
    problem = f"it ended with {objective.remaining:,} of {budget:,} rows unspent; others will have "
    problem += "had more"
    fine = "it spends what the budget covers"
    yield verdict("spends", problem if search.left_over else "", fine, "warn")
    problem = "no prompt was scored on all train examples, so there is none to pick; score the "
    problem += "best on all of them"
    fine = "there are prompts to pick from"
    none = search.calls and not objective.ledger.points
    yield verdict("picks", problem if none else "", fine)


def _reproducible(first: Asked, again: Asked, other: Asked) -> Iterator[Finding]:
    """Whether a seed decides all, as two searches of it tell, and decides something."""
    differ = next((i for i, (a, b) in enumerate(zip(first, again, strict=False)) if a != b), -1)
    problem = f"the same seed searched differently from prompt {differ + 1} on"
    if len(first) != len(again):
        problem = f"the same seed scored {len(first)} prompts and then {len(again)}"
    problem += ": no run of it can be resumed or repeated; draw from `rng` alone"
    fine = "the same seed searches alike"
    yield verdict("deterministic", problem if first != again else "", fine)
    problem = "two seeds searched alike: several seeds tell no more than one"
    fine = "another seed searches differently"
    yield verdict("seeds", problem if first == other else "", fine, "warn")


def _is_recorded(value: object) -> bool:
    """Whether a result can say what a setting is."""
    try:
        json.dumps(identity(value), allow_nan=False)
    except (TypeError, ValueError):
        return False
    return is_told(value)
