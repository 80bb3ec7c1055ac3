"""A frozen model as a writer, and the settings that lead to one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scripted_server import serving
from spellings import CHAT_TEMPLATE, spelling_tokenizer, thinking_lm
from tiny import tiny_lm, tiny_model

from rlprompt.models.decoding import Decoding
from rlprompt.models.lm import FrozenLM
from rlprompt.models.served.lm import ServedLM
from rlprompt.models.writing import LocalWriter, Writer, writer_of
from rlprompt.prompt import TokenPrompt
from rlprompt.template import Template
from rlprompt.types import Written

HEATED = Decoding(max_new_tokens=6, temperature=1.0, seed=5)


class Parrot:
    """Gives requests back."""

    name = digest = "parrot"

    def write(self, requests: Any, decoding: Decoding) -> list[Written]:
        return [Written(request, 1, 1) for request in requests]


def test_an_answer_is_what_the_model_writes_after_the_request() -> None:
    lm = tiny_lm()
    query = Template("{text}{prompt}").query({"text": "the film"}, lm)
    ((plain,),) = lm.generate([TokenPrompt()], [query], max_new_tokens=6, temperature=1.0, seed=5)
    # " film" is one token, and "the" without a space three.
    assert LocalWriter(lm).write(["the film"], HEATED) == [Written(plain.text, 4, len(plain.ids))]


def test_a_chat_model_is_asked_in_a_chat() -> None:
    own: Any = spelling_tokenizer("no prefix")
    lm = FrozenLM(tiny_model("llama", vocab_size=len(own)), own, "own")
    plain = LocalWriter(lm).write(["the film"], HEATED)
    own.chat_template = CHAT_TEMPLATE
    try:
        query = Template.of({"user": "the film{prompt}"}).query({}, lm)
        ((written,),) = lm.generate(
            [TokenPrompt()], [query], max_new_tokens=6, temperature=1.0, seed=5
        )
        (one,) = LocalWriter(lm).write(["the film"], HEATED)
        assert (one.text, one.n_read) == (written.text, query.n_text)
        assert one.n_read > plain[0].n_read
        # What looks like a control token in a request is text.
        assert LocalWriter(lm).write(["<|im_end|>"], HEATED)[0].n_read > one.n_read
        # The end of a request that asks for more begins the answer.
        turns = Template.of([{"user": "the film"}, {"assistant": "It was:{prompt}"}])
        ((written,),) = lm.generate(
            [TokenPrompt()], [turns.query({}, lm)], max_new_tokens=6, temperature=1.0, seed=5
        )
        (one,) = LocalWriter(lm).write(["the film\n\nIt was:"], HEATED)
        assert (one.text, one.n_read) == (written.text, turns.query({}, lm).n_text)
    finally:
        own.chat_template = None


def test_what_its_tokenizer_cannot_spell_of_a_request_is_left_out() -> None:
    writer = LocalWriter(thinking_lm())
    marked, plain = (writer.write([f"the {mark}film"], HEATED) for mark in ("<think>", ""))
    assert marked == plain


def test_equal_requests_are_answered_apart_and_the_same_again() -> None:
    writer = LocalWriter(tiny_lm())
    first, other, again = writer.write(["the film", "good", "the film"], HEATED)
    assert first != again
    assert writer.write(["the film", "the film"], HEATED) == [first, again]
    assert writer.write(["good"], HEATED) == [other]


def test_a_request_that_is_too_long_has_no_answer_and_costs_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    writer = LocalWriter(tiny_lm())
    (alone,) = writer.write(["good"], HEATED)
    for _ in range(2):
        assert writer.write(["x" * 300, "good"], HEATED) == [Written("", 0, 0), alone]
    assert caplog.text.count("are more than the 256 of tiny-llama") == 1


def test_a_writer_comes_of_a_name_a_mapping_or_itself(tmp_path: Path) -> None:
    lm = tiny_lm()
    for part in (lm.model, lm.tokenizer):
        part.save_pretrained(tmp_path)
    own, named = writer_of(None, lm), writer_of(str(tmp_path), lm)
    assert own.name == "tiny-llama"
    assert named.name == str(tmp_path)
    assert named.digest == own.digest  # the same weights, in the dtype of the task's model
    assert writer_of(str(tmp_path), lm) is named
    half = writer_of({"name": str(tmp_path), "dtype": "bfloat16"}, lm)
    assert half.digest != own.digest
    parrot = Parrot()
    assert isinstance(parrot, Writer)
    assert writer_of(parrot, lm) is parrot


def test_a_server_is_a_writer_by_its_url() -> None:
    with serving() as script:
        writer = writer_of({"url": script.url, "concurrency": 2}, tiny_lm())
        assert isinstance(writer, ServedLM)
        assert isinstance(writer, Writer)
        assert writer.name == "tiny"
        assert writer_of(None, writer) is writer
        (one,) = writer.write(["the film"], Decoding(max_new_tokens=3))
        assert one.n_written == 3
        # A model on this machine beside a task's own that is served.
        with pytest.raises(ValueError, match="no/such folder"):
            writer_of("no/such folder", writer)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"revision": "x"}, r"a proposer is a model's name, \{name: ...\} with revision"),
        ({"url": "http://x/v1", "dtype": "x"}, r"or \{url: ...\} with name, key_env, concurrency"),
        ({"url": "http://x/v1", "key_env": None}, "leave it out where there is no key"),
        ({"url": "nowhere"}, "nowhere"),
        ({"name": "m", "temperature": 1}, "a proposer is a model's name"),
        (3, "a proposer is a model's name, or has `name`, `digest` and `write`, got 3"),
    ],
)
def test_what_is_no_writer_is_refused(setting: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        writer_of(setting, tiny_lm())


def test_a_model_that_cannot_write_is_refused() -> None:
    with pytest.raises(ValueError, match="it fills gaps and cannot write on"):
        writer_of(None, tiny_lm("bert"))
