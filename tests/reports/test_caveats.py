"""What cannot be relied on: figures that count nowhere, and cautions."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from study_folder import MODEL, make_study, model_entry, task_entry, write_summary
from study_pages import SMALL, Changed, first_of, found, sentences, small, struck, table

from rlprompt.reports.html import html
from rlprompt.reports.page import Page, page_of
from rlprompt.reports.study_data import read_study
from rlprompt.search.result import Result, Score
from rlprompt.store.summary import PartEntry, RunEntry


def test_a_sound_study_has_nothing_to_object(page: Page) -> None:
    assert page.caveats == ()
    assert "No objection found" in html(page)
    assert "Figures rest on 5 seeds a method" in page.basis


def test_two_seeds_and_few_test_examples_are_an_objection(tmp_path: Path) -> None:
    summary = make_study(tmp_path, replace(SMALL, seeds=2))
    sizes = {**summary.tasks[0].examples, "test": 16}
    task = summary.tasks[0].model_copy(update={"examples": sizes})
    write_summary(tmp_path, summary.model_copy(update={"tasks": (task,)}))
    page = page_of(read_study(tmp_path))
    assert "two seeds hardly tell" in found(page)["few seeds"]
    assert "Add seeds to the experiment" in found(page)["few seeds"]
    # Wilson's interval of 8 of 16, by hand: (8 + 1.92 -+ 1.96 sqrt(4 + 0.96)) / 19.84.
    assert "28% to 72% of all" in found(page)["few test examples"]
    assert "No objection found" not in html(page)


def test_of_two_splits_more_splits_are_asked_for_and_no_seeds(tmp_path: Path) -> None:
    """Seeds on one split share its luck, and count as one."""

    def draw(entry: RunEntry, result: Result) -> Changed:
        return entry.model_copy(update={"split_seed": entry.seed // 3}), result

    task = task_entry("movie-reviews", SMALL)
    first, other = (task.model_copy(update={"split_seed": split}) for split in (0, 1))
    page = small(
        tmp_path,
        replace(SMALL, seeds=6),
        change_run=draw,
        tasks=(first.model_copy(update={"other_splits": (other,)}),),
        split_seeds=(0, 1),
    )
    text = found(page)["few seeds"]
    assert "two splits hardly tell" in text
    assert "Add `split_seeds`, as seeds on the same split add none, to the experiment" in text


def test_of_splits_that_wait_the_first_does_not_ask_for_seeds(tmp_path: Path) -> None:
    def draw(entry: RunEntry, result: Result) -> Changed:
        return entry.model_copy(update={"split_seed": 0}), result

    task = task_entry("movie-reviews", SMALL)
    first, other = (task.model_copy(update={"split_seed": split}) for split in (0, 1))
    tasks = (first.model_copy(update={"other_splits": (other,)}),)
    plans = [replace(SMALL, seeds=n) for n in (1, 2)]
    for plan in plans:
        page = small(tmp_path, plan, change_run=draw, tasks=tasks, split_seeds=(0, 1))
        assert not {"one seed", "few seeds"} & set(found(page))
        assert "With one split nothing can be ranked" in sentences(page)


def test_a_leak_is_flagged(tmp_path: Path) -> None:
    summary = make_study(tmp_path, SMALL)
    task = summary.tasks[0].model_copy(update={"leaks": {"test": 12}})
    write_summary(tmp_path, summary.model_copy(update={"tasks": (task,)}))
    text = found(page_of(read_study(tmp_path)))["leaks"]
    assert "12 of 200 test examples (6.0%)" in text


@pytest.mark.parametrize(("n_rare", "flagged"), [(4, True), (80, False)])
def test_a_test_of_nearly_one_class_is_flagged(tmp_path: Path, n_rare: int, flagged: bool) -> None:
    summary = make_study(tmp_path, SMALL)
    labels = ("fraud",) * n_rare + ("<ok>",) * (200 - n_rare)
    task = summary.tasks[0].model_copy(update={"test_labels": labels})
    write_summary(tmp_path, summary.model_copy(update={"tasks": (task,)}))
    page = page_of(read_study(tmp_path))
    assert ("rare classes" in found(page)) is flagged
    if flagged:
        told = "always answering {} has a test accuracy of 0.980"
        assert told.format("`<ok>`") in found(page)["rare classes"]
        assert told.format("<code>&lt;ok&gt;</code>") in html(page)


def test_a_prompt_that_was_picked_by_the_metric_is_judged_by_it(tmp_path: Path) -> None:
    def plant(entry: RunEntry, result: Result) -> Changed:
        best, *others = result.candidates
        assert best.dev is not None
        others[0] = replace(others[0], dev=Score(best.dev.reward + 1, best.dev.metric - 0.1))
        return entry, replace(result, candidates=(best, *others))

    struck(small(tmp_path / "a", **first_of("greedy", plant)), "was not picked on dev")
    summary = make_study(tmp_path / "b", SMALL, **first_of("greedy", plant))
    task = summary.tasks[0].model_copy(update={"select_by": "metric"})
    write_summary(tmp_path / "b", summary.model_copy(update={"tasks": (task,)}))
    assert "struck runs" not in found(page_of(read_study(tmp_path / "b")))


def test_a_second_candidate_with_a_test_score_strikes_the_run(tmp_path: Path) -> None:
    def plant(entry: RunEntry, result: Result) -> Changed:
        best, second, *rest = result.candidates
        second = replace(second, test=Score(0.1, 0.5))
        return entry, replace(result, candidates=(best, second, *rest))

    struck(small(tmp_path, **first_of("greedy", plant)), "1 candidate also got a test score")


def test_a_prompt_that_is_not_the_best_on_dev_strikes_the_run(tmp_path: Path) -> None:
    def plant(entry: RunEntry, result: Result) -> Changed:
        best, *others = result.candidates
        others[0] = replace(others[0], dev=Score(0.95, 0.97))
        return entry, replace(result, candidates=(best, *others))

    struck(small(tmp_path, **first_of("greedy", plant)), "was not picked on dev")


def test_a_candidate_that_fell_behind_in_the_race_may_have_a_higher_mean(tmp_path: Path) -> None:
    def plant(entry: RunEntry, result: Result) -> Changed:
        best, *others = result.candidates
        others[0] = replace(others[0], dev=Score(0.95, 0.97), dev_examples=8)
        return entry, replace(result, candidates=(best, *others))

    assert small(tmp_path, **first_of("greedy", plant)).caveats == ()


def test_more_looks_at_test_than_a_kind_needs_strike_the_run(tmp_path: Path) -> None:
    def plant(entry: RunEntry, result: Result) -> Changed:
        return entry, replace(result, test_prompts=2)

    struck(small(tmp_path, **first_of("greedy", plant)), "2 prompts were scored on test")


def test_a_soft_prompt_and_its_projection_are_two_looks(tmp_path: Path) -> None:
    plan = replace(SMALL, methods=("random", "cma-es"))
    assert small(tmp_path, plan).caveats == ()


def test_an_edited_test_figure_strikes_the_run(tmp_path: Path) -> None:
    def plant(entry: RunEntry, result: Result) -> Changed:
        return entry.model_copy(update={"test": 0.99}), result

    struck(small(tmp_path, **first_of("greedy", plant)), "test is 0.99 in the one")


def test_a_struck_run_is_in_no_mean_below_the_runs(tmp_path: Path) -> None:
    def notes(train: float, test: float) -> tuple[str, ...]:
        def plant(entry: RunEntry, result: Result) -> Changed:
            if (entry.optimiser, entry.seed) == ("greedy", 0):
                return entry.model_copy(update={"train": train, "test": test}), result
            best = replace(result.best, train=Score(0.9, 0.75), test=Score(0.9, 0.5))
            changed = replace(result, candidates=(best, *result.candidates[1:]), test_metrics=())
            return entry.model_copy(update={"train": 0.75, "test": 0.5}), changed

        (section,) = small(tmp_path, change_run=plant).sections
        return section.runs[0].notes

    assert any("Train is 0.25 above test on average" in note for note in notes(1.0, 0.0))
    assert notes(1.0, 0.0) == notes(0.0, 0.9)


def test_a_test_figure_edited_in_both_files_is_not_the_mean_of_its_examples(tmp_path: Path) -> None:
    def plant(entry: RunEntry, result: Result) -> Changed:
        best = replace(result.best, test=Score(0.9, 0.99))
        changed = replace(result, candidates=(best, *result.candidates[1:]))
        return entry.model_copy(update={"test": 0.99}), changed

    struck(small(tmp_path, **first_of("greedy", plant)), "the mean over its test examples")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("task_fingerprint", "other", "another task or other data"),
        ("fingerprint", {"weights": "other"}, "another model"),
        ("rows", 1, "rows is 9600 in the one and 1 in the other"),
    ],
)
def test_a_result_of_something_else_strikes_the_run(
    tmp_path: Path, field: str, value: Any, said: str
) -> None:
    def plant(entry: RunEntry, result: Result) -> Changed:
        return entry, replace(result, **{field: value})

    struck(small(tmp_path, **first_of("greedy", plant)), said)


def test_more_rows_than_the_budget_strike_the_run(tmp_path: Path) -> None:
    def plant(entry: RunEntry, result: Result) -> Changed:
        return entry.model_copy(update={"rows": 9_700}), replace(result, rows=9_700)

    struck(small(tmp_path, **first_of("greedy", plant)), "9,700 rows of a budget of 9,600")


def test_a_run_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    summary = make_study(tmp_path, SMALL)
    twice = (*summary.runs, summary.runs[0])
    write_summary(tmp_path, summary.model_copy(update={"runs": twice}))
    one = page_of(read_study(tmp_path))
    assert "twice" in found(one)["struck runs"]
    assert table(one, "movie-reviews.scores")["random"]["runs"] == "3"


def test_one_seed_ranks_nothing(tmp_path: Path) -> None:
    """A planted winner: 0.99 against 0.5."""

    def plant(entry: RunEntry, result: Result) -> Changed:
        share = 0.99 if entry.optimiser == "greedy" else 0.5
        metrics = tuple(float(i < share * 200) for i in range(200))
        best = replace(result.best, test=Score(share, share))
        changed = replace(
            result,
            candidates=(best, *result.candidates[1:]),
            test_metrics=metrics,
            test_answers=(),
        )
        return entry.model_copy(update={"test": share}), changed

    one = small(tmp_path, replace(SMALL, seeds=1), change_run=plant)
    assert "add seeds to the experiment" in found(one)["one seed"]
    assert html(one).count("With one seed nothing can be ranked") == 1
    assert "greedy" not in sentences(one)
    assert one.sections[0].results.tests == ()
    assert one.sections[0].results.notes == ()
    text = html(one)
    assert not re.search(r"wins|comes? out highest|highest|shown to beat", text)
    names = [row[0] for row in one.sections[0].results.tables[0].rows]
    assert names.index("random") < names.index("greedy"), "in the order of the experiment"


def test_a_failed_run_is_named_with_its_error(tmp_path: Path) -> None:
    def plant(entry: RunEntry, result: Result) -> Changed:
        changed = {"status": "failed", "error": "ZeroDivisionError: <b>no spread</b>"}
        return entry.model_copy(update=changed), replace(result, status="failed")

    one = small(tmp_path, **first_of("greedy", plant), complete=False)
    text = found(one)["failed runs"]
    assert f"greedy on movie-reviews, {MODEL}, seed 0" in text
    assert "ZeroDivisionError" in text
    assert table(one, "movie-reviews.scores")["greedy"]["runs"] == "2"
    assert "<b>no spread" not in html(one)
    assert "&lt;b&gt;no spread" in html(one)


def test_missing_runs_are_named_a_few_of_many(tmp_path: Path) -> None:
    summary = make_study(tmp_path, SMALL)
    write_summary(tmp_path, summary.model_copy(update={"runs": summary.runs[:-1]}))
    text = found(page_of(read_study(tmp_path)))["missing runs"]
    assert "Not finished: 1 of 6 runs: greedy on movie-reviews" in text
    assert "seed 2, 9,600 rows" in text
    assert text.endswith("run the study's command again to go on.")
    write_summary(tmp_path, summary.model_copy(update={"runs": summary.runs[:1]}))
    text = found(page_of(read_study(tmp_path)))["missing runs"]
    assert text.count("9,600 rows") == 3
    assert "seed 0, 9,600 rows and 2 more" in text
    # A combined study has no command.
    parts = (PartEntry(name="runs/a", runs=1),)
    write_summary(tmp_path, summary.model_copy(update={"runs": summary.runs[:1], "parts": parts}))
    text = found(page_of(read_study(tmp_path)))["missing runs"]
    assert text.endswith("or run them as another, and combine again.")


def test_a_task_without_test_beside_others_is_left_out_of_the_verdict(tmp_path: Path) -> None:
    summary = make_study(tmp_path, replace(SMALL, tasks=("movie-reviews", "sst-2")))
    without = summary.tasks[1].model_copy(update={"examples": {"train": 32, "dev": 32}})
    write_summary(tmp_path, summary.model_copy(update={"tasks": (summary.tasks[0], without)}))
    assert "sst-2 has no test" in found(page_of(read_study(tmp_path)))["missing test"]


def test_noise_above_a_difference_is_flagged(tmp_path: Path) -> None:
    one = small(tmp_path, models=(model_entry(noise=0.5),))
    texts = [caveat.text for caveat in one.caveats if caveat.check == "noise floor"]
    assert any("of the usual distance between two prompts" in text for text in texts)
    assert any("random and greedy differ by less than the noise" in text for text in texts)


@pytest.mark.parametrize(
    ("reward", "flagged"), [("gap", True), ("cross_entropy", False), ("accuracy", False)]
)
def test_noise_is_held_against_what_it_makes_of_the_reward(
    reward: str, flagged: bool, tmp_path: Path
) -> None:
    """A mean of 0.3 in one method, 0.0 in the other; 0.002 nats are 0.4 of `gap`, 0.004 of logs."""

    def plant(entry: RunEntry, result: Result) -> Changed:
        told = {**entry.rewards, "test": 0.3 if entry.optimiser == "greedy" else 0.0}
        return entry.model_copy(update={"rewards": told}), result

    summary = make_study(tmp_path, SMALL, change_run=plant, models=(model_entry(noise=0.002),))
    task = summary.tasks[0].model_copy(update={"reward": reward})
    write_summary(tmp_path, summary.model_copy(update={"tasks": (task,)}))
    texts = [
        one.text for one in page_of(read_study(tmp_path)).caveats if one.check == "noise floor"
    ]
    assert any("random and greedy differ by less" in text for text in texts) == flagged


@pytest.mark.parametrize(
    ("reward", "noise", "said"),
    [
        ("gap", {"alone": 1e-5, "spread": 0.4}, "Rounding decides nothing."),
        ("gap", {}, "Whether rounding decides near ties was not tested"),
        ("", {"alone": 1e-5, "spread": 0.4}, "Whether rounding decides near ties was not tested"),
    ],
)
def test_rounding_is_said_to_decide_nothing_where_that_was_tested(
    reward: str, noise: dict[str, float], said: str, tmp_path: Path
) -> None:
    summary = make_study(tmp_path, replace(SMALL, seeds=5))
    task = summary.tasks[0].model_copy(update={"reward": reward})
    model = model_entry().model_copy(update={"noise": noise})
    write_summary(tmp_path, summary.model_copy(update={"tasks": (task,), "models": (model,)}))
    one = page_of(read_study(tmp_path))
    assert one.basis.startswith(said)
    assert f"opened for that one and the nearest tokens of a soft one. {said}" in html(one)


@pytest.mark.parametrize(("n_distinct", "flagged"), [(39, True), (40, False)])
def test_a_search_that_settled_on_few_prompts_is_flagged(
    tmp_path: Path, n_distinct: int, flagged: bool
) -> None:
    def plant(entry: RunEntry, result: Result) -> Changed:
        result = replace(result, n_prompts=80, n_distinct=n_distinct)
        return entry.model_copy(update={"n_prompts": 80}), result

    texts = found(small(tmp_path, **first_of("greedy", plant)))
    assert ("few distinct prompts" in texts) is flagged
    if flagged:
        assert "39 of its 80 scored prompts were distinct" in texts["few distinct prompts"]
