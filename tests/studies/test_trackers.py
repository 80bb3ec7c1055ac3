"""What trackers of other makers are told of a comparison, by a stand-in for Weights & Biases."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from small_experiments import experiment

from rlprompt.agents.random_search import RandomSearch
from rlprompt.studies.comparison import Comparison
from rlprompt.studies.run import compare
from rlprompt.studies.trackers import Several, TensorBoard, WeightsAndBiases


@dataclass
class Told:
    """A run there, and all that it was told."""

    begun: dict[str, Any]
    logged: list[tuple[dict[str, float], int]] = field(default_factory=list)
    exit_code: int | None = None

    def log(self, values: dict[str, float], step: int) -> None:
        assert self.exit_code is None
        self.logged.append((values, step))

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Told]:
    """The runs that a stand-in for wandb was asked to begin."""
    runs: list[Told] = []

    def init(**settings: Any) -> Told:
        runs.append(Told(settings))
        return runs[-1]

    module = ModuleType("wandb")
    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return runs


class Fails(RandomSearch):
    """Breaks at once."""

    def run(self, *arguments: Any) -> Any:
        raise RuntimeError("broken")


def compared(folder: Path, watcher: Any, **fields: Any) -> Comparison:
    return compare(experiment(**fields), folder, watcher)


def test_each_search_is_a_run_with_its_settings(tmp_path: Path, told: list[Told]) -> None:
    done = compared(tmp_path, WeightsAndBiases("prompts"), seeds=(0, 1))
    assert [one.begun["name"] for one in told] == [run.search.name for run in done.runs]
    assert {one.begun["project"] for one in told} == {"prompts"}
    for one, run in zip(told, done.runs, strict=True):
        config = one.begun["config"]
        assert (config["task"], config["model"], config["budget"]) == ("films", "tiny-llama", 48)
        assert (config["optimiser"], config["seed"]) == (run.search.method, run.search.seed)


def test_the_last_that_is_told_is_what_was_found(tmp_path: Path, told: list[Told]) -> None:
    done = compared(tmp_path, WeightsAndBiases("prompts"))
    for one, run in zip(told, done.runs, strict=True):
        *during, (final, rows) = one.logged
        steps = [step for _, step in during]
        assert steps == sorted(steps)
        assert rows == run.result.rows == steps[-1]
        last, _ = during[-1]
        assert last["search/best_reward"] == max(reward for _, reward in run.result.points)
        assert last["time/total_timesteps"] == run.result.n_prompts
        assert {key: value for key, value in final.items() if "test" in key} == {
            "final/test_metric": run.scores["test"].metric,  # type: ignore[union-attr]
            "final/test_reward": run.scores["test"].reward,  # type: ignore[union-attr]
        }
        assert one.exit_code == 0


def test_every_reward_is_in_one_mean_and_no_other(tmp_path: Path, told: list[Told]) -> None:
    (run,) = compared(
        tmp_path, WeightsAndBiases("x"), optimisers={"random": RandomSearch(batch=1)}
    ).runs
    means = [values.get("rollout/ep_rew_mean") for values, _ in told[0].logged[:-1]]
    assert [mean for mean in means if mean is not None] == pytest.approx(
        [reward for _, reward in run.result.points]
    )


def test_a_search_that_breaks_has_failed_there(tmp_path: Path, told: list[Told]) -> None:
    compared(tmp_path, WeightsAndBiases("x"), optimisers={"fails": Fails()})
    assert told[0].exit_code == 1


def test_several_are_told_the_same(tmp_path: Path, told: list[Told]) -> None:
    compared(tmp_path, Several([WeightsAndBiases("a"), WeightsAndBiases("b")]))
    by_project = {
        project: [
            [(step, sorted(values)) for values, step in one.logged]
            for one in told
            if one.begun["project"] == project
        ]
        for project in "ab"
    }
    assert len(by_project["a"]) == 2
    assert by_project["a"] == by_project["b"]


def test_tensorboard_begins_a_search_anew(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    left = tmp_path / "events" / "random-seed0" / "left by a killed process"
    left.mkdir(parents=True)
    (run,) = compared(
        tmp_path / "study",
        TensorBoard(tmp_path / "events"),
        optimisers={"random": RandomSearch()},
    ).runs
    assert not left.exists()
    events = accumulator.EventAccumulator(str(left.parent))
    events.Reload()
    test = run.scores["test"]
    assert test is not None
    (final,) = events.Scalars("final/test_reward")
    assert (final.step, final.value) == (run.result.rows, pytest.approx(test.reward))


@pytest.mark.parametrize(
    ("module", "package", "make"),
    [
        ("torch.utils.tensorboard", "tensorboard", lambda: TensorBoard(Path())),
        ("wandb", "wandb", lambda: WeightsAndBiases("x")),
    ],
)
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, package: str, make: Any
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"{package} is not installed; pip install 'rlprompt\["):
        make()
