"""`rlprompt export --best` and `rlprompt score` of what it wrote, as a person uses them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from command_line import ROWS, rlprompt, save, write_config, write_data
from tiny import TinyKind

from rlprompt.config.yaml_file import load_config
from rlprompt.export.folder import load_prompt
from rlprompt.store.store import FILE, Store
from rlprompt.studies.loading import load_experiments
from rlprompt.studies.run import compare

STUDY = Path("runs/small")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A desk with a finished study of two runs."""
    place = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        write_data(place, ROWS)
        write_config(place, model=str(model))
        assert rlprompt("compare", "small.yaml").exit_code == 0
    return place


@pytest.fixture
def study(finished: Path, desk: Path) -> Path:
    """The working folder, with a copy of that study."""
    shutil.copytree(finished / "runs", desk / "runs")
    return desk


@pytest.fixture(scope="module")
def two_tasks(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A desk with a finished study of two tasks by names of its own, on data of one name each."""
    place = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        write_config(place, model=str(model), optimisers=["random"], budget=8)
        config = json.loads(Path("small.yaml").read_text())
        task = config.pop("task") | {"test": 2}
        config["tasks"] = {}
        for title, reward in (("by gap", "gap"), ("by-entropy", "cross_entropy")):
            Path(title).mkdir()
            write_data(Path(title), ROWS)
            config["tasks"][title] = {**task, "data": f"{title}/films.csv", "reward": reward}
        Path("small.yaml").write_text(json.dumps(config))
        done = rlprompt("compare", "small.yaml")
        assert done.exit_code == 0, done.stderr
        Path("said.txt").write_text(done.stdout)
    return place


@pytest.fixture
def named(two_tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a copy of that study and its data."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(two_tasks, tmp_path, dirs_exist_ok=True)
    return tmp_path


class TestTitles:
    """Tasks are called what the study's tables call them."""

    @pytest.mark.parametrize("title", ["by gap", "by-entropy"])
    def test_a_task_goes_by_the_title_in_tables(self, named: Path, title: str) -> None:
        done = rlprompt("export", str(STUDY), "--best", "out", "--task", title)
        assert (done.exit_code, done.stderr) == (0, "")
        reward = {"by gap": "gap", "by-entropy": "cross_entropy"}[title]
        assert load_prompt("out").facts.search.run == f"{title.replace(' ', '-')}/random-seed0"
        (task,) = (
            t
            for t in json.loads(Path(STUDY, "summary.json").read_text())["tasks"]
            if t["name"] == title
        )
        assert task["reward"] == reward
        assert load_prompt("out").facts.task.fingerprint == task["fingerprint"]

    @pytest.mark.parametrize(
        ("command", "message"),
        [
            (["export", str(STUDY), "--best", "o"], "one of by gap, by-entropy, or --run"),
            (
                ["export", str(STUDY), "--best", "o", "--task", "films"],
                "no finished run has the task 'films'; there are: by gap, by-entropy",
            ),
            (["predict", "--best", str(STUDY), "x.csv"], "one of by gap, by-entropy, or --run"),
        ],
    )
    def test_which_there_are_is_said_as_in_tables(
        self, named: Path, command: list[str], message: str
    ) -> None:
        write_data(Path(), ROWS)
        Path("films.csv").rename("x.csv")
        done = rlprompt(*command)
        assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
        assert message in done.stderr

    def test_what_compare_says_of_the_best_prompt_works(self, named: Path) -> None:
        (line,) = (
            line for line in (named / "said.txt").read_text().splitlines() if "--best" in line
        )
        said, _, command = line.partition(": ")
        assert said == "keep the best prompt of one task"
        done = rlprompt(*shlex.split(command)[1:])
        assert (done.exit_code, done.stderr) == (0, "")
        assert load_prompt("found").facts.search.run == "by-gap/random-seed0"

    def test_data_of_another_task_may_be_gone(self, named: Path) -> None:
        Path("by gap", "films.csv").unlink()
        done = rlprompt("export", str(STUDY), "--best", "out", "--run", "by-entropy/random-seed0")
        assert (done.exit_code, "note: " in done.stdout) == (0, False), done.stdout
        assert load_prompt("out").facts.task.usage is not None
        done = rlprompt("export", str(STUDY), "--best", "gone", "--run", "by-gap/random-seed0")
        assert "note: task by gap cannot be loaded (data 'by gap/films.csv' does" in done.stdout


def edit(folder: str, **facts: object) -> None:
    path = Path(folder, "prompt.json")
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **facts}), "utf-8")


class TestExport:
    def test_the_best_prompt_on_dev_is_written_and_verifies(self, study: Path) -> None:
        done = rlprompt("export", str(STUDY), "--best", "out")
        assert done.exit_code == 0
        with Store(STUDY / FILE, read_only=True) as store:
            runs = {run.name: run.result for run in store.runs()}
        picked = load_prompt("out").facts
        assert f"{picked.search.run}: {picked.text!r} written to out; its card is README.md\n" == (
            done.stdout
        )
        rewards = {name: found.best.dev.reward for name, found in runs.items() if found}  # type: ignore[union-attr]  # finished
        assert picked.search.run == max(rewards, key=rewards.__getitem__)
        scored = rlprompt("score", "out", "small.yaml", "--split", "test", "--split", "dev")
        assert scored.exit_code == 0, scored.stderr
        assert "Verified: mean rewards or the prior differ by " in scored.stdout
        assert f"test: exported with accuracy {picked.scores['test'].metric:.3f}" in scored.stdout

    def test_a_prior_is_held_against_train(self, desk: Path, model: Path) -> None:
        write_config(desk, model=str(model), optimisers=["random"])
        config = json.loads(Path("small.yaml").read_text())
        config["task"]["calibration"] = "batch"
        Path("small.yaml").write_text(json.dumps(config))
        assert rlprompt("compare", "small.yaml").exit_code == 0
        assert rlprompt("export", str(STUDY), "--best", "out").exit_code == 0
        scored = rlprompt("score", "out", "small.yaml")
        assert scored.exit_code == 0, scored.stdout
        assert "Verified: mean rewards or the prior differ by " in scored.stdout
        facts = json.loads(Path("out", "prompt.json").read_text("utf-8"))["task"]
        facts["usage"]["prior"]["negative"] -= 1
        edit("out", task=facts)
        changed = rlprompt("score", "out", "small.yaml")
        assert changed.exit_code == 1
        assert "prior of the classes: 1 nats from the exported one" in changed.stdout

    def test_a_run_may_be_named_and_the_ledger_come_along(self, study: Path) -> None:
        flags = ["--best", "out", "--run", "random-seed0", "--ledger", "all.csv"]
        done = rlprompt("export", str(STUDY), *flags)
        assert done.exit_code == 0
        assert load_prompt("out").facts.kind == "token"
        assert "prompts written to all.csv" in done.stdout
        scored = rlprompt("score", "out", "small.yaml")
        assert "token ids  " in scored.stdout
        assert "Test was not scored; add --split test" in scored.stdout
        assert "test " not in scored.stdout.split("Test was")[0]

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ([], "nothing to write: give --best DIR, --ledger FILE, or both"),
            (["--ledger", "x.csv", "--run", "a"], "narrow down the best prompt: add --best DIR"),
            (["--best", "runs"], "runs is there and not empty; give a new folder"),
            (["--best", "o", "--run", "x"], "there are: random-seed0, soft-prompt-seed0"),
            (["--best", "o", "--task", "x"], "no finished run has the task 'x'; there are: films"),
        ],
    )
    def test_what_cannot_be_written_is_said_in_a_line(
        self, study: Path, flags: list[str], message: str
    ) -> None:
        done = rlprompt("export", str(STUDY), *flags)
        assert done.exit_code == 2
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not Path("o").exists()

    def test_a_study_whose_data_is_gone_still_gives_its_prompt(self, study: Path) -> None:
        write_data(study, [row.replace("film number 3,", "film no. 3,") for row in ROWS])
        done = rlprompt("export", str(STUDY), "--best", "edited")
        assert done.exit_code == 0
        assert "note: task films has changed since the prompt was found, so" in done.stdout
        (study / "films.csv").unlink()
        done = rlprompt("export", str(STUDY), "--best", "gone")
        assert "note: task films cannot be loaded (" in done.stdout
        assert load_prompt("gone").facts.task.usage is None

    @pytest.mark.parametrize(
        ("command", "code"),
        [
            (("verify", str(STUDY)), 2),
            (("work", str(STUDY)), 2),
            (("transfer", str(STUDY)), 2),
            (("export", str(STUDY), "--best", "out"), 0),
            (("predict", "--best", str(STUDY), "films.csv"), 2),
        ],
    )
    def test_a_study_of_a_plugin_that_is_gone_says_so_in_a_line(
        self, study: Path, command: tuple[str, ...], code: int
    ) -> None:
        with Store(STUDY / FILE) as store:
            gone = [{"name": "annealing", "settings": {"heat": 1}}]
            store.change_config(lambda config: {**config, "optimisers": gone})
        done = rlprompt(*command)
        assert done.exit_code == code
        (line,) = (done.stderr or done.stdout.splitlines()[-1]).splitlines()
        assert "the study's experiment is none here any more: optimisers.0.name: " in line
        assert "no optimiser is called 'annealing'" in line
        assert "Install the package that it needs" in line
        assert "pydantic" not in line

    def test_a_study_from_python_is_exported_as_far_as_it_is_known(
        self, desk: Path, model: Path
    ) -> None:
        experiment = load_experiments(load_config(Path("small.yaml")))[0]
        object.__setattr__(experiment, "config", {})
        compare(experiment, Path("runs/python"))
        done = rlprompt("export", "runs/python", "--best", "out")
        assert done.exit_code == 0, done.stderr
        assert "the study was not made from an experiment file, so template and" in done.stdout

    def test_a_model_that_changed_is_refused(self, desk: Path) -> None:
        place = save(desk / "own")
        write_config(desk, model=str(place), optimisers=["random"])
        assert rlprompt("compare", "small.yaml").exit_code == 0
        _replace(place, "gpt2")
        done = rlprompt("export", str(STUDY), "--best", "out")
        assert done.exit_code == 2
        assert "is not the model that this prompt was found on" in done.stderr
        assert not Path("out").exists()

    def test_a_model_whose_config_was_edited_is_another(self, desk: Path) -> None:
        place = save(desk / "own")
        write_config(desk, model=str(place), optimisers=["random"])
        assert rlprompt("compare", "small.yaml").exit_code == 0
        state = json.loads((place / "config.json").read_text("utf-8"))
        (place / "config.json").write_text(json.dumps({**state, "rms_norm_eps": 0.1}), "utf-8")
        again = rlprompt("compare", "small.yaml")
        assert again.exit_code == 2
        assert re.search(r'holds a study .*\n.*  model.config: "\w{64}" before', again.stderr)
        done = rlprompt("export", str(STUDY), "--best", "out")
        assert done.exit_code == 2
        assert "its config is another. Restore the model's files" in done.stderr


def _replace(folder: Path, kind: TinyKind) -> None:
    shutil.rmtree(folder)
    save(folder, kind=kind)


class TestScore:
    @pytest.fixture(autouse=True)
    def out(self, study: Path) -> None:
        assert (
            rlprompt("export", str(STUDY), "--best", "out", "--run", "random-seed0").exit_code == 0
        )

    def test_another_model_is_refused(self, study: Path) -> None:
        write_config(study, model=str(save(study / "other", kind="gpt2")))
        done = rlprompt("score", "out", "small.yaml")
        assert done.exit_code == 2
        assert "is not the model that this prompt belongs to" in done.stderr
        assert "rlprompt transfer RUN --models" in done.stderr
        assert len(done.stderr.splitlines()) == 1

    def test_of_several_models_its_own_is_taken(self, study: Path, model: Path) -> None:
        other = str(save(study / "other", kind="gpt2"))
        config = json.loads(Path("small.yaml").read_text())
        del config["model"]
        Path("small.yaml").write_text(json.dumps({**config, "models": [other, str(model)]}))
        done = rlprompt("score", "out", "small.yaml")
        assert done.exit_code == 0, done.stderr
        assert "Verified" in done.stdout
        assert "not scored: " in done.stdout

    def test_another_dtype_is_noted(self, study: Path) -> None:
        done = rlprompt("score", "out", "small.yaml", "--dtype", "bfloat16")
        assert done.exit_code == 0
        assert (
            "note: the prompt was found with the weights in float32, and here it is" in done.stdout
        )

    def test_the_dtype_of_the_search_is_taken_where_none_is_asked_for(self, study: Path) -> None:
        write_config(study, model=_model_of(study), dtype="auto")
        done = rlprompt("score", "out", "small.yaml")
        assert "Verified" in done.stdout
        assert "note: " not in done.stdout

    def test_forged_scores_are_found(self, study: Path) -> None:
        scores = json.loads(Path("out/prompt.json").read_text("utf-8"))["scores"]
        scores["dev"]["reward"] += 1
        edit("out", scores=scores)
        done = rlprompt("score", "out", "small.yaml")
        assert done.exit_code == 1
        assert (
            "NOT verified: mean rewards or the prior differ by 1 at most, and rounding expl"
            in done.stdout
        )

    def test_another_task_is_said_to_be_another(self, study: Path) -> None:
        write_config(study, model=_model_of(study), template="{text}. {prompt}")
        done = rlprompt("score", "out", "small.yaml")
        assert done.exit_code == 0
        assert "This is not the task that the prompt was found for (films with the" in done.stdout
        assert "erified" not in done.stdout

    @pytest.mark.parametrize("name", ["prompt.json", "prompt.safetensors"])
    def test_a_folder_that_is_not_whole_is_a_mistake_and_no_text(
        self, study: Path, name: str
    ) -> None:
        Path("out", name).unlink()
        done = rlprompt("score", "out", "small.yaml")
        assert done.exit_code == 2
        assert f"error: out is no exported prompt: {name} is missing" in done.stderr
        assert len(done.stderr.splitlines()) == 1

    def test_a_text_is_scored_as_a_text(self, study: Path) -> None:
        for text in ("it was", "runs", "film" + " film" * 60):
            done = rlprompt("score", text, "small.yaml")
            assert done.exit_code == 0, done.stderr
            assert f"prompt     ' {text}'" in done.stdout
            assert "erified" not in done.stdout


def _model_of(study: Path) -> str:
    return str(json.loads((study / "small.yaml").read_text())["model"])
