from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pytest
from drawing import Draw, DrawVectors
from fakes import FakeTask, split_of
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_lm

from rlprompt.data.examples import Example
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.search.analysis import MOST_PIECES, analyse, parts
from rlprompt.search.evaluation import Evaluator
from rlprompt.search.run import search, tokens_per_row
from rlprompt.tasks.base import Measured
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.template import Template

LM = tiny_lm()


def classification() -> ClassificationTask:
    return ClassificationTask(
        "fake", FakeTask().splits, Template("{text} {prompt}"), {"a": "good", "b": "bad"}
    )


class TestParts:
    @given(st.integers(0, 100))
    def test_they_cover_a_prompt_without_gaps(self, length: int) -> None:
        found = list(parts(length))
        assert [i for start, end in found for i in range(start, end)] == list(range(length))
        assert len(found) == min(length, MOST_PIECES)
        assert all(end > start for start, end in found)


class TestTokens:
    def test_each_token_is_left_out_once(self) -> None:
        task, prompt = FakeTask(), TokenPrompt((5, 6, 7))
        found = analyse(Evaluator(task, LM), prompt)
        assert [piece.text for piece in found.pieces] == [LM.decode([i]) for i in prompt.ids]
        rests = [TokenPrompt(ids) for ids in ((6, 7), (5, 7), (5, 6))]
        expected = [task.mean_reward(rest, "dev") for rest in rests]
        assert [piece.without.reward for piece in found.pieces] == pytest.approx(expected)
        assert found.neighbours == ()
        assert found.projection is None
        assert {split_of(task.splits, asked) for _, asked in task.calls} == {"dev"}

    def test_a_prompt_of_one_token_is_compared_with_none(self) -> None:
        task = FakeTask()
        (piece,) = analyse(Evaluator(task, LM), TokenPrompt((5,))).pieces
        assert piece.without.reward == pytest.approx(task.mean_reward(TokenPrompt(), "dev"))

    def test_no_prompt_has_no_parts(self) -> None:
        assert analyse(Evaluator(FakeTask(), LM), TokenPrompt()).pieces == ()


class TestVectors:
    def test_vectors_of_tokens_lie_at_no_distance_and_lose_nothing_as_tokens(self) -> None:
        ids = (9, 4, 30)
        prompt = SoftPrompt(LM.embeddings()[list(ids)])
        task = classification()
        found = analyse(Evaluator(task, LM), prompt)
        assert [one.text for one in found.neighbours] == [LM.decode([i]) for i in ids]
        assert [one.distance for one in found.neighbours] == pytest.approx([0, 0, 0], abs=1e-6)
        norms = np.linalg.norm(prompt.vectors, axis=1)
        assert [one.norm for one in found.neighbours] == pytest.approx(norms)
        assert [one.token_norm for one in found.neighbours] == pytest.approx(norms)
        assert found.projection is not None
        assert found.projection.ids == ids
        for split in ("dev", "test"):
            (expected,) = Evaluator(task, LM).scores([prompt], split)
            score = getattr(found.projection, split)
            assert score.reward == pytest.approx(expected.reward, abs=1e-3)

    def test_distances_are_euclidean(self) -> None:
        near = LM.embeddings()[[9]] + np.float32(1e-4)
        (one,) = analyse(Evaluator(classification(), LM), SoftPrompt(near)).neighbours
        assert one.distance == pytest.approx(1e-4 * np.sqrt(near.shape[1]), rel=1e-2)

    def test_a_task_that_takes_no_tokens_loses_the_analysis_alone(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        from fakes import FakeGradientTask

        result = search(FakeGradientTask(), LM, DrawVectors(), 10 * 3 * 3)
        assert result.status == "finished"
        assert result.best.test is not None
        assert result.analysis is not None
        assert result.analysis.problem.startswith("AssertionError")
        assert "was not taken apart" in caplog.text


class TestConclusion:
    def test_what_was_spent_beside_the_budget_is_counted_by_purpose(self) -> None:
        task = FakeTask()
        result = search(task, LM, Draw(), 40 * 3, length=4)
        asked = sum(len(prompts) * len(examples) for prompts, examples in task.calls)
        assert sum(result.outside_rows.values()) == asked - result.rows
        assert result.outside_rows["final scores"] == 3 + 5
        assert result.test_prompts == 1
        assert result.test_opened.endswith("+00:00")

    def test_test_is_opened_when_anything_is_scored_there(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = list[str]()

        class Watched(ClassificationTask):
            def measure(
                self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
            ) -> Measured:
                calls.append(split_of(self.splits, examples))
                return super().measure(lm, prompts, examples)

        one = classification()
        task = Watched(one.name, one.splits, one.template, one.label_words)
        monkeypatch.setattr(sys.modules[Evaluator.__module__], "now", lambda: f"{len(calls):09}")
        result = search(task, LM, DrawVectors(), 10 * 3)
        assert result.test_prompts == 2  # its nearest tokens, and then itself
        assert int(result.test_opened) == calls.index("test")

    def test_leaders_at_the_tenths_of_the_budget_are_scored_on_dev(self) -> None:
        task = FakeTask()
        result = search(task, LM, Draw(size=1), 40 * 3)
        led = [[rows for rows, _ in result.trace if rows <= 12 * i][-1] for i in range(1, 11)]
        assert [one.rows for one in result.incumbents] == sorted(set(led))
        assert len(result.trace_seconds) == len(result.trace)
        assert list(result.trace_seconds) == sorted(result.trace_seconds)
        last = result.incumbents[-1]
        assert last.rows == result.trace[-1][0]

    def test_test_metrics_and_answers_are_those_of_the_picked_prompt(self) -> None:
        task = classification()
        result = search(task, LM, Draw(), 40 * 3)
        right = [a == e.label for a, e in zip(result.test_answers, task.splits.test, strict=True)]
        assert result.test_metrics == tuple(map(float, right))
        assert result.best.test is not None
        assert result.best.test.metric == pytest.approx(np.mean(right))

    def test_tokens_are_those_of_text_prompt_and_answer(self) -> None:
        task = classification()
        texts = [LM.encode(f"{example.fields['text']}") for example in task.splits.train]
        mean = np.mean([len(text) for text in texts])
        found = tokens_per_row(task, LM, 4)
        assert found is not None
        lengths = task.lengths(LM, task.splits.train)
        assert found == pytest.approx(np.mean([sum(pair) for pair in lengths]) + 4)
        assert found >= mean + 4
        assert tokens_per_row(FakeTask(), LM, 4) is None
