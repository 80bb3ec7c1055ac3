"""Writes a study's page and tables into files; the page needs no other file and no network."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup, escape

from rlprompt._utils.files import write_atomically
from rlprompt._utils.text import spans, visible
from rlprompt.reports.page import Page, page_of
from rlprompt.reports.study_data import read_study
from rlprompt.reports.tables import NONE, as_csv, latex, markdown, markdown_text

PAGE, TABLES, FOLDER = "report.html", "tables.md", "tables"


def write_page(study: Path, out: Path | None = None) -> tuple[Page, Path]:
    """Write `report.html`, `tables.md`, and `tables/` with CSV and LaTeX.

    >>> write_page(Path("runs/nothing"))
    Traceback (most recent call last):
    rlprompt.store.summary.SummaryError: runs/nothing has no summary.json: it holds no study, ...

    Args:
        study: Folder of a study: its `summary.json` and `runs/` are read.
        out: Where to write; the study's folder by default, made if it is not there.

    Returns:
        What the page says, and its path.

    Raises:
        SummaryError: There is no study, or its summary cannot be read.
        OSError: The files cannot be written.
    """
    page = page_of(read_study(study))
    out = out or study
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    for table in page.tables():
        write_atomically(out / FOLDER / f"{table.name}.csv", as_csv(table).encode())
        write_atomically(out / FOLDER / f"{table.name}.tex", latex(table).encode())
    write_atomically(out / TABLES, tables_text(page).encode())
    write_atomically(out / PAGE, html(page).encode())
    return page, out / PAGE


def html(page: Page) -> str:
    """The page."""
    style = _file("page.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # A style that came in with a text does nothing: the policy allows the one with this hash.
    return _template().render(page=page, style=Markup(style), style_hash=f"sha256-{digest}")


@cache
def _template() -> Template:
    """Compiled once: that takes longer than to write a page."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalised,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(spans=spans, minus=_minus, NONE=NONE)
    environment.filters["sentence"] = _sentence
    return environment.from_string(_file("page.html.j2"))


def _file(name: str) -> str:
    return resources.files("rlprompt.reports").joinpath(name).read_text(encoding="utf-8")


def tables_text(page: Page) -> str:
    """All tables as Markdown, with what may be concluded."""
    parts = [f"# {markdown_text(page.name)}", markdown_text(page.headline)]
    for section in page.sections:
        parts.append(f"## {markdown_text(section.heading)}")
        parts += map(markdown_text, (*section.results.sentences, *section.results.notes))
    if page.caveats:
        parts.append("## Can it be relied on?")
        parts.append(
            "\n".join(f"- **{one.check}**: {markdown_text(one.text)}" for one in page.caveats)
        )
    parts.append("## Tables")
    for table in page.tables():
        parts += [f"### {markdown_text(table.caption)}", markdown(table), " ".join(table.notes)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _finalised(value: Any) -> Any:
    """What a template prints: text with escapes for what cannot be seen; markup as it is."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _sentence(text: str) -> Markup:
    """A sentence of ours, in which backticks mark what is typed."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(visible(text)))))


def _minus(figure: str) -> str:
    """A figure with a minus sign in the place of a hyphen."""
    return f"\N{MINUS SIGN}{figure[1:]}" if figure.startswith("-") else figure
