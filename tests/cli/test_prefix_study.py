"""Prefix prompts on their whole way: from an experiment file to the page, a folder and its use."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command_line import finished, rlprompt, save, summary, write_config
from transferred_study import save_bytes

from rlprompt.config.yaml_file import load_config
from rlprompt.export.folder import load_prompt
from rlprompt.search.evaluation import Evaluator
from rlprompt.studies.experiment import Experiment
from rlprompt.studies.loading import load_experiments
from rlprompt.transfer.file import read_transfer

LED = "{prompt} {text} It was"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study of both methods, and both prompts exported."""
    folder = tmp_path_factory.mktemp("place")
    save_bytes(folder / "bytes")
    finished(
        folder,
        {name: f"{name}-seed0" for name in ("prefix", "bbt-v2")},
        model=str(save(folder / "own", layers=2)),
        template=LED,
        optimisers=["prefix", "bbt-v2", "soft-prompt"],
        prompt={"length": 3, "start": ["hand", "vocabulary"]},
        budget=96,
    )
    return folder


@pytest.fixture
def desk(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


def experiment() -> Experiment:
    (made,) = load_experiments(load_config(Path("small.yaml")))
    return made


def test_the_page_and_the_tables_show_it(desk: Path) -> None:
    text = "<prefix> 3 x 2 layers of keys and values"
    runs = {one["optimiser"]: one for one in summary(desk / "runs" / "small")["runs"]}
    assert runs["prefix"]["prompt"] == runs["bbt-v2"]["prompt"] == text
    page = (desk / "runs" / "small" / "report.html").read_text("utf-8")
    assert "3 positions before all text, with no equivalent in tokens." in page
    assert "#3" in page  # what each position adds
    shown = rlprompt("show", "runs/small")
    assert shown.exit_code == 0
    assert f"picked: {text!r}" in shown.stdout
    assert " rows: prefix " in shown.stdout


def test_an_interrupted_study_goes_on_and_is_verified(desk: Path) -> None:
    before = summary(desk / "runs" / "small")["runs"]
    assert rlprompt("compare", "small.yaml").exit_code == 0
    assert [one["test"] for one in summary(desk / "runs" / "small")["runs"]] == [
        one["test"] for one in before
    ]
    verified = rlprompt("verify", "runs/small", "--sample", "8")
    assert verified.exit_code == 0, verified.stdout + verified.stderr


@pytest.mark.parametrize("name", ["prefix", "bbt-v2"])
def test_an_exported_one_scores_the_same(desk: Path, name: str) -> None:
    result = rlprompt("score", name, "small.yaml", "--split", "test")
    assert result.exit_code == 0, result.stdout + result.stderr
    assert "prompt     3 positions, '<prefix> 3 x 2 layers of keys and values'" in result.stdout
    assert "Verified" in result.stdout


def test_it_answers_a_file_as_the_task_does(desk: Path) -> None:
    result = rlprompt("predict", "prefix", "bbt-v2", "films.csv", "--out", "answers.jsonl")
    assert result.exit_code == 0, result.stdout + result.stderr
    rows = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    made, exported = experiment(), load_prompt("prefix")
    answered = {row["text"]: row["prefix prediction"] for row in rows}
    measured = Evaluator(made.task, made.lm).measure([exported.prompt], "test")
    assert measured.answers is not None
    told = [answered[example.fields["text"]] for example in made.task.splits.test]
    assert told == list(measured.answers[0])


def test_it_stays_on_its_model(desk: Path) -> None:
    result = rlprompt("transfer", "runs/small", "--models", "bytes")
    assert result.exit_code == 0, result.stdout + result.stderr
    done = read_transfer(desk / "runs" / "small" / "transfer.json")
    entries = {
        (entry.model == done.models[0].name, entry.run.split("-seed")[0]): entry
        for entry in done.entries
    }
    at_home, away = entries[True, "prefix"], entries[False, "prefix"]
    assert at_home.score is not None
    assert at_home.stored is not None
    assert at_home.score.reward == pytest.approx(at_home.stored.reward, abs=1e-4)
    assert away.score is None
    assert "keys and values mean nothing to another model" in away.problem


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"template": "{text} {prompt}"}, r"begin the template with \{prompt\}"),
        ({"template": "Film: {prompt} {text}"}, r"begin the template with \{prompt\}"),
        ({"model": "masked", "template": "{prompt} {text} {mask}"}, "takes no prefix prompts"),
        ({"prompt": {"length": 3, "start": {"found": "prefix"}}}, "keys and values is no start"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_paid(
    desk: Path, changes: dict[str, object], said: str
) -> None:
    save(desk / "masked", kind="bert")
    write_config(desk, **{"name": "no", "model": load_prompt("prefix").facts.model.model} | changes)
    state = json.loads((desk / "small.yaml").read_text()) | {"optimisers": ["prefix"]}
    (desk / "no.yaml").write_text(json.dumps(state))
    result = rlprompt("compare", "no.yaml")
    assert result.exit_code == 2
    assert re.search(said, " ".join(result.stderr.split()))
    assert not (desk / "runs" / "no" / "summary.json").exists()
