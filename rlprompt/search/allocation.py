"""Where rows go: to the prompts that may yet win, on blocks of examples that are common to all.

Methods call `halve` for a pool of which the best few are wanted, `race` for challengers of one
prompt that is known, `score_new` where prompts come up again, all of them through `PaidOnce` where
a prompt may come up on the same block again. Blocks are cut from `Objective.order`, so rivals are
compared on the same examples, all classes in each. Prompts that come through were scored on all
train examples and stand in the ledger; those that drop out do not.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Protocol, TypeVar

import numpy as np

from rlprompt.prompt import Prompt, TokenPrompt
from rlprompt.search.objective import Evaluation
from rlprompt.search.selection import FALSE_DROP, within_chance
from rlprompt.tasks.base import Task
from rlprompt.types import Floats

P = TypeVar("P", bound=Prompt)

# Shares of the train examples that a rival has been scored on after each stage.
STAGES = (1 / 4, 1 / 2, 1.0)
# Share of the rivals that go on, and how few go on to the end without another cut.
KEEP = 1 / 3
LEAST = 4

Criterion = Callable[[Sequence[Prompt], Floats, Sequence[int]], Floats]
"""What rivals (P,) are compared by, (P, n), given their rewards (P, n) and the places in train.

It is given all that are compared in one call: what it makes of one may depend on the others. What
it masks (`numpy.ma`) is made up: it counts in means, and is no observation where chance is judged.
"""


def as_earned(prompts: Sequence[Prompt], rewards: Floats, places: Sequence[int]) -> Floats:
    """The `Criterion` that takes rewards as they are."""
    return rewards


class Rewarding(Protocol):
    """What rows are spent on here: an `Objective`, or a view of one that notes what is asked."""

    @property
    def task(self) -> Task:
        """See `Objective`."""
        ...

    @property
    def n_examples(self) -> int:
        """See `Objective.n_examples`."""
        ...

    @property
    def order(self) -> Sequence[int]:
        """See `Objective.order`."""
        ...

    def cost(self, *, examples: int | None = None) -> int:
        """See `Objective.cost`."""
        ...

    def evaluate(
        self, prompts: Sequence[Prompt], examples: Sequence[int] | None = None
    ) -> Evaluation:
        """See `Objective.evaluate`."""
        ...


class PaidOnce:
    """A view of an objective that pays for a prompt on a block of examples once.

    Where examples are scored together, a prompt that was scored on all of them says nothing about a
    block, and what races it is scored on the same blocks, race after race: it need not be.

    >>> from rlprompt import Budget, Objective
    >>> from rlprompt.check.toy import ToyTask
    >>> objective = Objective(ToyTask(n_examples=8), None, Budget(1000))
    >>> view, prompt = PaidOnce(objective), TokenPrompt((1,))
    >>> view.evaluate([prompt], [0, 1]).rewards == view.evaluate([prompt], [0, 1]).rewards
    array([ True])
    >>> objective.ledger.used
    2

    Args:
        objective: Where it is paid.
    """

    def __init__(self, objective: Rewarding) -> None:
        self._objective = objective
        self.task, self.n_examples = objective.task, objective.n_examples
        self.order, self.cost = objective.order, objective.cost
        self._known: dict[tuple[tuple[int, ...] | None, Prompt], Floats] = {}

    def evaluate(
        self, prompts: Sequence[Prompt], examples: Sequence[int] | None = None
    ) -> Evaluation:
        """See `Objective.evaluate`; `BudgetExhausted` carries new prompts alone."""
        places = None if examples is None else tuple(examples)
        known, asked = self._known, [(places, prompt) for prompt in prompts]
        if new := [one for one in dict.fromkeys(asked) if one not in known]:
            found = self._objective.evaluate([prompt for _, prompt in new], examples)
            known |= zip(new, found.per_example, strict=True)
        size = self.n_examples if places is None else len(places)
        rewards = np.array([known[one] for one in asked]).reshape(len(asked), size)
        return Evaluation(tuple(prompts), rewards, examples=places)


def score_new(
    objective: Rewarding, prompts: Iterable[TokenPrompt], known: dict[TokenPrompt, float]
) -> bool:
    """Score on all of train, in one call, what is not known yet, so that it is paid for once.

    >>> from rlprompt import Budget, Objective
    >>> from rlprompt.check.toy import ToyTask
    >>> objective = Objective(ToyTask(n_examples=8), None, Budget(1000))
    >>> score_new(objective, [TokenPrompt((1,)), TokenPrompt((1,))], {}), objective.ledger.used
    (True, 8)

    Args:
        objective: The only way to a reward.
        prompts: Any, repeats among them.
        known: Mean rewards so far, to which theirs are added.

    Returns:
        Whether there were any.

    Raises:
        BudgetExhausted: It does not cover all of them; none is added.
    """
    new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
    if new:
        known |= zip(new, objective.evaluate(new).rewards.tolist(), strict=True)
    return bool(new)


def mean_rewards(found: Evaluation, kind: type[P]) -> dict[P, float]:
    """The prompts of a kind with their mean rewards, in the order asked.

    >>> prompts = TokenPrompt((5,)), TokenPrompt((6, 7))
    >>> mean_rewards(Evaluation(prompts, np.array([[0.0, 1.0], [1.0, 1.0]])), TokenPrompt)
    {TokenPrompt(ids=(5,)): 0.5, TokenPrompt(ids=(6, 7)): 1.0}
    """
    pairs = zip(found.prompts, found.rewards.tolist(), strict=True)
    return {prompt: reward for prompt, reward in pairs if isinstance(prompt, kind)}


def halve(
    objective: Rewarding,
    prompts: Sequence[Prompt],
    *,
    stages: Sequence[float] = STAGES,
    criterion: Criterion = as_earned,
) -> Evaluation:
    """Score a pool on a few examples, the best of it on more, and the best of those on all.

    Sequential halving (Karnin, Koren and Somekh 2013, ICML), with a third kept in the place of a
    half, and budgets a stage that follow from the examples: what a survivor earned before is
    kept and put together. Where a task's blocks do not add up, the last ones are scored on all
    examples anew.

    >>> from rlprompt import Budget, Objective, TokenPrompt
    >>> from rlprompt.check.toy import ToyTask
    >>> objective = Objective(ToyTask(n_examples=8), None, Budget(1000))
    >>> pool = [TokenPrompt((i,)) for i in range(30)]
    >>> best = halve(objective, pool)
    >>> len(best.prompts), objective.ledger.used  # 30 x 2 + 10 x 2 + 4 x 4 rows, not 30 x 8
    (4, 96)
    >>> best.prompts[0] == objective.ledger.best(1)[0].prompt
    True

    Args:
        objective: The only way to a reward.
        prompts: The pool; one that is given again is left out. Among equals the earlier goes on.
        stages: Shares of the examples after each stage, rising to 1.
        criterion: What they are compared by.

    Returns:
        The survivors on all examples with what they earned, the best first.

    Raises:
        BudgetExhausted: It does not cover all; see `halving_cost`. What it carries is the call
            that it came in.
        ValueError: The stages are no rising shares that end with 1.
    """
    pool = list(dict.fromkeys(prompts))
    known = np.zeros((len(pool), 0))
    places = objective.order
    for alive, start, end in _stages(objective, len(pool), stages):
        if start:
            worth = _means(criterion(pool, known, places[:start]))
            ranked = np.argsort(-worth, kind="stable")[:alive]
            pool, known = [pool[i] for i in ranked], known[ranked]
        known = _extended(objective, pool, known, places[start:end])
    return _all_known(objective, pool, known, criterion)


def halving_cost(objective: Rewarding, n_prompts: int, *, stages: Sequence[float] = STAGES) -> int:
    """Rows that `halve` takes for a pool of so many distinct prompts.

    >>> from rlprompt import Budget, Objective
    >>> from rlprompt.check.toy import ToyTask
    >>> halving_cost(Objective(ToyTask(n_examples=32), None, Budget(3200)), 32)
    408

    Args:
        objective: Says how many train examples there are, and what they cost.
        n_prompts: Distinct prompts in the pool.
        stages: As for `halve`.

    Raises:
        ValueError: The stages are no rising shares that end with 1.
    """
    rows = 0
    for alive, start, end in _stages(objective, n_prompts, stages):
        rows += alive * _rows(objective, start, end)
    return rows


def halving_size(objective: Rewarding, rows: float, *, stages: Sequence[float] = STAGES) -> int:
    """Distinct prompts, 1 or more, that may begin a halving of so many rows.

    >>> from rlprompt import Budget, Objective
    >>> from rlprompt.check.toy import ToyTask
    >>> halving_size(Objective(ToyTask(n_examples=32), None, Budget(3200)), 408)
    32

    Args:
        objective: As for `halving_cost`.
        rows: Rows that the halving may take; the answer is 1 also where they cover none.
        stages: As for `halve`.

    Raises:
        ValueError: The stages are no rising shares that end with 1.
    """
    # A prompt takes a row or more, and more prompts take more rows.
    sizes = range(1, int(rows) + 1)
    covered = bisect_right(sizes, rows, key=lambda n: halving_cost(objective, n, stages=stages))
    return max(1, covered)


def doubling(share: float) -> tuple[float, ...]:
    """Stages of `halve` from a share of the examples on, above 0 and below 1, each twice the last.

    >>> doubling(0.25), doubling(0.3)
    ((0.25, 0.5, 1.0), (0.3, 0.6, 1.0))
    """
    stages = list[float]()
    while share < 1:
        stages.append(share)
        share *= 2
    return (*stages, 1.0)


def race(
    objective: Rewarding,
    incumbent: Evaluation,
    challengers: Sequence[Prompt],
    *,
    rows: int | None = None,
    criterion: Criterion = as_earned,
) -> Evaluation:
    """Score challengers until they are clearly worse than a prompt that is known.

    Maron and Moore 1997 (https://doi.org/10.1023/A:1006556606079), with paired t tests as in
    F-Race (Birattari et al. 2002).

    >>> from rlprompt import Budget, Objective, TokenPrompt
    >>> from rlprompt.check.toy import ToyTask
    >>> objective = Objective(ToyTask(n_examples=8), None, Budget(1000))
    >>> best = halve(objective, [TokenPrompt((i,)) for i in range(30)])
    >>> stayed = race(objective, best, [TokenPrompt((i,)) for i in range(30, 40)])
    >>> objective.ledger.used - 96 < 10 * 8
    True

    Args:
        objective: The only way to a reward.
        incumbent: One that was scored on all train examples: the first of these.
        challengers: As the pool of `halve`. One is dropped where its mean difference to the
            incumbent is significant at `FALSE_DROP`, one-sided, which holds for each look at each
            of them and is not divided by their number. On two examples or more that the criterion
            masks of neither.
        rows: Rows that the race may take. So many challengers take part, the first, as these see
            through to the end whoever stays; where they see none through, those that they cover on
            all examples are scored there at once. None for all challengers.
        criterion: What they are compared by, the incumbent and all challengers together.

    Returns:
        The challengers that stayed on all examples with what they earned, the best first; they may
        be worse than the incumbent.

    Raises:
        BudgetExhausted: As for `halve`.
        ValueError: The incumbent was not scored on all examples.
    """
    if not len(incumbent.prompts) or incumbent.examples is not None:
        raise ValueError("the incumbent of a race is a prompt that was scored on all examples")
    add_up, first = not objective.task.scored_together, list(incumbent.prompts[:1])
    pool = list(dict.fromkeys(challengers))
    places, ends = objective.order, _ends(objective, STAGES)
    if rows is not None:
        *blocks, last = (_rows(objective, *stage) for stage in pairwise([0, *ends]))
        own = 0 if add_up else sum(blocks)
        seen_through = max(0, rows - own) // (sum(blocks) + last)
        if not seen_through:
            ends, seen_through = ends[-1:], rows // objective.cost()
        pool = pool[:seen_through]
    known, rival, start = np.zeros((len(pool), 0)), np.zeros((1, 0)), 0
    for end in ends:
        if not pool:
            break
        block = places[start:end]
        known = _extended(objective, pool, known, block)
        if end == objective.n_examples:
            break  # all that is left is known in full
        if add_up:
            rival = incumbent.per_example[:1, list(places[:end])]
        else:  # only what was scored together may be compared
            rival = _extended(objective, first, rival, block)
        worth = criterion([*first, *pool], np.vstack([rival, known]), places[:end])
        close = within_chance(np.ma.filled(worth[0] - worth[1:], np.nan), FALSE_DROP)
        pool = [prompt for prompt, stays in zip(pool, close, strict=True) if stays]
        known, start = known[close], end
    return _all_known(objective, pool, known, criterion)


def race_winners(
    incumbent: Evaluation, stayed: Evaluation, *, criterion: Criterion = as_earned
) -> Evaluation:
    """Those that stayed in a race, if the best of them beats the incumbent; else the incumbent.

    >>> from rlprompt import TokenPrompt
    >>> known = Evaluation((TokenPrompt((1,)),), np.array([[0.0, 1.0]]))
    >>> better = Evaluation((TokenPrompt((2,)),), np.array([[1.0, 1.0]]))
    >>> race_winners(known, better).prompts, race_winners(better, known).prompts
    ((TokenPrompt(ids=(2,)),), (TokenPrompt(ids=(2,)),))

    Args:
        incumbent: As for `race`, which was given its first.
        stayed: What `race` gave.
        criterion: What all of them are compared by, in one call.

    Returns:
        Prompts on all examples with what they earned, the best first.
    """
    n_known = len(incumbent.prompts)
    rewards = np.vstack([incumbent.per_example, stayed.per_example])
    prompts = (*incumbent.prompts, *stayed.prompts)
    worth = _means(criterion(prompts, rewards, range(rewards.shape[1])))
    order = n_known + np.argsort(-worth[n_known:], kind="stable")
    if not len(order) or worth[order[0]] <= worth[0]:
        return incumbent
    return Evaluation(tuple(prompts[i] for i in order), rewards[order])


def _stages(
    objective: Rewarding, n_prompts: int, stages: Sequence[float]
) -> Iterator[tuple[int, int, int]]:
    """Of each stage: how many prompts are in it, examples known before it, and after it."""
    n_examples, alive, seen = objective.n_examples, n_prompts, 0
    for stop in _ends(objective, stages):
        if not alive:
            return
        end = n_examples if alive <= LEAST else stop
        yield alive, seen, end
        if end == n_examples:
            return
        # Less a hair: a third of 33 is 11, rounding up or not.
        alive, seen = max(LEAST, math.ceil(KEEP * alive - 1e-9)), end


def _ends(objective: Rewarding, stages: Sequence[float]) -> list[int]:
    """How many examples are known after each stage.

    Texts that calibrate each other are as many as there are classes, two at least: the prior of one
    text is what it says itself, so that by it all prompts are alike.
    """
    rising = all(low < high for low, high in zip((0, *stages), stages, strict=False))
    if not stages or stages[-1] != 1 or not rising:
        raise ValueError(
            f"stages are shares of the examples that rise to 1, such as {STAGES}, got {stages}"
        )
    task, n_examples = objective.task, objective.n_examples
    least = max(2, len(task.class_words)) if task.scored_together else 1
    ends = [0]
    for share in stages[:-1]:
        end = math.ceil(share * n_examples - 1e-9)
        if end - ends[-1] >= least and end < n_examples:
            ends.append(end)
    return [*ends[1:], n_examples]


def _rows(objective: Rewarding, start: int, end: int) -> int:
    """Rows of a prompt on a further block; of all examples where blocks do not add up."""
    anew = end == objective.n_examples and objective.task.scored_together
    return objective.cost(examples=end if anew else end - start)


def _extended(
    objective: Rewarding, pool: Sequence[Prompt], known: Floats, block: Sequence[int]
) -> Floats:
    """Rewards (P, n) with those on a further block; (P, E) anew where blocks do not add up."""
    last = known.shape[1] + len(block) == objective.n_examples
    if last and (objective.task.scored_together or not known.shape[1]):
        return objective.evaluate(pool).per_example[:, list(objective.order)]
    return np.hstack([known, objective.evaluate(pool, block).per_example])


def _means(worth: Floats) -> Floats:
    """Of (P, n) what a criterion makes of each, made up or not: (P,)."""
    return np.asarray(np.ma.getdata(worth).mean(axis=1))


def _all_known(
    objective: Rewarding, pool: Sequence[Prompt], known: Floats, criterion: Criterion
) -> Evaluation:
    """Prompts with rewards (P, E) in the objective's order, the best first, in train's order."""
    if not pool:
        return Evaluation((), np.zeros((0, objective.n_examples)))
    per_example = np.ascontiguousarray(known[:, np.argsort(objective.order)])
    worth = _means(criterion(pool, per_example, range(objective.n_examples)))
    best = np.argsort(-worth, kind="stable")
    return Evaluation(tuple(pool[i] for i in best), per_example[best])
