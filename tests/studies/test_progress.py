"""What a notebook shows of searches that are under way."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import FakeTask
from tiny import tiny_lm

from rlprompt.agents.random_search import RandomSearch
from rlprompt.search.budget import Budget
from rlprompt.search.run import search
from rlprompt.studies import progress
from rlprompt.studies.experiment import Experiment
from rlprompt.studies.progress import Progress, in_notebook
from rlprompt.studies.run import compare
from rlprompt.studies.trackers import Silent


@dataclass
class Cell:
    """Where things are drawn in a notebook, each in the place of the one before."""

    drawn: list[str] = field(default_factory=list)

    def display(self, shown: Any, *, display_id: bool) -> Cell:
        assert display_id
        assert not self.drawn  # from then on it is brought up to date
        self.update(shown)
        return self

    def update(self, shown: Any) -> None:
        self.drawn.append(shown._repr_html_())


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    """A notebook, in which every picture is drawn."""
    made = Cell()
    shell = SimpleNamespace(kernel=None)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=made.display))
    monkeypatch.setattr(progress, "PICTURE", 0.0)
    return made


def experiment() -> Experiment:
    methods = {"random": RandomSearch(), "<b>": RandomSearch(halving=0.25)}
    return Experiment("fakes", FakeTask(), tiny_lm(), methods, Budget(60), seeds=(3,), length=2)


def test_a_comparison_is_drawn_in_a_notebook_by_itself(tmp_path: Path, cell: Cell) -> None:
    assert in_notebook()
    comparison = compare(experiment(), tmp_path)
    assert "random, seed 3</td><td><progress value='0' max='60'>" in cell.drawn[0]
    rows = [run.result.rows for run in comparison.runs]
    last = cell.drawn[-1]
    assert f"<progress value='{rows[0]}' max='{rows[0]}'>" in last
    assert last.count("dev ") == last.count("test ") == 2
    assert "&lt;b&gt;, seed 3" in last
    assert "<b>" not in last
    assert any("rows, best " in drawn for drawn in cell.drawn)


def test_a_watcher_that_says_nothing_stays_silent(tmp_path: Path, cell: Cell) -> None:
    compare(experiment(), tmp_path, Silent())
    assert not cell.drawn


def test_a_search_is_drawn_where_it_is_asked_for(cell: Cell) -> None:
    search(FakeTask(), tiny_lm(), RandomSearch(), 60, length=2, on_progress=Progress(rows=60))
    assert "<td>search</td>" in cell.drawn[0]
    assert "max='60'" in cell.drawn[-1]


def test_elsewhere_it_is_a_line_now_and_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not in_notebook()
    compare(experiment(), tmp_path / "silent")
    assert capsys.readouterr().err == ""
    compare(experiment(), tmp_path / "lines", Progress())
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "random, seed 3: 0/60 rows"
    assert lines[1].startswith("random, seed 3: 60/60 rows, ")
    assert len(lines) == 4
    monkeypatch.setattr(progress, "LINE", 0.0)
    search(FakeTask(), tiny_lm(), RandomSearch(), 60, length=2, on_progress=Progress())
    assert capsys.readouterr().err.startswith("search: 60 rows, best ")
