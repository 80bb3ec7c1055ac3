"""Text prompts on their whole way: from an experiment file to the page, a folder and its use."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from command_line import finished, rlprompt, summary
from transferred_study import save_bytes

from rlprompt.config.yaml_file import load_config
from rlprompt.export.folder import load_prompt
from rlprompt.prompt import TextPrompt
from rlprompt.search.evaluation import Evaluator
from rlprompt.studies.loading import load_experiments
from rlprompt.transfer.file import read_transfer

TEXT = {"class": "optimisers:Rephrase"}
RUN = "Rephrase-seed0"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A folder with a finished study of texts and of tokens, and the text exported."""
    folder = tmp_path_factory.mktemp("place")
    save_bytes(folder / "bytes")
    finished(
        folder,
        {"found": RUN},
        model=str(model),
        optimisers=[TEXT, "random"],
        prompt={"length": {"at_most": 40}, "start": "hand"},
        budget=96,
    )
    return folder


@pytest.fixture
def desk(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "200")
    return place


def test_the_page_and_the_ledger_show_it_whole(desk: Path) -> None:
    study = desk / "runs" / "small"
    (text,) = (r["prompt"] for r in summary(study)["runs"] if r["optimiser"] == "Rephrase")
    page = (study / "report.html").read_text("utf-8")
    assert "<b>great</b>" not in page
    assert "What each token adds on dev" in page  # of the other method
    facts = load_prompt("found").facts
    assert f"{facts.shape[0]} tokens; typing the text gives" in page
    shown = rlprompt("show", "runs/small")
    assert shown.exit_code == 0
    assert f"picked: {text!r}" in shown.stdout
    assert f"rows: {text!r}" in shown.stdout
    assert rlprompt("export", "runs/small", "--ledger", "all.csv").exit_code == 0
    with open("all.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["run"] == RUN]
    assert text in {row["text"] for row in rows}
    assert {row["ids"] for row in rows} == {""}


def test_a_finished_study_is_found_again_and_verified(desk: Path) -> None:
    before = summary(desk / "runs" / "small")["runs"]
    assert rlprompt("compare", "small.yaml").exit_code == 0
    assert summary(desk / "runs" / "small")["runs"] == before
    verified = rlprompt("verify", "runs/small", "--sample", "8")
    assert verified.exit_code == 0, verified.stdout + verified.stderr


def test_an_exported_one_says_its_text_and_scores_the_same(desk: Path) -> None:
    state = json.loads(Path("found/prompt.json").read_text("utf-8"))
    exported = load_prompt("found")
    assert state["kind"] == "text"
    assert exported.prompt == TextPrompt(state["text"])
    assert len(state["ids"]) == len(exported.vectors)
    assert "| prompt | the text <code>" in Path("found/README.md").read_text("utf-8")
    result = rlprompt("score", "found", "small.yaml", "--split", "test")
    assert result.exit_code == 0, result.stdout + result.stderr
    assert f"prompt     {state['text']!r}" in result.stdout
    assert "Verified" in result.stdout
    assert rlprompt("score", "found", "small.yaml", "--split", "dev").exit_code == 0


def test_a_changed_text_is_noticed(desk: Path, tmp_path: Path) -> None:
    for path in Path("found").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    state = json.loads((tmp_path / "prompt.json").read_text("utf-8"))
    (tmp_path / "prompt.json").write_text(json.dumps(state | {"text": "other"}))
    with pytest.raises(ValueError, match="its prompt is not the one that was exported"):
        load_prompt(tmp_path)


def test_it_answers_a_file_as_the_task_does(desk: Path) -> None:
    result = rlprompt("predict", "found", "films.csv", "--out", "answers.jsonl")
    assert result.exit_code == 0, result.stdout + result.stderr
    rows = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    (made,) = load_experiments(load_config(Path("small.yaml")))
    answered = {row["text"]: row["prediction"] for row in rows}
    measured = Evaluator(made.task, made.lm).measure([load_prompt("found").prompt], "test")
    assert measured.answers is not None
    told = [answered[example.fields["text"]] for example in made.task.splits.test]
    assert told == list(measured.answers[0])


def test_it_goes_to_another_tokenizer_as_it_is(desk: Path) -> None:
    result = rlprompt("transfer", "runs/small", "--models", "bytes")
    assert result.exit_code == 0, result.stdout + result.stderr
    done = read_transfer(desk / "runs" / "small" / "transfer.json")
    at_home, away = (one for one in done.entries if one.run == RUN)
    assert (at_home.form, away.form) == ("as found", "as found")
    assert at_home.score is not None
    assert at_home.stored is not None
    assert at_home.score.reward == pytest.approx(at_home.stored.reward, abs=1e-4)
    assert away.score is not None
    assert away.retyping is None


def test_a_study_of_texts_alone_is_planned_without_random(desk: Path) -> None:
    state = json.loads(Path("small.yaml").read_text())
    state |= {"name": "texts", "optimisers": [TEXT], "prompt": {"kind": "text", "start": "hand"}}
    Path("texts.yaml").write_text(json.dumps(state))
    result = rlprompt("check", "texts.yaml")
    assert result.exit_code == 0, result.stdout + result.stderr
    assert "text prompts" in result.stdout
    assert "Rephrase" in result.stdout
    assert "random" not in result.stdout.partition("optimisers, on a task")[2]


@pytest.mark.parametrize(
    ("optimiser", "prompt", "said"),
    [
        ("greedy", {"kind": "text"}, "greedy searches prompts of the kind tokens"),
        (TEXT, {"kind": "tokens"}, "Rephrase searches prompts of the kind text"),
        (TEXT, {"kind": "texts"}, "kind"),
        (TEXT, {"kind": "text", "length": 7}, r"give {at_most: 7}"),
        (TEXT, {"kind": "text", "tokens": "words"}, "tokens says what token prompts are made of"),
        (
            TEXT,
            {"kind": "text", "banned": ["WAS"], "start": "it was good"},
            "' it was good' uses 'was', which `banned` forbids",
        ),
        ({**TEXT, "tokens": "words"}, {}, "tokens says what token prompts are .* leave it out"),
        (TEXT, {"start": "common-words"}, "a start of common-words is one of tokens"),
        (
            TEXT,
            {"kind": "text", "length": {"at_most": 2}, "start": ["hand", "it was good"]},
            "' it was good' has more tokens than the 2",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_paid(
    desk: Path, optimiser: object, prompt: object, said: str
) -> None:
    state = json.loads(Path("small.yaml").read_text())
    state |= {"name": "no", "optimisers": [optimiser], "prompt": prompt}
    Path("no.yaml").write_text(json.dumps(state))
    result = rlprompt("compare", "no.yaml")
    assert result.exit_code == 2
    assert re.search(said, " ".join(result.stderr.split()))
    assert not (desk / "runs" / "no" / "summary.json").exists()
