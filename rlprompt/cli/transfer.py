"""The command that takes the prompts of a study to other models and other tasks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlprompt.cli.options import Device, Split, StudyPath

if TYPE_CHECKING:
    from rlprompt.transfer.file import Opening, Target, Transfer
    from rlprompt.transfer.run import Transferring
    from rlprompt.transfer.targets import Destinations


class Top(StrEnum):
    """Which of the picked prompts."""

    all = "all"
    best = "best"


def transfer(
    study: StudyPath,
    models: Annotated[
        list[str] | None,
        typer.Option(metavar="A,B", help="Other models: names on the hub, folders, .gguf files."),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y",
            help="Tasks to score all prompts on: of the study, of `rlprompt ls tasks`, or YAML "
            "files with `task:` or `tasks:`.",
        ),
    ] = None,
    split: Annotated[
        Split, typer.Option(metavar="SPLIT", help="Score on train, dev or test.")
    ] = Split.test,
    top: Annotated[
        Top,
        typer.Option(
            metavar="WHICH",
            help="all: the picked prompt of each seed. best: each method's best seed on dev.",
        ),
    ] = Top.all,
    device: Device = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="DTYPE", help="For the other models: float32, bfloat16, float16, or auto."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write, instead of RUN/transfer.json."),
    ] = None,
) -> None:
    """Score found prompts on other models and tasks.

    On another model, prompts of tokens are typed again as text, and soft prompts become their
    nearest tokens; the empty and the hand-written prompt are scored beside them. The study's own
    model comes first; exit code 1 if its scores are no longer those of the study.

    Scores are on test unless you give another split, and the file counts each look. Picking the
    best cell afterwards is picking on test, and makes its figure too good.
    """
    from rlprompt.cli.terminal import make_console, print_table
    from rlprompt.config.problems import config_from_json
    from rlprompt.reports.transfer import transfer_tables
    from rlprompt.store.store import FILE, Store
    from rlprompt.transfer.run import Transferring, finished, found_prompts
    from rlprompt.transfer.targets import Destinations

    if not (study / FILE).exists():
        raise ValueError(f"{study} holds no study; `rlprompt ls runs` lists the studies")
    path = out or study / "transfer.json"
    read_only = not all(os.access(place, os.W_OK) for place in (study, study / FILE))
    with Store(study / FILE, read_only=read_only) as store:
        if not store.spec.get("config"):
            raise ValueError(
                f"{study} was not made from an experiment file, so it cannot be loaded"
            )
        config = config_from_json(store.spec["config"])
        earlier = _earlier(path, config.name)
        finished(store)  # before anything is loaded
        typer.echo(f"{config.name}: loading {', '.join(name for name, _ in config.all_models)}")
        config = config.model_copy(update={"device": device or config.device})
        there = Destinations(config, store, _names(models), _names(tasks), dtype or config.dtype)
        found, notes = found_prompts(store, there.experiments, top.value)
        done = Transferring(
            store=store,
            study=config.name,
            found=found,
            split=split.value,
            top=top.value,
            read_only=read_only,
            notes=notes,
            earlier=earlier,
        )
        if read_only:
            typer.echo(f"{study} cannot be written, so these scores are not kept for next time")
        _go(done, there, path)
    console = make_console()
    for table in transfer_tables(done.file):
        print_table(console, table)
    typer.echo(f"\nwritten to {path}")
    _judge(done.file)


def _names(given: Sequence[str] | None) -> list[str]:
    """The names in lists with commas, each once."""
    parts = (part.strip() for one in given or () for part in one.split(","))
    return list(dict.fromkeys(part for part in parts if part))


def _earlier(path: Path, study: str) -> tuple[Opening, ...]:
    """The looks at test that earlier commands wrote to a file.

    Raises:
        ValueError: It cannot be written, cannot be read, or is another study's.
    """
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"{path} cannot be written; give another file with --out")
    if not path.exists():
        return ()
    from rlprompt.transfer.file import read_transfer

    before = read_transfer(path)
    if before.study != study:
        raise ValueError(
            f"{path} is of the study {before.study}, not of {study}; give another file with --out"
        )
    return before.openings


def _go(done: Transferring, there: Destinations, path: Path) -> None:
    """Score on one model after another; what came of it so far is always in the file."""
    from rlprompt._utils.files import write_atomically
    from rlprompt.transfer.run import MISTAKES

    def follow(targets: Iterable[Target]) -> None:
        for target in targets:
            write_atomically(path, done.file.to_json().encode())
            said = f"scored on {target.examples} {target.split} examples"
            if target.problem:
                said = "could not be scored; the reason is below"
            typer.echo(f"{target.model}, {target.task}: {said}")

    try:
        for lm in there.own_models():
            follow(done.go(lm, there.tasks, of_study=True))
        for name in there.models:
            try:
                lm = there.load(name)
            except MISTAKES as error:
                follow(done.fail(name, there.tasks, error))
            else:
                follow(done.go(lm, there.tasks))
        done.complete = True
    except KeyboardInterrupt:
        typer.echo("what was scored is kept: run the same command again to go on", err=True)
        raise
    finally:
        write_atomically(path, done.file.to_json().encode())


def _judge(done: Transfer) -> None:
    """Say how far the study has drifted; exit code 1 if it has, 2 if nothing could be done.

    Raises:
        ValueError: Nothing of what was asked for could be scored.
    """
    from rlprompt.transfer.matrix import drift, reached

    there = drift(done)
    if there.n:
        typer.echo(
            f"drift: {there.n} scores of the study computed again; the largest difference is "
            f"{there.metric:.3g} in the metric and {there.reward:.3g} in the reward, and rounding "
            f"explains up to {there.tolerance:.3g}"
        )
    if not reached(done):
        raise ValueError("nothing that was asked for could be scored, see above")
    if not there.holds:
        typer.echo(
            f"error: {there.run} no longer has its stored score: the machine, a library or the "
            "model has changed",
            err=True,
        )
        raise typer.Exit(1)
