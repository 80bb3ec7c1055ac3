"""Results: figures, intervals, and what may be concluded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_folder import MODEL, make_study, task_entry
from study_pages import SMALL, Changed, sentences, small, table

from rlprompt.reports.page import Page, page_of
from rlprompt.reports.study_data import read_study
from rlprompt.search.result import Result, Score
from rlprompt.store.summary import EMPTY, ControlEntry, ReferenceEntry, RunEntry

PLACE: dict[str, Any] = {"task": "movie-reviews", "model": MODEL}


def test_a_method_has_the_mean_over_seeds_and_students_interval_of_the_logit(
    page: Page, study: Path
) -> None:
    runs = read_study(study).runs
    tests = [
        run.entry.test
        for run in runs
        if (run.entry.task, run.entry.optimiser) == ("sst-2", "greedy")
    ]
    values = np.array(tests, dtype=float)
    # 2.776: Student's t for 4 degrees of freedom, two-sided 95 %.
    mean = values.mean()
    half = 2.776 * values.std(ddof=1) / np.sqrt(5) / (mean * (1 - mean))
    low, high = (1 / (1 + np.exp(-end - np.log(mean / (1 - mean)))) for end in (-half, half))
    row = table(page, "sst-2.scores")["greedy"]
    assert row["test"] == f"{mean:.3f}"
    assert (float(row["low"]), float(row["high"])) == pytest.approx((low, high), abs=1e-3)
    assert (row["runs"], row["interval over"]) == ("5", "seeds")


def test_the_winners_curse_is_dev_less_test(page: Page) -> None:
    row = table(page, "sst-2.scores")["greedy"]
    gap = float(row["dev"]) - float(row["test"])
    assert float(row["dev - test"]) == pytest.approx(gap, abs=2e-3)


def test_a_control_goes_by_one_name_in_tables_and_plots(page: Page) -> None:
    controls = {"empty prompt", "hand-written prompt", "best word"}
    tables = {one.name: {row[0] for row in one.rows} for one in page.tables()}
    for name in ("movie-reviews.scores", "movie-reviews.runs", "all-tasks"):
        assert controls <= tables[name]
    (dots, *_) = page.sections[0].results.plots
    assert controls <= {row[0] for row in dots.table.rows}
    assert all(f">{name}<" in dots.svg for name in controls)


def test_a_control_has_wilsons_interval_over_examples(page: Page) -> None:
    row = table(page, "movie-reviews.scores")["empty prompt"]
    # 111 of 200: Wilson's formula by hand.
    assert (row["test"], row["low"], row["high"]) == ("0.555", "0.486", "0.622")
    assert row["interval over"] == "examples"


def test_shares_of_training_are_of_test_gain_numbers_and_rows(page: Page) -> None:
    (kept,) = (one for one in page.tables() if one.name == "kept")
    row = next(row for row in kept.rows if row[:3] == ("sst-2", "fine-tuning", "greedy"))
    test = float(table(page, "sst-2.scores")["greedy"]["test"])
    assert float(row[3]) == pytest.approx(100 * test / 0.84, abs=0.1)
    assert float(row[4]) == pytest.approx(100 * (test - 0.555) / (0.84 - 0.555), abs=0.4)
    assert float(row[5]) == pytest.approx(100 * 5 / 134_515_008, rel=0.1)
    assert float(row[6]) == pytest.approx(100 * (9600 + 900 + 232) / 19_200, abs=0.1)


def test_rows_of_curves_and_analysis_are_no_cost_of_a_prompt(tmp_path: Path) -> None:
    outside = {"early stopping": 100, "selection": 20, "final scores": 3, "curves and analysis": 7}

    def plant(entry: RunEntry, result: Result) -> Changed:
        return entry, replace(result, outside_rows=outside)

    one = small(tmp_path, replace(SMALL, tasks=("sst-2",)), change_run=plant)
    (kept,) = (table for table in one.tables() if table.name == "kept")
    row = next(row for row in kept.rows if row[1:3] == ("fine-tuning", "greedy"))
    assert row[6] == "50.6"  # 100 * (9600 + 100 + 20 + 3) / 19,200
    assert "rows (search, early stopping, selection and final scores" in kept.notes[0]


def trained(name: str, tests: Sequence[float], **fields: Any) -> tuple[ReferenceEntry, ...]:
    """One with several seeds; of the kind that its name begins with."""
    known: dict[str, Any] = {"kind": name.split()[0], "trainable": 10, "rows": 100, "seconds": 1.0}
    return tuple(
        ReferenceEntry(name=f"{name}, seed {seed}", test=test, **PLACE, **known, **fields)
        for seed, test in enumerate(tests)
    )


def test_two_trainings_of_one_kind_are_two(tmp_path: Path) -> None:
    ours = trained("lora", (0.80, 0.81, 0.82)) + trained("lora rank=4", (0.70, 0.71, 0.72))
    found = small(tmp_path, references=ours)
    scores = table(found, "movie-reviews.scores")
    (plot,) = found.sections[0].results.plots
    for name, mean in (("lora", "0.810"), ("lora rank=4", "0.710")):
        assert (scores[name]["test"], scores[name]["runs"]) == (mean, "3")
        assert [row[1] for row in plot.table.rows if row[0] == name] == [mean]


@pytest.mark.parametrize(
    ("names", "measure"),
    [
        (["lora+soft", "lora rank=4", "lora"], "lora rank=4"),
        (["lora", "fine-tuning epochs=5"], "fine-tuning epochs=5"),
        (["logistic-head"], "logistic-head"),
    ],
)
def test_prompts_are_held_against_one_training_by_its_kind(
    tmp_path: Path, names: list[str], measure: str
) -> None:
    ours = tuple(one for name in names for one in trained(name, (0.8, 0.9)))
    (kept,) = (one for one in small(tmp_path, references=ours).tables() if one.name == "kept")
    assert {row[1] for row in kept.rows} == {measure}


def on_splits(tests: dict[str, Sequence[float]]) -> dict[str, Any]:
    """A study with a split a seed, and of methods by name these scores on test."""

    def change(entry: RunEntry, result: Result) -> Changed:
        test = tests.get(entry.optimiser, (0.6,) * 3)[entry.seed]
        best = replace(result.best, test=Score(test, test))
        metrics = tuple(float(i < round(200 * test)) for i in range(200))
        changed = replace(
            result, candidates=(best, *result.candidates[1:]), test_metrics=metrics, test_answers=()
        )
        return entry.model_copy(update={"split_seed": entry.seed, "test": test}), changed

    task = task_entry("movie-reviews", SMALL)
    first, *others = (task.model_copy(update={"split_seed": split}) for split in range(3))
    return {
        "change_run": change,
        "split_seeds": (0, 1, 2),
        "tasks": (first.model_copy(update={"other_splits": tuple(others)}),),
        "controls": tuple(
            ControlEntry(
                name=EMPTY, test=test, split_seed=split, prompt="", retypable=True, **PLACE
            )
            for split, test in enumerate((0.5, 0.6, 0.7))
        ),
    }


def test_prompts_are_held_against_training_on_the_splits_that_both_have(tmp_path: Path) -> None:
    """Fine-tuning is done on the first of three splits, which is the hardest."""
    done = trained("fine-tuning", [0.75], split_seed=0)
    found = small(tmp_path, **on_splits({"greedy": (0.7, 0.8, 0.9)}), references=done)
    (kept,) = (one for one in found.tables() if one.name == "kept")
    row = next(row for row in kept.rows if row[2] == "greedy")
    assert row[3:5] == ("93.3", "80.0")  # 0.70 / 0.75, and 0.20 / 0.25 above 0.50
    assert kept.notes[1:] == (
        "movie-reviews: 1 of 3 splits (0), those on which method, trained model and empty prompt "
        "all have a score, for random, greedy.",
    )


def test_the_first_lines_say_that_a_split_is_a_draw_of_the_examples(tmp_path: Path) -> None:
    """Train, dev and test are called so as well."""
    drawn = small(tmp_path / "a", **on_splits({}))
    said = "2 methods, 3 splits (draws of the examples) of 3 seeds each, on movie-reviews with "
    assert drawn.headline.startswith(said)
    once = small(tmp_path / "b").headline
    assert once.startswith("2 methods, 3 seeds each, on movie-reviews with ")


def test_tasks_of_other_scales_are_not_averaged(tmp_path: Path) -> None:
    def plant(entry: RunEntry, result: Result) -> Changed:
        if entry.task == "movie-reviews":
            return entry, result
        best = replace(result.best, test=Score(40.0, 40.0 + entry.seed))
        changed = replace(
            result,
            candidates=(best, *result.candidates[1:]),
            test_metrics=(40.0 + entry.seed,) * 200,
        )
        return entry.model_copy(update={"test": 40.0 + entry.seed}), changed

    plan = replace(SMALL, tasks=("movie-reviews", "sst-2"))
    one = small(tmp_path, plan, change_run=plant)
    assert not any(one_table.name == "all-tasks" for one_table in one.tables())
    both = one.sections[0].results.sentences
    assert [text.split(":")[0] for text in both] == ["movie-reviews", "sst-2"]


def measured(folder: Path, tests: Sequence[float], **told: dict[str, Any]) -> Page:
    """Tasks by name with something of their entries, and greedy's scores on test by seed."""

    def plant(entry: RunEntry, result: Result) -> Changed:
        test = tests[entry.seed] if entry.optimiser == "greedy" else 0.3 + 0.01 * entry.seed
        best = replace(result.best, test=Score(test, test))
        candidates = (best, *result.candidates[1:])
        changed = replace(result, candidates=candidates, test_metrics=(), test_answers=())
        return entry.model_copy(update={"test": test}), changed

    plan = replace(SMALL, tasks=tuple(told))
    tasks = tuple(task_entry(name, plan).model_copy(update=own) for name, own in told.items())
    return small(folder, plan, change_run=plant, tasks=tasks)


MCC, ACCURACY, REWARD = ({"metric": name} for name in ("mcc", "accuracy", "reward"))


@pytest.mark.parametrize(
    ("task", "ends"),
    [
        # 4.303, Student's t for 2 degrees of freedom, times 0.1168 / sqrt(3), around 0.1233.
        (MCC, ("-0.167", "0.413")),
        (REWARD, ("-0.167", "0.413")),
        (REWARD | {"reward": "gap"}, ("-0.167", "0.413")),
        # Over 0.1233 * 0.8767 that is 2.683 of the logit, which is -1.961.
        (ACCURACY, ("0.010", "0.673")),
        (REWARD | {"reward": "exact_match"}, ("0.010", "0.673")),
        (REWARD | {"metric_range": (0, 1)}, ("0.010", "0.673")),
        (REWARD | {"reward": "exact_match", "metric_range": (-0.3, 1)}, ("-0.167", "0.413")),
    ],
)
def test_an_interval_ends_inside_0_and_1_where_the_metric_does(
    tmp_path: Path, task: dict[str, Any], ends: tuple[str, str]
) -> None:
    page = measured(tmp_path, (0.02, 0.10, 0.25), **{"sst-2": task})
    row = table(page, "sst-2.scores")["greedy"]
    assert (row["low"], row["high"]) == ends
    (plot,) = page.sections[0].results.plots
    assert [row[2:4] for row in plot.table.rows if row[0] == "greedy"] == [ends]


@pytest.mark.parametrize(
    ("first", "second", "averaged"),
    [
        (MCC, ACCURACY, False),
        (MCC, MCC, True),
        (ACCURACY, {"metric": "exact_match"}, True),
        (REWARD, REWARD, False),
        (REWARD | {"metric_range": (0, 1)}, ACCURACY, True),
    ],
)
def test_only_tasks_of_one_range_are_averaged(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], averaged: bool
) -> None:
    page = measured(tmp_path, (0.02, 0.10, 0.25), **{"sst-2": first, "trec": second})
    assert any(one.name == "all-tasks" for one in page.tables()) == averaged
    assert len(page.sections[0].results.sentences) == (1 if averaged else 2)


def test_a_table_says_what_every_later_prediction_reads_as_well(page: Page) -> None:
    rows = table(page, "sst-2.scores")
    assert rows["16-shot in context prompt"]["prompt"] == "512"  # tokens of examples
    assert (rows["empty prompt"]["prompt"], rows["greedy"]["prompt"]) == ("0", "5")
    assert rows["fine-tuning"]["prompt"] == "-"


def test_means_over_tasks_are_of_the_same_tasks_in_a_study_that_is_not_done(tmp_path: Path) -> None:
    make_study(tmp_path, replace(SMALL, tasks=("movie-reviews", "sst-2", "trec")))
    study = read_study(tmp_path)
    kept = [
        run
        for run in study.runs
        if (run.entry.optimiser, run.entry.task) not in (("greedy", "sst-2"), ("greedy", "trec"))
        or (run.entry.task, run.entry.seed) == ("trec", 0)
    ]
    page = page_of(replace(study, runs=tuple(kept)))
    (over,) = [one for one in page.tables() if one.name == "all-tasks"]
    assert over.caption.startswith("2 of 3 tasks, those on which every method has a score, ")
    assert over.notes[-1] == "Left out: sst-2, where a method has no score."
    rows = {row[0]: dict(zip(over.header, row, strict=True)) for row in over.rows}
    assert (rows["random"]["runs"], rows["greedy"]["runs"]) == ("6", "4")
    for name, row in rows.items():
        own = [
            float(table(page, f"{task}.scores")[name]["test"]) for task in ("movie-reviews", "trec")
        ]
        assert float(row["mean"]) == pytest.approx(np.mean(own), abs=1e-3)
    assert "Runs are missing: the mean is over all scores of greedy, and" in sentences(page)
    # Nothing to hold together where no task is shared.
    apart = [
        run for run in study.runs if (run.entry.optimiser == "greedy") == (run.entry.task == "trec")
    ]
    page = page_of(replace(study, runs=tuple(apart)))
    assert not any(one.name == "all-tasks" for one in page.tables())
    assert page.sections[0].results.brief is None
