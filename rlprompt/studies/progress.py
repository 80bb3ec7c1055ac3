"""How searches go, drawn in a notebook and brought up to date in its place."""

from __future__ import annotations

import importlib
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from rlprompt.search.budget import Ledger
from rlprompt.studies.comparison import Run
from rlprompt.studies.planned_search import PlannedSearch

# Seconds between two pictures in a notebook, and between two lines elsewhere.
PICTURE, LINE = 0.3, 10.0


@dataclass
class _Bar:
    title: str
    budget: int
    used: int = 0
    note: str = ""

    def __str__(self) -> str:
        rows = f"{self.used:,}{f'/{self.budget:,}' if self.budget else ''} rows"
        return ", ".join(filter(None, (f"{self.title}: {rows}", self.note)))


class Progress:
    """A bar for each search in a notebook; elsewhere a line now and then on standard error.

    In a notebook `compare` shows one by itself; anywhere `compare(..., watcher=Progress())` and
    `search(..., on_progress=Progress(rows=800))` do.

    >>> from rlprompt import search
    >>> from rlprompt.agents import RandomSearch
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> shown = Progress(rows=40)
    >>> result = search(ToyTask(), toy_lm(), RandomSearch(), budget=40, on_progress=shown)
    >>> print(shown)  # doctest: +ELLIPSIS
    search: 40/40 rows, best ...

    Args:
        rows: Budget of the search that it is given to as `on_progress`, to know how far it is.
    """

    def __init__(self, rows: int = 0) -> None:
        self._rows = rows
        self._bars: list[_Bar] = []
        self._handle: Any = None
        self._display = _display()
        self._shown = time.monotonic()

    def __call__(self, ledger: Ledger) -> None:
        """Some prompts of the only search were scored."""
        if not self._bars:
            self._bars.append(_Bar("search", self._rows))
        self.update(ledger)

    def begin(self, search: PlannedSearch) -> None:
        """See `Watcher`."""
        heading = f"{search.heading}, " if search.heading else ""
        title = f"{heading}{search.method}, seed {search.seed}"
        self._bars.append(_Bar(title, search.budget.rows))
        self._show(at_once=True)

    def update(self, ledger: Ledger) -> None:
        """See `Watcher`."""
        bar = self._bars[-1]
        bar.used = ledger.used
        bar.note = f"best {ledger.best_reward:.2f}" if np.isfinite(ledger.best_reward) else ""
        self._show()

    def end(self, run: Run) -> None:
        """See `Watcher`."""
        scores = [f"{split} {score.metric:.3f}" for split, score in run.scores.items() if score]
        bar = self._bars[-1]
        # What is left of a finished search's budget covers nothing that it asked for.
        bar.used = bar.budget = run.result.rows
        bar.note = run.error or ", ".join(scores)
        self._show(at_once=True)

    def __str__(self) -> str:
        """A line for each search."""
        return "\n".join(map(str, self._bars))

    def _repr_html_(self) -> str:
        row = Markup(
            "<tr><td>{}</td><td><progress value='{}' max='{}'></progress></td><td>{}</td></tr>"
        )
        rows = [
            row.format(
                bar.title, bar.used, bar.budget or 1, str(bar).removeprefix(f"{bar.title}: ")
            )
            for bar in self._bars
        ]
        return str(Markup("<table>{}</table>").format(Markup().join(rows)))

    def _show(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now - self._shown < (PICTURE if self._display else LINE):
            return
        self._shown = now
        if self._handle is not None:
            self._handle.update(self)
        elif self._display is not None:
            self._handle = self._display(self, display_id=True)
        else:
            print(self._bars[-1], file=sys.stderr, flush=True)


def in_notebook() -> bool:
    """Whether this process runs the cells of a notebook."""
    return _display() is not None


def _display() -> Any:
    """What draws an object below a cell; None where there is no notebook."""
    # What is not imported by now runs no notebook.
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if not hasattr(shell, "kernel"):
        return None
    return importlib.import_module("IPython.display").display
