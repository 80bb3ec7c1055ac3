"""Transferred prompts in a terminal: the matrix, and what is lost on the way."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from rich.console import Console

from rlprompt.cli.terminal import print_columns
from rlprompt.transfer.file import Retyping, Source, Target, Transfer
from rlprompt.transfer.matrix import (
    Cell,
    Failure,
    Loss,
    Matrix,
    losses,
    matrix,
    missing_models,
    titles,
)

NONE = "-"


def print_transfer(console: Console, done: Transfer) -> None:
    """The matrix, a table a model, and what prompts lose on the way."""
    found, marks = matrix(done), dict[str, str]()
    metrics = dict.fromkeys(target.metric for target in done.targets if target.metric)
    console.print(
        f"\n{done.split.capitalize()} {' or '.join(metrics)}, gain over the empty prompt, and the "
        "95 % interval of the gain: over seeds,\nor of one prompt over examples. "
        f"Prompts: {'all that were picked' if done.top == 'all' else 'the best seed on dev'}."
    )
    for model in done.models:
        console.print(f"\n{model.name}, {model.dtype}{', of the study' if model.of_study else ''}")
        print_columns(console, _table(found, model.name, marks))
    for text, mark in marks.items():
        console.print(f"{mark} {text}")
    named = titles(done.sources)
    _print_losses(console, done, named)
    _print_typed(console, done, named)
    for name, problem in missing_models(done).items():
        console.print(f"\n{name} could not be loaded: {problem}")
    for note in done.notes:
        console.print(f"note: {note}")


def _table(found: Matrix, model: str, marks: dict[str, str]) -> list[tuple[str, ...]]:
    """The tasks on a model side by side: controls, then a row a method. Adds to the marks."""
    places = [i for i, one in enumerate(found.columns) if one.target.model == model]
    targets = [found.columns[i].target for i in places]
    table = [("", *(target.task for target in targets))]
    for name in dict.fromkeys(name for target in targets for name in target.controls):
        table.append((f"{name} prompt", *(_control(target, name) for target in targets)))
    for row, cells in zip(found.rows, found.cells, strict=True):
        if any(cells[i] is not None for i in places):
            n = max(cell.n for cell in cells if isinstance(cell, Cell))
            name = row.title if n == 1 else f"{row.title}, {n} seeds"
            table.append((name, *(_cell(cells[i], marks) for i in places)))
    return table


def _control(target: Target, name: str) -> str:
    """The metric of a control, with its gain if it is not the empty prompt."""
    if name not in target.controls:
        return NONE
    worth, empty = target.controls[name].metric, target.controls["empty"].metric
    return f"{worth:.3f}" + (f" {worth - empty:+.3f}" if name != "empty" else "")


def _cell(cell: Cell | Failure | None, marks: dict[str, str]) -> str:
    """A cell in a line; what is to be said of it stands below, behind a mark."""
    if cell is None:
        return NONE
    if not isinstance(cell, Cell):
        return f"{NONE} {_mark(cell.problem, marks)}"
    interval = ""
    if cell.gain_low is not None and cell.gain_high is not None:
        interval = f" [{cell.gain_low:+.3f}, {cell.gain_high:+.3f}]"
    said = [*cell.notes, *([f"arrived as {cell.form}"] if cell.form == "nearest tokens" else [])]
    noted = "".join(f" {_mark(note, marks)}" for note in said)
    return f"{cell.mean:.3f} {cell.gain:+.3f}{interval}{noted}"


def _mark(text: str, marks: dict[str, str]) -> str:
    return marks.setdefault(text, f"({len(marks) + 1})")


def _print_losses(console: Console, done: Transfer, named: Mapping[str, str]) -> None:
    """What prompts lose where they were found, by being typed or made tokens; means."""
    groups: dict[tuple[str, str, str], list[Loss]] = {}
    for loss in losses(done):
        groups.setdefault((named[loss.source.run], loss.form, loss.split), []).append(loss)
    if not groups:
        return
    rows = [("on the own model and task", "split", "prompts", "as found", "then", "change")]
    for (title, form, split), own in groups.items():
        found = fmean(loss.as_found for loss in own)
        then = fmean(loss.then for loss in own)
        figures = (f"{found:.3f}", f"{then:.3f}", f"{then - found:+.3f}")
        rows.append((f"{title}, {form}", split, str(len(own)), *figures))
    console.print()
    print_columns(console, rows, numeric=4)


def _print_typed(console: Console, done: Transfer, named: Mapping[str, str]) -> None:
    """What typing did to prompts: tokens here and there, and whether their text survives."""
    sources = {source.run: source for source in done.sources}
    typed = {(one.run, one.model): one.retyping for one in done.entries if one.retyping}
    groups: dict[tuple[str, str], list[tuple[Source, Retyping]]] = {}
    for (run, model), retyping in typed.items():
        groups.setdefault((named[run], model), []).append((sources[run], retyping))
    if not groups:
        return
    rows = [("typed again", "on", "tokens", "then", "text survives")]
    for (title, model), own in groups.items():
        before = fmean(source.tokens for source, _ in own)
        after = fmean(retyping.tokens for _, retyping in own)
        kept = sum(retyping.survives for _, retyping in own)
        rows.append((title, model, f"{before:.1f}", f"{after:.1f}", f"{kept} of {len(own)}"))
    console.print()
    print_columns(console, rows, numeric=3)
