"""A study as data frames, and what a notebook shows of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from rlprompt import Budget, Experiment, Optimiser, Result, Study, compare
from rlprompt.agents import Greedy, RandomSearch
from rlprompt.check import ToyTask, toy_lm
from rlprompt.studies.inspection import write_ledger

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    methods: dict[str, Optimiser[Any]] = {"random": RandomSearch(), "<greedy>": Greedy()}
    experiment = Experiment("toys", ToyTask(), toy_lm(), methods, Budget(40), (0, 1), length=2)
    compare(experiment, folder)
    return folder


def test_frames_say_what_the_files_say(folder: Path) -> None:
    study = Study.open(folder)
    runs, curves = study.runs, study.curves()
    assert runs[["optimiser", "seed"]].to_numpy().tolist() == [
        ["random", 0],
        ["<greedy>", 0],
        ["random", 1],
        ["<greedy>", 1],
    ]
    for (_, run), entry in zip(runs.iterrows(), study.data.summary.runs, strict=True):
        result = Result.from_json((folder / entry.file).read_text())
        assert run["prompt"] == result.best.text
        assert run["dev"] == result.best.dev.metric  # type: ignore[union-attr]
        own = curves[(curves["optimiser"] == entry.optimiser) & (curves["seed"] == entry.seed)]
        assert list(zip(own["rows"], own["train"], strict=True)) == list(result.trace)
    assert study.best()["dev"].tolist() == [runs["dev"].max()]
    assert set(study.controls["name"]) == {one.name for one in study.data.summary.controls}


def test_the_ledger_is_that_of_the_command(folder: Path, tmp_path: Path) -> None:
    from rlprompt.store.store import FILE, Store

    frame = Study(folder).ledger()
    with Store(folder / FILE, read_only=True) as store:
        assert write_ledger(store, tmp_path / "ledger.csv") == len(frame)
    assert frame["reward"].notna().any()
    assert sorted(frame["run"].unique()) == sorted(
        path.stem for path in (folder / "runs").glob("*.json")
    )


def test_what_a_notebook_shows_is_short_and_escaped(folder: Path) -> None:
    study = Study(folder)
    assert repr(study) == "<Study toys: tasks toy, methods random, <greedy>, finished 4 of 4>"
    shown = study._repr_html_()
    assert "<greedy>" not in shown
    assert "&lt;greedy&gt;" in shown
    result = Result.from_json((folder / study.data.summary.runs[0].file).read_text())
    known = r"<Result of RandomSearch on toy: model \S+, seed 0, status finished, rows 40 of 40, "
    assert re.match(known + r"prompt '", repr(result))
    assert "<table>" in result._repr_html_()
    assert "<caption>Task toy</caption>" in ToyTask()._repr_html_()


def test_plots_have_a_line_a_search_and_a_name_a_method(folder: Path) -> None:
    from matplotlib import pyplot

    axes = Study(folder).plot()
    assert len(axes.lines) == 4
    _, names = axes.get_legend_handles_labels()
    assert [name for name in names if name != "_"] == ["random", "<greedy>"]
    result = Result.from_json((folder / "runs" / "random-seed0.json").read_text())
    _, best = result.plot().lines
    assert np.asarray(best.get_ydata()).tolist() == result.to_frame()["best"].tolist()
    pyplot.close("all")
    with pytest.raises(ValueError, match="task is one of toy, got 'films'"):
        Study(folder).plot("films")
