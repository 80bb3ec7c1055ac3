"""What runs a study again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from study_folder import make_study
from study_pages import SMALL, Changed, small, table

from rlprompt.config.yaml_file import load_config
from rlprompt.reports.costs import config_text
from rlprompt.reports.page import Page, page_of
from rlprompt.reports.study_data import read_study
from rlprompt.search.result import Result
from rlprompt.store.summary import RunEntry, Summary


def test_the_config_on_the_page_is_the_experiment_file(page: Page) -> None:
    assert yaml.safe_load(page.config)["budgets"] == [9600]
    assert page.command == "rlprompt compare three-tasks.yaml"
    assert page.requirements == "pip install rlprompt==0.1.0 torch==2.9.1 numpy==2.3.4"


@pytest.mark.parametrize(
    ("method", "command"),
    [
        ("ppo fresh=null", "run three-tasks.yaml --optimiser 'ppo fresh=null' --seed 0"),
        ("greedy", "run three-tasks.yaml --optimiser greedy --seed 0"),
        ("random", "compare three-tasks.yaml"),  # that adds nothing
    ],
)
def test_a_single_search_is_run_again_without_others(
    tmp_path: Path, method: str, command: str
) -> None:
    make_study(tmp_path, replace(SMALL, seeds=1), optimisers=(method,), runs=())
    assert page_of(read_study(tmp_path)).command == f"rlprompt {command}"


@pytest.mark.parametrize(
    "file",
    [
        "name: a\nmodel: m\ntask: {data: movie-reviews, template: '{text} {prompt}', "
        "label_words: {negative: bad, positive: good}, test: 20}\n"
        "optimisers: [random, {name: greedy, pool: 0.5}]\nbudget: 64\nstop: {patience: 32}\n"
        "references: [logistic-head, {name: lora, rank: 4}]",
        "name: a\nmodels: {small: {name: m, revision: abc}, other: n}\n"
        "tasks: [plurals, {name: sst2, seed: 3, hand_prompt: ''}]\noptimisers: [ppo]\n"
        "seeds: [0, 1]\nbudgets: [64, 128]\nprompt: {length: 3, banned: [the]}",
        "name: a\nmodel: m\ntask: {class: 'own.py:Task', args: {x: null, y: []}}\n"
        "optimisers: [random]\nbudget: 64",
    ],
)
def test_the_experiment_file_on_the_page_is_the_one_that_ran(tmp_path: Path, file: str) -> None:
    ran, shown = tmp_path / "ran.yaml", tmp_path / "shown.yaml"
    ran.write_text(file)
    (tmp_path / "own.py").write_text("")
    summary = Summary.model_construct(config=load_config(ran).record)
    shown.write_text(config_text(summary))
    assert load_config(shown).record == summary.config
    assert "null" not in shown.read_text().replace("x: null", "")


def test_what_a_method_cost_is_in_rows_tokens_and_seconds(page: Page) -> None:
    row = table(page, "ledger")["ppo"]
    rows = int(row["rows"].replace(",", ""))
    # 31.5 tokens a row, and 120 that the model read for each of 15 searches.
    assert (row["tokens"], row["own tokens"]) == (f"{rows * 31.5:,.0f}", f"{15 * 120:,}")


def test_rows_of_early_stopping_have_a_column_where_there_are_any(tmp_path: Path) -> None:
    """They are outside the budget, and part of all rows."""

    def stopped(entry: RunEntry, result: Result) -> Changed:
        if (entry.optimiser, entry.seed) == ("greedy", 2):
            return entry, result
        rows = {"early stopping": 40 + entry.seed, **result.outside_rows}
        return entry, replace(result, outside_rows=rows)

    plain, page = small(tmp_path / "a"), small(tmp_path / "b", change_run=stopped)
    column = "rows: early stopping"
    random, greedy = (table(page, "ledger")[name] for name in ("random", "greedy"))
    assert (random.pop(column), greedy.pop(column)) == ("123", "81")
    assert random == table(plain, "ledger")["random"]  # which has no such column
    assert rows_in_all(page) == rows_in_all(plain) + 123 + 81


def rows_in_all(page: Page) -> int:
    (words,) = (label for label, _ in page.facts if label.endswith("rows in all"))
    return int(words.split()[0].replace(",", ""))


def test_seconds_beside_all_rows_say_that_those_of_controls_are_not_among_them(
    tmp_path: Path,
) -> None:
    with_controls = small(tmp_path / "a")
    without = small(tmp_path / "b", controls=())
    assert rows_in_all(with_controls) == rows_in_all(without) + 640  # of the best word
    (told, plain) = (
        next(text for term, text in page.facts if term.endswith("rows in all"))
        for page in (with_controls, without)
    )
    # Six searches of 63.36 seconds, 11.5 after each, and nine trainings of 42.
    assert plain.endswith(" in the searches, 827 seconds")
    assert told == f"{plain} without the controls"


def test_tokens_that_one_run_does_not_know_are_not_summed(tmp_path: Path) -> None:
    def forget(entry: RunEntry, result: Result) -> Changed:
        known = None if entry.seed == 0 else result.tokens_per_row
        return entry, replace(result, tokens_per_row=known)

    ledger = table(small(tmp_path, change_run=forget), "ledger")
    assert {row["tokens"] for row in ledger.values()} == {"-"}


def test_tokens_of_a_proposer_are_a_meter_of_their_own(tmp_path: Path) -> None:
    def propose(entry: RunEntry, result: Result) -> Changed:
        first = entry.seed == 0
        return entry, replace(result, proposer_read=700 * first, proposer_written=40 * first)

    ledger = table(small(tmp_path, change_run=propose), "ledger")
    assert {(row["proposer read"], row["proposer wrote"]) for row in ledger.values()} == {
        ("700", "40")
    }


def test_where_nobody_proposed_there_is_no_such_meter(page: Page) -> None:
    assert "proposer read" not in table(page, "ledger")["ppo"]


def test_tokens_of_judges_have_a_column_where_there_are_any(tmp_path: Path) -> None:
    def judged(entry: RunEntry, result: Result) -> Changed:
        return entry, replace(result, judge_tokens=7 * (entry.seed == 0))

    assert "judge tokens" not in next(iter(table(small(tmp_path / "a"), "ledger").values()))
    ledger = table(small(tmp_path / "b", change_run=judged), "ledger")
    assert {row["judge tokens"] for row in ledger.values()} == {"7"}
