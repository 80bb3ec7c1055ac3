"""The page of a study: what it says, what it refuses to say, and that text stays text."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import yaml
from study_folder import METHODS, MODEL, SCRIPT, Plan, make_study, model_entry, write_summary
from typer.testing import CliRunner

from rlprompt.cli.app import app
from rlprompt.config.yaml_file import load_config
from rlprompt.reports.costs import config_text
from rlprompt.reports.curves import costs
from rlprompt.reports.html import html, tables_text, write_page
from rlprompt.reports.page import Page, page_of
from rlprompt.reports.study_data import RunData, read_study
from rlprompt.reports.tables import NONE, Table, as_csv, latex_text, markdown
from rlprompt.search.result import Result, Score
from rlprompt.store.summary import RunEntry, Summary
from rlprompt.transfer.file import Form, Source, Target, Transfer, TransferEntry
from rlprompt.transfer.file import ModelEntry as TransferModel

SMALL = Plan(methods=("random", "greedy"), tasks=("movie-reviews",), seeds=3, points=20)
Changed = tuple[RunEntry, Result]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks, six methods, five seeds."""
    folder = tmp_path_factory.mktemp("study")
    make_study(folder, Plan(points=60))
    return folder


@pytest.fixture(scope="module")
def page(study: Path) -> Page:
    return page_of(read_study(study))


def small(folder: Path, plan: Plan = SMALL, **changes: Any) -> Page:
    """The page of a small study with something changed."""
    make_study(folder, plan, **changes)
    return page_of(read_study(folder))


def first_of(method: str, change: Callable[[RunEntry, Result], Changed]) -> Any:
    """Changes one run, the first seed of a method."""

    def changed(entry: RunEntry, result: Result) -> Changed:
        if (entry.optimiser, entry.seed) == (method, 0):
            return change(entry, result)
        return entry, result

    return {"change_run": changed}


def found(page: Page) -> dict[str, str]:
    """The best_prompts by check; of several the last."""
    return {caveat.check: caveat.text for caveat in page.caveats}


def table(page: Page, name: str) -> dict[str, dict[str, str]]:
    """Rows of a table by the first column."""
    (one,) = (one for one in page.tables() if one.name == name)
    return {row[0]: dict(zip(one.header, row, strict=True)) for row in one.rows}


def sentences(page: Page) -> str:
    return " ".join(text for section in page.sections for text in section.results.sentences)


class TestResults:
    def test_a_method_has_the_mean_over_seeds_and_students_interval(
        self, page: Page, study: Path
    ) -> None:
        runs = read_study(study).runs
        tests = [
            run.entry.test
            for run in runs
            if (run.entry.task, run.entry.optimiser) == ("sst-2", "greedy")
        ]
        values = np.array(tests, dtype=float)
        # 2.776: Student's t for 4 degrees of freedom, two-sided 95 %.
        half = 2.776 * values.std(ddof=1) / np.sqrt(5)
        row = table(page, "sst-2.scores")["greedy"]
        assert row["test"] == f"{values.mean():.3f}"
        assert float(row["low"]) == pytest.approx(values.mean() - half, abs=1e-3)
        assert float(row["high"]) == pytest.approx(values.mean() + half, abs=1e-3)
        assert (row["runs"], row["interval over"]) == ("5", "seeds")

    def test_the_winners_curse_is_dev_less_test(self, page: Page) -> None:
        row = table(page, "sst-2.scores")["greedy"]
        gap = float(row["dev"]) - float(row["test"])
        assert float(row["dev - test"]) == pytest.approx(gap, abs=2e-3)

    def test_a_control_has_wilsons_interval_over_examples(self, page: Page) -> None:
        row = table(page, "movie-reviews.scores")["empty"]
        # 111 of 200: Wilson's formula by hand.
        assert (row["test"], row["low"], row["high"]) == ("0.555", "0.486", "0.622")
        assert row["interval over"] == "examples"

    def test_shares_of_training_are_of_test_gain_numbers_and_rows(self, page: Page) -> None:
        (kept,) = (one for one in page.tables() if one.name == "kept")
        row = next(row for row in kept.rows if row[:3] == ("sst-2", "fine-tuning", "greedy"))
        test = float(table(page, "sst-2.scores")["greedy"]["test"])
        assert float(row[3]) == pytest.approx(100 * test / 0.84, abs=0.1)
        assert float(row[4]) == pytest.approx(100 * (test - 0.555) / (0.84 - 0.555), abs=0.4)
        assert float(row[5]) == pytest.approx(100 * 5 / 134_515_008, rel=0.1)
        assert float(row[6]) == pytest.approx(100 * (9600 + 900 + 232 + 480) / 19_200, abs=0.1)

    def test_the_best_prompt_is_picked_on_dev_among_seeds_and_not_on_test(
        self, tmp_path: Path
    ) -> None:
        def better_on_dev(entry: RunEntry, result: Result) -> Changed:
            best = replace(result.best, dev=Score(0.99, 0.99), test=Score(-1.0, 0.0))
            changed = replace(
                result, candidates=(best,), test_metrics=(0.0,) * 200, test_answers=()
            )
            return entry.model_copy(update={"dev": 0.99, "test": 0.0}), changed

        one = small(tmp_path, **first_of("greedy", better_on_dev))
        (card,) = (
            card
            for card in one.sections[0].best_prompts["movie-reviews"]
            if card.method == "greedy"
        )
        assert (card.seed, dict(card.scores)["test"]) == (0, "0.000")

    def test_confusion_counts_every_test_example(self, page: Page) -> None:
        card = page.sections[0].best_prompts["movie-reviews"][0]
        (confusion,) = (one for one in card.others if one.name.endswith(".confusion"))
        cells = [[int(cell) for cell in row[1:3]] for row in confusion.rows]
        assert np.sum(cells) == 200
        right = cells[0][0] + cells[1][1]
        assert f"{right / 200:.3f}" == dict(card.scores)["test"]

    def test_seconds_are_known_at_improvements_and_own_time_is_spread_over_them(
        self, study: Path
    ) -> None:
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
        assert (
            costs(RunData(run.entry, replace(result, tokens_per_row=None)), [1], "tokens") is None
        )

    def test_curves_of_all_units_are_there_with_their_figures(self, page: Page) -> None:
        assert page.units == ("rows", "tokens", "seconds")
        (train, dev) = page.sections[0].curves[0].plots["rows"]
        assert [row[0] for row in train.table.rows] == list(METHODS)
        assert "<title" in dev.svg
        assert "<desc" in dev.svg


class TestIntegrity:
    def test_a_sound_study_has_nothing_to_object(self, page: Page) -> None:
        assert page.caveats == ()
        assert "No objection found" in html(page)
        assert "Figures rest on 5 seeds a method" in page.basis

    def test_a_leak_is_flagged(self, tmp_path: Path) -> None:
        summary = make_study(tmp_path, SMALL)
        task = summary.tasks[0].model_copy(update={"leaks": {"test": 12}})
        write_summary(tmp_path, summary.model_copy(update={"tasks": (task,)}))
        text = found(page_of(read_study(tmp_path)))["leaks"]
        assert "12 of 200 test examples (6.0%)" in text

    def test_a_second_candidate_with_a_test_score_strikes_the_run(self, tmp_path: Path) -> None:
        def plant(entry: RunEntry, result: Result) -> Changed:
            best, second, *rest = result.candidates
            second = replace(second, test=Score(0.1, 0.5))
            return entry, replace(result, candidates=(best, second, *rest))

        self.struck(small(tmp_path, **first_of("greedy", plant)), "have a test score")

    def test_a_prompt_that_is_not_the_best_on_dev_strikes_the_run(self, tmp_path: Path) -> None:
        def plant(entry: RunEntry, result: Result) -> Changed:
            best, *others = result.candidates
            others[0] = replace(others[0], dev=Score(0.95, 0.97))
            return entry, replace(result, candidates=(best, *others))

        self.struck(small(tmp_path, **first_of("greedy", plant)), "was not picked on dev")

    def test_a_candidate_that_fell_behind_in_the_race_may_have_a_higher_mean(
        self, tmp_path: Path
    ) -> None:
        def plant(entry: RunEntry, result: Result) -> Changed:
            best, *others = result.candidates
            others[0] = replace(others[0], dev=Score(0.95, 0.97), dev_examples=8)
            return entry, replace(result, candidates=(best, *others))

        assert small(tmp_path, **first_of("greedy", plant)).caveats == ()

    def test_more_looks_at_test_than_a_kind_needs_strike_the_run(self, tmp_path: Path) -> None:
        def plant(entry: RunEntry, result: Result) -> Changed:
            return entry, replace(result, test_prompts=2)

        self.struck(small(tmp_path, **first_of("greedy", plant)), "2 prompts were scored on test")

    def test_a_soft_prompt_and_its_projection_are_two_looks(self, tmp_path: Path) -> None:
        plan = replace(SMALL, methods=("random", "cma-es"))
        assert small(tmp_path, plan).caveats == ()

    def test_an_edited_test_figure_strikes_the_run(self, tmp_path: Path) -> None:
        def plant(entry: RunEntry, result: Result) -> Changed:
            return entry.model_copy(update={"test": 0.99}), result

        self.struck(small(tmp_path, **first_of("greedy", plant)), "test is 0.99 there")

    def test_a_test_figure_edited_in_both_files_is_not_the_mean_of_its_examples(
        self, tmp_path: Path
    ) -> None:
        def plant(entry: RunEntry, result: Result) -> Changed:
            best = replace(result.best, test=Score(0.9, 0.99))
            changed = replace(result, candidates=(best, *result.candidates[1:]))
            return entry.model_copy(update={"test": 0.99}), changed

        self.struck(small(tmp_path, **first_of("greedy", plant)), "the mean over its test examples")

    @pytest.mark.parametrize(
        ("field", "value", "said"),
        [
            ("task_fingerprint", "other", "another task or other data"),
            ("fingerprint", {"weights": "other"}, "another model"),
            ("rows", 1, "rows is 9600 there and 1 here"),
        ],
    )
    def test_a_result_of_something_else_strikes_the_run(
        self, tmp_path: Path, field: str, value: Any, said: str
    ) -> None:
        def plant(entry: RunEntry, result: Result) -> Changed:
            return entry, replace(result, **{field: value})

        self.struck(small(tmp_path, **first_of("greedy", plant)), said)

    def test_more_rows_than_the_budget_strike_the_run(self, tmp_path: Path) -> None:
        def plant(entry: RunEntry, result: Result) -> Changed:
            return entry.model_copy(update={"rows": 9_700}), replace(result, rows=9_700)

        self.struck(small(tmp_path, **first_of("greedy", plant)), "9,700 rows of a budget of 9,600")

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (None, "is missing"),
            ("{}", "cannot be read"),
            ('{"format": 99}', "newer rlprompt"),
            ("\xff", "cannot be read"),
        ],
    )
    def test_a_result_that_cannot_be_read_strikes_the_run(
        self, tmp_path: Path, content: str | None, said: str
    ) -> None:
        summary = make_study(tmp_path, SMALL)
        path = tmp_path / next(run.file for run in summary.runs if run.optimiser == "greedy")
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content.encode("latin-1"))
        self.struck(page_of(read_study(tmp_path)), said)

    def test_a_file_outside_the_folder_is_not_read(self, tmp_path: Path) -> None:
        def plant(entry: RunEntry, result: Result) -> Changed:
            return entry.model_copy(update={"file": "../elsewhere.json"}), result

        folder = tmp_path / "study"
        self.struck(small(folder, **first_of("greedy", plant)), "outside the study's folder")

    def test_a_run_that_is_there_twice_counts_once(self, tmp_path: Path) -> None:
        summary = make_study(tmp_path, SMALL)
        twice = (*summary.runs, summary.runs[0])
        write_summary(tmp_path, summary.model_copy(update={"runs": twice}))
        one = page_of(read_study(tmp_path))
        assert "twice" in found(one)["struck runs"]
        assert table(one, "movie-reviews.scores")["random"]["runs"] == "3"

    def struck(self, page: Page, said: str) -> None:
        """The first greedy run counts nowhere, and the page says why."""
        assert page.caveats[0].level == "struck"
        text = found(page)["struck runs"]
        assert text.startswith(f"greedy on movie-reviews, {MODEL}, seed 0: ")
        assert said in text
        assert table(page, "movie-reviews.scores")["greedy"]["runs"] == "2"
        assert text.split(":")[0] in html(page)

    def test_one_seed_ranks_nothing(self, tmp_path: Path) -> None:
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
        assert "One seed ranks nothing" in found(one)["one seed"]
        assert "greedy" not in sentences(one)
        assert one.sections[0].results.tests == ()
        assert one.sections[0].results.notes == ()
        text = html(one)
        assert not re.search(r"wins|comes? out highest|highest|shown to beat", text)
        names = [row[0] for row in one.sections[0].results.tables[0].rows]
        assert names.index("random") < names.index("greedy"), "in the order of the experiment"

    def test_budgets_are_never_in_one_table(self, tmp_path: Path) -> None:
        one = small(tmp_path, replace(SMALL, budgets=(3200, 9600)))
        assert "never in one table" in found(one)["several budgets"]
        assert [section.heading for section in one.sections] == [
            f"{MODEL}, 3,200 rows a search",
            f"{MODEL}, 9,600 rows a search",
        ]
        for section, rows in zip(one.sections, ("3,200", "9,600"), strict=True):
            found_rows = {row[-1] for row in section.results.tables[0].rows if "search" in row}
            assert found_rows == {rows}

    def test_a_failed_run_is_named_with_its_error(self, tmp_path: Path) -> None:
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

    def test_missing_runs_are_named(self, tmp_path: Path) -> None:
        summary = make_study(tmp_path, SMALL)
        write_summary(tmp_path, summary.model_copy(update={"runs": summary.runs[:-1]}))
        text = found(page_of(read_study(tmp_path)))["missing runs"]
        assert "1 of 6 runs are not there: greedy on movie-reviews" in text
        assert "seed 2, 9,600 rows" in text

    def test_without_runs_there_are_controls_and_no_conclusion(self, tmp_path: Path) -> None:
        summary = make_study(tmp_path, SMALL)
        write_summary(tmp_path, summary.model_copy(update={"runs": ()}))
        one = page_of(read_study(tmp_path))
        assert "No search was begun" in found(one)["no runs"]
        assert "only the controls are known" in sentences(one)
        assert "hand-written" in table(one, "movie-reviews.scores")
        assert "there is no curve" in html(one)

    def test_without_test_nothing_is_concluded_about_test(self, tmp_path: Path) -> None:
        one = small(tmp_path, replace(SMALL, test=False))
        assert "nothing about test can be concluded" in found(one)["missing test"]
        assert "nothing about test can be concluded" in sentences(one)
        row = table(one, "movie-reviews.scores")["greedy"]
        assert row["test"] == NONE
        assert float(row["dev"]) > 0

    def test_a_task_without_test_beside_others_is_left_out_of_the_verdict(
        self, tmp_path: Path
    ) -> None:
        summary = make_study(tmp_path, replace(SMALL, tasks=("movie-reviews", "sst-2")))
        without = summary.tasks[1].model_copy(update={"examples": {"train": 32, "dev": 32}})
        write_summary(tmp_path, summary.model_copy(update={"tasks": (summary.tasks[0], without)}))
        assert "sst-2 has no test" in found(page_of(read_study(tmp_path)))["missing test"]

    def test_noise_above_a_difference_is_flagged(self, tmp_path: Path) -> None:
        one = small(tmp_path, models=(model_entry(noise=0.5),))
        texts = [caveat.text for caveat in one.caveats if caveat.check == "noise floor"]
        assert any("of the usual distance between two prompts" in text for text in texts)
        assert any("random and greedy differ by less than the noise" in text for text in texts)

    def test_tasks_of_other_scales_are_not_averaged(self, tmp_path: Path) -> None:
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


class TestText:
    def test_no_text_becomes_markup(self, tmp_path: Path) -> None:
        def plant(entry: RunEntry, result: Result) -> Changed:
            best = replace(result.best, text=SCRIPT)
            changed = replace(result, candidates=(best, *result.candidates[1:]))
            return entry.model_copy(update={"prompt": SCRIPT}), changed

        make_study(
            tmp_path,
            SMALL,
            change_run=plant,
            name=SCRIPT,
            platform=SCRIPT,
            config={"name": SCRIPT},
        )
        one = page_of(read_study(tmp_path))
        text = html(one)
        assert one.caveats == ()
        assert not re.search(r"<script|<img", text, re.IGNORECASE)
        assert "&lt;script&gt;" in text
        assert "<script" not in re.sub("`[^`]*`", "", tables_text(one)), "outside code"

    def test_what_cannot_be_seen_is_written_as_an_escape(self, tmp_path: Path) -> None:
        hidden = "a\u202eb\u200bc\x00d\u2028e"

        def plant(entry: RunEntry, result: Result) -> Changed:
            best = replace(result.best, text=hidden)
            changed = replace(result, candidates=(best, *result.candidates[1:]))
            return entry.model_copy(update={"prompt": hidden}), changed

        make_study(tmp_path, SMALL, change_run=plant)
        text = write_page(tmp_path)[1].read_text(encoding="utf-8")
        assert not re.search("[\u202e\u200b\x00\u2028]", text)
        for escape in (r"\u202e", r"\u200b", r"\x00", r"\u2028"):
            assert f'<span class="escape">{escape}</span>' in text

    def test_the_page_asks_for_nothing_and_runs_nothing(self, page: Page) -> None:
        text = html(page)
        policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
        assert policy
        assert policy[1].startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy[1]
        assert not re.search(r"@import|url\((?!#)", text)
        tags = Tags()
        tags.feed(text)
        assert not {"script", "object", "embed", "iframe", "img", "form"} & tags.names
        assert not [name for name, _ in tags.attributes if name.startswith("on")]
        links = {value for name, value in tags.attributes if name in ("href", "src")}
        assert {link for link in links if not link.startswith("#")} == {"data:,"}

    def test_ids_are_unique_and_references_lead_somewhere(self, page: Page) -> None:
        text = html(page)
        ids = re.findall(r'\bid="([^"]+)"', text)
        assert len(ids) == len(set(ids))
        for names in re.findall(r'aria-labelledby="([^"]+)"', text):
            assert set(names.split()) <= set(ids)
        assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)

    def test_the_same_study_gives_the_same_page(self, study: Path, page: Page) -> None:
        assert html(page_of(read_study(study))) == html(page)


class Tags(HTMLParser):
    """Collects the names and attributes of tags."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


class TestFiles:
    def test_all_forms_have_the_same_figures(self, study: Path, tmp_path: Path) -> None:
        one, path = write_page(study, tmp_path / "new" / "place")
        folder = path.parent
        shown = path.read_text(encoding="utf-8")
        lines = (folder / "tables.md").read_text(encoding="utf-8")
        for each in one.tables():
            text = (folder / "tables" / f"{each.name}.csv").read_text(encoding="utf-8")
            rows = list(csv.reader(io.StringIO(text)))
            latex = (folder / "tables" / f"{each.name}.tex").read_text(encoding="utf-8")
            assert len(rows) == 1 + len(each.rows)
            assert r"\toprule" in latex
            for row, given in zip(each.rows, rows[1:], strict=True):
                for column, cell in enumerate(row):
                    if each.is_figure(column) and re.fullmatch(r"-?[\d,.]+", cell):
                        assert given[column] == cell.replace(",", "")
                        assert cell in lines
                        assert cell.replace("-", "$-$") in latex
                        assert cell.replace("-", "\N{MINUS SIGN}") in shown

    def test_the_config_on_the_page_is_the_experiment_file(self, page: Page) -> None:
        assert yaml.safe_load(page.config)["budgets"] == [9600]
        assert page.command == "rlprompt compare three-tasks.yaml"
        assert page.requirements == "pip install rlprompt==0.1.0 torch==2.9.1 numpy==2.3.4"

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
    def test_the_experiment_file_on_the_page_is_the_one_that_ran(
        self, tmp_path: Path, file: str
    ) -> None:
        ran, shown = tmp_path / "ran.yaml", tmp_path / "shown.yaml"
        ran.write_text(file)
        (tmp_path / "own.py").write_text("")
        summary = Summary.model_construct(config=load_config(ran).record)
        shown.write_text(config_text(summary))
        assert load_config(shown).record == summary.config
        assert "null" not in shown.read_text().replace("x: null", "")

    def test_nothing_heavy_is_imported(self, study: Path, tmp_path: Path) -> None:
        code = (
            "import sys\n"
            "from rlprompt.cli.app import main\n"
            f"sys.argv = ['rlprompt', 'report', {str(study)!r}, '--out', {str(tmp_path)!r}]\n"
            "try:\n    main()\nexcept SystemExit as error:\n    assert not error.code\n"
            "heavy = ('torch', 'transformers', 'matplotlib.pyplot', 'rlprompt.store.store')\n"
            "print('HEAVY', [name for name in heavy if name in sys.modules])\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "HEAVY []" in done.stdout, done.stdout + done.stderr


class TestCommand:
    def run(self, *arguments: str) -> Any:
        return CliRunner().invoke(app, ["report", *arguments])

    def test_it_says_what_may_be_concluded_and_where_the_page_is(self, study: Path) -> None:
        done = self.run(str(study))
        assert done.exit_code == 0, done.output
        assert "9,600 rows" in done.stdout
        assert f"written to {study}: report.html, tables.md, tables/" in done.stdout
        assert (study / "report.html").stat().st_size < 1_500_000

    def test_it_says_what_cannot_be_relied_on(self, tmp_path: Path) -> None:
        make_study(tmp_path, replace(SMALL, seeds=1))
        assert "one seed: One seed ranks nothing" in self.run(str(tmp_path)).stdout

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (None, "has no summary.json: it holds no study"),
            ("{", "is damaged: no JSON"),
            ('{"format": 99}', "was written by a newer rlprompt (format 99); update rlprompt"),
            ('{"format": 2}', "was written by an older rlprompt (format 2"),
            ('{"format": 3}', "is damaged: name"),
        ],
    )
    def test_what_is_no_study_is_a_line_and_exit_code_2(
        self, tmp_path: Path, content: str | None, said: str
    ) -> None:
        if content is not None:
            (tmp_path / "summary.json").write_text(content)
        done = self.run(str(tmp_path))
        assert done.exit_code == 2
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1

    def test_a_place_that_is_a_file_is_refused(self, study: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        done = self.run(str(study), "--out", str(tmp_path / "file"))
        assert done.exit_code == 2


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
    assert "made in Python" in html(one)


class TestTransfer:
    def transfer(self) -> Transfer:
        found = Source(
            run="a",
            task="sst-2",
            model=MODEL,
            budget_rows=9600,
            optimiser="greedy",
            seed=0,
            soft=False,
            tokens=5,
            text=" It was",
            retypable=True,
        )
        controls = {"empty": Score(metric=0.5, reward=0.0)}
        targets = [
            Target(model=name, task="sst-2", split="test", examples=200, controls=controls)
            for name in (MODEL, "gpt2")
        ]
        scores = zip((MODEL, "gpt2"), (0.75, 0.6), ("as found", "by text"), strict=True)
        return Transfer(
            study="three-tasks",
            complete=True,
            split="test",
            top="best",
            sources=(found,),
            models=tuple(
                TransferModel(
                    name=name,
                    kind="causal",
                    digest="77",
                    dtype="float32",
                    device="cpu",
                    of_study=name == MODEL,
                    tolerance=0.1,
                )
                for name in (MODEL, "gpt2")
            ),
            targets=tuple(targets),
            entries=tuple(
                TransferEntry(
                    run="a",
                    model=name,
                    task="sst-2",
                    split="test",
                    form=cast(Form, form),
                    score=Score(metric=metric, reward=0.0),
                )
                for name, metric, form in scores
            ),
        )

    def test_prompts_elsewhere_are_a_matrix_of_gains(self, tmp_path: Path) -> None:
        make_study(tmp_path, SMALL)
        (tmp_path / "transfer.json").write_text(self.transfer().to_json())
        one = page_of(read_study(tmp_path))
        (gains,) = (each for each in one.tables() if each.name == "transfer")
        assert gains.header == ("found by", f"{MODEL}: sst-2", "gpt2: sst-2 (other)")
        assert gains.rows == (
            ("empty prompt", "0.500", "0.500"),
            ("greedy", "0.750 (+0.250)", "0.600 (+0.100)"),
        )
        assert "On other models and data" in html(one)

    def test_a_damaged_file_is_flagged_and_the_page_is_there(self, tmp_path: Path) -> None:
        make_study(tmp_path, SMALL)
        (tmp_path / "transfer.json").write_text("{")
        one = page_of(read_study(tmp_path))
        assert "transfer.json is damaged" in found(one)["unread transfer"]
        assert one.transfer == ()


class TestTables:
    def test_spreadsheets_run_no_cell(self) -> None:
        cells = ("=1+1", "+1", "-1", "@A1", "plain", "-")
        one = Table("x", "x", ("=name", "value"), tuple((cell, "-0.5") for cell in cells))
        rows = list(csv.reader(io.StringIO(as_csv(one))))
        assert rows[0][0] == "'=name"
        assert [row[0] for row in rows[1:]] == ["'=1+1", "'+1", "'-1", "'@A1", "plain", ""]
        assert {row[1] for row in rows[1:]} == {"-0.5"}

    def test_markdown_is_not_made_of_text(self) -> None:
        one = Table("x", "x", ("a|b", "prompt"), (("*x*|<b>", "a`|`b"), ("[l](u)", "")), code=(1,))
        lines = markdown(one).splitlines()
        assert lines[2].startswith(r"| \*x\*\|&lt;b&gt;")
        assert r"``'a`\|`b'``" in lines[2]
        assert lines[3].startswith(r"| \[l\](u)")
        assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines)

    def test_latex_acts_on_no_text(self) -> None:
        assert latex_text(r"50% of $x_1 & #{}~^\<") == (
            r"50\% of \$x\_1 \& \#\{\}\textasciitilde{}\textasciicircum{}"
            r"\textbackslash{}\textless{}"
        )
