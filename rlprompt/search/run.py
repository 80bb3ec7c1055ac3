"""Runs one optimiser on one task and reports what it found, from the ledger and not on its word.

A spread of its prompts races on dev, one is picked there, and the test split is opened for that
one; of a soft prompt, for its nearest tokens as well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from rlprompt._utils.identity import identity
from rlprompt._utils.seeding import of_data
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length, Pool, Start, TextPrompt, checked_starts
from rlprompt.search.analysis import analyse
from rlprompt.search.budget import Budget, Ledger, Scored
from rlprompt.search.evaluation import (
    Evaluator,
    describe,
    each_metric,
    n_read,
    scores_of,
    shown_answers,
)
from rlprompt.search.gradient_pool import check_pool, gradient_tokens, narrowed
from rlprompt.search.make_space import make_space
from rlprompt.search.memo import Memo
from rlprompt.search.objective import BudgetExhausted, Objective
from rlprompt.search.optimiser import (
    Optimiser,
    check_model,
    check_space,
    check_task,
    recorded,
    resolved,
)
from rlprompt.search.result import (
    CHOOSING,
    EXPLAINING,
    MARKS,
    STOPPING,
    TESTING,
    Candidate,
    Incumbent,
    Result,
    plain,
)
from rlprompt.search.selection import (
    EarlyStopping,
    Raced,
    Selection,
    entrants,
    leaders,
    race_on_dev,
)
from rlprompt.search.starts import best_starts
from rlprompt.search.vocabulary import typable_tokens
from rlprompt.tasks.base import Task
from rlprompt.tasks.completed import as_task
from rlprompt.types import Floats

logger = logging.getLogger(__name__)


def search(
    task: Task,
    lm: FrozenLM,
    optimiser: Optimiser[Any],
    budget: Budget | int,
    *,
    seed: int = 0,
    length: int | Length = 5,
    banned: Collection[str | int] = (),
    start: Start | Sequence[Start] = "vocabulary",
    tokens: str | Mapping[str, int] | Pool = "all",
    on_progress: Callable[[Ledger], None] | None = None,
    on_failure: Callable[[Result], None] | None = None,
    memo: Memo | None = None,
    selection: Selection = Selection(),  # noqa: B008  # frozen
) -> Result:
    """Search a prompt, pick on dev, open test for what was picked.

    >>> from rlprompt.agents import RandomSearch
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> task, lm = ToyTask(), toy_lm()
    >>> result = search(task, lm, RandomSearch(batch=5), budget=40, length=2)
    >>> result.status, result.rows, result.n_prompts
    ('finished', 40, 10)
    >>> result.best.dev.reward >= min(one.dev.reward for one in result.candidates)
    True

    Args:
        task: What a prompt is worth.
        lm: The frozen model.
        optimiser: The method.
        budget: Rows that the search may spend on train; selection and test are counted apart.
        seed: Decides everything random, on these examples: what one seed draws on others is
            independent of it.
        length: Tokens of the prompt, exactly or in a range. A soft prompt has as many vectors, in
            a range as many as the longest prompt has tokens. A text has any number, or in a range
            as many at most, and never more than the longest example leaves room for.
        banned: Ids and words that token prompts, texts, and starts of vectors, may not use. A text
            uses a word where it stands by itself, in any case (in scripts without spaces anywhere),
            and an id where its tokens have it.
        start: What to begin with: a text, a prompt, several, or a name. `vocabulary`: rows of
            random tokens for vectors (`SoftSpace.from_lm`), nothing for tokens. `hand`: the task's
            hand prompt. `label-words`: those of all classes. `common-words`, `task-words`: drawn of
            the most common words, or of those that the train texts have more often than texts do;
            for vectors the words at the centres of the clusters of the latter. `auto`: some of all
            these but the label words, kept by successive halving. Token methods score starts before
            their own prompts; vectors begin with the best of several, or with the one, which is
            scored. Of a text there are texts, prompts and `hand`, which `auto` stands for. All of
            it is paid from the budget.
        tokens: What token prompts, and random starts of vectors, are made of (`Pool`): `all`,
            `words`, `likely`, `gradient`, or with a size, such as `{"words": 200}`. `gradient`
            costs a gradient, with which the search begins; for vectors it is `all`.
        on_progress: Called with the ledger after each chunk of scored prompts.
        on_failure: Called with what was found so far before an error ends the search; the `status`
            of this result is `failed`.
        memo: Where answers are looked up before the task is asked, such as the record of an
            earlier process (`Store.record`).
        selection: How the prompt is picked on dev, and whether dev may end the search.

    Returns:
        The result. After Ctrl-C its `status` is `interrupted`, and what was found so far is in it
        without dev and test.

    Raises:
        ValueError: The budget does not cover one prompt, the method needs what the model or the
            task has not, a reward is no number, a text is too long for the model, or a start is no
            prompt here: too long, of banned tokens, of another width; or the tokens are to be
            ranked by a gradient, and there is none.
    """
    budget = budget if isinstance(budget, Budget) else Budget(budget)
    settings = _settings(resolved(optimiser))  # before the search: what fails here costs nothing
    check_model(optimiser, lm)
    lengths, starts = Length.of(length), checked_starts(start)
    task, pool = as_task(task), Pool.of(tokens)
    check_task(optimiser, task)
    check_pool(optimiser.searches, pool, task, lm, budget.rows)
    priors: dict[str, Floats] = {}
    outside = {
        purpose: Evaluator(task, lm, memo, priors)
        for purpose in (STOPPING, CHOOSING, TESTING, EXPLAINING)
        if purpose != STOPPING or selection.dev_patience
    }
    stops = None
    if selection.dev_patience:
        stops = EarlyStopping(outside[STOPPING], budget.rows, selection.dev_patience)
    objective = Objective(task, lm, budget, on_progress, memo, stops)
    # Two streams, so that an optimiser that draws more does not change the space it is given.
    space_rng, rng = (
        np.random.default_rng(child) for child in of_data(seed, task.splits.drawn_digest).spawn(2)
    )
    if optimiser.searches != "text":
        typable_tokens(lm)  # takes seconds once a process, which are those of no search
    began = time.perf_counter()
    space = make_space(
        optimiser.searches,
        lm,
        lengths,
        banned,
        space_rng,
        task,
        start=starts,
        tokens=pool,
        hidden=objective.hidden,
        read_keys=objective.keys_and_values,
    )
    check_space(optimiser, lm, task, space)

    def result(status: str) -> Result:
        # The method's own time, to which the ledger adds that of the answers when they were
        # computed, in whatever process that was: what a search takes that asks all of it itself and
        # that nothing interrupts.
        own = time.perf_counter() - began - objective.waited
        found = _found(objective, optimiser, settings, seed, lengths, status, own)
        if status != "finished":
            return found
        return _concluded(found, objective.ledger, selection, outside)

    try:
        with contextlib.suppress(BudgetExhausted):
            ranked = gradient_tokens(objective, space, pool)
            begun = best_starts(objective, space, starts)
            optimiser.run(objective, narrowed(begun, ranked), rng)
        return result("finished")
    except KeyboardInterrupt:
        return result("interrupted")
    except Exception:
        if on_failure is not None:
            on_failure(result("failed"))
        raise


def _found(
    objective: Objective,
    optimiser: Optimiser[Any],
    settings: dict[str, Any],
    seed: int,
    lengths: Length,
    status: str,
    own: float,
) -> Result:
    """What was found by the ledger; `own` are the seconds of the method itself."""
    task, lm, ledger = objective.task, objective.lm, objective.ledger
    mean_length = ledger.mean_length if ledger.n_prompts else lengths.at_most
    return dataclasses.replace(
        nothing_found(task, lm, optimiser, objective.budget, seed, lengths, settings),
        noise=dataclasses.asdict(lm.own_noise),
        status=status,
        rows=ledger.used,
        n_prompts=ledger.n_prompts,
        n_distinct=ledger.n_distinct,
        lm_seconds=ledger.lm_seconds,
        total_seconds=sum(
            (own, ledger.lm_seconds, ledger.reading_seconds, ledger.proposer_seconds)
        ),
        points=tuple(ledger.points),
        candidates=tuple(_candidate(task, lm, scored) for scored in ledger.best(1)),
        trace_seconds=tuple(one.seconds for one in ledger.improvements),
        tokens_per_row=tokens_per_row(task, lm, mean_length),
        own_tokens=ledger.own_tokens,
        judge_tokens=ledger.judge_tokens,
        n_partial=ledger.n_partial,
        proposer_read=ledger.proposer_read,
        proposer_written=ledger.proposer_written,
    )


def nothing_found(
    task: Task,
    lm: FrozenLM,
    optimiser: Optimiser[Any],
    budget: Budget,
    seed: int,
    length: Length,
    settings: dict[str, Any] | None = None,
) -> Result:
    """The result of a search that an error kept from beginning.

    It asks nothing of the model, which may be what cannot be had: its `noise` is empty.

    Args:
        task: As for `search`, like all the others.
        lm: The model; not loaded for this.
        optimiser: The method.
        budget: What it might have spent.
        seed: Its seed.
        length: Tokens of its prompts.
        settings: Those of the method, if they are known.
    """
    return Result(
        task=task.name,
        task_fingerprint=task.fingerprint,
        model=lm.name,
        fingerprint=dataclasses.asdict(lm.fingerprint),
        noise={},
        optimiser=type(optimiser).__name__,
        settings=_settings(resolved(optimiser)) if settings is None else settings,
        seed=int(seed),
        length=length.simplest,
        status="failed",
        budget_rows=int(budget.rows),
        rows=0,
        n_prompts=0,
        n_distinct=0,
        lm_seconds=0.0,
        total_seconds=0.0,
        points=(),
        candidates=(),
        select_by=as_task(task).select_by,
    )


def tokens_per_row(task: Task, lm: FrozenLM, length: float) -> float | None:
    """Tokens of text, prompt and answer in a row, on average over train, or None if unknown.

    Args:
        task: What the rows are of.
        lm: The model whose tokens they are.
        length: Tokens of a prompt, on average over those that were scored.
    """
    # Of a model that is served they are the server's, and on its bill.
    sizes = None if lm.served else task.lengths(lm, task.splits.train)
    return None if sizes is None else float(np.mean([sum(pair) for pair in sizes])) + length


def _concluded(
    found: Result, ledger: Ledger, selection: Selection, outside: Mapping[str, Evaluator]
) -> Result:
    """What was found, with a prompt picked on dev, tested, and taken apart."""
    if not found.candidates:
        return found
    choosing, testing, explaining = (outside[one] for one in (CHOOSING, TESTING, EXPLAINING))
    task, lm = choosing.task, choosing.lm
    raced = race_on_dev(choosing, entrants(ledger, selection))
    picked = raced[0].scored.prompt
    # What is learnt about the picked prompt comes first: after test, nothing is left to choose.
    incumbents = _incumbents(explaining, ledger, found.budget_rows)
    analysis = analyse(explaining, task.shortened(lm, picked))
    (train,) = testing.scores([picked], "train")
    tested, examples = testing.measure([picked], "test"), task.splits.parts()["test"]
    (test,) = scores_of(task, tested, examples)
    best, *others = (
        _candidate(task, lm, one.scored, one, choosing.prior(one.scored.prompt)) for one in raced
    )
    return dataclasses.replace(
        found,
        candidates=(dataclasses.replace(best, train=train, test=test), *others),
        incumbents=incumbents,
        test_metrics=each_metric(task, tested, examples),
        test_answers=shown_answers(tested),
        # The nearest tokens of a soft prompt are scored there before the prompt itself.
        test_opened=min(filter(None, (explaining.opened, testing.opened))),
        test_prompts=testing.test_prompts + explaining.test_prompts,
        outside_rows={purpose: one.rows for purpose, one in outside.items()},
        outside_seconds=sum(one.seconds for one in outside.values()),
        analysis=analysis,
    )


def _incumbents(evaluator: Evaluator, ledger: Ledger, budget: int) -> tuple[Incumbent, ...]:
    """The prompts that were the best at some points of the budget, with their dev scores."""
    chosen = leaders(ledger, [budget * i / MARKS for i in range(1, MARKS + 1)])
    found = evaluator.scores([one.prompt for one in chosen], "dev")
    return tuple(Incumbent(one.rows, score) for one, score in zip(chosen, found, strict=True))


def _candidate(
    task: Task,
    lm: FrozenLM,
    scored: Scored,
    raced: Raced | None = None,
    prior: Mapping[str, float] | None = None,
) -> Candidate:
    text, retypable = describe(task, lm, task.shortened(lm, scored.prompt))
    read = None if lm.served else n_read(task, lm, scored.prompt)
    own = None if isinstance(scored.prompt, TextPrompt) else len(scored.prompt)
    return Candidate(
        prompt=scored.prompt,
        text=text,
        retypable=retypable,
        train_reward=scored.reward,
        found_at_rows=scored.rows,
        train=None,
        dev=raced.dev if raced else None,
        test=None,
        dev_examples=len(raced.rewards) if raced else 0,
        tokens=read if read != own else None,
        prior=prior,
    )


def _settings(optimiser: Optimiser[Any]) -> dict[str, Any]:
    if not dataclasses.is_dataclass(optimiser):
        return {}
    return {name: _setting(value) for name, value in recorded(optimiser).items()}


def _setting(value: Any) -> Any:
    """A setting as JSON has it; what JSON has not, such as a function, by what tells it apart."""
    with contextlib.suppress(TypeError, ValueError):
        return json.loads(json.dumps(plain(value), allow_nan=False))
    told = identity(value)
    if isinstance(told, str) and (name := getattr(value, "__qualname__", None)):
        return name
    with contextlib.suppress(ValueError):
        return str(value) if told == repr(value) else json.loads(json.dumps(told, allow_nan=False))
    return str(value)  # infinity
