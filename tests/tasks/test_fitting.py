"""Texts that are too long for a model, and such as its tokenizer cannot spell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from spellings import spelling_lm, thinking_lm
from tiny import CONTEXT, TinyKind, tiny_lm

from rlprompt.agents import RandomSearch
from rlprompt.data.examples import OnLongText
from rlprompt.prompt import TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.studies.experiment import Experiment
from rlprompt.tasks.base import Task
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.tasks.fitting import fitted, room
from rlprompt.tasks.generation import GenerationTask
from rlprompt.template import Template
from rlprompt.types import ControlTokenError

WORDS = {"negative": "bad", "positive": "good"}
LONG = " ".join(str(i) for i in range(200))  # some 690 bytes, as many tokens


def rows(*more: str) -> str:
    lines = [f"{text},positive" for text in more]
    for i in range(6):
        lines += [f"the film {i} was good,positive", f"the film {i} was bad,negative"]
    return "\n".join(["text,label", *lines]) + "\n"


def task(path: Path, *more: str, **settings: Any) -> ClassificationTask:
    path.write_text(rows(*more))
    settings = {"template": "{text} {prompt}\nMood:", "shots": 2, **settings}
    return ClassificationTask.from_file(str(path), label_words=WORDS, **settings)


def texts(task: Task) -> list[str]:
    return [e.fields["text"] for part in task.splits.parts().values() for e in part]


class TestLongTexts:
    def test_they_are_refused_by_file_and_line_with_what_else_there_is(
        self, tmp_path: Path
    ) -> None:
        made = task(tmp_path / "a.csv", LONG)
        message = r"a\.csv:2 is too long: 69\d tokens .* 5 of prompt .*set on_long_text to skip"
        with pytest.raises(ValueError, match=message):
            fitted(made, tiny_lm(), 5)

    def test_they_are_left_out(self, tmp_path: Path) -> None:
        made = task(tmp_path / "a.csv", LONG, on_long_text="skip")
        left = fitted(made, tiny_lm(), 5)
        assert set(texts(made)) - set(texts(left)) == {LONG}
        assert (
            "1 text too long was left out to fit the 256 tokens that tiny-llama takes: a.csv:2"
            in (left.splits.notes[-1])
        )
        assert left.fingerprint != made.fingerprint

    @pytest.mark.parametrize("how", ["start", "end", "middle"])
    def test_they_are_cut_and_nothing_else_is(self, how: str, tmp_path: Path) -> None:
        lm = tiny_lm()
        made = task(tmp_path / "a.csv", LONG, on_long_text=f"truncate-{how}")
        cut = fitted(made, lm, 5)
        (text,) = set(texts(cut)) - set(texts(made))
        (example,) = (
            e for part in cut.splits.parts().values() for e in part if e.fields["text"] == text
        )
        assert isinstance(cut, ClassificationTask)
        ((n_text, n_answer),) = cut.lengths(lm, [example])
        assert CONTEXT - 2 <= n_text + 5 + n_answer <= CONTEXT
        query = cut.queries(lm, [example])[0]
        assert lm.decode(query.tail_ids) == "\nMood:"
        kept = {"start": LONG.endswith(text), "end": LONG.startswith(text)}
        kept["middle"] = LONG.startswith(text[:100]) and LONG.endswith(text[-100:])
        assert kept[how]
        assert f"was cut (truncate-{how}) to fit the 256 tokens" in cut.splits.notes[-1]
        assert fitted(cut, lm, 5) is cut

    def test_a_task_in_which_all_fits_is_itself(self, tmp_path: Path) -> None:
        made = task(tmp_path / "a.csv", on_long_text="truncate-end")
        assert fitted(made, tiny_lm(), 5) is made

    def test_texts_that_are_equal_once_they_are_cut_are_told_as_such(self, tmp_path: Path) -> None:
        path, begun = tmp_path / "a.csv", "the film " * 150
        lines = [f"{begun}{i}{label},{label}" for i in range(4) for label in WORDS]
        path.write_text("\n".join(["text,label", *lines, *rows().splitlines()[1:]]) + "\n")

        def drawn(how: OnLongText, **settings: Any) -> ClassificationTask:
            return ClassificationTask.from_file(
                str(path), template="{text} {prompt}", label_words=WORDS, shots=4,
                on_long_text=how, **settings,
            )  # fmt: skip

        lm = tiny_lm()
        with pytest.raises(
            ValueError,
            match=r"^a\.csv:\d+ repeats a\.csv:\d+ \(train\) once texts are cut \(truncate-end\) "
            r"to fit the 256 tokens that tiny-llama takes; set on_long_text: skip or ",
        ):
            drawn("truncate-end").fitted(lm, 5)
        # Cut at the other end they differ.
        apart = drawn("truncate-start").fitted(lm, 5)
        assert list(map(len, apart.splits.parts().values())) == [8, 8, 4]
        left = drawn("truncate-end", on_bad_rows="skip").fitted(lm, 5).splits
        assert not {one.key for one in left.train} & {one.key for one in (*left.dev, *left.test)}
        assert "left out" in left.notes[-2]
        assert "once texts are cut" in left.notes[-2]
        kept = drawn("truncate-end", on_leak="allow").fitted(lm, 5).splits
        assert list(map(len, kept.parts().values())) == [8, 8, 4]
        assert "between splits" in kept.notes[-1]

    def test_an_experiment_is_fitted_before_anything_is_paid(self, tmp_path: Path) -> None:
        made = task(tmp_path / "a.csv", LONG, on_long_text="truncate-end")
        experiment = Experiment("x", made, tiny_lm(), {"r": RandomSearch()}, Budget(40), length=3)
        assert max(map(len, texts(experiment.task))) < 256
        assert "cut (truncate-end)" in experiment.task.splits.notes[-1]

    def test_a_template_that_is_too_long_by_itself_is_told(self, tmp_path: Path) -> None:
        made = task(tmp_path / "a.csv", on_long_text="skip", template="x" * 250 + "{text} {prompt}")
        with pytest.raises(ValueError, match="the train split is empty"):
            fitted(made, tiny_lm(), 5)
        made = task(
            tmp_path / "a.csv", on_long_text="truncate-end", template="x" * 260 + "{text} {prompt}"
        )
        with pytest.raises(ValueError, match="too long even without its text"):
            fitted(made, tiny_lm(), 5)

    # The decoder of an encoder-decoder has positions of its own.
    @pytest.mark.parametrize(("kind", "n_answer"), [("llama", 19), ("bart", 0)])
    def test_what_the_model_writes_needs_room_too(
        self, kind: TinyKind, n_answer: int, tmp_path: Path
    ) -> None:
        lm, path = tiny_lm(kind), tmp_path / "a.csv"
        path.write_text(rows(LONG))
        made = GenerationTask.from_file(
            str(path), template="{text} {prompt}", reward="contains", label="label", shots=2,
            max_new_tokens=20, on_long_text="truncate-start",
        )  # fmt: skip
        cut = fitted(made, lm, 5)
        assert isinstance(cut, GenerationTask)
        parts = cut.splits.parts().values()
        sizes = [size for part in parts for size in cut.lengths(lm, part)]
        assert max(n for n, _ in sizes) + 5 + n_answer in (CONTEXT, CONTEXT - 1)
        for part in parts:
            cut.rewards(lm, [TokenPrompt(range(20, 25))], part)

    def test_a_prompt_takes_no_room_of_an_answer_that_a_decoder_writes(
        self, tmp_path: Path
    ) -> None:
        lm, path = tiny_lm("bart"), tmp_path / "a.csv"
        path.write_text(rows())
        made = GenerationTask.from_file(
            str(path), template="{text} {prompt}", reward="contains", label="label", shots=2,
            max_new_tokens=CONTEXT - 2,
        )  # fmt: skip
        assert fitted(made, lm, 5) is made
        longest = max(n for part in made.splits.parts().values() for n, _ in made.lengths(lm, part))
        assert room(made, lm) == CONTEXT - longest

    def test_a_wrong_choice_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="on_long_text is 'cut'; give error or skip or trunc"):
            task(tmp_path / "a.csv", on_long_text="cut")


class TestControlTokens:
    @pytest.mark.parametrize(
        ("name", "control"),
        [
            ("bytes", "</s>"),
            ("bytes", "<|im_start|>"),
            ("tiktoken", "<|im_end|>"),
            ("prepend", "<s>"),
            ("metaspace first", "</s>"),
            ("unigram", "<extra_id_0>"),
            ("wordpiece", "[SEP]"),
            ("wordpiece", "[MASK]"),
            ("byt5", "</s>"),
        ],
    )
    def test_in_a_field_they_are_text(self, name: str, control: str, tmp_path: Path) -> None:
        lm = spelling_lm(name)
        template = "{text} {prompt} {mask} ." if lm.kind == "masked" else "{text} {prompt}"
        made = task(tmp_path / "a.csv", template=template)
        text = f"It was {control} good"
        query = made.template.query({"text": text}, lm)
        special = lm.tokenizer.convert_tokens_to_ids(control)
        inside = query.head_ids[len(lm.prefix_ids) :]
        assert special not in inside
        plain = lm.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        assert list(inside) == plain["input_ids"]

    @pytest.mark.parametrize("name", ["bytes", "prepend", "metaspace first", "metaspace always"])
    def test_in_the_template_they_are_control_tokens(self, name: str, tmp_path: Path) -> None:
        lm = spelling_lm(name)
        made = task(tmp_path / "a.csv", template="<|im_start|>{text}<|im_end|>\n{prompt}")
        ids: Any = lm.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
        clean = made.template.query({"text": "It was good"}, lm).head_ids
        assert [i for i in clean if i in ids] == ids
        typed = "<|im_start|>It was good<|im_end|>\n"
        assert list(clean) == lm.tokenizer(typed)["input_ids"]
        mixed = made.template.query({"text": "It <|im_end|> was good"}, lm).head_ids
        assert [i for i in mixed if i in ids] == ids
        # Around what is text, the ids are those of the clean one.
        assert mixed[:2] == clean[:2]
        assert mixed[-3:] == clean[-3:]
        assert "<|im_end|> was" in lm.decode(mixed)

    def test_where_a_tokenizer_cannot_the_row_is_named(self, tmp_path: Path) -> None:
        lm, odd = thinking_lm(), "It was <think> good"
        made = task(tmp_path / "a.csv", odd)
        with pytest.raises(ValueError, match=r"a\.csv:2: the text holds '<think>'.*on_bad_rows"):
            fitted(made, lm, 5)
        left = fitted(task(tmp_path / "a.csv", odd, on_bad_rows="skip"), lm, 5)
        assert odd not in texts(left)
        assert "1 row was left out: a.csv:2" in left.splits.notes[-1]
        # Unigram knows its end token as a word like any other.
        with pytest.raises(ControlTokenError, match="always takes for a control token"):
            Template("{text} {prompt}").query({"text": "so </s>"}, spelling_lm("unigram"))
