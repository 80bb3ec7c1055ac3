"""What scores allow to be concluded: verdicts in words, and every pair held against each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rlprompt.reports.caveats import ONE_SEED
from rlprompt.reports.score_matrix import Scoreboard, generator
from rlprompt.reports.tables import NONE, Table, count, number
from rlprompt.statistics.pairwise import Pair
from rlprompt.statistics.summaries import probability_of_improvement
from rlprompt.statistics.verdict import Verdict, judge
from rlprompt.store.summary import BEST_WORD, CALIBRATED, IN_CONTEXT

# The optimiser that every other one should beat.
BASELINE = "random"


def verdicts_of(board: Scoreboard) -> Iterator[tuple[str, Verdict]]:
    """Over all tasks, or where their scores share no scale of each task by its name."""
    tested = board.tested
    groups = {"": tested} if board.shares_a_scale else {task.name: [task] for task in tested}
    for name, tasks in groups.items():
        metrics = {task.metric for task in tasks}
        controls = {
            _in_words(control): [board.control(control, task.name) for task in tasks]
            for control in dict.fromkeys(one.name for one in board.controls)
        }
        verdict = judge(
            {method: board.scores(method, tasks) for method in board.methods},
            {control: np.array(values) for control, values in controls.items()},
            dict.fromkeys(board.methods, board.budget),
            baseline=BASELINE if BASELINE in board.methods else None,
            metric=f"test {metrics.pop() if len(metrics) == 1 else 'score'}",
        )
        yield name, verdict


def _in_words(control: str) -> str:
    """How a control reads in a sentence."""
    known = {
        CALIBRATED: "the calibrated hand-written prompt",
        BEST_WORD: "the best word",
        IN_CONTEXT: "the prompt of train examples in context",
    }
    return known.get(control, f"the {control} prompt")


def sentences(board: Scoreboard, verdicts: Sequence[tuple[str, Verdict]]) -> Iterator[str]:
    """What may be concluded; with one seed no method is named."""
    if not board.methods or not any(run.counts for run in board.runs):
        yield "No search has finished with figures that count: only the controls are known."
    elif not board.tested:
        yield "No search has a test figure: nothing about test can be concluded."
    elif board.n_seeds == 1:
        yield ONE_SEED
    else:
        for name, verdict in verdicts:
            said = f"{verdict.sentence} {_best_control(board, name, verdict)}".rstrip()
            yield f"{name}: {said}" if name else said


def _best_control(board: Scoreboard, task: str, verdict: Verdict) -> str:
    """Whether a search is shown to beat the best prompt that no search found."""
    tasks = [one for one in board.tested if task in ("", one.name)]
    means = {
        name: float(np.mean([board.control(name, one.name) for one in tasks]))
        for name in dict.fromkeys(one.name for one in board.controls)
    }
    scored = {name: mean for name, mean in means.items() if not np.isnan(mean)}
    if not scored:
        return ""
    best = max(scored, key=lambda name: scored[name])
    control = f"the best control, {_in_words(best)} ({scored[best]:.3f})"
    above = [
        pair.first
        for pair in verdict.against_controls
        if pair.second == _in_words(best) and pair.settled and pair.difference.mean > 0
    ]
    if not above:
        return f"No search is shown to beat {control}."
    return f"Shown to beat {control}: {', '.join(above)}."


def pair_tables(board: Scoreboard, task: str, verdict: Verdict) -> Iterator[Table]:
    """Every pair of a verdict, searches first and then searches with controls."""
    where = f"{board.model}, {board.budget:,} rows" + (f", {task}" if task else "")
    for name, what, pairs in (
        ("search-pairs", "Every pair of searches", verdict.pairs),
        ("control-pairs", "Every search against every control", verdict.against_controls),
    ):
        if pairs:
            yield Table(
                board.name(name, task),
                f"{what}: differences in test score, {where}",
                ("first", "second", "difference", "low", "high", "p (Holm)", "settled", "seeds"),
                tuple(map(_pair_row, pairs)),
                text=(0, 1, 6),
                notes=(
                    "First minus second, paired by task and seed, with the 95 % interval of that "
                    "pair alone; p after Holm's correction over all pairs of this table, which "
                    "decides: an interval may leave out 0 where the pair is open. No interval "
                    "where all differences are the same or there is one. seeds: so many a task "
                    "would settle it, if the difference is what it seems.",
                ),
            )


def _pair_row(pair: Pair) -> tuple[str, ...]:
    found = pair.difference
    return (
        pair.first,
        pair.second,
        number(found.mean),
        number(found.low),
        number(found.high),
        _p(pair.adjusted_p),
        "yes" if pair.settled else "open",
        count(pair.seeds_needed),
    )


def _p(value: float | None) -> str:
    """A p value; the smallest are not told apart."""
    return "<0.001" if value is not None and value < 0.001 else number(value)


def improvement_table(board: Scoreboard) -> Table:
    """How often a run of one method beats one of another."""
    scored = board.scored
    cells: dict[tuple[str, str], str] = {}
    matrices = {name: board.scores(name, board.tested) for name in scored}
    for first in scored:
        for second in scored:
            x, y = matrices[first], matrices[second]
            if first == second or np.isnan(x - y).all():
                cells[first, second] = NONE
            else:
                found = probability_of_improvement(x, y, generator())
                interval = "" if found.low is None else f" ({found.low:.2f} to {found.high:.2f})"
                cells[first, second] = f"{found.value:.2f}{interval}"
    return Table(
        board.name("improvement"),
        f"Probability of improvement, {board.model}, {board.budget:,} rows",
        ("a run of", *(f"over {name}" for name in scored)),
        tuple((first, *(cells[first, second] for second in scored)) for first in scored),
        notes=(
            "How often a run of the row's method scores higher on test than one of the column's, "
            "a mean over tasks, with its 95 % interval; 0.5 is no difference. It says how often, "
            "not by how much.",
        ),
    )
