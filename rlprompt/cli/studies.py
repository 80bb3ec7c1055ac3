"""The commands on a study that was begun: to look into it, help with it, and put it on a page."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlprompt.cli.options import AsJson, StudyPath, Track

if TYPE_CHECKING:
    from rlprompt.store.store import Store
    from rlprompt.studies.experiment import Experiment

GO_ON = "interrupted: run the same command again, or `rlprompt work RUN`, to go on"


def show(
    study: StudyPath,
    prompts: Annotated[
        int, typer.Option(min=0, metavar="N", help="How many best prompts of each run to show.")
    ] = 3,
    as_json: AsJson = False,
) -> None:
    """Show a study: state of each run, best prompts so far, config."""
    from rlprompt.studies.inspection import best, is_deserted, state_line, state_of

    with open_study(study) as store:
        runs = store.runs()
        picked = [
            run.result.candidates[0].text if run.result and run.result.candidates else None
            for run in runs
        ]
        found = [best(store, run.name, prompts) for run in runs]
        if as_json:
            states = [
                {
                    **state_of(run),
                    "picked": text,
                    "best": [
                        {"reward": entry.reward, "rows": entry.rows, "text": entry.title}
                        for entry in entries
                    ],
                }
                for run, text, entries in zip(runs, picked, found, strict=True)
            ]
            whole = {"runs": states, "config": store.spec.get("config", {})}
            typer.echo(json.dumps(whole, ensure_ascii=False))
            return
        for run, text, entries in zip(runs, picked, found, strict=True):
            typer.echo(state_line(run))
            if text is not None:
                typer.echo(f"    picked: {text!r}")
            for entry in entries:
                typer.echo(f"    {entry.reward:.4f} after {entry.rows:,} rows: {entry.title}")
        if is_deserted(store):
            typer.echo(GO_ON)
        typer.echo("config:")
        typer.echo(json.dumps(store.spec.get("config", {}), indent=1, ensure_ascii=False))


def watch(
    study: StudyPath,
    every: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="Pause between two updates.")
    ] = 2.0,
) -> None:
    """Follow a study that another process runs.

    Prints a line for each run, and another whenever it advances, until all runs have ended, or
    nobody works on them any more.
    """
    from rlprompt.studies.inspection import is_deserted, state_line

    shown: dict[str, str] = {}
    with open_study(study) as store:
        while True:
            runs = store.runs()
            for run in runs:
                if shown.get(run.name) != state_line(run):
                    shown[run.name] = state_line(run)
                    typer.echo(shown[run.name])
            if all(run.state in ("finished", "failed") for run in runs):
                return
            if is_deserted(store):
                typer.echo(GO_ON)
                return
            time.sleep(every)


def verify(
    study: StudyPath,
    sample: Annotated[int, typer.Option(min=0, metavar="N", help="Prompts of each run.")] = 32,
) -> None:
    """Score some prompts of a study again, and compare.

    Takes a sample of each run and the picked prompts; exit code 1 if a score differs by more than
    rounding explains.
    """
    from rlprompt.studies import verification
    from rlprompt.studies.experiment import searches

    with open_study(study) as store:
        found = verification.verify(store, searches(_load(study)), sample)
    typer.echo(
        f"{found.n_prompts} prompts and {found.n_final} final scores computed again; the largest "
        f"difference is {found.largest:.3g} ({found.where}), and rounding explains "
        f"up to {found.tolerance:.3g}"
    )
    if not found.holds:
        typer.echo("error: the stored scores are not those of this model and task", err=True)
        raise typer.Exit(1)


def work(
    study: StudyPath,
    cache: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File of scores that studies share.")
    ] = None,
    track: Track = None,
) -> None:
    """Add a worker to a study, or resume it.

    Other processes may work on it at the same time; this one ends when all runs have ended.
    """
    from rlprompt.studies.run import work as help_with
    from rlprompt.studies.trackers import Several, tracker

    watcher = Several([tracker(one, study) for one in track or ()])
    help_with(_load(study), study, cache, watcher)


def list_runs(folder: Path) -> None:
    """List the studies in a folder and under it, with a line a run."""
    from rlprompt.studies.inspection import state_line, studies

    found = studies(folder)
    for place, runs in found.items():
        typer.echo(str(place))
        lines = [str(runs)] if isinstance(runs, Exception) else map(state_line, runs)
        for line in lines:
            typer.echo(f"    {line}")
    if not found:
        typer.echo(f"no study in {folder}")


def _load(study: Path) -> list[Experiment]:
    """The experiments that a study was made from.

    Raises:
        ValueError: It was not made from a file, or something in it is wrong by now.
    """
    from rlprompt.config.problems import config_from_json
    from rlprompt.studies.run import load_again

    with open_study(study) as store:
        config = store.spec.get("config")
    if not config:
        raise ValueError(f"{study} was not made from an experiment file, so it cannot be loaded")
    return load_again(config_from_json(config), study)


def open_study(study: Path) -> Store:
    """The store of a study, for reading.

    Raises:
        ValueError: There is none.
    """
    from rlprompt.store import summary
    from rlprompt.store.store import FILE, Store

    if not (study / FILE).exists():
        if (study / summary.FILE).exists():
            raise ValueError(
                f"{study} has a study's results but no {FILE} with its scores, as `rlprompt "
                "combine` writes them; `rlprompt report` and Study.open read it"
            )
        raise ValueError(
            f"{study} holds no study, or one that has just started and is still scoring its "
            "controls. `rlprompt ls runs` lists the studies"
        )
    return Store(study / FILE, read_only=True)


def next_steps(place: Path) -> list[str]:
    """What a person may do with a study that is done."""
    from rlprompt.export.export import pick_options
    from rlprompt.store.database import StoreError
    from rlprompt.studies.loading import task_titles

    try:
        with open_study(place) as store:
            options = pick_options(store.runs(), task_titles(store))
    except (StoreError, ValueError):  # gone meanwhile: the study is done, and its page there
        options = None
    look = f"look: {place / 'report.html'}"
    if options is None:
        return [look]
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    keep = shlex.join(["rlprompt", "export", str(place), "--best", "found", *flags])
    which = f" of one {' and '.join(options)}" if options else ""
    return [
        look,
        f"keep the best prompt{which}: {keep}",
        "use it: rlprompt predict found DATA",
    ]


def report(
    study: StudyPath,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder to write to, instead of RUN.")
    ] = None,
) -> None:
    """Write the page and the tables of a study.

    Writes report.html, and the tables as Markdown, CSV and LaTeX. The page says what may be
    concluded, shows the curves, results and best prompts, and what cannot be relied on. It is one
    file that needs no network.
    """
    from rlprompt.cli.terminal import make_console, print_conclusions
    from rlprompt.reports.html import write_page

    page, path = write_page(study, out)
    print_conclusions(make_console(), page)
    typer.echo(f"written to {path.parent}: {path.name}, tables.md, tables/")


def combine(
    studies: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Folders of studies that are parts of one."),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write to.")],
) -> None:
    """Put studies that ran on several machines on one page.

    Their experiment files may differ only in tasks, models, optimisers, seeds, splits and budgets.
    FOLDER gets summary.json, runs/, the page and its tables; the parts stay as they are.
    """
    from rlprompt.cli.terminal import make_console, print_conclusions
    from rlprompt.reports.html import write_page
    from rlprompt.store.parts import combine as combine_studies

    summary = combine_studies(studies, out)
    page, path = write_page(out)
    print_conclusions(make_console(), page)
    searches = f"{len(summary.runs):,} of {summary.expected_runs:,} searches"
    typer.echo(
        f"written to {out}: {searches}, {path.name}, tables.md, tables/, summary.json, runs/"
    )
