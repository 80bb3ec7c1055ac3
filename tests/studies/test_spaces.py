"""Where the searches of an experiment look: all alike, or one method in a space of its own."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from exports import class_task, result, soft
from small_experiments import ONLY, experiment, task
from tiny import CONTEXT, tiny_lm, tiny_model, tiny_tokenizer

from rlprompt.agents.random_search import RandomSearch
from rlprompt.agents.soft_prompt import SoftPromptTuning
from rlprompt.config.schema import OptimiserConfig, PromptConfig
from rlprompt.export.export import export_prompt
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length, Prompt, TokenPrompt
from rlprompt.search.evaluation import describe
from rlprompt.studies.experiment import searches
from rlprompt.studies.loading import own_prompt, search_settings

IT_WAS = TokenPrompt(tiny_lm().encode(" it was"))


def test_an_optimiser_may_have_a_space_of_its_own() -> None:
    own = {"soft-prompt": {"length": 5, "start": ("it was",)}}
    made = experiment(own=own, tokens={"words": 5}, start="hand", task=task(hand_prompt="it"))
    usual, longer = (searches([made])[f"{name}-seed0"] for name in made.optimisers)
    assert (usual.length, usual.start, usual.tokens) == (3, "hand", {"words": 5})
    assert (longer.length, longer.start, longer.tokens) == (5, ("it was",), {"words": 5})
    assert len(longer.run().best.prompt) == 5


def test_what_a_search_begins_with_decides_what_it_is() -> None:
    def spec(**space: Any) -> dict[str, Any]:
        made = experiment(optimisers=ONLY, task=task(hand_prompt="it"), **space)
        return searches([made])["random-seed0"].spec

    usual = spec()
    assert (usual["start"], usual["tokens"]) == (["vocabulary"], "all")
    assert spec(start="vocabulary", tokens="all") == usual
    assert spec(start="hand") == usual | {"start": ["hand"]}
    assert spec(tokens="words") == usual | {"tokens": {"words": 300}}
    assert spec(start=[IT_WAS, "was"]) == usual | {"start": [IT_WAS.digest, "was"]}


def test_a_pool_by_gradient_is_each_searchs_own_to_pay() -> None:
    made = experiment(own={"soft-prompt": {"tokens": "all"}}, tokens={"gradient": 9})
    pruned, usual = (searches([made])[f"{name}-seed0"] for name in made.optimisers)
    assert (pruned.spec["tokens"], usual.spec["tokens"]) == ({"gradient": 9}, "all")
    assert {name: made.pool_rows(name) for name in made.optimisers} == {
        "random": 12,
        "soft-prompt": 0,
    }
    assert pruned.run().points[0][0] == 12


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"start": "hand"}, "^task 'films' on tiny-llama has no hand prompt"),
        ({"start": "the film was good"}, "has 4 tokens, and the prompt has 3 at most"),
        ({"own": {"random": {"start": "hand"}}}, "^random: task 'films' on tiny-llama has no"),
        ({"own": {"soft-prompt": {"length": CONTEXT}}}, "is too long"),
        ({"tokens": "wrods"}, "there are no tokens of the kind 'wrods'"),
    ],
)
def test_what_fits_no_space_is_refused(space: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        experiment(**space)


class TestSettingsOfAnOptimiser:
    PROMPT = PromptConfig(length=4, banned=("x",))

    def read(self, name: str, **settings: Any) -> tuple[dict[str, Any], PromptConfig]:
        return own_prompt(OptimiserConfig(name=name, settings=settings), self.PROMPT)

    def test_those_of_its_prompts_are_taken_apart(self) -> None:
        settings, prompt = self.read("greedy", pool=0.5, start="hand", length={"at_most": 2})
        assert settings == {"pool": 0.5}
        assert (prompt.start, prompt.lengths, prompt.banned) == (("hand",), Length(2), ("x",))
        assert self.read("greedy") == ({}, self.PROMPT)

    def test_a_setting_of_the_class_stays_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        @dataclasses.dataclass(frozen=True)
        class Long:
            length: float = 0.5

        monkeypatch.setattr("rlprompt.studies.loading.load", lambda *_: Long)
        settings, prompt = self.read("greedy", length=0.25, tokens="words")
        assert settings == {"length": 0.25}
        assert (prompt.length, prompt.tokens) == (4, {"words": 300})

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"length": 0}, "optimiser greedy: length: must be greater than 0, got 0"),
            ({"start": []}, "optimiser greedy: start: must not be empty"),
            ({"tokens": "x"}, "optimiser greedy: tokens: there are no tokens of the kind 'x'"),
        ],
    )
    def test_a_wrong_one_is_named(self, settings: dict[str, Any], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            self.read("greedy", **settings)


class TestFoundPrompts:
    def begun(self, folder: Path, prompt: Prompt, method: Any, lm: FrozenLM | None = None) -> Any:
        """The start of a search that an exported prompt is."""
        there, lm = tiny_lm(), lm or tiny_lm()
        export_prompt(result(there, class_task(), prompt), folder, there, class_task())
        section = PromptConfig.model_validate({"start": {"found": str(folder)}})
        made = experiment(lm=lm, optimisers={"one": method}, **search_settings(section, lm))
        start: Any = searches([made])["one-seed0"].start
        assert len(start) == 1
        return start[0]

    def test_tokens_are_those_that_were_found(self, tmp_path: Path) -> None:
        assert self.begun(tmp_path / "a", IT_WAS, RandomSearch()) == IT_WAS
        assert self.begun(tmp_path / "b", IT_WAS, SoftPromptTuning()) == IT_WAS

    def test_another_tokenizer_is_given_the_text(self, tmp_path: Path) -> None:
        other = FrozenLM(tiny_model("opt"), tiny_tokenizer("opt"), "other")
        start = self.begun(tmp_path / "a", IT_WAS, RandomSearch(), other)
        assert start == TokenPrompt(other.encode(" it was"))

    def test_vectors_are_those_that_were_found(self, tmp_path: Path) -> None:
        found = soft(tiny_lm())
        assert self.begun(tmp_path / "a", found, SoftPromptTuning()) == found

    def test_vectors_of_another_model_of_the_same_width_are_refused(self, tmp_path: Path) -> None:
        other = FrozenLM(tiny_model("opt"), tiny_tokenizer("opt"), "tiny-opt")
        assert other.hidden_size == tiny_lm().hidden_size
        text, _ = describe(class_task(), tiny_lm(), soft(tiny_lm()))
        near = re.escape(repr(text.removeprefix("<soft> near:")))
        said = rf"a}} is vectors of tiny-llama, and tiny-opt has other weights, .* tokens: {near}$"
        with pytest.raises(ValueError, match=said):
            self.begun(tmp_path / "a", soft(tiny_lm()), SoftPromptTuning(), other)

    def test_vectors_of_the_same_model_in_another_dtype_are_taken(self, tmp_path: Path) -> None:
        rounded = FrozenLM(tiny_model("llama").bfloat16(), tiny_tokenizer("llama"), "rounded")
        found = soft(tiny_lm())
        assert self.begun(tmp_path / "a", found, SoftPromptTuning(), rounded) == found

    def test_tokens_cannot_begin_with_vectors(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="a start of vectors has no text"):
            self.begun(tmp_path / "a", soft(tiny_lm()), RandomSearch())

    def test_what_is_no_exported_prompt_is_refused(self, tmp_path: Path) -> None:
        section = PromptConfig.model_validate({"start": {"found": str(tmp_path)}})
        with pytest.raises(ValueError, match=r"is no exported prompt: prompt.json is missing"):
            search_settings(section, tiny_lm())
