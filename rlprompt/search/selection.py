"""Which prompt of a search is picked: the one that wins a race on dev.

Who enters is a spread of the search (`entrants`): the best on train, and those that led on the way,
for the end of a search may have learnt train by heart, and then dev has nothing to choose from
among near copies of it. All candidates are scored on a few dev examples; those that are clearly
worse than the leader drop out, the others get more examples, and so on. So close candidates are
told apart by all of dev, and hopeless ones cost little. Racing: Maron and Moore 1997 (https://doi.org/10.1023/A:1006556606079);
with paired t tests, as here: Birattari et al. 2002 (F-Race).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np
from scipy import stats

from rlprompt.data.examples import Example, balanced
from rlprompt.prompt import Prompt, SoftPrompt, TextPrompt, TokenPrompt
from rlprompt.search.budget import KEPT, Improvement, Ledger, Scored
from rlprompt.search.evaluation import Evaluator
from rlprompt.search.result import MARKS, Score
from rlprompt.tasks.base import Measured, Task
from rlprompt.types import Floats

# Dev examples of the first round; each round after doubles what was seen.
FIRST_ROUND = 8
# Chance that a rival as good as the best is dropped at one look: of candidates that race on dev, at
# most that any of them is.
FALSE_DROP = 0.05


@dataclass(frozen=True)
class Selection:
    """How a search picks its prompt on dev.

    >>> Selection(candidates=0)
    Traceback (most recent call last):
    ValueError: 1 to 64 candidates race on dev, got 0

    Args:
        candidates: Prompts that race, 1 to 64. 16 is ours: more finds a better one now and then,
            for more dev rows.
        along_path: Whether they are a spread of the search (`entrants`), and not the best on train
            alone.
        dev_patience: End the search after so many marks without a leader that is better on dev, by
            what the task's prompts are picked by; 1 or more, None for never. There is a mark at
            every tenth of the budget. The dev rows are counted apart, as rows for early stopping.

    Raises:
        ValueError: A setting is out of range.
    """

    candidates: int = 16
    along_path: bool = True
    dev_patience: int | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if not 1 <= self.candidates <= KEPT:
            raise ValueError(f"1 to {KEPT} candidates race on dev, got {self.candidates}")
        if self.dev_patience is not None and self.dev_patience < 1:
            raise ValueError(
                f"dev_patience is one mark or more, or left out for none, got {self.dev_patience}"
            )


def entrants(ledger: Ledger, selection: Selection) -> list[Scored]:
    """The prompts of a search that race on dev, the best on train first.

    Along the path, half of the places are for prompts that led at points evenly apart inside the
    rows that were used. The other places go by train reward, past near copies of a better one: of
    token prompts those with one token exchanged, of texts one word, of soft ones those within half
    of the greatest distance. As long as there are places then, who is the farthest from all chosen
    gets one.

    Args:
        ledger: What the search found.
        selection: How many enter, and whether along the path.

    Returns:
        Distinct prompts, as many as there are places if the ledger has them.
    """
    count, best = selection.candidates, ledger.best(KEPT)
    if not selection.along_path or not best:
        return best[:count]
    n_led = count // 2
    led = leaders(ledger, [ledger.used * i / (n_led + 1) for i in range(1, n_led + 1)])
    known = {one.prompt.digest: one for one in (*led, *best)}
    pool = sorted(known.values(), key=lambda one: (-one.reward, one.rows))
    place = {one.prompt.digest: i for i, one in enumerate(pool)}
    apart = _distances([one.prompt for one in pool])
    chosen: list[int] = []

    def choose_best(limit: int) -> None:
        for i in range(len(pool)):
            better = [j for j in chosen if j < i]
            if len(chosen) < limit and i not in chosen and (apart[i, better] > 1).all():
                chosen.append(i)

    choose_best(count - n_led)
    # Once each: a prompt that was scored again may have led twice.
    chosen += dict.fromkeys(i for one in led if (i := place[one.prompt.digest]) not in chosen)
    choose_best(count)
    while len(chosen) < min(count, len(pool)):
        left = [i for i in range(len(pool)) if i not in chosen]
        # The first of equals, which is better on train.
        chosen.append(max(left, key=lambda i: float(apart[i, chosen].min())))
    return [pool[i] for i in sorted(chosen)]


def leaders(ledger: Ledger, marks: Sequence[float]) -> list[Improvement]:
    """The different prompts that were the best on train when so many rows were used, in order."""
    found = ledger.improvements
    best_at = (sum(one.rows <= mark for one in found) - 1 for mark in marks)
    return [found[i] for i in dict.fromkeys(best_at) if i >= 0]


def _distances(prompts: Sequence[Prompt]) -> Floats:
    """How far apart prompts are, (P, P) float64: 1 and less is near.

    Token prompts: the places where another token is, or none; texts: where another word is. Soft
    prompts: Euclidean, with half of the greatest distance for one. What cannot be compared is
    infinitely far apart.
    """
    apart = np.zeros((len(prompts), len(prompts)))
    greatest = 0.0
    for i, one in enumerate(prompts):
        for j, other in enumerate(prompts[:i]):
            apart[i, j] = apart[j, i] = _distance(one, other)
            if isinstance(one, SoftPrompt) and np.isfinite(apart[i, j]):
                greatest = max(greatest, float(apart[i, j]))
    soft = np.array([isinstance(one, SoftPrompt) for one in prompts])
    if greatest:
        apart[np.ix_(soft, soft)] /= greatest / 2
    return apart


def _distance(one: Prompt, other: Prompt) -> float:
    if isinstance(one, TokenPrompt) and isinstance(other, TokenPrompt):
        pairs = zip_longest(one.ids, other.ids)
        return float(sum(first != second for first, second in pairs))
    if isinstance(one, TextPrompt) and isinstance(other, TextPrompt):
        words = zip_longest(one.text.split(), other.text.split())
        return float(sum(first != second for first, second in words))
    if isinstance(one, SoftPrompt) and isinstance(other, SoftPrompt) and len(one) == len(other):
        return float(np.linalg.norm(one.vectors - other.vectors))
    return float(np.inf)


class EarlyStopping:
    """Tells when the leader of a search has not become better on dev for some marks.

    Args:
        evaluator: Scores it, and counts what that costs.
        rows: Budget of the search, which the marks cut into equal parts.
        patience: Marks without a leader that is better on dev, by `Task.select_by`.
    """

    def __init__(self, evaluator: Evaluator, rows: int, patience: int) -> None:
        self._evaluator = evaluator
        self._rows = rows
        self._patience = patience
        self._mark = 0
        self._leader = ""
        self._best = (-np.inf, -np.inf)
        self._in_vain = 0

    def __call__(self, ledger: Ledger) -> bool:
        """Whether the search should end; scores its leader if a mark was passed since."""
        mark = ledger.used * MARKS // self._rows
        # At the last mark it ends anyway. Several that one call passed are one look.
        if self._mark < mark < MARKS and ledger.improvements:
            self._mark = mark
            self._look(ledger.improvements[-1].prompt)
        return self._in_vain >= self._patience

    def _look(self, leader: Prompt) -> None:
        self._in_vain += 1
        if leader.digest == self._leader:
            return
        self._leader = leader.digest
        worth = self._evaluator.scores([leader], "dev")[0].worth(self._evaluator.task.select_by)
        if worth > self._best:
            self._best, self._in_vain = worth, 0


@dataclass
class Raced:
    """A candidate with what is known of it on dev.

    Attributes:
        scored: It and its train reward.
        rewards: Its reward on each dev example seen so far.
        metrics: Its metric on each of these.
        answers: Its answer to each of these, where the task says what was answered.
        over_all: The metric over all of these, where it is no mean (`Task.set_metric`).
    """

    scored: Scored
    rewards: list[float] = field(default_factory=list)
    metrics: list[float] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    over_all: float | None = None

    @property
    def dev(self) -> Score:
        """Means over the examples seen, or the metric over all of them."""
        metric = float(np.mean(self.metrics)) if self.over_all is None else self.over_all
        return Score(float(np.mean(self.rewards)), metric)

    def see(self, task: Task, measured: Measured, place: int, examples: Sequence[Example]) -> None:
        """Take in what was measured of it, at a place among others.

        Args:
            task: What it is measured by.
            measured: (P, E) of the last round.
            place: Its own, of the P.
            examples: All that it has seen, the last round's included.
        """
        self.rewards.extend(measured.rewards[place].tolist())
        self.metrics.extend(measured.metrics[place].tolist())
        self.answers.extend(() if measured.answers is None else measured.answers[place])
        own = np.array([self.rewards]), np.array([self.metrics])
        answers = None if measured.answers is None else (tuple(self.answers),)
        found = task.set_metric(Measured(*own, answers), examples)
        self.over_all = None if found is None else float(found[0])


def race_on_dev(evaluator: Evaluator, candidates: Sequence[Scored]) -> list[Raced]:
    """The candidates, the one picked first, then by how far they came and how good they were.

    The picked one has seen all of dev.

    Args:
        evaluator: Scores them.
        candidates: Best on train first; among equals on dev the earlier one wins.
    """
    task, dev = evaluator.task, evaluator.task.splits.parts()["dev"]
    raced = [Raced(scored) for scored in candidates]
    alive = raced
    seen: list[Example] = []
    for which in rounds(dev):
        measured = evaluator.measure([one.scored.prompt for one in alive], "dev", which)
        seen += [dev[i] for i in which]
        for place, one in enumerate(alive):
            one.see(task, measured, place, seen)
        # A metric of all examples together has no value on each that a test could go by.
        if task.select_by != "metric":
            keep = still_close(np.array([one.rewards for one in alive]))
            alive = [one for one, close in zip(alive, keep, strict=True) if close]

    def far_and_good(one: Raced) -> tuple[float, ...]:
        return (len(one.rewards), *one.dev.worth(task.select_by))

    # Stable: among equals the better on train stays first.
    return sorted(raced, key=far_and_good, reverse=True)


def rounds(examples: Sequence[Example]) -> Iterator[list[int]]:
    """Places of the dev examples of each round: all classes in each, drawn by a fixed seed."""
    order = balanced(examples, np.random.default_rng(0).permutation(len(examples)).tolist())
    seen = 0
    while seen < len(order):
        end = min(max(FIRST_ROUND, 2 * seen), len(order))
        yield order[seen:end]
        seen = end


def still_close(rewards: Floats) -> list[bool]:
    """Which candidates may yet be as good as the leader, by paired one-sided t tests.

    Args:
        rewards: (P, n) on the same n examples. The leader has the highest mean.

    Returns:
        (P,) values. A candidate is not close where its mean difference to the leader is
        significant at `FALSE_DROP`, divided by the number of ordered pairs: chance decides who
        leads, so every pair counts as compared (Bonferroni).
    """
    n_candidates, n = rewards.shape
    if n < 2 or n_candidates < 2:
        return [True] * n_candidates
    behind = rewards[rewards.mean(axis=1).argmax()] - rewards
    return within_chance(behind, FALSE_DROP / (n_candidates * (n_candidates - 1)))


def within_chance(behind: Floats, level: float) -> list[bool]:
    """Which rivals may be as good as another, by paired one-sided t tests.

    Args:
        behind: (P, n) rewards of the other less those of each rival, on the same n examples; NaN
            where it is not known, which is no observation.
        level: Of significance.

    Returns:
        (P,) values: whether the mean difference is not significant. One example tells nothing.
    """
    known = (row[~np.isnan(row)] for row in behind)
    return [len(row) < 2 or _close(row, level) for row in known]


def _close(behind: Floats, level: float) -> bool:
    n = len(behind)
    limit = stats.t.isf(level, n - 1) * behind.std(ddof=1) / np.sqrt(n)
    return bool(behind.mean() <= limit)
