"""Tasks of lm-evaluation-harness; skipped where that is not installed, as in the usual setting."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny import TinyKind, tiny_lm

from rlprompt.prompt import TokenPrompt
from rlprompt.tasks.generation import GenerationTask
from rlprompt.tasks.harness import from_harness
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


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.api.task", None)
    with pytest.raises(ValueError, match=r"pip install 'rlprompt\[lm-eval\]'"):
        from_harness("arc_easy")


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

    def test_answers_are_written_as_it_says(self, tmp_path: Path) -> None:
        task = from_harness(self.written(tmp_path, **WRITING), shots=2)
        assert isinstance(task, GenerationTask)
        assert (task.reward, task.max_new_tokens, task.stop) == ("exact_match", 4, ("\n",))
        assert {one.label for one in task.splits.test} <= {"good", "so bad", "terrible"}
        with pytest.raises(ValueError, match="max_new_tokens is 0"):
            from_harness(self.written(tmp_path, **WRITING), shots=2, max_new_tokens=0)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"output_type": "loglikelihood_rolling"}, "its output_type is loglikelihood_rolling"),
            ({"gen_prefix": "So"}, "it has `gen_prefix`, which rlprompt does not"),
            ({"doc_to_target": [0, 1]}, "several of its options are right"),
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
