"""A study of several draws of the examples: names, files, resume, and how reports see it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import LABELS, rlprompt, save, summary
from small_experiments import ONLY, examples, experiment, task

from rlprompt.cli.terminal import opening
from rlprompt.config.yaml_file import load_config
from rlprompt.data.examples import Splits
from rlprompt.reports.page import page_of
from rlprompt.reports.score_matrix import ScoreMatrix
from rlprompt.reports.study_data import read_study
from rlprompt.store.store import FILE, Store
from rlprompt.studies.experiment import Experiment, searches
from rlprompt.studies.loading import load_experiments
from rlprompt.studies.run import compare
from rlprompt.transfer.targets import Destinations

TASK = {
    "data": "films/2-{seed}",
    "template": "{text} {prompt}",
    "label_words": {"negative": "terrible", "positive": "great"},
}


def on(seed: int | None, name: str = "", **fields: Any) -> Experiment:
    drawn = Splits(examples(f"train {seed}"), examples(f"dev {seed}"), examples("test", 6))
    made = {"optimisers": ONLY, "budget": 16, "split_seed": seed, **fields}
    return experiment(task=task(splits=drawn), task_title=name, **made)


class TestGrid:
    def test_the_split_is_in_the_name_from_the_first_on(self) -> None:
        assert list(searches([on(None)])) == ["random-seed0"]
        assert list(searches([on(13)])) == ["split-13/random-seed0"]
        assert list(searches([on(13), on(21)])) == [
            "split-13/random-seed0",
            "split-21/random-seed0",
        ]
        assert list(searches([on(13), on(13, "books")])) == [
            "films/split-13/random-seed0",
            "books/split-13/random-seed0",
        ]

    def test_two_splits_of_the_same_examples_are_refused(self) -> None:
        same = on(13).task
        twice = [experiment(task=same, optimisers=ONLY, split_seed=seed) for seed in (13, 21)]
        with pytest.raises(ValueError, match=r"the same examples for the split seeds 13 and 21"):
            searches(twice)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "splits"
    compare([on(seed, seeds=(0, 1)) for seed in (13, 21)], out)
    return out


class TestStudy:
    def test_controls_and_runs_are_those_of_each_split(self, done: Path, tmp_path: Path) -> None:
        found = read_study(done).summary
        assert found.split_seeds == (13, 21)
        (one,) = found.tasks
        assert [split.split_seed for split in one.splits] == [13, 21]
        alone = compare(on(21, seeds=(0, 1)), tmp_path / "alone").summary()
        for kind in ("controls", "runs"):
            own = [entry for entry in getattr(found, kind) if entry.split_seed == 21]
            assert [entry.rewards for entry in own] == [e.rewards for e in getattr(alone, kind)]
        assert one.on(21) == alone.tasks[0]
        assert one.on(1) is None

    def test_it_goes_on_as_if_nothing_had_happened_and_takes_more_splits(
        self, done: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "more"
        compare([on(seed, seeds=(0, 1)) for seed in (13,)], out)
        again = compare([on(seed, seeds=(0, 1)) for seed in (13,)], out)
        whole = {run.name: run.rewards for run in read_study(done).summary.runs}
        assert {run.search.name for run in again.runs} < set(whole)
        for run in again.summary().runs:
            assert run.rewards == whole[run.name]

    def test_reports_take_them_for_one_task_with_nested_seeds(self, done: Path) -> None:
        study = read_study(done)
        page = page_of(study)
        assert "3 methods" not in page.headline
        assert "2 splits (draws of the examples) of 2 seeds each, on films" in page.headline
        (table,) = [one for one in page.tables() if one.name == "films.scores"]
        row = dict(zip(table.header, next(r for r in table.rows if r[0] == "random"), strict=True))
        matrix = ScoreMatrix(study, "tiny-llama", 16, "")
        scores = matrix.scores("random", matrix.tasks)
        assert scores.shape == (2, 2, 1)
        assert row["test"] == f"{scores.mean():.3f}"
        assert (row["interval over"], row["runs"]) in (("splits", "4"), ("-", "4"))
        (runs,) = [one for one in page.tables() if one.name == "films.runs"]
        assert runs.header[:3] == ("method", "split", "seed")
        assert {line[1] for line in runs.rows} == {"13", "21"}
        assert not [one for one in page.caveats if one.level == "struck"]
        assert matrix.control("empty", matrix.tasks).shape == (2, 1)
        assert np.isfinite(matrix.control("empty", matrix.tasks)).all()


class TestCommand:
    def write(self, desk: Path, seeds: list[int], **changes: Any) -> None:
        for seed in (13, 21):
            place = desk / "films" / f"2-{seed}"
            place.mkdir(parents=True, exist_ok=True)
            for split in ("train", "dev", "test"):
                rows = [f"{split} {i} of {seed},{LABELS[i % 2]}" for i in range(4)]
                (place / f"{split}.csv").write_text("\n".join(["text,label", *rows, ""]))
        config = json.loads((desk / "small.yaml").read_text())
        config |= {"task": TASK, "optimisers": ["random"], "budget": 8, "split_seeds": seeds}
        (desk / "small.yaml").write_text(json.dumps(config | changes))

    def test_another_model_is_given_the_examples_of_the_studys_split(self, desk: Path) -> None:
        self.write(desk, [13])
        assert rlprompt("compare", "small.yaml").exit_code == 0
        save(desk / "other", kind="gpt2")
        with Store(desk / "runs/small" / FILE, read_only=True) as store:
            there = Destinations(load_config(desk / "small.yaml"), store)
            (own,) = there.experiments
            made = there.tasks[0].make(there.load(str(desk / "other")))
        assert made.splits.test == own.task.splits.test
        assert made.splits.digest == own.task.splits.digest

    def test_a_file_with_split_seeds_runs_and_takes_more(self, desk: Path) -> None:
        self.write(desk, [13])
        result = rlprompt("compare", "small.yaml")
        assert result.exit_code == 0, result.stderr
        before = (desk / "runs/small/runs/split-13/random-seed0.json").read_bytes()
        self.write(desk, [13, 21])
        result = rlprompt("compare", "small.yaml")
        assert result.exit_code == 0, result.stderr
        folder = desk / "runs/small"
        assert (folder / "runs/split-13/random-seed0.json").read_bytes() == before
        assert [run["split_seed"] for run in summary(folder)["runs"]] == [13, 21]
        assert [one["name"] for one in summary(folder)["tasks"]] == ["films/2-{seed}"]
        assert rlprompt("verify", "runs/small").exit_code == 0
        refused = rlprompt("transfer", "runs/small")
        assert refused.exit_code == 2
        assert "the study has 2 splits of each task" in refused.stderr

    def test_each_split_is_checked_and_its_notes_are_told(self, desk: Path) -> None:
        self.write(desk, [13, 21], task=TASK | {"on_long_text": "truncate-end"})
        path = desk / "films/2-13/dev.csv"
        path.write_text(path.read_text() + "film " * 256 + ",positive\n")
        shown = rlprompt("check", "small.yaml").stdout
        assert "task films/2-{seed}, split 13, with " in shown
        assert "task films/2-{seed}, split 21, with " in shown
        assert shown.count("note: 1 text too long was cut") == 1
        experiments = load_experiments(load_config(Path("small.yaml")))
        assert [line for line in opening(experiments, desk) if "too long was cut" in line]

    def test_a_folder_that_is_the_same_for_all_is_refused(self, desk: Path) -> None:
        self.write(desk, [13, 21], task=TASK | {"data": "films/2-13"})
        result = rlprompt("compare", "small.yaml")
        assert result.exit_code == 2
        assert "has the same examples for the split seeds 13 and 21" in result.stderr
        assert not (desk / "runs/small/study.sqlite").exists()
