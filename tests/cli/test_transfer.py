"""`rlprompt transfer`: prompts of a finished study on another task, from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import rlprompt

STUDY = Path(__file__).parents[1] / "old_files"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study, its model and another task, in the working folder."""
    place = Path(shutil.copytree(STUDY, tmp_path / "here"))
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "300")
    return place


def test_it_prints_the_tables_of_the_page_and_counts_no_look_at_test(folder: Path) -> None:
    done = rlprompt(
        "transfer", "classes", "--tasks", "other.yaml", "--split", "dev", "--out", "moved.json"
    )
    assert done.exit_code == 0, done.stderr
    assert "Found prompts on other models and tasks: mean dev score" in done.stdout
    assert "\n| hand-written prompt " in done.stdout
    assert "found with other label words" in done.stdout
    assert "written to moved.json" in done.stdout
    assert json.loads((folder / "moved.json").read_text())["openings"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere holds no study"),
        (["classes", "--tasks", "nowhere.yaml"], "nowhere.yaml"),
        (["classes", "--models", "nowhere"], "nowhere"),
        (["classes", "--split", "none"], "none"),
    ],
)
def test_a_mistake_is_a_line_and_exit_code_2(
    folder: Path, arguments: list[str], message: str
) -> None:
    done = rlprompt("transfer", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr + done.stdout
