"""What of training the model itself a prompt keeps, at which share of the cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from rlprompt.prompt import SoftPrompt
from rlprompt.reports.score_matrix import ScoreMatrix, mean_of
from rlprompt.reports.study_data import RunData
from rlprompt.reports.tables import NONE, Table
from rlprompt.search.result import EXPLAINING
from rlprompt.store.summary import EMPTY, ControlEntry, ReferenceEntry, ScoredEntry

# What prompts are held against, the first of these that there is.
MEASURE = ("fine-tuning", "lora", "lora+soft")


def kept_table(matrix: ScoreMatrix) -> Table:
    """What of training the model itself a prompt keeps, at which share of the cost."""
    rows: list[tuple[str, ...]] = []
    narrowed: dict[str, list[str]] = {}
    for task in matrix.tasks:
        trained = _measure(matrix.trained(task.name).values())
        for name in matrix.methods if trained else ():
            runs = matrix.of(name, task.name)
            empty = matrix.controls_of(task.name).get(EMPTY, [])
            shared, there = _splits(matrix, [run.entry for run in runs], trained, empty)
            figures = _shares(
                matrix,
                [run for run in runs if run.entry.split_seed in shared],
                [one for one in trained if one.split_seed in shared],
                [one for one in empty if one.split_seed in shared],
            )
            rows.append((task.name, trained[0].title, name, *figures))
            if shared < there:
                on = ", ".join(str(one) for one in matrix.split_seeds if one in shared)
                where = f"{len(shared)} of {len(there)} splits" + (f" ({on})" if on else "")
                narrowed.setdefault(f"{task.name}: {where}", []).append(name)
    return Table(
        matrix.name("kept"),
        f"Prompts against training the model, {matrix.model}, {matrix.budget:,} rows",
        ("task", "training", "method", "% of test", "% of gain", "% of numbers", "% of rows"),
        tuple(rows),
        text=(0, 1, 2),
        notes=(
            "In percent of the trained model: test score; its gain over the empty prompt; numbers "
            "searched or trained; rows (search, early stopping, selection and final scores, or "
            "training, where an example seen is 3 rows).",
            *(
                f"{where}, those on which method, trained model and empty prompt all have a score, "
                f"for {', '.join(names)}."
                for where, names in narrowed.items()
            ),
        ),
    )


def _measure(trained: Iterable[Sequence[ReferenceEntry]]) -> Sequence[ReferenceEntry]:
    """What prompts are held against: the first by `MEASURE`; nothing where nothing was trained."""
    order = {kind: place for place, kind in enumerate(MEASURE)}
    return min(trained, key=lambda own: order.get(own[0].kind, len(order)), default=())


def _splits(
    matrix: ScoreMatrix, *scored: Sequence[ScoredEntry]
) -> tuple[set[int | None], set[int | None]]:
    """Splits on which all have a test figure that have any, and those on which some have."""
    own = [{one.split_seed for one in part if one.test is not None} for part in scored]
    return set(matrix.split_seeds).intersection(*filter(None, own)), set[int | None]().union(*own)


def _shares(
    matrix: ScoreMatrix,
    runs: Sequence[RunData],
    trained: Sequence[ReferenceEntry],
    empty: Sequence[ControlEntry],
) -> tuple[str, ...]:
    """Of test, of the gain over the empty prompt, of numbers, and of rows; percent."""
    top, test = matrix.mean(trained), matrix.mean(run.entry for run in runs)
    floor = matrix.mean(empty)
    # A model that was trained has no curves on dev and is not taken apart.
    spent = mean_of(
        run.entry.rows
        + sum(rows for what, rows in run.result.outside_rows.items() if what != EXPLAINING)
        for run in runs
        if run.result
    )
    numbers = mean_of(_size(run) for run in runs)
    return (
        _percent(test, top),
        _percent(_above(test, floor), _above(top, floor)),
        _percent(numbers, mean_of(one.trainable for one in trained), ".2g"),
        _percent(spent, mean_of(one.rows for one in trained)),
    )


def _above(score: float | None, floor: float | None) -> float | None:
    return None if score is None or floor is None else score - floor


def _size(run: RunData) -> float:
    """Numbers that its prompt is made of: token ids, or entries of its vectors."""
    if run.result is None or not run.result.candidates:
        return 0.0
    best = run.result.best
    prompt = best.prompt
    return float(prompt.vectors.size if isinstance(prompt, SoftPrompt) else best.length)


def _percent(part: float | None, whole: float | None, form: str = ",.1f") -> str:
    """A share in hundredths, of something above 0."""
    if part is None or whole is None or np.isnan([part, whole]).any() or whole <= 0:
        return NONE
    return format(100 * part / whole, form)
