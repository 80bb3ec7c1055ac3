"""The results of one model's searches at one budget, laid out.

All statistics are those of `statistics`, `paired` and `verdict`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rlprompt.reports.curves import Plot
from rlprompt.reports.score_matrix import Scoreboard
from rlprompt.reports.score_plots import dots, profile
from rlprompt.reports.score_tables import kept_table, overall_table, task_table
from rlprompt.reports.score_tests import improvement_table, pair_tables, sentences, verdicts_of
from rlprompt.reports.tables import Table


@dataclass(frozen=True)
class Standings:
    """What came of one model's searches at one budget.

    Attributes:
        sentences: What may be concluded, by task where their scores share no scale, else one.
        notes: What else may be said.
        tables: Of each task, then over all tasks.
        tests: Every pair held against each other.
        plots: Of each task, and the performance profile.
    """

    sentences: tuple[str, ...]
    notes: tuple[str, ...]
    tables: tuple[Table, ...]
    tests: tuple[Table, ...]
    plots: tuple[Plot, ...]


def standings(board: Scoreboard) -> Standings:
    """Lay out the results; with one seed, nothing that ranks."""
    verdicts = list(verdicts_of(board)) if board.methods else []
    ranked = verdicts if board.n_seeds > 1 and len(board.scored) > 1 else []
    tests = [table for task, verdict in ranked for table in pair_tables(board, task, verdict)]
    plots = [plot for task in board.tasks if (plot := dots(board, task))]
    if ranked and board.shares_a_scale:
        tests.append(improvement_table(board))
        plots.append(profile(board))
    return Standings(
        tuple(sentences(board, verdicts)),
        tuple(dict.fromkeys(note for _, verdict in ranked for note in verdict.notes)),
        tuple(_tables(board)),
        tuple(tests),
        tuple(plots),
    )


def _tables(board: Scoreboard) -> Iterator[Table]:
    for task in board.tasks:
        yield task_table(board, task)
    if board.scored and len(board.tested) > 1 and board.shares_a_scale:
        yield overall_table(board)
    if board.references and board.scored:
        yield kept_table(board)
