"""The command line as a person uses it, on tiny models that lie in a folder."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Collection, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import forks
import pytest
from command_line import LABELS, ROWS, rlprompt, save, summary, write_config, write_data


def test_it_tells_its_version() -> None:
    told = rlprompt("--version")
    assert (told.exit_code, told.stdout) == (0, f"rlprompt {version('rlprompt')}\n")


class TestCompare:
    def test_it_writes_and_shows_the_same_table(self, desk: Path) -> None:
        result = rlprompt("compare", "small.yaml")
        assert result.exit_code == 0
        assert result.stderr == ""
        written = (desk / "runs" / "small" / "tables.md").read_text()
        rows = [line for line in result.stdout.splitlines() if line.startswith("| ")]
        assert len(rows) >= 8
        assert all(row in written for row in rows)
        assert "written to runs/small" in result.stdout
        # The first thing that is known is said at once, before a search begins.
        before = result.stdout.partition("1/2 random")[0]
        told = re.findall(r"^(.+): accuracy on dev \d\.\d{3}, test \d\.\d{3}$", before, re.M)
        assert told[:2] == ["empty prompt", "hand-written prompt"]
        assert "best word" in told
        assert summary(desk / "runs" / "small")["config"]["task"]["shots"] == 2

    def test_a_script_gets_one_object_or_nothing(self, desk: Path) -> None:
        quiet = rlprompt("compare", "small.yaml", "--quiet")
        assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, "", "")
        found = json.loads(rlprompt("compare", "small.yaml", "--json").stdout)
        assert found["folder"] == "runs/small"
        assert found["conclusions"][0].startswith("With one seed nothing can be ranked")
        assert found["summary"] == summary(desk / "runs" / "small")
        shown = json.loads(rlprompt("show", "runs/small", "--prompts", "1", "--json").stdout)
        assert [run["state"] for run in shown["runs"]] == ["finished"] * 2
        assert shown["runs"][0]["best"][0]["reward"] >= -100
        assert shown["config"]["budget"] == 48
        broken = rlprompt("compare", "small.yaml", "--json", "--budget", "40")
        assert (broken.exit_code, broken.stdout) == (2, "")
        assert "budget: 48 before, 40 now" in broken.stderr

    def test_it_ends_with_what_to_do_next(self, desk: Path) -> None:
        said = rlprompt("compare", "small.yaml").stdout
        *_, look, keep, use = said.splitlines()
        assert look == "look: runs/small/report.html"
        assert keep == "keep the best prompt: rlprompt export runs/small --best found"
        assert use == "use it: rlprompt predict found DATA"
        # That one seed ranks nothing, and more are added for their own cost alone, is said once.
        assert said.count("With one seed nothing can be ranked") == 1
        assert said.count("finished searches are kept") == 1

    def test_it_goes_on_where_it_was_and_begins_anew_on_request(
        self, desk: Path, model: Path
    ) -> None:
        write_config(desk, model=str(model), optimisers=["random"])
        runs = []
        for flags, name in (([], "small"), ([], "small"), (["--restart"], "small-2")):
            result = rlprompt("compare", "small.yaml", *flags)
            assert f"writing to runs/{name}\n" in result.stdout
            runs.append(summary(desk / "runs" / name)["runs"])
        # Not even the seconds changed: nothing was done again.
        assert runs[1] == runs[0]
        assert not (desk / "runs" / "small-3").exists()
        for run in (*runs[1], *runs[2]):
            del run["lm_seconds"], run["total_seconds"]
        assert runs[1] == runs[2]
        # The newest is the one to go on with.
        assert "writing to runs/small-2\n" in rlprompt("compare", "small.yaml").stdout

    def test_a_changed_file_or_example_is_refused_with_the_difference(
        self, desk: Path, model: Path
    ) -> None:
        write_config(desk, model=str(model), optimisers=["random"])
        rlprompt("compare", "small.yaml")
        result = rlprompt("compare", "small.yaml", "--budget", "40")
        assert result.exit_code == 2
        assert "error:   budget: 48 before, 40 now\n" in result.stderr
        assert "--restart" in result.stderr
        write_data(desk, [row.replace("film number 3,", "film no. 3,") for row in ROWS])
        result = rlprompt("compare", "small.yaml")
        assert result.exit_code == 2
        assert "error:   task.examples: " in result.stderr

    def test_flags_win_over_the_file(self, desk: Path) -> None:
        flags = ["--budget", "16", "--seed", "3", "--seed", "4", "--device", "cpu"]
        flags += ["--dtype", "bfloat16", "--out", "elsewhere"]
        rlprompt("compare", "small.yaml", *flags)
        found = summary(desk / "elsewhere")
        assert [run["budget_rows"] for run in found["runs"]] == [16] * 4
        assert [run["seed"] for run in found["runs"]] == [3, 3, 4, 4]
        (used,) = found["models"]
        assert used["fingerprint"]["dtype"] == "bfloat16"
        assert used["device"] == "cpu"

    def test_settings_of_an_optimiser_are_used(self, desk: Path) -> None:
        config = json.loads((desk / "small.yaml").read_text())
        config["optimisers"] = ["greedy", {"name": "greedy", "pool": 0.5}]
        (desk / "small.yaml").write_text(json.dumps(config))
        rlprompt("compare", "small.yaml")
        runs = summary(desk / "runs" / "small")["runs"]
        assert [run["optimiser"] for run in runs] == ["greedy", "greedy pool=0.5", "random"]
        assert runs[1]["settings"]["pool"] == 0.5

    def test_bad_rows_are_skipped_and_counted_on_request(self, desk: Path, model: Path) -> None:
        write_data(desk, [*ROWS, ",positive", "fine,odd"])
        write_config(desk, model=str(model), on_bad_rows="skip", optimisers=["random"])
        result = rlprompt("compare", "small.yaml")
        assert result.exit_code == 0
        assert re.search(r"note: 2 rows .*films\.csv:22 has an empty text", result.stdout)

    def test_notes_of_several_tasks_name_them(self, desk: Path) -> None:
        config = json.loads((desk / "small.yaml").read_text())
        write_data(desk, [*ROWS, ",positive"])
        task = {**config.pop("task"), "on_bad_rows": "skip"}
        (desk / "others.csv").write_text((desk / "films.csv").read_text() + ",negative\n")
        config["tasks"] = {"films": task, "others": {**task, "data": "others.csv"}}
        (desk / "small.yaml").write_text(json.dumps({**config, "optimisers": ["random"]}))
        said = rlprompt("compare", "small.yaml").stdout.splitlines()
        notes = [line for line in said if line.startswith("note on ")]
        assert [line.split(":")[0] for line in notes] == ["note on films", "note on others"]
        assert "1 row " in notes[0]
        assert "2 rows " in notes[1]

    def test_an_optimiser_that_fails_costs_no_other(
        self, desk: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from rlprompt.agents.random_search import RandomSearch

        def fail(*_: object) -> None:
            raise RuntimeError("out of luck")

        monkeypatch.setattr(RandomSearch, "ask", fail)
        result = rlprompt("compare", "small.yaml")
        assert result.exit_code == 1
        assert "1/2 random: failed after 0 rows" in result.stdout
        assert "RuntimeError: out of luck" in result.stdout
        assert result.stderr.startswith("error: random, seed 0 ended with an error; see runs/")
        statuses = [run["status"] for run in summary(desk / "runs" / "small")["runs"]]
        assert statuses == ["failed", "finished"]

    def test_below_one_gradient_a_soft_prompt_is_its_start(self, desk: Path) -> None:
        result = rlprompt("compare", "small.yaml", "--budget", "4")
        assert result.exit_code == 0
        (found,) = (r for r in summary(desk / "runs" / "small")["runs"] if r["prompt"][0] == "<")
        assert (found["rows"], found["n_prompts"]) == (4, 1)

    def test_a_study_of_older_titles_goes_on_and_is_used(
        self, desk: Path, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        methods = [{"name": "cma-es", "dimension": None}, {"name": "random", "batch": 4}]
        write_config(desk, model=str(model), optimisers=methods)
        with monkeypatch.context() as patch:
            patch.setattr("rlprompt.config.schema.titles", as_before)
            assert rlprompt("compare", "small.yaml").exit_code == 0
        before = summary(desk / "runs" / "small")["runs"]
        assert before[0]["optimiser"] == "cma-es dimension=None"
        for again in (["compare", "small.yaml"], *([one, "runs/small"] for one in USES)):
            done = rlprompt(*again)
            assert done.exit_code == 0, done.stdout + done.stderr
        assert summary(desk / "runs" / "small")["runs"] == before
        assert rlprompt("compare", "small.yaml", "--restart").exit_code == 0
        assert summary(desk / "runs" / "small-2")["optimisers"][0] == "cma-es dimension=null"


# Commands that load a study again.
USES = ("work", "verify", "transfer", "report")


def as_before(sections: Sequence[Any], begun: Collection[str] = ()) -> list[str]:
    """Titles of a version that wrote settings as Python does."""
    return [
        " ".join([one.name, *(f"{key}={value}" for key, value in one.settings.items())])
        for one in sections
    ]


class TestRun:
    def test_it_runs_one_search_as_the_file_sets_it(self, desk: Path, model: Path) -> None:
        write_config(desk, model=str(model), optimisers=[{"name": "greedy", "pool": 0.5}])
        result = rlprompt("run", "small.yaml", "--optimiser", "greedy", "--seed", "7")
        assert result.exit_code == 0
        (run,) = summary(desk / "runs" / "small-greedy-pool=0.5-seed7")["runs"]
        assert (run["seed"], run["settings"]["pool"]) == (7, 0.5)

    def test_it_takes_an_optimiser_that_the_file_does_not_name(self, desk: Path) -> None:
        assert rlprompt("run", "small.yaml", "--optimiser", "greedy").exit_code == 0

    def test_an_unknown_optimiser_is_refused(self, desk: Path) -> None:
        result = rlprompt("run", "small.yaml", "--optimiser", "gredy")
        assert result.exit_code == 2
        assert result.stderr == "error: no optimiser is called 'gredy'; did you mean 'greedy'?\n"

    def test_one_with_several_settings_must_be_told_apart(self, desk: Path, model: Path) -> None:
        both = ["greedy", {"name": "greedy", "pool": 0.5}, {"name": "greedy", "pool": 0.6}]
        write_config(desk, model=str(model), optimisers=both[1:])
        result = rlprompt("run", "small.yaml", "--optimiser", "greedy")
        assert "give one of 'greedy pool=0.5', 'greedy pool=0.6'" in result.stderr
        write_config(desk, model=str(model), optimisers=both)
        assert rlprompt("run", "small.yaml", "--optimiser", "greedy").exit_code == 0


MINE = """
from dataclasses import dataclass

from rlprompt import AskTell

@dataclass(frozen=True)
class Mine(AskTell):
    batch: int = 2
    searches = "tokens"

    def ask(self, space, n_prompts, rng):
        for _ in range(n_prompts // self.batch):
            yield [space.sample(rng) for _ in range(self.batch)]
"""


class TestOnesOwn:
    """An optimiser in a file beside the experiment."""

    def test_it_is_compared_resumed_and_verified(self, desk: Path, model: Path) -> None:
        (desk / "mine.py").write_text(MINE)
        own = [{"class": "mine:Mine", "batch": 3}, "random"]
        write_config(desk, model=str(model), optimisers=own)
        done = rlprompt("compare", "small.yaml")
        assert done.exit_code == 0, done.output
        runs = {run["optimiser"]: run for run in summary(desk / "runs" / "small")["runs"]}
        assert set(runs) == {"Mine batch=3", "random"}
        assert runs["Mine batch=3"]["rows"] == 48
        assert rlprompt("compare", "small.yaml").exit_code == 0
        assert rlprompt("verify", "runs/small").exit_code == 0

    def test_it_is_run_by_its_place_or_title(self, desk: Path, model: Path) -> None:
        (desk / "mine.py").write_text(MINE)
        assert rlprompt("run", "small.yaml", "--optimiser", "mine:Mine").exit_code == 0
        assert "Mine" in (desk / "runs" / "small-Mine-seed0" / "tables.md").read_text()
        write_config(desk, model=str(model), optimisers=[{"class": "mine:Mine", "batch": 3}])
        done = rlprompt("run", "small.yaml", "--optimiser", "mine:Mine", "--seed", "1")
        assert done.exit_code == 0
        study = desk / "runs" / "small-Mine-batch=3-seed1"
        assert "Mine batch=3" in (study / "tables.md").read_text()
        # Beside the same method with other settings, which is another study.
        other = {"class": "mine:Mine", "batch": 2}
        write_config(desk, model=str(model), optimisers=[{"class": "mine:Mine", "batch": 3}, other])
        done = rlprompt("run", "small.yaml", "--optimiser", "Mine batch=2", "--seed", "1")
        assert (done.exit_code, done.stderr) == (0, "")
        done = rlprompt("run", "small.yaml", "--optimiser", "Mine batch=3", "--seed", "1")
        assert (done.exit_code, f"written to runs/{study.name}" in done.stdout) == (0, True)

    def test_a_file_that_is_not_there_is_told(self, desk: Path, model: Path) -> None:
        write_config(desk, model=str(model), optimisers=[{"class": "mine:Mine"}])
        done = rlprompt("compare", "small.yaml")
        assert done.exit_code == 2
        assert "there is no module 'mine': no mine.py beside the experiment file" in done.stderr


class TestMistakes:
    """One line that says what to do, exit code 2, and nothing on disk."""

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"shot": 2}, "small.yaml:1: unknown key 'shot'; did you mean 'shots' under 'task'?"),
            ({"model": "./nowhere"}, "model folder './nowhere' does not exist"),
            ({"optimisers": ["gredy"]}, "no optimiser is called 'gredy'; did you mean 'greedy'?"),
            ({"optimisers": [{"name": "greedy", "pol": 1}]}, "optimiser greedy has no setting"),
            ({"data": "nowhere.csv"}, "task.data 'nowhere.csv' is not there"),
            ({"template": "{text}"}, "has 0 {prompt}; it needs exactly one"),
            ({"template": "{prompt} {text} {prompt}"}, "has 2 {prompt}; it needs exactly one"),
            (
                {"template": "{words} {prompt}"},
                "films.csv has no column 'words'; it has 'text', 'label'; the template's {words} "
                "asks for it: write {text}, or `text: {words: text}`",
            ),
            (
                {"label_words": {"negative": "", "positive": "great"}},
                "the label word of 'negative' is empty",
            ),
            (
                {"label_words": {"negative": "great", "positive": "great"}},
                "share the label word 'great'",
            ),
            (
                {"label_words": {"negative": "bad", "good": "good"}},
                "films.csv:3 has the unknown label 'positive' (known: good, negative); mend the "
                "file: without its 10 bad rows too little is left; or give 'positive' a word in "
                "`label_words`",
            ),
            ({"reward": "gapp"}, "reward is 'gapp'"),
            ({"shots": 100}, "class 'negative' has 10 examples; 100 shots need 200"),
            ({"budget": 3}, "a budget of 3 rows does not cover one prompt"),
            ({"prompt": {"length": 500}}, "is too long: "),
            ({"device": "cuda:99"}, "device 'cuda:99' cannot be used here"),
            (
                {"dtype": "fp16"},
                "dtype 'fp16' is not known; give one of float32, bfloat16, float16 or",
            ),
            (
                {"device": "gpu"},
                "device 'gpu' is not one that PyTorch has; give cpu, cuda, cuda:N or",
            ),
        ],
    )
    def test_in_the_file(
        self, desk: Path, model: Path, changes: dict[str, Any], message: str
    ) -> None:
        write_config(desk, **({"model": str(model)} | changes))
        result = rlprompt("compare", "small.yaml")
        assert result.exit_code == 2, result.output
        assert message in result.stderr
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert not list((desk / "runs").glob("*"))

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            (",positive", "films.csv:22 has an empty text"),
            ("fine,odd", "films.csv:22 has the unknown label 'odd' (known: negative, positive)"),
        ],
    )
    def test_in_the_data(self, desk: Path, row: str, message: str) -> None:
        write_data(desk, [*ROWS, row])
        result = rlprompt("compare", "small.yaml")
        assert result.exit_code == 2
        assert message in result.stderr

    def test_a_text_that_leaves_no_room_for_the_prompt(self, desk: Path) -> None:
        write_data(desk, [*ROWS, *(f"{'x' * 300} {label},{label}" for label in LABELS * 2)])
        result = rlprompt("compare", "small.yaml", "--out", "out")
        assert result.exit_code == 2
        assert re.search(r"example films\.csv:2\d is too long: \d+ tokens of text", result.stderr)

    def test_a_model_that_computes_no_numbers(self, desk: Path) -> None:
        write_config(desk, model=str(save(desk / "broken", broken=True)))
        result = rlprompt("compare", "small.yaml")
        assert result.exit_code == 2
        assert "broken are no finite number, such as nan, in float32; its weights" in result.stderr
        assert result.stderr.count("\n") == 1
        assert not list((desk / "runs").glob("*"))

    def test_a_folder_that_holds_something(self, desk: Path) -> None:
        (desk / "out").mkdir()
        (desk / "out" / "mine").write_text("precious")
        result = rlprompt("compare", "small.yaml", "--out", "out")
        assert result.exit_code == 2
        assert result.stderr.startswith("error: out exists, holds no study to go on with")
        assert [path.name for path in (desk / "out").iterdir()] == ["mine"]

    def test_a_folder_that_cannot_be_written_is_noticed_before_the_model_is_loaded(
        self, desk: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from rlprompt.models.lm import FrozenLM

        monkeypatch.setattr(FrozenLM, "load", lambda *_, **__: pytest.fail("was loaded"))
        result = rlprompt("compare", "small.yaml", "--out", "films.csv/out")
        assert result.exit_code == 2
        assert result.stderr == "error: cannot write to films.csv/out: Not a directory\n"

    def test_a_disk_that_fills_up_is_told_in_a_line(
        self, desk: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from rlprompt.studies import folder

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device", "summary.json")

        monkeypatch.setattr(folder, "write_atomically", full)
        result = rlprompt("compare", "small.yaml")
        assert result.exit_code == 2
        assert "No space left on device" in result.stderr

    @pytest.mark.parametrize("flags", [["--budget", "0"], ["--seed", "-1"], ["--nope"]])
    def test_in_a_flag(self, desk: Path, flags: list[str]) -> None:
        result = rlprompt("compare", "small.yaml", *flags)
        assert result.exit_code == 2
        assert "Error: " in result.stderr

    def test_a_mistake_of_ours_keeps_its_traceback(
        self, desk: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from rlprompt.reports import html

        def bug(*_: object) -> None:
            raise ValueError("a bug")

        monkeypatch.setattr(html, "page_of", bug)
        with pytest.raises(ValueError, match="a bug"):
            rlprompt("compare", "small.yaml")


def test_ctrl_c_keeps_what_was_found(desk: Path) -> None:
    """In a process of its own, as a person would press it: in the middle of a long search."""
    said = desk / "said"
    # A line of progress comes at once, and not after ten seconds.
    command = partial(forks.rlprompt, line_seconds=0.1)
    with forks.forked(command, said, "compare", "small.yaml", "--budget", "400000") as process:
        while " rows, best " not in (said.read_text() if said.exists() else ""):
            assert process.is_alive()
            time.sleep(0.05)
        assert process.pid
        os.kill(process.pid, signal.SIGINT)
        process.join(60)
    out, err = said.read_text(), said.with_suffix(".err").read_text()
    assert process.exitcode == 130, err
    assert err == "interrupted; run the same command again to go on with runs/small\n"
    assert "random (interrupted)" in out
    (run,) = summary(desk / "runs" / "small")["runs"]
    assert run["status"] == "interrupted"
    assert run["rows"] > 0
    assert run["prompt"]
    assert {"report.html", "tables.md"} <= {path.name for path in (desk / "runs/small").iterdir()}
    assert (desk / "runs" / "small" / run["file"]).exists()
