"""The grid of an experiment: what it fills in, and what must fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from experiment_files import GOOD, read, with_task

from rlprompt.config.problems import config_from_json
from rlprompt.config.schema import Config

SMALL: dict[str, Any] = {
    "name": "small",
    "model": "m",
    "task": "sst2",
    "optimisers": ["random"],
    "budget": 8,
}


@pytest.mark.parametrize(
    "task",
    [
        "classification",
        "{name: function, data: data.csv}",
        "{class: 'a.b:C'}",
        "{name: compression, task: {name: sst2}}",
    ],
)
def test_what_a_store_keeps_is_read_back(folder: Path, task: str) -> None:
    config = read(folder, with_task(task))
    assert config_from_json(config.record).record == config.record


def test_one_or_several_of_each() -> None:
    config = Config.model_validate(SMALL)
    assert [title for title, _ in config.all_models] == ["m"]
    assert config.all_budgets == (8,)
    several = {"models": {"a": "m", "b": "n"}, "tasks": ["sst2", "mr"], "budgets": [8, 16]}
    rest = {key: value for key, value in SMALL.items() if f"{key}s" not in several}
    config = Config.model_validate(rest | several)
    assert [title for title, _ in config.all_models] == ["a", "b"]
    assert [task.name for _, task in config.all_tasks] == ["sst2", "mr"]
    assert config.all_budgets == (8, 16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": [8]}, "budget and budgets are both there; give one of them"),
        ({"budget": None}, "budget is missing"),
        ({"optimisers": ["greedy", "greedy"]}, "greedy is given twice"),
        ({"ray": {"address": "x"}}, "ray has settings, but executor is local"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config.model_validate(SMALL | changes)


def test_random_search_is_added_where_it_is_missing() -> None:
    with_greedy = Config.model_validate(SMALL | {"optimisers": ["greedy"]})
    assert sorted(one.name for one in with_greedy.with_random().optimisers) == ["greedy", "random"]
    as_it_is = Config.model_validate(SMALL)
    assert as_it_is.with_random() == as_it_is


def test_an_optimiser_may_be_a_class_in_a_file_beside_the_experiment(folder: Path) -> None:
    (folder / "mine.py").write_text("")
    section = (
        '  - {class: "mine:Mine", step: 2.0, length: 3}\n  - "mine.py:Other"\n  - pkg.mine:Mine\n'
    )
    config = read(folder, GOOD.replace("  - random\n", section))
    first, _, third, _ = config.optimisers
    assert first.name == f"{(folder / 'mine.py').resolve()}:Mine"
    assert first.settings == {"step": 2.0, "length": 3}
    assert list(config.titled())[:3] == ["Mine step=2.0 length=3", "Other", "Mine"]
    assert third.name == "pkg.mine:Mine"
    assert config_from_json(config.record).record == config.record


def test_an_algorithm_may_lie_in_a_file_beside_the_experiment(folder: Path) -> None:
    (folder / "mine.py").write_text("")
    section = '  - {name: rl, algorithm: "mine:Mine", settings: {learning_rate: 0.1}}\n'
    config = read(folder, GOOD.replace("  - random\n", section))
    title, one = next(iter(config.titled().items()))
    assert one.settings["algorithm"] == f"{(folder / 'mine.py').resolve()}:Mine"
    assert one.settings["settings"] == {"learning_rate": 0.1}
    assert title == "rl algorithm=mine.py:Mine settings=learning_rate:0.1"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{class: mine}", "must be MODULE:NAME or FILE.py:NAME, got 'mine'"),
        ("{class: 3}", "must be MODULE:NAME or FILE.py:NAME, got 3"),
        ("{class: 'a:B', name: random}", "name and class are both there; give one of them"),
        ("':B'", "must be MODULE:NAME or FILE.py:NAME, got ':B'"),
        ("rondom", "no optimiser is called 'rondom'; did you mean 'random'?"),
    ],
)
def test_an_optimiser_that_cannot_be_meant_is_named_by_its_line(
    folder: Path, section: str, message: str
) -> None:
    with pytest.raises(ValueError, match=r"small\.yaml:9: optimisers\.0") as caught:
        read(folder, GOOD.replace("  - random\n", f"  - {section}\n"))
    assert message in str(caught.value)
