"""Searches that begin with exported prompts: from a file to the results, or to why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import finished, rlprompt, save, summary, write_config

from rlprompt.export.folder import load_prompt
from rlprompt.store.store import FILE, Store


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A folder with exported tokens and vectors, and another model of the same width."""
    folder = tmp_path_factory.mktemp("place")
    save(folder / "other", kind="opt")
    finished(folder, {"tokens": "random-seed0", "vectors": "soft-prompt-seed0"}, model=str(model))
    return folder


@pytest.fixture
def desk(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


def test_they_are_compared_with_other_starts(desk: Path, model: Path) -> None:
    methods = [
        {"name": "greedy", "start": {"found": "tokens"}},
        {"name": "soft-prompt", "start": {"found": "tokens"}},
        {"name": "soft-prompt", "start": {"found": "vectors"}},
        {"name": "soft-prompt", "start": ["hand", {"found": "vectors"}]},
        {"name": "soft-prompt", "start": "hand"},
    ]
    write_config(desk, name="on", model=str(model), optimisers=methods)
    done = rlprompt("compare", "small.yaml")
    assert done.exit_code == 0, done.stdout + done.stderr
    ended = {one["optimiser"]: one for one in summary(desk / "runs" / "on")["runs"]}
    assert {name: one["status"] for name, one in ended.items()} == dict.fromkeys(
        [
            "greedy start=found:tokens",
            "soft-prompt start=found:tokens",
            "soft-prompt start=found:vectors",
            "soft-prompt start=hand+found:vectors",
            "soft-prompt start=hand",
            "random",
        ],
        "finished",
    )
    tokens, vectors = (load_prompt(folder).prompt for folder in ("tokens", "vectors"))
    with Store(desk / "runs" / "on" / FILE, read_only=True) as store:
        runs = {run.name: run for run in store.runs()}
        first = {name: next(store.batches(name)).digests for name in runs}
    assert runs["greedy-start=found-tokens-seed0"].spec["start"] == [tokens.digest]
    assert runs["soft-prompt-start=found-vectors-seed0"].spec["start"] == [vectors.digest]
    both = runs["soft-prompt-start=hand-found-vectors-seed0"].spec["start"]
    assert both == ["hand", vectors.digest]
    assert tokens.digest in first["greedy-start=found-tokens-seed0"]
    assert first["soft-prompt-start=found-vectors-seed0"] == (vectors.digest,)
    begun = json.loads((desk / "runs" / "small" / "summary.json").read_text())["runs"]
    before = {one["optimiser"]: one["best_train_reward"] for one in begun}
    again = ended["soft-prompt start=found:vectors"]["best_train_reward"]
    assert again >= before["soft-prompt"] - 1e-6  # what is found is no worse


def test_on_another_model_tokens_are_taken_and_vectors_refused(desk: Path) -> None:
    write_config(desk, name="else", model="other", optimisers=["random"])
    state = json.loads((desk / "small.yaml").read_text())
    for folder, method in (("tokens", "greedy"), ("vectors", "soft-prompt")):
        state["optimisers"] = [{"name": method, "start": {"found": folder}}]
        (desk / "else.yaml").write_text(json.dumps({**state, "name": folder}))
        done = rlprompt("compare", "else.yaml")
        assert done.exit_code == 2 * (folder == "vectors"), done.stdout + done.stderr
    assert "and other has other weights, to which they mean nothing" in done.stderr
    assert not (desk / "runs" / "vectors" / "summary.json").exists()
