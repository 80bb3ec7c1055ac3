"""The commands that look ahead, as a person uses them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command_line import ROWS, rlprompt, write_config, write_data

from rlprompt.cli import check

TASKS = """
from rlprompt import ClassificationTask, Template, load_splits

WORDS = {"negative": "terrible", "positive": "great"}


def make():
    splits = load_splits("films.csv", WORDS, shots=2, n_test=6)
    return ClassificationTask("films", splits, Template("{text} {prompt}"), WORDS)


class Doubled(ClassificationTask):
    def rewards(self, lm, prompts, examples):
        return super().rewards(lm, prompts, examples) * len(prompts)


good = make()
bad = Doubled("doubled", good.splits, good.template, WORDS)
"""


class TestDryRun:
    def test_it_prints_the_plan_and_leaves_nothing_behind(self, desk: Path) -> None:
        before = sorted(desk.rglob("*"))
        result = rlprompt("compare", "small.yaml", "--dry-run", "--seed", "0", "--seed", "1")
        assert result.exit_code == 0
        assert result.stderr == ""
        assert sorted(desk.rglob("*")) == before
        lines = result.stdout.splitlines()
        assert lines[0] == "small: a plan; no search is run and nothing is written"
        assert re.match(r"random +2 +48 +12 +\d+\.\d s +\d+\.\d s +\d+\.\d s", lines[2])
        assert re.match(r"soft-prompt +2 +48 +6 ", lines[3])
        # On 4 + 4 + 6 examples and 4 more for the prior: the empty and the hand-written prompt,
        # the latter again without calibration, the best of 20 words, and examples in context, whose
        # prior is of 2 texts without content.
        controls = 18 + 18 + 14 + (20 * 4 + 18) + 16
        assert f"controls: {controls} rows" in result.stdout
        said = result.stdout.replace(",", "")
        found = re.search(r"in all: (\d+) rows \((\d+) of them to pick on dev", said)
        assert found
        assert int(found[1]) == controls + 4 * 48 + int(found[2])

    @pytest.mark.parametrize(
        ("given", "named"),
        [
            (["--json"], "--json does nothing with it"),
            (["--quiet"], "--quiet does nothing with it"),
            (["--out", "x", "--restart"], "--out and --restart do nothing with it"),
            (["--workers", "2", "--track", "wandb"], "--workers and --track do nothing with it"),
        ],
    )
    def test_it_refuses_what_it_would_not_heed(
        self, desk: Path, given: list[str], named: str
    ) -> None:
        result = rlprompt("compare", "small.yaml", "--dry-run", *given)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("error: --dry-run prints a plan as text")
        assert f"{named}: leave that out" in result.stderr

    def test_it_refuses_what_compare_would_refuse(self, desk: Path) -> None:
        write_config(desk, optimisers=["gredy"])
        result = rlprompt("compare", "small.yaml", "--dry-run")
        assert result.exit_code == 2
        assert "did you mean 'greedy'?" in result.stderr
        write_config(desk, model="nowhere")
        assert rlprompt("compare", "small.yaml", "--dry-run").exit_code == 2


class TestTexts:
    def test_tokens_and_what_was_done_to_long_texts_are_shown(self, desk: Path) -> None:
        rows = [*ROWS, f"{'long ' * 80},negative"]
        write_data(desk, rows)
        refused = rlprompt("check", "small.yaml")
        assert refused.exit_code == 2
        assert "films.csv:22 is too long: 39" in refused.stderr
        config = json.loads((desk / "small.yaml").read_text())
        config["task"] |= {"on_long_text": "truncate-start", "answer_space": " "}
        config["task"]["label_words"] = {"negative": "bad", "positive": "good so"}
        (desk / "small.yaml").write_text(json.dumps(config))
        shown = rlprompt("check", "small.yaml").stdout
        assert re.search(r"1 text too long was cut \(truncate-start\) .*: films.csv:22", shown)
        assert "text, prompt and answer have the tokens that they have typed at once" in shown
        assert re.search(r"negative: ' bad' 1 \(Ġbad \d+\)", shown)
        assert re.search(r"positive: ' good so' 4 \(Ġgood \d+, Ġ \d+, s \d+, o \d+\)", shown)
        scored = rlprompt("score", "so", "small.yaml", "--split", "test")
        assert scored.exit_code == 0


class TestCheck:
    def test_it_says_what_numbers_mean_and_an_example_of_each_class(self, desk: Path) -> None:
        text = (desk / "films.csv").read_text()
        coded = text.replace(",negative", ",1").replace(",positive", ",0")
        (desk / "films.csv").write_text(coded)
        file = (desk / "small.yaml").read_text()
        labels = '"label_words": {"negative": "terrible", "positive": "great"}, "labels": {"0": '
        labels += '"positive", "1": "negative"}'
        plain = labels.partition(', "labels"')[0]
        assert plain in file
        (desk / "small.yaml").write_text(file.replace(plain, labels))
        result = rlprompt("check", "small.yaml")
        assert result.exit_code == 0
        assert re.search(
            r"^note: labels are numbers: 0 is read as positive, such as '.*' \(films.csv:\d+\); 1 "
            r"is read as negative, such as ",
            result.stdout,
            re.MULTILINE,
        )
        assert re.search(
            r"^ +negative: ' terrible' \d \(.+\), such as '.+'$", result.stdout, re.MULTILINE
        )
        assert "largest-class" in result.stdout

    def test_an_experiment_is_checked_with_its_optimisers_and_costs(self, desk: Path) -> None:
        result = rlprompt("check", "small.yaml")
        assert result.exit_code == 0
        assert result.stderr == ""
        assert re.search(r"^ok +batch-size ", result.stdout, re.M)
        assert re.search(r"^ok +every-example +all 14 examples of all splits", result.stdout, re.M)
        assert re.search(r"^checks: \d\d, failed: 0, warnings: \d$", result.stdout, re.M)
        assert re.search(r"^ok    random: \d+ checks passed$", result.stdout, re.M)
        assert "controls: 164 rows" in result.stdout
        assert result.stdout.endswith("\nno check failed; next: rlprompt compare small.yaml\n")
        assert not (desk / "runs").exists()

    @pytest.mark.parametrize("name", ["mine.py:good", "mine:make"])
    def test_a_task_from_the_working_folder_is_checked(
        self, desk: Path, model: Path, name: str
    ) -> None:
        (desk / "mine.py").write_text(TASKS)
        result = rlprompt("check", name, "--model", str(model), "--dtype", "float32")
        assert result.exit_code == 0
        assert " batch-size " in result.stdout
        assert " every-example " in result.stdout
        assert "left out" not in result.stdout

    def test_what_there_is_no_time_for_is_said(
        self, desk: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(check, "LIMIT", 0.0)
        short = rlprompt("check", "small.yaml")
        assert short.exit_code == 0, short.stdout
        assert " batch-size " not in short.stdout
        said = short.stdout.partition("left out to finish in two minutes; `--full` runs")[2]
        assert re.search(r"^ +whether token prompts asked again earn the same \(", said, re.M)
        assert re.search(r"^ +whether random keeps its promises \(4.0 s\)$", said, re.M)
        assert re.search(r"^ +how long the searches take \(", said, re.M)
        assert re.search(
            r"^rows in all: 96 in searches, and at most \d+ outside$", short.stdout, re.M
        )
        whole = rlprompt("check", "small.yaml", "--full")
        assert " batch-size " in whole.stdout
        assert "measured in " in whole.stdout
        assert "left out" not in whole.stdout

    def test_an_experiment_file_has_its_own_model(self, desk: Path) -> None:
        result = rlprompt("check", "small.yaml", "--model", "another")
        assert result.exit_code == 2
        assert "--model is for a task" in result.stderr
        assert "set `model:` in small.yaml" in result.stderr

    def test_a_broken_task_is_exit_code_1(self, desk: Path, model: Path) -> None:
        (desk / "mine.py").write_text(TASKS)
        result = rlprompt("check", "mine:bad", "--model", str(model), "--dtype", "float32")
        assert result.exit_code == 1
        assert re.search(
            r"^FAIL  batch-size +asked for under one prompt it gave", result.stdout, re.M
        )

    @pytest.mark.parametrize(
        ("subject", "words"),
        [
            ("mine.py:god", "did you mean 'good'?"),
            ("mine.py:WORDS", "which is no task"),
            ("yours:task", "there is no module 'yours'"),
            ("nowhere.yaml", "cannot read nowhere.yaml"),
            ("sst", "there is no file and no task 'sst'; did you mean 'sst2'?"),
            ("smal", "there is no file and no task 'smal'; did you mean 'small.yaml'?"),
            ("xyz", "no task 'xyz'; `rlprompt ls tasks` lists the tasks, and `rlprompt init DATA`"),
            ("films.csv", "films.csv is data and no experiment file; `rlprompt init films.csv` w"),
        ],
    )
    def test_a_wrong_argument_is_exit_code_2(self, desk: Path, subject: str, words: str) -> None:
        (desk / "mine.py").write_text(TASKS)
        result = rlprompt("check", subject)
        assert result.exit_code == 2
        assert words in result.stderr
