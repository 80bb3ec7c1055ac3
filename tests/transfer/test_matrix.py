"""The matrix of transferred prompts, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from rich.console import Console

from rlprompt.cli.terminal import print_table
from rlprompt.reports.transfer import transfer_tables
from rlprompt.search.result import Score
from rlprompt.transfer.file import (
    ModelEntry,
    Retyping,
    Source,
    Target,
    Transfer,
    TransferEntry,
    read_transfer,
)
from rlprompt.transfer.matrix import Cell, Failure, drift, losses, matrix, reached


def source(seed: int, **fields: Any) -> Source:
    made: dict[str, Any] = {
        "run": f"random-seed{seed}",
        "task": "films",
        "model": "models/own",
        "budget_rows": 320,
        "optimiser": "random",
        "seed": seed,
        "soft": False,
        "tokens": 3,
        "text": " it was fine",
        "retypable": True,
    }
    return Source(**(made | fields))


def worth(metric: float, reward: float | None = None) -> Score:
    return Score(metric=metric, reward=metric if reward is None else reward)


def target(model: str = "models/own", **fields: Any) -> Target:
    made: dict[str, Any] = {
        "model": model,
        "task": "films",
        "split": "test",
        "asked": False,
        "examples": 10,
        "metric": "accuracy",
        "controls": {"empty": worth(0.5), "hand-written": worth(0.6)},
        "tolerance": 0.05,
    }
    return Target(**(made | fields))


def model(name: str, of_study: bool = False) -> ModelEntry:
    return ModelEntry(
        name=name,
        kind="causal",
        digest=name,
        dtype="float32",
        device="cpu",
        of_study=of_study,
    )


def entry(
    seed: int, metric: float | None, place: str = "models/own", **fields: Any
) -> TransferEntry:
    made: dict[str, Any] = {
        "run": f"random-seed{seed}",
        "model": place,
        "task": "films",
        "split": "test",
        "form": "as found",
        "score": None if metric is None else worth(metric),
    }
    return TransferEntry(**(made | fields))


def transfer(*entries: TransferEntry, **fields: Any) -> Transfer:
    made: dict[str, Any] = {
        "study": "small",
        "complete": True,
        "split": "test",
        "top": "all",
        "sources": (source(0), source(1)),
        "models": (model("models/own", of_study=True), model("models/other")),
        "targets": (target(), target("models/other")),
        "entries": entries,
    }
    return Transfer(**(made | fields))


def cell(done: Transfer, row: int = 0, column: int = 0) -> Cell:
    found = matrix(done).cells[row][column]
    assert isinstance(found, Cell)
    return found


def test_a_mean_over_seeds_has_a_t_interval_within_its_scale_and_a_gain() -> None:
    found = cell(transfer(entry(0, 0.7), entry(1, 0.8)))
    assert found.mean == pytest.approx(0.75)
    # Two values 0.1 apart: deviation 0.0707, of the mean 0.05, times t = 12.7062 of one degree is
    # 0.63531; over 0.75 * 0.25 it is 3.38832 of the logit, which is 1.09861.
    assert found.low == pytest.approx(1 / (1 + math.exp(2.28971)), abs=1e-5)
    assert found.high == pytest.approx(1 / (1 + math.exp(-4.48693)), abs=1e-5)
    assert (found.over, found.empty) == ("seeds", 0.5)
    assert found.gain == pytest.approx(0.25)
    assert found.gain_low == pytest.approx(1 / (1 + math.exp(2.28971)) - 0.5, abs=1e-5)
    assert found.gain_high == pytest.approx(1 / (1 + math.exp(-4.48693)) - 0.5, abs=1e-5)


@pytest.mark.parametrize("fields", [{"metric": "mcc"}, {"metric": "reward"}])
def test_an_interval_of_what_is_no_share_may_end_below_0(fields: dict[str, Any]) -> None:
    low = 0.75 - 12.7062 * 0.05
    there = {"entries": (entry(0, 0.7), entry(1, 0.8)), "targets": (target(**fields),)}
    assert cell(transfer(**there)).low == pytest.approx(low, abs=1e-5)
    share = target(**(fields | {"metric_range": (0, 1)}))
    within = cell(transfer(**(there | {"targets": (share,)})))
    assert within.low == pytest.approx(1 / (1 + math.exp(2.28971)), abs=1e-5)


def test_models_that_end_alike_are_told_apart_and_never_averaged() -> None:
    both = "runs/a/final", "runs/b/final"
    sources = tuple(source(seed, model=name) for seed, name in enumerate(both))
    typed = Retyping(tokens=3, survives=True)
    entries = [
        entry(seed, metric, name, form=form, retyping=None if form == "as found" else typed)
        for seed, name in enumerate(both)
        for form, metric in (("as found", 0.7), ("by text", 0.5 + seed / 10))
    ]
    done = transfer(
        *entries,
        sources=sources,
        models=tuple(model(name, of_study=True) for name in both),
        targets=tuple(target(name) for name in both),
    )
    assert [row.title for row in matrix(done).rows] == [f"{name}, random" for name in both]
    tables = {table.name: table for table in transfer_tables(done)}
    assert [row[1:] for row in tables["transfer-losses"].rows] == [
        ("runs/a/final, random", "by text", "test", "1", "0.700", "0.500", "-0.200"),
        ("runs/b/final, random", "by text", "test", "1", "0.700", "0.600", "-0.100"),
    ]


def test_columns_that_cannot_be_compared_say_so() -> None:
    targets = (
        target(examples=10),
        target("models/other", examples=8),
        target(task="spam", metric="mcc", examples=10),
        target("models/other", task="spam", examples=0, metric="", problem="too long"),
    )
    done = transfer(entry(0, 0.7), entry(1, 0.8), targets=targets)
    assert [column.title for column in matrix(done).columns] == [
        "own: films, accuracy",
        "other: films, accuracy",
        "own: spam, mcc",
        "other: spam",
    ]
    (notes,) = (table.notes for table in transfer_tables(done) if table.name == "transfer")
    (unlike,) = (note for note in notes if note.startswith("Not all models"))
    assert "test examples of films (10 on models/own; 8 on models/other)" in unlike
    alone = transfer(entry(0, 0.7), entry(1, 0.8))
    assert [column.title for column in matrix(alone).columns] == ["own: films", "other: films"]


@pytest.mark.parametrize(("split", "chosen"), [("dev", "picked"), ("train", "searched")])
def test_off_test_the_table_says_what_the_split_was_used_for(split: str, chosen: str) -> None:
    there = {"targets": (target(split=split),), "sources": (source(0),)}
    done = transfer(entry(0, 0.7, split=split), split=split, **there)
    (notes,) = (table.notes for table in transfer_tables(done) if table.name == "transfer")
    assert f"Prompts were {chosen} on {split}: its figures of their own task are too" in notes[0]
    assert "on test" not in notes[0]


def test_one_prompt_has_the_interval_of_its_accuracy_over_examples() -> None:
    found = cell(transfer(entry(0, 0.8)))
    # Wilson's interval of 8 of 10.
    assert (found.low, found.high) == pytest.approx((0.49016, 0.94332), abs=1e-5)
    assert found.over == "examples"
    other = cell(transfer(entry(0, 0.8), targets=(target(metric="reward"),)))
    assert (other.low, other.gain_low, other.over) == (None, None, "")


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([entry(0, 0.7), entry(1, 0.8)], ", with its 95 % interval over seeds. "),
        ([entry(0, 0.7)], ", with its 95 % interval over test examples (Wilson). "),
        (
            [entry(0, 0.7), entry(1, 0.8), entry(0, 0.7, "models/other")],
            ", with its 95 % interval over seeds, or where there is one prompt over test examples "
            "(Wilson). ",
        ),
    ],
)
def test_the_table_says_what_its_intervals_are_over(
    entries: list[TransferEntry], said: str
) -> None:
    (table,) = (one for one in transfer_tables(transfer(*entries)) if one.name == "transfer")
    start = "In brackets the gain over the empty prompt of the same column"
    assert table.notes[0].startswith(start + said)


def test_the_form_that_keeps_most_is_shown_and_the_others_are_losses() -> None:
    typed = [entry(seed, 0.6, form="by text") for seed in (0, 1)]
    done = transfer(entry(0, 0.7), entry(1, 0.8), *typed)
    assert cell(done).form == "as found"
    assert [(loss.source.seed, loss.as_found, loss.then) for loss in losses(done)] == [
        (0, 0.7, 0.6),
        (1, 0.8, 0.6),
    ]
    soft = transfer(
        entry(0, None, form="as found", problem="takes tokens alone"),
        entry(0, 0.6, form="nearest tokens"),
    )
    assert cell(soft).form == "nearest tokens"


def test_what_failed_or_was_not_asked_for_has_no_figure() -> None:
    done = transfer(
        entry(0, 0.7),
        entry(1, None, problem="too long"),
        entry(0, None, "models/other", problem="another reason"),
        targets=(target(), target("models/other"), target(task="books"), target(problem="no")),
    )
    half, whole, unasked, broken = matrix(done).cells[0]
    assert isinstance(half, Cell)
    assert (half.mean, half.notes) == (0.7, ("1 of 2 prompts could not be scored: too long",))
    assert whole == Failure("another reason")
    assert unasked is None
    assert broken == Failure("no")


def test_titles_hold_what_differs() -> None:
    found = matrix(transfer(entry(0, 0.7)))
    assert [row.title for row in found.rows] == ["random"]
    assert [column.title for column in found.columns] == ["own: films", "other: films"]
    assert [column.of_study for column in found.columns] == [True, False]
    others = (source(0), source(1, task="books", budget_rows=9600))
    titles = [row.title for row in matrix(transfer(sources=others)).rows]
    assert titles == ["films, 320 rows, random", "books, 9,600 rows, random"]
    same_end = (target("a/own"), target("b/own"))
    assert [one.title for one in matrix(transfer(targets=same_end)).columns] == [
        "a/own: films",
        "b/own: films",
    ]


def test_drift_is_the_difference_that_exceeds_rounding_the_most() -> None:
    calm = entry(0, 0.7, stored=worth(0.7, 0.71))
    assert drift(transfer(calm)).holds
    found = drift(transfer(calm, entry(1, 0.8, stored=worth(0.6, 2.8))))
    assert (found.n, found.run, found.holds) == (2, "random-seed1", False)
    assert (found.reward, found.metric) == pytest.approx((2.0, 0.2))
    assert drift(transfer(entry(0, 0.7))).n == 0


def test_something_was_reached_if_something_asked_for_was() -> None:
    own = entry(0, 0.7)
    assert not reached(transfer(own))  # nothing on the other model
    assert reached(transfer(own, targets=(target(),)))
    assert reached(transfer(own, entry(0, 0.5, "models/other")))


def test_it_reads_back_and_prints_markup_as_it_is(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = Retyping(tokens=7, survives=False)
    done = transfer(
        entry(0, 0.7),
        entry(0, 0.6, "models/other", form="by text", retyping=typed, notes=("[red]",)),
    )
    path = tmp_path / "transfer.json"
    path.write_text(done.to_json())
    assert read_transfer(path) == done
    tables = {table.name: table for table in transfer_tables(done)}
    console = Console(markup=False, highlight=False, width=200)
    for table in tables.values():
        print_table(console, table)
    shown = capsys.readouterr().out
    assert "0.700 (+0.200, -0.103 to +0.392)" in shown
    assert "0.600 (+0.100, -0.187 to +0.332)" in shown
    assert any("[red]" in row[-1] for row in tables["transfer-remarks"].rows)
    assert tables["transfer-typed"].rows[-1] == ("random", "models/other", "3.0", "7.0", "0 of 1")
