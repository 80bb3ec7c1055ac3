"""What a comparison of searches at one budget allows to be said, in words.

A winner is named only where it is settled above every other search. "Cannot be told apart at this
budget" is a result too, and one seed ranks nothing.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rlprompt._utils.text import counted, listed, listed_briefly
from rlprompt.statistics.nested import is_nested, over_splits, present
from rlprompt.statistics.paired import Difference
from rlprompt.statistics.pairwise import Pair, compare_all, highest, pairs_of
from rlprompt.types import Floats

# Searches that a sentence names; of more it gives the number, and the table below has them.
MOST_NAMED = 6


@dataclass(frozen=True)
class Verdict:
    """What may be said of one model's searches at one budget.

    Attributes:
        leader: The search with the highest mean, by chance or not; None where none has a score.
        winner: The leader where it is settled above every other search, else None.
        pairs: All pairs of searches that share a (task, seed).
        against_controls: All pairs of a search and a control that share a task.
        sentence: Who won, or why nobody did.
        notes: What else may be said, a sentence or two each.
    """

    leader: str | None
    winner: str | None
    pairs: tuple[Pair, ...]
    against_controls: tuple[Pair, ...]
    sentence: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Study:
    """What `judge` was given, with the searches that have a score."""

    searches: Mapping[str, Floats]
    metric: str
    budget: int
    all_scored: bool
    draws: Sequence[Hashable]

    def mean(self, name: str) -> float:
        return float(np.mean([task.mean() for task in present(self.searches[name])]))

    @property
    def n_units(self) -> int:
        """Seeds, or splits, of the search that has most on one task."""
        return max(
            int((~np.isnan(over_splits(scores))).sum(axis=0).max())
            for scores in self.searches.values()
        )

    def gaps(self, leader: str) -> str:
        """Which runs the figures are of, where searches have not the same; with a space before."""
        there = [~np.isnan(scores) for scores in self.searches.values()]
        if all(np.array_equal(one, there[0]) for one in there):
            return ""
        return (
            f" Runs are missing: the mean is over all scores of {leader}, and each difference over "
            "the runs that both searches have."
        )

    @property
    def unit(self) -> str:
        """What varies independently, in a word."""
        return "split" if any(map(is_nested, self.searches.values())) else "seed"

    @property
    def repetition(self) -> str:
        """How often each search ran on a task."""
        units = counted(self.n_units, self.unit)
        if self.unit == "seed":
            return units
        seeds = max(int((~np.isnan(one)).sum(axis=1).max()) for one in self.searches.values())
        return f"{units} of {counted(seeds, 'seed')}"

    @property
    def n_tasks(self) -> int:
        return max(len(present(scores)) for scores in self.searches.values())

    @property
    def rows(self) -> str:
        return f"{self.budget:,} rows a search"


def judge(
    searches: Mapping[str, Floats],
    controls: Mapping[str, Floats],
    budgets: Mapping[str, int],
    *,
    baseline: str | None = None,
    metric: str = "score",
    draws: Sequence[Hashable] | None = None,
) -> Verdict:
    """What may be said of searches at one budget.

    Every pair of searches is compared by `paired.compare_runs`, and Holm's correction is over all
    of these pairs, since the leader is picked after seeing the scores (over the leader's pairs
    alone, up to 12 % of simulated studies of eight equal searches settled something). So the chance
    that any search is wrongly settled above another, or a wrong winner named, is about 5 % at most,
    if the number of seeds was fixed before. Controls are corrected as a family of their own.

    Failed runs are left out, pair by pair. The leader is the search whose smallest difference to
    another is highest: without gaps, the one of the highest mean.

    Args:
        searches: (seeds, tasks) of each: a row is a seed, the same for all; higher is better;
            NaN where a run is missing or failed. Or (splits, seeds, tasks), where the examples
            were drawn several times.
        controls: (tasks,) of each prompt that no seed decides, or (splits, tasks), by how it reads
            in a sentence ("the empty prompt"); NaN where there is none.
        budgets: Rows of each search.
        baseline: A search that the others should beat, such as random search.
        metric: What the scores are, in words.
        draws: (tasks,) names, the same for tasks whose searches share what a seed draws: their luck
            then counts once. None where none do.

    Raises:
        ValueError: Budgets differ or are missing, or shapes differ.

    >>> searches = {"greedy": np.full((6, 1), 0.8), "random": np.full((6, 1), 0.7)}
    >>> found = judge(searches, {}, {"greedy": 64, "random": 64}, baseline="random")
    >>> found.winner, found.notes[0]
    ('greedy', 'greedy is shown to beat random.')
    """
    budget = _checked(searches, controls, budgets, baseline)
    scored = {name: one for name, one in searches.items() if not np.isnan(one).all()}
    study = _Study(scored, metric, budget, len(scored) == len(searches), draws or ())
    pairs = compare_all([(a, b, scored[a], scored[b]) for a, b in combinations(scored, 2)], draws)
    against_controls = compare_all(
        [
            (search, control, scores, values[..., None, :])
            for control, values in controls.items()
            for search, scores in scored.items()
        ],
        draws,
    )
    leader = highest(scored, pairs)
    lead = pairs_of(pairs, leader) if leader else ()
    settled_above = [pair for pair in lead if pair.settled and pair.difference.mean > 0]
    winner = leader if lead and len(settled_above) == len(scored) - 1 else None
    notes = [
        *_beaten("No other search", [pair.flipped() for pair in pairs_of(pairs, baseline)]),
        *(
            note
            for control in controls
            for note in _beaten("No search", [p for p in against_controls if p.second == control])
        ),
        *_gaps(searches),
        *_scope(study),
    ]
    sentence = _sentence(study, leader, winner, lead)
    return Verdict(leader, winner, pairs, against_controls, sentence, tuple(notes))


def _checked(
    searches: Mapping[str, Floats],
    controls: Mapping[str, Floats],
    budgets: Mapping[str, int],
    baseline: str | None,
) -> int:
    """The budget of all."""
    shapes = {name: scores.shape for name, scores in searches.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) not in (2, 3) for shape in shapes.values()):
        raise ValueError(
            "scores are (seeds, tasks) or (splits, seeds, tasks), the same for all searches; got "
            f"{shapes}"
        )
    for name, values in controls.items():
        if any(values.shape != (*shape[:-2], shape[-1]) for shape in shapes.values()):
            raise ValueError(f"{name} has the shape {values.shape}; give a value for each task")
    if baseline is not None and baseline not in searches:
        raise ValueError(
            f"baseline {baseline!r} is not among the searches; give one of {', '.join(searches)}"
        )
    if missing := [name for name in searches if name not in budgets]:
        raise ValueError(f"no budget is given for {listed(missing)}; give one for each search")
    different = {budgets[name]: f"{name} had {budgets[name]:,} rows" for name in searches}
    if len(different) > 1:
        raise ValueError(
            f"searches of different budgets cannot be ranked: {listed(different.values())}; "
            "judge each budget separately"
        )
    return next(iter(different), 0)


def _sentence(study: _Study, leader: str | None, winner: str | None, lead: Sequence[Pair]) -> str:
    """Who won, or why nobody did."""
    if not study.searches:
        return "No search has a score: nothing can be concluded."
    if leader is None:
        return "No two searches have a score on the same task and seed: nothing can be ranked."
    mean = f"{study.mean(leader):.3f}"
    if not lead:
        return (
            f"Only {leader} has a score, a mean {study.metric} of {mean} at {study.rows}: there is "
            "no other search to compare it with."
        )
    if study.n_units == 1:
        luck = "luck" if study.unit == "seed" else "the luck of its examples"
        return (
            f"With one {study.unit} nothing can be ranked: every difference between methods may be "
            f"{luck}, so no winner is named."
        )
    if winner is not None:
        closest = min(lead, key=lambda pair: pair.difference.mean)
        worst = max(pair.adjusted_p or 0.0 for pair in lead)
        others = "every other search" if study.all_scored else "every other search with a score"
        return (
            f"{winner} wins at {study.rows}: its mean {study.metric} of {mean} over "
            f"{counted(study.n_tasks, 'task')} and {study.repetition} is above that "
            f"of {others} (closest: {closest.second}, {_gap(closest.difference, study.unit)}; "
            f"p at most {math.ceil(1000 * worst) / 1000} after Holm's correction)."
            f"{study.gaps(winner)}"
        )
    return _open(study, leader, mean, lead)


def _open(study: _Study, leader: str, mean: str, lead: Sequence[Pair]) -> str:
    """Why nobody won: what is settled and what is not."""
    below = [pair.second for pair in lead if pair.settled and pair.difference.mean > 0]
    equals = [name for name in study.searches if name not in (leader, *below)]
    unsettled = [pair for pair in lead if pair.second in equals]
    many = f"{len(equals)} of the other searches" if below else "any other search"
    rest = listed(equals) if len(equals) <= MOST_NAMED else many
    text = (
        f"No winner at {study.rows}: {leader} comes out highest, with a mean {study.metric} of "
        f"{mean}, but cannot be told apart at this budget from {rest}"
    )
    if unsettled:  # else what is left shares no seed with the leader
        closest = min(unsettled, key=lambda pair: pair.difference.mean)
        which = "" if len(equals) == 1 else f"closest: {closest.second}, "
        text += f" ({which}{_gap(closest.difference, study.unit)})"
    text += f". That it is above {listed(below)} is settled." if below else "."
    needed = [pair.seeds_needed for pair in unsettled]
    if needed and None not in needed:
        text += (
            f" About {max(seeds or 0 for seeds in needed):,} {study.unit}s a task instead of "
            f"{study.n_units} would settle it, if the true differences are as large as these."
        )
    return text + study.gaps(leader)


def _beaten(nobody: str, pairs: Sequence[Pair]) -> Iterator[str]:
    """Which searches are shown to beat a control or the baseline, the second of each pair."""
    if not pairs:
        return
    reference = pairs[0].second
    above = [pair.first for pair in pairs if pair.settled and pair.difference.mean > 0]
    below = [pair.first for pair in pairs if pair.settled and pair.difference.mean < 0]
    unsettled = [pair.first for pair in pairs if not pair.settled]
    text = f"{listed(above)} {_are(above)}" if above else f"{nobody} is"
    text += f" shown to beat {reference}"
    if above and unsettled:
        text += f"; {listed_briefly(unsettled, MOST_NAMED)} {_are(unsettled)} not"
    if below:
        text += f"; {listed_briefly(below, MOST_NAMED)} {_are(below)} shown to be below it"
    yield text + "."


def _gaps(searches: Mapping[str, Floats]) -> Iterator[str]:
    """What is missing."""
    missing = {name: int(np.isnan(scores).sum()) for name, scores in searches.items()}
    gaps = [f"{name} {count}" for name, count in missing.items() if count]
    if gaps:
        yield (
            f"Without a score: {sum(missing.values())} of {sum(map(np.size, searches.values()))} "
            f"runs ({listed(gaps)}). Two searches are compared on the runs that both have, on "
            "tasks with two such seeds or more, so a search that fails where it would do badly "
            "looks better than it is."
        )
    if empty := [name for name, scores in searches.items() if missing[name] == scores.size]:
        yield f"Not compared, because no run has a score: {listed(empty)}."


def _scope(study: _Study) -> Iterator[str]:
    """What the intervals are about."""
    if not study.searches or study.n_units == 1:
        return
    these = "this task" if study.n_tasks == 1 else f"these {study.n_tasks} tasks"
    if study.unit == "seed":
        yield (
            f"Intervals (95 %) are over {study.repetition} on {these}, with the same test "
            "examples: they say nothing about other tasks."
        )
    else:
        yield (
            f"Intervals (95 %) are over {study.repetition} on {these}: a split counts once, as the "
            "mean over its seeds, which share the same examples. They say what other draws of the "
            "examples would give, and nothing about other tasks."
        )
    if len(set(study.draws)) < len(study.draws):
        yield shared_luck(study.unit)


def shared_luck(unit: str) -> str:
    """What is to be known of tasks that share their draws."""
    return (
        f"Tasks with the same train and dev examples share the luck of a {unit}, which counts once "
        "for all of them."
    )


def _gap(difference: Difference, unit: str) -> str:
    """How large it is and how sure."""
    text = f"a difference of {difference.mean:.3f}"
    if difference.p is None:
        return f"{text}, with too few shared {unit}s to test"
    if difference.low is None:
        return f"{text}, the same with every {unit}"
    return f"{text}, 95 % interval {difference.low:.3f} to {difference.high:.3f}"


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
