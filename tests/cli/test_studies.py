"""Looking into a study from the command line, while it runs and after."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import ROWS, finished, rlprompt, summary, write_config, write_data

import rlprompt.store.heartbeat as rlprompt_leases
from rlprompt.cli.studies import GO_ON
from rlprompt.search.memo import Question, V
from rlprompt.store.record import Record
from rlprompt.store.store import FILE, Store
from rlprompt.studies.inspection import ledger

STUDY = Path("runs/small")


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A finished study of two runs; change nothing in it."""
    return finished(tmp_path_factory.mktemp("ended"), model=str(model))


@pytest.fixture
def study(desk: Path, ended: Path) -> Path:
    """A copy of it, where its data are as they were."""
    return Path(shutil.copytree(ended, desk / STUDY))


def test_runs_are_listed(study: Path) -> None:
    lines = rlprompt("ls", "runs").stdout.splitlines()
    assert lines[0] == str(STUDY)
    assert re.match(r"    random-seed0: finished, 48/48 rows, \d+ s, best -?\d", lines[1])
    broken = study.parent / "broken"
    broken.mkdir()
    (broken / FILE).write_text("nothing of the kind " * 50)
    listed = rlprompt("ls", "runs").stdout
    assert "    runs/broken/study.sqlite is damaged, or is not a database" in listed
    assert lines[1] in listed
    assert rlprompt("ls", "runs", "nowhere").stdout == "no study in nowhere\n"


def test_a_run_is_shown_with_config_and_best_prompts(study: Path) -> None:
    shown = rlprompt("show", str(STUDY), "--prompts", "2").stdout
    assert '"shots": 2' in shown
    with Store(study / FILE, read_only=True) as store:
        entries = list(ledger(store, "random-seed0"))
        rewards = [entry.reward for entry in entries if entry.reward is not None]
        best = entries[int(np.argmax(rewards))]
        assert len(rewards) == len(entries)
        result = store.run("random-seed0").result
    assert f"    {best.reward:.4f} after {best.rows:,} rows: {best.title}\n" in shown
    assert len(re.findall(r" rows: '.+' \(ids [\d ]+\)$", shown, re.M)) == 2
    assert shown.count(" rows: soft ") == 2
    assert result is not None
    assert result.trace[-1] == (best.rows, best.reward)


def test_a_study_that_has_ended_is_watched_once(study: Path) -> None:
    assert len(rlprompt("watch", str(STUDY)).stdout.splitlines()) == 2


def test_a_study_that_nobody_works_on_is_said_to_wait(study: Path) -> None:
    """As Ctrl-C leaves it: the search that it interrupted was let go, and waits as others do."""
    with sqlite3.connect(study / FILE) as raw:
        raw.execute("UPDATE runs SET result = NULL WHERE name = 'random-seed0'")
    raw.close()
    assert GO_ON in rlprompt("show", str(STUDY)).stdout.splitlines()
    first, second, last = rlprompt("watch", str(STUDY)).stdout.splitlines()
    assert "random-seed0: waiting, " in first
    assert "soft-prompt-seed0: finished, " in second
    assert last == GO_ON


def test_the_ledger_is_exported_alike_as_csv_and_parquet(study: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow.parquet")
    for suffix in ("csv", "parquet"):
        result = rlprompt("export", str(STUDY), "--ledger", f"ledger.{suffix}")
        assert re.fullmatch(rf"\d+ prompts written to ledger.{suffix}\n", result.stdout)
    with Path("ledger.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = pyarrow.read_table("ledger.parquet").to_pylist()
    assert [row["digest"] for row in rows] == [row["digest"] for row in table]
    assert [json.loads(row["per_example"]) for row in rows] == [r["per_example"] for r in table]
    random = [row for row in rows if row["run"] == "random-seed0"]
    assert [int(row["rows"]) for row in random] == list(range(4, 49, 4))
    best = np.maximum.accumulate([float(row["reward"]) for row in random])
    assert [float(row["best"]) for row in random] == best.tolist()
    wrong = rlprompt("export", str(STUDY), "--ledger", "ledger.xlsx")
    assert wrong.exit_code == 2
    assert "does not end in .csv, .parquet or .jsonl" in wrong.stderr


def test_verify_scores_again_and_finds_what_was_forged(study: Path) -> None:
    good = rlprompt("verify", str(STUDY))
    assert good.exit_code == 0, good.stderr
    assert "prompts and 6 final scores computed again; the largest difference is" in good.stdout
    with sqlite3.connect(study / FILE) as raw:
        ((rewards,),) = raw.execute("SELECT rewards FROM answers WHERE id = 1")
        forged = (np.frombuffer(rewards) + 1).tobytes()
        raw.execute("UPDATE answers SET rewards = ? WHERE id = 1", (forged,))
    raw.close()
    bad = rlprompt("verify", str(STUDY))
    assert bad.exit_code == 1
    assert "the largest difference is 1 (" in bad.stdout
    assert "not those of this model and task" in bad.stderr


def test_verify_refuses_other_data(study: Path) -> None:
    write_data(study.parents[1], [row.replace("film number 3,", "film no. 3,") for row in ROWS])
    result = rlprompt("verify", str(STUDY))
    assert result.exit_code == 2
    assert "are not those of the study, so nothing is scored" in result.stderr
    assert "task.examples" in result.stderr


@pytest.mark.parametrize("command", ["show", "watch", "verify"])
def test_a_folder_without_a_study_is_named(desk: Path, command: str) -> None:
    result = rlprompt(command, "nowhere")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: nowhere holds no study, or one that has just ")


def test_a_study_of_an_older_version_is_refused_in_a_line_and_begun_beside(study: Path) -> None:
    with sqlite3.connect(study / FILE) as raw:
        raw.execute("PRAGMA user_version = 10")
    raw.close()
    content = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    said = f"{STUDY / FILE} was written by an older rlprompt (format 10, this one reads 11); run "
    for command in ("show", "watch", "verify", "work", "transfer", "compare"):
        result = rlprompt(command, "small.yaml" if command == "compare" else str(STUDY))
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert said in result.stderr
    assert f"    {said}" in rlprompt("ls", "runs").stdout
    assert rlprompt("report", str(STUDY)).exit_code == 0  # of the summary, which is of today's
    assert rlprompt("compare", "small.yaml", "--restart").exit_code == 0
    assert summary(Path("runs/small-2"))["complete"]
    assert {path: path.read_bytes() for path in content} == content


def test_several_workers_give_what_one_gives(study: Path, desk: Path) -> None:
    result = rlprompt("compare", "small.yaml", "--workers", "2", "--out", "shared")
    assert result.exit_code == 0, result.stderr
    assert (desk / "shared" / "worker-2.log").exists()
    alone, shared = (summary(folder)["runs"] for folder in (study, desk / "shared"))
    for run in (*alone, *shared):
        del run["lm_seconds"], run["total_seconds"]
    assert alone == shared


def test_a_worker_that_cannot_start_is_told(
    study: Path, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    result = rlprompt("compare", "small.yaml", "--workers", "2", "--out", "shared")
    assert result.exit_code == 0
    assert "worker 2 ended with exit code 1; the others do its searches, and shared" in (
        result.stdout.replace("\n", " ")
    )
    assert all(run["status"] == "finished" for run in summary(desk / "shared")["runs"])


def test_a_worker_goes_on_with_a_study_that_was_left(
    study: Path, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sqlite3.connect(study / FILE) as raw:
        raw.execute("UPDATE runs SET result = NULL, owner = 'elsewhere:1:x' WHERE id = 2")
    raw.close()
    monkeypatch.setattr(rlprompt_leases, "LEASE_SECONDS", 0.2)
    with Store(study / FILE) as store:
        assert [run.state for run in store.runs()] == ["finished", "running"]
        assert rlprompt("work", str(STUDY)).exit_code == 0
        assert [run.state for run in store.runs()] == ["finished", "finished"]
        assert all(run.strayed is None for run in store.runs())


def test_a_search_stops_where_the_file_says(desk: Path, model: Path) -> None:
    random = [{"name": "random", "batch": 2}]
    write_config(desk, model=str(model), optimisers=random, stop={"target": -1e9})
    assert rlprompt("compare", "small.yaml").exit_code == 0
    (run,) = summary(desk / STUDY)["runs"]
    assert (run["status"], run["rows"]) == ("finished", 8)
    write_config(desk, model=str(model), stop={"patience": 0})
    assert "stop.patience" in rlprompt("compare", "small.yaml").stderr


def test_a_cache_serves_another_study_and_its_helpers(study: Path, desk: Path) -> None:
    for name, workers in (("a", 1), ("b", 2)):
        flags = ["--cache", "shared/answers.sqlite", "--out", name, "--workers", str(workers)]
        result = rlprompt("compare", "small.yaml", *flags)
        assert result.exit_code == 0, result.stderr
        assert result.stderr == ""
    seconds = [[run["lm_seconds"] for run in summary(desk / name)["runs"]] for name in "ab"]
    assert seconds[0] == seconds[1]
    # The cache is no part of what a study is.
    assert rlprompt("compare", "small.yaml", "--out", "a").exit_code == 0
    assert "cache" not in summary(desk / "a")["config"]
    (desk / "shared" / "answers.sqlite").write_text("damaged " * 100)
    result = rlprompt("compare", "small.yaml", "--cache", "shared/answers.sqlite", "--out", "c")
    assert result.exit_code == 0
    assert "going on without the cache: shared/answers.sqlite is damaged" in result.stdout


def test_tensorboard_gets_the_usual_keys(desk: Path, model: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write_config(desk, model=str(model), optimisers=["random"])
    assert rlprompt("compare", "small.yaml", "--track", "tensorboard").exit_code == 0
    events = accumulator.EventAccumulator(str(desk / STUDY / "tensorboard" / "random-seed0"))
    events.Reload()
    keys = set(events.Tags()["scalars"])
    assert {"rollout/ep_rew_mean", "time/fps", "time/total_timesteps"} <= keys
    assert {"search/best_reward", "final/test_metric"} <= keys
    best = events.Scalars("search/best_reward")[-1]
    with Store(desk / STUDY / FILE, read_only=True) as store:
        run = store.run("random-seed0")
    assert best.step == run.used
    assert best.value == pytest.approx(run.best_reward)


def test_every_worker_tells_the_tracker_of_its_searches(
    study: Path, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    with sqlite3.connect(study / FILE) as raw:
        raw.execute("UPDATE runs SET result = NULL WHERE name = 'random-seed0'")
    raw.close()
    asked = list[list[str]]()

    class Idle(subprocess.Popen[bytes]):
        def __init__(self, command: list[str], **more: Any) -> None:
            asked.append(command)
            super().__init__(["true"], **more)

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", Idle)
        flags = ["--workers", "2", "--track", "tensorboard"]
        assert rlprompt("compare", "small.yaml", *flags).exit_code == 0
    ((_, _, _, *command),) = asked
    shutil.rmtree(desk / STUDY / "tensorboard")
    with sqlite3.connect(study / FILE) as raw:
        raw.execute("UPDATE runs SET result = NULL WHERE name = 'random-seed0'")
    raw.close()
    assert rlprompt(*command).exit_code == 0
    assert list((desk / STUDY / "tensorboard" / "random-seed0").iterdir())


def test_a_tracker_that_is_not_there_is_named(desk: Path) -> None:
    result = rlprompt("compare", "small.yaml", "--track", "wandb")
    assert result.exit_code == 2
    assert result.stderr == "error: wandb is not installed; pip install 'rlprompt[wandb]'\n"
    assert not (desk / STUDY).exists()


def test_a_comparison_that_is_killed_goes_on_as_if_it_had_not_been(
    study: Path, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a process that dies in the middle of the second search leaves: its files as they are."""
    whole, killed, put = desk / "whole", desk / "killed", Record.put

    def put_and_copy(record: Record, question: Question[V], answer: V) -> V:
        kept = put(record, question, answer)
        if not killed.exists() and _is_under_way(whole, "soft-prompt-seed0"):
            shutil.copytree(whole, killed)
        return kept

    with monkeypatch.context() as patch:
        patch.setattr(Record, "put", put_and_copy)
        assert rlprompt("compare", "small.yaml", "--out", "whole").exit_code == 0
    assert _is_under_way(killed, "soft-prompt-seed0")
    result = rlprompt("compare", "small.yaml", "--out", "killed")
    assert result.exit_code == 0, result.stderr
    undisturbed, resumed = (summary(place)["runs"] for place in (study, killed))
    for run in (*undisturbed, *resumed):
        del run["lm_seconds"], run["total_seconds"]
    assert undisturbed == resumed


def _is_under_way(folder: Path, name: str) -> bool:
    with Store(folder / FILE, read_only=True) as store:
        run = store.run(name)
    return run.state == "running" and run.used > 0
