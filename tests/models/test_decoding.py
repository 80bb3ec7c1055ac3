from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlprompt.models.decoding import AnswerEnd, Decoding, Generated
from rlprompt.template import Query

# Chances of 0.5, 0.3, 0.15 and 0.05.
LOGITS = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()


def chosen(decoding: Decoding, draw: float) -> int:
    return int(decoding.choose(LOGITS, np.array([draw], dtype=np.float32)))


class TestChoose:
    @pytest.mark.parametrize(
        ("draw", "token"), [(0.0, 0), (0.49, 0), (0.51, 1), (0.79, 1), (0.81, 2), (0.96, 3)]
    )
    def test_a_draw_falls_where_the_chances_say(self, draw: float, token: int) -> None:
        assert chosen(Decoding(1, temperature=1.0), draw) == token

    def test_temperature_divides_the_logits(self) -> None:
        # At temperature 2 the chances are the square roots, 0.379, 0.293, 0.207, 0.120.
        warm = Decoding(1, temperature=2.0)
        assert [chosen(warm, d) for d in (0.37, 0.39, 0.66, 0.68, 0.87, 0.89)] == [0, 1, 1, 2, 2, 3]
        assert chosen(Decoding(1, temperature=0.01), 0.999) == 0
        assert chosen(Decoding(1), 0.999) == 0

    def test_top_k_and_top_p_leave_the_likeliest(self) -> None:
        two = Decoding(1, temperature=1.0, top_k=2)  # 0.625 and 0.375
        assert [chosen(two, d) for d in (0.62, 0.63, 0.999)] == [0, 1, 1]
        some = Decoding(1, temperature=1.0, top_p=0.6)  # two tokens reach it
        assert [chosen(some, d) for d in (0.62, 0.63, 0.999)] == [0, 1, 1]
        assert chosen(Decoding(1, temperature=1.0, top_p=0.4), 0.999) == 0

    @given(st.integers(0, 2**24 - 1), st.integers(1, 400), st.integers(0, 2**32 - 1))
    def test_a_token_without_a_chance_is_never_drawn(self, draw: int, n: int, seed: int) -> None:
        logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, n + 2)))
        logits[0, [0, -1]] = -torch.inf
        draws = np.array([draw / 2**24], dtype=np.float32)
        assert 0 < int(Decoding(1, temperature=1.0).choose(logits, draws)) <= n

    def test_a_number_that_is_none_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"not a number \(NaN\); load it with dtype float32"):
            Decoding(1).choose(torch.tensor([[0.0, math.nan]]), np.zeros(1))


def test_draws_come_from_seed_prompt_and_query() -> None:
    decoding, query = Decoding(5, temperature=1.0), Query((1,), (2,))
    draws = decoding.draws("a", query)
    assert draws.shape == (5,)
    assert np.array_equal(draws, decoding.draws("a", Query((1,), (2,), ((7,),))))
    others = [
        decoding.draws("b", query),
        decoding.draws("a", Query((1, 2), ())),
        Decoding(5, temperature=1.0, seed=1).draws("a", query),
    ]
    assert not any(np.array_equal(draws, other) for other in others)


class TestAtLeast:
    """Tokens are letters, and 0 ends an answer; two are to be written at the least."""

    end = AnswerEnd(
        lambda ids: "".join("?abcde"[i] for i in ids), {0, 99}, Decoding(4, ["b"], min_new_tokens=2)
    )

    def test_no_end_token_is_chosen_before(self) -> None:
        logits = torch.tensor([[3.0, 2.0, 1.0], [0.0, 1.0, 2.0]])
        found = [self.end.choose(logits, np.zeros(2), step).tolist() for step in range(3)]
        assert found == [[1, 2], [1, 2], [0, 2]]
        assert logits[0, 0] == 3

    @pytest.mark.parametrize(
        ("ids", "answer"),
        [
            ([2], None),
            ([1, 2], None),
            ([2, 2, 1], None),
            ([2, 1, 2], Generated((2, 1), "ba", "stop string")),
            ([1, 1, 0], Generated((1, 1), "aa", "end token")),
            ([2, 1, 1, 1], Generated((2, 1, 1, 1), "baaa", "length")),
        ],
    )
    def test_no_stop_string_counts_before(self, ids: list[int], answer: Generated | None) -> None:
        assert self.end.finished(ids) == answer

    def test_it_is_told_where_it_does_something(self) -> None:
        """Fingerprints of tasks are made of it, and stored answers are found by these."""
        before = (
            "Decoding(max_new_tokens=4, stop=('b',), temperature=0.0, top_k=0, top_p=1.0, seed=0"
        )
        assert repr(Decoding(4, ["b"])) == f"{before})"
        assert repr(Decoding(4, ["b"], min_new_tokens=2)) == f"{before}, min_new_tokens=2)"


class TestReader:
    @pytest.fixture
    def reader(self) -> AnswerEnd:
        """Tokens are letters, and 0 ends an answer."""
        decoding = Decoding(5, stop=("b", "cd"))
        return AnswerEnd(lambda ids: "".join("?abcde"[i] for i in ids), {0}, decoding)

    @pytest.mark.parametrize(
        ("ids", "answer"),
        [
            ([1, 3], None),
            ([1, 3, 0], Generated((1, 3), "ac", "end token")),
            ([0], Generated((), "", "end token")),
            ([1, 2], Generated((1,), "a", "stop string")),
            ([2], Generated((), "", "stop string")),
            ([1, 3, 4], Generated((1,), "a", "stop string")),
            ([1, 1, 1, 1, 3], Generated((1, 1, 1, 1, 3), "aaaac", "length")),
        ],
    )
    def test_tells_when_an_answer_is_whole(
        self, reader: AnswerEnd, ids: list[int], answer: Generated | None
    ) -> None:
        assert reader.finished(ids) == answer

    def test_a_stop_string_inside_a_token_keeps_the_token_that_begins_before_it(self) -> None:
        spelt = {1: "yes", 2: "!\nno"}
        reader = AnswerEnd(lambda ids: "".join(spelt[i] for i in ids), (), Decoding(9, stop=["\n"]))
        assert reader.finished([1, 2]) == Generated((1, 2), "yes!", "stop string")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; give 1 or more"),
        ({"min_new_tokens": 2}, "min_new_tokens is 2; give a number from 0 to max_new_tokens, 1"),
        ({"min_new_tokens": -1}, "min_new_tokens is -1"),
        ({"stop": "\n"}, r"give a list of strings, none of them empty"),
        ({"stop": ("",)}, r"give a list of strings, none of them empty"),
        ({"temperature": -1.0}, r"temperature is -1.0; give 0 \(greedy\) or above"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p is 0.0; give a number above 0"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decoding(**({"max_new_tokens": 1} | settings))  # type: ignore[arg-type]
