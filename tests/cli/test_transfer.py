"""`rlprompt transfer`: prompts of a finished study on another task, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import finished, rlprompt


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A folder with a finished study, and the same task with other label words."""
    folder = tmp_path_factory.mktemp("ended")
    finished(folder, model=str(model), optimisers=["random"])
    task = json.loads((folder / "small.yaml").read_text())["task"]
    other = task | {"label_words": {"negative": "bad", "positive": "good"}}
    (folder / "other.yaml").write_text(json.dumps({"task": other}))
    return folder


@pytest.fixture
def folder(ended: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder."""
    monkeypatch.chdir(ended)
    monkeypatch.setenv("COLUMNS", "300")
    return ended


def test_it_prints_the_tables_of_the_page_and_counts_no_look_at_test(folder: Path) -> None:
    done = rlprompt(
        "transfer", "runs/small", "--tasks", "other.yaml", "--split", "dev", "--out", "moved.json"
    )
    assert done.exit_code == 0, done.stderr
    assert "Found prompts on other models and tasks: mean dev score" in done.stdout
    assert "\n| hand-written prompt, calibrated " in done.stdout
    assert "found with other label words" in done.stdout
    assert "written to moved.json" in done.stdout
    assert json.loads((folder / "moved.json").read_text())["openings"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere holds no study"),
        (["runs/small", "--tasks", "nowhere.yaml"], "nowhere.yaml"),
        (["runs/small", "--models", "nowhere"], "nowhere"),
        (["runs/small", "--split", "none"], "none"),
    ],
)
def test_a_mistake_is_a_line_and_exit_code_2(
    folder: Path, arguments: list[str], message: str
) -> None:
    done = rlprompt("transfer", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr + done.stdout
