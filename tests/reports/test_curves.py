"""Curves: what a search had spent at each improvement."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from study_folder import METHODS, make_study, task_entry, write_summary
from study_pages import SMALL, Changed, small

from rlprompt.reports.curves import costs
from rlprompt.reports.page import Page, page_of
from rlprompt.reports.study_data import RunData, read_study
from rlprompt.search.result import Result
from rlprompt.store.summary import RunEntry


def test_seconds_are_known_at_improvements_and_own_time_is_spread_over_them(study: Path) -> None:
    run = read_study(study).runs[0]
    assert run.result is not None
    result = replace(
        run.result,
        points=((100, 0.1), (300, 0.2)),
        trace_seconds=(1.0, 2.0),
        rows=400,
        lm_seconds=4.0,
        total_seconds=8.0,
    )
    spent = costs(replace(run, result=result), [100, 200, 300, 400], "seconds")
    assert spent is not None
    assert spent.tolist() == [2.0, 3.0, 4.0, 8.0]
    assert costs(RunData(run.entry, replace(result, tokens_per_row=None)), [1], "tokens") is None


def test_curves_of_all_units_are_there_with_their_figures(page: Page) -> None:
    assert page.units == ("rows", "tokens", "seconds")
    (train, dev) = page.sections[0].curves[0].plots["rows"]
    assert [row[0] for row in train.table.rows] == list(METHODS)
    assert "<title" in dev.svg
    assert "<desc" in dev.svg


@pytest.mark.parametrize(("seeds", "each"), [(3, 3), (4, 0)])
def test_of_few_seeds_the_curves_are_drawn_and_no_band(
    tmp_path: Path, seeds: int, each: int
) -> None:
    (train, _) = small(tmp_path, replace(SMALL, seeds=seeds)).sections[0].curves[0].plots["rows"]
    drawn = Counter(re.findall(r'class="(run|band|curve) s\d"', train.svg))
    assert drawn == Counter(curve=2, run=2 * each, band=0 if each else 2)
    low = train.table.header.index("low")
    assert all((row[low] == "-") == bool(each) for row in train.table.rows)


def test_a_thin_line_is_called_what_it_is(tmp_path: Path) -> None:
    """Of a split with several seeds it is their mean, and no run."""

    def draw(entry: RunEntry, result: Result) -> Changed:
        return entry.model_copy(update={"split_seed": 5 + entry.seed // 2}), result

    task = task_entry("movie-reviews", SMALL)
    first, other = (task.model_copy(update={"split_seed": split}) for split in (5, 6))
    tasks = (first.model_copy(update={"other_splits": (other,)}),)
    four = replace(SMALL, seeds=4)
    (seeds, splits) = (
        page.sections[0].curves[0].plots["rows"][0].svg
        for page in (
            small(tmp_path / "seeds", replace(SMALL, seeds=2)),
            small(tmp_path / "splits", four, change_run=draw, tasks=tasks),
        )
    )
    assert seeds.count('class="run ') == splits.count('class="run ') == 2 * 2
    assert "Mean over seeds, each seed as a thin line. " in seeds
    assert "Mean over splits of means over seeds, each split as a thin line. " in splits


def test_the_controls_that_are_drawn_are_the_first_two_whose_rewards_compare(
    tmp_path: Path,
) -> None:
    """Where a task calibrates, the hand-written prompt without that has rewards of another task."""
    summary = make_study(tmp_path, SMALL)
    empty, hand, *others = summary.controls
    calibrated = hand.model_copy(update={"name": "hand-written, calibrated"})
    plain = hand.model_copy(update={"variant": True})
    controls = (empty, plain, calibrated, *others)
    write_summary(tmp_path, summary.model_copy(update={"controls": controls}))
    (train, _) = page_of(read_study(tmp_path)).sections[0].curves[0].plots["rows"]
    assert "; empty prompt -0.100 throughout; hand-written prompt, calibrated -0.040" in train.svg
    assert train.svg.count(" throughout") == 2


@pytest.mark.parametrize(("seeds", "n_plots"), [(9, 1), (10, 2)])
def test_a_profile_of_few_runs_is_not_drawn(tmp_path: Path, seeds: int, n_plots: int) -> None:
    found = small(tmp_path, replace(SMALL, seeds=seeds)).sections[0].results.plots
    assert len(found) == n_plots  # the first has a dot a run
