"""A study in Python: its figures as data frames, and a look at it in a notebook."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlprompt._utils.notebook import card, late, line
from rlprompt.reports.page import Page, page_of
from rlprompt.reports.study_data import RunData, read_study
from rlprompt.store.store import FILE, Store
from rlprompt.store.summary import ControlEntry, ReferenceEntry, ScoredEntry
from rlprompt.studies.inspection import records

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

# What tells a run from the others, the first columns of every frame.
PLACE = ("task", "model", "split_seed", "budget_rows", "optimiser", "seed")


class Study:
    """A study's folder, read without a model.

    Frames need pandas, and `plot` needs matplotlib (`pip install 'rlprompt[notebook]'`). Figures of
    runs that do not count (`RunData.struck`) are there, with the reason in the column `struck`.

    >>> import tempfile
    >>> from rlprompt import Budget, Experiment, compare
    >>> from rlprompt.agents import RandomSearch
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> methods = {"random": RandomSearch()}
    >>> experiment = Experiment("toys", ToyTask(), toy_lm(), methods, Budget(40), length=2)
    >>> folder = Path(tempfile.mkdtemp())
    >>> comparison = compare(experiment, folder)
    >>> study = Study.open(folder)
    >>> study
    <Study toys: tasks toy, methods random, finished 1 of 1>
    >>> study.runs[["optimiser", "seed", "status", "rows"]].values.tolist()
    [['random', 0, 'finished', 40]]
    >>> len(study.ledger()), study.curves()["train"].is_monotonic_increasing
    (10, True)

    Args:
        folder: Where it lies.

    Raises:
        SummaryError: There is no summary, or it cannot be read.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.data = read_study(self.folder)

    @classmethod
    def open(cls, folder: Path | str) -> Study:
        """The study in a folder, such as `runs/demo`; errors as for the class."""
        return cls(folder)

    @cached_property
    def page(self) -> Page:
        """What its page says."""
        return page_of(self.data)

    @property
    def conclusions(self) -> list[str]:
        """What may be concluded, and what cannot be relied on, a sentence or two each."""
        return self.page.conclusions()

    @property
    def runs(self) -> pandas.DataFrame:
        """A row a search: where, by what, its cost, the prompt that was picked, and its scores.

        Columns `train`, `dev` and `test` hold the task's metric, and `train_reward` and so on its
        reward.
        """
        return self._frame(
            {
                **{name: getattr(run.entry, name) for name in PLACE},
                "status": run.entry.status,
                "rows": run.entry.rows,
                "prompts": run.entry.n_prompts,
                "seconds": run.entry.total_seconds,
                "prompt": run.entry.prompt,
                "length": run.length,
                **_scores(run.entry),
                "struck": " ".join(run.struck),
            }
            for run in self.data.runs
        )

    @property
    def controls(self) -> pandas.DataFrame:
        """A row a prompt that no search found, or a training of the model, with its scores."""
        summary = self.data.summary
        found: list[ControlEntry | ReferenceEntry] = [*summary.controls, *summary.references]
        return self._frame(
            {
                **{name: getattr(one, name) for name in ("task", "model", "split_seed", "name")},
                "prompt": getattr(one, "prompt", None),
                "rows": one.rows,
                **_scores(one),
            }
            for one in found
        )

    def curves(self) -> pandas.DataFrame:
        """A row a prompt that was better than all before it: rows spent, and the `train` reward."""
        return self._frame(
            {**{name: getattr(run.entry, name) for name in PLACE}, "rows": rows, "train": reward}
            for run in self.data.runs
            for rows, reward in (run.result.trace if run.result else ())
        )

    def best(self) -> pandas.DataFrame:
        """Of `runs`, the one that is best on dev for each task, model and split.

        By what its task picks prompts by, `reward` or `metric`, as in `rlprompt export --best`.

        Its test score is that of a search picked among several on dev, and so no estimate of how
        good that method is.
        """
        runs = self.runs
        worth = [
            run.entry.worth(task.select_by if (task := self.data.task_of(run)) else "reward")
            for run in self.data.runs
        ]
        order = sorted(range(len(worth)), key=worth.__getitem__, reverse=True)
        first = runs.iloc[order][lambda there: there["dev"].notna() & (there["struck"] == "")]
        return first.drop_duplicates(["task", "model", "split_seed"]).reset_index(drop=True)

    def ledger(self) -> pandas.DataFrame:
        """A row a prompt that was paid for, as `rlprompt export --ledger` writes them.

        Raises:
            StoreError: The study's database is not there or cannot be read.
        """
        with Store(self.folder / FILE, read_only=True) as store:
            return self._frame(records(store))

    def plot(self, task: str | None = None, ax: Axes | None = None) -> Axes:
        """The best train reward so far against rows, a line a search, a colour a method.

        Args:
            task: Its name; may be left out where there is one.
            ax: Where to draw; a new figure by default.

        Raises:
            ValueError: There is no such task, or several and none is named; or matplotlib is not
                installed.
        """
        names = [one.name for one in self.data.summary.tasks]
        task = names[0] if task is None and len(names) == 1 else task
        if task not in names:
            raise ValueError(f"task is one of {', '.join(names)}, got {task!r}")
        axes = ax or late("matplotlib.pyplot").subplots()[1]
        optimisers = self.data.summary.optimisers
        named = set[str]()
        for run in self.data.runs:
            if run.entry.task == task and run.result and run.result.points:
                name = run.entry.optimiser
                label = "_" if name in named else name
                named.add(name)
                _step(axes, run, label, f"C{optimisers.index(name) % 10}")
        axes.set(xlabel="rows", ylabel="best train reward", title=task)
        axes.legend()
        return axes

    def _frame(self, rows: Any) -> pandas.DataFrame:
        frame: pandas.DataFrame = late("pandas").DataFrame(list(rows))
        return frame

    def _facts(self) -> dict[str, str]:
        summary = self.data.summary
        done = sum(run.entry.status == "finished" for run in self.data.runs)
        return {
            "tasks": ", ".join(one.name for one in summary.tasks),
            "methods": ", ".join(summary.optimisers),
            "finished": f"{done:,} of {summary.expected_runs:,}",
        }

    def __repr__(self) -> str:
        """What it is, in a line."""
        return line(f"Study {self.data.summary.name}", self._facts())

    def _repr_html_(self) -> str:
        """What a notebook shows: what was compared, and what may be concluded."""
        facts = {**self._facts(), "conclusions": " ".join(self.conclusions)}
        return card(f"Study {self.data.summary.name}", facts)


def _scores(entry: ScoredEntry) -> dict[str, float | None]:
    splits = ("train", "dev", "test")
    metrics = {name: getattr(entry, name) for name in splits}
    return metrics | {f"{name}_reward": entry.rewards.get(name) for name in splits}


def _step(axes: Axes, run: RunData, label: str, colour: str) -> None:
    assert run.result is not None
    rows, rewards = zip(*run.result.trace, strict=True)
    axes.step(
        [*rows, run.entry.rows], [*rewards, rewards[-1]], where="post", label=label, color=colour
    )
