"""The summary file of a study: what is written is read, and what cannot be read is a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from study_folder import Plan, make_study

from rlprompt.store.summary import (
    FILE,
    FORMAT,
    SHARES,
    Summary,
    SummaryError,
    range_of,
    read_summary,
)
from rlprompt.tasks.metrics import METRICS
from rlprompt.tasks.multiple_choice import ChoiceMetric
from rlprompt.tasks.style_transfer import StyleTransferTask
from rlprompt.types import ClassMetric

SMALL = Plan(methods=("random", "cma-es"), tasks=("movie-reviews",), seeds=2, points=6)


@pytest.fixture
def written(tmp_path: Path) -> Summary:
    return make_study(tmp_path, SMALL)


def change(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    state = json.loads((folder / FILE).read_text("utf-8"))
    edit(state)
    (folder / FILE).write_text(json.dumps(state), "utf-8")


def test_what_is_written_is_read(tmp_path: Path, written: Summary) -> None:
    assert read_summary(tmp_path) == written
    assert written.format == FORMAT
    assert len(written.runs) == 4


def test_the_names_of_our_metrics_say_what_they_lie_between() -> None:
    """Of summaries that do not say it; an older version did not."""
    names = {*METRICS, *get_args(ClassMetric), *get_args(ChoiceMetric), StyleTransferTask.metric}
    assert {*SHARES, "mcc"} == names
    assert range_of("mcc") == (-1, 1)
    assert range_of("reward", "json:schema.json") == range_of("json") == (0, 1)
    assert range_of("reward") is range_of("reward", "gap") is range_of("perplexity") is None


def test_what_a_newer_version_adds_is_left_out(tmp_path: Path, written: Summary) -> None:
    change(tmp_path, lambda state: state.update(added="x"))
    change(tmp_path, lambda state: state["runs"][0].update(added="x"))
    assert read_summary(tmp_path) == written


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (4, r"written by a newer rlprompt \(format 4, this one reads 3\); update rlprompt"),
        (2, r"written by an older rlprompt \(format 2, this one reads 3\); run the study"),
        (None, r"is damaged: format: Input should be a valid integer"),
    ],
)
@pytest.mark.usefixtures("written")
def test_another_format_is_refused(tmp_path: Path, found: int | None, problem: str) -> None:
    change(tmp_path, lambda state: state.update(format=found))
    with pytest.raises(SummaryError, match=problem):
        read_summary(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_what_is_no_object_is_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(SummaryError, match=r"is damaged: not JSON\. Run the study's command again"):
        read_summary(tmp_path)


@pytest.mark.usefixtures("written")
def test_a_damaged_field_is_named(tmp_path: Path) -> None:
    change(tmp_path, lambda state: state["runs"][1].update(rows="many"))
    with pytest.raises(SummaryError, match=r"is damaged: runs\.1\.rows: .*valid integer"):
        read_summary(tmp_path)


def test_a_folder_without_one_is_no_study_yet(tmp_path: Path) -> None:
    with pytest.raises(SummaryError, match=r"has no summary\.json: it holds no study"):
        read_summary(tmp_path)


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(SummaryError, match=r"summary\.json cannot be read: "):
        read_summary(tmp_path)
