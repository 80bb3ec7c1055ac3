"""Tables of what found prompts are worth on other models and data, for the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from rlprompt._utils.text import counted
from rlprompt.reports.tables import NONE, Table, count, number
from rlprompt.store.summary import control_title
from rlprompt.transfer.file import Retyping, Source, Target, Transfer
from rlprompt.transfer.matrix import (
    Cell,
    Failure,
    Loss,
    Matrix,
    drift,
    losses,
    matrix,
    missing_models,
    titles,
)


def transfer_tables(transfer: Transfer) -> Iterator[Table]:
    """The matrix, what could not be scored, and what is lost on the way."""
    found = matrix(transfer)
    if found.rows and found.columns:
        yield _worth(transfer, found)
        yield from _remarks(found)
    named = titles(transfer.sources)
    yield from _losses(transfer, named)
    yield from _typed(transfer, named)


def _losses(transfer: Transfer, named: Mapping[str, str]) -> Iterator[Table]:
    """What prompts lose where they were found, by being typed or made tokens; means."""
    groups: dict[tuple[str, str, str, str], list[Loss]] = {}
    for one in losses(transfer):
        place = (one.source.task, named[one.source.run], str(one.form), one.split)
        groups.setdefault(place, []).append(one)
    rows = []
    for key, own in groups.items():
        found, then = fmean(one.as_found for one in own), fmean(one.then for one in own)
        figures = (number(found), number(then), number(then - found))
        rows.append((*key, str(len(own)), *figures))
    if rows:
        yield Table(
            "transfer-losses",
            "What prompts lose on their own model when they change form",
            ("task", "found by", "form", "split", "prompts", "as found", "then", "difference"),
            tuple(rows),
            text=(0, 1, 2, 3),
            notes=("by text: typed again; nearest tokens: of a soft prompt.",),
        )


def _typed(transfer: Transfer, named: Mapping[str, str]) -> Iterator[Table]:
    """What typing did to prompts: tokens here and there, and whether their text survives."""
    sources = {source.run: source for source in transfer.sources}
    typed = {(one.run, one.model): one.retyping for one in transfer.entries if one.retyping}
    groups: dict[tuple[str, str], list[tuple[Source, Retyping]]] = {}
    for (run, model), retyping in typed.items():
        groups.setdefault((named[run], model), []).append((sources[run], retyping))
    rows = []
    for (title, model), own in groups.items():
        before = fmean(source.tokens for source, _ in own)
        after = fmean(retyping.tokens for _, retyping in own)
        kept = sum(retyping.survives for _, retyping in own)
        rows.append((title, model, number(before, 1), number(after, 1), f"{kept} of {len(own)}"))
    if rows:
        yield Table(
            "transfer-typed",
            "Prompts that were typed again on another model",
            ("found by", "on", "tokens", "then", "text survives"),
            tuple(rows),
            text=(0, 1, 4),
        )


def _worth(transfer: Transfer, found: Matrix) -> Table:
    header = tuple(f"{one.title}{'' if one.of_study else ' (other)'}" for one in found.columns)
    targets = [one.target for one in found.columns]
    controls = dict.fromkeys(name for target in targets for name in target.controls)
    rows = [
        (control_title(name), *(_control(target, name) for target in targets)) for name in controls
    ]
    rows += [
        (row.title, *map(_cell, cells)) for row, cells in zip(found.rows, found.cells, strict=True)
    ]
    return Table(
        "transfer",
        f"Found prompts on other models and tasks: mean {transfer.split} score, and gain over the "
        "empty prompt there",
        ("found by", *header),
        tuple(rows),
        notes=(
            "In brackets the gain over the empty prompt of the same column"
            f"{_over(found, transfer.split)}. {_seen(transfer)}",
            *_unlike(targets, transfer.split),
            _drift(transfer),
            *(
                f"{name} could not be loaded: {problem}"
                for name, problem in missing_models(transfer).items()
            ),
            *transfer.notes,
        ),
    )


def _over(found: Matrix, split: str) -> str:
    """What the intervals are about, after a comma; "" where there are none."""
    cells = [cell for row in found.cells for cell in row if isinstance(cell, Cell)]
    there = {cell.over for cell in cells if cell.low is not None}
    kinds = {
        "seeds": "over seeds",
        "examples": ("where there is one prompt " if "seeds" in there else "")
        + f"over {split} examples (Wilson)",
    }
    said = ", or ".join(words for kind, words in kinds.items() if kind in there)
    return f", with its 95 % interval {said}" if said else ""


def _seen(transfer: Transfer) -> str:
    """What the figures cannot be used for."""
    if transfer.split != "test":
        chosen = "searched" if transfer.split == "train" else "picked"
        return (
            f"Prompts were {chosen} on {transfer.split}: its figures of their own task are too "
            "good, beside the empty prompt as beside other tasks."
        )
    looks = sum(opening.prompts for opening in transfer.openings)
    return (
        f"The table rests on {count(looks)} scores of prompts on test: picking the best cell "
        "afterwards is selecting on test."
    )


def _unlike(targets: Sequence[Target], split: str) -> Iterator[str]:
    """Tasks of which some models could be given fewer texts."""
    sizes: dict[str, dict[int, list[str]]] = {}
    for target in targets:
        if not target.problem:
            own = sizes.setdefault(target.task, {})
            own.setdefault(target.examples, []).append(target.model)
    for task, own in sizes.items():
        if len(own) > 1:
            each = "; ".join(f"{count(n)} on {', '.join(models)}" for n, models in own.items())
            yield (
                f"Not all models were given the same {split} examples of {task} ({each}), so "
                "columns of it can be compared by their gains at best."
            )


def _control(target: Target, name: str) -> str:
    """The score of a control, with its gain if it is not the empty prompt."""
    if name not in target.controls:
        return NONE
    worth, empty = target.controls[name].metric, target.controls["empty"].metric
    return number(worth) + (f" ({worth - empty:+.3f})" if name != "empty" else "")


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
            "How prompts were carried over",
            ("found by", "on", "remark"),
            tuple(rows),
            text=(0, 1, 2),
        )


def _drift(transfer: Transfer) -> str:
    found = drift(transfer)
    if not found.n:
        return "No score could be compared with one that the study has."
    said = "no more than rounding" if found.holds else "MORE than rounding explains"
    return (
        f"Today's scores on the study's own models differ from the stored ones by {said} "
        f"({found.reward:.2g} in reward at most, over {counted(found.n, 'score')})."
    )
