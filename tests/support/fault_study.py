"""A study of six families of optimiser, two on blocks of examples, for tests that kill it.

`python fault_study.py FOLDER N_PROMPTS N_KILLS SEED` does the study in three folders of that one:
`undisturbed`, in `killed` until it is killed, that many times and at random moments, and then to
its end, and in `shared` by two processes of which one is killed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from synthetic import SPLITS
from tiny import tiny_lm

from rlprompt.agents.cma_es import CMAES
from rlprompt.agents.greedy import Greedy
from rlprompt.agents.ppo import PPO
from rlprompt.agents.random_search import RandomSearch
from rlprompt.agents.soft_prompt import SoftPromptTuning
from rlprompt.search.budget import Budget
from rlprompt.search.optimiser import Optimiser
from rlprompt.search.selection import Selection
from rlprompt.store.store import FILE, Store
from rlprompt.studies.study import PlannedSearch, Study
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.template import Template

TASK = ClassificationTask(
    "words", SPLITS, Template("{text} {prompt}"), {"good": "great", "bad": "terrible"}
)

# Of the processor time of the study, what the killed processes have together, on average: they get
# far and do not finish, on a machine of any speed.
SHARE = 0.5
OPTIMISERS: dict[str, Optimiser[Any]] = {
    "random": RandomSearch(batch=4),
    "halving": RandomSearch(batch=8, halving=0.25),
    "greedy": Greedy(batch=4),
    "cma-es": CMAES(dimension=8, population=4),
    "soft-prompt": SoftPromptTuning(batch=2, loss="cross_entropy", average=0.9, restarts=2),
    "ppo": PPO(),
}


def jobs(n_prompts: int) -> dict[str, PlannedSearch]:
    budget = Budget(n_prompts * len(SPLITS.train))
    made = {
        name: PlannedSearch(TASK, tiny_lm(), optimiser, budget, seed=0, length=3, banned=())
        for name, optimiser in OPTIMISERS.items()
    }
    # Ended by dev, for which the task finds a prior of each prompt.
    early = Selection(candidates=8, dev_patience=2)
    return {**made, "early": replace(made["random"], selection=early)}


def work(folder: Path, n_prompts: int) -> None:
    with Study(folder, jobs(n_prompts), {}) as study:
        for name in study.claimed():
            study.run(name)


def work_until(folder: Path, n_prompts: int, seconds: float) -> bool:
    """Work in a fork that is killed after so much time on the processor; whether it was."""
    child = os.fork()
    if not child:
        work(folder, n_prompts)
        os._exit(0)
    clock = (~child << 3) | 2  # the child's processor time: clock_getcpuclockid(3)
    while time.clock_gettime(clock) < seconds and not os.waitid(
        os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT
    ):
        time.sleep(2e-4)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def undisturbed(folder: Path, n_prompts: int) -> float:
    """Work where nothing disturbs it; the seconds of processor time that it took."""
    before = os.times()
    child = os.fork()
    if not child:
        work(folder, n_prompts)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    after = os.times()
    return after.children_user + after.children_system - sum(before[2:4])


def killed(folder: Path, n_prompts: int, n_kills: int, mean_life: float, seed: int) -> None:
    """Work that is killed again and again, and then ends."""
    rng = np.random.default_rng(seed)
    for i in range(n_kills):
        was_killed = work_until(folder, n_prompts, rng.exponential(mean_life))
        assert was_killed, f"finished after {i} kills"
    work(folder, n_prompts)


def prepare() -> None:
    """Make once what all forks use. PyTorch's threads would not live through one."""
    torch.set_num_threads(1)
    tiny_lm().fingerprint  # noqa: B018
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without matplotlib it says that it cannot plot
        import cma  # noqa: F401  # its half second would be where most are killed


def share(folder: Path, n_prompts: int) -> None:
    """Work in two forks, and kill the first while both have a search."""
    children = []
    for _ in range(2):
        children.append(os.fork())
        if not children[-1]:
            work(folder, n_prompts)
            os._exit(0)
    owners: set[str] = set()
    while len(owners) < 2:
        assert not os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT), "ended alone"
        if (folder / FILE).exists():
            with Store(folder / FILE, read_only=True) as store:
                owners = {run.owner for run in store.runs() if run.owner}
        time.sleep(0.01)
    os.kill(children[0], signal.SIGKILL)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    assert os.WIFSIGNALED(statuses[0])
    assert statuses[1] == 0


def main(folder: Path, n_prompts: int, n_kills: int, seed: int) -> None:
    prepare()
    seconds = undisturbed(folder / "undisturbed", n_prompts)
    share(folder / "shared", n_prompts)
    killed(folder / "killed", n_prompts, n_kills, SHARE * seconds / n_kills, seed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
