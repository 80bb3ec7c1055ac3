"""What is read of a study's folder, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_folder import make_study
from study_pages import SMALL, Changed, first_of, small, struck

from rlprompt.reports.page import page_of
from rlprompt.reports.study_data import read_study
from rlprompt.search.result import Result
from rlprompt.store.summary import RunEntry


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is missing"),
        ("{}", "cannot be read"),
        ('{"format": 99}', "newer rlprompt"),
        ("\xff", "cannot be read"),
    ],
)
def test_a_result_that_cannot_be_read_strikes_the_run(
    tmp_path: Path, content: str | None, said: str
) -> None:
    summary = make_study(tmp_path, SMALL)
    path = tmp_path / next(run.file for run in summary.runs if run.optimiser == "greedy")
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content.encode("latin-1"))
    struck(page_of(read_study(tmp_path)), said)


def test_a_file_outside_the_folder_is_not_read(tmp_path: Path) -> None:
    def plant(entry: RunEntry, result: Result) -> Changed:
        return entry.model_copy(update={"file": "../elsewhere.json"}), result

    folder = tmp_path / "study"
    struck(small(folder, **first_of("greedy", plant)), "outside the study's folder")
