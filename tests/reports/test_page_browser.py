"""The page in a browser: phone and desktop, light and dark, with a script for a prompt."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from study_folder import SCRIPT, Plan, make_study

from rlprompt.reports.html import write_page
from rlprompt.search.result import Result
from rlprompt.store.summary import RunEntry

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page on which every prompt is a script element, with best_prompts and two budgets."""

    def scripted(entry: RunEntry, result: Result) -> tuple[RunEntry, Result]:
        best = replace(result.best, text=SCRIPT)
        changed = replace(result, candidates=(best, *result.candidates[1:]))
        return entry.model_copy(update={"prompt": SCRIPT}), changed

    folder = tmp_path_factory.mktemp("study")
    plan = Plan(
        methods=("random", "greedy", "cma-es"),
        tasks=("movie-reviews", "capitals"),
        seeds=2,
        budgets=(3200, 9600),
        points=40,
    )
    summary = make_study(folder, plan, change_run=scripted)
    (folder / summary.runs[0].file).unlink()  # so that something is struck
    return write_page(folder)[1].as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tool:
        # No time limits here and below: a busy machine is no finding.
        launched = tool.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, timeout=0)
        yield launched
        launched.close()


class Visit:
    """A page that was opened, with what it said and asked for."""

    def __init__(
        self, browser: Any, address: str, width: int = 1280, scheme: str = "light"
    ) -> None:
        size = {"width": width, "height": 800}
        self.context = browser.new_context(viewport=size, color_scheme=scheme)
        self.context.set_default_timeout(0)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_quiet_fits_and_is_accessible(
    browser: Any, address: str, width: int, scheme: str
) -> None:
    with Visit(browser, address, width, scheme) as visit:
        page = visit.page
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        # Of the whole page, and of anything that is not in a region of its own that scrolls.
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = axe.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        grave = [one for one in found if one["impact"] in ("serious", "critical")]
        assert not grave, [(one["id"], one["nodes"][0]["html"]) for one in grave]
        assert visit.said == []
        assert [url for url in visit.asked if not url.startswith("data:")] == [address]


def test_a_prompt_that_is_a_script_is_text(browser: Any, address: str) -> None:
    with Visit(browser, address) as visit:
        shown = visit.page.locator("code.prompt").first.inner_text()
        assert shown == SCRIPT
        assert visit.page.title() == "three-tasks: a comparison of prompt searches"
        assert visit.page.locator("script, img").count() == 0


def test_the_switch_changes_what_curves_are_against_by_keyboard(browser: Any, address: str) -> None:
    with Visit(browser, address) as visit:
        page = visit.page
        rows, tokens = (page.locator(f".by-{unit}").first for unit in ("rows", "tokens"))
        assert (rows.is_visible(), tokens.is_visible()) == (True, False)
        page.locator("#cost-rows").focus()
        page.keyboard.press("ArrowRight")
        assert (rows.is_visible(), tokens.is_visible()) == (False, True)


def test_the_first_key_leads_past_the_contents(browser: Any, address: str) -> None:
    with Visit(browser, address) as visit:
        visit.page.keyboard.press("Tab")
        assert visit.page.evaluate("document.activeElement.textContent") == "Skip to the results"
        visit.page.keyboard.press("Enter")
        assert visit.page.evaluate("location.hash") == "#main"


def test_wide_tables_scroll_by_themselves_and_take_the_focus(browser: Any, address: str) -> None:
    with Visit(browser, address, width=360) as visit:
        wide = visit.page.evaluate(
            "[...document.querySelectorAll('.scroll')].filter(one => one.scrollWidth > "
            "one.clientWidth).map(one => [one.tabIndex, one.getAttribute('role')])"
        )
        assert wide
        assert all(pair == [0, "region"] for pair in wide)
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_it_prints_without_its_controls(browser: Any, address: str, tmp_path: Path) -> None:
    with Visit(browser, address) as visit:
        visit.page.emulate_media(media="print")
        assert not visit.page.locator("nav").is_visible()
        assert not visit.page.locator(".switch").first.is_visible()
        assert visit.page.locator("h1").is_visible()
