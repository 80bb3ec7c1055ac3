"""Tasks of experiment files: by a short name, or a class of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiment_files import GOOD, read, read_task, with_task

from rlprompt.config.tasks import ImportedTaskConfig, NamedTaskConfig, parse_task
from rlprompt.config.yaml_file import ConfigError
from rlprompt.types import DEFAULT_CALIBRATION


def test_a_bare_name_or_one_with_settings(folder: Path) -> None:
    settings = "{name: function, data: data.csv, reward: 'rewards:score'}"
    (folder / "rewards.py").touch()
    bare, full = (read(folder, with_task(t)).task for t in ("classification", settings))
    assert bare == NamedTaskConfig(name="classification")
    assert isinstance(full, NamedTaskConfig)
    assert full.settings == {
        "data": str(folder / "data.csv"),
        "reward": f"{folder}/rewards.py:score",
    }


def test_a_calibration_and_its_strength(folder: Path) -> None:
    task = read_task(folder)
    assert (task.calibration, task.calibration_strength) == (DEFAULT_CALIBRATION, 1.0)
    own = "  shots: 2\n  calibration: batch\n  calibration_strength: 0.5\n"
    task = read_task(folder, GOOD.replace("  shots: 2\n", own))
    assert (task.calibration, task.calibration_strength) == ("batch", 0.5)
    for wrong in ("calibration: batched", "calibration_strength: 2"):
        with pytest.raises(ConfigError, match="calibration"):
            read_task(folder, GOOD.replace("  shots: 2\n", f"  shots: 2\n  {wrong}\n"))


@pytest.mark.parametrize("written", ["my_tasks:Mine", "my_tasks.py:Mine"])
def test_a_class_in_a_file_beside_the_experiment(folder: Path, written: str) -> None:
    (folder / "my_tasks.py").touch()
    task = read(folder, with_task(f"{{class: '{written}', args: {{n: 3}}}}")).task
    assert isinstance(task, ImportedTaskConfig)
    assert (task.place, task.args) == (f"{folder}/my_tasks.py:Mine", {"n": 3})


def test_a_task_within_a_task_and_a_schema_are_found(folder: Path) -> None:
    (folder / "schema.json").touch()
    written = "reward: 'json:schema.json', data: data.csv, template: '{text} {prompt}'"
    inner = f"{{name: generation, {written}}}"
    outer = f"{{name: compression, task: {inner}, prompt: please, penalty: 1}}"
    task = read(folder, with_task(outer)).task
    assert isinstance(task, NamedTaskConfig)
    within = task.settings["task"]
    assert isinstance(within, NamedTaskConfig)
    assert within.settings["data"] == str(folder / "data.csv")
    assert within.settings["reward"] == f"json:{folder}/schema.json"


def test_options_make_a_task_of_multiple_choice(folder: Path) -> None:
    written = "{data: data.csv, choices: options, label: answer, template: '{text} {prompt}'}"
    task = read(folder, with_task(written)).task
    assert isinstance(task, NamedTaskConfig)
    assert task.name == "multiple-choice"
    assert task.settings["data"] == str(folder / "data.csv")
    assert parse_task(task.model_dump()) == task


def test_the_file_of_a_harness_is_found_beside_the_experiment(folder: Path) -> None:
    (folder / "films.yaml").touch()
    for source, found in (("films.yaml", f"{folder}/films.yaml"), ("arc_easy", "arc_easy")):
        task = read(folder, with_task(f"{{name: lm-eval, source: {source}}}")).task
        assert isinstance(task, NamedTaskConfig)
        assert task.settings["source"] == found


def test_label_words_of_every_kind(folder: Path) -> None:
    several = read_task(folder, GOOD.replace("great}", "[great, 1]}")).label_words
    assert several == {"negative": "terrible", "positive": ("great", "1")}
    auto = "auto\n  labels: [no, 1]"
    task = read_task(folder, GOOD.replace("{negative: terrible, positive: great}", auto))
    assert (task.label_words, task.labels) == ("auto", ("no", "1"))


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ("clasification", "small.yaml:3: task.name: no task is called 'clasification'; did"),
        ("{class: 'nothing'}", "small.yaml:3: task.class: must be MODULE:NAME or FILE.py:NAME"),
        ("{class: 'a:B', arg: {}}", "small.yaml:3: unknown key 'arg' in task; did you mean"),
        ("{class: 'a:B', args: 3}", "small.yaml:3: task.args: must be keys with values, got 3"),
        ("{}", "small.yaml:3: task.data is missing"),
        ("3", "small.yaml:3: task: must be keys with values, got 3"),
    ],
)
def test_a_mistake_is_named(folder: Path, task: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(folder, with_task(task))
    assert str(caught.value).replace(f"{folder}/", "").startswith(line)


def test_a_task_without_a_file_is_parsed_and_named() -> None:
    assert parse_task("sst2").name == "sst2"
    assert parse_task({"class": "mine.py:Task"}).name == "Task"
    section = {"data": "films.csv", "template": "{text} {prompt}", "label_words": {"a": 1, "b": 2}}
    assert parse_task(section).name == "films"
    with pytest.raises(ValueError, match="no task is called 'sst3'"):
        parse_task("sst3")
