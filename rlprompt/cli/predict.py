"""The command that puts found prompts to work on a file of texts."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlprompt._utils.text import counted
from rlprompt.cli.options import Device, Dtype, OnBadRows

if TYPE_CHECKING:
    from rlprompt.export.facts import Usage
    from rlprompt.export.folder import ExportedPrompt
    from rlprompt.export.prediction import Answered, Prediction
    from rlprompt.models.lm import FrozenLM


def predict(
    found: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOUND", help="Folders of `rlprompt export --best`; with --best, studies."
        ),
    ],
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Texts as .csv, .tsv, .txt, .jsonl, .json or .parquet, also with .gz or .zip.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File to write: .csv, .jsonl or .parquet. Default: CSV on standard output.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    best: Annotated[
        bool, typer.Option("--best", help="FOUND is a study's folder: use its best prompt on dev.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The model's place or server, if it is not where FOUND says."
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column with the text, if it is one column."),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column with the class, for the accuracy."),
    ] = None,
    on_bad_rows: Annotated[
        OnBadRows,
        typer.Option(help="Rows that cannot be answered: an error, or skip to leave them empty."),
    ] = OnBadRows.error,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Answer a file of texts with found prompts.

    DATA needs no labels. Its columns are kept and followed by new ones: `prediction` and, with
    classes, `probability` and a `p(CLASS)` for each, calibrated as when the prompt was found. With
    several prompts, each new column begins with the prompt's name. If DATA has the label, the
    accuracy is printed.
    """
    if data.is_dir() and (files := [one for one in found if one.is_file()]):
        folders = [str(one) for one in (*found, data) if one not in files]
        given = shlex.join([*folders, *map(str, files)])
        raise ValueError(f"the folders come first, then the data: rlprompt predict {given}")
    from rlprompt.cli import terminal
    from rlprompt.data.rows_to_answer import Rows, data_file
    from rlprompt.export.answer_files import AnswerFile
    from rlprompt.export.prediction import BadRowsError, Prediction
    from rlprompt.export.server import PromptServer, used
    from rlprompt.reports.costs import bill_line
    from rlprompt.studies.comparison import model_entry

    console = terminal.make_console(stderr=True)
    file, where = AnswerFile(out, force), _Where(model, device or "auto", dtype or "auto")
    data_file(data)  # before a model is loaded
    with terminal.log_to(console):
        prompts, lm = _prompts(_named(found), best, where)
        usages = {name: used(one.facts, name) for name, one in prompts.items()}
        likely = [column for usage in usages.values() for column in usage.columns.values()]
        rows = Rows.of_file(data, likely if text is None else [text])
        asked = Prediction(rows, usages, text, label, on_bad_rows.value)
        added = {
            name: _added(usage, f"{name} " if len(usages) > 1 else "")
            for name, usage in usages.items()
        }
        try:
            n_rows = asked.survey(file.look)
            _check_new(rows.name, file.columns, [new for one in added.values() for new in one])
            server = PromptServer(lm or where.load(next(iter(prompts.values()))), prompts)
            asked.check(server)
        except BadRowsError as error:
            raise ValueError(
                f"{error}, or give --on-bad-rows skip to leave such rows without a prediction"
            ) from None
    for note in (*rows.table().remarks, *server.notes):
        console.print(f"note: {note}")
    kinds = {new: kind for one in added.values() for new, kind in one.items()}
    with (
        file.writing(kinds) as write,
        terminal.counting(console, "rows answered", n_rows) as count,
    ):
        for batch in asked.answers(server):
            write([_row(one, added) for one in batch])
            count(len(batch))
    for line in _told(asked, n_rows, out):
        console.print(line)
    if server.lm.served:
        console.print(bill_line(model_entry(server.lm)))


@dataclass(frozen=True)
class _Where:
    """Where the model lies, if not where a folder says, and how it is loaded."""

    model: str | None
    device: str
    dtype: str

    def load(self, exported: ExportedPrompt) -> FrozenLM:
        """The model of an exported prompt."""
        try:
            return exported.load_model(self.model, device=self.device, dtype=self.dtype)
        except ValueError as error:
            if self.model is not None:
                raise
            raise ValueError(f"{error} If it is elsewhere, give its place with --model") from error


def _named(found: Sequence[Path]) -> dict[str, Path]:
    """Folders by the names that their columns have."""
    names = [path.resolve().name for path in found]
    folders = {
        name if names.count(name) == 1 else str(path): path
        for name, path in zip(names, found, strict=True)
    }
    if len(folders) < len(found):
        raise ValueError("a folder is given twice; give each prompt once")
    return folders


def _prompts(
    folders: Mapping[str, Path], best: bool, where: _Where
) -> tuple[dict[str, ExportedPrompt], FrozenLM | None]:
    """The prompts, and the model if it had to be loaded for them, as it is asked for."""
    from rlprompt.export.folder import is_exported, load_prompt
    from rlprompt.store.store import FILE

    studies = {
        name: path
        for name, path in folders.items()
        if not is_exported(str(path)) and (path / FILE).exists()
    }
    if studies and not best:
        path = next(iter(studies.values()))
        raise ValueError(f"{path} is a study: add --best for its best prompt on dev")
    if best and not studies:
        given = ", ".join(map(str, folders.values()))
        raise ValueError(f"--best needs the folder of a study, and there is none among {given}")
    prompts = {name: load_prompt(path) for name, path in folders.items() if name not in studies}
    lm = None
    for name, path in studies.items():
        prompts[name], lm = _best_of(path, where, lm)
    if lm and not lm.served and where.dtype not in ("auto", lm.fingerprint.dtype):
        lm = None  # to be loaded so: a prompt is taken from its study in the dtype of the search
    return {name: prompts[name] for name in folders}, lm


def _best_of(study: Path, where: _Where, lm: FrozenLM | None) -> tuple[ExportedPrompt, FrozenLM]:
    """The best prompt of a study, as its export would be, and the model."""
    from rlprompt.cli.studies import open_study
    from rlprompt.export.export import pick_run
    from rlprompt.models.served.lm import ServedLM
    from rlprompt.studies.loading import model_found_on, task_titles, write_best

    with open_study(study) as store:
        try:
            run = pick_run(store.runs(), titles=task_titles(store))
        except ValueError as error:
            raise ValueError(
                f"{study}: {error}. These are options of `rlprompt export {study} --best DIR`: "
                "predict with that folder"
            ) from None
        assert run.result is not None
        lm = lm or model_found_on(store, run.result.fingerprint, where.model, where.device)
        with tempfile.TemporaryDirectory() as folder:
            exported, problem = write_best(store, run, Path(folder), lm)
        if isinstance(lm, ServedLM):
            lm.let_go()
    if problem:
        raise ValueError(f"{study}: {problem}, so it is not known how to use its prompt")
    return exported, lm


def _added(usage: Usage, prefix: str) -> dict[str, type]:
    """The new columns of a prompt, with the type of what is in them."""
    added: dict[str, type] = {f"{prefix}prediction": str}
    if usage.label_words is not None:
        names = ["probability", *(f"p({label})" for label in usage.label_words)]
        added |= dict.fromkeys((prefix + name for name in names), float)
    return added


def _check_new(name: str, there: Sequence[str], added: Sequence[str]) -> None:
    """Refuse data that have a column of the name of a new one."""
    for column in added:
        if column in there:
            raise ValueError(
                f"{name} already has a column {column!r}, the name of a new one; rename it"
            )


def _row(answered: Answered, added: Mapping[str, Mapping[str, type]]) -> dict[str, Any]:
    """A row with its new columns."""
    from rlprompt.export.server import Classified

    row = dict(answered.row)
    for name, columns in added.items():
        answer = answered.answers[name]
        values: Sequence[Any] = [answer]
        if answer is None:
            values = [None] * len(columns)
        elif isinstance(answer, Classified):
            values = [answer.label or None, answer.probability, *answer.chances.values()]
        row |= zip(columns, values, strict=True)
    return row


def _told(asked: Prediction, n_rows: int, out: Path | None) -> Iterator[str]:
    """What to say at the end."""
    if asked.bad:
        yield f"{counted(asked.bad, 'row')} without a prediction; {asked.first_bad}"
    for name, ties in asked.ties.items():
        of = f"{name}: " if len(asked.usages) > 1 else ""
        yield (
            f"{of}{counted(ties, 'row')} without a prediction, for no class is likelier there than "
            "every other; their probabilities are written"
        )
    for name, tally in asked.tallies.items():
        of = f"{name}: " if len(asked.usages) > 1 else ""
        if tally.known:
            share = tally.right / tally.known
            yield f"{of}accuracy {share:.3f} on {counted(tally.known, 'row')} with a label"
        if tally.unknown:
            yield (
                f"{of}not counted: {counted(tally.unknown, 'row')} with a label that the prompt "
                f"does not know; {tally.first}"
            )
    if out is not None:
        yield f"{counted(n_rows, 'row')} written to {out}"
