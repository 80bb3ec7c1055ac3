"""A study of seven families of optimiser, three on blocks of examples, for tests that kill it.

`main` does the study in three folders of one, in a process of its own: `undisturbed`, in `killed`
until it is killed, so many times and at random moments, and then to its end, and in `shared` by two
processes of which one is killed.
"""

from __future__ import annotations

import math
import os
import signal
import time
import warnings
from dataclasses import dataclass, replace
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from typing import Any

import numpy as np
import torch
from synthetic import SPLITS
from tiny import tiny_lm

from rlprompt.agents.cma_es import CMAES
from rlprompt.agents.greedy import Greedy
from rlprompt.agents.grow import Grow
from rlprompt.agents.ppo import PPO
from rlprompt.agents.random_search import RandomSearch
from rlprompt.agents.soft_prompt import SoftPromptTuning
from rlprompt.search.budget import Budget
from rlprompt.search.memo import Memo, Question, V
from rlprompt.search.optimiser import Optimiser
from rlprompt.search.selection import Selection
from rlprompt.store.store import FILE, Store
from rlprompt.studies.planned_search import PlannedSearch
from rlprompt.studies.search_queue import SearchQueue
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.template import Template

TASK = ClassificationTask(
    "words", SPLITS, Template("{text} {prompt}"), {"good": "great", "bad": "terrible"}
)

# Of the answers of the study, how far the killed processes get together.
SHARE = 0.95
OPTIMISERS: dict[str, Optimiser[Any]] = {
    "random": RandomSearch(batch=4),
    "halving": RandomSearch(batch=8, halving=0.25),
    "greedy": Greedy(batch=4),
    "cma-es": CMAES(dimension=8, population=4),
    "soft-prompt": SoftPromptTuning(batch=2, loss="cross_entropy", average=0.9, restarts=2),
    "ppo": PPO(),
    "grow": Grow(words=20),
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


# Answers that were kept in the study at hand, by this process and all forks.
KEPT = RawValue("i")


@dataclass
class Life:
    """Has this process killed soon after so many answers were kept, or not at all."""

    n_answers: float = math.inf
    seconds: float = 0.0

    def look(self) -> None:
        if KEPT.value >= self.n_answers:
            self.n_answers = math.inf
            # After so long on the processor the kernel kills, at once.
            signal.setitimer(signal.ITIMER_PROF, self.seconds)


@dataclass
class Counted(Memo):
    """Counts the answers that are kept."""

    memo: Memo
    life: Life

    def get(self, question: Question[V]) -> V | None:
        return self.memo.get(question)

    def put(self, question: Question[V], answer: V) -> V:
        answer = self.memo.put(question, answer)
        KEPT.value += 1
        self.life.look()
        return answer


class CountedQueue(SearchQueue):
    life: Life

    def memo(self, name: str) -> Memo:
        return Counted(super().memo(name), self.life)


def work(folder: Path, n_prompts: int, life: Life | None = None) -> None:
    life = life or Life()
    life.look()
    queue = CountedQueue(folder, jobs(n_prompts), {})
    queue.life = life
    with queue:
        for name in queue.claimed():
            queue.run(name)


def undisturbed(folder: Path, n_prompts: int) -> float:
    """Work where nothing disturbs it; the seconds of processor time for an answer."""
    KEPT.value, before = 0, time.process_time()
    work(folder, n_prompts)
    return (time.process_time() - before) / int(KEPT.value)


def killed(folder: Path, n_prompts: int, n_kills: int, seconds: float, seed: int) -> None:
    """Work that is killed again and again, all along the study, and then ends.

    What is drawn is how many answers there are when a process dies, and not how old it is: on a
    machine of any speed some die as they begin, others in each of the searches, and none finishes.
    """
    rng = np.random.default_rng(seed)
    n_between, KEPT.value = SHARE * KEPT.value / n_kills, 0
    killed_in = set()
    for i in range(n_kills):
        life = Life(n_between * (i + rng.random() - 0.5), rng.exponential(seconds))
        child = os.fork()
        if not child:
            work(folder, n_prompts, life)
            os._exit(0)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), f"finished after {i} kills"
        if (folder / FILE).exists():
            with Store(folder / FILE, read_only=True) as store:
                killed_in |= {run.name for run in store.runs() if run.owner}
    assert len(killed_in) > len(OPTIMISERS) / 2, f"killed in {killed_in} alone"
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
    killed(folder / "killed", n_prompts, n_kills, seconds, seed)
    share(folder / "shared", n_prompts)
