"""Arguments and options that several commands take."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

# Endings of experiment files.
FILES = (".yaml", ".yml")

ConfigPath = Annotated[
    Path,
    typer.Argument(metavar="CONFIG", help="Experiment file; `rlprompt init DATA` writes one."),
]
StudyPath = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder of a study, such as runs/demo.")
]
Device = Annotated[
    str | None, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:1, ..., or auto.")
]
Dtype = Annotated[
    str | None, typer.Option(metavar="DTYPE", help="float32, bfloat16, float16, or auto.")
]

Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print only errors; files are still written.")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object at the end, and nothing else.")
]


class Tracker(StrEnum):
    """Something of another maker that shows how searches go."""

    tensorboard = "tensorboard"
    wandb = "wandb"


Track = Annotated[
    list[Tracker] | None,
    typer.Option(metavar="TRACKER", help="Log to tensorboard or wandb; repeat it for both."),
]


class OnBadRows(StrEnum):
    """What to do with rows that cannot be answered."""

    error = "error"
    skip = "skip"


class Split(StrEnum):
    """A part of the examples."""

    train = "train"
    dev = "dev"
    test = "test"
