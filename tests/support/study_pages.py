"""Pages of small studies with something changed, and what to look for in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from study_folder import MODEL, Plan, make_study

from rlprompt.reports.html import html
from rlprompt.reports.page import Page, page_of
from rlprompt.reports.study_data import read_study
from rlprompt.search.result import Result
from rlprompt.store.summary import RunEntry

SMALL = Plan(methods=("random", "greedy"), tasks=("movie-reviews",), seeds=3, points=20)
Changed = tuple[RunEntry, Result]


def small(folder: Path, plan: Plan = SMALL, **changes: Any) -> Page:
    """The page of a small study with something changed."""
    make_study(folder, plan, **changes)
    return page_of(read_study(folder))


def first_of(method: str, change: Callable[[RunEntry, Result], Changed]) -> Any:
    """Changes one run, the first seed of a method."""

    def changed(entry: RunEntry, result: Result) -> Changed:
        if (entry.optimiser, entry.seed) == (method, 0):
            return change(entry, result)
        return entry, result

    return {"change_run": changed}


def found(page: Page) -> dict[str, str]:
    """The text of each check that found something; of several the last."""
    return {caveat.check: caveat.text for caveat in page.caveats}


def table(page: Page, name: str) -> dict[str, dict[str, str]]:
    """Rows of a table by the first column."""
    (one,) = (one for one in page.tables() if one.name == name)
    return {row[0]: dict(zip(one.header, row, strict=True)) for row in one.rows}


def sentences(page: Page) -> str:
    return " ".join(text for section in page.sections for text in section.results.sentences)


def struck(page: Page, said: str) -> None:
    """The first greedy run counts nowhere, and the page says why."""
    assert page.caveats[0].level == "struck"
    text = found(page)["struck runs"]
    assert text.startswith(f"greedy on movie-reviews, {MODEL}, seed 0: ")
    assert said in text
    assert table(page, "movie-reviews.scores")["greedy"]["runs"] == "2"
    assert text.split(":")[0] in html(page)
