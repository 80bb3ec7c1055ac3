"""The command that writes a first experiment file: what it found, guessed and measured is said."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from rlprompt._utils.assets import DEFAULT_MODEL
from rlprompt.cli.options import FILES

HEADING = """\
Written by `rlprompt init {data}`. Comments say what was found or guessed; change what is wrong.
  rlprompt check {out}      is it sound, worth it, and what will it cost?
  rlprompt compare {out}    about {minutes} minutes on the machine that this was written on
The page "{page}" of the documentation has the other settings."""
PAGE, PAGE_ANSWERS = "A task from a file", "A task from a function"


def init(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="Table of texts and labels, or folder with train, dev and test."
        ),
    ],
    model: Annotated[
        str, typer.Option(metavar="NAME", help="As in `model:` of an experiment file.")
    ] = DEFAULT_MODEL,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write, instead of NAME.yaml.")
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Column with the text; repeat it for more."),
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column with the class or the answer.")
    ] = None,
    answers: Annotated[
        bool,
        typer.Option("--answers", help="The model is to write the label, not choose it."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
) -> None:
    """Write an experiment file for your data.

    Looks at the columns, loads the model, finds a word for each class, tries templates on the train
    examples, measures how many rows fit into ten minutes, and says what it guessed.
    """
    from rlprompt._utils.files import write_atomically
    from rlprompt._utils.text import visible
    from rlprompt.data.opening import file_title
    from rlprompt.data.roles import guess_roles
    from rlprompt.data.survey import survey

    name = _study_name(file_title(Path(data.rstrip("/"))))
    target = out or Path(f"{name}.yaml")
    if target.suffix not in FILES:
        raise ValueError(f"{target} does not end in .yaml; give a name that does")
    if target.exists() and not force:
        raise ValueError(f"{target} exists; give another name, or --force to replace it")
    if not target.parent.is_dir():
        raise ValueError(f"folder {target.parent} does not exist; make it, or give another --out")
    if "://" in model:
        raise ValueError(
            f"{model} is the address of a server, which may charge for what is tried here; write "
            "the file for a model on this machine, and put "
            f"`model: {{url: {model!r}}}` into it"
        )
    found = survey(data)
    roles = guess_roles(found, text=text or (), label=label, answers=answers)
    read = f"{found.name}: {found.n_rows:,} rows of {len(found.columns)} columns"
    typer.echo("; ".join([read, *found.remarks]))
    typer.echo(f"loading {model}")
    from rlprompt.check.machine import busy
    from rlprompt.models.lm import FrozenLM
    from rlprompt.studies.draft import make_draft
    from rlprompt.studies.draft_file import draft_text

    lm = FrozenLM.load(model)
    typer.echo("trying templates, and measuring how many rows fit into ten minutes")
    draft = make_draft(found, roles, lm, name=name, model=model, data=data)
    width = max(len(topic) for topic, _ in draft.said)
    said = [*draft.said, *([("busy", told)] if (told := busy()) else [])]
    for topic, sentence in said:
        typer.echo(f"  {topic:{width}}  {visible(sentence)}")
    content = {**draft.content, "task": {**draft.content["task"], "data": _seen_from(data, target)}}
    minutes, page = max(1, round(draft.seconds / 60)), PAGE if roles.classes else PAGE_ANSWERS
    heading = HEADING.format(data=data, out=target, minutes=minutes, page=page)
    write_atomically(target, draft_text(content, draft.why, heading).encode())
    typer.echo(f"\nwritten to {target}; read it, then: rlprompt check {target}")


def _study_name(title: str) -> str:
    """A name that an experiment file may have (`Config.name`), like that of its data."""
    allowed = (c if c.isalpha() or c.isdecimal() or c in ".-_" else "-" for c in title)
    return "".join(allowed).strip("-.") or "mine"


def _seen_from(data: str, target: Path) -> str:
    """The data as a file finds them: relative to where it stands."""
    path = Path(data)
    if not path.exists() or path.is_absolute():
        return data
    return Path(os.path.relpath(path, target.parent)).as_posix()
