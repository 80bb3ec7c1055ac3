"""The command that takes found prompts, or all that were scored, out of a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlprompt.cli.options import StudyPath
from rlprompt.cli.studies import open_study

if TYPE_CHECKING:
    from rlprompt.store.store import Store


def export(
    study: StudyPath,
    ledger: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write every scored prompt with its rewards, to a .csv or .parquet file (a data "
            "frame) or a .jsonl file (with the texts that the model wrote).",
        ),
    ] = None,
    best: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the prompt that is best on dev to a new folder."),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of this run; `rlprompt show` lists runs."),
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the runs on this task.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the runs on this model.")
    ] = None,
) -> None:
    """Write the best prompt of a study, or all of them.

    The folder of --best holds the prompt's text, ids and vectors, an adapter for PEFT, and a card
    that says what it scored, how it was found and how to use it; for a served model only the text
    and the card.
    """
    from rlprompt.studies.inspection import write_ledger

    if ledger is None and best is None:
        raise ValueError("nothing to write: give --best DIR, --ledger FILE, or both")
    if best is None and (run, task, model) != (None, None, None):
        raise ValueError("--run, --task and --model narrow down the best prompt: add --best DIR")
    with open_study(study) as store:
        if best is not None:
            _export_best(store, best, run, task, model)
        if ledger is not None:
            typer.echo(f"{write_ledger(store, ledger):,} prompts written to {ledger}")


def _export_best(
    store: Store, folder: Path, name: str | None, task_name: str | None, model: str | None
) -> None:
    from rlprompt.export.export import check_folder, pick_run
    from rlprompt.studies.loading import model_found_on, task_titles, write_best

    check_folder(folder)  # before the model is loaded
    run = pick_run(store.runs(), name, task_name, model, task_titles(store))
    result = run.result
    assert result is not None
    lm = model_found_on(store, result.fingerprint)
    exported, problem = write_best(store, run, folder, lm)
    typer.echo(f"{run.name}: {exported.facts.text!r} written to {folder}; its card is README.md")
    if problem:
        typer.echo(f"note: {problem}, so template and label words are not written")
