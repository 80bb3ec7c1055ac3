"""The panels: what was paid for and nothing else, and words where nothing can be said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from study_folder import N_DEV, Plan, make_study
from study_pages import SMALL, Changed, table

from rlprompt.reports.html import html
from rlprompt.reports.page import Page, page_of
from rlprompt.reports.panels import on_dev
from rlprompt.reports.study_data import read_study
from rlprompt.search.result import Incumbent, Result, Score
from rlprompt.store.summary import RunEntry


def page(folder: Path, plan: Plan = SMALL, **changes: object) -> Page:
    make_study(folder, plan, **changes)  # type: ignore[arg-type]
    return page_of(read_study(folder))


def rising(entry: RunEntry, result: Result) -> Changed:
    """Dev rises by 0.1 with each doubling, each run a little higher than the one before."""
    rows = [960 * i for i in range(1, 11)]
    points = tuple((at, 0.01 * at) for at in rows)
    incumbents = tuple(
        Incumbent(at, Score(0.1 * float(np.log2(at)) + 0.01 * result.seed, 0.6)) for at in rows
    )
    changed = replace(result, points=points, incumbents=incumbents, trace_seconds=())
    return entry, changed


def test_each_task_has_both(tmp_path: Path) -> None:
    found = page(tmp_path)
    first, second = found.sections[0].panels
    assert first.question == "movie-reviews: does the train reward predict held-out scores?"
    assert "a Spearman rank correlation of" in first.answer
    assert first.plot is not None
    assert first.plot.svg.count('class="ring"') > 20
    # On test the picked prompts alone: 2 methods of 3 seeds, and a mark for each in the legend.
    assert first.plot.svg.count('class="dot"') == 6 + 3
    assert second.question == "movie-reviews: what would more rows buy?"
    assert first.question in html(found)


def test_how_the_reward_foretells_the_metric_is_told(tmp_path: Path) -> None:
    found = page(tmp_path, replace(SMALL, seeds=1))
    (run,) = (one for one in read_study(tmp_path).runs if one.entry.optimiser == "greedy")
    assert run.result is not None
    known = on_dev(run.result, N_DEV)
    expected = spearmanr([one.reward for one in known], [one.metric for one in known]).statistic
    row = table(found, "movie-reviews.prediction")["greedy"]
    assert float(row["dev reward to accuracy"]) == pytest.approx(expected, abs=1e-3)
    answer = found.sections[0].panels[0].answer
    assert "Reward and accuracy on dev have a rank correlation of " in answer


def test_the_winners_curse_is_that_of_the_picked(tmp_path: Path) -> None:
    row = table(page(tmp_path), "movie-reviews.prediction")["greedy"]
    figures = {name: float(row[name]) for name in ("picked: train", "dev", "test")}
    gap = figures["picked: train"] - figures["test"]
    assert float(row["train - test"]) == pytest.approx(gap, abs=2e-3)
    assert float(row["dev - test"]) == pytest.approx(figures["dev"] - figures["test"], abs=2e-3)


def test_prompts_of_a_run_count_once_and_on_all_of_dev(tmp_path: Path) -> None:
    make_study(tmp_path, SMALL)
    result = read_study(tmp_path).runs[0].result
    assert result is not None
    best, behind, *_ = result.candidates
    candidates = (best, replace(behind, found_at_rows=7, dev_examples=N_DEV // 2))
    known = Incumbent(best.found_at_rows, Score(0.5, 0.5))
    (only,) = on_dev(replace(result, candidates=candidates, incumbents=(known,)), N_DEV)
    assert best.dev is not None
    assert only.reward == best.dev.reward


def test_all_of_dev_is_that_of_the_runs_own_split(tmp_path: Path) -> None:
    """A prompt that left the race at 32 examples was scored on all of one dev, not of another."""

    def on_splits(entry: RunEntry, result: Result) -> tuple[RunEntry, Result]:
        split = (13, 21)[entry.seed % 2]
        left = [
            replace(one, dev_examples=32, found_at_rows=i)
            for i, one in enumerate(result.candidates[1:4])
        ]
        whole = replace(result.candidates[0], dev_examples=64)
        changed = replace(result, candidates=(whole, *left), incumbents=())
        return entry.model_copy(update={"split_seed": split}), changed

    plan = replace(SMALL, seeds=2)
    (task,) = make_study(tmp_path, plan).tasks
    draws = [
        task.model_copy(update={"split_seed": seed, "examples": task.examples | {"dev": n}})
        for seed, n in ((13, 32), (21, 64))
    ]
    tasks = (draws[0].model_copy(update={"other_splits": (draws[1],)}),)
    found = page(tmp_path, plan, change_run=on_splits, tasks=tasks, controls=(), references=())
    # On split 13 the picked one and three that left; on split 21 the picked one alone.
    assert table(found, "movie-reviews.prediction")["greedy"]["dev prompts"] == "5"


def test_a_curve_that_goes_on_is_drawn_to_twice_the_rows(tmp_path: Path) -> None:
    found = page(tmp_path, change_run=rising)
    row = table(found, "movie-reviews.more-rows")["greedy"]
    assert (row["gain"], row["shown to"], row["why no further"]) == ("0.100", "19,200", "-")
    panel = found.sections[0].panels[1]
    assert panel.plot is not None
    assert panel.answer.startswith(
        "Another 9,600 rows would add to the dev reward, if curves go on"
    )
    assert "greedy +0.1 (" in panel.answer


def test_one_seed_says_nothing_of_more_rows(tmp_path: Path) -> None:
    panel = page(tmp_path, replace(SMALL, seeds=1)).sections[0].panels[1]
    assert panel.plot is None
    assert panel.answer == (
        "Another 9,600 rows would add to the dev reward, if curves go on as before: random and "
        "greedy unknown, since one run does not show how much runs differ."
    )
