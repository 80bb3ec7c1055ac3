"""Runs one optimiser on one task and reports what it found, from the ledger and not on its word.

The best few prompts by train reward are scored again on dev, one is picked there, and the test
split is opened once, for that one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from rlprompt.answers import Answers
from rlprompt.lm import FrozenLM
from rlprompt.objective import (
    Budget,
    BudgetExhausted,
    Evaluation,
    Ledger,
    Objective,
    Scored,
)
from rlprompt.prompt import Prompt, TokenPrompt
from rlprompt.result import SOFT_MARK, Candidate, Result, Score, plain
from rlprompt.space import Kind, SoftSpace, Space, TokenSpace
from rlprompt.task import ChoosyTask, ShorteningTask, Task, measure

logger = logging.getLogger(__name__)

# Prompts re-scored on dev. More finds a better one now and then and costs test-like rows.
CANDIDATES = 8

Proposals = Generator[Sequence[Prompt], Evaluation, None]


@runtime_checkable
class Optimiser(Protocol):
    """A search method: a frozen dataclass of its settings.

    Attributes:
        searches: The space that `run` wants, `tokens` or `soft`.
    """

    searches: ClassVar[Kind]

    def run(self, objective: Objective, space: Any, rng: np.random.Generator) -> None:
        """Search until the budget is spent (`BudgetExhausted`) or there is nothing left to try.

        Args:
            objective: The only way to a reward.
            space: Where to look, a `TokenSpace` or `SoftSpace`.
            rng: The only source of randomness: same generator, same search.
        """
        ...


class AskTell(ABC):
    """An optimiser that asks for rewards of a batch and is told them, and needs nothing else.

    `ask` is a generator, so the state of a search is its local variables:

        evaluation = yield prompts
    """

    @abstractmethod
    def ask(self, space: Any, n_prompts: int, rng: np.random.Generator) -> Proposals:
        """Yield batches of prompts and receive their evaluations.

        Args:
            space: Where to look.
            n_prompts: Prompts that the budget covers.
            rng: The only source of randomness.
        """

    def run(self, objective: Objective, space: Any, rng: np.random.Generator) -> None:
        """See `Optimiser.run`."""
        proposals = self.ask(space, objective.affordable(), rng)
        prompts = next(proposals, None)
        while prompts is not None:
            evaluation = objective.evaluate(prompts)  # outside `try`: a task may raise it too
            try:
                prompts = proposals.send(evaluation)
            except StopIteration:
                return


class Scores(Protocol):
    """Final scores that an earlier process computed: nothing is selected, or tested, twice."""

    def find(self, prompts: Sequence[Prompt], split: str) -> list[Score] | None:
        """The scores of prompts that were scored together on a split, or None."""
        ...

    def keep(self, prompts: Sequence[Prompt], split: str, scores: Sequence[Score]) -> None:
        """Put away new scores, for good once this returns."""
        ...


def search(
    task: Task,
    lm: FrozenLM,
    optimiser: Optimiser,
    budget: Budget | int,
    *,
    seed: int = 0,
    length: int = 5,
    banned: Collection[str | int] = (),
    on_progress: Callable[[Ledger], None] | None = None,
    on_failure: Callable[[Result], None] | None = None,
    answers: Answers | None = None,
    scores: Scores | None = None,
) -> Result:
    """Search a prompt, pick on dev, open test once.

    Args:
        task: What a prompt is worth.
        lm: The frozen model.
        optimiser: The method.
        budget: Rows that the search may spend on train; selection and test are counted apart.
        seed: Decides everything random.
        length: Tokens or vectors of the prompt.
        banned: Ids and words that token prompts may not use.
        on_progress: Called with the ledger after each chunk of scored prompts.
        on_failure: Called with what was found so far before an error ends the search; the `status`
            of this result is `failed`.
        answers: Where answers are looked up before the task is asked, such as the record of an
            earlier process (`Store.record`).
        scores: The same for the scores of the best prompts after the search (`Store.scores`).

    Returns:
        The result. After Ctrl-C its `status` is `interrupted`, and what was found so far is in it
        without dev and test.

    Raises:
        ValueError: The budget does not cover one prompt, a reward is no number, or a text is too
            long for the model.
    """
    budget = budget if isinstance(budget, Budget) else Budget(budget)
    settings = _settings(optimiser)  # before the search: what fails here costs nothing
    objective = Objective(task, lm, budget, on_progress, answers)
    # Two streams, so that an optimiser that draws more does not change the space it is given.
    space_rng, rng = (
        np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2)
    )
    space = make_space(optimiser.searches, lm, length, banned, space_rng, task)
    final = _Final(task, lm, scores)
    began = time.perf_counter()

    def result(status: str) -> Result:
        # The method's own time, and that of the answers when they were computed, in whatever
        # process that was: what a search takes that nothing interrupts.
        own = time.perf_counter() - began - objective.waited
        return Result(
            task=task.name,
            task_fingerprint=task.fingerprint,
            model=lm.name,
            fingerprint=dataclasses.asdict(lm.fingerprint),
            noise=dataclasses.asdict(lm.own_noise),
            optimiser=type(optimiser).__name__,
            settings=settings,
            seed=int(seed),
            length=int(length),
            status=status,
            budget_rows=int(budget.rows),
            rows=objective.ledger.used,
            n_prompts=objective.ledger.n_prompts,
            lm_seconds=objective.ledger.lm_seconds,
            total_seconds=objective.ledger.lm_seconds + own,
            points=tuple(objective.ledger.points),
            candidates=tuple(_candidates(final, objective.ledger, status == "finished")),
        )

    try:
        with contextlib.suppress(BudgetExhausted):
            optimiser.run(objective, space, rng)
        return result("finished")
    except KeyboardInterrupt:
        return result("interrupted")
    except Exception:
        if on_failure is not None:
            on_failure(result("failed"))
        raise


def make_space(
    kind: Kind,
    lm: FrozenLM,
    length: int,
    banned: Collection[str | int],
    rng: np.random.Generator,
    task: Task | None = None,
) -> Space:
    """The space of a kind for a model, of the task's own tokens if it has some."""
    if kind == "tokens":
        tokens = task.tokens(lm) if isinstance(task, ChoosyTask) else None
        return TokenSpace.from_lm(lm, length, banned, tokens)
    return SoftSpace.from_lm(lm, length, rng)


def describe(lm: FrozenLM, prompt: Prompt) -> tuple[str, bool]:
    """A prompt's text, and whether typing it gives the prompt again.

    A soft prompt reads as its nearest tokens, which are another prompt: marked and not retypable.
    """
    if isinstance(prompt, TokenPrompt):
        return lm.decode(prompt.ids), lm.is_retypable(prompt)
    return f"{SOFT_MARK}{lm.decode(lm.nearest_tokens(prompt).ids)}", False


def evaluate(
    task: Task, lm: FrozenLM, prompt: Prompt, split: str, scores: Scores | None = None
) -> Score:
    """A prompt's mean reward and metric on a split, outside any budget.

    Args:
        task: What the prompt is worth.
        lm: The frozen model.
        prompt: The prompt.
        split: `train`, `dev` or `test`.
        scores: As for `search`.

    Raises:
        ValueError: The task's answer is no number, or of the wrong shape.
    """
    return _Final(task, lm, scores).scores([prompt], split)[0]


@dataclasses.dataclass(frozen=True)
class _Final:
    """Scores prompts on whole splits, what was scored before excepted."""

    task: Task
    lm: FrozenLM
    kept: Scores | None

    def scores(self, prompts: Sequence[Prompt], split: str) -> list[Score]:
        found = self.kept.find(prompts, split) if self.kept else None
        if found is None:
            found = _measured(self.task, self.lm, prompts, split)
            if self.kept:
                self.kept.keep(prompts, split, found)
        return found


def _measured(task: Task, lm: FrozenLM, prompts: Sequence[Prompt], split: str) -> list[Score]:
    examples = task.splits.parts()[split]
    answers = [np.asarray(answer, np.float64) for answer in measure(task, lm, prompts, examples)]
    for answer in answers:
        # Sorted among numbers, a NaN could end up anywhere, first included.
        if answer.shape != (len(prompts), len(examples)) or not np.isfinite(answer).all():
            raise ValueError(
                f"task {task.name!r} gave an answer of shape {answer.shape} with "
                f"{(~np.isfinite(answer)).sum()} values that are no finite number for "
                f"{len(prompts)} prompts on the {len(examples)} examples of {split}"
            )
    means = (answer.mean(axis=1).tolist() for answer in answers)
    return [Score(reward, metric) for reward, metric in zip(*means, strict=True)]


def _candidates(final: _Final, ledger: Ledger, finished: bool) -> list[Candidate]:
    """The best prompts with their scores, the one picked on dev first."""
    if not finished:
        return [_candidate(final, scored, None, None) for scored in ledger.best(1)]
    best = ledger.best(CANDIDATES)
    if not best:
        return []
    scores = final.scores([scored.prompt for scored in best], "dev")
    # Stable: among equals on dev the better on train stays first.
    order = sorted(range(len(best)), key=lambda i: -scores[i].reward)
    picked = [best[order[0]].prompt]
    (train,) = final.scores(picked, "train")
    candidates = [_candidate(final, best[i], scores[i], None) for i in order]
    (test,) = final.scores(picked, "test")
    candidates[0] = dataclasses.replace(candidates[0], train=train, test=test)
    return candidates


def _candidate(final: _Final, scored: Scored, dev: Score | None, test: Score | None) -> Candidate:
    prompt, task = scored.prompt, final.task
    used = task.shortened(final.lm, prompt) if isinstance(task, ShorteningTask) else prompt
    text, retypable = describe(final.lm, used)
    return Candidate(
        prompt=prompt,
        text=text,
        retypable=retypable,
        train_reward=scored.reward,
        found_at_rows=scored.rows,
        train=None,
        dev=dev,
        test=test,
    )


def _settings(optimiser: Optimiser) -> dict[str, Any]:
    if not dataclasses.is_dataclass(optimiser):
        return {}
    return {f.name: _setting(getattr(optimiser, f.name)) for f in dataclasses.fields(optimiser)}


def _setting(value: Any) -> Any:
    """A setting as JSON has it; what JSON has not, such as infinity or a function, by its name."""
    try:
        return json.loads(json.dumps(plain(value), allow_nan=False))
    except (TypeError, ValueError):
        return getattr(value, "__qualname__", None) or str(value)
