"""The table of a comparison, what may be concluded from it, and the files it is kept in."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

from rlprompt._utils.files import write_atomically
from rlprompt.cli.png import curves
from rlprompt.search.result import SOFT_MARK, Score
from rlprompt.studies.comparison import Comparison, Section

HEADER = ("optimiser", "seed", "rows", "seconds (LM)", "train", "dev", "test", "prompt")
NONE = "-"
# Characters of a control's prompt that a table shows.
MOST_SHOWN = 60
# An average difference between train and test accuracy that is worth a sentence.
GAP = 0.05


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        cells: As `HEADER`, without the prompt.
        prompt: Its text as a Python string, so that spaces show, with a mark: `*` where typing it
            gives other tokens, `~` for a soft prompt. Empty if there is none.
        is_control: Whether no search found it.
    """

    cells: tuple[str, ...]
    prompt: str
    is_control: bool


def table(section: Section) -> list[Row]:
    """Controls first, then the runs, those of an optimiser together; references last."""
    rows = []
    for control in section.controls:
        scores = (_number(score) for score in control.scores.values())
        cells = (control.title, NONE, f"{control.rows:,}", NONE, *scores)
        # A prompt of many demonstrations is in `summary.json`.
        text = (
            control.text if len(control.text) <= MOST_SHOWN else f"{control.text[:MOST_SHOWN]}..."
        )
        rows.append(Row(cells, shown(text, control.retypable), is_control=True))
    order = list(section.experiment.optimisers)
    for run in sorted(section.runs, key=lambda run: order.index(run.optimiser)):
        result = run.result
        share = result.lm_seconds / result.total_seconds if result.total_seconds else 0.0
        status = "" if result.status == "finished" else f" ({result.status})"
        cells = (
            run.optimiser + status,
            str(run.seed),
            f"{result.rows:,}",
            f"{result.total_seconds:.1f} ({share:.0%})",
            *(_number(score) for score in run.scores.values()),
        )
        prompt = shown(run.best.text, run.best.retypable) if run.best else ""
        rows.append(Row(cells, prompt, is_control=False))
    for entry in section.references:
        figures = (entry.train, entry.dev, entry.test)
        cells = (
            entry.name,
            NONE,
            f"{entry.rows:,}",
            f"{entry.seconds:.1f}",
            *(NONE if figure is None else f"{figure:.3f}" for figure in figures),
        )
        rows.append(Row(cells, "", is_control=True))
    return rows


def shown(text: str, retypable: bool) -> str:
    """A prompt's text as a Python string with its mark."""
    if text.startswith(SOFT_MARK):
        return f"{text.removeprefix(SOFT_MARK)!r}~"
    return repr(text) if retypable else f"{text!r}*"


def markdown(comparison: Comparison) -> str:
    """A table for each section as Markdown, with the remarks."""
    parts = []
    for section in comparison.sections:
        heading = [f"## {section.heading}", ""] if section.heading else []
        said = remarks(section)
        parts.append("\n".join([*heading, *_rows(section), *(["", *said] if said else []), ""]))
    said = marks(comparison)
    return "\n".join([*parts, *([*said, ""] if said else [])])


def marks(comparison: Comparison) -> list[str]:
    """What the marks behind prompts mean, those that are there."""
    prompts = [row.prompt for section in comparison.sections for row in table(section)]
    lines = []
    if any(prompt.endswith("*") for prompt in prompts):
        lines.append("A prompt with * has other tokens than its text gives when it is typed.")
    if any(prompt.endswith("~") for prompt in prompts):
        lines.append("A prompt with ~ is soft: vectors, shown as the tokens nearest to them.")
    return lines


def _rows(section: Section) -> list[str]:
    """The lines of a section's table."""
    rows = [(*row.cells, _code(row.prompt)) for row in table(section)]
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
    # Numbers to the right; the last column, the prompt, is not padded.
    right = [name in HEADER[1:-1] for name in HEADER]

    def line(cells: tuple[str, ...]) -> str:
        padded = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(cells[:-1], widths, right, strict=False)
        ]
        return f"| {' | '.join([*padded, cells[-1]])} |"

    rule = [("-" * (w - 1) + ":") if r else "-" * w for w, r in zip(widths, right, strict=True)]
    rule[-1] = "---"
    return [line(HEADER), f"| {' | '.join(rule)} |", *map(line, rows)]


def remarks(section: Section) -> list[str]:
    """What went wrong, and what may be concluded; a sentence or two each."""
    lines = [f"{control.title}: {control.note}." for control in section.controls if control.note]
    for run in section.runs:
        where = f"{run.optimiser}, seed {run.seed}"
        if run.error:
            lines.append(f"{where}: ended by {run.error}")
        elif run.best is None and run.result.status == "finished":
            lines.append(f"{where}: its budget covered nothing that it asked for.")
    return [*lines, *_caution(section)]


def _caution(section: Section) -> list[str]:
    """How far train can be trusted, and whether a ranking can be claimed."""
    scored = [
        (train.metric, test.metric)
        for run in section.runs
        if (train := run.scores["train"]) and (test := run.scores["test"])
    ]
    if not scored:
        return []
    task = section.experiment.task
    splits, name = task.splits, task.metric
    train, test = (sum(values) / len(scored) for values in zip(*scored, strict=True))
    lines = [f"Train, dev and test are the mean {name}."]
    earned = {run.scores["train"] for run in section.runs if run.scores["train"]}
    if len(section.runs) > 1 and len(earned) == 1:
        lines.append(
            "Every prompt that was picked earns the same on train, so the searches had little or "
            "nothing to go by; `rlprompt check` says more, and `rlprompt score` what is scored."
        )
    shares = name == "accuracy"
    if shares and train - test >= GAP:
        lines.append(
            f"Train is {train - test:.2f} above test on average: so far the prompts fit the "
            f"{len(splits.train)} train examples more than the task. Judge by test."
        )
    n_seeds = len({run.seed for run in section.runs})
    luck = (
        "one seed ranks no optimisers"
        if n_seeds == 1
        else f"`rlprompt report` says what {n_seeds} seeds settle"
    )
    if not shares:
        return [*lines, f"{luck[0].upper()}{luck[1:]}."]
    # Half the 95 % interval of an accuracy, from the number of test examples alone.
    error = 1.96 * math.sqrt(max(test * (1 - test), 0.0) / len(splits.test))
    lines.append(
        f"{len(splits.test)} test examples leave about ±{error:.2f} (95 %) on each test figure, "
        f"and {luck}."
    )
    return lines


def draw(comparison: Comparison, out: Path) -> None:
    """Write `table.md` and `curves.png`; a second for a grid of eight panels.

    Raises:
        OSError: The folder cannot be written to.
    """
    write_atomically(out / "table.md", markdown(comparison).encode())
    write_atomically(out / "curves.png", curves(comparison))


def _number(score: Score | None) -> str:
    return f"{score.metric:.3f}" if score else NONE


def _code(text: str) -> str:
    """Text as code in a cell of a Markdown table."""
    if not text:
        return NONE
    text = text.replace("|", "\\|")
    longest = max(
        (len(list(run)) for tick, run in itertools.groupby(text) if tick == "`"), default=0
    )
    fence = "`" * (longest + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"
