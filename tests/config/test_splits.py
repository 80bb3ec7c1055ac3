"""Split seeds in experiment files: where they go, and one plain line for each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from experiment_files import GOOD, read, with_task

from rlprompt.config.problems import config_from_json
from rlprompt.config.schema import Config
from rlprompt.config.tasks import ImportedTaskConfig, NamedTaskConfig, on_split, parse_task
from rlprompt.config.yaml_file import ConfigError

SPLITS = "split_seeds: [13, 21]\n"


def folders(folder: Path, *seeds: int) -> None:
    for seed in seeds:
        (folder / "films" / f"16-{seed}").mkdir(parents=True)


def tasks(config: Config) -> list[Any]:
    return [section for _, _, section in config.split_tasks]


def test_a_pattern_names_a_folder_for_each(folder: Path) -> None:
    folders(folder, 13, 21)
    config = read(folder, GOOD.replace("data.csv", "films/16-{seed}") + SPLITS)
    assert [seed for seed, _, _ in config.split_tasks] == [13, 21]
    assert [one.data for one in tasks(config)] == [
        str(folder / "films" / "16-13"),
        str(folder / "films" / "16-21"),
    ]
    assert config.task is not None
    assert config.task.name == "films/16-{seed}"
    # What the study keeps says it as the file does.
    assert config_from_json(config.record) == config


def test_other_data_are_drawn_with_each(folder: Path) -> None:
    config = read(folder, GOOD + SPLITS)
    assert [(one.seed, one.data) for one in tasks(config)] == [
        (13, str(folder / "data.csv")),
        (21, str(folder / "data.csv")),
    ]
    # What the study keeps has the default seed written out, and draws the same.
    assert tasks(config_from_json(config.record)) == tasks(config)
    assert tasks(read(folder, GOOD)) == [read(folder, GOOD).task]


def test_named_and_imported_tasks_take_them_too() -> None:
    named = on_split(parse_task({"name": "sst2", "shots": 8}), 13)
    assert isinstance(named, NamedTaskConfig)
    assert named.settings == {"shots": 8, "seed": 13}
    inner = on_split(parse_task({"name": "compression", "task": {"name": "sst2"}}), 13)
    assert isinstance(inner, NamedTaskConfig)
    assert inner.settings == {"task": {"name": "sst2", "seed": 13}}
    own = on_split(
        parse_task({"class": "a:B", "args": {"seed": "{seed}", "of": "x-{seed}", "n": 2}}), 13
    )
    assert isinstance(own, ImportedTaskConfig)
    assert own.args == {"seed": 13, "of": "x-13", "n": 2}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            GOOD.replace("data.csv", "films/16-{seed}"),
            "has {seed} and there are no split seeds to put there; add `split_seeds:",
        ),
        (
            GOOD.replace("data.csv", "films/16-{seed}") + "split_seeds: [13, 22]\n",
            "task.data 'films/16-{seed}' is not there for split seed 22; looked for ",
        ),
        (GOOD + "split_seeds: [13, 13]\n", "split_seeds: 13 is given twice"),
        (GOOD + "split_seeds: [-1]\n", "split_seeds"),
        (GOOD.replace("shots: 2", "seed: 3") + SPLITS, "has `seed: 3` of its own beside"),
        (
            with_task("{class: 'a.b:C'}") + SPLITS,
            "a.b:C is called without one: say in its args where it goes",
        ),
    ],
)
def test_what_cannot_be_is_one_line(folder: Path, text: str, said: str) -> None:
    folders(folder, 13)
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    (line,) = str(caught.value).splitlines()
    assert said in line
