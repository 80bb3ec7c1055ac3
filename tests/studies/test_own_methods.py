"""Methods of a person's own in a study: another process knows them again, and what they were."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import ROWS, rlprompt, save, write_config, write_data
from small_experiments import experiment, task
from tiny import tiny_lm

from rlprompt.agents.play import Play
from rlprompt.config.registry import entries, make_optimiser
from rlprompt.search.budget import Budget
from rlprompt.store.changes import SOURCE
from rlprompt.store.database import StoreError
from rlprompt.store.store import FILE, Store, as_json
from rlprompt.store.summary import read_summary
from rlprompt.studies.planned_search import PlannedSearch
from rlprompt.studies.run import compare

METHODS = """
import os
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from halves import halved
from rlprompt import AskTell
from rlprompt.agents import Play


def learn(env, episodes):
    for i in range(episodes):
        if i == 3 and "CUT" in os.environ:
            os._exit(9)
        env.reset()
        terminated = False
        while not terminated:
            _, _, terminated, _, _ = env.step(env.action_space.sample())


def bound(episodes):
    def learn_so_many(env):
        learn(env, episodes)
    return learn_so_many


def played(episodes: int = 6):
    return Play(bound(episodes))


def partly(episodes: int = 6):
    return Play(partial(learn, episodes=episodes))


class Chooser:
    def __init__(self, words):
        self.words, self.changed, self.rng = words, torch.nn.ReLU, np.random.default_rng(0)

    def play(self, env):
        learn(env, len(self.words))


def chosen():
    return Play(Chooser({"good", "bad", "film", "awful", "nice"}).play)


class Plain:
    searches = "tokens"

    def __init__(self, batch: int = 2):
        self.batch, self.chooser = batch, Chooser(["good", "bad"])

    def run(self, objective, space, rng):
        while True:
            objective.evaluate([space.sample(rng) for _ in range(self.batch)])


@dataclass(frozen=True)
class Fields(AskTell):
    searches = "tokens"
    step: object = halved
    chooser: Chooser = field(default_factory=lambda: Chooser([]))

    def ask(self, space, n_prompts, rng):
        for _ in range(self.step(n_prompts)):
            yield [space.sample(rng)]
"""
NAMES = ("played", "partly", "chosen", "Plain", "Fields")
HALVES = "def halved(n): return n // 2\n"
COMPARE = ("compare", "small.yaml")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "given")
    write_data(tmp_path, ROWS)
    write(tmp_path)
    return tmp_path


def write(
    folder: Path,
    names: Sequence[str] = NAMES,
    methods: str = METHODS,
    halves: str = HALVES,
    **changes: Any,
) -> None:
    (folder / "methods.py").write_text(methods)
    (folder / "halves.py").write_text(halves)
    optimisers = [{"class": f"methods:{name}"} for name in names]
    given: dict[str, Any] = {"optimisers": optimisers, "model": str(folder / "given")}
    write_config(folder, **(given | changes))


def elsewhere(*arguments: str, **variables: str) -> int:
    """The exit code of `rlprompt` in a process that is no fork, with a memory of its own."""
    command = [sys.executable, "-m", "rlprompt.cli", *arguments]
    given = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(command, env=given, check=False, capture_output=True).returncode


def answers(folder: Path) -> dict[str, tuple[str, int, int | None]]:
    with Store(folder / "runs" / "small" / FILE, read_only=True) as store:
        return {run.name: (run.state, run.used, run.strayed) for run in store.runs()}


def test_another_process_goes_on_with_them(folder: Path) -> None:
    assert elsewhere(*COMPARE, CUT="here") == 9
    begun = answers(folder)
    assert begun["played-seed0"][:2] == ("running", 12)
    assert rlprompt("work", "runs/small").exit_code == 0
    ended = answers(folder)
    assert {(state, strayed) for state, _, strayed in ended.values()} == {("finished", None)}
    assert len(ended) == len(NAMES) + 1
    assert rlprompt(*COMPARE).exit_code == 0
    assert answers(folder) == ended
    (played,) = (
        run for run in read_summary(folder / "runs" / "small").runs if run.name == "played-seed0"
    )
    assert set(played.source) == {"methods.py", "halves.py"}
    assert played.settings["function"]["closure"]["episodes"] == 6


def test_an_edited_file_of_theirs_is_another_study(folder: Path) -> None:
    write(folder, names=("Plain", "played"))
    assert rlprompt(*COMPARE).exit_code == 0
    there = answers(folder)
    for changes in (
        {"methods": METHODS + "# edited\n"},
        {"halves": "halved = abs\n"},
        {"halves": "halved = abs\n", "seeds": [0, 1]},
    ):
        write(folder, names=("Plain", "played"), **changes)
        done = rlprompt(*COMPARE)
        assert done.exit_code == 2
        (said,) = re.findall("with other settings:\n(.*?)error: Undo", done.stderr, re.DOTALL)
        file = next(f"{name}.py" for name in ("methods", "halves") if name in changes)
        assert said.splitlines() == [
            f"error:   {file}, which {name} is made of, has changed since"
            for name in ("Plain", "Play")
        ]
        assert answers(folder) == there
    # What a prompt is worth depends on no method.
    assert rlprompt("verify", "runs/small").exit_code == 0
    write(folder, names=("Plain", "played"), seeds=[0, 1])
    assert rlprompt(*COMPARE).exit_code == 0
    assert len(answers(folder)) == 2 * len(there)


class Loop:
    """Keeps what it has seen."""

    def __init__(self, rate: float = 0.5) -> None:
        self.rate, self.returns, self.env = rate, list[float](), None

    def __call__(self, env: Any) -> None:
        self.env = env
        while True:
            env.reset()
            reward, terminated = 0.0, False
            while not terminated:
                _, reward, terminated, _, _ = env.step(env.action_space.sample())
            self.returns.append(reward)


def test_a_loop_that_has_changed_since_is_another_study(tmp_path: Path) -> None:
    def again(loop: Loop) -> list[int]:
        made = experiment(optimisers={"loop": Play(loop)}, seeds=(0, 1), length=2, budget=400)
        return [run.result.rows for run in compare(made, tmp_path).runs]

    loop = Loop()
    assert again(loop) == again(Loop())
    # What it keeps of its searches is a part of it.
    with pytest.raises(StoreError, match=r"returns: \[\] before, \[") as caught:
        again(loop)
    assert max(map(len, str(caught.value).splitlines())) < 500
    with pytest.raises(StoreError, match=r"rate: 0.5 before, 0.7 now\n"):
        again(Loop(0.7))


def test_a_summary_says_which_files_a_run_was_planned_with(tmp_path: Path) -> None:
    found = compare(experiment(optimisers={"loop": Play(Loop())}, length=2), tmp_path)
    (section,) = found.sections
    run = replace(section.runs[0], source={"loop.py": "as it was then"})
    (entry,) = replace(found, sections=(replace(section, runs=(run,)),)).summary().runs
    assert entry.source == {"loop.py": "as it was then"}


# Of each of our methods a hash of the settings that a study records of it where none is given:
# another one makes every study with it a different one (see `LATER`).
SETTINGS = {
    "bbt-v2": "181d6090bb0eaf57",
    "bdpl": "3ff53cf759383132",
    "cma-es": "059da2df641f85d6",
    "demonstrations": "c0259227881667df",
    "differential-evolution": "93009ff15b98b3cf",
    "gcg": "d63d9d2ad50ae14d",
    "genetic": "24fcc94f8f1e7db1",
    "greedy": "48285a576ca99e3b",
    "grow": "77240ce7fcbb6716",
    "instructions": "3ed4655eb7da73af",
    "ppo": "ef51074e3d16f70f",
    "ppo-edit": "0084497208f08f77",
    "ppo-soft": "4935391aa44d2b6b",
    "prefix": "b4676b93440706cc",
    "random": "f757c4eb6d0e399a",
    "random-soft": "54786863ea0b5b1d",
    "rl": "5c82b491722e0ff3",
    "rl-soft": "99530e972eaa60ff",
    "soft-prompt": "b4676b93440706cc",
    "soft-q": "ab797d45447c502d",
}


@pytest.mark.parametrize("name", sorted(entries("optimiser")))
def test_our_own_methods_are_in_a_study_as_they_ever_were(name: str) -> None:
    optimiser: Any = make_optimiser(name, {})
    planned = PlannedSearch(task(), tiny_lm(), optimiser, Budget(8, target=0.5), 0, 3, ())
    settings = json.dumps(as_json(planned.spec["settings"]), sort_keys=True)
    hashed = hashlib.blake2b(settings.encode(), digest_size=8).hexdigest()
    assert hashed == SETTINGS.get(name), settings
    assert planned.spec["budget"] == {"rows": 8, "target": 0.5}  # and no infinities
    assert SOURCE not in planned.spec
