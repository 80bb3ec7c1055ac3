"""Files that an earlier version made: they open and say the same, or are refused in a sentence.

`old_files/` holds a tiny model, data, two studies with their experiment files, a shared cache,
three exported prompts and a transfer, all made by the version before modules were put into rooms.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rlprompt.cli.app import app
from rlprompt.prompt import TextPrompt, TokenPrompt
from rlprompt.search.result import prompt_from_state

OLD = Path(__file__).parent / "old_files"
STUDIES = ("classes", "writing")


def rlprompt(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def succeeds(*arguments: str) -> str:
    result = rlprompt(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def runs_of(study: Path) -> dict[str, Any]:
    """A summary's runs by name; what came later reads as nothing."""
    summary = json.loads((study / "summary.json").read_text())
    return {run["name"]: {"n_partial": 0, **run} for run in summary["runs"]}


def candidates_of(study: Path) -> dict[str, list[list[float]]]:
    """The ids or the coordinates of the prompts that raced, by run."""
    return {
        path.stem: [numbers(one["prompt"]) for one in json.loads(path.read_text())["candidates"]]
        for path in (study / "runs").glob("*.json")
    }


def numbers(state: dict[str, Any]) -> list[float]:
    prompt = prompt_from_state(state)
    assert not isinstance(prompt, TextPrompt)
    return [*prompt.ids] if isinstance(prompt, TokenPrompt) else prompt.vectors.ravel().tolist()


def answers_of(study: Path) -> int:
    with sqlite3.connect(study / "study.sqlite") as connection:
        (count,) = connection.execute("SELECT count(*) FROM evaluations").fetchone()
    return int(count)


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, in the working folder, with what was the default then."""
    monkeypatch.setenv("COLUMNS", "200")
    folder = Path(shutil.copytree(OLD, tmp_path / "old"))
    monkeypatch.chdir(folder)
    config = json.loads(Path("classes.yaml").read_text())
    config["task"]["calibration"] = "none"
    Path("classes.yaml").write_text(json.dumps(config))
    return folder


def test_another_default_is_named_and_nothing_that_means_the_same(old: Path) -> None:
    shutil.copy(OLD / "classes.yaml", old)
    result = rlprompt("compare", "classes.yaml", "--out", "classes")
    assert result.exit_code == 2
    assert 'task.calibration: "none" before, "batch" now' in result.output
    assert " null there" not in result.output


@pytest.mark.parametrize("name", STUDIES)
def test_a_finished_study_is_not_done_again(old: Path, name: str) -> None:
    before, asked = runs_of(old / name), answers_of(old / name)
    succeeds("compare", f"{name}.yaml", "--out", name)
    # Not even the seconds changed.
    assert runs_of(old / name) == before
    assert answers_of(old / name) == asked


def test_a_seed_that_was_added_to_an_old_study_is_like_the_others_and_stays_so(old: Path) -> None:
    config = json.loads((old / "classes.yaml").read_text())
    (old / "classes.yaml").write_text(json.dumps(config | {"seeds": [0, 1]}))
    succeeds("compare", "classes.yaml", "--out", "classes")
    begun = runs_of(old / "classes")
    assert len(begun) == 2 * len(config["optimisers"])
    succeeds("compare", "classes.yaml", "--out", "classes")
    assert runs_of(old / "classes") == begun


def test_seeds_may_be_added_to_an_old_study(old: Path) -> None:
    before = runs_of(old / "writing")
    config = json.loads((old / "writing.yaml").read_text())
    (old / "writing.yaml").write_text(json.dumps(config | {"seeds": [0, 1]}))
    succeeds("compare", "writing.yaml", "--out", "writing")
    after = runs_of(old / "writing")
    assert {name: after[name] for name in before} == before
    assert len(after) == 2 * len(before)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_shown_and_put_on_a_page(old: Path, name: str) -> None:
    shown = succeeds("show", name)
    succeeds("report", name)
    page = (old / name / "report.html").read_text()
    for title, run in runs_of(old / name).items():
        assert title in shown
        assert run["optimiser"] in page


@pytest.mark.parametrize("name", STUDIES)
def test_the_answers_of_a_study_are_those_of_today(old: Path, name: str) -> None:
    assert "computed again" in succeeds("verify", name)


def test_a_search_of_an_old_study_that_was_cut_short_ends_the_same(old: Path) -> None:
    before, raced = runs_of(old / "classes"), candidates_of(old / "classes")
    with sqlite3.connect(old / "classes" / "study.sqlite") as connection:
        # As a worker that died when it had asked for most, and had no result yet.
        connection.execute("UPDATE runs SET result = NULL")
        connection.execute("DELETE FROM evaluations WHERE position >= 2")
    succeeds("compare", "classes.yaml", "--out", "classes")
    for name, run in runs_of(old / "classes").items():
        assert run["prompt"] == before[name]["prompt"]
        assert run["rows"] == before[name]["rows"]
        assert run["test"] == before[name]["test"]
        assert run["rewards"] == pytest.approx(before[name]["rewards"], abs=0.05)
    # They raced as they would have then: the best on train. The last digits of vectors depend on
    # the number of threads.
    for name, prompts in candidates_of(old / "classes").items():
        assert [pytest.approx(one, abs=1e-3) for one in prompts] == raced[name]


def test_an_old_study_is_not_picked_from_otherwise_in_silence(old: Path) -> None:
    config = json.loads((old / "classes.yaml").read_text())
    changed = config | {"selection": {"along_path": True}}
    (old / "classes.yaml").write_text(json.dumps(changed))
    result = rlprompt("compare", "classes.yaml", "--out", "classes")
    assert result.exit_code == 2
    assert 'selection: null there, {"candidates": null, "along_path": true' in result.output


def test_a_cache_is_refused_with_what_to_do(old: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = rlprompt("compare", "classes.yaml", "--cache", "cache.sqlite")
    assert result.exit_code == 0
    new, found = runs_of(old / "runs" / "classes"), runs_of(old / "classes")
    assert {name: run["prompt"] for name, run in new.items()} == {
        name: run["prompt"] for name, run in found.items()
    }
    with sqlite3.connect(OLD / "cache.sqlite") as connection:
        (kept,) = connection.execute("SELECT count(*) FROM shared").fetchone()
    with sqlite3.connect(old / "cache.sqlite") as connection:
        (now,) = connection.execute("SELECT count(*) FROM shared").fetchone()
    assert now == kept, "a cache that is refused is left as it is"
    said = " ".join(f"{result.output} {caplog.text}".split())
    assert "going on without the cache: cache.sqlite was written by an older rlprompt" in said
    assert "remove it, or name another file" in said


@pytest.mark.parametrize(
    ("found", "config"),
    [("found", "classes"), ("found-soft", "classes"), ("found-writing", "writing")],
)
def test_an_exported_prompt_scores_as_it_did(old: Path, found: str, config: str) -> None:
    assert "Verified" in succeeds("score", found, f"{config}.yaml")


def test_a_transfer_is_on_the_page_as_it_was(old: Path) -> None:
    succeeds("report", "classes")
    assert "other label words" in (old / "classes" / "report.html").read_text()
