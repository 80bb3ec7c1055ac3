"""A prompt goes into a folder and comes out as it was, or not at all."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exports import TOKENS, WORDS, class_task, export, result, soft, writing_task
from tiny import KINDS, TinyKind, tiny_lm, tiny_model, tiny_tokenizer

from rlprompt.data.examples import Example
from rlprompt.export.export import UNKNOWN_LICENCE, export_prompt, licence, pick_options, pick_run
from rlprompt.export.facts import check_model
from rlprompt.export.folder import ExportedPrompt, load_prompt
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import SoftPrompt, TokenPrompt
from rlprompt.search.result import Result, Score
from rlprompt.store.store import StoredRun
from rlprompt.tasks.base import Task
from rlprompt.tasks.compression import CompressionTask
from rlprompt.tasks.function import FunctionTask
from rlprompt.tasks.reward_function import reward
from rlprompt.template import Template


@pytest.mark.parametrize("kind", KINDS)
def test_both_kinds_of_prompt_come_out_as_they_were(kind: TinyKind, tmp_path: Path) -> None:
    lm = tiny_lm(kind)
    task = class_task("{text} {prompt}" + (" {mask}" if lm.kind == "masked" else ""))
    for name, prompt in (("tokens", TOKENS), ("soft", soft(lm))):
        written = export(tmp_path / name, lm, prompt, task)
        found = load_prompt(tmp_path / name)
        assert found.facts == written.facts
        assert found.prompt == prompt
        fed = prompt.vectors if isinstance(prompt, SoftPrompt) else lm.embeddings()[[20, 30, 40]]
        np.testing.assert_array_equal(found.vectors, fed)
        assert check_model(found.facts, lm) == ""


def test_a_line_and_a_card_say_what_it_is(tmp_path: Path, lm: FrozenLM) -> None:
    task = class_task("{text} {prompt}", {"x": "good", "y<b>": "bad"})
    found = export(tmp_path / "classes", lm, TOKENS, task)
    scores = {name: f"{score.metric:.3f}" for name, score in found.facts.scores.items()}
    text = repr(lm.decode(TOKENS.ids))
    assert repr(found).startswith(f"<Prompt for {task.name}: prompt {text}, model {lm.name}, ")
    assert "labels x and y<b>, " in repr(found)
    assert scores
    assert all(f"{name} accuracy {score}" in repr(found) for name, score in scores.items())
    assert f"<td>{lm.name}</td>" in found._repr_html_()
    assert "y&lt;b&gt;" in found._repr_html_()
    assert "answers written" in repr(export(tmp_path / "writing", lm, TOKENS, writing_task()))


def test_the_facts_are_those_of_the_search(tmp_path: Path, lm: FrozenLM) -> None:
    task = class_task("Film:{prompt} {text}", {"x": ("good", "great"), "y": "bad"})
    task = dataclasses.replace(task, calibration="contextual", length="mean")
    exported = export(tmp_path, lm, TOKENS, task)
    facts, found = exported.facts, result(lm, task, TOKENS)
    assert (facts.kind, facts.ids) == ("token", (20, 30, 40))
    assert facts.text == lm.decode(TOKENS.ids)
    assert facts.before_ids == lm.encode("Film:")
    usage = facts.task.usage
    assert usage is not None
    assert usage.template == "Film:{prompt} {text}"
    assert usage.label_words == {"x": ("good", "great"), "y": ("bad",)}
    assert (usage.pooling, usage.length, usage.calibration) == ("mean", "mean", "contextual")
    assert facts.task.fingerprint == task.fingerprint
    assert facts.model.weights == lm.fingerprint.weights
    search = facts.search
    assert (search.run, search.optimiser, search.seed) == ("greedy-seed7", "Greedy", 7)
    assert (search.settings, search.budget_rows, search.rows) == ({"pool": 0.5}, 100, 96)
    for split in ("train", "dev", "test"):
        score = getattr(found.best, split)
        assert (facts.scores[split].reward, facts.scores[split].metric) == dataclasses.astuple(
            score
        )
        assert facts.scores[split].n == 3


class TestIntervals:
    """Against figures of others."""

    def exported(self, lm: FrozenLM, folder: Path, metrics: list[float]) -> ExportedPrompt:
        task = writing_task()
        found = result(lm, task, TOKENS, test_metrics=tuple(metrics))
        mean = Score(0.0, float(np.mean(metrics)))
        best = dataclasses.replace(found.best, test=mean)
        return export_prompt(dataclasses.replace(found, candidates=(best,)), folder, lm, task)

    def test_a_proportion_has_wilsons(self, lm: FrozenLM, tmp_path: Path) -> None:
        # 8 of 10: Brown, Cai & DasGupta 2001, eq. 4, by hand with z = 1.959964.
        exported = self.exported(lm, tmp_path, [1.0] * 8 + [0.0] * 2)
        assert exported.facts.scores["test"].interval == pytest.approx((0.49016, 0.94331), abs=1e-5)
        assert exported.facts.scores["test"].n == 10

    def test_other_numbers_have_students(self, lm: FrozenLM, tmp_path: Path) -> None:
        # 2 -+ 4.302653 / sqrt(3).
        exported = self.exported(lm, tmp_path, [1.0, 2.0, 3.0])
        assert exported.facts.scores["test"].interval == pytest.approx(
            (-0.48414, 4.48414), abs=1e-5
        )

    def test_where_nothing_varies_there_is_none(self, lm: FrozenLM, tmp_path: Path) -> None:
        assert self.exported(lm, tmp_path, [0.5] * 3).facts.scores["test"].interval is None


def _json(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        path = folder / "prompt.json"
        state = json.loads(path.read_text("utf-8"))
        change(state)
        path.write_text(json.dumps(state), "utf-8")

    return damage


def _flip(folder: Path) -> None:
    path = folder / "prompt.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "prompt.json").unlink(), r"no exported prompt: prompt.json is missing"),
        (lambda f: (f / "prompt.safetensors").unlink(), "prompt.safetensors is missing"),
        (lambda f: (f / "prompt.json").write_text("{"), "prompt.json is damaged: not the JSON"),
        (lambda f: (f / "prompt.json").write_text("[]"), "prompt.json is damaged: not the JSON"),
        (lambda f: (f / "prompt.json").write_bytes(b"\xff\xfe"), "is damaged: not the JSON"),
        (_flip, "prompt.safetensors is damaged, or belongs to another prompt"),
        (_json(lambda s: s.update(format=9)), r"newer rlprompt \(format 9, this one reads 8\)"),
        (_json(lambda s: s.update(format=5)), r"older .* reads 8\); export the prompt again"),
        (_json(lambda s: s.update(format="x")), "prompt.json is damaged: format: "),
        (_json(lambda s: s["task"].pop("name")), "damaged: task.name: Field required"),
        (_json(lambda s: s.update(retypable="perhaps")), "retypable: must be true or false"),
        (_json(lambda s: s.update(shape=[2, 32])), r"says one tensor 'prompt' of shape \(2, 32\)"),
        (
            _json(lambda s: s.update(ids=[20, 30, 41])),
            "its prompt is not the one that was exported",
        ),
        (_json(lambda s: s.update(ids=[20, 30])), "its prompt is not the one that was exported"),
        (
            _json(lambda s: s.update(ids=None)),
            "a prompt of tokens or of text has ids, and no other has",
        ),
        (_json(lambda s: s["task"]["usage"].update(template="{x}")), "it needs exactly one"),
        (
            _json(lambda s: s["task"]["usage"]["label_words"].update(positive=["bad"])),
            "share the label word 'bad'",
        ),
        (
            _json(lambda s: s["task"]["usage"].update(calibration="batch")),
            "batch calibration has a prior, and here is none",
        ),
        (
            _json(lambda s: s["task"]["usage"].update(prior={"negative": -1.0})),
            "the prior has the classes negative, and the label words have negative, positive",
        ),
        (
            _json(lambda s: s["task"]["usage"].update(calibration_strength=2)),
            "calibration_strength: must be less than or equal to 1",
        ),
    ],
)
def test_a_damaged_folder_is_refused_in_a_line(
    damage: Callable[[Path], object], message: str, tmp_path: Path, lm: FrozenLM
) -> None:
    export(tmp_path, lm)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message) as refusal:
        load_prompt(tmp_path)
    assert "\n" not in str(refusal.value)


def _another_end(lm: FrozenLM) -> None:
    settings: Any = lm.model.generation_config
    settings.eos_token_id = [2, 7]


def _another_chat(lm: FrozenLM) -> None:
    lm.tokenizer.chat_template = "{{ messages[0].content }}"


class TestModels:
    def test_another_model_is_refused(self, tmp_path: Path, lm: FrozenLM) -> None:
        tokens = export(tmp_path / "tokens", lm).facts
        vectors = export(tmp_path / "soft", lm, soft(lm)).facts
        other = tiny_lm(seed=1)
        with pytest.raises(ValueError, match=r"its weights differ.*rlprompt transfer RUN --models"):
            check_model(tokens, other)
        with pytest.raises(ValueError, match="vectors mean nothing to another model"):
            check_model(vectors, other)
        with pytest.raises(ValueError, match="its kind, tokenizer and weights differ"):
            check_model(tokens, tiny_lm("bert"))

    @pytest.mark.parametrize(
        ("asked", "change", "message"),
        [
            ("class", lambda lm: setattr(lm.model.config, "rms_norm_eps", 0.1), r"config differs"),
            ("class", lambda lm: setattr(lm, "prefix_ids", (1,)), "special tokens differ "),
            ("class", _another_end, ""),  # where classes are told, nothing is written
            ("write", _another_end, r"end tokens differ \(end tokens 2 7 here, 2 there\)"),
            ("class", _another_chat, ""),  # the template is no chat
            (
                "chat",
                _another_chat,
                r"chat template differs \(chat template \w{12} here, \w{12} there",
            ),
        ],
    )
    def test_a_model_that_answers_otherwise_by_what_stands_beside_its_weights_is_refused(
        self, tmp_path: Path, asked: str, change: Callable[[FrozenLM], None], message: str
    ) -> None:
        made: dict[str, Callable[[], Task]] = {
            "class": class_task,
            "write": writing_task,
            "chat": lambda: class_task(Template.of({"user": "{text} {prompt}"}).text),
        }

        def taken(name: str) -> FrozenLM:
            lm = FrozenLM(tiny_model(), tiny_tokenizer(), name)
            lm.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
            return lm

        lm, other = taken("one"), taken("other")
        facts = export(tmp_path / "out", lm, TOKENS, made[asked]()).facts
        assert check_model(facts, other) == ""
        other = taken("other")
        change(other)
        if message:
            with pytest.raises(ValueError, match=f"other is not the model .*one: its {message}"):
                check_model(facts, other)
        else:
            assert check_model(facts, other) == ""

    def test_what_an_older_version_exported_is_judged_by_what_it_recorded(
        self, tmp_path: Path, lm: FrozenLM
    ) -> None:
        export(tmp_path / "out", lm)

        def as_then(state: dict[str, Any]) -> None:
            state["format"] = 6
            for name in ("config", "special", "ends", "chat"):
                del state["model"][name]
            del state["task"]["usage"]["cut_for"]

        _json(as_then)(tmp_path / "out")
        facts = load_prompt(tmp_path / "out").facts
        assert re.fullmatch(
            "the prompt was exported by an older rlprompt, .* its config, .* cannot be told",
            check_model(facts, lm),
        )
        with pytest.raises(ValueError, match=r"its weights differ \(weights \w+ here, \w+ there\)"):
            check_model(facts, tiny_lm(seed=1))

    def test_another_dtype_is_noted(self, tmp_path: Path, lm: FrozenLM) -> None:
        def half(seed: int = 0) -> FrozenLM:
            return FrozenLM(
                torch.nn.Module.to(tiny_model(seed=seed), torch.bfloat16), tiny_tokenizer(), "half"
            )

        facts = export(tmp_path / "wide", lm).facts
        assert "in float32, and here it is bfloat16" in check_model(facts, half())
        narrow = export(tmp_path / "narrow", half()).facts
        assert "in bfloat16, and here it is float32" in check_model(narrow, lm)
        with pytest.raises(ValueError, match=r"half is not the model.*: load them in float32"):
            check_model(facts, half(seed=1))

    def test_nothing_is_exported_with_another_model_or_task(
        self, tmp_path: Path, lm: FrozenLM
    ) -> None:
        task = class_task()
        found = result(lm, task, TOKENS)
        with pytest.raises(ValueError, match="not the model that this prompt was found on"):
            export_prompt(found, tmp_path / "a", tiny_lm(seed=1), task)
        with pytest.raises(ValueError, match="not what it was when this prompt was found"):
            export_prompt(found, tmp_path / "a", lm, class_task("{prompt} {text}"))
        assert not (tmp_path / "a").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path, lm: FrozenLM) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is there and not empty"):
        export(tmp_path, lm)
    with pytest.raises(ValueError, match="is there and not empty"):
        export(tmp_path / "mine.txt", lm)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_what_is_not_known_is_not_said(tmp_path: Path, lm: FrozenLM) -> None:
    found = result(lm, class_task(), TOKENS, test_metrics=(), test_prompts=0)
    facts = export_prompt(found, tmp_path, lm).facts
    assert (facts.task.usage, facts.task.metric, facts.before_ids) == (None, "", None)
    assert facts.scores["test"].n is None
    page = (tmp_path / "README.md").read_text("utf-8")
    assert "not known here" in page
    assert "complete" not in page
    assert "PromptServer" not in page


def test_tasks_that_put_a_prompt_to_work_themselves(tmp_path: Path, lm: FrozenLM) -> None:
    @reward
    def short(prompt_text: str, examples: Sequence[Example]) -> list[float]:
        return [-float(len(prompt_text))] * len(examples)

    task = FunctionTask("short", class_task().splits, short)
    facts = export(tmp_path / "function", lm, TOKENS, task).facts
    assert facts.task.usage is None
    inner = class_task()
    shortening = CompressionTask(inner, "the film was great", 0.1)
    blank = shortening.blank(lm)
    long = TokenPrompt((20, blank, 30))
    exported = export(tmp_path / "short", lm, long, shortening)
    assert exported.prompt == TokenPrompt((20, 30))
    assert exported.facts.task.usage is not None
    assert exported.facts.task.usage.label_words == {k: (v,) for k, v in WORDS.items()}


def test_an_empty_prompt_has_no_adapter(tmp_path: Path, lm: FrozenLM) -> None:
    exported = export(tmp_path, lm, TokenPrompt())
    assert exported.vectors.shape == (0, lm.hidden_size)
    assert not (tmp_path / "adapter_config.json").exists()
    assert "the prompt is empty" in (tmp_path / "README.md").read_text("utf-8")


def test_the_licence_is_the_models_or_unknown(tmp_path: Path) -> None:
    assert licence("smollm2-135m") == "Apache-2.0"
    assert licence("nobody/has-this") == licence("a b/c:d") == UNKNOWN_LICENCE
    assert licence(str(tmp_path)) == UNKNOWN_LICENCE
    page = tmp_path / "README.md"
    page.write_text("---\nlicense: mit\n---\n# A model\n")
    assert licence(str(tmp_path)) == "mit"
    page.write_text("---\n: [\n---\n")
    assert licence(str(tmp_path)) == UNKNOWN_LICENCE


def _run(name: str, found: Result | None, state: str = "") -> StoredRun:
    return StoredRun(name, {}, "", 0, 0, 0, None, 0.0, None, state, found)


class TestPick:
    def runs(self, lm: FrozenLM) -> list[StoredRun]:
        found = result(lm, class_task(), TOKENS)

        def scoring(dev: float, test: float, **changes: Any) -> Result:
            best = dataclasses.replace(found.best, dev=Score(dev, 0.5), test=Score(test, 0.5))
            return dataclasses.replace(found, candidates=(best,), **changes)

        return [
            _run("a", scoring(1.0, 9.0)),
            _run("b", scoring(2.0, 3.0)),
            _run("c", scoring(1.5, 8.0, task="other")),
            _run("d", scoring(7.0, 7.0, model="large")),
            _run("failed", scoring(99.0, 99.0), "ValueError: no"),
            _run("waiting", None),
        ]

    def test_dev_decides_and_never_test(self, lm: FrozenLM) -> None:
        assert pick_run(self.runs(lm)[:2]).name == "b"

    def test_what_cannot_be_compared_must_be_said(self, lm: FrozenLM) -> None:
        runs = self.runs(lm)
        with pytest.raises(ValueError, match=r"several tasks.* --task with one of films, other,"):
            pick_run(runs)
        with pytest.raises(
            ValueError, match=r"several models.* --model with one of tiny-llama, la"
        ):
            pick_run(runs, task="films")
        assert pick_run(runs, task="films", model="tiny-llama").name == "b"
        assert pick_run(runs, task="films", model="large").name == "d"
        assert pick_run(runs, task="other").name == "c"
        assert pick_run(runs, name="a").name == "a"

    def test_what_is_not_there_is_named(self, lm: FrozenLM) -> None:
        runs = self.runs(lm)
        with pytest.raises(ValueError, match="no finished run is called 'failed'; there are: a, b"):
            pick_run(runs, name="failed")
        with pytest.raises(ValueError, match="has the task 'x'; there are: films, other"):
            pick_run(runs, task="x")
        with pytest.raises(ValueError, match="no search of this study has finished"):
            pick_run(runs[4:])

    def test_tasks_of_one_name_are_told_apart_by_run(self, lm: FrozenLM) -> None:
        first, second, *_ = self.runs(lm)
        assert second.result is not None
        other = dataclasses.replace(second.result, task_fingerprint="another")
        with pytest.raises(
            ValueError, match=r"several tasks of the study are called films: .* a, b"
        ):
            pick_run([first, dataclasses.replace(second, result=other)])

    def test_what_must_be_said_is_told_for_one_part_of_a_study(self, lm: FrozenLM) -> None:
        first, second, third, fourth, *nothing = self.runs(lm)
        assert pick_options([first, second]) == {}
        assert pick_options([first, second, third]) == {"task": "films"}
        assert pick_options([first, third, fourth]) == {"task": "films", "model": "tiny-llama"}
        assert pick_options(nothing) is None
        # Two splits of a task have one name, and nothing but the name of a run tells them apart.
        assert second.result is not None
        other = dataclasses.replace(second.result, task_fingerprint="another")
        splits = [first, second, dataclasses.replace(third, result=other)]
        assert pick_options(splits) == {"run": "b"}
