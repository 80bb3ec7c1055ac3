"""`rlprompt doctor` on a machine, on models of several kinds, and on one that is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from command_line import rlprompt, save
from tiny import TinyKind, tiny_lm

from rlprompt.check import machine, model
from rlprompt.check.diagnosis import Diagnosis
from rlprompt.check.report import Finding
from rlprompt.models.lm import FrozenLM
from rlprompt.models.noise import Noise
from rlprompt.models.speed import Speed, loop, measure_speed
from rlprompt.prompt import SoftPrompt, TokenPrompt
from rlprompt.template import Query


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peak and a speed that nobody waits for."""
    monkeypatch.setattr(machine, "matmul_peak", lambda *_: 123.4)
    monkeypatch.setattr(model, "measure_speed", lambda *_: Speed(8.0, 2.0, 16, 3))


class TestMachine:
    def test_without_a_model(self) -> None:
        result = rlprompt("doctor")
        assert result.exit_code == 0
        lines = [line.strip() for line in result.stdout.splitlines()]
        assert {"machine", "packages", "environment"} <= set(lines)
        assert "GFLOP/s           float32 120.0, bfloat16 120.0" in lines
        assert any(line.startswith(f"torch              {torch.__version__}") for line in lines)

    def test_json_has_no_home(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RLPROMPT_CACHE", str(Path.home() / "somewhere"))
        found = json.loads(rlprompt("doctor", "--json").stdout)
        assert found["environment"]["cache"]["folder"] == "~/somewhere"
        assert found["environment"]["variables"]["RLPROMPT_CACHE"] == "~/somewhere"
        assert str(Path.home()) not in json.dumps(found)

    def test_known_troubles_and_their_cures(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(machine, "_load", lambda: 99.0)
        monkeypatch.setattr(machine, "is_cached", lambda _: False)
        monkeypatch.setattr(machine, "LITTLE_DISK", 1 << 60)
        monkeypatch.setattr(machine, "LITTLE_MEMORY", 1 << 60)
        monkeypatch.setattr(machine, "find_spec", lambda _: None)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 999)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/nvidia-smi")
        versions = {"rl-prompt": "0.1", "numpy": ""}
        known = machine._version
        monkeypatch.setattr(machine, "_version", lambda name: versions.get(name, known(name)))
        monkeypatch.setenv("RLPROMPT_CACHE", str(tmp_path / "a" / "b"))
        found = {one.name: one for one in machine.examine_machine().findings}
        assert found["packages"].text == "numpy cannot be found: `pip install numpy`"
        assert found["name"].status == "fail"
        for name in ("gpu", "memory", "threads", "busy", "cache", "pip"):
            assert found[name].status == "warn"
        assert "CPU build" in found["gpu"].text or "driver may be too old" in found["gpu"].text
        assert "OMP_NUM_THREADS=" in found["threads"].text
        assert "set RLPROMPT_CACHE to another disk" in found["cache"].text
        assert found["busy"].text.startswith("99 processes want to run on ")


class TestModel:
    def test_what_a_model_is(self, model: Path) -> None:
        result = rlprompt("doctor", str(model), "--dtype", "float32", "--json")
        assert result.exit_code == 0
        found = json.loads(result.stdout)
        told = found["model"]
        assert (told["kind"], told["packed"], told["vectors"]) == ("causal", "yes", "yes")
        assert told["dtype"] == "float32: given"
        assert told["context"] == 256
        spelt = found["tokenizer"]
        assert (spelt["chat template"], spelt["before each text"]) == (False, [])
        assert spelt["label words"][0].startswith("' good' 1 (Ġgood ")
        assert found["speed"]["times as fast"] == 4.0
        assert [one["name"] for one in found["findings"] if one["status"] == "fail"] == []
        shown = rlprompt("doctor", str(model), "--dtype", "float32").stdout
        assert "\n  label words       ' good' 1 (Ġgood " in shown

    def test_one_that_cannot_be_loaded(self, tmp_path: Path) -> None:
        result = rlprompt("doctor", str(tmp_path / "none"))
        assert result.exit_code == 1
        assert "FAIL  load  model folder" in result.stdout
        broken = json.loads(rlprompt("doctor", str(save(tmp_path, broken=True)), "--json").stdout)
        (failed,) = [one for one in broken["findings"] if one["status"] == "fail"]
        assert "no finite number" in failed["text"]

    def test_troubles_of_kinds_and_their_cures(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Attention by distance is not packed, and float32 noise is nothing.
        found = model.examine_model(tiny_lm("bloom"))
        names = {one.name: one.text for one in found.findings}
        assert "scored row by row, since" in names["packing"]
        assert "noise" not in names
        masked = model.examine_model(tiny_lm("bert"))
        assert "packing" not in {one.name for one in masked.findings}
        assert masked.facts["tokenizer"]["mask"] == "<mask>"
        noisy = Noise(alone=0.5, shuffled=0.0, batches=0.0, plain=0.0, spread=1.0)
        monkeypatch.setattr(FrozenLM, "own_noise", property(lambda _: noisy))
        monkeypatch.setattr(FrozenLM, "vectors_obstacle", "it sees ids")
        monkeypatch.setattr(model, "SHORT_CONTEXT", 1000)
        monkeypatch.setattr(model, "quantisation", lambda _: "bitsandbytes")
        names = {one.name: one.text for one in model.examine_model(tiny_lm()).findings}
        assert {"noise", "vectors", "context", "gradient"} <= set(names)
        assert "up to 0.5 nats apart, where two prompts differ by 1" in names["noise"]


class TestSpeed:
    def test_the_usual_way_gives_the_same_figures(self) -> None:
        lm = tiny_lm()
        queries = [Query((5, 6, 7), (), ((8,), (9,))), Query((5, 6), (3,), ((8,), (9,)))]
        prompts = [TokenPrompt((10, 11)), TokenPrompt((12,))]
        ours = lm.score(prompts, queries, over="candidates")
        for at_end in (False, True):
            torch.testing.assert_close(loop(lm, prompts, queries, head_at_end=at_end), ours)
        soft = [SoftPrompt(lm.embeddings([10, 11]))]
        torch.testing.assert_close(loop(lm, soft, queries), ours[:1])

    @pytest.mark.parametrize("kind", ["llama", "bert"])
    def test_both_are_timed(self, kind: TinyKind) -> None:
        found = measure_speed(tiny_lm(kind), limit=0.05)
        assert found.ours > 0
        assert (found.ratio is None) == (kind == "bert")


def test_what_is_said_is_in_a_line_each() -> None:
    found = Diagnosis({"a": {"x": ["1", "2\n"], "longer": False}}, (Finding("b", "fail", "c"),))
    assert found.lines() == [
        *("a", "  x       1", "          2\\n", "  longer  no", "", "FAIL  b  c"),
    ]
