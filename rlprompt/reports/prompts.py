"""The best prompt of each method: its text, what each token is worth, what the model answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from rlprompt._utils.text import counted, slugs
from rlprompt.reports.score_matrix import ScoreMatrix, wilson
from rlprompt.reports.study_data import RunData
from rlprompt.reports.svg import effect_bar
from rlprompt.reports.tables import NONE, Table, number
from rlprompt.search.result import SOFT_MARK, Result
from rlprompt.store.summary import TaskEntry
from rlprompt.types import PromptKind

# Classes whose confusion fits a page; with more, the largest confusions are listed.
MOST_CLASSES = 20
OTHER = "(other)"
# Characters of a prompt that a sentence holds.
LONGEST_IN_LINE = 200
# What the length of a prompt counts.
UNITS: Mapping[PromptKind, str] = {
    "tokens": "token",
    "soft": "vector",
    "prefix": "position",
    "text": "token",
}
# Kinds that can be read as they are.
READABLE = ("tokens", "text")


@dataclass(frozen=True)
class BestPrompt:
    """The prompt of one method's best run on a task.

    Attributes:
        task: The task.
        method: The optimiser.
        split: Seed of the run's split; None for the only one.
        seed: Of the run.
        of: Runs that it was chosen from.
        text: The prompt as it reads; of a soft one the nearest tokens, of a prefix its size.
        kind: Whether it is tokens, vectors, keys and values, or text.
        size: Its length in words, such as "5 tokens".
        retypable: Whether typing the text gives the prompt again.
        found: When in the search, in words.
        scores: Train, dev and test with the interval, as term and figure.
        remarks: What else there is to say, a sentence each.
        effects: Each token's effect, with a bar for each row, if it was taken apart.
        bars: (rows,) SVG.
        others: Nearest tokens, confusion by class, outputs: those that there are.
    """

    task: str
    method: str
    split: int | None
    seed: int
    of: int
    text: str
    kind: PromptKind
    size: str
    retypable: bool
    found: str
    scores: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]
    effects: Table | None
    bars: tuple[str, ...]
    others: tuple[Table, ...]

    @property
    def in_a_line(self) -> bool:
        """Whether a sentence can hold its text."""
        return self.kind in READABLE and len(self.text) <= LONGEST_IN_LINE


def best_prompts(matrix: ScoreMatrix) -> Iterator[BestPrompt]:
    """The best runs of a section, by task and method."""
    for task in matrix.tasks:
        for method in matrix.methods:
            runs = [run for run in matrix.of(method, task.name) if run.length is not None]
            if runs:
                # On dev, as every choice; by test it would be a maximum over seeds.
                best = max(runs, key=partial(_worth, task))
                own = task.on(best.entry.split_seed) or task
                yield _best_prompt(matrix, own, best, len(runs))


def leading(matrix: ScoreMatrix, found: tuple[BestPrompt, ...]) -> Iterator[BestPrompt]:
    """Of each task the one that is best on dev."""
    for task in matrix.tasks:
        own = {one.method: one for one in found if one.task == task.name}
        runs = [run for name in own for run in matrix.of(name, task.name) if run.length is not None]
        if runs:
            yield own[max(runs, key=partial(_worth, task)).entry.optimiser]


def prompt_table(matrix: ScoreMatrix, found: tuple[BestPrompt, ...]) -> Table:
    """The prompts as a table, for the files."""
    plain = all(one.split is None for one in found)
    rows = [
        (
            one.task,
            one.method,
            *([] if plain else [str(one.split)]),
            str(one.seed),
            one.text,
            one.kind if one.kind not in READABLE else "yes" if one.retypable else "no",
            *(dict(one.scores).get(split, NONE) for split in ("train", "dev", "test")),
        )
        for one in found
    ]
    header = ("seed", "prompt", "retypable", "train", "dev", "test")
    return Table(
        matrix.name("prompts"),
        f"Best prompt of each method, {matrix.model}, {matrix.budget:,} rows",
        ("task", "method", *([] if plain else ["split"]), *header),
        tuple(rows),
        text=(0, 1, 4 + (not plain)),
        code=(3 + (not plain),),
        notes=(
            "The seed that is best on dev. A soft prompt is shown as its nearest tokens, which are "
            "another prompt.",
        ),
    )


def _worth(task: TaskEntry, run: RunData) -> tuple[float, float]:
    return run.entry.worth(task.select_by)


def _best_prompt(matrix: ScoreMatrix, task: TaskEntry, run: RunData, of: int) -> BestPrompt:
    result, entry = run.result, run.entry
    assert result is not None
    best = result.best
    kind = best.prompt.kind
    name = matrix.name(slugs(matrix.methods)[entry.optimiser], task.name)
    effects, bars = _effects(name, task, result)
    tables = (_neighbours, _confusion, _confusions, _outputs)
    return BestPrompt(
        task=task.name,
        method=entry.optimiser,
        split=entry.split_seed,
        seed=entry.seed,
        of=of,
        text=best.text.removeprefix(SOFT_MARK) if kind == "soft" else best.text,
        kind=kind,
        size=counted(best.length, UNITS[kind]),
        retypable=best.retypable,
        found=f"after {best.found_at_rows:,} of {entry.rows:,} rows",
        scores=tuple((split, number(run.score(split))) for split in ("train", "dev", "test")),
        remarks=tuple(_remarks(task, result)),
        effects=effects,
        bars=bars,
        others=tuple(found for make in tables if (found := make(name, task, result))),
    )


def _remarks(task: TaskEntry, result: Result) -> Iterator[str]:
    low, high = wilson(result.test_metrics)
    if low is not None:
        yield (
            f"Test {task.metric} of this prompt: 95 % interval {number(low)} to {number(high)} "
            f"over {len(result.test_metrics)} test examples (Wilson)."
        )
    if prior := sorted((result.best.prior or {}).items(), key=lambda one: -one[1]):
        shown = ", ".join(f"{label} {number(share)}" for label, share in prior[:MOST_CLASSES])
        more = f" and {len(prior) - MOST_CLASSES} others" if len(prior) > MOST_CLASSES else ""
        yield f"Prior of the classes under it, which calibration takes out: {shown}{more}."
    analysis = result.analysis
    if analysis and analysis.problem:
        yield f"What each part adds could not be measured: {analysis.problem}."
    if analysis and analysis.projection:
        one = analysis.projection
        test = result.best.test
        gap = f", {one.test.metric - test.metric:+.3f} against the vectors" if test else ""
        typed = "" if one.retypable else "; typing it gives other tokens"
        yield (
            f"As its nearest tokens, {one.text!r}{typed}: dev {number(one.dev.metric)}, test "
            f"{number(one.test.metric)}{gap}."
        )


def _effects(name: str, task: TaskEntry, result: Result) -> tuple[Table | None, tuple[str, ...]]:
    """Dev with the prompt less dev without each of its parts."""
    analysis, dev = result.analysis, result.best.dev
    if not analysis or not analysis.pieces or dev is None:
        return None, ()
    effects = [dev.reward - piece.without.reward for piece in analysis.pieces]
    largest = max(map(abs, effects))
    rows = tuple(
        (
            piece.text,
            number(effect),
            number(dev.metric - piece.without.metric),
        )
        for piece, effect in zip(analysis.pieces, effects, strict=True)
    )
    table = Table(
        f"{name}.effects",
        "What each token adds on dev",
        ("token", "reward", task.metric),
        rows,
        text=(),
        code=(0,),
        notes=("Dev score of the whole prompt minus that without this token (leave-one-out).",),
    )
    return table, tuple(effect_bar(effect, largest) for effect in effects)


def _neighbours(name: str, task: TaskEntry, result: Result) -> Table | None:
    """Of a soft prompt."""
    if not result.analysis or not result.analysis.neighbours:
        return None
    rows = tuple(
        (
            str(i + 1),
            one.text,
            number(one.distance, 2),
            number(one.norm, 2),
            number(one.token_norm, 2),
        )
        for i, one in enumerate(result.analysis.neighbours)
    )
    return Table(
        f"{name}.nearest",
        "Nearest tokens of its vectors",
        ("vector", "token", "distance", "norm", "norm of token"),
        rows,
        text=(),
        code=(1,),
        notes=("A distance near the norms means that the token says little about the vector.",),
    )


def _pairs(task: TaskEntry, result: Result) -> list[tuple[str, str]]:
    """Class and answer of each test example; none where there are no classes or answers."""
    if not task.classes or len(task.test_labels) != len(result.test_answers):
        return []
    return list(zip(task.test_labels, result.test_answers, strict=True))


def _confusion(name: str, task: TaskEntry, result: Result) -> Table | None:
    pairs = _pairs(task, result)
    if not pairs or len(task.classes) > MOST_CLASSES:
        return None
    known = set(task.classes)
    counts = Counter((label, said if said in known else OTHER) for label, said in pairs)
    answers = [*task.classes, *([OTHER] if any(said == OTHER for _, said in counts) else [])]
    rows = []
    for label in task.classes:
        row = [counts[label, said] for said in answers]
        share = counts[label, label] / sum(row) if sum(row) else None
        rows.append((label, *map(str, row), number(share)))
    return Table(
        f"{name}.confusion",
        "Confusion on test: class by row, answer by column",
        ("class", *answers, "recall"),
        tuple(rows),
    )


def _confusions(name: str, task: TaskEntry, result: Result) -> Table | None:
    """The largest confusions, where there are too many classes for a matrix."""
    pairs = _pairs(task, result)
    if not pairs or len(task.classes) <= MOST_CLASSES:
        return None
    wrong = Counter(pair for pair in pairs if pair[0] != pair[1])
    rows = tuple((label, said, str(n)) for (label, said), n in wrong.most_common(MOST_CLASSES))
    return Table(
        f"{name}.confusion",
        "Largest confusions on test",
        ("class", "answer", "examples"),
        rows,
        text=(0, 1),
    )


def _outputs(name: str, task: TaskEntry, result: Result) -> Table | None:
    """A few test examples with what the model answered."""
    shown = [one for one in task.shown if one.place < len(result.test_answers)]
    if not shown:
        return None
    rows = tuple(
        (
            " / ".join(one.fields.values()),
            one.label,
            result.test_answers[one.place],
            number(result.test_metrics[one.place] if result.test_metrics else None),
        )
        for one in shown
    )
    return Table(
        f"{name}.outputs",
        "Some test examples",
        ("text", "reference", "answer", task.metric),
        rows,
        text=(0, 1, 2),
    )
