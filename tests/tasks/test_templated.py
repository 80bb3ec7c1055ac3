"""Prompts in a template: what typing them gives."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
from spellings import SPELLINGS, spelling_lm
from tiny import tiny_lm

from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import TokenPrompt
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.tasks.generation import GenerationTask
from rlprompt.template import Template

TEXTS = ("It was the film", "a.b", "very", "(good)")


def part(name: str) -> tuple[Example, ...]:
    return tuple(Example({"text": f"{text} {name}"}, "x") for text in TEXTS)


def task(template: str = "{text} {prompt}\nMood:") -> GenerationTask:
    return GenerationTask(
        "films", Splits(part("a"), part("b"), part("c")), Template(template), "contains"
    )


def test_what_retyping_would_change_is_told() -> None:
    lm = tiny_lm()
    letters = tuple(lm.encode(letter)[0] for letter in "good")
    assert task().described(lm, TokenPrompt((*lm.encode(" "), *letters))) == (" good", False)
    assert task().described(lm, TokenPrompt(lm.encode(" good film"))) == (" good film", True)


def test_a_prompt_without_the_templates_space_is_not_typed_again() -> None:
    lm, prompt = tiny_lm(), TokenPrompt(tiny_lm().encode("xyz"))
    assert task().described(lm, prompt) == ("xyz", False)  # typed, it follows a space
    assert task("{text}\n{prompt}").described(lm, prompt) == ("xyz", True)


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize(
    "template", ["{text} {prompt}\nMood:", "{prompt} {text}", "{text}{prompt}"]
)
def test_a_retypable_prompt_is_the_same_in_the_whole_text(name: str, template: str) -> None:
    lm, made, rng = spelling_lm(name), task(template), np.random.default_rng(0)
    special = {i for i, token in lm.tokenizer.added_tokens_decoder.items() if token.special}
    ids = sorted(set(range(len(lm.tokenizer))) - special)
    prompts = [TokenPrompt(rng.choice(ids, 3)) for _ in range(30)]
    prompts.append(made.written(lm, "It was very good"))
    n_retypable = 0
    for prompt in prompts:
        text, retypable = made.described(lm, prompt)
        n_retypable += retypable
        if retypable:
            assert made.written(lm, text) == prompt
            for example in made.splits.train:
                query = made.template.query(example.fields, lm)
                typed = template.format(text=example.fields["text"], prompt=text)
                shown = typed.replace("  ", " ") if text.startswith(" ") else typed
                whole = tuple(lm.tokenizer(shown, add_special_tokens=False)["input_ids"])
                start, end = made.template.frame(lm)
                assert start + whole + end == query.head_ids + prompt.ids + query.tail_ids
    assert n_retypable


def test_the_default_models_prompts_are_called_retypable_only_where_they_are(
    real_tokenizer: FrozenLM,
) -> None:
    lm, made, rng = real_tokenizer, task(), np.random.default_rng(0)
    prompts = [TokenPrompt(rng.integers(20, lm.n_vocabulary, 5)) for _ in range(60)]
    texts = {prompt: made.described(lm, prompt) for prompt in prompts}
    retypable = [prompt for prompt, (_, retypable) in texts.items() if retypable]
    assert all(made.written(lm, texts[prompt][0]) == prompt for prompt in retypable)
    assert 10 < len(retypable) < 50


def test_letters_that_are_joined_over_a_border_are_told() -> None:
    lm = spelling_lm("no prefix")
    (warning,) = dataclasses.replace(
        task("{text} go{prompt}\nMood:"), hand_prompt="od"
    ).spelling_warnings(lm)
    assert "in 4 of 4 train examples the tokenizer would join letters across" in warning
    assert "first at the prompt 'od'" in warning
    assert not list(task().spelling_warnings(lm))
    classes = ClassificationTask(
        "films", task().splits, Template("{text} {prompt} ter", ""), {"x": "rible", "y": "bad"}
    )
    (warning,) = classes.spelling_warnings(lm)
    assert "first at the answer 'rible'" in warning


TICKETS: list[dict[str, Any]] = [
    {"id": i, "body": f"ticket number {i} is long", "queue": ("a", "b", "c")[i % 3]}
    for i in range(12)
]


@pytest.mark.parametrize(
    ("template", "rows", "text", "said"),
    [
        (
            "{text} {prompt}",
            TICKETS,
            None,
            "12 bad rows too little is left; the template's {text} asks for it: write {body}, or "
            "`text: body`",
        ),
        (
            "{review} {prompt}",
            [{"my text": "fine", "queue": "a"}],
            None,
            "; the template's {review} asks for it: `text: {review: my text}`",
        ),
        (
            "{bod} {id} {prompt}",
            TICKETS,
            None,
            "12 bad rows too little is left; the template's {bod} asks for it: write {body}, or "
            "`text:` with a column for each of bod, id",
        ),
        ("{text} {prompt}", TICKETS, "words", "12 bad rows too little is left"),
    ],
)
def test_a_field_without_a_column_is_told_what_to_write(
    template: str, rows: list[dict[str, Any]], text: str | None, said: str
) -> None:
    draw: dict[str, Any] = {"label": "queue", "shots": 1, "on_bad_rows": "error"}
    with pytest.raises(ValueError, match=f"{re.escape(said)}$"):
        ClassificationTask.from_file(
            rows, template=template, text=text, label_words={"a": "x", "b": "y"}, **draw
        )
    with pytest.raises(ValueError, match=f"{re.escape(said)}$"):
        GenerationTask.from_file(rows, template=template, text=text, reward="contains", **draw)


def refused_labels(rows: list[dict[str, Any]]) -> str:
    with pytest.raises(ValueError, match="unknown label") as told:
        ClassificationTask.from_file(
            rows,
            template="{body} {prompt}",
            label="queue",
            label_words={"a": "x", "b": "y"},
            shots=1,
            on_bad_rows="error",
        )
    return str(told.value)


def test_a_class_without_a_label_word_is_told_so() -> None:
    asks = "; or give 'c' a word in `label_words`"
    assert refused_labels([*TICKETS]).endswith(f"skip to leave 4 rows out{asks}")
    # Where a row has another defect, or no label, a word would not do.
    assert asks not in refused_labels([*TICKETS, {"id": 12, "body": " ", "queue": "a"}])
    assert asks not in refused_labels([*TICKETS, {"id": 12, "body": "fine", "queue": ""}])
    more = [{"id": 13, "body": "fine", "queue": name * 70} for name in "defg"]
    longest = "'c', " + f"{'d' * 60!r}, {'e' * 60!r} and 2 more"
    assert refused_labels([*TICKETS, *more]).endswith(f"or give {longest} a word in `label_words`")
