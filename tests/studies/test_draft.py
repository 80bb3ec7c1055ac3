"""Drafts of experiment files: what data and model make of them, and that they can be run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from spellings import CHAT_TEMPLATE
from tiny import TinyKind, tiny_lm, tiny_model, tiny_tokenizer

from rlprompt.check.toy import toy_lm
from rlprompt.config.tasks import parse_task
from rlprompt.config.yaml_file import load_config
from rlprompt.data.roles import guess_roles
from rlprompt.data.survey import survey
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length
from rlprompt.studies import draft as drafting
from rlprompt.studies.draft import Draft, make_draft
from rlprompt.studies.draft_file import draft_text
from rlprompt.studies.draft_task import DraftTask, draft_task
from rlprompt.studies.dry_run import Plan, SearchPlan
from rlprompt.studies.loading import load_task
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.tasks.generation import GenerationTask

TEXT = "it was the film that"
LABELS = ("good", "bad")
CITIES = [f"City{letter}" for letter in "abcdefghijkl"]


@pytest.fixture(scope="module")
def chats() -> FrozenLM:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    return FrozenLM(tiny_model(), tokenizer, "chats")


def films(
    folder: Path, labels: list[str], name: str = "films.csv", header: str = "text,label"
) -> str:
    lines = [f"{TEXT} {i},{label}" for i, label in enumerate(labels)]
    (folder / name).write_text("\n".join([header, *lines, ""]))
    return str(folder / name)


def made(data: str, lm: FrozenLM, **given: Any) -> DraftTask:
    found = survey(data)
    draft = draft_task(found, guess_roles(found, **given), lm, data)
    # What the file says makes the same task.
    again = load_task(parse_task(draft.section))
    assert again.splits.train == draft.task.splits.train or draft.section.get("on_long_text")
    assert again.hand_prompt == draft.task.hand_prompt
    return draft


def told(draft: DraftTask | Draft) -> str:
    return "\n".join(f"{topic}: {sentence}" for topic, sentence in draft.said)


class TestClasses:
    def test_names_that_are_words(self, tmp_path: Path) -> None:
        draft = made(films(tmp_path, ["good", "bad"] * 12), tiny_lm())
        assert draft.section == {
            "data": str(tmp_path / "films.csv"),
            "label": "label",
            "template": "{text} {prompt}",
            "label_words": {"good": "good", "bad": "bad"},
            "shots": 4,
            "hand_prompt": "This is about",
        }
        assert draft.why["label_words", "good"] == "its name, one token; 12 rows"
        assert "words: good and bad; each is one token of tiny-llama" in told(draft)

    @pytest.mark.parametrize(
        ("kind", "template", "words"),
        [
            ("llama", "{text} {prompt}", {"positive": "great", "negative": "terrible"}),
            ("bert", "{text} {prompt} {mask} .", {"positive": "great", "negative": "terrible"}),
            # Whose answers begin a text of their own, where these are several tokens.
            ("t5", "{text} {prompt}", {"positive": "positive", "negative": "negative"}),
        ],
    )
    def test_each_kind_of_model_has_its_template(
        self, tmp_path: Path, kind: TinyKind, template: str, words: dict[str, str]
    ) -> None:
        draft = made(films(tmp_path, ["positive", "negative"] * 6), tiny_lm(kind))
        assert draft.section["template"] == template
        assert draft.section["hand_prompt"] == "It was"
        assert draft.section["label_words"] == words

    def test_a_chat_is_held_against_plain_text(self, tmp_path: Path, chats: FrozenLM) -> None:
        draft = made(films(tmp_path, ["up", "down"] * 6), chats)
        ((_, sentence),) = [one for one in draft.said if one[0] == "template"]
        assert "with the hand-written prompt, accuracy on train is 0." in sentence
        # More words of one token decide before that.
        draft = made(films(tmp_path, ["good", "bad"] * 6), chats)
        assert draft.section["template"] == "{text} {prompt}"
        assert "plain text, in which more label words are one token than in a chat" in told(draft)

    def test_columns_whose_names_are_no_fields(self, tmp_path: Path) -> None:
        data = films(tmp_path, ["good", "bad"] * 6, header="The text,What is it?")
        draft = made(data, tiny_lm())
        assert (draft.section["text"], draft.section["template"]) == ("The text", "{text} {prompt}")
        assert draft.section["hand_prompt"] == "This is about"
        lines = [f"{TEXT} {i},so they say {i},{LABELS[i % 2]}" for i in range(9)]
        (tmp_path / "two.csv").write_text("\n".join(["my text,their text,label", *lines]))
        draft = made(str(tmp_path / "two.csv"), tiny_lm())
        assert draft.section["text"] == {"my_text_1": "my text", "their_text_2": "their text"}
        assert draft.section["template"] == "{my_text_1}\n{their_text_2}\n{prompt}"

    def test_rare_classes_and_other_spellings(self, tmp_path: Path) -> None:
        labels = ["good"] * 30 + ["Good"] * 2 + ["bad"] * 9 + ["film"] * 3 + ["was"]
        draft = made(films(tmp_path, labels), tiny_lm())
        section = draft.section
        assert section["label_words"] == {"good": "good", "bad": "bad", "film": "film"}
        assert section["labels"] == {"Good": "good"}
        assert (section["shots"], section["metric"]) == (3, "macro_f1")
        assert section["on_bad_rows"] == "skip"
        assert "left out, with too few rows: was 1" in told(draft)
        assert draft.why["on_bad_rows",].startswith("without it: films.csv:46 has the unknown")

    def test_a_class_may_be_called_none(self, tmp_path: Path) -> None:
        names = ("Favor", "Against", "None")
        lines = [f"so it is said {i},{names[i % 3]}" for i in range(120)]
        (tmp_path / "stance.csv").write_text("\n".join(["text,stance", *lines]))
        draft = made(str(tmp_path / "stance.csv"), tiny_lm())
        assert sorted(draft.section["label_words"]) == ["Against", "Favor", "None"]
        assert "on_bad_rows" not in draft.section
        assert sum(map(len, draft.task.splits.parts().values())) == 120

    def test_numbers_say_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        draft = made(films(tmp_path, ["0", "1"] * 6), tiny_lm())
        assert draft.section["label_words"] == {"0": "0", "1": "1"}
        assert "the classes themselves, since the tokenizer of tiny-llama has" in told(draft)
        from rlprompt.studies import draft_task as module

        def found(task: ClassificationTask, lm: FrozenLM) -> ClassificationTask:
            return dataclasses.replace(task, label_words={"0": ["bad"], "1": ["good"]})

        monkeypatch.setattr(module, "with_found_words", found)
        draft = made(films(tmp_path, ["0", "1"] * 6), tiny_lm())
        assert draft.section["label_words"] == "auto"
        assert draft.section["labels"] == ["0", "1"]
        assert "found on train, as the classes are numbers: 0: bad; 1: good" in told(draft)

    def test_words_of_several_lengths(self, tmp_path: Path) -> None:
        draft = made(films(tmp_path, ["good", "shipping"] * 6), tiny_lm())
        assert draft.section["length"] == "mean"
        assert "for shipping no word of the name is one token of tiny-llama" in told(draft)

    def test_what_rows_need_is_found_by_trying(self, tmp_path: Path) -> None:
        data = films(tmp_path, ["good", "bad"] * 9)
        with Path(data).open("a") as file:
            file.write(f",good\n{'long ' * 90},bad\n")
        draft = made(data, tiny_lm())
        assert draft.section["on_bad_rows"] == "skip"
        assert draft.section["on_long_text"] == "truncate-end"
        assert draft.why["on_bad_rows",] == "without it: films.csv:20 has an empty text"
        assert "is too long: 4" in draft.why["on_long_text",]

    def test_nothing_that_can_be_done(self, tmp_path: Path) -> None:
        films(tmp_path, ["good", "bad"] * 9, "train.csv")
        films(tmp_path, ["great", "terrible"] * 9, "test.csv")
        with pytest.raises(ValueError, match="has no dev file"):
            made(str(tmp_path), tiny_lm())


class TestFolders:
    def test_parts_are_taken_as_they_are(self, tmp_path: Path) -> None:
        for i, name in enumerate(("train", "dev", "test")):
            lines = [f"{TEXT} {10 * i + j},{LABELS[j % 2]}" for j in range(6)]
            (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *lines]))
        draft = made(str(tmp_path), tiny_lm())
        assert not {"shots", "test", "dev_from"} & set(draft.section)
        (tmp_path / "dev.csv").unlink()
        draft = made(str(tmp_path), tiny_lm())
        assert draft.section["dev_from"] == "train"
        assert "dev_from: train, since folder" in told(draft)


class TestAnswers:
    def test_the_likelihood_of_what_is_to_be_written(self, tmp_path: Path) -> None:
        draft = made(films(tmp_path, CITIES, header="text,city"), tiny_lm())
        assert isinstance(draft.task, GenerationTask)
        assert draft.section == {
            "name": "generation",
            "data": str(tmp_path / "films.csv"),
            "label": "city",
            "template": "{text}\n{prompt}",
            "reward": "log_likelihood",
            "shots": 4,
            "hand_prompt": "City:",
            "max_new_tokens": 10,
        }
        assert "so they are written answers" in draft.why["label",]

    def test_long_answers_of_several_lines(self, tmp_path: Path, chats: FrozenLM) -> None:
        lines = [f'{TEXT} {i},"so it was\nas {i} of them say"' for i in range(9)]
        (tmp_path / "a.csv").write_text("\n".join(["text,answer", *lines]))
        section = made(str(tmp_path / "a.csv"), chats).section
        assert (section["stop"], section["metric"]) == ([], "token_f1")

    def test_a_masked_model_writes_none(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="tiny-bert is a masked model, which fills gaps and"):
            made(films(tmp_path, CITIES, header="text,city"), tiny_lm("bert"))


def plan(experiment: Any, seconds: float, fixed: float) -> Plan:
    """A plan in which every row of a search takes so long."""
    rows = experiment.budget.rows
    searches = [
        SearchPlan(name, 1, rows, rows // 8, rows * seconds, 0.0, 10, fixed)
        for name in experiment.optimisers
    ]
    return Plan(tuple(searches), 10, fixed, 0, 0, 0.0)


class TestDraft:
    def draft(self, data: str, lm: FrozenLM | None = None) -> Draft:
        found = survey(data)
        lm = lm or tiny_lm()
        return make_draft(found, guess_roles(found), lm, name="films", model="tiny", data=data)

    def test_the_budget_fills_ten_minutes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(drafting, "make_plan", lambda one: plan(one, 0.01, 10.0))
        data = films(tmp_path, ["good", "bad"] * 12)
        draft = self.draft(data)
        # 600 s less 10 and 3 x 4 times 10, at 0.01 s a row of each of three seeds of four searches.
        assert draft.content["optimisers"] == ["random", "grow", "ppo", "soft-prompt"]
        assert draft.content["seeds"] == [0, 1, 2]
        assert (draft.content["budget"], round(draft.seconds)) == (4_000, 610)
        assert "4,000 rows a search: 500 prompts on 8 train examples" in told(draft)
        assert "seeds: 3 of each search" in told(draft)
        monkeypatch.setattr(drafting, "make_plan", lambda one: plan(one, 9.0, 10.0))
        assert self.draft(data).content["budget"] == 240  # 30 prompts, however long they take

    def test_one_seed_where_three_would_see_few_prompts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # 100 prompts on 8 examples: 12 searches of 800 rows, and 130 s beside them.
        data = films(tmp_path, ["good", "bad"] * 12)
        for seconds, seeds in ((0.048, [0, 1, 2]), (0.05, [0])):
            monkeypatch.setattr(drafting, "make_plan", lambda one, s=seconds: plan(one, s, 10.0))
            draft = self.draft(data)
            assert draft.content["seeds"] == seeds
            assert draft.content["budget"] >= 800
            assert 600 <= draft.seconds < 660
        assert "seeds: 1 of each search, since three would take longer" in told(draft)

    def test_fewer_are_tested_on_where_that_takes_too_long(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            drafting, "make_plan", lambda one: plan(one, 0.01, len(one.task.splits.test) / 1.0)
        )
        draft = self.draft(films(tmp_path, ["good", "bad"] * 120))
        assert draft.content["task"]["test"] == 60
        assert draft.why["task", "test"] == "176 examples would take longer than the searches"

    def test_no_gradient_is_climbed_where_there_is_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(drafting, "make_plan", lambda one: plan(one, 0.01, 1.0))
        monkeypatch.setattr(FrozenLM, "vectors_obstacle", "it has no vectors")
        draft = self.draft(films(tmp_path, ["good", "bad"] * 6))
        assert draft.content["optimisers"] == ["random", "grow", "ppo"]
        assert "without soft-prompt: it has no vectors" in told(draft)

    @pytest.mark.parametrize("kind", ["classes", "no words", "answers"])
    def test_prompts_are_short_and_of_words_where_there_are_classes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        measured = []

        def noted(experiment: Any) -> Plan:
            measured.append((experiment.length, experiment.tokens))
            return plan(experiment, 0.01, 1.0)

        monkeypatch.setattr(drafting, "make_plan", noted)
        lm = toy_lm() if kind == "no words" else tiny_lm()  # a token a letter
        labels = CITIES if kind == "answers" else ["good", "bad"] * 12
        draft = self.draft(films(tmp_path, labels), lm)
        text = draft_text(draft.content, draft.why)
        if kind == "classes":
            assert draft.content["prompt"] == {"length": {"at_most": 5}, "tokens": "words"}
            assert measured == [(Length(5), {"words": 300})]
            assert "  length: {at_most: 5}              # 1 to 5 tokens; or a number" in text
            assert "  tokens: words                     # 300: common words, words of" in text
        else:
            assert draft.content["prompt"] == {"length": 5}
            assert measured == [(5, "all")]
            assert "  length: 5                         # tokens; {at_most: 5} for 1 to 5" in text

    def test_the_text_of_a_file_says_the_same(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(drafting, "make_plan", lambda one: plan(one, 0.01, 1.0))
        draft = self.draft(films(tmp_path, ["yes", "no"] * 12, header="text,Is it?"))
        text = draft_text(draft.content, draft.why, "What this is.\n  And more.")
        (tmp_path / "films.yaml").write_text(text)
        config = load_config(tmp_path / "films.yaml")
        assert config.budget == draft.content["budget"]
        assert config.prompt.lengths == Length(5)
        assert config.task is not None
        for key, value in draft.content["task"].items():
            assert getattr(config.task, key) == value
        lines = text.splitlines()
        assert lines[:2] == ["# What this is.", "#   And more."]
        assert "    'yes': 'yes'" in [line[:16] for line in lines]
        assert max(len(line) for line in lines if "#" in line) <= 120
