"""The commands that look ahead: is this task sound, and what will the searches cost?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlprompt._utils.assets import DEFAULT_MODEL
from rlprompt._utils.suggest import did_you_mean
from rlprompt.check.patience import duration
from rlprompt.cli.options import FILES, Device, Dtype

if TYPE_CHECKING:
    from rlprompt.check.patience import Patience
    from rlprompt.check.report import Report
    from rlprompt.config.schema import Config
    from rlprompt.models.lm import FrozenLM
    from rlprompt.studies.dry_run import Plan
    from rlprompt.studies.experiment import Experiment
    from rlprompt.tasks.base import Task

# Seconds that a check takes at most, and the share of them that is for tasks; an optimiser takes a
# few (0.3 to 4 seconds on a busy CPU).
LIMIT = 110.0
TASKS = 0.5
OPTIMISER = 4.0


def check(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG_OR_TASK",
            help="Experiment file, a task's name, or FILE.py:NAME of a task, class or function.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Model for a task, {DEFAULT_MODEL} if left out; an experiment file has its own.",
        ),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Run every check, however long it takes.")
    ] = False,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Check a task or an experiment before searching.

    For an experiment file: its tasks, its optimisers, and what the searches will cost. It takes two
    minutes at most, loading not counted, and says what it left out to do so. Exit code 1 if a check
    failed.
    """
    from rlprompt.check.patience import Patience
    from rlprompt.check.task import check_task
    from rlprompt.models.lm import FrozenLM

    there = Path(subject).exists()
    if not there and Path(subject).suffix not in FILES:
        task = _find_task(subject)
        lm = FrozenLM.load(model or DEFAULT_MODEL, device=device or "auto", dtype=dtype or "auto")
        patience = Patience(math.inf if full else LIMIT)
        reports = [_told(check_task(task, lm, patience=patience))]
        _tell_label_words(task, lm)
        _tell_left_out(patience)
    else:
        if model is not None:
            raise ValueError(
                "--model is for a task, and an experiment file has its own: leave --model out, or "
                f"set `model:` in {subject}"
            )
        reports = _check_experiment(subject, full, device, dtype)
    if any(report.failed for report in reports):
        raise typer.Exit(1)
    if there:
        typer.echo(f"\nno check failed; next: rlprompt compare {subject}")


def _check_known(name: str, tasks: Sequence[str]) -> None:
    """Refuse a name that is neither a file's nor a task's.

    Raises:
        ValueError: It is none.
    """
    if name in tasks:
        return
    known = [*tasks, *(path.name for path in Path().iterdir() if path.suffix in FILES)]
    lists = "; `rlprompt ls tasks` lists the tasks, and `rlprompt init DATA` writes a file"
    hint = did_you_mean(name, known, begun=True) or lists
    raise ValueError(f"there is no file and no task {name!r}{hint}")


def dry_run(config: Config) -> None:
    """Print what the searches of an experiment would cost, and run none.

    Raises:
        ValueError: Something in the config is wrong.
        AssetError: Bundled data or model could not be fetched.
    """
    from rlprompt.check.patience import Patience
    from rlprompt.studies.experiment import headed
    from rlprompt.studies.loading import load_experiments

    config = config.with_random()
    typer.echo(f"{config.name}: a plan; no search is run and nothing is written")
    _show_plans(headed(load_experiments(config)), Patience())


def _check_experiment(
    subject: str, full: bool, device: str | None, dtype: str | None
) -> list[Report]:
    from rlprompt.check.optimiser import check_optimiser
    from rlprompt.check.patience import Patience
    from rlprompt.check.task import check_task
    from rlprompt.config.yaml_file import load_config
    from rlprompt.studies.experiment import headed
    from rlprompt.studies.loading import load_experiments

    config = load_config(Path(subject), device=device, dtype=dtype).with_random()
    experiments = load_experiments(config)
    patience = Patience(math.inf if full else LIMIT)
    reports = []
    # Budgets make no difference to a task and a model.
    cells = list({one.cell: one for one in experiments}.values())
    for i, experiment in enumerate(cells):
        split = "" if experiment.split_seed is None else f", split {experiment.split_seed},"
        typer.echo(f"task {experiment.task_name}{split} with {experiment.lm.name}")
        if experiment.lm.served:
            typer.echo(
                f"not scored, since {experiment.lm.where} may charge for it; try the task on a "
                "model on this machine"
            )
            continue
        own = patience.part(TASKS / (len(cells) - i * TASKS))
        report = check_task(experiment.task, experiment.lm, length=experiment.length, patience=own)
        patience.row_seconds = max(patience.row_seconds, own.row_seconds)
        reports.append(_told(report))
        _tell_label_words(experiment.task, experiment.lm)
    sound = not any(report.failed for report in reports)
    typer.echo("\noptimisers, on a task that costs nothing")
    for name, optimiser in experiment.optimisers.items():
        if patience.allows(OPTIMISER, f"whether {name} keeps its promises"):
            reports.append(check_optimiser(optimiser))
            _tell_problems(name, reports[-1])
    typer.echo("")
    if sound:  # or what it costs is of no interest
        _show_plans(headed(experiments), patience)
    _tell_left_out(patience)
    return reports


def _tell_left_out(patience: Patience) -> None:
    """What there was no time for, if there is such."""
    if patience.left_out:
        typer.echo("\nleft out to finish in two minutes; `--full` runs these too:")
        for what in patience.left_out:
            typer.echo(f"      {what}")


def _told(report: Report) -> Report:
    for line in report.lines():
        typer.echo(line)
    n_failed, n_warned = len(report.failed), len(report.problems) - len(report.failed)
    typer.echo(f"checks: {len(report.findings)}, failed: {n_failed}, warnings: {n_warned}")
    return report


def _tell_label_words(task: Task, lm: FrozenLM) -> None:
    """What was done to the data, and what the tokenizer makes of label words, if there are some."""
    for note in task.splits.notes:
        typer.echo(f"note: {note}")
    from rlprompt.data.labels import excerpt

    found = task.label_word_report(lm)
    if found is None:
        return
    typer.echo("\nlabel words, with the tokens of each, and an example of the class")
    for label in task.class_words:
        own = [one.spelt(lm) for one in found.words if one.label == label]
        texts = (
            next(iter(one.fields.values()), "") for one in task.splits.train if one.label == label
        )
        example = next((f", such as {excerpt(text)!r}" for text in texts if text), "")
        typer.echo(f"      {label}: {', '.join(own)}{example}")
    for warning in found.warnings:
        typer.echo(f"warn  {warning}")


def _tell_problems(name: str, report: Report) -> None:
    """A line for an optimiser that passes, and one for each of its problems otherwise."""
    from rlprompt.check.report import Report as Shown

    if not report.problems:
        typer.echo(f"ok    {name}: {len(report.findings)} checks passed")
    for line in Shown(report.subject, report.problems).lines():
        typer.echo(f"{line[:6]}{name}: {line[6:]}")


def _find_task(name: str) -> Task:
    """The task of that short name, at `FILE.py:NAME`, or that a class or function there gives.

    Raises:
        ValueError: There is none.
    """
    from rlprompt._utils.plugins import load_object, locate
    from rlprompt.config.registry import checked_task, entries, import_task, make_task

    if ":" not in name:
        _check_known(name, list(entries("task")))
        return make_task(name, {})
    spec = locate(name, Path.cwd())
    found = load_object(spec)
    return import_task(spec, {}) if callable(found) else checked_task(found, name)


def _show_plans(experiments: Mapping[str, Experiment], patience: Patience) -> None:
    """A plan for each experiment under its heading, which is "" for the only one."""
    for i, (heading, experiment) in enumerate(experiments.items()):
        if heading:
            typer.echo(f"\n{heading}")
        _show_plan(experiment, patience.part(1 / (len(experiments) - i)), heading)


def _show_plan(experiment: Experiment, patience: Patience, heading: str) -> None:
    """What an experiment costs; in rows alone where measuring is paid for, or takes too long."""
    from rlprompt.cli import terminal
    from rlprompt.studies.dry_run import all_rows, least_rows, make_plan

    seconds = least_rows(experiment) * patience.row_seconds
    what = f"how long the searches take{f' ({heading})' if heading else ''}"
    if not experiment.lm.served and patience.allows(seconds, what):
        plan = make_plan(experiment, patience.left)
        terminal.print_columns(terminal.make_console(), _table(plan), numeric=6)
        for line in _remarks(experiment, plan):
            typer.echo(line)
        return
    rows = all_rows([experiment])
    said = f"rows in all: {rows.searched:,} in searches, and at most {rows.outside:,} outside"
    if experiment.lm.served:
        n_words = sum(map(len, experiment.task.class_words.values()))
        each = f"{n_words} requests at most, one a label word" if n_words else "a request or more"
        said += (
            f"; a row is {each}, and none where the same was asked before. Seconds and tokens are "
            f"not measured, since {experiment.lm.where} may charge for it"
        )
    typer.echo(said)


def _table(plan: Plan) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("search", "runs", "rows", "prompts", "LM", "own time", "dev and test")
    ]
    for one in plan.searches:
        times = map(duration, (one.lm_seconds, one.own_seconds, one.selection_seconds))
        counts = (f"{one.n_runs}", f"{one.rows:,}", f"{one.n_prompts:,}")
        rows.append((one.optimiser, *counts, *times))
    return rows


def _remarks(experiment: Experiment, plan: Plan) -> list[str]:
    selection = sum(one.n_runs * one.selection_rows for one in plan.searches)
    lines = [
        "(figures of each run; LM: rewards and gradients; own time: the optimiser itself)",
        f"controls: {plan.control_rows:,} rows, {duration(plan.control_seconds)}",
        f"in all: {plan.rows:,} rows ({selection:,} of them to pick on dev and for the final "
        f"scores), about {duration(plan.seconds)} in one process, loading not counted",
        f"memory: {_size(plan.bytes_now)} now, at most {_size(plan.bytes_more)} more for scoring",
        f"measured in {duration(plan.measured_seconds)} on {experiment.lm.device}; it takes longer "
        "if the machine is busier then, or if an optimiser slows down as its history grows",
    ]
    pools = {one.optimiser: one.pool_rows for one in plan.searches if one.pool_rows}
    if pools:
        counts = ", ".join(f"{name} {rows:,}" for name, rows in pools.items())
        lines.append(f"`tokens: gradient` takes so many of a search's rows: {counts}")
    if experiment.references:
        names = ", ".join(experiment.references)
        lines.append(f"training of {names} comes on top, and is not estimated")
    limits = dict(experiment.budget.limits)
    if experiment.selection.dev_patience:
        limits["dev_patience"] = experiment.selection.dev_patience
    if limits:
        named = ", ".join(f"{name} {value:g}" for name, value in limits.items())
        lines.append(f"searches may end earlier: {named}")
    return lines


def _size(n_bytes: int) -> str:
    """Bytes as a person says them.

    >>> _size(3 << 29)
    '1.5 GiB'
    """
    return f"{n_bytes / 2**30:.1f} GiB"
