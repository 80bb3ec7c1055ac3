"""Controls and references as a study has them, from the command line."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from command_line import rlprompt, summary, write_config

from rlprompt.studies.references import LoRA

QUICK = [{"name": "lora", "learning_rates": [0.001], "epochs": 1, "rank": 2}, "logistic-head"]


def references(folder: Path) -> list[dict[str, Any]]:
    return list(summary(folder)["references"])


def test_random_search_is_added_and_said_so(desk: Path, model: Path) -> None:
    write_config(desk, model=str(model), optimisers=["greedy"])
    result = rlprompt("compare", "small.yaml")
    assert result.exit_code == 0, result.stderr
    assert "random search is added" in result.stdout
    runs = summary(desk / "runs" / "small")["runs"]
    assert [(run["optimiser"], run["rows"]) for run in runs] == [("greedy", 48), ("random", 48)]
    # `run` does what it is told.
    assert rlprompt("run", "small.yaml", "--optimiser", "greedy").exit_code == 0
    (alone,) = summary(desk / "runs" / "small-greedy-seed0")["runs"]
    assert alone["optimiser"] == "greedy"


def test_a_study_that_was_begun_without_random_search_goes_on_without(desk: Path) -> None:
    out = ["--out", "runs/alone"]
    assert rlprompt("run", "small.yaml", "--optimiser", "greedy", *out).exit_code == 0
    write_config(desk, model=str(desk / "gone"), optimisers=["greedy"])
    text = (desk / "small.yaml").read_text()
    config = summary(desk / "runs" / "alone")["config"]
    (desk / "small.yaml").write_text(text.replace(str(desk / "gone"), config["model"]["name"]))
    result = rlprompt("compare", "small.yaml", *out)
    assert result.exit_code == 0, result.stderr
    assert "random search is added" not in result.stdout
    assert [run["optimiser"] for run in summary(desk / "runs" / "alone")["runs"]] == ["greedy"]


def test_references_are_trained_once_and_may_be_asked_for_later(
    desk: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(desk, model=str(model), optimisers=["random"])
    assert rlprompt("compare", "small.yaml").exit_code == 0
    assert references(desk / "runs" / "small") == []
    write_config(desk, model=str(model), optimisers=["random"], references=QUICK)
    result = rlprompt("compare", "small.yaml")
    assert result.exit_code == 0, result.stderr
    found = references(desk / "runs" / "small")
    assert [one["kind"] for one in found] == ["lora", "logistic-head"]
    for one in found:
        assert len(one["test_metrics"]) == 6
        assert one["test"] == pytest.approx(sum(one["test_metrics"]) / 6)
        assert one["trainable"] > 0
        assert one["rows"] > 0
    monkeypatch.setattr(LoRA, "train", lambda *_: pytest.fail("trained again"))
    assert rlprompt("compare", "small.yaml").exit_code == 0
    assert references(desk / "runs" / "small") == found
    page = (desk / "runs" / "small" / "report.html").read_text()
    assert "logistic-head" in page


def test_ctrl_c_in_training_leaves_the_searches_and_goes_on(
    desk: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(desk, model=str(model), optimisers=["random"], references=QUICK)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LoRA, "train", interrupted)
        assert rlprompt("compare", "small.yaml").exit_code == 130
    runs = summary(desk / "runs" / "small")["runs"]
    assert [run["status"] for run in runs] == ["finished"]
    assert rlprompt("compare", "small.yaml").exit_code == 0
    assert summary(desk / "runs" / "small")["runs"] == runs
    assert len(references(desk / "runs" / "small")) == 2


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["lora", "lora"], "twice"),
        (["boosting"], "logistic-head"),
        ([{"name": "lora", "rang": 4}], "rang"),
        ([{"name": "lora", "rank": 0}], "rank is 1 or more, got 0"),
        ([{"name": "lora+soft", "length": 0}], "length is 1 or more, got 0"),
    ],
)
def test_a_mistake_in_references_is_a_line(
    desk: Path, model: Path, wanted: list[Any], message: str
) -> None:
    write_config(desk, model=str(model), references=wanted)
    result = rlprompt("compare", "small.yaml")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (desk / "runs" / "small").exists()


def test_a_missing_package_is_named_before_anything_is_paid_for(
    desk: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    write_config(desk, model=str(model), references=["lora"])
    result = rlprompt("compare", "small.yaml")
    assert result.exit_code == 2
    assert "pip install 'rlprompt[references]'" in result.stderr
    assert not (desk / "runs" / "small").exists()
