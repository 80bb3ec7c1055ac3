"""What a search found on a server, kept, used and taken elsewhere."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command_line import ROWS, rlprompt, save, write_config, write_data
from scripted_server import KEY_ENV, Script, serving
from tiny import tiny_lm

from rlprompt.export.card import card
from rlprompt.export.folder import load_prompt
from rlprompt.models import ServedLM
from rlprompt.models.served import api
from rlprompt.prompt import TextPrompt
from rlprompt.tasks.calibration import calibrated

SECRET = "sk-a-key-that-nobody-may-read-4711"
METHOD = {"class": "optimisers:Rephrase"}


@pytest.fixture(scope="module")
def server() -> Iterator[Script]:
    with serving(key=SECRET) as script:
        yield script


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, server: Script) -> Iterator[Path]:
    """A folder with a study on a server, `found` exported of it, and what was asked for that."""
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", "200")
        patch.setenv(KEY_ENV, SECRET)
        patch.setattr(api, "FIRST_WAIT", 0.002)
        write_data(folder, ROWS)
        write_on_server(folder, server)
        done = rlprompt("compare", "small.yaml")
        assert done.exit_code == 0, done.stdout + done.stderr
        assert "rlprompt export runs/small --best found" in done.stdout
        server.log.clear()
        exported = rlprompt("export", "runs/small", "--best", "found")
        assert exported.exit_code == 0, exported.stdout + exported.stderr
        assert server.asked == []  # what it takes was paid for in the study
        yield folder


def write_on_server(folder: Path, server: Script) -> None:
    model = {"url": server.url, "key_env": KEY_ENV, "attempts": 2}
    model |= {"prices": {"input": 1.5, "output": 6}}
    given = {"optimisers": [METHOD], "prompt": {"kind": "text"}, "budget": 48}
    write_config(folder, model=model, **given)


def test_the_folder_names_the_server_and_never_the_key(home: Path, server: Script) -> None:
    assert {path.name for path in (home / "found").iterdir()} == {"README.md", "prompt.json"}
    for path in (home / "found").iterdir():
        assert SECRET not in path.read_text("utf-8")
    facts = json.loads((home / "found/prompt.json").read_text("utf-8"))
    model = facts["model"]
    assert (model["kind"], model["model"], model["place"]) == ("served", "tiny", server.url)
    assert (model["key_env"], facts["ids"], facts["shape"], facts["sha256"]) == (
        KEY_ENV,
        None,
        [0, 0],
        "",
    )
    found = load_prompt(home / "found")
    assert found.prompt == TextPrompt(facts["text"])
    page = (home / "found/README.md").read_text("utf-8")
    assert f"ServedLM.connect('{server.url}', 'tiny', key_env='{KEY_ENV}')" in page
    assert "Its weights cannot be seen" in page
    for absent in ("PEFT", "token ids", "SHA-256", "safetensors"):
        assert absent not in page


def run(page: str, folder: Path) -> dict[str, object]:
    """Run the code of a card, in its folder; what the last of it made."""
    names: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for part in page.split("```python\n")[1:]:
            names = {}
            exec(part.split("```")[0], names)
    return names


def test_the_code_of_the_card_runs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run((home / "found/README.md").read_text("utf-8"), home / "found")
    assert "Classified" in capsys.readouterr().out


def test_of_a_task_that_is_not_known_it_gives_model_and_prompt(home: Path) -> None:
    facts = load_prompt(home / "found").facts
    page = card(facts.model_copy(update={"task": facts.task.model_copy(update={"usage": None})}))
    assert "How the task uses the prompt is not known here" in page
    assert "complete" not in page
    made = run(page, home / "found")
    assert isinstance(made["lm"], ServedLM)
    assert made["prompt"] == TextPrompt(facts.text)


def test_the_server_is_asked_and_its_bill_told(home: Path, server: Script) -> None:
    server.log.clear()
    refused = server.n_refused
    done = rlprompt("predict", "found", "films.csv", "--out", "answers.csv")
    assert done.exit_code == 0, done.stdout + done.stderr
    assert server.asked
    assert (
        f"bill of tiny: {len(server.log) - (server.n_refused - refused)} requests, " in done.stderr
    )
    rows = list(csv.DictReader((home / "answers.csv").read_text("utf-8").splitlines()))
    # As the same model here answers the same text.
    lm, exported = tiny_lm(), load_prompt(home / "found")
    usage = exported.facts.task.usage
    assert usage is not None
    assert usage.prior is not None
    words = [lm.encode(f" {word}") for (word,) in (usage.label_words or {}).values()]
    queries = [usage.made.query({"text": row["text"]}, lm, words) for row in rows]
    scores = lm.score([exported.prompt], queries, over="candidates")[0].double()
    prior = torch.tensor([usage.prior[label] for label in usage.label_words or ()]).double()
    wanted = calibrated(scores, prior, usage.calibration_strength).softmax(-1).tolist()
    for row, chances in zip(rows, wanted, strict=True):
        told = [float(row[f"p({label})"]) for label in usage.label_words or ()]
        assert told == pytest.approx(chances, abs=1e-4)


def test_a_study_is_predicted_with_as_its_export_is(home: Path, server: Script) -> None:
    assert rlprompt("predict", "found", "films.csv", "--out", "one.csv", "--force").exit_code == 0
    command = ("predict", "runs/small", "films.csv", "--best", "--out", "other.csv", "--force")
    done = rlprompt(*command)
    assert done.exit_code == 0, done.stdout + done.stderr
    assert "in all at 1.5 and 6 for a million tokens" in done.stderr  # the study knows prices
    assert (home / "one.csv").read_text("utf-8") == (home / "other.csv").read_text("utf-8")


def test_another_address_is_a_note_and_another_model_an_error(home: Path, server: Script) -> None:
    with serving(key=SECRET) as moved:
        done = rlprompt("predict", "found", "films.csv", "--model", moved.url)
        assert done.exit_code == 0, done.stdout + done.stderr
        assert f"the prompt was found on the server at {server.url}, and this is" in done.stderr
        moved.listing = {"owned_by": "somebody else"}
        refused = rlprompt("predict", "found", "films.csv", "--model", moved.url)
    assert refused.exit_code == 2
    assert "tiny is not the model that this prompt belongs to" in refused.stderr
    assert "somebody else" in refused.stderr
    assert SECRET not in done.stdout + done.stderr + refused.stdout + refused.stderr
    with pytest.raises(ValueError, match=r"its kind, tokenizer and weights differ"):
        load_prompt("found").predict(["fine"], tiny_lm())


def test_a_prompt_of_a_server_goes_to_a_model_here(
    home: Path, server: Script, tmp_path: Path
) -> None:
    model = save(tmp_path / "here", layers=2)  # as on the server
    server.log.clear()
    done = rlprompt("transfer", "runs/small", "--models", str(model), "--out", "there.json")
    assert done.exit_code == 0, done.stdout + done.stderr
    # The controls and prompts were scored on test by the study.
    assert server.asked == []
    told = json.loads((home / "there.json").read_text("utf-8"))
    entries = [one for one in told["entries"] if one["score"]]
    assert {one["model"] for one in entries} == {"tiny", str(model)}
    here, there = (
        next(e["score"] for e in entries if e["model"] == name) for name in ("tiny", str(model))
    )
    assert here["reward"] == pytest.approx(there["reward"], abs=1e-4)  # the same model, in fact
    assert "drift" not in done.stdout or "0 scores of the study" in done.stdout


def test_a_prompt_of_a_model_here_goes_to_a_server(
    home: Path, server: Script, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    write_data(tmp_path, ROWS)
    write_config(tmp_path, model=str(model))
    assert rlprompt("compare", "small.yaml").exit_code == 0
    for name in (server.url, f"tiny@{server.url}"):
        server.log.clear()
        done = rlprompt("transfer", "runs/small", "--models", name, "--out", "there.json")
        assert done.exit_code == 0, done.stdout + done.stderr
        told = json.loads(Path("there.json").read_text("utf-8"))
        forms = {e["form"] for e in told["entries"] if e["score"] and e["model"] == "tiny"}
        assert forms == {"by text", "nearest tokens"}
    assert SECRET not in Path("there.json").read_text("utf-8")


def test_score_takes_the_folder_to_its_server(home: Path, server: Script) -> None:
    server.log.clear()
    done = rlprompt("score", "found", "small.yaml")
    assert done.exit_code == 0, done.stdout + done.stderr
    assert server.asked
