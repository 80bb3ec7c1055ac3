"""A check ends in time on any model, and says what it left out for that."""

from __future__ import annotations

import time

import pytest
from broken_tasks import split
from slow_tasks import SlowTask, clock_of_sleep
from tiny import tiny_lm

from rlprompt.check.patience import Patience
from rlprompt.check.task import check_task
from rlprompt.data.examples import Splits

SPLITS = Splits(split("train", 16), split("dev", 8), split("test", 400))
SLOW = SlowTask(SPLITS)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock_of_sleep(monkeypatch, look=1e-4)


def findings(patience: Patience) -> tuple[set[str], float]:
    """The names of what a check of a slow task finds, none of it wrong, and its seconds."""
    began = time.perf_counter()
    report = check_task(SLOW, tiny_lm(), patience=patience)
    report.raise_if_failed()
    return {one.name for one in report.findings}, time.perf_counter() - began


def test_with_time_enough_nothing_is_left_out() -> None:
    patience = Patience(1e6)
    names, _ = findings(patience)
    assert patience.left_out == []
    assert names == {one.name for one in check_task(SLOW, tiny_lm()).findings}


@pytest.mark.parametrize("limit", [10.0, 30.0, 60.0, 90.0])
def test_what_there_is_no_time_for_is_left_out_and_named(limit: float) -> None:
    patience = Patience(limit)
    names, seconds = findings(patience)
    assert seconds < 1.2 * limit
    assert patience.left_out
    whole = findings(Patience(1e6))[0]
    assert names <= whole
    named = " ".join(patience.left_out)
    assert ("batch-size" in names) == ("whether token prompts" not in named)
    assert ("gradient" in names) == ("whether the gradient" not in named)
    assert ("signal" in names) == ("all of 16 random prompts" not in named)
    assert "model-unchanged" in names


def test_of_many_examples_as_many_are_scored_as_there_is_time_for() -> None:
    patience = Patience(120.0)
    assert "signal" in findings(patience)[0]
    report = check_task(SLOW, tiny_lm(), patience=Patience(120.0))
    (told,) = (one.text for one in report.findings if one.name == "every-example")
    assert "of 424 examples can be scored, the longest of each split first" in told
    count = int(told.split()[0])
    assert 0 < count < 424
    assert any(
        line.startswith(f"{424 - count} of 424 examples, scored once (")
        for line in patience.left_out
    )
