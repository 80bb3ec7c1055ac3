"""Trackers of other makers, told how a comparison goes.

Keys are those of Stable-Baselines3 where it has one. A search that is resumed is told again from
its beginning, so a tracker begins it anew.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from rlprompt.search.budget import Ledger
from rlprompt.studies.comparison import Run
from rlprompt.studies.planned_search import PlannedSearch


class Watcher(Protocol):
    """Is told how a comparison goes: the way to plug in a tracker.

    >>> class Ends(Silent):
    ...     def end(self, run):
    ...         print(run.search.title, run.result.rows)
    >>> watching: Watcher = Ends()  # for `compare(..., watcher=watching)`
    """

    def begin(self, search: PlannedSearch) -> None:
        """A search begins."""

    def update(self, ledger: Ledger) -> None:
        """Some prompts were scored."""

    def end(self, run: Run) -> None:
        """The search ended, and what it found is on disk."""


class Silent:
    """A watcher that says nothing."""

    def begin(self, search: PlannedSearch) -> None:
        """See `Watcher`."""

    def update(self, ledger: Ledger) -> None:
        """See `Watcher`."""

    def end(self, run: Run) -> None:
        """See `Watcher`."""


class Several:
    """A watcher that passes everything on to others.

    Args:
        watchers: They are told in this order.
    """

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = watchers

    def begin(self, search: PlannedSearch) -> None:
        """See `Watcher`."""
        for watcher in self._watchers:
            watcher.begin(search)

    def update(self, ledger: Ledger) -> None:
        """See `Watcher`."""
        for watcher in self._watchers:
            watcher.update(ledger)

    def end(self, run: Run) -> None:
        """See `Watcher`."""
        for watcher in self._watchers:
            watcher.end(run)


class TensorBoard:
    """Event files for TensorBoard, a folder a search.

    ```python
    compare(experiments, out, watcher=TensorBoard(out / "tensorboard"))
    ```

    Args:
        folder: Where the folders go.

    Raises:
        ValueError: The package is missing.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ValueError(_missing("tensorboard")) from None
        self._make: Any = SummaryWriter
        self._folder = folder
        self._writer: Any = None
        self._scalars = Scalars()

    def begin(self, search: PlannedSearch) -> None:
        """See `Watcher`."""
        place = self._folder / search.name
        shutil.rmtree(place, ignore_errors=True)
        self._writer, self._scalars = self._make(str(place)), Scalars()

    def update(self, ledger: Ledger) -> None:
        """See `Watcher`."""
        for key, value in self._scalars.after(ledger).items():
            self._writer.add_scalar(key, value, ledger.used)

    def end(self, run: Run) -> None:
        """See `Watcher`."""
        for key, value in final(run).items():
            self._writer.add_scalar(key, value, run.result.rows)
        self._writer.close()


class WeightsAndBiases:
    """Runs on Weights & Biases, or whatever has its `init`.

    ```python
    compare(experiments, out, watcher=WeightsAndBiases("my-prompts"))
    ```

    Args:
        project: The project's name there; one group of runs.

    Raises:
        ValueError: The package is missing.
    """

    def __init__(self, project: str) -> None:
        try:
            import wandb
        except ImportError:
            raise ValueError(_missing("wandb")) from None
        self._wandb: Any = wandb
        self._project = project
        self._run: Any = None
        self._scalars = Scalars()

    def begin(self, search: PlannedSearch) -> None:
        """See `Watcher`."""
        self._run = self._wandb.init(
            project=self._project,
            name=search.name,
            config={
                "task": search.task_name,
                "split_seed": search.split_seed,
                "model": search.lm.name,
                "budget": search.budget.rows,
                "optimiser": search.method,
                "seed": search.seed,
            },
            reinit=True,
        )
        self._scalars = Scalars()

    def update(self, ledger: Ledger) -> None:
        """See `Watcher`."""
        self._run.log(self._scalars.after(ledger), step=ledger.used)

    def end(self, run: Run) -> None:
        """See `Watcher`."""
        self._run.log(final(run), step=run.result.rows)
        self._run.finish(exit_code=int(bool(run.error)))


def tracker(name: str, out: Path) -> Watcher:
    """The tracker of that name, `tensorboard` or `wandb`, for the study in a folder.

    Raises:
        ValueError: The package is missing.
    """
    if name == "tensorboard":
        return TensorBoard(out / "tensorboard")
    return WeightsAndBiases(out.name)


class Scalars:
    """The figures of a search so far, by key."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._seen = 0

    def after(self, ledger: Ledger) -> dict[str, float]:
        """Figures of the prompts since the last time, and of all."""
        points, self._seen = ledger.points[self._seen :], len(ledger.points)
        elapsed = max(time.monotonic() - self._began, 1e-9)
        scalars = {
            "time/total_timesteps": float(ledger.n_prompts),
            "time/fps": ledger.n_prompts / elapsed,
            "search/lm_seconds": ledger.lm_seconds,
        }
        if points:
            scalars["rollout/ep_rew_mean"] = sum(reward for _, reward in points) / len(points)
        if ledger.trace:
            scalars["search/best_reward"] = ledger.best_reward
        return scalars


def final(run: Run) -> dict[str, float]:
    """Metric and reward of the picked prompt by split."""
    scores = {split: score for split, score in run.scores.items() if score is not None}
    metrics = {f"final/{split}_metric": score.metric for split, score in scores.items()}
    return metrics | {f"final/{split}_reward": score.reward for split, score in scores.items()}


def _missing(package: str) -> str:
    return f"{package} is not installed; pip install 'rlprompt[{package}]'"
