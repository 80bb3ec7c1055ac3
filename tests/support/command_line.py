"""The command line as a person uses it, on a tiny model that lies in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TinyKind, tiny_model, tiny_tokenizer
from typer.testing import CliRunner, Result

from rlprompt.cli.app import app

LABELS = ("negative", "positive")


ROWS = [f"film number {i},{LABELS[i % 2]}" for i in range(20)]


def save(folder: Path, *, kind: TinyKind = "llama", broken: bool = False, layers: int = 1) -> Path:
    """A tiny model in a folder; a broken one computes NaN."""
    size = {"gpt2": "n_layer", "bloom": "n_layer", "t5": "num_layers"}.get(kind)
    model = tiny_model(kind, **{size or "num_hidden_layers": layers})
    if broken:
        for parameter in model.parameters():
            parameter.data.fill_(torch.nan)
    model.save_pretrained(folder)
    tiny_tokenizer(kind).save_pretrained(folder)
    return folder


def write_data(folder: Path, rows: list[str]) -> None:
    (folder / "films.csv").write_text("\n".join(["text,label", *rows, ""]))


def write_config(folder: Path, **changes: Any) -> None:
    """`small.yaml`; a change goes to the task if that has such a key. JSON is YAML."""
    config: dict[str, Any] = {
        "name": "small",
        "model": "given",
        "task": {
            "data": "films.csv",
            "template": "{text} {prompt}",
            "label_words": {"negative": "terrible", "positive": "great"},
            "shots": 2,
            "test": 6,
            "hand_prompt": "it was",
            "reward": "gap",
            "on_bad_rows": "error",
        },
        "prompt": {"length": 3},
        "optimisers": ["random", "soft-prompt"],
        "budget": 48,
        "dtype": "float32",
    }
    for key, value in changes.items():
        (config["task"] if key in config["task"] else config)[key] = value
    (folder / "small.yaml").write_text(json.dumps(config))


def rlprompt(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def finished(folder: Path, exports: Mapping[str, str] | None = None, **changes: Any) -> Path:
    """A study of a file with these changes, run in a folder; and prompts of runs exported there.

    Args:
        folder: Where it lies, in `runs/small`.
        exports: Name of a folder to export to, and of the run.
        changes: As for `write_config`.
    """
    write_data(folder, ROWS)
    write_config(folder, **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = rlprompt("compare", "small.yaml")
        assert done.exit_code == 0, done.stdout + done.stderr
        for to, run in (exports or {}).items():
            assert rlprompt("export", "runs/small", "--best", to, "--run", run).exit_code == 0
    return folder / "runs" / "small"


def summary(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "summary.json").read_text()))
