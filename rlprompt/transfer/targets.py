"""Models and tasks that found prompts go to, from the names that a person gives."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from rlprompt._utils.suggest import advice
from rlprompt.config.problems import checked
from rlprompt.config.registry import entries
from rlprompt.config.schema import Config, ModelConfig
from rlprompt.config.tasks import NamedTaskConfig, TaskConfig
from rlprompt.config.yaml_file import load_config
from rlprompt.models.lm import FrozenLM
from rlprompt.models.loading import model_names
from rlprompt.models.pool import ModelPool, PooledLM
from rlprompt.models.served.lm import ServedLM
from rlprompt.store.store import Store
from rlprompt.studies.loading import load_experiments, load_model, load_task, longest, settle
from rlprompt.studies.run import kept_dtypes
from rlprompt.tasks.base import Task
from rlprompt.transfer.run import MISTAKES, TargetTask

# What an experiment file has to say besides its tasks, which alone are wanted of it here.
_BESIDES = {"name": "tasks", "model": "none", "optimisers": ["random"], "budget": 1}


class Destinations:
    """A study's own models and tasks, and those that are named. One model is in memory at a time.

    A task that cannot be had is there, and says so when it is reached, as a model is: the others
    go on.

    Args:
        config: What the study was made from, with the device of the day.
        store: The study's.
        models: Names of other models, as for `FrozenLM.load`; or addresses of servers, with
            `NAME@` before one that has several models.
        tasks: Names of tasks: of the study's, of those that are registered, or YAML files.
        dtype: Of the other models; the study's stay as they were.

    Attributes:
        experiments: The study's.
        models: Names of other models.
        tasks: The study's first, then those that are named.

    Raises:
        ValueError: The study cannot be loaded, or has several splits of its tasks.
        AssetError: Its bundled data or model could not be fetched.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        models: Sequence[str] = (),
        tasks: Sequence[str] = (),
        dtype: str = "auto",
    ) -> None:
        if len(config.split_seeds) > 1:
            raise ValueError(
                f"the study has {len(config.split_seeds)} splits of each task, and a prompt found "
                "on one may have been trained on another's test examples, so none can be "
                "transferred; export one with `rlprompt export --best DIR --run NAME` and score "
                "it with `rlprompt score`"
            )
        self._pool = ModelPool()
        self._device, self._dtype, self._longest = config.device, dtype, longest(config)
        dtypes, begun = kept_dtypes(config, store), store.spec.get("runs", ())
        self.experiments = load_experiments(config, dtypes, self._pool, begun)
        for lm in self.own_models():
            if isinstance(lm, ServedLM):
                lm.keep_answers(store.requests.looked_up())
        self.models = models
        titles = dict.fromkeys(one.task_name for one in self.experiments)
        self.tasks = [
            TargetTask(title, partial(self._own_task, title, section), title in tasks)
            for title, (_, _, section) in zip(titles, config.split_tasks, strict=True)
        ]
        for name in tasks:
            if name not in titles:
                self._add(name)

    def own_models(self) -> list[FrozenLM]:
        """The study's."""
        return list({one.lm.name: one.lm for one in self.experiments}.values())

    def load(self, name: str) -> FrozenLM:
        """Another model, in the place of the one that is in memory.

        Raises:
            ValueError: It cannot be loaded.
            AssetError: The bundled model could not be fetched.
        """
        served, _, address = name.rpartition("@")
        if address.startswith(("http://", "https://")):
            section = checked(ModelConfig, name=served, url=address)
            return load_model(section, self._device, self._dtype)
        make = partial(load_model, ModelConfig(name=name), self._device)
        try:
            return PooledLM(name, make, self._dtype, self._pool)
        except ValueError as error:
            near = difflib.get_close_matches(name, model_names(), 1)
            if not near:
                raise
            raise ValueError(f"{error} Did you mean {near[0]!r}?") from error

    def _add(self, name: str) -> None:
        """Add the tasks of a name."""
        try:
            for title, section in _sections(name, [one.title for one in self.tasks]):
                self._add_task(name, title, section, load_task(section))
        except MISTAKES as error:
            self.tasks.append(TargetTask(name, partial(_refuse, str(error))))

    def _add_task(self, name: str, title: str, section: TaskConfig, task: Task) -> None:
        """Add a task, or ask for the one that it is by another name."""
        title = title or task.name
        for i, target in enumerate(self.tasks):
            own = [one.task for one in self.experiments if one.task_name == target.title]
            if own and own[0].fingerprint == task.fingerprint:
                self.tasks[i] = TargetTask(target.title, target.make)
                return
        if any(one.title == title for one in self.tasks):
            title = f"{title} ({name})"
        if any(one.title == title for one in self.tasks):
            raise ValueError(
                f"{name} has two tasks called {title}; give each its own name under `tasks:`"
            )
        self.tasks.append(TargetTask(title, lambda lm: settle(section, task, lm, self._longest)))

    def _own_task(self, title: str, section: TaskConfig, lm: FrozenLM) -> Task:
        """A study's task for a model: as the study had it, on a model of its own."""
        own = [one for one in self.experiments if one.task_name == title]
        digest = lm.fingerprint.digest
        here = [one.task for one in own if one.lm.fingerprint.digest == digest]
        # From the data anew: what the study has of them is cut for its models.
        return here[0] if here else settle(section, load_task(section), lm, self._longest)


def _sections(name: str, titles: Sequence[str]) -> Iterator[tuple[str, TaskConfig]]:
    """The tasks of a name that is not the study's, each with what to call it."""
    known = entries("task")
    if name in known:
        yield "", NamedTaskConfig(name=name)
    elif Path(name).is_file():
        for split, title, section in load_config(Path(name), **_BESIDES).split_tasks:
            called = title or section.name
            yield (title if split is None else f"{called}, split {split}"), section
    else:
        raise ValueError(
            f"no task is called {name!r}{advice(name, [*titles, *known])} (give a task of the "
            "study, one of `rlprompt ls tasks`, or a YAML file with `task:` or `tasks:`)"
        )


def _refuse(problem: str, _: FrozenLM) -> NoReturn:
    raise ValueError(problem)
