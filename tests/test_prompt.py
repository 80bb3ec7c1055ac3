from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import rlprompt
from rlprompt.prompt import SoftPrompt, TextPrompt, TokenPrompt

vectors = arrays(
    np.float32,
    st.tuples(st.integers(0, 4), st.integers(1, 4)),
    elements=st.floats(-100, 100, width=32),
)


class TestTextPrompt:
    def test_it_is_a_value(self) -> None:
        prompt = TextPrompt(" It was\n")
        assert prompt == TextPrompt(" It was\n")
        assert {prompt, TextPrompt(" It was\n")} == {prompt}
        assert prompt != TextPrompt("It was")
        assert len(prompt) == 8
        assert len(TextPrompt("")) == 0
        with pytest.raises(dataclasses.FrozenInstanceError):
            prompt.text = "x"  # type: ignore[misc]

    def test_its_digest_is_the_same_in_every_process(self) -> None:
        assert TextPrompt("It was").digest == "478a84ff2e6c46250f753e9cc9e26f4e"
        assert TextPrompt("(5,)").digest != TokenPrompt((5,)).digest

    @pytest.mark.parametrize("text", [None, 5, b"x", ("x",)])
    def test_what_is_no_text_is_refused(self, text: Any) -> None:
        with pytest.raises(ValueError, match="a text prompt takes a text, got"):
            TextPrompt(text)

    def test_half_a_character_is_refused(self) -> None:
        with pytest.raises(ValueError, match="which holds half of one"):
            TextPrompt("a\ud800")


class TestTokenPrompt:
    @pytest.mark.parametrize("ids", [(5, 7), [5, 7], np.array([5, 7]), range(5, 8, 2)])
    def test_any_sequence_of_ids_makes_the_same_value(self, ids: Any) -> None:
        prompt = TokenPrompt(ids)
        assert prompt == TokenPrompt((5, 7))
        assert hash(prompt) == hash(TokenPrompt((5, 7)))
        assert prompt.ids == (5, 7)
        assert all(type(i) is int for i in prompt.ids)

    def test_edits_count_places_as_a_list_does(self) -> None:
        prompt = TokenPrompt((5, 6, 7))
        assert [prompt.replaced(i, 9).ids for i in (0, -1)] == [(9, 6, 7), (5, 6, 9)]
        assert [prompt.inserted(i, 9).ids for i in (-1, 3)] == [(5, 6, 9, 7), (5, 6, 7, 9)]
        assert [prompt.without(i).ids for i in (0, -1)] == [(6, 7), (5, 6)]
        assert prompt.ids == (5, 6, 7)
        with pytest.raises(IndexError):
            prompt.replaced(3, 9)
        with pytest.raises(IndexError):
            prompt.without(3)

    def test_it_may_be_empty(self) -> None:
        assert len(TokenPrompt()) == 0
        assert TokenPrompt() == TokenPrompt([])

    def test_it_cannot_be_changed(self) -> None:
        given_ids = [1, 2]
        prompt = TokenPrompt(given_ids)
        given_ids[0] = 9
        assert prompt.ids == (1, 2)
        with pytest.raises(dataclasses.FrozenInstanceError):
            prompt.ids = (3,)  # type: ignore[misc]

    @pytest.mark.parametrize(
        "ids",
        [[-1], [1.5], ["a"], "12", [None], 5, None, [float("nan")], [float("inf")], [[1, 2]]],
    )
    def test_what_is_no_id_is_refused_with_advice(self, ids: Any) -> None:
        with pytest.raises(ValueError, match=r"token ids \(integers, 0 or above\), got .*encode"):
            TokenPrompt(ids)

    @given(st.lists(st.integers(0, 10**6)), st.lists(st.integers(0, 10**6)))
    def test_the_digest_tells_contents_apart(self, first: list[int], second: list[int]) -> None:
        same = TokenPrompt(first).digest == TokenPrompt(second).digest
        assert same == (first == second)


class TestSoftPrompt:
    def test_it_cannot_be_changed(self) -> None:
        given_vectors = np.ones((2, 3), dtype=np.float32)
        prompt = SoftPrompt(given_vectors)
        given_vectors[0, 0] = 9
        assert prompt.vectors[0, 0] == 1
        with pytest.raises(ValueError, match="read-only"):
            prompt.vectors[0, 0] = 9
        with pytest.raises(dataclasses.FrozenInstanceError):
            prompt.vectors = given_vectors  # type: ignore[misc]

    def test_it_holds_float32_whatever_it_was_given(self) -> None:
        assert SoftPrompt([[1, 2]]).vectors.dtype == np.float32
        assert SoftPrompt(np.array([[0.1]])) == SoftPrompt([[0.1]])
        assert len(SoftPrompt(np.zeros((5, 2)))) == 5

    @pytest.mark.parametrize("shape", [(), (3,), (1, 2, 3)])
    def test_a_wrong_shape_is_named(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"shape \(length, hidden\), got \("):
            SoftPrompt(np.zeros(shape))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
    def test_what_float32_cannot_hold_is_refused(self, value: float) -> None:
        with pytest.raises(ValueError, match="must be finite"):
            SoftPrompt([[0.0, value]])

    @given(vectors)
    def test_equal_content_is_equal_in_every_way(self, content: np.ndarray[Any, Any]) -> None:
        first, second = SoftPrompt(content), SoftPrompt(content.copy(order="F"))
        assert first == second
        assert hash(first) == hash(second)
        assert first.digest == second.digest

    def test_the_two_zeros_are_one_value(self) -> None:
        plus, minus = SoftPrompt([[0.0, 1.0]]), SoftPrompt([[-0.0, 1.0]])
        assert plus == minus
        assert plus.digest == minus.digest
        assert len({plus, minus}) == 1

    @given(vectors, vectors)
    def test_the_digest_tells_contents_apart(
        self, first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]
    ) -> None:
        same = SoftPrompt(first).digest == SoftPrompt(second).digest
        assert same == np.array_equal(first, second)


def test_shapes_and_kinds_have_digests_of_their_own() -> None:
    zeros = [SoftPrompt(np.zeros(shape)) for shape in [(0, 6), (1, 6), (6, 1), (2, 3), (3, 2)]]
    digests = [TokenPrompt().digest, *(prompt.digest for prompt in zeros)]
    assert len(set(digests)) == len(digests)
    assert TokenPrompt((0,)) != SoftPrompt([[0.0]])


def test_hash_and_digest_are_the_same_in_every_process() -> None:
    code = (
        "from rlprompt.prompt import SoftPrompt, TokenPrompt\n"
        "prompts = TokenPrompt((3, 1)), SoftPrompt([[1.5, -2.0]])\n"
        "print([(prompt.digest, hash(prompt)) for prompt in prompts])\n"
    )
    root = str(Path(rlprompt.__file__).parent.parent)
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": root, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    prompts = TokenPrompt((3, 1)), SoftPrompt([[1.5, -2.0]])
    assert outputs == {f"{[(prompt.digest, hash(prompt)) for prompt in prompts]}\n"}


@pytest.mark.parametrize("prompt", [TokenPrompt((3, 1)), SoftPrompt([[1.5, -2.0]])])
def test_a_copy_in_another_process_is_equal(prompt: TokenPrompt | SoftPrompt) -> None:
    assert pickle.loads(pickle.dumps(prompt)) == prompt
