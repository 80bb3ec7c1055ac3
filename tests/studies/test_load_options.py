"""How models are loaded, in an experiment file: kept with the study, and asked for again."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import rlprompt, save, summary, write_config

from rlprompt.config.yaml_file import load_config
from rlprompt.models.fingerprint import Fingerprint
from rlprompt.models.lm import FrozenLM
from rlprompt.studies.remote import ModelReference

EAGER = {"attn_implementation": "eager"}


def two(desk: Path, **changes: object) -> None:
    """The same model twice, loaded in two ways."""
    save(desk / "m")
    write_config(desk, models={"usual": "m", "eager": {"name": "m", "load": EAGER}}, **changes)
    state = json.loads((desk / "small.yaml").read_text())
    del state["model"]
    (desk / "small.yaml").write_text(json.dumps(state))


def test_one_model_loaded_in_two_ways_is_two_models(desk: Path) -> None:
    two(desk, optimisers=["random"])
    result = rlprompt("compare", "small.yaml")
    assert result.exit_code == 0, result.output
    marks = [one["fingerprint"] for one in summary(desk / "runs" / "small")["models"]]
    assert [mark["attention"] for mark in marks] == ["", "eager"]
    assert [mark["options"] for mark in marks] == ["", json.dumps(EAGER)]
    assert marks[0]["weights"] == marks[1]["weights"]
    # It is loaded so again by whoever needs it.
    assert rlprompt("compare", "small.yaml").exit_code == 0
    assert rlprompt("verify", "runs/small").exit_code == 0
    result = rlprompt("export", "runs/small", "--best", "found", "--model", "eager")
    assert result.exit_code == 0, result.output
    facts = json.loads((desk / "found" / "prompt.json").read_text())
    assert facts["model"]["attention"] == "eager"
    result = rlprompt("score", "found", "small.yaml")
    assert result.exit_code == 0, result.output
    mark = Fingerprint(**{key: marks[1][key] for key in marks[1] if key != "digest"})
    assert mark.digest == marks[1]["digest"]


def test_another_process_loads_it_the_same_way(desk: Path) -> None:
    lm = FrozenLM.load(str(save(desk / "m")), dtype="float32", load=EAGER)
    live = ModelReference(lm).live()
    assert live.fingerprint == lm.fingerprint
    assert live.model.config._attn_implementation == "eager"


def test_what_is_said_at_the_top_is_for_every_model_without_its_own(desk: Path) -> None:
    two(desk, load={"device_map": {"": "cpu"}})
    loads = [model.load for _, model in load_config(desk / "small.yaml").all_models]
    assert loads == [{"device_map": {"": "cpu"}}, EAGER]


def test_a_study_is_refused_where_its_model_is_loaded_otherwise(desk: Path) -> None:
    save(desk / "m")
    write_config(desk, model="m", optimisers=["random"])
    assert rlprompt("compare", "small.yaml").exit_code == 0
    write_config(desk, model="m", optimisers=["random"], load=EAGER)
    result = rlprompt("compare", "small.yaml")
    assert result.exit_code == 2
    assert 'load.attn_implementation: null before, "eager" now' in result.stderr


def test_a_mistake_is_one_line_with_its_place(desk: Path) -> None:
    write_config(desk, model={"name": "m", "load": {"trust_remote_code": True}})
    result = rlprompt("compare", "small.yaml")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "small.yaml:1: model.load: trust_remote_code cannot be given" in line
