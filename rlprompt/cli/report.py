"""The command that writes a study's page, with nothing of the study but its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rlprompt.reports.page import Page


def report(
    study: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a study, such as runs/demo.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder to write to, instead of RUN.")
    ] = None,
) -> None:
    """Write a study's page: report.html, and its tables as Markdown, CSV and LaTeX.

    The page says what may be concluded, shows the curves, results and best prompts, and what cannot
    be relied on. It is one file that needs no network.
    """
    from rlprompt.reports.html import write_page

    page, path = write_page(study, out)
    for line in conclusions(page):
        typer.echo(line)
    typer.echo(f"written to {path.parent}: {path.name}, tables.md, tables/")


def conclusions(page: Page) -> Iterator[str]:
    """What a page concludes, and what cannot be relied on, a line each."""
    from rlprompt._utils.text import visible

    for section in page.sections:
        heading = f"{section.heading}: " if len(page.sections) > 1 else ""
        for sentence in section.results.sentences:
            yield visible(f"{heading}{sentence}")
    for flag in page.caveats:
        yield visible(f"{flag.check}: {flag.text}")
