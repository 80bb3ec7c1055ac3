"""`rlprompt init` as a newcomer meets it: a file that runs, and a sentence for every mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_line import rlprompt

from rlprompt.config.yaml_file import load_config
from rlprompt.studies import draft as drafting
from rlprompt.studies.dry_run import Plan, SearchPlan


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that is not measured."""

    def plan(experiment: Any) -> Plan:
        rows = experiment.budget.rows
        searches = [SearchPlan(n, 1, rows, 400, 10.0, 0.0, 9, 1.0) for n in experiment.optimisers]
        return Plan(tuple(searches), 9, 1.0, 0, 0, 0.0)

    monkeypatch.setattr(drafting, "make_plan", plan)


@pytest.mark.usefixtures("quick")
class TestFile:
    def test_what_it_guessed_is_on_screen_and_in_the_file(self, desk: Path, model: Path) -> None:
        (desk / "data").mkdir()
        (desk / "films.csv").rename(desk / "data" / "films.csv")
        result = rlprompt("init", "data/films.csv", "--model", str(model))
        assert (result.exit_code, result.stderr) == (0, "")
        said = [line.split(maxsplit=1) for line in result.stdout.splitlines() if line[:2] == "  "]
        assert [topic for topic, _ in said if topic != "busy"] == [
            *("text", "label", "words", "examples", "budget", "seeds", "time"),
        ]
        assert "'label' (by its name): negative 10 and positive 10" in result.stdout
        assert "films.csv: 20 rows of 2 columns" in result.stdout
        assert "written to films.yaml; read it, then: rlprompt check films.yaml" in result.stdout
        text = (desk / "films.yaml").read_text()
        assert "# Written by `rlprompt init data/films.csv`." in text
        assert (
            "    negative: terrible              # usual in papers for such classes; 10 rows"
            in text
        )
        config = load_config(desk / "films.yaml")
        assert config.task is not None
        assert "  data: data/films.csv\n" in text
        assert config.task.name == "films"

    @pytest.mark.parametrize(
        ("data", "name"),
        [("lr=1.csv", "lr-1"), ("½ of it.csv", "of-it"), ("2024.csv", "2024"), ("=.csv", "mine")],
    )
    def test_any_name_of_data_makes_one_that_may_be_read(
        self, desk: Path, model: Path, data: str, name: str
    ) -> None:
        (desk / "films.csv").rename(desk / data)
        done = rlprompt("init", data, "--model", str(model))
        assert (done.exit_code, done.stderr) == (0, "")
        assert load_config(desk / f"{name}.yaml").name == name

    def test_what_it_wrote_runs_at_once(self, desk: Path, model: Path) -> None:
        (desk / "other").mkdir()
        out = "other/mine.yaml"
        assert rlprompt("init", "films.csv", "--model", str(model), "--out", out).exit_code == 0
        assert "data: ../films.csv" in (desk / out).read_text()
        done = rlprompt("compare", out, "--budget", "36", "--out", "runs/it")
        assert done.exit_code == 0, done.output
        assert (desk / "runs" / "it" / "report.html").exists()

    def test_a_file_that_is_there_stays(self, desk: Path, model: Path) -> None:
        (desk / "films.yaml").write_text("mine")
        result = rlprompt("init", "films.csv", "--model", str(model))
        assert result.exit_code == 2
        assert result.stderr == (
            "error: films.yaml exists; give another name, or --force to replace it\n"
        )
        assert (desk / "films.yaml").read_text() == "mine"
        assert rlprompt("init", "films.csv", "--model", str(model), "--force").exit_code == 0
        assert (desk / "films.yaml").read_text() != "mine"

    def test_a_folder_by_its_name(self, desk: Path, model: Path) -> None:
        (desk / "sst 2").mkdir()
        lines = (desk / "films.csv").read_text().splitlines()
        for i, name in enumerate(("train", "dev", "test")):
            part = "\n".join([lines[0], *lines[1 + 6 * i : 7 + 6 * i]])
            (desk / "sst 2" / f"{name}.csv").write_text(part)
        assert rlprompt("init", "sst 2/", "--model", str(model)).exit_code == 0
        config = load_config(desk / "sst-2.yaml")
        assert config.task is not None
        assert config.name == "sst-2"
        assert "  data: sst 2\n" in (desk / "sst-2.yaml").read_text()


class TestRefused:
    @pytest.mark.parametrize(
        ("given", "told"),
        [
            (["nothing.csv"], "data 'nothing.csv' does not exist; give movie-reviews, a file that"),
            (["flms.csv"], "data 'flms.csv' does not exist (did you mean films.csv?)"),
            (["films.csv", "--out", "films.txt"], "films.txt does not end in .yaml; give a name"),
            (["films.csv", "--out", "no/films.yaml"], "folder no does not exist; make it, or give"),
            (["films.csv", "--label", "lable"], "has no column 'lable'; it has 'text', 'label'"),
            (["films.csv", "--label", "text", "--text", "text"], "is named as --text and --label"),
            (["films.csv", "--model", "/nowhere"], "model folder '/nowhere' does not exist"),
            (["films.csv", "--model", "http://a/v1"], "put `model: {url: 'http://a/v1'}` into it"),
            (["empty.csv"], "empty.csv has no rows; give a table with a line of column names"),
        ],
    )
    def test_a_line_that_teaches(self, desk: Path, given: list[str], told: str) -> None:
        (desk / "empty.csv").write_text("")
        result = rlprompt("init", *given)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert told in result.stderr
        assert not list(desk.glob("films.yaml"))
