"""Studies on a Ray cluster: a lost machine changes nothing, and what cannot work says so."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from pathlib import Path
from typing import Any

import cluster_study
import forks
import psutil
import pytest
from command_line import ROWS, rlprompt, save, write_config, write_data
from forks import forked
from study_results import ledgers, results

from rlprompt.models.lm import FrozenLM
from rlprompt.store.store import FILE, Store
from rlprompt.studies.ray_cluster import ClusterError, Ray, _Room
from rlprompt.studies.remote import ModelReference

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="Ray is not installed")


def notes_of(folder: Path) -> list[str]:
    return (folder / "notes").read_text().splitlines()


def scored(notes: list[str]) -> int:
    return sum(int(line.split()[-1]) for line in notes if " scored " in line)


def descendants() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


@pytest.mark.slow
def test_a_study_that_loses_a_node_ends_as_if_undisturbed(tmp_path: Path) -> None:
    for name in ("cluster", "alone"):
        (tmp_path / name).mkdir()
    # Every warning is an error there, as it is here.
    with forked(cluster_study.run_on_cluster, tmp_path / "cluster") as process:
        cluster_study.run_alone(tmp_path / "alone")
        process.join(300)
    assert process.exitcode == 0
    alone, notes = notes_of(tmp_path / "alone"), notes_of(tmp_path / "cluster")
    assert results(tmp_path / "cluster") == results(tmp_path / "alone")
    assert ledgers(tmp_path / "cluster") == ledgers(tmp_path / "alone")
    # The node was lost while two searches were under way. What it had paid for was kept: no more
    # was scored twice than the batch that it was at.
    assert sum(cluster_study.LOST in line for line in notes) == 1
    assert scored(alone) <= scored(notes) <= scored(alone) + 8
    # Every process loaded the model once, for all of its searches.
    workers = {line.split()[0] for line in notes if " scored " in line}
    loaded = [line.split()[0] for line in notes if " loaded" in line]
    assert len(loaded) == len(set(loaded))
    assert workers <= set(loaded)


OWN_TASK = '''
import os
import time
from dataclasses import dataclass

import numpy as np
from beside import SPLITS

BATCH = 4
BATCHES = []  # of searches, in this process


@dataclass(frozen=True)
class Letters:
    """How often a letter is in a prompt."""

    letter: str
    name = fingerprint = "letters"
    splits = SPLITS

    def rewards(self, lm, prompts, examples):
        if len(prompts) == BATCH:
            BATCHES.append(prompts)
            if len(BATCHES) > 1:
                time.sleep(float(os.environ.get("SECONDS", 0)))
        texts = [lm.decode(prompt.ids) for prompt in prompts]
        return np.array([[text.count(self.letter) / 9] * len(examples) for text in texts])
'''
# A process for both searches, each of which would take seconds to be there.
ALONE = {"address": "local", "workers": 1}
BESIDE = """
from rlprompt.data.examples import Example, Splits

SPLITS = Splits(*((Example({"text": f"{part} {i}"}, "a"),) for i, part in enumerate("xyz")))
"""


@pytest.mark.slow
def test_ctrl_c_leaves_a_study_that_can_go_on_and_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(OWN_TASK)
    (tmp_path / "beside.py").write_text(BESIDE)
    changes: dict[str, Any] = {
        "model": str(save(tmp_path / "model")),
        "task": {"class": "own.py:Letters", "args": {"letter": "e"}},
        "optimisers": [{"name": "random", "batch": 4}, {"name": "ppo", "prompts": 4}],
        "budget": 60,
    }
    write_data(tmp_path, ROWS)
    for name, more in (("here", {}), ("ray", {"executor": "ray", "ray": ALONE})):
        write_config(tmp_path, **changes, **more)
        (tmp_path / "small.yaml").rename(tmp_path / f"{name}.yaml")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECONDS", "600")  # no search ends on its own
    before = descendants()
    said = tmp_path / "said"
    with forked(forks.rlprompt, said, "compare", "ray.yaml", "--out", "ray") as process:
        deadline = time.monotonic() + 200
        while process.is_alive() and time.monotonic() < deadline and not begun(tmp_path / "ray"):
            time.sleep(0.1)
        assert process.is_alive(), said.with_suffix(".err").read_text()
        assert process.pid
        started = descendants() - before
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        process.join(60)
    assert (process.exitcode, said.with_suffix(".err").read_text()) == (130, "interrupted\n")
    _, alive = psutil.wait_procs([psutil.Process(p) for p in started if psutil.pid_exists(p)], 10)
    assert not alive
    monkeypatch.delenv("SECONDS")
    for out in ("ray", "here"):
        ended = rlprompt("compare", "here.yaml", "--out", out)
        assert ended.exit_code == 0, ended.stderr
    assert results(tmp_path / "ray") == results(tmp_path / "here")
    assert ledgers(tmp_path / "ray") == ledgers(tmp_path / "here")


def begun(folder: Path) -> bool:
    if not (folder / FILE).exists():
        return False
    with Store(folder / FILE, read_only=True) as store:
        return any(run.used for run in store.runs())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"address": "ray://head:10001"}, "run this on a machine of the cluster"),
        ({"num_cpus": 0}, "must be 0 or more and not both 0"),
        ({"num_gpus": -1}, "must be 0 or more and not both 0"),
        ({"workers": 0}, "workers must be 1 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ray(**settings)


def test_without_ray_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'rlprompt\[ray\]'"):
        Ray()


def nodes(*resources: dict[str, float]) -> list[dict[str, Any]]:
    return [{"Alive": True, "Resources": each} for each in resources]


def test_what_no_machine_has_is_said_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    small, large = {"CPU": 4.0}, {"CPU": 64.0, "GPU": 8.0}
    lost = [{"Alive": False, "Resources": large}]
    room = _Room(Ray(num_gpus=8, wait=30))
    room.check(nodes(small, large))
    room.check([*nodes(small), *lost])
    clock = 29
    room.check(nodes(small))
    room.check(nodes(small, large))
    clock = 58
    room.check(nodes(small))
    clock = 89
    with pytest.raises(ClusterError, match=r"needs 1 CPU, 8 GPU, and no machine .* has them"):
        room.check(nodes(small))
    with pytest.raises(ClusterError, match="lower num_cpus and num_gpus"):
        _Room(Ray("local", num_gpus=8)).check(nodes(small))


def test_a_distant_model_is_the_same_model_or_an_error(lm: FrozenLM, tmp_path: Path) -> None:
    path = save(tmp_path / "model")
    here = FrozenLM.load(str(path), dtype="float32")
    live = ModelReference(here).live()
    assert live.fingerprint.digest == here.fingerprint.digest
    assert live.name == here.name
    other = ModelReference(here, lambda name: FrozenLM.load(name, dtype="bfloat16"))
    with pytest.raises(ValueError, match=r"another model on this machine, .*dtype"):
        other.live()
