"""An experiment file for some data, a model and this machine: about ten minutes, and why so.

Those go to three seeds first and to rows then: methods cannot be told apart by one search each, and
on 32 train examples ten times 100 prompts have not shown on held-out ones.

What ten minutes pay for is measured on a little of each search (`dry_run`), as `rlprompt check`
does it; dev and test are not scored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rlprompt._utils.text import counted
from rlprompt.config.registry import make_optimiser
from rlprompt.config.schema import PromptConfig
from rlprompt.data.roles import Roles
from rlprompt.data.survey import Survey
from rlprompt.models.lm import FrozenLM
from rlprompt.models.weights import quantisation
from rlprompt.search.budget import Budget
from rlprompt.search.vocabulary import common_words, typable_tokens
from rlprompt.studies.draft_task import LENGTH, DraftTask, KeyPath, draft_task
from rlprompt.studies.dry_run import Plan, make_plan
from rlprompt.studies.experiment import Experiment
from rlprompt.tasks.base import Task, prompt_rows
from rlprompt.tasks.classification import ClassificationTask

# What a study is to take, and the share of it that controls and final scores may take, at which
# fewer examples are tested on, and how few at the least.
SECONDS, OUTSIDE, LEAST_TEST = 600.0, 0.5, 50
# Prompts that a search sees at the least, however long that takes, those from which on further
# seeds are worth more than further prompts, and rows that are measured for.
FEWEST_PROMPTS, ENOUGH_PROMPTS, TRIAL_ROWS = 30, 100, 3200
SEEDS = (0, 1, 2)
# One method that needs nothing, one that grows prompts, one that learns over tokens, one that
# climbs a gradient.
GRADIENT = "soft-prompt"
OPTIMISERS = ("random", "grow", "ppo", GRADIENT)
# Said where the time is enough for a single search with each.
ONE_SEED = ", since three would take longer; they are needed to compare methods"


@dataclass(frozen=True)
class Draft:
    """An experiment file: what it says, and why.

    Attributes:
        content: Key to value, as a file has them.
        why: Place of a value to a remark.
        said: What was found and guessed: what it is about, and a sentence.
        seconds: What all of it is expected to take, loading not counted.
    """

    content: Mapping[str, Any]
    why: Mapping[KeyPath, str]
    said: tuple[tuple[str, str], ...]
    seconds: float


def make_draft(
    found: Survey, roles: Roles, lm: FrozenLM, *, name: str, model: str, data: str
) -> Draft:
    """An experiment on some data that fits a model and this machine.

    Args:
        found: What the columns hold.
        roles: What they are for.
        lm: The model.
        name: What the experiment is called.
        model: The model's name, as a file is to have it.
        data: The data, as `load_splits` takes them.

    Raises:
        ValueError: No task can be made of the data, or none of the searches can be run on it.
    """
    made = draft_task(found, roles, lm, data)
    optimisers, refused = _optimisers(lm)
    made, plan = _measured(made, lm, optimisers)
    seeds, rows, seconds = _budget(made, plan)
    n_train, minutes = len(made.task.splits.train), max(1, round(seconds / 60))
    covered = f"{rows // prompt_rows(made.task):,} prompts on {n_train} train examples"
    first = plan.searches[0]
    rate = f"this machine scores {first.n_prompts / first.lm_seconds:.2g} prompts a second on them"
    sizes = ", ".join(f"{len(part)} {split}" for split, part in made.task.splits.parts().items())
    said = [
        *made.said,
        *([("optimisers", f"without {GRADIENT}: {refused}")] if refused else []),
        ("examples", sizes),
        ("budget", f"{rows:,} rows a search: {covered}; {rate}"),
        ("seeds", f"{len(seeds)} of each search{'' if len(seeds) > 1 else ONE_SEED}"),
        ("time", f"about {counted(minutes, 'minute')} in all"),
    ]
    prompt = _prompt(made.task, lm)
    why = {("task", *place): remark for place, remark in made.why.items()} | {
        (
            "prompt",
            "length",
        ): f"1 to {LENGTH} tokens; or a number, for exactly so many"
        if "tokens" in prompt
        else f"tokens; {{at_most: {LENGTH}}} for 1 to {LENGTH}",
        ("prompt", "tokens"): "300: common words, words of the texts, and of what the model "
        "expects there; or all",
        ("optimisers",): f"without {GRADIENT}: {refused}"
        if refused
        else "others: rlprompt ls optimisers",
        ("seeds",): "searches with each method; three or more to compare methods",
        ("budget",): f"rows a search: {covered}, about {counted(minutes, 'minute')} in all",
    }
    content = {
        "name": name,
        "model": model,
        "task": made.section,
        "prompt": prompt,
        "optimisers": [*optimisers],
        "seeds": [*seeds],
        "budget": rows,
    }
    return Draft(content, why, tuple(said), seconds)


def _prompt(task: Task, lm: FrozenLM) -> dict[str, Any]:
    """What is searched for.

    Of classes short prompts of words, which did better on dev than five tokens of any kind
    (one part switched off at a time), where the tokenizer has words.
    """
    if isinstance(task, ClassificationTask) and common_words(lm, typable_tokens(lm)):
        return {"length": {"at_most": LENGTH}, "tokens": "words"}
    return {"length": LENGTH}


def _optimisers(lm: FrozenLM) -> tuple[tuple[str, ...], str]:
    """The methods, and why the one with a gradient is not among them."""
    if method := quantisation(lm.model):
        return OPTIMISERS[:-1], f"weights quantised by {method} may pass on no gradient"
    if obstacle := lm.vectors_obstacle:
        return OPTIMISERS[:-1], obstacle
    return OPTIMISERS, ""


def _measured(made: DraftTask, lm: FrozenLM, optimisers: tuple[str, ...]) -> tuple[DraftTask, Plan]:
    """What a trial budget costs; on fewer test examples where those take too long."""
    plan = _plan(made, lm, optimisers)
    n_test = len(made.task.splits.test)
    if _fixed(plan) <= OUTSIDE * SECONDS or n_test <= LEAST_TEST:
        return made, plan
    fewer = max(LEAST_TEST, int(n_test * OUTSIDE * SECONDS / _fixed(plan)) // 10 * 10)
    task: Any = made.task
    splits = replace(task.splits, test=task.splits.test[:fewer])
    section = {**made.section, "test": fewer}
    remark = {**made.why, ("test",): f"{n_test} examples would take longer than the searches"}
    made = replace(made, section=section, task=replace(task, splits=splits), why=remark)
    return made, _plan(made, lm, optimisers)


def _plan(made: DraftTask, lm: FrozenLM, optimisers: tuple[str, ...]) -> Plan:
    methods = {name: make_optimiser(name, {}) for name in optimisers}
    rows = max(TRIAL_ROWS, FEWEST_PROMPTS * prompt_rows(made.task))
    prompt = PromptConfig.model_validate(_prompt(made.task, lm))
    space: dict[str, Any] = {"length": prompt.lengths, "tokens": prompt.tokens}
    return make_plan(Experiment("draft", made.task, lm, methods, Budget(rows), **space))


def _fixed(plan: Plan) -> float:
    """Seconds that do not depend on the budget."""
    return plan.control_seconds + sum(one.selection_seconds for one in plan.searches)


def _budget(made: DraftTask, plan: Plan) -> tuple[tuple[int, ...], int, float]:
    """Seeds, rows that fill the time, in two digits, and what all of it then takes, seconds."""
    each = prompt_rows(made.task)
    a_row = sum(one.lm_seconds + one.own_seconds for one in plan.searches) / plan.searches[0].rows
    chosen = sum(one.selection_seconds for one in plan.searches)
    for seeds in (SEEDS, SEEDS[:1]):
        fixed = plan.control_seconds + len(seeds) * chosen
        rows = max(0.0, SECONDS - fixed) / (len(seeds) * a_row)
        if rows >= ENOUGH_PROMPTS * each:
            break
    rows = max(rows, FEWEST_PROMPTS * each)
    step = 10 ** max(0, int(math.log10(rows)) - 1)
    whole = math.ceil(rows / step) * step
    return seeds, whole, fixed + len(seeds) * whole * a_row
