"""The scores of a section as the statistics want them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from study_folder import MODEL, make_study
from study_pages import SMALL

from rlprompt.reports.caveats import examined
from rlprompt.reports.score_matrix import ScoreMatrix, mean_of, wilson
from rlprompt.reports.study_data import read_study


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


def test_wilson_is_for_shares_alone() -> None:
    # Wilson's formula by hand for 111 of 200.
    assert wilson([1.0] * 111 + [0.0] * 89) == pytest.approx((0.486, 0.622), abs=5e-4)
    assert wilson([0.5, 1.0]) == wilson([]) == (None, None)


def test_a_mean_is_of_what_is_there() -> None:
    assert mean_of([None, 1.0, 2.0]) == 1.5
    assert mean_of([None]) is None
