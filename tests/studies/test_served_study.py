"""A study through a server: killed and resumed, with the server's log as witness."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import forks
import pytest
from command_line import ROWS, rlprompt, summary, write_config, write_data
from forks import forked
from scripted_server import KEY_ENV, Script, status

from rlprompt.config.yaml_file import load_config
from rlprompt.store.store import FILE, Store
from rlprompt.studies.experiment import searches
from rlprompt.studies.remote import ModelReference, StudyServer, Worker
from rlprompt.studies.run import load_again

SECRET = "sk-a-key-that-nobody-may-read-4711"
METHOD = {"class": "optimisers:Rephrase"}
PRICES = {"input": 1.5, "output": 6}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Script) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv(KEY_ENV, SECRET)
    server.key = SECRET
    write_data(tmp_path, ROWS)
    write(tmp_path, server)
    return tmp_path


def write(folder: Path, server: Script, changes: Any = None, **model: Any) -> None:
    reached = {"url": server.url, "key_env": KEY_ENV, "attempts": 2, "prices": PRICES}
    given = {"optimisers": [METHOD], "prompt": {"kind": "text"}, "budget": 48, "test": 2}
    given |= changes or {}
    write_config(folder, model={**reached, **model}, **given)


def found(folder: Path) -> list[Any]:
    """What came of the runs, without what depends on the clock."""
    kept = ("name", "status", "rows", "prompt", "train", "dev", "test", "rewards")
    return [{key: run[key] for key in kept} for run in summary(folder)["runs"]]


def test_a_study_that_is_killed_asks_nothing_twice(desk: Path, server: Script) -> None:
    done = rlprompt("compare", "small.yaml", "--out", "undisturbed")
    assert done.exit_code == 0, done.stdout + done.stderr
    alone = server.asked
    assert len(alone) == len(set(alone))

    server.log.clear()
    command = "compare", "small.yaml", "--out", "killed"
    with forked(forks.rlprompt, desk / "said", *command) as process:
        # Counted once in a while: what counts takes the server's time.
        while len(server.asked) < len(alone) // 2 and process.is_alive():
            time.sleep(0.02)
        process.kill()
        process.join()
    assert process.exitcode == -signal.SIGKILL
    before = server.asked
    again = rlprompt("compare", "small.yaml", "--out", "killed")
    assert again.exit_code == 0, again.stdout + again.stderr
    # What was under way when it was killed may have been answered for nobody: 8 at a time.
    assert set(server.asked) == set(alone)
    assert 0 <= len(server.asked) - len(alone) <= 8
    assert len(before) < len(alone)
    assert found(desk / "killed") == found(desk / "undisturbed")

    n_asked = len(server.asked)
    assert rlprompt("compare", "small.yaml", "--out", "killed").exit_code == 0
    assert len(server.asked) == n_asked


def test_a_full_run_tells_the_bill_and_nobody_the_key(desk: Path, server: Script) -> None:
    done = rlprompt("compare", "small.yaml")
    assert done.exit_code == 0, done.stdout + done.stderr
    (model,) = summary(desk / "runs/small")["models"]
    bill = model["bill"]
    assert bill["requests"] == len(server.log) - server.n_refused
    read, written = bill["tokens_in"], bill["tokens_out"]
    assert bill["cost"] == pytest.approx((1.5 * read + 6 * written) / 1e6)
    line = f"bill of tiny: {bill['requests']:,} requests, {read:,} tokens read, {written:,} written"
    assert line in done.stdout
    page = (desk / "runs/small/report.html").read_text("utf-8")
    assert "Requests to servers" in page
    assert f"{read:,} tokens read" in page
    assert "not provable, told by the server" in page
    assert "the likeliest first tokens, 5 after a chat" in done.stdout
    writing = ["export", "runs/small", "--ledger", "all.csv", "--best", "found"]
    for command in (["show", "runs/small"], writing):
        told = rlprompt(*command)
        assert told.exit_code == 0, told.stdout + told.stderr
        assert SECRET not in told.stdout + told.stderr
    assert SECRET not in done.stdout + done.stderr
    files = [path for path in desk.rglob("*") if path.is_file()]
    assert {"study.sqlite", "report.html", "summary.json"} <= {path.name for path in files}
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path
    assert set(server.keys) == {f"Bearer {SECRET}"}


def test_a_server_that_fails_loses_nothing_that_was_answered(desk: Path, server: Script) -> None:
    # The controls fail: what was answered of them is kept all the same.
    server.faults = [*[None] * 30, *[status(503, f"down, {SECRET}")] * 10_000]
    failed = rlprompt("compare", "small.yaml")
    assert failed.exit_code == 2
    assert "gave no answer in 2 attempts: it answers 503 down, (the key)" in failed.stderr
    assert SECRET not in failed.stdout + failed.stderr
    first = set(server.asked[:15])
    server.faults, server.log = [], []
    write(desk, server, concurrency=2, timeout=60, prices=None)  # reached otherwise: no new study
    done = rlprompt("compare", "small.yaml")
    assert done.exit_code == 0, done.stdout + done.stderr
    assert not first & set(server.asked)


def test_all_who_load_a_study_reach_its_server_as_was_said_last(
    desk: Path, server: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told() -> dict[str, Any]:
        with Store(Path("runs/small") / FILE, read_only=True) as store:
            return store.spec

    assert rlprompt("compare", "small.yaml").exit_code == 0
    begun = told()
    monkeypatch.setenv("ANOTHER_KEY", SECRET)
    monkeypatch.delenv(KEY_ENV)
    write(desk, server, key_env="ANOTHER_KEY", concurrency=2, prices=None)
    for command in (["compare", "small.yaml"], ["work"], ["export", "--best", "found"]):
        name, *given = command
        place = [] if name == "compare" else ["runs/small"]
        done = rlprompt(name, *place, *given)
        assert done.exit_code == 0, done.stdout + done.stderr
    reached = {"key_env": "ANOTHER_KEY", "concurrency": 2, "prices": None}
    begun["config"]["model"] |= reached
    assert told() == begun


def test_a_model_that_has_changed_is_refused_on_resume(desk: Path, server: Script) -> None:
    assert rlprompt("compare", "small.yaml").exit_code == 0
    server.listing = {"owned_by": "somebody else"}
    changed = rlprompt("compare", "small.yaml")
    assert changed.exit_code == 2
    assert "holds a study with other settings" in changed.stderr
    assert "somebody else" in changed.stderr


@pytest.mark.parametrize(
    ("changes", "model", "problem"),
    [
        ({"prompt": {"length": 3}, "optimisers": ["random"]}, {}, "takes texts alone"),
        ({"prompt": {}, "optimisers": ["soft-prompt"]}, {}, "takes texts alone"),
        ({"references": ["lora"]}, {}, "is on a server"),
        (
            {"prompt": {"kind": "text", "length": {"at_most": 9}}},
            {},
            "does not tell how many a text has",
        ),
        ({}, {"url": "http://127.0.0.1:9/v1"}, "gave no answer in 2 attempts"),
        ({}, {"url": "http://me:hunter2@host/v1"}, "before the @"),
        ({}, {"api_key": "hunter2"}, "unknown key 'api_key' in model"),
        ({}, {"key_env": "sk-hunter2"}, "key_env is the name of an environment variable"),
        ({}, {"key_env": "NOT_SET"}, "variable NOT_SET is not set"),
        ({}, {"revision": "main"}, "revision is for a model that is loaded here"),
        ({}, {"url": None, "name": "x"}, "is for a model on a server; give its url"),
        ({}, {"prices": {"input": 1}}, "model.prices.output is missing"),
    ],
)
def test_a_persons_mistake_is_a_line_before_anything_is_paid(
    desk: Path, server: Script, changes: Any, model: Any, problem: str
) -> None:
    write(desk, server, changes, **model)
    result = rlprompt("compare", "small.yaml")
    assert result.exit_code == 2, result.stdout
    assert problem in result.stderr
    assert "hunter2" not in result.stdout + result.stderr
    assert server.asked == []
    assert not list(desk.glob("runs/*/study.sqlite"))


def test_a_plan_and_a_check_ask_nothing(desk: Path, server: Script) -> None:
    for command in (["compare", "small.yaml", "--dry-run"], ["check", "small.yaml"]):
        result = rlprompt(*command)
        assert result.exit_code == 0, result.stdout + result.stderr
        assert "a row is 2 requests at most, one a label word" in result.stdout
    assert server.asked == []


def test_machines_of_a_cluster_keep_answers_and_what_they_run_on_at_the_study(
    desk: Path, server: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = {"started": "then", "platform": "elsewhere", "versions": {"torch": "99.9"}}
    monkeypatch.setattr("rlprompt.studies.remote.here", lambda: elsewhere)
    planned = searches(load_again(load_config(Path("small.yaml")), desk / "there"))
    references = {
        name: one.__class__(**{**vars(one), "lm": ModelReference(one.lm)})
        for name, one in planned.items()
    }
    study = StudyServer(desk / "there", references, {})
    Worker(0).work(lambda method, *given: getattr(study, method)(*given))
    asked = server.asked
    assert len(asked) == len(set(asked)) > 0
    (one,) = planned.values()
    with Store(desk / "there" / FILE, read_only=True) as store:
        assert store.requests.bill(one.lm.fingerprint.digest).requests >= len(asked)
        assert [run.state for run in store.runs()] == ["finished"]
        assert store.environments == [elsewhere]
    assert json.loads(json.dumps(vars(one.lm.fingerprint)))["kind"] == "served"
