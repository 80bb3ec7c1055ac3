"""A good experiment file, and how to read it with something changed."""

from __future__ import annotations

import re
from pathlib import Path

from rlprompt.config.schema import Config
from rlprompt.config.tasks import ClassificationConfig
from rlprompt.config.yaml_file import load_config

GOOD = """\
name: small
model: some-model
task:
  data: data.csv
  template: "{text} {prompt}"
  label_words: {negative: terrible, positive: great}
  shots: 2
optimisers:
  - random
  - {name: greedy, pool: 0.5}
budget: 96
"""


def read(folder: Path, text: str) -> Config:
    path = folder / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def read_task(folder: Path, text: str = GOOD) -> ClassificationConfig:
    task = read(folder, text).task
    assert isinstance(task, ClassificationConfig)
    return task


def with_task(task: str) -> str:
    """The good file with another task, given in a line."""
    return re.sub(r"task:\n(  .*\n)+", f"task: {task}\n", GOOD)
