"""The grid: controls, every search kept at once, errors and Ctrl-C, files, table and plot."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from small_experiments import N_TRAIN, experiment, task
from tiny import TinyKind, tiny_lm

from rlprompt.agents.random_search import RandomSearch
from rlprompt.data.examples import Example
from rlprompt.models.lm import FrozenLM
from rlprompt.models.pool import ModelPool, PooledLM
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.reports.page import page_of
from rlprompt.reports.study_data import RunData, read_study
from rlprompt.reports.svg import spread
from rlprompt.reports.tables import Table, markdown
from rlprompt.search.objective import Objective
from rlprompt.search.optimiser import Optimiser
from rlprompt.search.result import Result, Score
from rlprompt.search.space import SoftSpace, TokenSpace
from rlprompt.store.store import FILE, Store
from rlprompt.studies.comparison import Comparison, Run
from rlprompt.studies.controls_and_references import score_controls
from rlprompt.studies.experiment import Experiment, ExperimentError, searches
from rlprompt.studies.folder import claimed
from rlprompt.studies.planned_search import PlannedSearch
from rlprompt.studies.run import compare
from rlprompt.studies.search_queue import SearchQueue
from rlprompt.studies.trackers import Silent
from rlprompt.tasks.base import Measured
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.types import Floats, PromptKind


@dataclass(frozen=True)
class Stops:
    """Scores some prompts and then raises."""

    error: BaseException
    n_prompts: int = 3
    searches: ClassVar[PromptKind] = "tokens"

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        """See `Optimiser.run`."""
        objective.evaluate([space.sample(rng) for _ in range(self.n_prompts)])
        raise self.error


@dataclass(frozen=True)
class Climbs:
    """Asks for the gradient of its start and for nothing else."""

    searches: ClassVar[PromptKind] = "soft"

    def run(self, objective: Objective, space: SoftSpace, rng: np.random.Generator) -> None:
        """See `Optimiser.run`."""
        objective.evaluate_with_grad([SoftPrompt(space.start)])


def runs_of(out: Path) -> Table:
    """The table of every run in a folder that one comparison of one task left."""
    (section,) = page_of(read_study(out)).sections
    (table,) = section.runs
    return table


def summary(out: Path) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads((out / "summary.json").read_text()))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    """A whole comparison and its folder."""
    out = tmp_path_factory.mktemp("runs") / "small"
    comparison = compare(experiment(seeds=(0, 1)), out)
    return comparison, out


class TestFiles:
    def test_the_summary_has_the_promised_keys(self, done: tuple[Comparison, Path]) -> None:
        found = summary(done[1])
        assert {"tasks", "models", "controls", "runs", "config"} <= set(found)
        (model,) = found["models"]
        assert {"name", "fingerprint", "device", "noise"} <= set(model)
        assert found["complete"]
        for control in found["controls"]:
            assert {"name", "prompt", "train", "dev", "test"} <= set(control)
        for run in found["runs"]:
            expected = {"task", "model", "optimiser", "seed", "rows", "lm_seconds", "total_seconds"}
            expected |= {"train", "dev", "test", "prompt", "retypable"}
            assert expected <= set(run)
            assert all(0 <= run[split] <= 1 for split in ("train", "dev", "test"))
            assert run["rows"] <= run["budget_rows"]
            assert control["rows"] >= 4 + 4 + 6
            assert len(control["test_metrics"]) == len(control["test_answers"]) == 6
        names = ["empty", "hand-written", "best word", "in context"]
        assert [control["name"] for control in found["controls"]] == names
        assert [control["prompt"] for control in found["controls"][:2]] == ["", " it"]

    def test_every_search_has_a_file_that_reads_back(self, done: tuple[Comparison, Path]) -> None:
        comparison, out = done
        runs = [(run.optimiser, run.seed) for run in comparison.runs]
        assert runs == [("random", 0), ("soft-prompt", 0), ("random", 1), ("soft-prompt", 1)]
        for run, entry in zip(comparison.runs, summary(out)["runs"], strict=True):
            result = Result.from_json((out / entry["file"]).read_text())
            assert result == run.result
            assert entry["prompt"] == result.best.text
            assert entry["test"] == pytest.approx(cast(Any, result.best.test).metric)

    def test_nothing_half_written_stays(self, done: tuple[Comparison, Path]) -> None:
        names = {path.name for path in done[1].iterdir()}
        assert names == {"summary.json", "runs", "study.sqlite"}

    def test_every_run_is_in_a_table_after_the_controls(
        self, done: tuple[Comparison, Path]
    ) -> None:
        table = runs_of(done[1])
        assert [row[0] for row in table.rows] == [
            "empty prompt",
            "hand-written prompt",
            "best word",
            "in context",
            *("random", "random", "soft-prompt", "soft-prompt"),
        ]
        assert "best word: the best on train of 20 common words." in table.notes
        typed = {row[0]: row[7] for row in table.rows}
        assert typed["empty prompt"] == "same"
        assert re.fullmatch(r"soft [0-9a-f]{6}", typed["soft-prompt"])


def test_the_same_seed_gives_the_same_runs(tmp_path: Path) -> None:
    first, second = (
        [
            run.model_copy(update={"lm_seconds": 0.0, "total_seconds": 0.0})
            for run in compare(experiment(), tmp_path / name).summary().runs
        ]
        for name in ("a", "b")
    )
    assert first == second


def test_controls_are_scored_outside_the_budget(tmp_path: Path) -> None:
    scored: list[tuple[int, int]] = []

    class Counting(ClassificationTask):
        def measure(
            self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
        ) -> Measured:
            scored.append((len(prompts), len(examples)))
            return super().measure(lm, prompts, examples)

    base = task()
    counting = Counting(base.name, base.splits, base.template, base.label_words)
    compare(experiment(task=counting, optimisers={"random": RandomSearch()}), tmp_path / "out")
    once = [(1, 4), (1, 4), (1, 6)]
    assert scored[:13] == [*once, *once, (20, 4), *once, *once]
    assert summary(tmp_path / "out")["runs"][0]["rows"] == 12 * N_TRAIN


def test_versions_are_those_that_had_a_part_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(*seeds: int) -> dict[str, Any]:
        only = {"random": RandomSearch()}
        compare(experiment(optimisers=only, seeds=seeds, config={"seeds": seeds}), tmp_path)
        return summary(tmp_path)

    begun = found(0)
    monkeypatch.setattr("rlprompt.studies.provenance.version", lambda _: "99.9")
    repeated = found(0)  # nothing was left to compute
    for key in ("started", "platform", "versions"):
        assert repeated[key] == begun[key]
    more = found(0, 1)
    assert more["started"] == begun["started"]
    assert more["versions"]["torch"] == f"{begun['versions']['torch']}, 99.9"
    assert more["versions"]["python"] == begun["versions"]["python"]
    monkeypatch.setattr("rlprompt.studies.provenance.version", lambda _: "100")
    with Store(tmp_path / FILE) as store:
        score_controls([experiment(task=task(reward="accuracy"))], store)  # which it lacks
        assert [one["versions"]["torch"] for one in store.environments][1:] == ["99.9", "100"]
    shown = page_of(read_study(tmp_path)).requirements
    assert f"torch=={begun['versions']['torch'].partition('+')[0]} " in shown


class TestTrouble:
    def test_one_that_fails_is_kept_and_the_others_go_on(self, tmp_path: Path) -> None:
        broken = Stops(RuntimeError("no\nluck"))
        optimisers = {"broken": broken, "random": RandomSearch()}
        comparison = compare(experiment(optimisers=optimisers), tmp_path / "out")
        first, second = summary(tmp_path / "out")["runs"]
        assert (first["status"], first["rows"]) == ("failed", 3 * N_TRAIN)
        assert first["error"] == "RuntimeError: no luck"
        assert first["prompt"]
        assert (first["train"], first["test"]) == (None, None)
        assert second["status"] == "finished"
        assert not comparison.complete
        kept = Result.from_json((tmp_path / "out" / first["file"]).read_text())
        assert len(kept.points) == 3
        trace = (tmp_path / "out" / "runs" / "broken-seed0.error.txt").read_text()
        assert "in run" in trace
        assert "broken, seed 0: ended by RuntimeError: no luck" in runs_of(tmp_path / "out").notes

    def test_one_that_cannot_begin_is_a_failed_run_and_the_others_go_on(
        self, tmp_path: Path
    ) -> None:
        pool, full = ModelPool(), list[str]()

        def pooled(kind: TinyKind) -> PooledLM:
            def load(_: str) -> FrozenLM:
                if kind in full:
                    raise MemoryError("not enough for it")
                return tiny_lm(kind)

            return PooledLM(kind, load, "auto", pool)

        class Fills(Silent):
            def begin(self, search: PlannedSearch) -> None:
                full[:] = ["llama"]

        only = {"random": RandomSearch()}
        models = [pooled("llama"), pooled("gpt2")]
        given = [experiment(lm=lm, optimisers=only, seeds=(0, 1)) for lm in models]
        comparison = compare(given, tmp_path, Fills())
        found = [(run["model"], run["seed"], run["status"]) for run in summary(tmp_path)["runs"]]
        assert found == [
            *(("llama", 0, "failed"), ("llama", 1, "failed")),
            *(("gpt2", 0, "finished"), ("gpt2", 1, "finished")),
        ]
        failed = [run for run in comparison.runs if run.error]
        assert [run.error for run in failed] == ["MemoryError: not enough for it"] * 2
        for run in failed:
            assert (
                Result.from_json((tmp_path / f"runs/{run.search.name}.json").read_text()).rows == 0
            )
            assert "in load" in (tmp_path / f"runs/{run.search.name}.error.txt").read_text()
        full.clear()
        assert compare(given, tmp_path).complete

    def test_seeds_that_another_process_adds_meanwhile_are_left_to_it(self, tmp_path: Path) -> None:
        def of(*seeds: int) -> Experiment:
            return experiment(optimisers={"random": RandomSearch()}, seeds=seeds)

        class Another(Silent):
            def begin(self, search: PlannedSearch) -> None:
                more = searches([of(0, 1, 2)])
                with SearchQueue(tmp_path, more, {}) as queue:
                    name = queue.claim()
                    assert name == "random-seed1"
                    queue.run(name)

        comparison = compare(of(0), tmp_path, Another())
        assert [run.seed for run in comparison.runs] == [0]
        with Store(tmp_path / FILE) as store:
            assert [run.state for run in store.runs()] == ["finished", "finished", "waiting"]
        assert [run.seed for run in compare(of(0, 1, 2), tmp_path).runs] == [0, 1, 2]

    def test_the_summary_is_that_of_the_process_with_more_seeds(self, tmp_path: Path) -> None:
        def of(*seeds: int) -> Experiment:
            return experiment(optimisers={"random": RandomSearch()}, seeds=seeds)

        class Leaves(Silent):
            def end(self, run: Run) -> None:
                raise KeyboardInterrupt

        class Another(Silent):
            def begin(self, search: PlannedSearch) -> None:
                with pytest.raises(KeyboardInterrupt):
                    compare(of(0, 1), tmp_path, Leaves())  # of which it does the other search

        compare(of(0), tmp_path, Another())  # ends, and writes, last
        found = summary(tmp_path)
        assert found["seeds"] == [0, 1]
        assert [run["seed"] for run in found["runs"]] == [1]
        assert (found["expected_runs"], found["complete"]) == (2, False)
        assert (tmp_path / "runs" / "random-seed0.json").exists()
        assert compare(of(0, 1), tmp_path).complete
        assert [run["seed"] for run in summary(tmp_path)["runs"]] == [0, 1]

    def test_ctrl_c_keeps_what_was_found_and_ends_the_grid(self, tmp_path: Path) -> None:
        optimisers = {
            "random": RandomSearch(),
            "stopped": Stops(KeyboardInterrupt()),
            "never": RandomSearch(),
        }
        compare(experiment(optimisers=optimisers), tmp_path / "out")
        assert [run["status"] for run in summary(tmp_path / "out")["runs"]] == [
            "finished",
            "interrupted",
        ]
        assert runs_of(tmp_path / "out").rows[-1][0] == "stopped (interrupted)"
        assert (tmp_path / "out" / "runs" / "stopped-seed0.json").exists()

    def test_ctrl_c_between_searches_keeps_the_earlier_ones(self, tmp_path: Path) -> None:
        class Impatient:
            def begin(self, search: PlannedSearch) -> None:
                if search.method == "soft-prompt":
                    raise KeyboardInterrupt

            def update(self, ledger: object) -> None: ...

            def end(self, run: Run) -> None: ...

        with pytest.raises(KeyboardInterrupt):
            compare(experiment(), tmp_path / "out", Impatient())
        assert [run["optimiser"] for run in summary(tmp_path / "out")["runs"]] == ["random"]

    def test_a_budget_below_one_gradient_leaves_an_empty_run(self, tmp_path: Path) -> None:
        optimisers: dict[str, Optimiser[Any]] = {"random": RandomSearch(), "climbs": Climbs()}
        compare(experiment(budget=N_TRAIN, optimisers=optimisers), tmp_path / "out")
        found = summary(tmp_path / "out")
        assert [run["prompt"] is None for run in found["runs"]] == [False, True]
        assert found["runs"][1]["best_train_reward"] is None
        said = "climbs, seed 0: its budget did not cover the first thing that it asked for."
        assert said in runs_of(tmp_path / "out").notes

    def test_a_reward_that_is_no_number_is_refused_at_the_controls(self, tmp_path: Path) -> None:
        class Broken(ClassificationTask):
            def measure(
                self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
            ) -> Measured:
                found = super().measure(lm, prompts, examples)
                return found._replace(rewards=found.rewards * np.nan)

        base = task()
        broken = Broken(base.name, base.splits, base.template, base.label_words)
        asked = (
            r"the empty prompt cannot be scored: .*number.*\(prompt '' in the template '.*{prompt"
        )
        with pytest.raises(ExperimentError, match=asked):
            compare(experiment(task=broken), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_a_reward_that_is_no_number_in_a_search_is_reported(self, tmp_path: Path) -> None:
        class Fragile(ClassificationTask):
            def rewards(
                self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
            ) -> Floats:
                rewards = super().rewards(lm, prompts, examples)
                rewards[5:] = np.nan
                return rewards

        base = task()
        fragile = Fragile(base.name, base.splits, base.template, base.label_words)
        only = {"random": RandomSearch()}
        compare(experiment(task=fragile, optimisers=only), tmp_path / "out")
        (entry,) = summary(tmp_path / "out")["runs"]
        assert entry["status"] == "failed"
        assert "a reward must be a finite number" in entry["error"]
        assert entry["best_train_reward"] is not None


class TestFolder:
    def test_it_is_made_and_kept_if_something_was_written(self, tmp_path: Path) -> None:
        with claimed(tmp_path / "a" / "b") as place:
            (place / "file").write_text("")
        assert (tmp_path / "a" / "b" / "file").exists()

    def test_it_is_removed_if_nothing_was(self, tmp_path: Path) -> None:
        with claimed(tmp_path / "a"):
            pass
        assert not (tmp_path / "a").exists()

    def test_an_empty_one_is_taken_and_left(self, tmp_path: Path) -> None:
        with claimed(tmp_path) as place:
            assert place == tmp_path
        assert tmp_path.exists()

    @pytest.mark.parametrize("what", ["folder", "file"])
    def test_one_that_is_taken_is_refused_or_passed_by(self, tmp_path: Path, what: str) -> None:
        for name in ("out", "out-2"):
            if what == "folder":
                (tmp_path / name).mkdir()
                (tmp_path / name / "mine").write_text("precious")
            else:
                (tmp_path / name).write_text("precious")
        with (
            pytest.raises(ValueError, match="out exists, holds no study to go on with"),
            claimed(tmp_path / "out"),
        ):
            pass
        with claimed(tmp_path / "out", beside=True) as place:
            assert place == tmp_path / "out-3"

    def test_one_below_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with (
            pytest.raises(ValueError, match=r"cannot write to .*/file/out: Not a directory"),
            claimed(tmp_path / "file" / "out"),
        ):
            pass

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_read_only_one_is_refused(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with (
            pytest.raises(ValueError, match=r"cannot write to .*: Permission denied"),
            claimed(tmp_path),
        ):
            pass


class TestText:
    def test_markdown_survives_any_prompt(self, tmp_path: Path) -> None:
        @dataclass(frozen=True)
        class Nasty:
            searches: ClassVar[PromptKind] = "tokens"

            def run(self, objective: Objective, space: object, rng: object) -> None:
                objective.evaluate([TokenPrompt(tiny_lm().encode("``|[b]<i>"))])

        nasty: Optimiser[Any] = Nasty()
        compare(experiment(optimisers={"nasty": nasty}), tmp_path / "out")
        table = markdown(runs_of(tmp_path / "out"))
        (line,) = (x for x in table.splitlines() if x.startswith("| nasty "))
        assert line.rstrip(" |").endswith(r"| ```'``\|[b]<i>'```")

    def test_overfitting_is_told_and_no_winner_named(self, done: tuple[Comparison, Path]) -> None:
        study = read_study(done[1])
        own = tuple(run for run in study.runs if run.entry.seed == 0)
        one_seed = study.summary.model_copy(update={"runs": own, "seeds": (0,)})
        alone = page_of(replace(study, runs=own, summary=one_seed))
        assert any("nothing can be ranked" in said for said in alone.sections[0].results.sentences)

        def overfit(run: RunData) -> RunData:
            assert run.result is not None
            best = replace(run.result.best, train=Score(0.1, 1.0), test=Score(0.1, 0.5))
            result = replace(run.result, candidates=(best,), test_metrics=())
            entry = run.entry.model_copy(update={"train": 1.0, "test": 0.5})
            return replace(run, entry=entry, result=result)

        (section,) = page_of(
            replace(study, runs=tuple(map(overfit, own)), summary=one_seed)
        ).sections
        (table,) = section.runs
        assert any("Train is 0.50 above test" in note for note in table.notes)
        assert any("±0.40" in note for note in table.notes)


class TestPlot:
    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            ([], []),
            ([0.1, 0.5], [0.1, 0.5]),
            ([0.5, 0.5], [0.45, 0.55]),
            ([0.4, 0.5, 0.5], [0.3667, 0.4667, 0.5667]),
            ([0.5, 0.5, 0.62], [0.44, 0.54, 0.64]),
        ],
    )
    def test_labels_move_apart_around_their_middle(
        self, wanted: list[float], expected: list[float]
    ) -> None:
        assert spread(wanted, 0.1) == pytest.approx(expected, abs=1e-4)


def test_a_mean_of_those_that_stayed_in_a_race_is_not_given_as_that_of_all(tmp_path: Path) -> None:
    raced = RandomSearch(batch=8, halving=0.25)
    methods: dict[str, Optimiser[Any]] = {"random": RandomSearch(), "halving": raced}
    one = experiment(task=task(calibration="none"), optimisers=methods, controls={})
    runs = {run.optimiser: run for run in compare(one, tmp_path).summary().runs}
    assert runs["random"].n_partial == 0
    assert runs["random"].mean_sampled_reward is not None
    assert runs["halving"].n_partial > 0
    assert runs["halving"].mean_sampled_reward is None
