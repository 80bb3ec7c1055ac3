"""Tasks of lm-evaluation-harness; skipped where that is not installed, as in the usual setting."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from tiny import TinyKind, tiny_lm

from rlprompt.data.examples import Example
from rlprompt.prompt import TokenPrompt
from rlprompt.tasks import harness
from rlprompt.tasks.generation import GenerationTask
from rlprompt.tasks.harness import from_harness
from rlprompt.tasks.metrics import metric
from rlprompt.tasks.multiple_choice import MultipleChoiceTask

ROWS = [
    {"q": f"The film {i} was", "opts": ["good", "so bad", "terrible"][: 2 + i % 2], "gold": i % 2}
    for i in range(12)
]
CHOICE: dict[str, Any] = {
    "task": "films",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "films.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "Question: {{q}}\nAnswer:",
    "doc_to_choice": "{{opts}}",
    "doc_to_target": "gold",
    "description": "Say how it was.\n\n",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}
WRITING = CHOICE | {
    "output_type": "generate_until",
    "doc_to_target": "{{opts[gold]}}",
    "doc_to_choice": None,
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
    "metric_list": [{"metric": "exact_match"}],
}
# What a task of the harness may have, and `TestMade` has not.
CONFIG = (
    *("gen_prefix", "doc_to_image", "doc_to_audio", "process_results"),
    *("generation_kwargs", "metric_list", "filter_list"),
)


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.api.task", None)
    with pytest.raises(ValueError, match=r"pip install 'rlprompt\[lm-eval\]'"):
        from_harness("arc_easy")


class TestMade:
    """Of what the harness makes of a task, which is written out here."""

    def made(self, monkeypatch: pytest.MonkeyPatch, kind: str, text: str, **own: Any) -> Any:
        usual = {"task": "films", "description": "", "target_delimiter": " "}
        documents = [{"q": f"film {i}", "gold": i % 2} for i in range(12)]
        does: dict[str, Any] = {
            "has_training_docs": lambda: False,
            "has_validation_docs": lambda: False,
            "has_test_docs": lambda: True,
            "training_docs": lambda: [],
            "test_docs": lambda: documents,
            "doc_to_text": lambda doc: text.format(**doc),
            "doc_to_choice": lambda doc: ["good", "bad"],
            "doc_to_target": lambda doc: doc["gold"] if kind == "multiple_choice" else "good",
        }
        config = {name: value for name, value in own.items() if name not in does}
        task = SimpleNamespace(
            OUTPUT_TYPE=kind,
            config=SimpleNamespace(**(dict.fromkeys(CONFIG) | usual | config)),
            **{name: own.get(name, usually) for name, usually in does.items()},
        )
        monkeypatch.setattr(harness, "_read", lambda source: task)
        return from_harness("films", shots=2)

    @pytest.mark.parametrize(
        ("text", "delimiter", "template", "answer"),
        [
            ("{q}", " ", "{prompt}{text} ", " good"),
            ("\n{q}\n", "", "{prompt}\n{text}", "\ngood"),
            (" {q}: ", "", "{prompt} {text} ", " good"),
            ("{q}", "\n", "{prompt}{text}", "\ngood"),
        ],
    )
    def test_white_space_stands_where_the_harness_has_it(
        self, monkeypatch: pytest.MonkeyPatch, text: str, delimiter: str, template: str, answer: str
    ) -> None:
        task = self.made(monkeypatch, "multiple_choice", text, target_delimiter=delimiter)
        assert task.template.text == template
        assert task.template.answer_text("good") == answer

    def test_some_documents_have_several_answers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def documents(name: str) -> list[dict[str, Any]]:
            targets = (["good", "fine"], "good", 7, ["good", 7])
            return [{"q": f"{name} {i}", "target": targets[i % 4]} for i in range(12)]

        task = self.made(
            monkeypatch,
            "generate_until",
            "{q}",
            has_training_docs=lambda: True,
            training_docs=lambda: documents("train"),
            test_docs=lambda: documents("test"),
            doc_to_target=lambda doc: doc["target"],
        )
        assert [one.references for one in task.splits.test[:4]] == [
            ("good", "fine"),
            ("good",),
            ("7",),
            ("good", "7"),
        ]

    def test_exact_match_is_strict_and_keeps_its_settings(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = {"metric": "exact_match", "aggregation": "mean", "ignore_case": True}
        for named, reward in (
            (None, "strict_match"),
            ([{"metric": "exact_match"}], "strict_match"),
            ([{"metric": "mine"}, own], {"name": "strict_match", "ignore_case": True}),
            ([{"metric": "chrf"}], "chrf"),
        ):
            assert self.made(monkeypatch, "generate_until", "{q}", metric_list=named).reward == (
                reward
            )
        unknown = [{"metric": "exact_match", "ignore_accents": True}]
        with pytest.raises(ValueError, match="strict_match has no setting 'ignore_accents'"):
            self.made(monkeypatch, "generate_until", "{q}", metric_list=unknown)


@pytest.mark.filterwarnings("ignore")  # of the harness's own
class TestInstalled:
    @pytest.fixture(autouse=True)
    def _harness(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("lm_eval")
        monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
        lines = [json.dumps(row) for row in ROWS]
        (tmp_path / "films.jsonl").write_text("\n".join(lines), "utf-8")

    def written(self, folder: Path, **changes: Any) -> str:
        config = {k: v for k, v in {**CHOICE, **changes}.items() if v is not None}
        (folder / "films.yaml").write_text(yaml.safe_dump(config), "utf-8")
        return str(folder / "films.yaml")

    @pytest.mark.parametrize("kind", ["llama", "bloom"])
    def test_options_score_as_there(self, tmp_path: Path, kind: TinyKind) -> None:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM

        lm, source = tiny_lm(kind), self.written(tmp_path)
        task = from_harness(source, shots=2)
        assert isinstance(task, MultipleChoiceTask)
        assert (task.name, task.hand_prompt) == ("films", "Say how it was.\n\n")
        prompts = [TokenPrompt(), task.written(lm, task.hand_prompt)]
        ours = task.scores(lm, prompts, task.splits.test)
        there = HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, backend="causal", batch_size=4)
        for described, row in zip(("", task.hand_prompt), ours, strict=True):
            asked = [
                Instance("loglikelihood", {}, (described + one.fields["text"], f" {option}"), i)
                for one in task.splits.test
                for i, option in enumerate(one.options)
            ]
            found = [loglik for loglik, _ in there.loglikelihood(asked, disable_tqdm=True)]
            np.testing.assert_allclose(row[row.isfinite()], found, atol=1e-4)

    @pytest.mark.parametrize("kind", ["llama", "bloom"])
    @pytest.mark.parametrize(
        ("changes", "asked", "between"),
        [
            ({"doc_to_text": "\n{{q}}\n", "target_delimiter": ""}, "\n{}", "\n"),
            ({"doc_to_text": "{{q}}: ", "target_delimiter": ""}, "{}", " "),
            ({"doc_to_text": "{{q}}:", "target_delimiter": "\n\n"}, "{}", "\n\n"),
            ({"doc_to_text": "{{q}}\n", "target_delimiter": " "}, "{}", "\n "),
            (
                {
                    "doc_to_text": "{{q}}",
                    "target_delimiter": "",
                    "doc_to_choice": "{{[' ' ~ opts[0], ' ' ~ opts[1]]}}",
                },
                "{}",
                " ",
            ),
        ],
    )
    def test_white_space_around_the_text_is_kept(
        self, tmp_path: Path, kind: TinyKind, changes: dict[str, Any], asked: str, between: str
    ) -> None:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM

        lm = tiny_lm(kind)
        by = "acc" if "doc_to_choice" in changes else "acc_norm"
        task = from_harness(self.written(tmp_path, **changes), shots=2, metric=by)
        assert isinstance(task, MultipleChoiceTask)
        measured = task.measure(lm, [TokenPrompt()], task.splits.test)
        ours = task.scores(lm, [TokenPrompt()], task.splits.test)[0]
        there = HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, backend="causal", batch_size=4)
        for example, scores, right in zip(task.splits.test, ours, measured.metrics[0], strict=True):
            context = asked.format(example.fields["text"].strip())
            pairs = [(context, between + option) for option in example.options]
            instances = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
            found = [one for one, _ in there.loglikelihood(instances, disable_tqdm=True)]
            if by == "acc_norm":
                sizes = map(len, example.options)
                found = [one / size for one, size in zip(found, sizes, strict=True)]
            np.testing.assert_allclose(scores[scores.isfinite()], found, atol=1e-4)
            assert right == (example.options[int(np.argmax(found))] == example.label)

    def test_the_exact_match_of_the_harness_is_strict(self, tmp_path: Path) -> None:
        plain = from_harness(self.written(tmp_path, **WRITING), shots=2)
        own = {"metric": "exact_match", "aggregation": "mean", "ignore_case": True}
        told = WRITING | {"metric_list": [own | {"regexes_to_ignore": [r"\.$"]}]}
        less = from_harness(self.written(tmp_path, **told), shots=2)
        nothing = from_harness(self.written(tmp_path, **WRITING | {"metric_list": None}), shots=2)
        assert isinstance(plain, GenerationTask)
        assert isinstance(less, GenerationTask)
        assert nothing.reward == plain.reward == "strict_match"
        assert less.reward == {
            "name": "strict_match",
            "ignore_case": True,
            "regexes_to_ignore": [r"\.$"],
        }
        examples = [Example({}, "so bad")] * 3
        outputs = ["so bad", "So bad.", "the so bad"]
        assert plain._scores(outputs, examples, "").tolist() == [1.0, 0.0, 0.0]
        assert less._scores(outputs, examples, "").tolist() == [1.0, 1.0, 0.0]

    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"ignore_case": True},
            {"ignore_punctuation": True},
            {"ignore_numbers": True},
            {"ignore_case": True, "regexes_to_ignore": [",", "the "]},
        ],
    )
    def test_a_strict_match_has_its_values(self, settings: dict[str, Any]) -> None:
        from lm_eval.api.metrics import exact_match_fn

        texts = ["Paris", "paris", "Paris.", "the Paris", "Par,is 7", "Paris ", "PARIS 12"]
        for output in texts:
            for right in texts:
                pair = {"predictions": [output.strip()], "references": [right.strip()]}
                there = float(exact_match_fn(**pair, **settings)["exact_match"])
                found = metric({"name": "strict_match", **settings})
                assert found.of([output], [Example({}, right)]) == [there]

    @pytest.mark.parametrize(
        ("told", "tokens", "temperature"),
        [
            ({"max_new_tokens": 7, "temperature": 0.5}, 7, 0.5),
            ({"max_gen_toks": 4, "max_tokens": 7, "do_sample": False, "temperature": 0.5}, 4, 0.0),
            ({}, 256, 0.0),
        ],
    )
    def test_how_it_is_written(
        self, tmp_path: Path, told: dict[str, Any], tokens: int, temperature: float
    ) -> None:
        config = WRITING | {"generation_kwargs": {"until": "\n", **told}, "target_delimiter": "\n"}
        task = from_harness(self.written(tmp_path, **config), shots=2)
        assert isinstance(task, GenerationTask)
        assert (task.max_new_tokens, task.temperature) == (tokens, temperature)
        # What is asked has no delimiter there.
        assert task.template.text == "{prompt}{text}"

    def test_answers_are_written_as_it_says(self, tmp_path: Path) -> None:
        task = from_harness(self.written(tmp_path, **WRITING), shots=2)
        assert isinstance(task, GenerationTask)
        assert (task.reward, task.max_new_tokens, task.stop) == ("strict_match", 4, ("\n",))
        assert {one.label for one in task.splits.test} <= {"good", "so bad", "terrible"}
        with pytest.raises(ValueError, match="max_new_tokens is 0"):
            from_harness(self.written(tmp_path, **WRITING), shots=2, max_new_tokens=0)

    def test_white_space_that_lengths_would_count_is_refused(self, tmp_path: Path) -> None:
        source = self.written(tmp_path, doc_to_choice=[" good", " bad"], target_delimiter="")
        with pytest.raises(
            ValueError, match="begin with ' ', which acc_norm counts in the harness"
        ):
            from_harness(source, shots=2, metric="acc_norm")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"output_type": "loglikelihood_rolling"}, "its output_type is loglikelihood_rolling"),
            ({"gen_prefix": "So"}, "it has `gen_prefix`, which rlprompt does not"),
            ({"doc_to_target": [0, 1]}, "several of its options are right"),
            (
                {"doc_to_text": "{{q}}{{' ' if gold else ''}}"},
                "its texts end in different white space, such as '' and ' ', and a template has",
            ),
            ({"target_delimiter": " so"}, "its target_delimiter is ' so'; give white space"),
            ({"doc_to_choice": ["good ", "bad "]}, "its options end in ' '; strip them"),
            ({"dataset_kwargs": {"data_files": "none.jsonl"}}, "cannot load .*none.jsonl"),
            (
                WRITING | {"filter_list": [{"name": "n", "filter": [{"function": "take_first"}]}]},
                r"it has the filters \['n'\], which rlprompt does not support; set how answers",
            ),
        ],
    )
    def test_what_does_not_fit_is_refused_with_the_reason(
        self, tmp_path: Path, changes: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            from_harness(self.written(tmp_path, **changes))
