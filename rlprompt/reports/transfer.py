"""Tables of what found prompts are worth on other models and data, for the page."""

from __future__ import annotations

from collections.abc import Iterator

from rlprompt.reports.tables import NONE, Table, count, number
from rlprompt.transfer.file import Transfer
from rlprompt.transfer.matrix import Cell, Failure, Matrix, drift, losses, matrix


def transfer_tables(transfer: Transfer) -> Iterator[Table]:
    """The matrix, what could not be scored, and what is lost on the way."""
    found = matrix(transfer)
    if found.rows and found.columns:
        yield _worth(transfer, found)
        yield from _remarks(found)
    lost = [
        (
            one.source.task,
            one.source.optimiser,
            str(one.source.seed),
            one.form,
            one.split,
            number(one.as_found),
            number(one.then),
            number(one.then - one.as_found),
        )
        for one in losses(transfer)
    ]
    if lost:
        yield Table(
            "transfer-losses",
            "What prompts lose on their own model as another form of themselves",
            ("task", "method", "seed", "form", "split", "as found", "then", "difference"),
            tuple(lost),
            text=(0, 1, 3, 4),
            notes=("by text: typed again; nearest tokens: of a soft prompt.",),
        )


def _worth(transfer: Transfer, found: Matrix) -> Table:
    header = tuple(f"{one.title}{'' if one.of_study else ' (other)'}" for one in found.columns)
    rows = tuple(
        (row.title, *map(_cell, cells)) for row, cells in zip(found.rows, found.cells, strict=True)
    )
    looks = sum(opening.prompts for opening in transfer.openings)
    return Table(
        "transfer",
        f"Found prompts on other models and tasks: mean {transfer.split} score, and gain over the "
        "empty prompt there",
        ("found by", *header),
        rows,
        notes=(
            "In brackets the gain over the empty prompt of the same column, with its 95 % "
            f"interval. {count(looks)} scores of prompts on test are behind it: to pick the best "
            "cell afterwards is to select on test.",
            _drift(transfer),
            *transfer.notes,
        ),
    )


def _cell(cell: Cell | Failure | None) -> str:
    if cell is None:
        return NONE
    if isinstance(cell, Failure):
        return "not scored"
    interval = ""
    if cell.gain_low is not None and cell.gain_high is not None:
        interval = f", {cell.gain_low:+.3f} to {cell.gain_high:+.3f}"
    return f"{cell.mean:.3f} ({cell.gain:+.3f}{interval})"


def _remarks(found: Matrix) -> Iterator[Table]:
    """What a reader should know of cells, and why some are empty."""
    rows = []
    for row, cells in zip(found.rows, found.cells, strict=True):
        for column, cell in zip(found.columns, cells, strict=True):
            if isinstance(cell, Failure):
                rows.append((row.title, column.title, cell.problem))
            elif cell is not None and (cell.notes or cell.form != "as found"):
                rows.append((row.title, column.title, "; ".join((cell.form, *cell.notes))))
    if rows:
        yield Table(
            "transfer-remarks",
            "How they got there",
            ("found by", "on", "remark"),
            tuple(rows),
            text=(0, 1, 2),
        )


def _drift(transfer: Transfer) -> str:
    found = drift(transfer)
    if not found.n:
        return "No score could be held against one that the study holds."
    said = "no more than rounding" if found.holds else "MORE than rounding explains"
    return (
        f"Today's scores on the study's own models differ from the stored ones by {said} "
        f"({found.reward:.2g} in reward at most, of {found.n})."
    )
