"""The page and its files: text stays text, and every form has the same figures."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from study_folder import SCRIPT, make_study
from study_pages import SMALL, Changed

from rlprompt.reports.html import html, tables_text, write_page
from rlprompt.reports.page import Page, page_of
from rlprompt.reports.study_data import read_study
from rlprompt.search.result import Result
from rlprompt.store.summary import RunEntry


class TestText:
    def test_no_text_becomes_markup(self, tmp_path: Path) -> None:
        def plant(entry: RunEntry, result: Result) -> Changed:
            best = replace(result.best, text=SCRIPT)
            changed = replace(result, candidates=(best, *result.candidates[1:]))
            return entry.model_copy(update={"prompt": SCRIPT}), changed

        make_study(
            tmp_path,
            SMALL,
            change_run=plant,
            name=SCRIPT,
            platform=SCRIPT,
            config={"name": SCRIPT},
        )
        one = page_of(read_study(tmp_path))
        text = html(one)
        assert one.caveats == ()
        assert not re.search(r"<script|<img", text, re.IGNORECASE)
        assert "&lt;script&gt;" in text
        assert "<script" not in re.sub("`[^`]*`", "", tables_text(one)), "outside code"

    def test_what_cannot_be_seen_is_written_as_an_escape(self, tmp_path: Path) -> None:
        hidden = "a\u202eb\u200bc\x00d\u2028e"

        def plant(entry: RunEntry, result: Result) -> Changed:
            best = replace(result.best, text=hidden)
            changed = replace(result, candidates=(best, *result.candidates[1:]))
            return entry.model_copy(update={"prompt": hidden}), changed

        make_study(tmp_path, SMALL, change_run=plant)
        text = write_page(tmp_path)[1].read_text(encoding="utf-8")
        assert not re.search("[\u202e\u200b\x00\u2028]", text)
        for escape in (r"\u202e", r"\u200b", r"\x00", r"\u2028"):
            assert f'<span class="escape">{escape}</span>' in text

    def test_the_page_asks_for_nothing_and_runs_nothing(self, page: Page) -> None:
        text = html(page)
        policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
        assert policy
        assert policy[1].startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy[1]
        assert not re.search(r"@import|url\((?!#)", text)
        tags = Tags()
        tags.feed(text)
        assert not {"script", "object", "embed", "iframe", "img", "form"} & tags.names
        assert not [name for name, _ in tags.attributes if name.startswith("on")]
        links = {value for name, value in tags.attributes if name in ("href", "src")}
        assert {link for link in links if not link.startswith("#")} == {"data:,"}

    def test_ids_are_unique_and_references_lead_somewhere(self, page: Page) -> None:
        text = html(page)
        ids = re.findall(r'\bid="([^"]+)"', text)
        assert len(ids) == len(set(ids))
        for names in re.findall(r'aria-labelledby="([^"]+)"', text):
            assert set(names.split()) <= set(ids)
        assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)


class Tags(HTMLParser):
    """Collects the names and attributes of tags."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


class TestFiles:
    def test_all_forms_have_the_same_figures(self, study: Path, tmp_path: Path) -> None:
        one, path = write_page(study, tmp_path / "new" / "place")
        folder = path.parent
        shown = path.read_text(encoding="utf-8")
        lines = (folder / "tables.md").read_text(encoding="utf-8")
        for each in one.tables():
            text = (folder / "tables" / f"{each.name}.csv").read_text(encoding="utf-8")
            rows = list(csv.reader(io.StringIO(text)))
            latex = (folder / "tables" / f"{each.name}.tex").read_text(encoding="utf-8")
            assert len(rows) == 1 + len(each.rows)
            assert r"\toprule" in latex
            for row, given in zip(each.rows, rows[1:], strict=True):
                for column, cell in enumerate(row):
                    if each.is_figure(column) and re.fullmatch(r"-?[\d,.]+", cell):
                        assert given[column] == cell.replace(",", "")
                        assert cell in lines
                        assert cell.replace("-", "$-$") in latex
                        assert cell.replace("-", "\N{MINUS SIGN}") in shown

    def test_nothing_heavy_is_imported(self, study: Path, tmp_path: Path) -> None:
        code = (
            "import sys\n"
            "from rlprompt.cli.app import main\n"
            f"sys.argv = ['rlprompt', 'report', {str(study)!r}, '--out', {str(tmp_path)!r}]\n"
            "try:\n    main()\nexcept SystemExit as error:\n    assert not error.code\n"
            "heavy = ('torch', 'transformers', 'matplotlib.pyplot', 'rlprompt.store.store')\n"
            "print('HEAVY', [name for name in heavy if name in sys.modules])\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "HEAVY []" in done.stdout, done.stdout + done.stderr
