"""Found prompts on other models and tasks: forms, controls, drift, the file and the command."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from command_line import ROWS, rlprompt, write_data
from numpy.typing import NDArray
from small_experiments import experiment, task
from tiny import tiny_lm, tiny_model, tiny_tokenizer
from transferred_study import byte_lm, transferred

from rlprompt.config.yaml_file import load_config
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.evaluation import evaluate
from rlprompt.search.objective import Objective
from rlprompt.search.result import Score
from rlprompt.store.store import FILE, Store
from rlprompt.studies.controls import plan_controls
from rlprompt.studies.experiment import searches
from rlprompt.studies.loading import load_experiments
from rlprompt.studies.run import compare
from rlprompt.studies.search_queue import SearchQueue
from rlprompt.transfer.file import Transfer, read_transfer
from rlprompt.transfer.matrix import Loss, losses
from rlprompt.transfer.run import (
    TargetTask,
    Transferring,
    TransferScores,
    _best_seeds,
    _controls,
    found_prompts,
)
from rlprompt.types import PromptKind


class TestOwnModel:
    def test_it_scores_what_the_study_says(self, study: Path) -> None:
        done = transferred(study)
        (model,), (target,) = done.models, done.targets
        assert (model.of_study, target.split, target.examples) == (True, "test", 6)
        with Store(study / FILE, read_only=True) as store:
            results = {run.name: run.result for run in store.runs()}
        assert {source.run for source in done.sources} == set(results)
        checked = 0
        for entry in done.entries:
            result = results[entry.run]
            assert result is not None
            assert entry.score is not None
            assert entry.stored is not None
            assert entry.score.reward == pytest.approx(entry.stored.reward, abs=1e-3)
            if (entry.form, entry.split) == ("as found", "test"):
                assert result.best.test is not None
                assert entry.stored.reward == result.best.test.reward
                checked += 1
        assert checked == 4
        summary = json.loads((study / "summary.json").read_text())
        controls = {one["name"]: one["test"] for one in summary["controls"]}
        assert {name: one.metric for name, one in target.controls.items()} == {
            name: controls[name] for name in ("empty", "hand-written, calibrated")
        }

    def test_a_soft_prompt_has_its_gap_on_dev_and_test(self, study: Path) -> None:
        done = transferred(study)
        gaps = {(loss.source.run, loss.split): loss for loss in losses(done)}
        assert len(gaps) == 4
        with Store(study / FILE, read_only=True) as store:
            for run in store.runs():
                assert run.result is not None
                if run.name.startswith("soft"):
                    analysis, best = run.result.analysis, run.result.best
                    assert analysis is not None
                    assert analysis.projection is not None
                    for split in ("dev", "test"):
                        gap = gaps[run.name, split]
                        assert gap.form == "nearest tokens"
                        assert gap.as_found == getattr(best, split).metric
                        assert gap.then == getattr(analysis.projection, split).metric

    def test_what_drifted_is_said(self, study: Path) -> None:
        with sqlite3.connect(study / FILE) as raw:
            (text,) = raw.execute("SELECT result FROM runs WHERE id = 1").fetchone()
            state = json.loads(text)
            state["candidates"][0]["test"]["reward"] += 1
            raw.execute("UPDATE runs SET result = ? WHERE id = 1", (json.dumps(state),))
        raw.close()
        result = rlprompt("transfer", str(study))
        assert result.exit_code == 1
        assert "the largest difference is 0 in the metric and 1 in the reward" in result.stdout
        assert "error: random-seed0 no longer has its stored score" in result.stderr
        assert (study / "transfer.json").exists()

    def test_rounding_is_of_the_split_with_the_fewest_examples(
        self, study: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[int] = []

        def rounding(name: str, dtype: str, spread: float, n: int, n_classes: int) -> float:
            asked.append(n)
            return 1.0

        monkeypatch.setattr("rlprompt.transfer.run.rounding", rounding)
        done = transferred(study)
        assert {entry.split for entry in done.entries} == {"dev", "test"}  # of 4 and of 6
        assert asked == [4]

    def test_other_data_is_refused(self, study: Path, desk: Path) -> None:
        write_data(desk, [row.replace("film number 3,", "film no. 3,") for row in ROWS])
        result = rlprompt("transfer", str(study))
        write_data(desk, ROWS)
        assert result.exit_code == 2
        assert "are not those of the study" in result.stderr

    def test_the_best_seed_is_the_best_on_dev(self, study: Path) -> None:
        done = transferred(study, "--top", "best", "--split", "dev")
        with Store(study / FILE, read_only=True) as store:
            runs = [run for run in store.runs() if run.result]
        for source in done.sources:
            devs = {
                run.name: run.result.best.dev.reward
                for run in runs
                if run.result and run.result.best.dev and run.name.startswith(source.optimiser)
            }
            assert len(devs) == 2
            assert devs[source.run] == max(devs.values())
        assert len(done.sources) == 2


def test_the_best_seed_is_by_what_its_task_selects_by() -> None:
    def found(seed: int, select_by: str, dev: Score) -> Any:
        source = SimpleNamespace(task="a", model="b", budget_rows=9, optimiser="c", seed=seed)
        result = SimpleNamespace(best=SimpleNamespace(dev=dev))
        return SimpleNamespace(
            source=source, result=result, task=SimpleNamespace(select_by=select_by)
        )

    devs = Score(0.1, 0.9), Score(0.7, 0.2), Score(0.7, 0.3)
    for select_by, seed in (("reward", 2), ("metric", 0)):
        every = [found(i, select_by, dev) for i, dev in enumerate(devs)]
        assert [one.source.seed for one in _best_seeds(every)] == [seed]


class TestOtherModels:
    def test_tokens_go_by_text_to_another_tokenizer(self, study: Path, desk: Path) -> None:
        done = transferred(study, "--models", "bytes")
        there = FrozenLM.load(str(desk / "bytes"), dtype="float32")
        (own,) = load_experiments(load_config(desk / "small.yaml"))
        sources = {source.run: source for source in done.sources}
        moved = [entry for entry in done.entries if entry.model == "bytes"]
        assert len(moved) == 4
        for entry in moved:
            source = sources[entry.run]
            ids = there.encode(source.text)
            assert entry.form == ("nearest tokens" if source.soft else "by text")
            assert entry.retyping is not None
            assert entry.retyping.tokens == len(ids) == len(source.text.encode())
            assert entry.retyping.survives
            assert entry.stored is None
            assert entry.score is not None
            expected = evaluate(own.task, there, TokenPrompt(ids), "test")
            assert entry.score.reward == pytest.approx(expected.reward, rel=1e-5, abs=1e-4)
            assert entry.score.metric == expected.metric
        (target,) = (one for one in done.targets if one.model == "bytes")
        empty = evaluate(own.task, there, TokenPrompt(), "test")
        assert target.controls["empty"].metric == empty.metric

    def test_a_copy_in_another_dtype_takes_tokens_but_no_vectors(self, study: Path) -> None:
        done = transferred(study, "--models", "own", "--dtype", "bfloat16")
        own, copy = done.models
        assert (copy.name, copy.dtype, copy.of_study) == ("own", "bfloat16", False)
        assert copy.digest != own.digest
        forms = {
            (entry.run.partition("-seed")[0], entry.form)
            for entry in done.entries
            if entry.model == "own"
        }
        assert forms == {("random", "as found"), ("soft-prompt", "nearest tokens")}

    def test_the_own_model_by_another_name_is_not_scored_twice(self, study: Path) -> None:
        done = transferred(study, "--models", "own", "--dtype", "float32")
        assert len(done.models) == len(done.targets) == 1
        assert "own is the same model as" in done.notes[0]

    def test_one_that_cannot_answer_says_why_and_the_others_go_on(self, study: Path) -> None:
        result = rlprompt("transfer", str(study), "--models", "masked,nowhere,bytes")
        assert result.exit_code == 0, result.stderr
        done = read_transfer(study / "transfer.json")
        assert [target.model for target in done.targets][1:] == ["masked", "nowhere", "bytes"]
        problems = [target.problem for target in done.targets]
        assert "the template needs a {mask}" in problems[1]
        assert "model 'nowhere' cannot be loaded" in problems[2]
        assert problems[0] == problems[3] == ""
        assert "masked is a masked model" in result.stdout
        assert "nowhere could not be loaded: " in result.stdout
        assert done.complete


class TestOnce:
    def test_nothing_is_computed_twice(self, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = transferred(study)
        # Two controls, and of two prompts and two soft ones each as found and as nearest tokens.
        (opening,) = first.openings
        assert (opening.task, opening.prompts) == ("films", 8)
        more = transferred(study, "--models", "bytes")
        assert [one.model for one in more.openings] == [opening.model, "bytes"]
        assert more.openings[0] == opening

        def refuse(*_: object) -> Any:
            raise AssertionError("it was scored before")

        monkeypatch.setattr(TransferScores, "_computed", refuse)
        again = transferred(study, "--models", "bytes")
        assert again.entries == more.entries
        assert again.openings == more.openings

    def test_an_interrupted_command_goes_on(
        self, study: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        computed = TransferScores._computed
        calls = []

        def stops(self: Any, prompts: Sequence[Any], split: str) -> Any:
            calls.append(len(prompts))
            if len(calls) == 3:
                raise KeyboardInterrupt
            return computed(self, prompts, split)

        monkeypatch.setattr(TransferScores, "_computed", stops)
        result = rlprompt("transfer", str(study))
        assert result.exit_code == 130
        assert "run the same command again to go on" in result.stderr
        partial = read_transfer(study / "transfer.json")
        assert (partial.complete, partial.targets) == (False, ())
        seen = sum(one.prompts for one in partial.openings)
        assert seen == sum(calls[:2])
        whole = transferred(study)
        assert whole.complete
        assert sum(one.prompts for one in whole.openings) == 8

    def test_another_split_leaves_test_closed(self, study: Path) -> None:
        done = transferred(study, "--split", "dev")
        assert done.openings == ()
        assert {entry.split for entry in done.entries} == {"dev"}

    def test_a_study_that_cannot_be_written_is_read(
        self, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.access
        monkeypatch.setattr(
            os,
            "access",
            lambda path, mode: (
                real(path, mode) and (mode != os.W_OK or study not in (path, path.parent))
            ),
        )
        result = rlprompt("transfer", str(study))
        assert result.exit_code == 2
        assert "transfer.json cannot be written; give another file with --out" in result.stderr
        before = (study / FILE).read_bytes()
        for _ in range(2):
            result = rlprompt("transfer", str(study), "--out", str(tmp_path / "moved.json"))
            assert result.exit_code == 0, result.stderr
        assert (study / FILE).read_bytes() == before
        # Each time is another look.
        assert [one.prompts for one in read_transfer(tmp_path / "moved.json").openings] == [8, 8]


class TestBadStudies:
    def test_a_study_without_a_finished_run(self, study: Path) -> None:
        with sqlite3.connect(study / FILE) as raw:
            raw.execute("UPDATE runs SET result = NULL")
        raw.close()
        result = rlprompt("transfer", str(study))
        assert result.exit_code == 2
        assert "has no finished run, so no prompt to transfer" in result.stderr

    def test_a_run_that_has_not_finished_is_left_out(self, study: Path) -> None:
        with sqlite3.connect(study / FILE) as raw:
            raw.execute("UPDATE runs SET result = NULL WHERE id = 1")
        raw.close()
        done = transferred(study, "--split", "dev")
        assert done.notes == ("Left out as unfinished: 1 of 4 runs.",)
        assert len(done.sources) == 3

    def test_no_study(self, study: Path) -> None:
        result = rlprompt("transfer", "nowhere")
        assert result.exit_code == 2
        assert "nowhere holds no study" in result.stderr

    def test_a_file_that_is_damaged_or_of_another_study_is_kept(self, study: Path) -> None:
        done = transferred(study, "--split", "dev")
        path = study / "transfer.json"
        for content, message in [
            ("{", "is damaged (the file: "),
            (done.to_json().replace('"format": 1', '"format": 9'), "newer rlprompt (format 9"),
            (done.model_copy(update={"study": "large"}).to_json(), "is of the study large, not of"),
        ]:
            path.write_text(content)
            result = rlprompt("transfer", str(study))
            assert result.exit_code == 2
            assert message in result.stderr
            assert path.read_text() == content


@dataclass(frozen=True)
class Fixed:
    """Scores one prompt."""

    ids: tuple[int, ...]
    searches: ClassVar[PromptKind] = "tokens"

    def run(self, objective: Objective, space: object, rng: np.random.Generator) -> None:
        """See `Optimiser.run`."""
        objective.evaluate([TokenPrompt(self.ids)])


def moved(
    out: Path, ids: tuple[int, ...], *models: FrozenLM, split: str = "test", **fields: Any
) -> Transfer:
    """A prompt of these ids on its own model and others; fields as for `experiment`."""
    made = experiment(optimisers={"fixed": Fixed(ids)}, **fields)
    compare(made, out)
    with Store(out / FILE) as store:
        found, _ = found_prompts(store, [made])
        done = Transferring(store, "small", found, split)
        for i, lm in enumerate((made.lm, *models)):
            list(done.go(lm, [TargetTask("films", lambda _: made.task)], of_study=i == 0))
    return done.file


@pytest.mark.parametrize("split", ["dev", "test"])
def test_at_home_batch_calibration_takes_out_the_prior_on_train(tmp_path: Path, split: str) -> None:
    lm, ids = tiny_lm(), tiny_lm().encode(" it was")
    films = task(calibration="batch", reward="cross_entropy")

    def chances(of: str) -> NDArray[np.float64]:
        queries = films.queries(lm, films.splits.parts()[of])
        loglik = lm.score([TokenPrompt(ids)], queries)[0].double().numpy()
        return np.array(np.exp(loglik) / np.exp(loglik).sum(1, keepdims=True))

    def reward(prior_of: str) -> float:
        weighed = chances(split) / chances(prior_of).mean(0)
        labels = [[*films.label_words].index(one.label) for one in films.splits.parts()[split]]
        right = weighed[range(len(labels)), labels] / weighed.sum(1)
        return float(np.log(right).mean())

    done = moved(tmp_path, ids, split=split, task=films)
    (found,) = done.entries
    assert found.form == "as found"
    assert found.score is not None
    assert found.stored is not None
    assert found.score.reward == pytest.approx(reward("train"), abs=1e-5)
    assert found.stored.reward == pytest.approx(reward("train"), abs=1e-5)
    assert abs(reward("train") - reward(split)) > 1e-3


class TestTyping:
    def test_a_prompt_that_typing_changes_is_scored_both_ways(self, tmp_path: Path) -> None:
        lm = tiny_lm()
        ids = tuple(i for byte in " film" for i in byte_lm().encode(byte))
        assert len(lm.encode(lm.decode(ids))) == 1
        done = moved(tmp_path, ids)
        found, typed = done.entries
        assert (found.form, found.retyping) == ("as found", None)
        assert typed.form == "by text"
        assert typed.retyping is not None
        assert (typed.retyping.tokens, typed.retyping.survives) == (1, True)
        for entry, prompt in ((found, TokenPrompt(ids)), (typed, TokenPrompt(lm.encode(" film")))):
            assert entry.score is not None
            expected = evaluate(task(), lm, prompt, "test")
            assert entry.score.reward == pytest.approx(expected.reward, rel=1e-5, abs=1e-4)
        (loss,) = losses(done)
        assert isinstance(loss, Loss)
        assert (loss.form, loss.split) == ("by text", "test")

    def test_text_that_another_tokenizer_cannot_spell_does_not_survive(
        self, tmp_path: Path
    ) -> None:
        half = byte_lm().encode("é")[:1]  # half a letter reads as a replacement character
        done = moved(tmp_path, half, byte_lm())
        assert not done.sources[0].retypable
        entry = next(one for one in done.entries if one.model == "bytes")
        assert entry.retyping is not None
        assert entry.retyping.tokens == 3  # that character's own bytes

    def test_a_text_too_long_loses_its_own_cell_alone(self, tmp_path: Path) -> None:
        ids = tiny_lm().encode(" terrible" * 4)
        small = byte_lm(n_positions=40)
        done = moved(tmp_path, ids, small)
        entry = next(one for one in done.entries if one.model == "bytes")
        assert entry.score is None
        assert "40" in entry.problem
        assert done.targets[1].problem == ""
        assert done.targets[1].controls["empty"].metric >= 0

    def test_a_prompt_of_nothing_is_itself_at_home_and_goes_nowhere_by_text(
        self, tmp_path: Path
    ) -> None:
        done = moved(tmp_path, (), byte_lm())
        own, other = done.entries
        assert (own.form, own.problem) == ("as found", "")
        assert own.score is not None
        assert own.stored is not None
        assert own.score == done.targets[0].controls["empty"]
        assert own.score.metric == own.stored.metric
        assert (other.form, other.score) == ("by text", None)
        assert other.problem == "its text is empty, so there is nothing to transfer"

    def test_one_that_cannot_be_scored_does_not_spoil_a_batch(self, tmp_path: Path) -> None:
        lm, good = tiny_lm(), TokenPrompt((5, 6))
        with Store(tmp_path / FILE) as store:
            scores = TransferScores(task(), lm, store)
            found = scores.scores([good, TokenPrompt((10**6,)), good], "dev")
        assert len(found) == 2
        expected = evaluate(task(), lm, good, "dev")
        score = found[good]
        assert isinstance(score, Score)
        assert score.metric == expected.metric
        assert isinstance(found[TokenPrompt((10**6,))], str)


def test_a_hand_written_prompt_is_named_as_in_the_study() -> None:
    """There the plain name is that of the prompt without calibration by train."""
    lm = tiny_lm()
    names = {
        how: [*_controls(lm, task(calibration=how, hand_prompt="it was"))]
        for how in ("none", "contextual", "batch")
    }
    assert names == {
        "none": ["empty", "hand-written"],
        "contextual": ["empty", "hand-written"],
        "batch": ["empty", "hand-written, calibrated"],
    }
    for how, (_, name) in names.items():
        own = task(calibration=how, hand_prompt="it was")
        plans = plan_controls(own, lm, {})
        (plan,) = (one for one in plans if one.name == name)
        assert plan.task.fingerprint == own.fingerprint


def test_a_model_and_its_bfloat16_copy(tmp_path: Path) -> None:
    lm, films = tiny_lm(), task()
    made = experiment(
        lm=lm,
        task=films,
        optimisers={"fixed": Fixed(lm.encode(" it was"))},
        budget=Budget(len(films.splits.train)),
        controls={},
    )
    with SearchQueue(tmp_path, searches([made]), {}) as queue:
        for name in queue.claimed():
            queue.run(name)
    copy = FrozenLM(tiny_model().bfloat16(), tiny_tokenizer(), lm.name)
    with Store(tmp_path / FILE) as store:
        found, _ = found_prompts(store, [made])
        done = Transferring(store, "small", found)
        for one in (lm, copy):
            list(done.go(one, [TargetTask("films", lambda _: films)], of_study=one is lm))
    own, other = done.file.entries
    assert own.score is not None
    assert own.stored is not None
    assert own.score.reward == pytest.approx(own.stored.reward, abs=5e-3)
    assert other.model == "tiny-llama (bfloat16)"
    assert (other.form, other.stored) == ("as found", None)
    assert other.score is not None
    # Nearer than another prompt would be, and not the same.
    assert 0 < abs(other.score.reward - own.score.reward) < 20
