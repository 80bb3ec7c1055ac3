"""The best prompts: how they are picked, and what the model answered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from study_pages import Changed, first_of, small

from rlprompt.reports.page import Page
from rlprompt.search.result import Result, Score
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


def test_confusion_counts_every_test_example(page: Page) -> None:
    card = page.sections[0].best_prompts["movie-reviews"][0]
    (confusion,) = (one for one in card.others if one.name.endswith(".confusion"))
    cells = [[int(cell) for cell in row[1:3]] for row in confusion.rows]
    assert np.sum(cells) == 200
    right = cells[0][0] + cells[1][1]
    assert f"{right / 200:.3f}" == dict(card.scores)["test"]
