"""The scores of a section as the statistics want them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from study_folder import MODEL, make_study, write_summary
from study_pages import SMALL

from rlprompt.reports.page import page_of
from rlprompt.reports.score_matrix import BEST_HAND, ScoreMatrix, mean_of, wilson
from rlprompt.reports.struck import examined
from rlprompt.reports.study_data import read_study
from rlprompt.store.summary import HAND, TaskEntry


def test_what_does_not_count_is_no_number(tmp_path: Path) -> None:
    make_study(tmp_path, SMALL)
    study = examined(read_study(tmp_path))
    first = next(run for run in study.runs if run.entry.optimiser == "greedy")
    runs = tuple(replace(run, struck=("planted",)) if run is first else run for run in study.runs)
    matrix = ScoreMatrix(replace(study, runs=runs), MODEL, 9600, "")
    scores = matrix.scores("greedy", matrix.tasks)
    assert scores.shape == (1, 3, 1)
    assert np.isnan(scores).ravel().tolist() == [True, False, False]
    assert scores[0, 1:, 0].tolist() == [
        run.score("test") for run in matrix.of("greedy", first.entry.task)
    ]
    assert np.isnan(matrix.control("none of this name", matrix.tasks)).tolist() == [[True]]


def test_tasks_share_draws_with_all_that_a_third_shares_some_with(tmp_path: Path) -> None:
    (task,) = make_study(tmp_path, SMALL).tasks
    matrix = ScoreMatrix(examined(read_study(tmp_path)), MODEL, 9600, "")

    def on(name: str, *draws: str) -> TaskEntry:
        first, *others = (
            task.model_copy(update={"name": name, "draw": draw, "split_seed": i})
            for i, draw in enumerate(draws)
        )
        return first.model_copy(update={"other_splits": tuple(others)})

    tasks = [on("A", "x"), on("B", "y"), on("C", "y", "x"), on("D", "z")]
    assert matrix.draws(tasks) == ["B", "B", "B", "D"]
    assert matrix.draws([tasks[0], tasks[1], tasks[3]]) == ["A", "B", "D"]
    assert matrix.draws([tasks[2], tasks[0], tasks[1]]) == ["C", "C", "C"]


def test_wilson_is_for_shares_alone() -> None:
    # Wilson's formula by hand for 111 of 200.
    assert wilson([1.0] * 111 + [0.0] * 89) == pytest.approx((0.486, 0.622), abs=5e-4)
    assert wilson([0.5, 1.0]) == wilson([]) == (None, None)


def test_a_mean_is_of_what_is_there() -> None:
    assert mean_of([None, 1.0, 2.0]) == 1.5
    assert mean_of([None]) is None


def test_of_several_hand_written_prompts_the_best_without_test_is_held_against(
    tmp_path: Path,
) -> None:
    found = make_study(tmp_path, SMALL)
    (by_hand,) = [one for one in found.controls if one.name == HAND]
    figures = {"hand-written 2": (0.9, 0.1), "hand-written 2, calibrated": (0.7, 0.99)}
    more = [
        by_hand.model_copy(update={"name": name, "train": dev, "dev": dev, "test": test})
        for name, (dev, test) in figures.items()
    ]
    write_summary(tmp_path, found.model_copy(update={"controls": (*found.controls, *more)}))
    study = examined(read_study(tmp_path))
    matrix = ScoreMatrix(study, MODEL, 9600, "")
    assert matrix.rivals == ["empty", "best word", "16-shot in context", BEST_HAND]
    assert matrix.control(BEST_HAND, matrix.tasks).tolist() == [[0.1]]
    page = page_of(study)
    notes = " ".join(note for one in page.tables() for note in one.notes)
    assert "best hand-written prompt: the best of 3 hand-written prompts on train and dev" in notes
    (scores,) = [one for one in page.tables() if one.name == "movie-reviews.scores"]
    gaps = {row[0]: row[scores.header.index("dev - test")] for row in scores.rows}
    assert gaps["best hand-written prompt"] == "0.800"  # 0.9 - 0.1: dev had a part in picking it
    assert {gaps["empty prompt"], gaps["hand-written prompt"], gaps["best word"]} == {"-"}
    but = "controls other than the best hand-written prompt are not picked there."
    assert f"(the winner's curse); {but}" in notes
    (pairs,) = [one for one in page.tables() if one.name.endswith("control-pairs")]
    assert "the best hand-written prompt" in {row[1] for row in pairs.rows}
    assert not any("hand-written 2" in row[1] for row in pairs.rows)


def test_a_hand_written_prompt_at_zero_beats_one_below(tmp_path: Path) -> None:
    """Of a correlation, say."""
    found = make_study(tmp_path, SMALL)
    (by_hand,) = [one for one in found.controls if one.name == HAND]
    figures = {HAND: (-0.2, 0.7), "hand-written 2": (0.0, 0.1), "hand-written 3": (None, 0.9)}
    hands = [
        by_hand.model_copy(update={"name": name, "train": dev, "dev": dev, "test": test})
        for name, (dev, test) in figures.items()
    ]
    write_summary(tmp_path, found.model_copy(update={"controls": tuple(hands)}))
    matrix = ScoreMatrix(examined(read_study(tmp_path)), MODEL, 9600, "")
    assert matrix.control(BEST_HAND, matrix.tasks).tolist() == [[0.1]]
