"""The page as a whole: its sections, and a study with little in it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from study_folder import METHODS, MODEL, make_study, write_summary
from study_pages import SMALL, Changed, found, sentences, small, table

from rlprompt.reports.html import html
from rlprompt.reports.page import Page, page_of
from rlprompt.reports.study_data import read_study
from rlprompt.reports.tables import NONE
from rlprompt.search.result import Result
from rlprompt.store.summary import RunEntry, Summary


def test_budgets_are_never_in_one_table(tmp_path: Path) -> None:
    one = small(tmp_path, replace(SMALL, budgets=(3200, 9600)))
    assert "never in one table" in found(one)["several budgets"]
    assert [section.heading for section in one.sections] == [
        f"{MODEL}, 3,200 rows a search",
        f"{MODEL}, 9,600 rows a search",
    ]
    for section, rows in zip(one.sections, ("3,200", "9,600"), strict=True):
        found_rows = {row[-2] for row in section.results.tables[0].rows if "search" in row}
        assert found_rows == {rows}


def test_without_runs_there_are_controls_and_no_conclusion(tmp_path: Path) -> None:
    summary = make_study(tmp_path, SMALL)
    write_summary(tmp_path, summary.model_copy(update={"runs": ()}))
    one = page_of(read_study(tmp_path))
    assert "No search has started" in found(one)["no runs"]
    assert "only the controls are known" in sentences(one)
    assert "hand-written prompt" in table(one, "movie-reviews.scores")
    assert "there is no curve" in html(one)


def test_without_test_nothing_is_concluded_about_test(tmp_path: Path) -> None:
    one = small(tmp_path, replace(SMALL, test=False))
    assert "has no test examples. Dev is shown instead" in found(one)["missing test"]
    assert "nothing can be concluded about test" in sentences(one)
    row = table(one, "movie-reviews.scores")["greedy"]
    assert row["test"] == NONE
    assert float(row["dev"]) > 0


def test_the_same_study_gives_the_same_page(study: Path, page: Page) -> None:
    assert html(page_of(read_study(study))) == html(page)


def test_a_summary_without_what_is_newer_is_read(tmp_path: Path) -> None:
    """Controls without examples, no references, no notes, results without incumbents."""

    def plant(entry: RunEntry, result: Result) -> Changed:
        bare = replace(
            result,
            incumbents=(),
            trace_seconds=(),
            tokens_per_row=None,
            analysis=None,
            test_metrics=(),
            test_answers=(),
            outside_rows={},
        )
        return entry, bare

    summary = make_study(tmp_path, SMALL, change_run=plant, references=(), config={}, versions={})
    controls = [
        json.loads(one.model_dump_json(exclude={"test_metrics", "rows", "note", "rewards"}))
        for one in summary.controls
    ]
    state = json.loads(summary.to_json()) | {"controls": controls}
    write_summary(tmp_path, Summary.model_validate(state))
    one = page_of(read_study(tmp_path))
    assert one.caveats == ()
    assert one.units == ("rows",)
    assert "run from Python" in html(one)


def test_the_first_screen_has_test_scores_and_the_best_prompt_of_each_task(page: Page) -> None:
    (section,) = page.sections
    assert section.results.brief is not None
    methods = [row[0] for row in section.results.brief.rows]
    assert methods[-len(METHODS) :] == list(METHODS)
    assert [one.task for one in section.leading] == [task.task for task in section.curves]
    for one in section.leading:
        rivals = [float(dict(other.scores)["dev"]) for other in section.best_prompts[one.task]]
        assert float(dict(one.scores)["dev"]) == max(rivals)
    first = html(page).split('id="curves"')[0]
    assert first.count("Best on dev of ") == len(section.leading)
    assert "brief-all-tasks-caption" in first


def test_what_trains_the_model_is_not_among_prompts_on_the_first_screen(tmp_path: Path) -> None:
    one = small(tmp_path, SMALL)
    brief = one.sections[0].results.brief
    assert brief is not None
    assert table(one, "movie-reviews.scores")["lora"]["kind"] == "training"
    shown = {row[0] for row in brief.rows}
    assert "greedy" in shown
    assert "lora" not in shown
