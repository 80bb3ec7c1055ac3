"""The study that prompts are taken from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import ROWS, save, write_config, write_data
from transferred_study import save_bytes

from rlprompt.config.yaml_file import load_config
from rlprompt.studies.loading import load_experiments
from rlprompt.studies.run import compare


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study, its model, and models and tasks to go to."""
    folder = tmp_path_factory.mktemp("desk")
    save(folder / "own")
    save_bytes(folder / "bytes")
    save(folder / "masked", kind="bert")
    write_data(folder, ROWS)
    write_config(folder, model=str(folder / "own"), data=str(folder / "films.csv"), seeds=[0, 1])
    compare(load_experiments(load_config(folder / "small.yaml")), folder / "study")
    section = json.loads((folder / "small.yaml").read_text())["task"]
    other = section | {"label_words": {"negative": "bad", "positive": "good"}, "seed": 7}
    (folder / "books.yaml").write_text(json.dumps({"tasks": {"books": other}}))
    (folder / "same.yaml").write_text(json.dumps({"task": section}))
    return folder


@pytest.fixture
def study(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the study; the working folder is where models and tasks are."""
    monkeypatch.chdir(desk)
    return Path(shutil.copytree(desk / "study", tmp_path / "study"))
