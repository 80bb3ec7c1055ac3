"""The best prompts: how they are picked, and what the model answered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from study_folder import make_study, write_summary
from study_pages import SMALL, Changed, first_of, small

from rlprompt.export.export import pick_run
from rlprompt.reports.page import Page
from rlprompt.reports.study import Study
from rlprompt.search.result import Result, Score
from rlprompt.store.store import StoredRun
from rlprompt.store.summary import RunEntry


def test_the_best_prompt_is_picked_on_dev_among_seeds_and_not_on_test(tmp_path: Path) -> None:
    def better_on_dev(entry: RunEntry, result: Result) -> Changed:
        best = replace(result.best, dev=Score(0.99, 0.99), test=Score(-1.0, 0.0))
        changed = replace(result, candidates=(best,), test_metrics=(0.0,) * 200, test_answers=())
        return entry.model_copy(update={"dev": 0.99, "test": 0.0}), changed

    one = small(tmp_path, **first_of("greedy", better_on_dev))
    (card,) = (
        card for card in one.sections[0].best_prompts["movie-reviews"] if card.method == "greedy"
    )
    assert (card.seed, dict(card.scores)["test"]) == (0, "0.000")


@pytest.mark.parametrize(("select_by", "seed"), [("reward", 1), ("metric", 2), ("tied", 2)])
def test_it_is_the_one_that_an_export_would_be_of(
    select_by: str, seed: int, tmp_path: Path
) -> None:
    """By what the task picks prompts by, and among equals by the other figure."""
    rewards, metrics = (-5.0, 0.9, 0.5), (0.5, 0.7, 0.9)
    if select_by == "tied":
        rewards = (-5.0, 0.9, 0.9)

    def planted(entry: RunEntry, result: Result) -> Changed:
        dev = Score(rewards[entry.seed], metrics[entry.seed])
        best = replace(result.best, dev=dev)
        told = {"dev": dev.metric, "rewards": {**entry.rewards, "dev": dev.reward}}
        by = "metric" if select_by == "metric" else "reward"
        return entry.model_copy(update=told), replace(result, candidates=(best,), select_by=by)

    plan = replace(SMALL, methods=("greedy",))
    summary = make_study(tmp_path, plan, change_run=planted)
    if select_by == "metric":
        task = summary.tasks[0].model_copy(update={"select_by": "metric"})
        write_summary(tmp_path, summary.model_copy(update={"tasks": (task,)}))
    study = Study(tmp_path)
    (card,) = study.page.sections[0].best_prompts["movie-reviews"]
    assert (card.seed, study.best()["seed"].tolist()) == (seed, [seed])
    results = [Result.from_json((tmp_path / one.file).read_text()) for one in summary.runs]
    runs = [
        StoredRun(str(i), {}, "", 0, 0, 0, None, 0.0, None, "", r) for i, r in enumerate(results)
    ]
    assert pick_run(runs).name == str(seed)


@pytest.mark.parametrize(
    ("prior", "said"),
    [
        (None, []),
        ({"bad": 0.25, "good": 0.75}, ["calibration takes out: good 0.750, bad 0.250."]),
        ({f"c{i}": 0.04 for i in range(25)}, [f"c19 {0.04:.3f} and 5 others."]),
    ],
    ids=["none", "two classes", "many classes"],
)
def test_the_prior_is_told(prior: dict[str, float] | None, said: list[str], tmp_path: Path) -> None:
    def calibrated(entry: RunEntry, result: Result) -> Changed:
        return entry, replace(result, candidates=(replace(result.best, prior=prior),))

    one = small(tmp_path, **first_of("greedy", calibrated))
    cards = one.sections[0].best_prompts["movie-reviews"]
    (card,) = (card for card in cards if card.method == "greedy")
    told = [remark for remark in card.remarks if "Prior" in remark]
    assert [end for end in said if told[0].endswith(end)] == said
    assert len(told) == len(said)


def test_confusion_counts_every_test_example(page: Page) -> None:
    card = page.sections[0].best_prompts["movie-reviews"][0]
    (confusion,) = (one for one in card.others if one.name.endswith(".confusion"))
    cells = [[int(cell) for cell in row[1:3]] for row in confusion.rows]
    assert np.sum(cells) == 200
    right = cells[0][0] + cells[1][1]
    assert f"{right / 200:.3f}" == dict(card.scores)["test"]
