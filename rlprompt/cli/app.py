"""The command line. A person's mistake is one line and exit code 2; ours keeps its traceback.

Exit codes: 0 all went well, 1 a search or a check failed, or scores are not the stored ones, 2
something to put right first, 130 Ctrl-C. Everything heavy is imported inside the commands, so that
`--help` is quick.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, NoReturn

import typer
from typer.core import TyperGroup

from rlprompt._utils.text import file_part, listed
from rlprompt.cli.check import check
from rlprompt.cli.check import dry_run as show_plan
from rlprompt.cli.doctor import doctor
from rlprompt.cli.export import export
from rlprompt.cli.init import init
from rlprompt.cli.options import AsJson, ConfigPath, Device, Dtype, Quiet, Track, Tracker
from rlprompt.cli.predict import predict
from rlprompt.cli.score import score
from rlprompt.cli.studies import (
    combine,
    list_runs,
    next_steps,
    report,
    show,
    verify,
    watch,
    work,
)
from rlprompt.cli.transfer import transfer

if TYPE_CHECKING:
    from rlprompt.config.schema import Config, OptimiserConfig
    from rlprompt.studies.comparison import Comparison

INTERRUPTED = 130
RUNS = Path("runs")


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Commands,
    help="Search prompts for a frozen language model, and compare the search methods.",
    no_args_is_help=True,
    # Rich would cost a third of the start, and wrap tracebacks beyond copying.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        import rlprompt

        typer.echo(f"rlprompt {rlprompt.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version, and exit."
        ),
    ] = False,
) -> None:
    """What may be said before a command."""


Budget = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="ROWS", help="Budget of each search; a row is a prompt on one example."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Folder to write to or to resume, instead of runs/NAME."),
]
Cache = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="File of scores that studies share; created if missing."),
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Start again in a new folder; the old one is kept.")
]


class Listing(StrEnum):
    """Something that can be listed."""

    optimisers = "optimisers"
    tasks = "tasks"
    models = "models"
    references = "references"
    runs = "runs"


@app.command()
def compare(
    config: ConfigPath,
    budget: Budget = None,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, metavar="N", help="Seed; repeat it for more seeds.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    out: Out = None,
    restart: Restart = False,
    workers: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Processes; each loads the model."),
    ] = 1,
    cache: Cache = None,
    track: Track = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Load and measure briefly, and print the expected cost; no search runs, and "
            "nothing is written.",
        ),
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compare optimisers at the same budget.

    Runs each optimiser of CONFIG once with each seed, on each task and model, at each budget.
    Random search is added as a control, unless CONFIG lists it, a model is on a server, or
    `prompt: kind:` names another kind than tokens. Writes a page, tables, summary.json and one file
    for each search to runs/NAME. A study there that was killed or interrupted is resumed, and
    nothing is scored twice.
    """
    if dry_run:
        idle = {"--out": out, "--restart": restart, "--workers": workers > 1, "--track": track}
        _refuse_idle({**idle, "--quiet": quiet, "--json": as_json})
    chosen = _config(
        config, budget=budget, seeds=seed or None, device=device, dtype=dtype, cache=cache
    )
    if dry_run:
        _guarded(show_plan)(chosen)
        return
    said = _Said(quiet or as_json, as_json)
    _compare(chosen, out, chosen.name, restart, said, workers, track or (), adds_random=True)


@app.command()
def run(
    config: ConfigPath,
    optimiser: Annotated[
        str, typer.Option(metavar="NAME", help="One of `rlprompt ls optimisers`, or FILE.py:CLASS.")
    ],
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of everything random.")] = 0,
    budget: Budget = None,
    device: Device = None,
    dtype: Dtype = None,
    out: Out = None,
    restart: Restart = False,
    cache: Cache = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run one optimiser with one seed.

    The optimiser need not be in CONFIG; if it is, it has its settings from there. Writes the same
    files as `compare`.
    """
    from rlprompt._utils.plugins import locate

    chosen = _config(config, budget=budget, seeds=[seed], device=device, dtype=dtype, cache=cache)
    with _user_errors(ValueError):
        method = locate(optimiser, config.parent)
        title, one = _pick(chosen, method) or _as_it_comes(method)
    # With its settings, without which two of a method would be one study.
    name = f"{chosen.name}-{file_part(title)}-seed{seed}"
    chosen = chosen.model_copy(update={"optimisers": (one,)})
    _compare(chosen, out, name, restart, _Said(quiet or as_json, as_json))


@app.command("ls")
def list_(
    what: Annotated[
        Listing,
        typer.Argument(metavar="WHAT", help="optimisers, tasks, models, references or runs."),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to look for runs.")] = RUNS,
) -> None:
    """List optimisers, tasks, models, references, or runs."""
    from rlprompt.cli import listing

    listings: dict[Listing, Callable[[], None]] = {
        Listing.optimisers: listing.list_optimisers,
        Listing.tasks: listing.list_tasks,
        Listing.models: listing.list_models,
        Listing.references: listing.list_references,
        Listing.runs: functools.partial(_guarded(list_runs), folder),
    }
    listings[what]()


def _refuse_idle(options: Mapping[str, object]) -> None:
    """Refuse what was given and a plan would not heed."""
    if given := [name for name, value in options.items() if value]:
        _fail(
            "--dry-run prints a plan as text, runs no search and writes nothing, so "
            f"{listed(given)} {'do' if len(given) > 1 else 'does'} nothing with it: leave that out"
        )


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose errors are a person's mistakes."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        with _user_errors(*_study_errors(), _asset_error()):
            command(*args, **kwargs)

    return guarded


for _command in (
    init,
    check,
    doctor,
    score,
    show,
    watch,
    export,
    predict,
    verify,
    work,
    report,
    combine,
    transfer,
):
    app.command()(_guarded(_command))


def main() -> None:
    """The command `rlprompt`."""
    if not sys.warnoptions:
        # Those of the libraries below are for us, not for whoever runs a search.
        warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A vocabulary holds every script, and a terminal of another encoding is no reason to
            # end in an error after hours.
            stream.reconfigure(errors="backslashreplace")
    app()


def _config(path: Path, **overrides: Any) -> Config:
    from rlprompt.config.yaml_file import load_config

    with _user_errors(ValueError):
        return load_config(path, **overrides)


def _pick(config: Config, name: str) -> tuple[str, OptimiserConfig] | None:
    """The optimiser of that name or title in a config, with its title, or None."""
    titled = config.titled()
    if name in titled:
        return name, titled[name]
    found = {title: one for title, one in titled.items() if one.name == name}
    if len(found) > 1:
        titles = ", ".join(map(repr, found))
        raise ValueError(f"the experiment has several optimisers {name}; give one of {titles}")
    return next(iter(found.items()), None)


def _as_it_comes(name: str) -> tuple[str, OptimiserConfig]:
    """An optimiser that is in no config, with its title."""
    from rlprompt.config.schema import OptimiserConfig
    from rlprompt.config.titles import titles

    one = OptimiserConfig.named(name)
    return titles([one])[0], one


class _Said(NamedTuple):
    """What is printed: nothing but errors, or one JSON object at the end."""

    quiet: bool
    as_json: bool


def _compare(
    config: Config,
    out: Path | None,
    name: str,
    restart: bool,
    said: _Said,
    workers: int = 1,
    track: Sequence[Tracker] = (),
    adds_random: bool = False,
) -> None:
    """Run the experiment of a config and show what came of it."""
    from rlprompt.cli import terminal

    console = terminal.make_console(quiet=said.quiet)
    names = [model for model, _ in config.all_models]
    names += [title or task.name for title, task in config.all_tasks]
    console.print(f"{config.name}: loading {', '.join(names[:-1])} and {names[-1]}")
    from rlprompt.reports.html import write_page
    from rlprompt.store.database import StoreError
    from rlprompt.studies.experiment import ExperimentError, searches
    from rlprompt.studies.folder import claimed, newest
    from rlprompt.studies.ray_cluster import ClusterError, Ray
    from rlprompt.studies.run import compare, load_again, with_control
    from rlprompt.studies.trackers import Several, tracker

    with terminal.log_to(console), contextlib.ExitStack() as stack:
        with _user_errors(ValueError, _asset_error(), StoreError, OSError):
            there = None if restart else out or newest(RUNS / name)
            folder = claimed(there or out or RUNS / name, beside=there is None)
            place = stack.enter_context(folder)
            trackers = [tracker(one, place) for one in track]
            cluster = Ray(**dict(config.ray)) if config.executor == "ray" else None
            given, config = config, with_control(config, place) if adds_random else config
            if config is not given:
                console.print("random search is added, as the control at the same budget")
            experiments = load_again(config, place)
            planned = searches(experiments).values()
        for line in terminal.opening(experiments, place):
            console.print(line)
        watcher = Several([stack.enter_context(terminal.watching(console, planned)), *trackers])
        cache = Path(config.cache).expanduser() if config.cache else None
        with _user_errors(ExperimentError, StoreError, ClusterError, OSError):
            comparison = compare(
                experiments,
                place,
                watcher,
                workers=workers,
                cache=cache,
                cluster=cluster,
                track=track,
            )
    with _user_errors(OSError):
        page, _ = write_page(place)
    terminal.print_page(console, page)
    written = "report.html, tables.md, tables/, summary.json, runs/"
    console.print(f"\nwritten to {place}: {written}")
    if said.as_json:
        whole = {"folder": str(place), "conclusions": page.conclusions()}
        summary = json.loads((place / "summary.json").read_text(encoding="utf-8"))
        typer.echo(json.dumps({**whole, "summary": summary}, ensure_ascii=False))
    _check_end(comparison, place, restart)
    if not console.quiet:
        for line in next_steps(place):
            console.print(line)


def _check_end(comparison: Comparison, place: Path, restart: bool) -> None:
    """Exit where it was interrupted, or a search ended with an error, and say what to do."""
    if any(run.result.status == "interrupted" for run in comparison.runs):
        typer.echo(
            f"interrupted; run the same command again{', without --restart,' * restart} "
            f"to go on with {place}",
            err=True,
        )
        raise typer.Exit(INTERRUPTED)
    failed = [run.search for run in comparison.runs if run.error]
    for search in failed:
        trace = place / "runs" / f"{search.name}.error.txt"
        typer.echo(f"error: {search.title} ended with an error; see {trace}", err=True)
    if failed:
        raise typer.Exit(1)


def _asset_error() -> type[Exception]:
    from rlprompt._utils.assets import AssetError

    return AssetError


@contextlib.contextmanager
def _user_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn these into a line on standard error and exit code 2."""
    try:
        yield
    except BrokenPipeError:  # whoever read our output has gone; nothing is wrong
        raise
    except kinds as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    for line in message.splitlines():
        typer.echo(f"error: {line}", err=True)
    raise typer.Exit(2)


def _study_errors() -> tuple[type[Exception], ...]:
    from rlprompt.store.database import StoreError

    return StoreError, ValueError, OSError
