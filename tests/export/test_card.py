"""The card of an exported prompt: text that is no markup, and code that runs."""

from __future__ import annotations

import ast
import contextlib
import io
import math
import os
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import save
from exports import TOKENS, WORDS, class_task, export, prefix, soft
from markdown_it import MarkdownIt
from spellings import spelling_lm
from tiny import TinyKind

from rlprompt.data.examples import Example
from rlprompt.export.card import card, fenced
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt

BLOCK = re.compile(r"^(`{3,})python\n(.*?)^\1$", re.MULTILINE | re.DOTALL)


def test_code_cannot_close_its_fence() -> None:
    assert fenced("x = '```'") == "````python\nx = '```'\n````"
    assert fenced("`" * 5, "sh").startswith("``````sh\n")


def test_braces_in_a_prompt_are_no_template(tmp_path: Path, lm: FrozenLM) -> None:
    facts = export(tmp_path, lm).facts
    text = "{{ facts }} {% if x %} {# y #}"
    page = card(facts.model_copy(update={"text": text, "retypable": True}))
    assert f"text = before + {text!r} + after" in page


def test_a_prior_is_told(tmp_path: Path, lm: FrozenLM) -> None:
    task = class_task(calibration="batch", calibration_strength=0.5)
    facts = export(tmp_path, lm, TOKENS, task).facts
    usage = facts.task.usage
    assert usage is not None
    told = {"negative": math.log(0.8125), "positive": math.log(0.1875)}
    usage = usage.model_copy(update={"prior": told})
    page = card(facts.model_copy(update={"task": facts.task.model_copy(update={"usage": usage})}))
    assert "| calibration | batch |\n| calibration strength | 0.5 |\n" in page
    shown = (
        "| prior of the classes | negative: 0.8125; positive: 0.1875 under this prompt, the mean "
    )
    assert shown + "over train; " in page
    assert "prior of" not in card(export(tmp_path / "plain", lm).facts)


class TestCard:
    NASTY = "</code><script>alert(1)</script> | `x` ``` *b* [l](http://x) &amp;\n# head {text}"

    @pytest.mark.parametrize("retypable", [False, True])
    def test_nothing_in_a_prompt_is_markup(
        self, retypable: bool, tmp_path: Path, lm: FrozenLM
    ) -> None:
        facts = export(tmp_path, lm).facts
        search = facts.search.model_copy(update={"run": self.NASTY})
        changes = {"text": self.NASTY, "retypable": retypable, "search": search}
        changes["task"] = facts.task.model_copy(update={"name": self.NASTY})
        shown = [MarkdownIt("gfm-like", {"linkify": False}).render(card(facts))]
        shown.append(
            MarkdownIt("gfm-like", {"linkify": False}).render(
                card(facts.model_copy(update=changes))
            )
        )
        plain, nasty = (re.findall(r"<(\w+)", re.sub(r"(?s)<pre>.*?</pre>", "", s)) for s in shown)
        assert sorted(set(nasty)) == sorted(set(plain))
        if not retypable:
            # Cell for cell and paragraph for paragraph the same.
            plain = plain[: plain.index("code", plain.index("table"))]
            assert nasty[: len(plain)] == plain
        assert "<script" not in shown[1]
        assert "<a " not in shown[1]

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
    @pytest.mark.parametrize("is_soft", [False, True], ids=["tokens", "soft"])
    @pytest.mark.parametrize(
        ("kind", "template", "calibration"),
        [
            ("llama", "{text} {prompt}", "batch"),
            ("opt", "{{Film}}: {prompt} {text} It", "none"),
            ("opt", "{text} {prompt}", "contextual"),
            ("gemma", "{prompt} {text}", "none"),
            ("t5", "{text} {prompt} .", "batch"),
            ("bert", "{prompt} {text} {mask} .", "none"),
            ("bert", "It {mask} {text} {prompt} .", "batch"),
        ],
    )
    def test_its_code_runs_and_gives_our_numbers(
        self,
        kind: TinyKind,
        template: str,
        calibration: str,
        is_soft: bool,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        self.check_code(kind, template, calibration, soft if is_soft else lambda _: TOKENS)

    @pytest.mark.parametrize("name", ["unigram", "wordpiece", "prepend", "bytes"])
    @pytest.mark.parametrize("template", ["{prompt}{text}", "{prompt} {text}", "{text} {prompt} ."])
    def test_its_code_spells_as_we_do(self, name: str, template: str, tmp_path: Path) -> None:
        lm = spelling_lm(name)
        template += " {mask}" * (name == "wordpiece")
        task = class_task(template)
        export(tmp_path, lm, TOKENS, task)
        page = (tmp_path / "README.md").read_text("utf-8")
        (code, *_) = re.findall(r"(?ms)^example = [^\n]*\n\ndef ids.*?^after = .*?$", page)
        made: dict[str, Any] = {"tokenizer": lm.tokenizer}
        exec(code.replace("'...'", "'The film was'"), made)
        (query,) = task.queries(lm, [Example({"text": "The film was"}, "positive")])
        assert (made["before"], made["after"]) == (list(query.head_ids), list(query.tail_ids))

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
    @pytest.mark.parametrize(("kind", "calibration"), [("llama", "none"), ("opt", "batch")])
    def test_that_of_a_prefix_does_so_too(
        self, kind: TinyKind, calibration: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        self.check_code(kind, "{prompt} {text} It", calibration, prefix)
        page = Path("README.md").read_text("utf-8")
        assert "| prompt | keys and values of 3 positions at 2 layers in `prompt.safe" in page

    def check_code(
        self, kind: TinyKind, template: str, calibration: str, make: Callable[[FrozenLM], Prompt]
    ) -> None:
        """Run all code of the card of a prompt, in the folder of the export."""
        pytest.importorskip("peft")
        tmp_path = Path.cwd()
        place = str(save(tmp_path / "model", kind=kind, layers=2))
        lm = FrozenLM.load(place, device="cpu", dtype="float32")
        # A decoder's words follow no space unless they bring one.
        words = {label: f" {word}" for label, word in WORDS.items()}
        calibrated = {"calibration": calibration, "calibration_strength": 0.5}
        task, prompt = class_task(template, words, **calibrated), make(lm)
        export(tmp_path / "out", lm, prompt, task)
        page = (tmp_path / "out" / "README.md").read_text("utf-8")
        os.chdir(tmp_path / "out")  # which the test goes back from
        blocks = [code for _, code in BLOCK.findall(page)]
        printed = []
        for i, code in enumerate(blocks):
            (tmp_path / f"{i}.py").write_text(code.replace("'...'", "'the film was'"), "utf-8")
            with contextlib.redirect_stdout(io.StringIO()) as out:
                runpy.run_path(str(tmp_path / f"{i}.py"))
            printed.append(out.getvalue())
        example = Example({"text": "the film was"}, "positive")
        query = task.queries(lm, [example])
        prior = (task.class_prior(lm, prompt) or dict.fromkeys(words, 0.0)).values()
        ours = lm.score([prompt], query)[0, 0].double().numpy() - 0.5 * np.array([*prior])
        answer = "Classified(label="
        dicts = [ast.literal_eval(text) for text in printed if text.startswith("{")]
        assert len(dicts) == 2
        for found in dicts:
            assert list(found.values()) == pytest.approx(ours, abs=1e-4)
        assert sum(answer in text for text in printed) == 1
