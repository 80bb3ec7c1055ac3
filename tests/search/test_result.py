from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.search.result import Candidate, Result, Score, prompt_from_state, prompt_state

numbers = st.floats(allow_nan=False, allow_infinity=False)
scores = st.none() | st.builds(Score, numbers, numbers)
token_prompts = st.lists(st.integers(0, 10**6), max_size=6).map(TokenPrompt)
soft_prompts = arrays(
    np.float32,
    st.tuples(st.integers(0, 3), st.integers(1, 4)),
    elements=st.floats(allow_nan=False, allow_infinity=False, width=32),
).map(SoftPrompt)
candidates = st.builds(
    Candidate,
    prompt=token_prompts | soft_prompts,
    text=st.text(),
    retypable=st.booleans(),
    train_reward=numbers,
    found_at_rows=st.integers(0, 10**9),
    train=scores,
    dev=scores,
    test=scores,
    prior=st.none() | st.dictionaries(st.text(min_size=1), st.floats(0, 1), max_size=3),
)
points = st.lists(st.tuples(st.integers(1, 10**9), numbers), max_size=4).map(tuple)


REQUIRED = [
    field.name
    for field in dataclasses.fields(Result)
    if field.default is field.default_factory is dataclasses.MISSING
]


def make(**changes: Any) -> Result:
    best = Candidate(TokenPrompt((5, 7)), " It was", True, 1.5, 64, Score(1.5, 0.9), None, None)
    made = Result(
        task="film",
        task_fingerprint="abc",
        model="tiny",
        fingerprint={"weights": "123", "dtype": "float32"},
        noise={"alone": 1e-6, "spread": 1.5},
        optimiser="RandomSearch",
        settings={"size": 4, "rates": [0.1, 0.2]},
        seed=0,
        length=2,
        status="finished",
        budget_rows=100,
        rows=96,
        n_prompts=3,
        n_distinct=2,
        lm_seconds=1.25,
        total_seconds=1.5,
        points=((32, 0.5), (64, 1.5), (96, 1.5)),
        candidates=(best,),
    )
    return dataclasses.replace(made, **changes)


class TestRoundTrip:
    @given(
        candidates=st.lists(candidates, max_size=3).map(tuple),
        points=points,
        lm_seconds=numbers,
        status=st.sampled_from(["finished", "interrupted", "failed"]),
        settings=st.dictionaries(
            st.text(), st.none() | st.booleans() | st.integers() | numbers | st.text(), max_size=3
        ),
    )
    def test_a_result_is_equal_after_it(self, **changes: Any) -> None:
        result = make(**changes)
        again = Result.from_json(result.to_json())
        assert again == result
        assert again.to_json() == result.to_json()

    @given(token_prompts | soft_prompts)
    def test_a_prompt_is_equal_after_it(self, prompt: Prompt) -> None:
        again = prompt_from_state(json.loads(json.dumps(prompt_state(prompt))))
        assert again == prompt
        assert again.digest == prompt.digest

    def test_what_was_written_before_there_were_priors_has_none(self) -> None:
        state = json.loads(make().to_json())
        del state["candidates"][0]["prior"]
        assert Result.from_json(json.dumps(state)) == make()
        assert make().best.prior is None

    def test_numbers_of_numpy_are_numbers(self) -> None:
        result = make(
            seed=np.int64(3), lm_seconds=np.float32(0.5), settings={"a": np.array([1, 2])}
        )
        state = json.loads(result.to_json())
        assert (state["seed"], state["lm_seconds"], state["settings"]) == (3, 0.5, {"a": [1, 2]})

    def test_the_text_says_which_format_it_is(self) -> None:
        assert json.loads(make().to_json())["format"] == 2

    def test_what_is_written_is_strict_json(self) -> None:
        with pytest.raises(ValueError, match="JSON compliant"):
            make(lm_seconds=math.nan).to_json()


class TestReading:
    @pytest.mark.parametrize(
        ("found", "said"),
        [
            (3, r"by a newer rlprompt \(format 3, this one reads 2\); update rlprompt"),
            (1, r"by an older rlprompt \(format 1, this one reads 2\); run the search again, or"),
        ],
    )
    def test_another_format_is_refused_with_advice(self, found: int, said: str) -> None:
        rests: list[dict[str, Any]] = [{}, json.loads(make().to_json())]
        for rest in rests:
            with pytest.raises(ValueError, match=f"this result was written {said}"):
                Result.from_json(json.dumps({**rest, "format": found}))

    @pytest.mark.parametrize(
        "text",
        ["", "{", "null", "[]", "5", '"text"', "{}", '{"format": 2}', '{"format": 1e999}'],
    )
    def test_what_is_no_result_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="not a result of rlprompt"):
            Result.from_json(text)

    @pytest.mark.parametrize("field", REQUIRED)
    def test_a_missing_part_is_named(self, field: str) -> None:
        state = json.loads(make().to_json())
        del state[field]
        with pytest.raises(ValueError, match=f"not a result of rlprompt.*{field}"):
            Result.from_json(json.dumps(state))

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("surprise",), 1),
            (("points",), [[1]]),
            (("points",), [[1, math.nan]]),
            (("candidates",), [{"prompt": {"ids": [1]}}]),
            (("candidates", 0, "prompt"), {"ids": [-1]}),
            (("candidates", 0, "prompt"), {"ids": "abc"}),
            (("candidates", 0, "prompt"), {}),
            (("candidates", 0, "prompt"), {"shape": [2, 2], "float32": "AAAA"}),
            (("candidates", 0, "prompt"), {"shape": [1, 1], "float32": "%%%"}),
            (("candidates", 0, "dev"), {"reward": 1.0}),
        ],
    )
    def test_a_broken_part_is_refused(self, path: tuple[Any, ...], value: Any) -> None:
        state = json.loads(make().to_json())
        *way, last = path
        part = state
        for step in way:
            part = part[step]
        part[last] = value
        with pytest.raises(ValueError, match="not a result of rlprompt"):
            Result.from_json(json.dumps(state))


class TestDerived:
    def test_the_trace_holds_improvements_only(self) -> None:
        result = make(points=((3, 0.5), (6, 0.2), (9, 0.5), (12, 0.7), (15, 0.6)))
        assert result.trace == ((3, 0.5), (12, 0.7))
        assert make(points=()).trace == ()

    @given(points)
    def test_the_trace_climbs(self, points: tuple[tuple[int, float], ...]) -> None:
        rewards = [reward for _, reward in make(points=points).trace]
        assert rewards == sorted(set(rewards))
        assert max([reward for _, reward in points], default=None) == (
            rewards[-1] if rewards else None
        )

    def test_the_mean_is_over_every_prompt_sampled(self) -> None:
        assert make(points=((3, 0.5), (6, 0.25), (9, 0.75))).mean_reward == 0.5
        assert math.isnan(make(points=()).mean_reward)

    def test_the_mean_of_those_that_stayed_in_a_race_is_none_of_all(self) -> None:
        points = ((3, 0.5), (6, 0.25))
        assert make(points=points, n_partial=0).mean_reward == 0.375
        assert math.isnan(make(points=points, n_partial=1).mean_reward)

    def test_it_cannot_be_changed(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            make().seed = 3  # type: ignore[misc]
