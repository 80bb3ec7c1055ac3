"""A study on a Ray cluster of two small nodes on this machine, for tests that take one away.

`run_on_cluster` does the study in a folder, in a process of its own, and takes a node away while
both have a search; `run_alone` does it without a cluster.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from synthetic import HiddenWords
from tiny import tiny_lm

from rlprompt.agents.greedy import Greedy
from rlprompt.agents.ppo import PPO
from rlprompt.data.examples import Example
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt
from rlprompt.search.budget import Budget
from rlprompt.search.optimiser import Optimiser
from rlprompt.store.store import FILE, Store
from rlprompt.studies.planned_search import PlannedSearch
from rlprompt.studies.ray_cluster import OBJECT_STORE, Ray, searched
from rlprompt.studies.search_queue import SearchQueue
from rlprompt.types import Floats

N_PROMPTS = 48
LOST = " lost "


@dataclass(frozen=True)
class Noted(HiddenWords):
    """Notes in a file which process scored how many prompts of train.

    Args:
        notes: The file.
        waits: Whether a process that has scored some waits until a node was lost.
    """

    notes: Path = Path()
    waits: bool = False
    fingerprint: str = "noted"

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        if examples == self.splits.train and len(prompts) > 1:
            while self.waits and self._has_scored() and LOST not in self.notes.read_text():
                time.sleep(0.05)
            note(self.notes, f"{os.getpid()} scored {len(prompts)}")
        return super().rewards(lm, prompts, examples)

    def _has_scored(self) -> bool:
        return f"{os.getpid()} scored" in self.notes.read_text()


def note(notes: Path, line: str) -> None:
    with notes.open("a") as file:
        file.write(f"{line}\n")


def load(notes: Path, name: str) -> FrozenLM:
    note(notes, f"{os.getpid()} loaded")
    assert name == "tiny-llama"
    return tiny_lm()


def jobs(notes: Path, *, waits: bool = False) -> dict[str, PlannedSearch]:
    optimisers: dict[str, Optimiser[Any]] = {"ppo": PPO(prompts=8), "greedy": Greedy(batch=8)}
    task = Noted(notes=notes, waits=waits)
    budget = Budget(N_PROMPTS * len(task.splits.train))
    return {
        f"{name}-{seed}": PlannedSearch(
            task, tiny_lm(), optimiser, budget, seed=seed, length=3, banned=()
        )
        for seed in range(2)
        for name, optimiser in optimisers.items()
    }


def run_alone(folder: Path) -> None:
    with SearchQueue(folder, jobs(folder / "notes"), {}) as queue:
        for name in queue.claimed():
            queue.run(name)


def take_away(folder: Path, take: partial[None]) -> None:
    """Wait until two searches are under way at once, on a node each, and take one node away."""
    under_way: list[int] = []
    while len(under_way) < 2:
        time.sleep(0.05)
        if (folder / FILE).exists():
            with Store(folder / FILE, read_only=True) as store:
                under_way = [run.used for run in store.runs() if run.owner and run.used]
    take()
    note(folder / "notes", f"0{LOST}with {under_way}")


def run_on_cluster(folder: Path) -> None:
    from ray.cluster_utils import Cluster

    small: dict[str, Any] = {"object_store_memory": OBJECT_STORE, "include_dashboard": False}
    # A node that does not answer is dead after a second or two, and not after half a minute.
    health = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 500,
        "health_check_failure_threshold": 3,
    }
    make: Any = Cluster  # its methods are not annotated
    head = {"num_cpus": 1, "_system_config": health, **small}
    cluster = make(initialize_head=True, head_node_args=head)
    try:
        lost = cluster.add_node(num_cpus=1, **small)
        taker = threading.Thread(
            target=take_away,
            args=(folder, partial(cluster.remove_node, lost, allow_graceful=False)),
            daemon=True,  # should the study fail before
        )
        notes = folder / "notes"
        with SearchQueue(folder, jobs(notes, waits=True), {}) as queue:
            taker.start()
            # A process on each node, and none that takes over from those that end.
            settings = Ray(cluster.address, workers=2, load=partial(load, notes))
            ended = searched(queue, settings)
            with contextlib.closing(ended):
                for _, error in ended:
                    assert not error, error
            taker.join()
    finally:
        cluster.shutdown()
