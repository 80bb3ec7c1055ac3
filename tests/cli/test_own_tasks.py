"""What goes wrong in a task of one's own is a line in every command; and so is a row too large."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import ROWS, rlprompt, write_config, write_data

from rlprompt.check.toy import ToyTask
from rlprompt.models.packed.model import PackedModel
from rlprompt.search.evaluation import naming

OWN = """
from pathlib import Path

from rlprompt import Example, Splits

class Endings:
    name = fingerprint = "endings"
    splits = Splits(*[
        tuple(Example({"text": f"{part} {i}"}, "") for i in range(2))
        for part in ("train", "dev", "test")
    ])

    def rewards(self, lm, prompts, examples):
        if Path("broken").exists():
            raise KeyError("city")
        return [[float(len(prompt))] * len(examples) for prompt in prompts]
"""


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A folder with a finished study of a task that raises an error since then."""
    place = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        Path("endings.py").write_text(OWN)
        write_config(place, model=str(model), optimisers=["random"], budget=8)
        config = json.loads(Path("small.yaml").read_text())
        Path("small.yaml").write_text(json.dumps({**config, "task": {"class": "endings:Endings"}}))
        done = rlprompt("compare", "small.yaml")
        assert done.exit_code == 0, done.stderr
        Path("broken").touch()
    return place


@pytest.mark.parametrize(
    "command",
    [
        ("score", "it was", "small.yaml"),
        ("verify", "runs/small"),
        ("transfer", "runs/small"),
        ("compare", "small.yaml", "--dry-run"),
    ],
)
def test_an_error_of_a_task_is_told_in_a_line(
    broken: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(broken)
    done = rlprompt(*command)
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
    said = done.stdout if command[0] == "transfer" else done.stderr  # whose other targets go on
    assert "task 'endings' raised KeyError: 'city' at endings.py:15" in said


def test_an_error_of_a_task_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(KeyError), naming(ToyTask()):
        raise KeyError("x")


@pytest.mark.parametrize(
    "command", [("score", "it was", "long.yaml"), ("predict", "out", "long.csv")]
)
def test_a_row_that_is_too_large_is_told_in_a_line(
    desk: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    config = json.loads(Path("small.yaml").read_text())
    config |= {"optimisers": ["random"], "budget": 8}
    Path("small.yaml").write_text(json.dumps(config))
    assert rlprompt("compare", "small.yaml").exit_code == 0
    assert rlprompt("export", "runs/small", "--best", "out").exit_code == 0
    write_data(desk, [row.replace("film", "film " * 40) for row in ROWS])
    Path("films.csv").rename("long.csv")
    config["task"]["data"] = "long.csv"
    Path("long.yaml").write_text(json.dumps(config))
    forward = PackedModel.forward

    def small(self: PackedModel, layout: Any, *args: Any) -> Any:
        if layout.ids.size > 20:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
        return forward(self, layout, *args)

    monkeypatch.setattr(PackedModel, "forward", small)
    done = rlprompt(*command)
    assert done.exit_code == 2, done.stdout
    line = done.stderr.splitlines()[-1]
    assert "not enough memory for one prompt with one text (CUDA out of memory.); shorten" in line
