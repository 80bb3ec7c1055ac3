"""The searches of a study on the machines of a Ray cluster.

Ray decides what runs where, and begins again elsewhere what a lost machine was at; how that loses
nothing is in `rlprompt.studies.remote`. The study stays in its folder on this machine, which is one
of the cluster.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import itertools
import logging
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rlprompt._utils.plugins import own_modules
from rlprompt._utils.text import error_line
from rlprompt.models.lm import FrozenLM
from rlprompt.store.database import StoreError
from rlprompt.studies.remote import ModelReference, StudyServer, Worker
from rlprompt.studies.search_queue import SearchQueue

logger = logging.getLogger(__name__)

# How often the head looks whether all is well.
POLL_SECONDS = 0.5
# How often a process is started again after it or its machine was lost.
RETRIES = 5
# Bytes of shared memory on a machine that we start Ray on, near the least that it takes: what
# travels is prompts and rewards.
OBJECT_STORE = 100 * 2**20


class ClusterError(RuntimeError):
    """The cluster cannot do what is asked. The message says why and what to do."""


@dataclass(frozen=True)
class Ray:
    """Where searches run, and what each of them needs.

    Args:
        address: `auto` for the cluster that this machine is part of, `local` for this machine
            alone, or the `host:port` of a cluster that this machine is part of.
        num_cpus: Processor cores a search.
        num_gpus: GPUs a search; a half lets two share one.
        workers: Processes at most, each with the model in memory; they start as there is room.
        wait: Seconds in which a machine that is large enough may join the cluster.
        load: Loads a model in another process, given its name; by default `FrozenLM.load`, in the
            dtype and revision that the model has here.

    Raises:
        ValueError: A setting is out of range, or Ray is not installed.
    """

    address: str = "auto"
    num_cpus: float = 1
    num_gpus: float = 0
    workers: int = 64
    wait: float = 30
    load: Callable[[str], FrozenLM] | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if importlib.util.find_spec("ray") is None:
            raise ValueError("`executor: ray` needs another package: pip install 'rlprompt[ray]'")
        if self.address.startswith("ray://"):
            raise ValueError(
                f"address {self.address!r} is one of Ray's client, which cannot reach the study's "
                "files; run this on a machine of the cluster, with `address: auto`"
            )
        if self.num_cpus < 0 or self.num_gpus < 0 or not self.num_cpus + self.num_gpus:
            raise ValueError(
                "num_cpus and num_gpus must be 0 or more and not both 0, got "
                f"{self.num_cpus} and {self.num_gpus}"
            )
        if self.workers < 1 or self.wait < 0:
            raise ValueError(
                f"workers must be 1 or more and wait 0 seconds or more, got {self.workers} and "
                f"{self.wait}"
            )

    @property
    def needs(self) -> dict[str, float]:
        """What a search takes, by Ray's names."""
        return {"CPU": self.num_cpus, "GPU": self.num_gpus}


def searched(queue: SearchQueue, settings: Ray) -> Generator[tuple[str, str]]:
    """Do the searches of a study on a cluster, until all have come to an end.

    Close it (`contextlib.closing`) to leave the cluster before that.

    Args:
        queue: What is to be done; nothing is claimed here.
        settings: Where, and what a search needs.

    Yields:
        The name of a search that has come to an end, and the traceback if an error ended it.

    Raises:
        ClusterError: There is no cluster, no machine is large enough, a model cannot be loaded, or
            a search loses its machine again and again.
        StoreError: An answer could not be kept.
    """
    searches = {
        name: dataclasses.replace(one, lm=ModelReference(one.lm, settings.load))
        for name, one in queue.searches.items()
    }
    with _connected(settings) as ray, contextlib.ExitStack() as stack:
        for module in own_modules():
            ray.cloudpickle.register_pickle_by_value(module)
            stack.callback(ray.cloudpickle.unregister_pickle_by_value, module)
        server = ray.remote(StudyServer).options(num_cpus=0, scheduling_strategy=_here(ray))
        cache = queue.cache and queue.cache.absolute()
        server = server.remote(queue.folder.absolute(), searches, queue.config, cache)
        stack.callback(ray.kill, server)
        workers, room, left = _Workers(ray, server, settings), _Room(settings), _unfinished(queue)
        stack.callback(workers.close)
        while left:
            if not workers.busy and queue.has_work():
                workers.hire(min(len(left), settings.workers))
            workers.wait()
            room.check(ray.nodes())
            before, left = left, _unfinished(queue)
            for name in sorted(before - left):
                yield name, ray.get(server.traceback.remote(name))


class _Workers:
    """The processes at work; Ray gives them room when there is some, and replaces lost ones."""

    def __init__(self, ray: Any, server: Any, settings: Ray) -> None:
        self._ray = ray
        self._server = server
        self._actor = ray.remote(Worker).options(
            num_cpus=settings.num_cpus,
            num_gpus=settings.num_gpus,
            max_restarts=RETRIES,
            max_task_retries=-1,  # as often as it is started again,
        )
        self._workers: dict[Any, Any] = {}
        self._numbers = itertools.count()

    @property
    def busy(self) -> bool:
        """Whether there are any, at work or waiting for room."""
        return bool(self._workers)

    def hire(self, count: int) -> None:
        """Start some."""
        for _ in range(count):
            worker = self._actor.remote(next(self._numbers))
            self._workers[worker.work.remote(partial(_call, self._server))] = worker

    def wait(self) -> None:
        """Wait a moment, and let those go that have nothing to do any more.

        Raises:
            ClusterError: One cannot work.
            StoreError: The store cannot be used.
        """
        if not self._workers:
            time.sleep(POLL_SECONDS)
            return
        done, _ = self._ray.wait(list(self._workers), timeout=POLL_SECONDS)
        for work in done:
            self._check(work)
            self._ray.kill(self._workers.pop(work))  # makes room for those that wait

    def close(self) -> None:
        """End them all."""
        for worker in self._workers.values():
            self._ray.kill(worker)

    def _check(self, work: Any) -> None:
        errors = self._ray.exceptions
        try:
            self._ray.get(work)
        except errors.RayTaskError as error:
            if isinstance(error.cause, StoreError):
                raise error.cause from None
            raise ClusterError(f"a process of the cluster failed: {error.cause}") from error
        except errors.RayError as error:
            raise ClusterError(
                f"a process of the cluster was lost {RETRIES + 1} times, or the one that holds the "
                f"store was ({error_line(error)}); run the same command again, which scores "
                "nothing twice"
            ) from error


def _call(server: Any, method: str, *args: Any, **kwargs: Any) -> Any:
    """What a method of the server gives."""
    import ray

    return ray.get(getattr(server, method).remote(*args, **kwargs))


def _here(ray: Any) -> Any:
    """This machine, whose disk has the study, as Ray's place for an actor."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _unfinished(queue: SearchQueue) -> set[str]:
    return {run.name for run in queue.runs() if run.state in ("waiting", "running")}


@contextlib.contextmanager
def _connected(settings: Ray) -> Iterator[Any]:
    """Ray, connected; a connection that was there before is used and left as it is."""
    import ray

    if ray.is_initialized():
        yield ray
        return
    local: dict[str, Any] = {}
    if settings.address == "local":
        local = {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
        # What we start for a person does not tell others about it.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(
            address=settings.address,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(_own_paths())}},
            log_to_driver=False,
            logging_level=logging.ERROR,
            **local,
        )
    except ConnectionError as error:
        raise ClusterError(
            f"there is no Ray cluster at {settings.address!r} ({error_line(error)}); start one "
            "with `ray start --head`, or set `address: local` for this machine alone"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _own_paths() -> list[str]:
    """Where this process finds modules besides its Python: a checkout, a person's own files."""
    installed = (sys.prefix, sys.base_prefix)
    beside = [os.path.dirname(str(module.__file__)) for module in own_modules()]
    paths = dict.fromkeys(os.path.abspath(path) for path in (*sys.path, *beside))
    return [path for path in paths if os.path.isdir(path) and not path.startswith(installed)]


class _Room:
    """Watches whether some machine is large enough for a search."""

    def __init__(self, settings: Ray) -> None:
        self._settings = settings
        self._since: float | None = None

    def check(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Warn where there is none, and give up after a while.

        Raises:
            ClusterError: There was none for too long.
        """
        needs, alive = self._settings.needs, [n["Resources"] for n in nodes if n["Alive"]]
        if any(all(n.get(kind, 0) >= least for kind, least in needs.items()) for n in alive):
            self._since = None
            return
        there = "; ".join(", ".join(f"{n.get(kind, 0):g} {kind}" for kind in needs) for n in alive)
        wanted = ", ".join(f"{least:g} {kind}" for kind, least in needs.items())
        lack = f"a search needs {wanted}, and no machine of the cluster has them ({there})"
        wait = 0 if self._settings.address == "local" else self._settings.wait
        if self._since is None:
            self._since = time.monotonic()
            if wait:
                logger.warning("%s; waiting for %g s", lack, wait)
        if time.monotonic() - self._since >= wait:
            raise ClusterError(f"{lack}; lower num_cpus and num_gpus of `ray:`, or add a machine")
