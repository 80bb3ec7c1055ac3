"""`rlprompt report`: what it says, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from study_folder import Plan, make_study
from study_pages import SMALL
from typer.testing import CliRunner

from rlprompt.cli.app import app


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks, six methods, five seeds."""
    folder = tmp_path_factory.mktemp("study")
    make_study(folder, Plan(points=60))
    return folder


class TestCommand:
    def run(self, *arguments: str) -> Any:
        return CliRunner().invoke(app, ["report", *arguments])

    def test_it_says_what_may_be_concluded_and_where_the_page_is(self, study: Path) -> None:
        done = self.run(str(study))
        assert done.exit_code == 0, done.output
        assert "9,600 rows" in done.stdout
        assert f"written to {study}: report.html, tables.md, tables/" in done.stdout
        assert (study / "report.html").stat().st_size < 1_500_000

    def test_it_says_what_cannot_be_relied_on(self, tmp_path: Path) -> None:
        make_study(tmp_path, replace(SMALL, seeds=1))
        # Said once, and what to do about it with the caveats.
        assert self.run(str(tmp_path)).stdout.count("With one seed nothing can be ranked") == 1

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (None, "has no summary.json: it holds no study"),
            ("{", "is damaged: not JSON"),
            ('{"format": 99}', "newer rlprompt (format 99, this one reads 3); update"),
            ('{"format": 2}', "was written by an older rlprompt (format 2"),
            ('{"format": 3}', "is damaged: name"),
        ],
    )
    def test_what_is_no_study_is_a_line_and_exit_code_2(
        self, tmp_path: Path, content: str | None, said: str
    ) -> None:
        if content is not None:
            (tmp_path / "summary.json").write_text(content)
        done = self.run(str(tmp_path))
        assert done.exit_code == 2
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1

    def test_a_place_that_is_a_file_is_refused(self, study: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        done = self.run(str(study), "--out", str(tmp_path / "file"))
        assert done.exit_code == 2
