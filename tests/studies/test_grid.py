"""Several tasks, models and budgets in one study: names, order, files, and what is refused."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_line import ROWS, rlprompt, save, summary, write_config, write_data
from small_experiments import grid
from tiny import TinyKind, tiny_model

from rlprompt.config.yaml_file import load_config
from rlprompt.models.lm import FrozenLM
from rlprompt.reports.page import page_of
from rlprompt.reports.results import results
from rlprompt.reports.score_matrix import ScoreMatrix
from rlprompt.reports.struck import examined
from rlprompt.reports.study_data import read_study
from rlprompt.store.parts import combine
from rlprompt.studies.comparison import Comparison
from rlprompt.studies.experiment import searches
from rlprompt.studies.loading import load_experiments, load_model
from rlprompt.studies.run import compare, kept_dtypes, load_again
from rlprompt.studies.search_queue import SearchQueue
from rlprompt.tasks.label_search import find_label_words

MODELS: dict[str, TinyKind] = {"a": "llama", "b": "gpt2"}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    out = tmp_path_factory.mktemp("runs") / "grid"
    comparison = compare(grid(), out)
    return comparison, out


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, kind in MODELS.items():
        save(folder / name, kind=kind)
    return folder


class TestFiles:
    def test_the_summary_is_two_tables(self, done: tuple[Comparison, Path]) -> None:
        found = summary(done[1])
        assert found["format"] == 3
        assert found["complete"]
        assert [one["name"] for one in found["tasks"]] == ["films", "books"]
        assert [one["name"] for one in found["models"]] == ["tiny-llama", "tiny-gpt2"]
        runs = found["runs"]
        keys = {(run["task"], run["model"], run["budget_rows"]) for run in runs}
        assert len(runs) == len(keys) == 8
        for run in runs:
            assert (done[1] / run["file"]).exists()
            assert run["rows"] == run["budget_rows"]
        # Controls have no budget.
        controls = {(one["task"], one["model"], one["name"]) for one in found["controls"]}
        assert len(found["controls"]) == len(controls) == 4 * 4

    def test_each_experiment_gives_what_it_gives_alone(
        self, done: tuple[Comparison, Path], tmp_path: Path
    ) -> None:
        for one, section in zip(grid(), done[0].sections, strict=True):
            if one.budget.rows == 32:  # half of them will do
                alone = compare(one, tmp_path / section.heading)
                assert alone.sections[0].controls == section.controls
                assert [(run.result.points, run.result.candidates) for run in alone.runs] == [
                    (run.result.points, run.result.candidates) for run in section.runs
                ]

    def test_each_model_and_budget_has_a_section_and_each_task_a_table(
        self, done: tuple[Comparison, Path]
    ) -> None:
        sections = page_of(read_study(done[1])).sections
        assert [section.heading for section in sections][:2] == [
            "tiny-llama, 16 rows a search",
            "tiny-llama, 32 rows a search",
        ]
        captions = [table.caption for section in sections for table in section.runs]
        assert len(captions) == len(set(captions)) == 8
        assert captions[0] == "Every run on films, tiny-llama, 16 rows a search"

    def test_tasks_on_the_same_examples_share_their_luck(
        self, done: tuple[Comparison, Path]
    ) -> None:
        study = read_study(done[1])
        matrix = ScoreMatrix(study, "tiny-llama", 16, "")
        films, books = matrix.tasks
        assert films.draw == books.draw == grid()[0].task.splits.drawn_digest
        assert matrix.draws(matrix.tasks) == ["films", "films"]
        # As an older version left them, nothing is known to be shared.
        older = [one.model_copy(update={"draw": ""}) for one in matrix.tasks]
        assert matrix.draws(older) == ["films", "books"]
        (table,) = [one for one in results(matrix).tables if one.name.endswith("all-tasks")]
        assert table.notes[-1].startswith("Tasks with the same train and dev examples share")


class TestFromFile:
    """`models:`, `tasks:` and `budgets:`, with models that take turns in memory."""

    @pytest.fixture(autouse=True)
    def _models(self, desk: Path, models: Path) -> None:
        shutil.copytree(models, desk, dirs_exist_ok=True)

    def write(self, desk: Path, **changes: Any) -> None:
        section = {
            "data": "films.csv",
            "template": "{text} {prompt}",
            "label_words": {"negative": "terrible", "positive": "great"},
            "shots": 2,
            "test": 6,
        }
        small = section | {"reward": "hinge", "shots": 1}
        config: dict[str, Any] = {
            "name": "grid",
            "models": ["a", "b"],
            "tasks": {"films": section, "hinge": small},
            "prompt": {"length": 3},
            "optimisers": ["random"],
            "budgets": [16, 32],
            "dtype": "float32",
        }
        config = {k: v for k, v in (config | changes).items() if v is not None}
        (desk / "grid.yaml").write_text(json.dumps(config))

    def test_it_runs_and_goes_on_and_no_model_is_loaded_for_a_run(
        self, desk: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loads: list[str] = []

        def counted(section: Any, device: str, dtype: str) -> FrozenLM:
            loads.append(section.name)
            return load_model(section, device, dtype)

        monkeypatch.setattr("rlprompt.studies.loading.load_model", counted)
        self.write(desk)
        result = rlprompt("compare", "grid.yaml")
        assert result.exit_code == 0, result.stderr
        assert result.stdout.startswith("grid: loading a, b, films and hinge\n")
        assert "budget: 16 rows each (prompts: 4 of films, 8 of hinge)\n" in result.stdout
        # Checked, the controls that a study needs from the last to the first, and the others the
        # other way; then the runs, those of the model at hand first.
        assert "1/8 films, b, 16 rows, random: starting\n" in result.stdout
        assert loads == ["a", "b", "a", "b", "a"]
        before = summary(desk / "runs" / "grid")
        assert before["complete"]
        assert rlprompt("compare", "grid.yaml").exit_code == 0
        assert summary(desk / "runs" / "grid")["runs"] == before["runs"]
        assert loads[5:] == ["a", "b"]
        assert rlprompt("verify", "runs/grid", "--sample", "2").exit_code == 0
        assert "films/a/16-rows/random-seed0: finished" in rlprompt("ls", "runs").stdout

    def test_two_workers_share_a_grid(self, desk: Path) -> None:
        self.write(desk, budgets=[16])
        runs = []
        for name, workers in (("alone", "1"), ("shared", "2")):
            result = rlprompt("compare", "grid.yaml", "--out", name, "--workers", workers)
            assert result.exit_code == 0, result.stderr
            runs.append(summary(desk / name)["runs"])
        for run in (*runs[0], *runs[1]):
            del run["lm_seconds"], run["total_seconds"]
        assert runs[0] == runs[1]
        assert (desk / "shared" / "worker-2.log").exists()

    @pytest.mark.parametrize(
        "own",
        [
            {"label_words": "auto", "labels": ["negative", "positive"]},
            {"on_long_text": "truncate-start"},
        ],
    )
    def test_models_with_tasks_of_their_own_are_held_against_these(
        self, desk: Path, own: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A tiny tokenizer has few words.
        few = partial(find_label_words, pool=16)
        monkeypatch.setattr("rlprompt.tasks.label_search.find_label_words", few)
        if "on_long_text" in own:  # of `a` nothing is cut
            write_data(desk, [f"{'film ' * 40}{row}" for row in ROWS])
            tiny_model("gpt2", n_positions=48).save_pretrained(desk / "b")
        section = {"data": "films.csv", "template": "{text} {prompt}", "shots": 2, "test": 6}
        words = {"label_words": {"negative": "terrible", "positive": "great"}}
        changes = {"tasks": {"films": section | words | own}, "budgets": [16]}
        for name, models in (("whole", ["a", "b"]), ("only-a", ["a"]), ("only-b", ["b"])):
            self.write(desk, models=models, **changes)
            result = rlprompt("compare", "grid.yaml", "--out", name)
            assert result.exit_code == 0, result.stderr
        whole, *alone = (read_study(desk / name) for name in ("whole", "only-a", "only-b"))
        (task,) = whole.summary.tasks
        for model, one in zip("ab", alone, strict=True):
            assert task.of_model(model) == one.summary.tasks[0]
        assert list(task.by_model) == ["b"]
        assert not any(run.struck for run in examined(whole).runs)
        page = page_of(whole)
        assert "struck runs" not in {one.check for one in page.caveats}
        (table,) = [one for one in page.setup if one.name == "tasks"]
        assert [row[0] for row in table.rows] == ["films", "films, b"]
        assert [row[-1] for row in table.rows] == [
            one.summary.tasks[0].fingerprint for one in alone
        ]
        made = combine([desk / "only-a", desk / "only-b"], desk / "both")
        assert made.tasks == whole.summary.tasks
        assert made.complete
        assert not any(run.struck for run in examined(read_study(desk / "both")).runs)

    def test_each_model_goes_on_in_the_dtype_it_began_in(self, desk: Path) -> None:
        self.write(desk, dtype="bfloat16", budgets=None, budget=16)
        assert rlprompt("compare", "grid.yaml", "--out", "began").exit_code == 0
        self.write(desk, dtype="auto", budgets=None, budget=16)
        auto = load_config(desk / "grid.yaml")
        again = load_again(auto, desk / "began")
        assert {one.lm.fingerprint.dtype for one in again} == {"bfloat16"}

    @pytest.mark.parametrize("budgets", [[16], [16, 32]])
    def test_models_of_the_same_weights_keep_a_dtype_each(
        self, desk: Path, tmp_path: Path, budgets: list[int]
    ) -> None:
        shutil.copytree(desk / "a", desk / "c")
        self.write(desk, dtype="auto", models=["a", "b", "c"], budgets=budgets)
        config = load_config(desk / "grid.yaml")
        dtypes = ["bfloat16", "float32", "bfloat16"]
        with SearchQueue(
            tmp_path, searches(load_experiments(config, dtypes)), config.record
        ) as queue:
            assert kept_dtypes(config, queue.store) == dtypes

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"budgets": [16, 3]}, "films, a, 3 rows: a budget of 3 rows does not cover one prom"),
            ({"model": "a"}, "grid.yaml:1: model and models are both there; give one of them"),
            ({"models": None}, "grid.yaml:1: model is missing"),
            ({"models": ["a", "a"]}, "two searches would be called films/16-rows/random-seed0"),
            ({"models": []}, "models: must not be empty"),
            ({"budgets": [16, 16]}, "budgets: 16 is given twice"),
            ({"prompt": {"banned": [*range(999)]}}, "films, a, 16 rows: no token is allowed"),
            ({"tasks": [{"data": "films.csv"}]}, "tasks.0.template is missing"),
            ({"tasks": {"x": {"shots": 2, "shot": 3}}}, "unknown key 'shot' in tasks.x; did you"),
        ],
    )
    def test_what_cannot_run_is_named_before_anything_is_paid(
        self, desk: Path, changes: dict[str, Any], message: str
    ) -> None:
        self.write(desk, **changes)
        result = rlprompt("compare", "grid.yaml")
        assert result.exit_code == 2
        assert message in result.stderr
        assert not (desk / "runs" / "grid").exists()


def test_a_model_whose_files_were_swapped_is_refused(desk: Path) -> None:
    save(desk / "model")
    write_config(desk, model="model", optimisers=["random"])
    assert rlprompt("compare", "small.yaml").exit_code == 0
    tiny_model(seed=1).save_pretrained(desk / "model")
    for command in (["compare", "small.yaml"], ["verify", "runs/small"]):
        result = rlprompt(*command)
        assert result.exit_code == 2
        assert "error:   model.weights: " in result.stderr
